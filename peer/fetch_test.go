package peer_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/roamfs/roamfs/peer"
	"github.com/roamfs/roamfs/peer/peertest"
	"github.com/roamfs/roamfs/sync/block"
)

func TestFetchFromHolder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHive(t, 3)
		sizes := []int{1, 100, 64 << 10, 256<<10 + 7, block.MaxSealed}
		data := make([][]byte, len(sizes))
		ids := make([]block.ID, len(sizes))
		for i, n := range sizes {
			data[i] = random(n)
			ids[i] = h.devs[1].blocks.Add(data[i])
		}
		h.net.ConnectAll()
		settle()
		for i := range sizes {
			for prio := peer.Demand; prio <= peer.Background; prio++ {
				fetch(t, h.devs[0], ids[i], prio, data[i])
				fetch(t, h.devs[2], ids[i], prio, data[i])
			}
		}
	})
}

// A block of which nobody said that he holds it is found by asking.
func TestFetchFindsUnannounced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHive(t, 4)
		h.net.ConnectAll()
		settle()
		d := h.devs[3]
		d.blocks.Changed = nil
		data := random(1000)
		id := d.blocks.Add(data)
		fetch(t, h.devs[0], id, peer.Demand, data)
	})
}

// A holder that lost the block says so, the asker corrects what it believes, and
// takes another holder.
func TestNotHaveCorrectsHoldings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHive(t, 3)
		data := random(1000)
		id := h.devs[1].blocks.Add(data)
		h.devs[2].blocks.Add(data)
		h.net.ConnectAll()
		settle()
		h.devs[1].blocks.Changed = nil
		h.devs[1].blocks.Drop(id)
		h.devs[2].blocks.Changed = nil
		h.devs[2].blocks.Drop(id)
		_, err := h.devs[0].Fetch(t.Context(), id, peer.Demand)
		if !errors.Is(err, block.ErrNoReplica) {
			t.Fatalf("got %v, want ErrNoReplica", err)
		}
		if devs, _ := h.devs[0].held.Holders(id); len(devs) != 0 {
			t.Errorf("still believes in holders %v", devs)
		}
	})
}

// Without any connection a read waits for one, up to the timeout; nobody else does.
func TestUnavailable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHive(t, 3)
		data := random(1000)
		id := h.devs[2].blocks.Add(data)
		h.net.ConnectAll()
		settle()
		h.net.Cut(h.devs[0].id, h.devs[1].id)
		h.net.Cut(h.devs[0].id, h.devs[2].id)
		pause(time.Minute)
		for prio, want := range []time.Duration{10 * time.Second, 0, 0} {
			began := time.Now()
			_, err := h.devs[0].Fetch(t.Context(), id, peer.Priority(prio))
			u, ok := errors.AsType[*block.UnavailableError](err)
			if !ok || !slices.Equal(u.Holders, []string{"d2"}) {
				t.Errorf("priority %d: got %v, want an error that names d2", prio, err)
			}
			if d := time.Since(began); d != want {
				t.Errorf("priority %d: took %v, want %v", prio, d, want)
			}
		}
		if u := h.devs[0].Unavailable(); len(u) != 1 || u[0].ID != id || u[0].Times != 1 {
			t.Errorf("remembered %v", u)
		}

		// Back in time.
		go func() {
			pause(3 * time.Second)
			h.net.Connect(h.devs[0].id, h.devs[2].id)
		}()
		fetch(t, h.devs[0], id, peer.Demand, data)
		if u := h.devs[0].Unavailable(); len(u) != 0 {
			t.Errorf("still remembered: %v", u)
		}

		// Another device is connected, but the one that has it was lost just now.
		h.net.Connect(h.devs[0].id, h.devs[1].id)
		h.net.Cut(h.devs[0].id, h.devs[2].id)
		go func() {
			pause(3 * time.Second)
			h.net.Connect(h.devs[0].id, h.devs[2].id)
		}()
		fetch(t, h.devs[0], id, peer.Demand, data)

		// The same long after: at once.
		h.net.Cut(h.devs[0].id, h.devs[2].id)
		pause(time.Minute)
		began := time.Now()
		if _, err := h.devs[0].Fetch(t.Context(), id, peer.Demand); !errors.Is(err, block.ErrNoReplica) || time.Since(began) > time.Second {
			t.Errorf("got %v after %v", err, time.Since(began))
		}
	})
}

