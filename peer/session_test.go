package peer_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/roamfs/roamfs/peer"
	"github.com/roamfs/roamfs/peer/device"
	"github.com/roamfs/roamfs/peer/peertest"
	"github.com/roamfs/roamfs/peer/wire"
	"github.com/roamfs/roamfs/sync/block"
)

// Messages come in order, between Connected and Disconnected, on both sides.
func TestMessages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHive(t, 2)
		h.net.SetLink(h.devs[0].id, h.devs[1].id, peertest.Link{Latency: 5 * time.Millisecond, Jitter: 20 * time.Millisecond})
		a, b := h.devs[0], h.devs[1]
		if err := a.Send(t.Context(), b.id, []byte("x")); !errors.Is(err, peer.ErrNotConnected) {
			t.Errorf("Send before the session: %v", err)
		}
		want := []string{"connected 0"}
		for round := range 2 {
			h.net.Connect(a.id, b.id)
			settle()
			for i := range 100 {
				msg := fmt.Sprintf("%d.%d", round, i)
				switch i % 3 {
				case 0:
					a.Broadcast([]byte(msg))
				case 1:
					if err := a.Send(t.Context(), b.id, []byte(msg)); err != nil {
						t.Fatal(err)
					}
				default:
					a.sync.mu.Lock()
					send := a.sync.send[b.id]
					a.sync.mu.Unlock()
					if err := send(t.Context(), []byte(msg)); err != nil {
						t.Fatal(err)
					}
				}
				want = append(want, "got "+msg)
			}
			settle()
			h.net.Cut(a.id, b.id)
			settle()
			want = append(want, "disconnected 0")
			if round == 0 {
				want = append(want, "connected 0")
			}
		}
		if got := b.sync.log(); !slices.Equal(got, want) {
			t.Errorf("got  %v\nwant %v", got, want)
		}
		if got, want := a.sync.log(), []string{"connected 1", "disconnected 1", "connected 1", "disconnected 1"}; !slices.Equal(got, want) {
			t.Errorf("sender saw %v, want %v", got, want)
		}
	})
}

func TestMessageSizes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHive(t, 2)
		a, b := h.devs[0], h.devs[1]
		var got [][]byte
		b.sync.receive = func(_ context.Context, _ device.ID, msg []byte) error {
			got = append(got, msg)
			return nil
		}
		h.net.ConnectAll()
		settle()
		for _, n := range []int{0, wire.MaxSync + 1} {
			if err := a.Send(t.Context(), b.id, make([]byte, n)); !errors.Is(err, peer.ErrMessageSize) {
				t.Errorf("%d bytes: %v", n, err)
			}
		}
		var want [][]byte
		for _, n := range []int{1, wire.MaxSync, 70000, wire.MaxSync, wire.MaxSync, wire.MaxSync, wire.MaxSync, 3} {
			msg := random(n)
			want = append(want, msg)
			if err := a.Send(t.Context(), b.id, bytes.Clone(msg)); err != nil {
				t.Fatal(err)
			}
		}
		settle()
		if !slices.EqualFunc(got, want, bytes.Equal) {
			t.Errorf("%d messages came of %d, or changed", len(got), len(want))
		}
	})
}

// While the layer above takes its time with a message, blocks, questions and
// announcements go on, senders of messages wait, and memory is bounded.
func TestSlowReceiver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHive(t, 2)
		a, b := h.devs[0], h.devs[1]
		free := make(chan struct{})
		b.sync.receive = func(ctx context.Context, _ device.ID, _ []byte) error {
			select {
			case <-free:
			case <-ctx.Done():
			}
			return nil
		}
		h.net.ConnectAll()
		settle()
		sent := 0
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		for {
			if err := a.Send(ctx, b.id, make([]byte, 1<<20)); err != nil {
				if !errors.Is(err, context.DeadlineExceeded) {
					t.Fatal(err)
				}
				break
			}
			sent++
		}
		if sent < 20 || sent > 40 {
			t.Errorf("%d MiB were taken", sent)
		}
		data := random(100 << 10)
		for i, d := range h.devs {
			id := h.devs[1-i].blocks.Add(data)
			settle()
			if devs, _ := d.held.Holders(id); len(devs) != 1 {
				t.Errorf("%s did not hear of the block", d.label)
			}
			if has, err := d.Ask(t.Context(), h.devs[1-i].id, []block.ID{id, {9}}); err != nil || !slices.Equal(has, []bool{true, false}) {
				t.Errorf("Ask: %v, %v", has, err)
			}
			fetch(t, d, id, peer.Demand, data)
		}
		close(free)
		settle()
		if err := a.Send(t.Context(), b.id, []byte("on it goes")); err != nil {
			t.Error(err)
		}
		settle()
		if log := a.sync.log(); len(log) != 1 {
			t.Errorf("the session did not last: %v", log)
		}
	})
}

