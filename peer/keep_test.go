package peer_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/roamfs/roamfs/peer"
	"github.com/roamfs/roamfs/peer/device"
	"github.com/roamfs/roamfs/peer/peertest"
	"github.com/roamfs/roamfs/peer/wire"
	"github.com/roamfs/roamfs/sync/block"
)

func TestProve(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHive(t, 4)
		h.archive(3)
		me, other, away, nas := h.devs[0], h.devs[1], h.devs[2], h.devs[3]
		data := random(100)
		onAll := me.blocks.Add(data)
		for _, d := range h.devs[1:] {
			d.blocks.Add(data)
		}
		data = random(100)
		onOther := me.blocks.Add(data)
		other.blocks.Add(data)
		data = random(100)
		onAway := me.blocks.Add(data)
		away.blocks.Add(data)
		nowhere := me.blocks.Add(random(100))
		h.net.ConnectAll()
		settle()
		h.net.Cut(me.id, away.id)
		h.net.Cut(me.id, nas.id)
		settle()

		began := time.Now()
		ids := []block.ID{onAll, onOther, onAway, nowhere, onAll}
		kept, err := me.Prove(t.Context(), ids, nil)
		if err != nil {
			t.Fatal(err)
		}
		if len(kept) != 2 || kept[0].ID != onAll || kept[1].ID != onOther {
			t.Fatalf("got %v", kept)
		}
		if k := kept[0]; !slices.Equal(k.Devices, []device.ID{nas.id}) || !k.Until.IsZero() || k.AsOf.After(began) {
			t.Errorf("by the archive: %+v", k)
		}
		if k := kept[1]; !slices.Equal(k.Devices, []device.ID{other.id}) || k.AsOf.Before(began) || !k.Until.Equal(k.AsOf.Add(time.Minute)) {
			t.Errorf("by an answer: %+v", k)
		}

		// This device does not vouch for what it was told it may drop, until some time
		// after it may; the rest is as before.
		if got, _ := other.Prove(t.Context(), []block.ID{onOther}, nil); len(got) != 0 {
			t.Errorf("the other may drop it, too: %+v", got)
		}
		pause(time.Until(kept[1].Until) + time.Second)
		if got, _ := other.Prove(t.Context(), []block.ID{onOther}, nil); len(got) != 0 {
			t.Errorf("the other may drop it just after the proof has lapsed: %+v", got)
		}
		pause(2 * time.Minute)
		if got, _ := other.Prove(t.Context(), []block.ID{onOther}, nil); len(got) != 1 {
			t.Errorf("the other may not drop it long after the proof has lapsed")
		}

		// An archive that was not heard of for a month does not count.
		pause(31 * 24 * time.Hour)
		if got, _ := me.Prove(t.Context(), []block.ID{onAll}, nil); len(got) != 1 || !slices.Equal(got[0].Devices, []device.ID{other.id}) {
			t.Errorf("after a month: %+v", got)
		}
		h.net.Connect(me.id, nas.id)
		settle()
		if got, _ := me.Prove(t.Context(), []block.ID{onAll}, nil); len(got) != 1 || !slices.Equal(got[0].Devices, []device.ID{nas.id}) {
			t.Errorf("after it came back: %+v", got)
		}
	})
}

// While connected, an archive's word does not grow old.
func TestWordIsConfirmed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHive(t, 2)
		h.archive(1)
		data := random(100)
		id := h.devs[0].blocks.Add(data)
		h.devs[1].blocks.Add(data)
		h.net.ConnectAll()
		pause(40 * 24 * time.Hour)
		got, err := h.devs[0].Prove(t.Context(), []block.ID{id}, nil)
		if err != nil || len(got) != 1 || time.Since(got[0].AsOf) > 2*time.Hour {
			t.Errorf("got %+v, %v", got, err)
		}
	})
}