// If nobody is known to hold a block, archives are named, or else who was hinted at.
func TestUnavailableNamesTheExpected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHive(t, 3)
		id := block.ID{1}
		h.devs[0].Hint(id, h.devs[1].id)
		names := func() string {
			_, err := h.devs[0].Fetch(t.Context(), id, peer.ReadAhead)
			u, _ := errors.AsType[*block.UnavailableError](err)
			return strings.Join(u.Holders, ",")
		}
		if got := names(); got != "d1" {
			t.Errorf("named %q, want d1", got)
		}
		h.archive(2)
		if got := names(); got != "d2" {
			t.Errorf("named %q, want d2", got)
		}
	})
}

func TestFetchEndsWithContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHive(t, 2)
		h.devs[1].blocks.OnRead = func(block.ID, []byte) ([]byte, error) {
			pause(time.Minute)
			return nil, errors.New("slow disk")
		}
		id := h.devs[1].blocks.Add(random(10))
		h.net.ConnectAll()
		settle()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		if _, err := h.devs[0].Fetch(ctx, id, peer.Demand); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		if d := time.Since(began); d != time.Second {
			t.Errorf("took %v", d)
		}
	})
}

// A device that sends other bytes is found out, named, and asked no more.
func TestLiar(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHive(t, 3)
		lie := func(_ block.ID, data []byte) ([]byte, error) {
			bad := slices.Clone(data)
			bad[len(bad)-1] ^= 1
			return bad, nil
		}
		h.devs[1].blocks.OnRead = lie
		data := random(300 << 10)
		id := h.devs[1].blocks.Add(data)
		h.net.Connect(h.devs[0].id, h.devs[1].id)
		settle()
		_, err := h.devs[0].Fetch(t.Context(), id, peer.Demand)
		if !errors.Is(err, block.ErrNoReplica) || !strings.Contains(err.Error(), "d1") {
			t.Fatalf("got %v, want an error that names d1", err)
		}
		if f := h.devs[0].Peers()[0]; f.Label != "d1" || f.Fault == "" {
			t.Errorf("not shown: %+v", f)
		}

		// An honest one is taken instead.
		h.devs[2].blocks.Add(data)
		h.net.ConnectAll()
		settle()
		h.devs[1].blocks.OnRead = func(block.ID, []byte) ([]byte, error) {
			t.Error("the liar was asked again")
			return nil, errors.New("asked")
		}
		fetch(t, h.devs[0], id, peer.Demand, data)
	})
}

// stall makes a device take d for each read.
func stall(b *peertest.Blocks, d time.Duration) {
	b.OnRead = func(_ block.ID, data []byte) ([]byte, error) {
		pause(d)
		return data, nil
	}
}

// Demand is hedged, the others are overtaken after a second.
func TestStallerIsOvertaken(t *testing.T) {
	for _, c := range []struct {
		prio  peer.Priority
		least time.Duration
		most  time.Duration
	}{
		{peer.Demand, 30 * time.Millisecond, 40 * time.Millisecond},
		{peer.ReadAhead, time.Second, 1300 * time.Millisecond},
		{peer.Background, 15 * time.Second, 16 * time.Second},
	} {
		synctest.Test(t, func(t *testing.T) {
			h := newHive(t, 3)
			h.net.SetLink(h.devs[0].id, h.devs[2].id, peertest.Link{Latency: time.Millisecond})
			data := random(1000)
			id := h.devs[1].blocks.Add(data)
			h.devs[2].blocks.Add(data)
			stall(h.devs[1].blocks, time.Hour) // nearer, and so asked first
			h.net.ConnectAll()
			settle()
			began := time.Now()
			fetch(t, h.devs[0], id, c.prio, data)
			if d := time.Since(began); d < c.least || d > c.most {
				t.Errorf("priority %d: took %v, want %v to %v", c.prio, d, c.least, c.most)
			}
		})
	}
}

// When hedging is over its budget, the next device is asked after a second.
func TestHedgeBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHive(t, 3)
		h.net.SetLink(h.devs[0].id, h.devs[2].id, peertest.Link{Latency: time.Millisecond})
		stall(h.devs[1].blocks, 100*time.Millisecond)
		h.net.ConnectAll()
		var hedged int
		for range 100 {
			data := random(10)
			id := h.devs[1].blocks.Add(data)
			h.devs[2].blocks.Add(data)
			settle()
			began := time.Now()
			fetch(t, h.devs[0], id, peer.Demand, data)
			if time.Since(began) < 100*time.Millisecond {
				hedged++
			}
		}
		if hedged == 0 || hedged > 60 {
			t.Errorf("%d of 100 were answered by the second device", hedged)
		}
	})
}

