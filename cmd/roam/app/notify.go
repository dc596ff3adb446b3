package app

import (
	"net"
	"os"
	"strings"
)

// notify tells systemd about the state of the daemon, in the protocol of
// sd_notify(3): "READY=1", "STATUS=…", "STOPPING=1". Without systemd, or if it
// does not listen, it does nothing.
func notify(state string) {
	name := os.Getenv("NOTIFY_SOCKET")
	if name == "" {
		return
	}
	if strings.HasPrefix(name, "@") {
		name = "\x00" + name[1:] // the abstract name space
	}
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		return
	}
	defer discard(c)
	_, _ = c.Write([]byte(state)) // advice; the service manager has its own timeout
}