// Who is told more than its queue takes loses its session, and begins anew.
func TestBroadcastToSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHive(t, 2)
		b := h.devs[1]
		b.sync.receive = func(ctx context.Context, _ device.ID, _ []byte) error {
			<-ctx.Done()
			return ctx.Err()
		}
		h.net.ConnectAll()
		settle()
		for range 40 {
			h.devs[0].Broadcast(make([]byte, 1<<20))
		}
		settle()
		if got, want := b.sync.log(), []string{"connected 0", "disconnected 0", "connected 0"}; !slices.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
	})
}

// An error of the layer above ends the session; a new one begins.
func TestReceiveFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHive(t, 2)
		b := h.devs[1]
		b.sync.receive = func(context.Context, device.ID, []byte) error { return errors.New("no") }
		h.net.ConnectAll()
		settle()
		h.devs[0].Broadcast([]byte("a"))
		settle()
		if got, want := b.sync.log(), []string{"connected 0", "disconnected 0", "connected 0"}; !slices.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
	})
}

// What is held travels: all to a new device, what it missed to one that was away,
// nothing when nothing has changed, also after a restart of the one that holds.
func TestHoldingsTravel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHive(t, 2)
		a, b := h.devs[0], h.devs[1]
		var ids []block.ID
		for range 10000 {
			ids = append(ids, b.blocks.Add(random(8)))
		}
		check := func(when string, n, forgot int) {
			t.Helper()
			if got := a.held.Held(b.id); got != n {
				t.Errorf("%s: %d blocks known of, want %d", when, got, n)
			}
			if got := a.held.Retellings(); got != forgot {
				t.Errorf("%s: told all %d times, want %d", when, got, forgot)
			}
		}
		h.net.ConnectAll()
		settle()
		check("at first", 10000, 1)
		b.blocks.Drop(ids[0])
		b.blocks.Add(random(8))
		b.blocks.Add(random(8))
		settle()
		check("while connected", 10001, 1)
		h.net.Cut(a.id, b.id)
		settle()
		for _, id := range ids[1:5000] {
			b.blocks.Drop(id)
		}
		h.net.ConnectAll()
		settle()
		check("after it was away", 5002, 1)

		b.stop()
		h.start(t, 1, b)
		h.net.ConnectAll()
		settle()
		check("after a restart", 5002, 1)
		b.blocks.Drop(ids[5000])
		settle()
		check("then", 5001, 1)

		b.stop()
		b.blocks.Changed = nil
		b.blocks.Drop(ids[5001])
		h.start(t, 1, b)
		h.net.ConnectAll()
		settle()
		check("after a change that was not announced", 5000, 2)

		// Gone without ever having been announced, twice added: no harm.
		b.Announce([]block.ID{ids[6000]}, []block.ID{{1}, {2}})
		b.Announce([]block.ID{ids[6000]}, []block.ID{{1}})
		settle()
		b.stop()
		h.start(t, 1, b)
		h.net.ConnectAll()
		settle()
		check("in the end", 5000, 2)
	})
}

// More changes than are remembered: told all.
func TestHoldingsOverrun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHive(t, 2)
		a, b := h.devs[0], h.devs[1]
		h.net.ConnectAll()
		settle()
		h.net.Cut(a.id, b.id)
		settle()
		for i := range 120000 {
			b.Announce([]block.ID{{1, byte(i), byte(i >> 8), byte(i >> 16), 1}}, nil)
		}
		kept := b.blocks.Add(random(10))
		h.net.ConnectAll()
		settle()
		if got := a.held.Retellings(); got != 2 {
			t.Errorf("told all %d times, want 2", got)
		}
		if devs, _ := a.held.Holders(kept); len(devs) != 1 {
			t.Errorf("holders %v", devs)
		}
	})
}

// Addresses are told, of third devices too, and again when they change.
func TestAddrsTravel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHive(t, 3)
		for i, d := range h.devs {
			d.host.SetAddrs(fmt.Sprintf("/ip4/10.0.0.%d/tcp/1", i), strings.Repeat("x", 300))
		}
		a, b, c := h.devs[0], h.devs[1], h.devs[2]
		h.net.Connect(a.id, b.id)
		settle()
		h.net.Connect(b.id, c.id)
		pause(10 * time.Second)
		if got := a.host.KnownAddrs(c.id); !slices.Equal(got, []string{"/ip4/10.0.0.2/tcp/1"}) {
			t.Errorf("d0 knows %q of d2", got)
		}
		b.host.SetAddrs("/ip4/10.0.0.9/tcp/1")
		pause(10 * time.Second)
		if got := a.host.KnownAddrs(b.id); !slices.Equal(got, []string{"/ip4/10.0.0.9/tcp/1"}) {
			t.Errorf("d0 knows %q of d1", got)
		}
	})
}

func TestPeers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHive(t, 3)
		h.net.SetLink(h.devs[0].id, h.devs[2].id, peertest.Link{Latency: time.Millisecond})
		h.net.Connect(h.devs[0].id, h.devs[2].id)
		settle()
		p := h.devs[0].Peers()
		if len(p) != 2 || p[0].Label != "d2" || !p[0].Connected || p[0].RTT != 2*time.Millisecond ||
			p[0].LastSeen.IsZero() || p[1].Connected || !p[1].LastSeen.IsZero() {
			t.Errorf("got %+v", p)
		}
	})
}
