package cache

import (
	"testing"

	"github.com/roamfs/roamfs/sync/block"
)

// TestDemoted: what was demoted goes before everything else, pinned blocks and
// those that nobody else has excepted, and one that is asked for has its place back.
func TestDemoted(t *testing.T) {
	far := &elsewhere{blocks: map[block.ID][]byte{}}
	c := mustOpen(t, t.TempDir(), Options{Limit: 8 << 20, Prover: far, Fetcher: far})
	put := func(seed uint64, provable bool) block.ID {
		id, b := sealed(seed, 256<<10)
		if err := c.Put(t.Context(), id, b, Fetched); err != nil {
			t.Fatal(err)
		}
		if provable {
			far.put(id, b)
		}
		return id
	}
	old := []block.ID{put(1, true), put(2, true)}
	asked, pinned, alone := put(3, true), put(4, true), put(5, false)
	var used []block.ID
	for i := range uint64(18) {
		used = append(used, put(10+i, true))
	}
	for range 3 { // the old ones are used most
		for _, id := range append(old, asked) {
			if _, err := c.Get(t.Context(), id, Demand); err != nil {
				t.Fatal(err)
			}
		}
	}
	c.Pin(pinned)
	for _, id := range append(old, asked, pinned, alone, block.ID{9}) {
		c.Demote(id)
	}
	for _, id := range append(used, asked) { // a hit soon after another does not count
		if _, err := c.Get(t.Context(), id, Demand); err != nil {
			t.Fatal(err)
		}
	}
	// Until the old ones are gone nothing else goes.
	for i := uint64(0); c.Has(old[0]) || c.Has(old[1]); i++ {
		if i > 40 {
			t.Fatal("the demoted blocks stay")
		}
		put(100+i, true)
		for j, id := range used {
			if !c.Has(id) && (c.Has(old[0]) && c.Has(old[1])) {
				t.Fatalf("block %d went before those that were demoted", j)
			}
		}
	}
	for name, id := range map[string]block.ID{"one that was asked for": asked, "a pinned one": pinned, "one that nobody else has": alone} {
		if !c.Has(id) {
			t.Errorf("%s is gone", name)
		}
	}
}
