package app

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/multiformats/go-multiaddr"
)

// parseAddress reads where a device can be reached: a multiaddress, or host:port,
// which stands for TCP and QUIC on that port.
func parseAddress(s string) ([]string, error) {
	wrong := fmt.Errorf("%q is not an address such as 192.168.1.5:4001", clip(s))
	if strings.HasPrefix(s, "/") {
		if _, err := multiaddr.NewMultiaddr(s); err != nil {
			return nil, wrong
		}
		return []string{s}, nil
	}
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return nil, wrong
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return nil, wrong
	}
	kind := "dns"
	if ip, err := netip.ParseAddr(host); err == nil {
		kind = "ip4"
		if ip.Is6() {
			kind = "ip6"
		}
	}
	var list []string
	for _, end := range []string{"/tcp/" + port, "/udp/" + port + "/quic-v1"} {
		a, err := multiaddr.NewMultiaddr("/" + kind + "/" + host + end)
		if err != nil {
			return nil, wrong
		}
		list = append(list, a.String())
	}
	return list, nil
}

// parseAddresses is parseAddress for the flag --address.
func parseAddresses(given []string) (all []string, err error) {
	for _, a := range given {
		list, err := parseAddress(a)
		if err != nil {
			return nil, usage("--address: %w", err)
		}
		all = append(all, list...)
	}
	return all, nil
}