// With two copies wanted elsewhere, an archive alone is not enough.
func TestProveCopies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHive(t, 3, func(_ int, c *peer.Config) { c.Copies = 2 })
		h.archive(2)
		data := random(100)
		id := h.devs[0].blocks.Add(data)
		h.devs[1].blocks.Add(data)
		h.devs[2].blocks.Add(data)
		h.net.ConnectAll()
		settle()
		got, err := h.devs[0].Prove(t.Context(), []block.ID{id}, nil)
		if err != nil || len(got) != 1 || len(got[0].Devices) != 2 || got[0].Until.IsZero() {
			t.Errorf("got %+v, %v", got, err)
		}
	})
}

// A damaged copy is not counted, nor one that an archive wants to drop.
func TestKeepIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHive(t, 2)
		data := random(100)
		id := h.devs[0].blocks.Add(data)
		h.devs[1].blocks.Add(data)
		h.devs[1].blocks.OnRead = func(block.ID, []byte) ([]byte, error) { return random(100), nil }
		h.net.ConnectAll()
		settle()
		if got, err := h.devs[0].Prove(t.Context(), []block.ID{id}, nil); err != nil || len(got) != 0 {
			t.Errorf("damaged copy: got %+v, %v", got, err)
		}
		h.devs[1].blocks.OnRead = nil
		h.archive(0)
		if got, err := h.devs[0].Prove(t.Context(), []block.ID{id}, nil); err != nil || len(got) != 0 {
			t.Errorf("archive asks: got %+v, %v", got, err)
		}
	})
}

// race lets all devices, each with a copy of the same blocks, try to drop them at
// the same time, while connections come and go. It returns how many copies were
// dropped, and how many blocks have none left.
func race(t *testing.T, seed uint64, devices int, mutate func(*peer.Exchange)) (dropped, lost int) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(seed, 1))
		h := newHive(t, devices)
		var ids []block.ID
		for range 8 {
			data := random(8)
			for _, d := range h.devs {
				d.blocks.Add(data)
			}
			ids = append(ids, block.Sum(data))
		}
		for i, a := range h.devs {
			if mutate != nil {
				mutate(a.Exchange)
			}
			for _, b := range h.devs[i+1:] {
				h.net.SetLink(a.id, b.id, peertest.Link{
					Latency: time.Duration(rng.IntN(20)) * time.Millisecond,
					Jitter:  time.Duration(1 + rng.IntN(50)*int(time.Millisecond)),
					Loss:    rng.Float64() / 2, Notice: time.Second,
				})
			}
		}
		h.net.ConnectAll()
		settle()
		var wg sync.WaitGroup
		var mu sync.Mutex
		for _, d := range h.devs {
			mine := slices.Clone(ids)
			rng.Shuffle(len(mine), func(i, j int) { mine[i], mine[j] = mine[j], mine[i] })
			var pauses [2][6]time.Duration
			for i := range pauses[0] {
				pauses[0][i] = time.Duration(rng.IntN(60)) * time.Millisecond
				pauses[1][i] = time.Duration(rng.IntN(2000)) * time.Millisecond
			}
			wg.Go(func() {
				for i := range pauses[0] {
					pause(pauses[0][i])
					part := mine[rand.N(len(mine)):]
					kept, err := d.Prove(t.Context(), part, nil)
					if err != nil && !errors.Is(err, peer.ErrNotConnected) {
						t.Error(err)
					}
					pause(pauses[1][i]) // eviction takes its time
					for _, k := range kept {
						if d.blocks.Has(k.ID) && len(k.Devices) > 0 && time.Now().Before(k.Until) {
							d.blocks.Drop(k.ID)
							mu.Lock()
							dropped++
							mu.Unlock()
						}
					}
				}
			})
		}
		stop := make(chan struct{})
		var cuts sync.WaitGroup
		cuts.Go(func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(300 * time.Millisecond):
					a, b := h.devs[rand.N(devices)], h.devs[rand.N(devices)]
					switch {
					case a == b:
					case rand.N(2) == 0:
						h.net.Partition(a.id, b.id)
					default:
						h.net.Connect(a.id, b.id)
					}
				}
			}
		})
		wg.Wait()
		close(stop)
		cuts.Wait()
		for _, id := range ids {
			if !slices.ContainsFunc(h.devs, func(d *dev) bool { return d.blocks.Has(id) }) {
				lost++
			}
		}
	})
	return dropped, lost
}

