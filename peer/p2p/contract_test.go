package p2p_test

import (
	"sync/atomic"
	"testing"

	"github.com/roamfs/roamfs/peer/device"
	"github.com/roamfs/roamfs/peer/p2p"
	"github.com/roamfs/roamfs/peer/peertest"
)

// The Host is a Transport as the one in memory is, over TCP and over QUIC.
func TestContract(t *testing.T) {
	for name, listen := range map[string][]string{"tcp": loopback[:1], "quic": loopback[1:]} {
		t.Run(name, func(t *testing.T) {
			peertest.Run(t, func(t *testing.T) (a, b peertest.End, connect, cut func()) {
				// Cut off means here that each stops to count the other as a member.
				var x, y gate
				m := newNode(t, func(c *p2p.Config) { c.Listen, c.Allowed = listen, x.allows })
				n := newNode(t, func(c *p2p.Config) { c.Listen, c.Allowed = listen, y.allows })
				connect = func() {
					x.open.Store(true)
					y.open.Store(true)
					m.Remember(n.id, n.Addrs())
				}
				cut = func() {
					x.open.Store(false)
					y.open.Store(false)
					m.Disconnect(n.id)
				}
				return peertest.End{Transport: m, ID: m.id}, peertest.End{Transport: n, ID: n.id}, connect, cut
			})
		})
	}
}

func (g *gate) allows(device.ID) bool { return g.open.Load() }

// gate is a list of members with all or none on it.
type gate struct{ open atomic.Bool }
