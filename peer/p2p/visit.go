package p2p

import (
	"context"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/roamfs/roamfs/peer/device"
)

const (
	// visitTime is how long a connection of a visitor lasts at most.
	visitTime = time.Minute
	// turnTime is how long [Config.TurnedAway] may take.
	turnTime = 10 * time.Second
)

// visitor returns the protocol that a device which is not allowed may use, or "".
func (h *Host) visitor(dev device.ID) string {
	if h.cfg.Visitor == nil {
		return ""
	}
	return h.cfg.Visitor(dev)
}

// admits is what the gate asks.
func (h *Host) admits(dev device.ID) bool { return h.allowed(dev) || h.visitor(dev) != "" }

// Receive sets what is done with streams for proto that visitors open; the rest is
// as for [Host.Handle].
func (h *Host) Receive(proto string, f func(ctx context.Context, dev device.ID, s Stream)) {
	h.visits.AddHandler(protocol.ID(proto), handler(h.ctx, func(ctx context.Context, dev device.ID, s Stream) {
		if h.visitor(dev) != proto {
			_ = s.Reset()
			return
		}
		f(ctx, dev, s)
	}))
}

// arrived takes notice of a new connection. That of a visitor is no entry of the
// Host: it is not pinged and not up.
func (h *Host) arrived(nc network.Conn) {
	dev, ok := deviceOf(nc.RemotePeer())
	if !ok || h.allowed(dev) || h.visitor(dev) == "" {
		h.conn(nc)
		return
	}
	if !h.spawn(func() {
		rest(h.ctx, visitTime)
		_ = nc.Close()
	}) {
		_ = nc.Close()
	}
}

// turnedAway asks why the other end of c has taken the connection and answered no
// ping on it, if that is so.
func (c *conn) turnedAway() {
	c.mu.Lock()
	up := c.isUp
	c.mu.Unlock()
	if up || c.isDead() || c.h.cfg.TurnedAway == nil {
		return
	}
	ctx, cancel := context.WithTimeout(c.h.ctx, turnTime)
	defer cancel()
	c.h.cfg.TurnedAway(ctx, c.dev, func(proto string) (Stream, error) {
		s, err := c.open(ctx, proto)
		if err != nil {
			return nil, err
		}
		return s, s.SetDeadline(time.Now().Add(turnTime))
	})
}
