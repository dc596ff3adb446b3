package p2p

import (
	"github.com/libp2p/go-libp2p/core/control"
	"github.com/libp2p/go-libp2p/core/network"
	lpeer "github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/roamfs/roamfs/peer/device"
)

// gate lets those devices connect and be dialed for which it returns true.
type gate func(device.ID) bool

func (g gate) allows(p lpeer.ID) bool {
	dev, ok := deviceOf(p)
	return ok && g(dev)
}

// InterceptPeerDial is asked before a device is dialed.
func (g gate) InterceptPeerDial(p lpeer.ID) bool { return g.allows(p) }

// InterceptAddrDial is asked before an address of a device is dialed.
func (g gate) InterceptAddrDial(p lpeer.ID, _ ma.Multiaddr) bool { return g.allows(p) }

// InterceptAccept is asked before anything is known of the other end. How many
// handshakes may be under way is the resource manager's to limit.
func (g gate) InterceptAccept(network.ConnMultiaddrs) bool { return true }

// InterceptSecured is asked when the other end has proven its key.
func (g gate) InterceptSecured(_ network.Direction, p lpeer.ID, _ network.ConnMultiaddrs) bool {
	return g.allows(p)
}

// InterceptUpgraded is asked when the connection is ready for streams.
func (g gate) InterceptUpgraded(c network.Conn) (bool, control.DisconnectReason) {
	return g.allows(c.RemotePeer()), 0
}
