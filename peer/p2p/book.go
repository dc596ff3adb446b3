package p2p

import (
	"net"
	"slices"
	"sync"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"github.com/roamfs/roamfs/peer/device"
)

const (
	maxAddrs   = 16 // remembered of one device
	maxDevices = 256
)

// book holds the last known addresses of devices, best first.
type book struct {
	learned func(device.ID, []string)

	mu    sync.Mutex
	addrs map[device.ID][]ma.Multiaddr // slices are replaced, never changed
}

func newBook(learned func(device.ID, []string)) *book {
	return &book{learned: learned, addrs: make(map[device.ID][]ma.Multiaddr)}
}

func (b *book) get(dev device.ID) []ma.Multiaddr {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.addrs[dev]
}

// add puts addrs before those that were known, and reports whether any is new.
func (b *book) add(dev device.ID, addrs []ma.Multiaddr) bool {
	if len(addrs) == 0 {
		return false
	}
	b.mu.Lock()
	old := b.addrs[dev]
	if old == nil && len(b.addrs) >= maxDevices {
		b.mu.Unlock()
		return false
	}
	list := make([]ma.Multiaddr, 0, len(addrs)+len(old))
	fresh := false
	for i, a := range slices.Concat(addrs, old) {
		if !contains(list, a) {
			list = append(list, a)
			fresh = fresh || i < len(addrs) && !contains(old, a)
		}
	}
	list = list[:min(len(list), maxAddrs):min(len(list), maxAddrs)]
	changed := !slices.EqualFunc(list, old, equal)
	b.addrs[dev] = list
	b.mu.Unlock()
	if changed && b.learned != nil {
		b.learned(dev, texts(list))
	}
	return fresh
}

// worked puts the address over which dev was reached first.
func (b *book) worked(dev device.ID, a ma.Multiaddr) {
	if a = usable(dev, a); a != nil {
		b.add(dev, []ma.Multiaddr{a})
	}
}

// Remember adds addresses under which a device may be reached, best first, to
// those that are known: at most 16 are kept. Those that are no addresses of a
// device are left out. While Run runs, the Host then connects to the device.
func (h *Host) Remember(dev device.ID, addrs []string) {
	if dev == h.self || !h.allowed(dev) {
		return
	}
	fresh := h.book.add(dev, parse(dev, addrs))
	h.dial(dev, fresh)
}

// KnownAddrs returns the addresses that are remembered of a device, best first.
func (h *Host) KnownAddrs(dev device.ID) []string { return texts(h.book.get(dev)) }

// Addrs returns the addresses of this device as they are now, best first; those
// on loopback come last.
func (h *Host) Addrs() []string {
	list := parse(h.self, h.cfg.External)
	list = append(list, resolve(h.sw.ListenAddresses(), interfaceIPs())...)
	return texts(list[:min(len(list), maxAddrs)])
}

// parse returns what is usable of addrs.
func parse(dev device.ID, addrs []string) []ma.Multiaddr {
	var list []ma.Multiaddr
	for _, s := range addrs {
		if a, err := ma.NewMultiaddr(s); err == nil {
			if a = usable(dev, a); a != nil && !contains(list, a) {
				list = append(list, a)
			}
		}
	}
	return list
}

// usable returns a without a trailing /p2p/ID, or nil if it is no address of dev
// that can be dialed: a host, and a TCP or QUIC port.
func usable(dev device.ID, a ma.Multiaddr) ma.Multiaddr {
	info, id := peer.SplitAddr(a)
	if id != "" {
		if got, ok := deviceOf(id); !ok || got != dev {
			return nil
		}
	}
	if a = info; len(a) < 2 {
		return nil
	}
	switch a[0].Protocol().Code {
	case ma.P_IP4, ma.P_IP6:
		ip := net.IP(a[0].RawValue())
		if ip.IsUnspecified() || ip.IsMulticast() || ip.IsLinkLocalUnicast() && ip.To4() == nil {
			return nil
		}
	case ma.P_DNS, ma.P_DNS4, ma.P_DNS6:
	default:
		return nil
	}
	if a[1].Value() == "0" {
		return nil
	}
	switch {
	case len(a) == 2 && a[1].Protocol().Code == ma.P_TCP,
		len(a) == 3 && a[1].Protocol().Code == ma.P_UDP && a[2].Protocol().Code == ma.P_QUIC_V1:
		return a
	}
	return nil
}

// resolve puts the addresses of interfaces in the place of wildcards, and sorts:
// TCP before QUIC, IPv4 before IPv6, loopback last.
func resolve(listen []ma.Multiaddr, ips []net.IP) []ma.Multiaddr {
	var list []ma.Multiaddr
	for _, a := range listen {
		if len(a) == 0 {
			continue
		}
		if !manet.IsIPUnspecified(a) {
			if !contains(list, a) {
				list = append(list, a)
			}
			continue
		}
		v4 := a[0].Protocol().Code == ma.P_IP4
		for _, ip := range ips {
			host, err := manet.FromIP(ip)
			if err != nil || (ip.To4() != nil) != v4 {
				continue
			}
			if full := host.Encapsulate(a[1:]); !contains(list, full) {
				list = append(list, full)
			}
		}
	}
	order := func(a ma.Multiaddr) int {
		n := 0
		if manet.IsIPLoopback(a) {
			n += 4
		}
		if a[0].Protocol().Code == ma.P_IP6 {
			n += 2
		}
		if isQUIC(a) {
			n++
		}
		return n
	}
	slices.SortStableFunc(list, func(a, b ma.Multiaddr) int { return order(a) - order(b) })
	return list
}

// interfaceIPs returns the addresses of the interfaces that are up, link-local
// ones left out.
func interfaceIPs() []net.IP {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	var ips []net.IP
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && !n.IP.IsLinkLocalUnicast() && !n.IP.IsMulticast() {
			ips = append(ips, n.IP)
		}
	}
	return ips
}

func equal(a, b ma.Multiaddr) bool { return a.Equal(b) }

func contains(list []ma.Multiaddr, a ma.Multiaddr) bool {
	return slices.ContainsFunc(list, a.Equal)
}

func texts(list []ma.Multiaddr) []string {
	out := make([]string, len(list))
	for i, a := range list {
		out[i] = a.String()
	}
	return out
}