// A device that stops in the middle of a block is overtaken after 5 s, and a
// connection that is cut there at once.
func TestStopsInMidBlock(t *testing.T) {
	for name, c := range map[string]struct {
		stop func(h *hive)
		most time.Duration
	}{
		"silent": {func(h *hive) { h.net.Partition(h.devs[0].id, h.devs[1].id) }, 6500 * time.Millisecond},
		"cut":    {func(h *hive) { h.net.Cut(h.devs[0].id, h.devs[1].id) }, 1500 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHive(t, 3)
				h.net.SetLink(h.devs[0].id, h.devs[1].id, peertest.Link{Rate: 4e6, Notice: -1})
				h.net.SetLink(h.devs[0].id, h.devs[2].id, peertest.Link{Latency: 100 * time.Millisecond})
				data := random(4 << 20) // a second's worth, and each frame faster than hedging
				id := h.devs[1].blocks.Add(data)
				h.devs[2].blocks.Add(data)
				h.net.ConnectAll()
				settle()
				began := time.Now()
				time.AfterFunc(500*time.Millisecond, func() { c.stop(h) })
				fetch(t, h.devs[0], id, peer.Demand, data)
				if d := time.Since(began); d < 500*time.Millisecond || d > c.most {
					t.Errorf("took %v", d)
				}
			})
		})
	}
}

// A slow line is not a dead one: a block that takes longer than the timeout comes.
func TestSlowLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHive(t, 2)
		h.net.SetLink(h.devs[0].id, h.devs[1].id, peertest.Link{Rate: 100e3, Latency: 20 * time.Millisecond})
		data := random(4 << 20)
		id := h.devs[1].blocks.Add(data)
		h.net.ConnectAll()
		settle()
		began := time.Now()
		fetch(t, h.devs[0], id, peer.Demand, data)
		if d := time.Since(began); d < 30*time.Second {
			t.Errorf("took %v", d)
		}
	})
}

// A read does not wait for copies that are under way on the same line.
func TestDemandGoesFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHive(t, 2)
		h.net.SetLink(h.devs[0].id, h.devs[1].id, peertest.Link{Rate: 6e6, Latency: 20 * time.Millisecond})
		var ids []block.ID
		for range 32 {
			ids = append(ids, h.devs[1].blocks.Add(random(1<<20)))
		}
		want := random(256 << 10)
		wanted := h.devs[1].blocks.Add(want)
		h.net.ConnectAll()
		settle()
		done := make(chan error, len(ids))
		began := time.Now()
		for _, id := range ids {
			go func() {
				_, err := h.devs[0].Fetch(t.Context(), id, peer.Background)
				done <- err
			}()
		}
		pause(time.Second)
		read := time.Now()
		fetch(t, h.devs[0], wanted, peer.Demand, want)
		// 40 ms for the way, 44 ms for the bytes, and what the pipe in memory, which
		// is one queue for all streams, has taken in before: up to 1 MiB a stream.
		if d := time.Since(read); d > 350*time.Millisecond {
			t.Errorf("read took %v beside copies", d)
		}
		for range ids {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		if d := time.Since(began); d > 7*time.Second {
			t.Errorf("32 MiB at 6 MB/s took %v", d)
		}
	})
}

// Blocks are taken from several devices at once, from the faster ones more.
func TestStriping(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHive(t, 3)
		h.net.SetLink(h.devs[0].id, h.devs[1].id, peertest.Link{Rate: 10e6, Latency: 10 * time.Millisecond})
		h.net.SetLink(h.devs[0].id, h.devs[2].id, peertest.Link{Rate: 20e6, Latency: 10 * time.Millisecond})
		var ids []block.ID
		for range 120 {
			data := random(512 << 10)
			ids = append(ids, h.devs[1].blocks.Add(data))
			h.devs[2].blocks.Add(data)
		}
		h.net.ConnectAll()
		settle()
		began := time.Now()
		slots, done := make(chan struct{}, 16), make(chan error, len(ids))
		for _, id := range ids {
			slots <- struct{}{}
			go func() {
				_, err := h.devs[0].Fetch(t.Context(), id, peer.Background)
				<-slots
				done <- err
			}()
		}
		for range ids {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		// 63 MB: 2.1 s with both, 3.1 s with the faster one alone.
		if d := time.Since(began); d > 2700*time.Millisecond {
			t.Errorf("took %v", d)
		}
	})
}