// Whatever devices do at the same time, one copy stays.
func TestLastCopyStays(t *testing.T) {
	total := 0
	for devices := 2; devices <= 4; devices++ {
		for seed := range uint64(60) {
			dropped, lost := race(t, seed, devices, nil)
			total += dropped
			if lost > 0 {
				t.Fatalf("%d devices, seed %d: %d blocks have no copy left", devices, seed, lost)
			}
		}
	}
	if total < 100 {
		t.Errorf("only %d copies were dropped: the test tests nothing", total)
	}
}

// The same without the rule that a device with an intent answers no: it must
// lose blocks, or TestLastCopyStays would not notice.
func TestLastCopyStaysCanFail(t *testing.T) {
	for devices := 2; devices <= 4; devices++ {
		lost := 0
		for seed := range uint64(60) {
			_, n := race(t, seed, devices, peer.AnswerDespiteIntent)
			lost += n
		}
		if lost == 0 {
			t.Errorf("%d devices: no block was lost without the rule", devices)
		}
	}
}

// A device that answers for fewer blocks than it was asked about is not believed.
func TestShortAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHive(t, 1)
		me := h.devs[0]
		id := me.blocks.Add(random(100))
		liar := h.net.Host(device.ID{9})
		t.Cleanup(func() { _ = liar.Close() })
		liar.Handle(wire.ControlProtocol, func(_ context.Context, _ device.ID, s wire.Stream) {
			r := wire.NewReader(s, wire.ControlLimits, time.Minute)
			if _, err := r.Message(); err != nil {
				return
			}
			var b []byte
			b = wire.Append(b, wire.Hello{Version: 1, Epoch: 1})
			b = wire.Append(b, wire.Hold{Reset: true, Final: true, Cursor: wire.Cursor{Epoch: 1}, Added: []block.ID{id}})
			_, _ = s.Write(b)
			for {
				m, err := r.Message()
				if err != nil {
					return
				}
				if q, ok := m.(wire.KeepQuery); ok {
					_, _ = s.Write(wire.Append(nil, wire.Keep{Nonce: wire.Nonce{1}, Bits: []bool{true}})) // of another question
					_, _ = s.Write(wire.Append(nil, wire.Keep{Nonce: q.Nonce, Bits: []bool{true, true}}))
				}
			}
		})
		h.net.ConnectAll()
		settle()
		if got, err := me.Prove(t.Context(), []block.ID{id}, nil); err != nil || len(got) != 0 {
			t.Errorf("got %+v, %v", got, err)
		}
	})
}

// Only devices that are informed are asked, and who they are is found out when the
// intents stand.
func TestProveAsksTheInformed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHive(t, 3)
		me := h.devs[0]
		data := random(100)
		id := me.blocks.Add(data)
		h.devs[1].blocks.Add(data)
		h.devs[2].blocks.Add(data)
		h.net.ConnectAll()
		settle()
		informed := func() ([]device.ID, error) {
			if !me.Intends(id) {
				t.Error("without an intent")
			}
			return []device.ID{h.devs[2].id}, nil
		}
		got, err := me.Prove(t.Context(), []block.ID{id}, informed)
		if err != nil || len(got) != 1 || !slices.Equal(got[0].Devices, []device.ID{h.devs[2].id}) {
			t.Errorf("got %+v, %v", got, err)
		}
	})
}

// Before Run nobody is asked, and nobody waits.
func TestProveBeforeRun(t *testing.T) {
	e := peer.New(peer.Config{
		Host: peertest.New(1).Host(device.ID{1}), Blocks: &peertest.Blocks{}, Holdings: &peertest.Holdings{},
		Members: func() []device.Member { return nil },
	})
	if got, err := e.Prove(t.Context(), []block.ID{{1}}, nil); len(got) != 0 || !errors.Is(err, peer.ErrNotConnected) {
		t.Errorf("got %v, %v", got, err)
	}
}
