package peer_test

import (
	"context"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/roamfs/roamfs/peer/device"
	"github.com/roamfs/roamfs/peer/peertest"
	"github.com/roamfs/roamfs/peer/wire"
	"github.com/roamfs/roamfs/sync/block"
)

// told is a device whose announcements a test makes itself. It answers no question.
type told struct {
	t    *testing.T
	host *peertest.Host
	mu   sync.Mutex
	s    wire.Stream // of the session; nil: none yet
}

func newTold(t *testing.T, h *hive, dev device.ID, role device.Role) *told {
	t.Helper()
	x := &told{t: t, host: h.net.Host(dev)}
	h.members = append(h.members, device.Member{ID: dev, Label: "told", Role: role})
	t.Cleanup(func() { _ = x.host.Close() })
	x.host.Handle(wire.ControlProtocol, func(_ context.Context, _ device.ID, s wire.Stream) {
		send(s, wire.Hello{Version: 1, Epoch: 1})
		x.mu.Lock()
		x.s = s
		x.mu.Unlock()
		r := wire.NewReader(s, wire.ControlLimits, time.Hour)
		for {
			if _, err := r.Message(); err != nil {
				return
			}
		}
	})
	return x
}

func (x *told) tell(m wire.Hold) {
	x.mu.Lock()
	send(x.s, m)
	x.mu.Unlock()
	settle()
}

// While an archive tells all anew, what it said before shows where blocks are, but
// proves nothing until it is said again; and what is left of an announcement
// that broke off never does.
func TestRetelling(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHive(t, 1)
		me := h.devs[0]
		nas := device.ID{9}
		x := newTold(t, h, nas, device.Archive)
		old, again := me.blocks.Add(random(100)), me.blocks.Add(random(100))
		check := func(when string, known, proven []block.ID, since time.Time) {
			t.Helper()
			var got []block.ID
			for _, id := range []block.ID{old, again} {
				if devs, _ := me.held.Holders(id); len(devs) > 0 {
					got = append(got, id)
				}
			}
			if !slices.Equal(got, known) {
				t.Errorf("%s: held are %v, want %v", when, got, known)
			}
			kept, _ := me.Prove(t.Context(), []block.ID{old, again}, nil)
			got = nil
			for _, k := range kept {
				got = append(got, k.ID)
				if k.AsOf.Before(since) {
					t.Errorf("%s: by a word of before", when)
				}
			}
			if !slices.Equal(got, proven) {
				t.Errorf("%s: proven are %v, want %v", when, got, proven)
			}
		}
		both := []block.ID{old, again}
		h.net.ConnectAll()
		settle()
		x.tell(wire.Hold{Reset: true, Added: both})
		x.tell(wire.Hold{Final: true, Cursor: wire.Cursor{Epoch: 1}})
		check("told once", both, both, time.Time{})

		pause(time.Hour)
		began := time.Now()
		x.tell(wire.Hold{Reset: true})
		check("it begins anew", both, nil, began)
		x.tell(wire.Hold{Added: both[1:]})
		check("one was named again", both, both[1:], began)
		x.tell(wire.Hold{Final: true, Cursor: wire.Cursor{Epoch: 2}})
		check("all was told", both[1:], both[1:], began)

		x.tell(wire.Hold{Added: both[:1]})
		x.tell(wire.Hold{Reset: true, Added: both[1:]})
		h.net.Cut(me.id, nas)
		settle()
		check("it broke off", both, nil, began)
		h.net.Connect(me.id, nas)
		settle()
		x.tell(wire.Hold{Final: true, Cursor: wire.Cursor{Epoch: 2}})
		check("it goes on where nothing was", both, nil, began)
	})
}
