package app

import (
	"errors"
	"testing"

	"github.com/roamfs/roamfs/cache"
	"github.com/roamfs/roamfs/sync/block"
)

// TestStagingRoom: a tree is received within the bound, and without one within
// what the disk has.
func TestStagingRoom(t *testing.T) {
	for name, c := range map[string]struct {
		limit, n int64
		ok       bool
	}{
		"fits the bound":          {16 << 20, 1 << 20, true},
		"exceeds the bound":       {16 << 20, 32 << 20, false},
		"fits the disk":           {0, 1 << 20, true},
		"exceeds the disk by far": {0, 1 << 60, false},
	} {
		blocks, err := cache.Open(t.TempDir(), cache.Options{Limit: c.limit, Keep: true})
		if err != nil {
			t.Fatal(err)
		}
		d := &live{state: &State{dir: t.TempDir()}, cache: blocks}
		r, err := d.stagingRoom(t.Context(), c.n)
		if c.ok != (err == nil) || (err != nil && !errors.Is(err, block.ErrNoRoom)) {
			t.Errorf("%s: %v", name, err)
		}
		if got := blocks.Usage().Reserved; c.ok && got != c.n {
			t.Errorf("%s: %d bytes reserved", name, got)
		}
		if c.ok {
			r.Release()
		}
		if err := blocks.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
