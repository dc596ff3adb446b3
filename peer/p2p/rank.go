package p2p

import (
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// second is by how much the lesser transport is dialed later than the better one.
const second = 250 * time.Millisecond

// rank is the order in which the addresses of a device are dialed: at once TCP on
// loopback and private networks and QUIC on public ones, the other of both a
// little later, names between them. The first that is connected wins.
func rank(addrs []ma.Multiaddr) []network.AddrDelay {
	ranked := make([]network.AddrDelay, 0, len(addrs))
	better := false // whether any address is dialed at once
	for _, a := range addrs {
		p := pathOf(a)
		var d time.Duration
		if p.lan == p.quic {
			d = second
		} else {
			better = true
		}
		ranked = append(ranked, network.AddrDelay{Addr: a, Delay: d})
	}
	if !better {
		for i := range ranked {
			ranked[i].Delay = 0
		}
	}
	slices.SortStableFunc(ranked, func(a, b network.AddrDelay) int { return int(a.Delay - b.Delay) })
	return ranked
}

// path is the kind of a connection.
type path struct{ lan, quic bool }

func pathOf(a ma.Multiaddr) path {
	if a == nil {
		return path{}
	}
	_, err := a.ValueForProtocol(ma.P_QUIC_V1)
	return path{lan: manet.IsPrivateAddr(a) || manet.IsIPLoopback(a), quic: err == nil}
}

// String returns the name of the path in words.
func (p path) String() string {
	s := "tcp"
	if p.quic {
		s = "quic"
	}
	if p.lan {
		s = "lan " + s
	}
	return s
}

// worse orders paths from the best to the worst.
func (p path) worse() int {
	switch {
	case p.lan && !p.quic:
		return 0
	case p.lan:
		return 1
	case p.quic:
		return 2
	default:
		return 3
	}
}
