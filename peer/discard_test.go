package peer_test

import (
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/roamfs/roamfs/peer"
	"github.com/roamfs/roamfs/peer/device"
	"github.com/roamfs/roamfs/sync/block"
)

// Garbage goes under the same discipline as all else: no yes from before it is
// looked for until long after, and none is looked for after a yes.
func TestDiscard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHive(t, 2)
		me, other := h.devs[0], h.devs[1]
		data := random(100)
		id := me.blocks.Add(data)
		other.blocks.Add(data)
		h.net.ConnectAll()
		settle()
		may := func() bool { // the other device relies on this one
			kept, err := other.Prove(t.Context(), []block.ID{id}, nil)
			if err != nil {
				t.Error(err)
			}
			return len(kept) > 0
		}
		discard := func() bool {
			got, err := me.Discard([]block.ID{id}, func(ids []block.ID) ([]block.ID, error) {
				if may() {
					t.Error("a yes while garbage is looked for")
				}
				return ids, nil
			})
			if err != nil {
				t.Error(err)
			}
			return len(got) > 0
		}
		if !discard() || !me.Intends(id) {
			t.Fatal("garbage is not found")
		}
		if may() {
			t.Error("a yes for what is about to go")
		}
		pause(peer.IntentFor + time.Second)
		if me.Intends(id) {
			t.Error("an intent without end")
		}
		if !may() {
			t.Error("no yes long after it should have gone")
		}
		if discard() {
			t.Error("garbage after a yes")
		}
		pause(peer.IntentFor + time.Second)
		if !discard() {
			t.Error("a yes binds for ever")
		}
		pause(peer.IntentFor + time.Second)
		if got, err := me.Discard([]block.ID{id}, func([]block.ID) ([]block.ID, error) { return nil, nil }); err != nil || len(got) > 0 || me.Intends(id) {
			t.Errorf("what is needed: %v, %v, intended %v", got, err, me.Intends(id))
		}
	})
}

// garbage lets devices that do not all know a file drop its block at the same
// time: those that know it after asking, the others as garbage. What each knows
// only grows; what it said that it knows, which the others go by, comes later. It
// returns how many copies were dropped, how many of them as garbage, and of how many files
// that are known somewhere nobody who knows them has the block.
func garbage(t *testing.T, seed uint64, heed bool, mutate func(*peer.Exchange)) (dropped, discarded, lost int) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		const devices, files = 3, 6
		rng := rand.New(rand.NewPCG(seed, 2))
		h := newHive(t, devices)
		var mu sync.Mutex
		knows := make([]map[block.ID]bool, devices) // by device
		said := make([]map[block.ID]bool, devices)
		var ids []block.ID
		for i := range devices {
			knows[i], said[i] = map[block.ID]bool{}, map[block.ID]bool{}
			if mutate != nil {
				mutate(h.devs[i].Exchange)
			}
		}
		for range files {
			data := random(8)
			id := block.Sum(data)
			ids = append(ids, id)
			for _, d := range h.devs {
				d.blocks.Add(data)
			}
			author := rng.IntN(devices)
			knows[author][id], said[author][id] = true, true
		}
		h.net.ConnectAll()
		settle()
		var wg sync.WaitGroup
		for i, d := range h.devs {
			var pauses [8]time.Duration
			for j := range pauses {
				pauses[j] = time.Duration(rng.IntN(300)) * time.Second
			}
			spread := time.Duration(rng.IntN(20)) * time.Minute
			wg.Go(func() { // learns, and says so a little later
				for _, id := range ids {
					pause(spread / files)
					mu.Lock()
					knows[i][id] = true
					mu.Unlock()
					pause(10 * time.Millisecond)
					mu.Lock()
					said[i][id] = true
					mu.Unlock()
				}
			})
			wg.Go(func() {
				for _, p := range pauses {
					pause(p)
					// What a device knows when it asks, who is asked must know.
					informed := func() (out []device.ID, err error) {
						mu.Lock()
						defer mu.Unlock()
						for j, o := range h.devs {
							all := true
							for id := range knows[i] {
								all = all && said[j][id]
							}
							if all || !heed {
								out = append(out, o.id)
							}
						}
						return out, nil
					}
					kept, err := d.Prove(t.Context(), ids, informed)
					if err != nil {
						t.Error(err)
					}
					var rest, gone []block.ID
					for _, id := range ids {
						if !slices.ContainsFunc(kept, func(k peer.Kept) bool { return k.ID == id }) {
							rest = append(rest, id)
						}
					}
					dead, err := d.Discard(rest, func(ids []block.ID) (out []block.ID, err error) {
						mu.Lock()
						defer mu.Unlock()
						for _, id := range ids {
							if !knows[i][id] {
								out = append(out, id)
							}
						}
						return out, nil
					})
					if err != nil {
						t.Error(err)
					}
					for _, k := range kept {
						gone = append(gone, k.ID)
					}
					pause(min(p/2, 50*time.Second)) // eviction takes its time
					for j, id := range append(gone, dead...) {
						if d.blocks.Has(id) {
							d.blocks.Drop(id)
							mu.Lock()
							dropped++
							if j >= len(gone) {
								discarded++
							}
							mu.Unlock()
						}
					}
				}
			})
		}
		wg.Wait()
		for _, id := range ids {
			if !slices.ContainsFunc(h.devs, func(d *dev) bool { return d.blocks.Has(id) }) {
				lost++
			}
		}
	})
	return dropped, discarded, lost
}

// A device that does not know of a file may take its block for garbage: one copy
// stays all the same, since nobody relies on such a device.
func TestGarbageIsNobodysCopy(t *testing.T) {
	seeds := uint64(60)
	run := func(heed bool, mutate func(*peer.Exchange)) (dropped, discarded, lost int) {
		for seed := range seeds {
			d, g, l := garbage(t, seed, heed, mutate)
			dropped, discarded, lost = dropped+d, discarded+g, lost+l
		}
		return dropped, discarded, lost
	}
	dropped, discarded, lost := run(true, nil)
	if lost > 0 {
		t.Errorf("%d blocks have no copy left", lost)
	}
	if discarded < 20 || dropped-discarded < 20 {
		t.Errorf("%d copies were dropped, %d as garbage: the test tests nothing", dropped, discarded)
	}
	if _, _, lost := run(false, nil); lost == 0 {
		t.Error("no block was lost when everybody was asked")
	}
	if _, _, lost := run(true, peer.AnswerDespiteIntent); lost == 0 {
		t.Error("no block was lost when a device with an intent answered yes")
	}
}
