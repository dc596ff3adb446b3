package p2p

import (
	"errors"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// watchAddrs returns a channel that gets a value when addresses or links of this
// computer change (rtnetlink(7)), or nil if the kernel does not tell. stop must
// be called.
func watchAddrs() (changes <-chan struct{}, stop func()) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, func() {}
	}
	f := os.NewFile(uintptr(fd), "rtnetlink")
	groups := uint32(unix.RTMGRP_LINK | unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV6_IFADDR)
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups}); err != nil {
		_ = f.Close()
		return nil, func() {}
	}
	ch := make(chan struct{}, 1)
	var wg sync.WaitGroup
	wg.Go(func() {
		buf := make([]byte, 8<<10)
		for {
			// What changed is not looked at: a full buffer (ENOBUFS) is a change, too.
			if _, err := f.Read(buf); err != nil && !isNoBuffers(err) {
				return
			}
			select {
			case ch <- struct{}{}:
			default:
			}
		}
	})
	return ch, func() {
		_ = f.Close()
		wg.Wait()
	}
}

func isNoBuffers(err error) bool { return errors.Is(err, unix.ENOBUFS) }
