package copies

import (
	"errors"
	"testing"

	"github.com/roamfs/roamfs/sync/block"
	"github.com/roamfs/roamfs/sync/tree"
)

// nothing is needed beside the tree.
func nothing(func(block.ID)) {}

// TestGarbage: a block is garbage only if nothing needs it at any time.
func TestGarbage(t *testing.T) {
	for _, c := range []struct {
		name string
		// do may make something refer to x, which is here, or to y, which is file 2
		// and is here as well.
		do   func(w *world, k *Keeper, x, y content) (extra func(func(block.ID)))
		want bool // the blocks of x are garbage
		err  error
	}{
		{"nothing refers to it", func(*world, *Keeper, content, content) func(func(block.ID)) { return nothing }, true, nil},
		{"a file refers to it", func(w *world, _ *Keeper, x, _ content) func(func(block.ID)) {
			w.set(ino(1), x)
			return nothing
		}, false, nil},
		{"a conflict copy refers to it", func(w *world, _ *Keeper, x, y content) func(func(block.ID)) {
			w.set(ino(2), y, x)
			return nothing
		}, false, nil},
		{"an open file refers to it", func(_ *world, _ *Keeper, x, _ content) func(func(block.ID)) {
			return func(fn func(block.ID)) {
				for id := range x.all {
					fn(id)
				}
			}
		}, false, nil},
		{"a file is committed and closed while the tree is looked at", func(w *world, k *Keeper, x, _ content) func(func(block.ID)) {
			w.scanning = func() { // after the scan has begun, and over before it ends
				w.set(ino(1), x)
				k.Wrote(ino(1))
			}
			return nothing
		}, false, nil},
		{"a file that names it is adopted while the tree is looked at", func(w *world, k *Keeper, x, _ content) func(func(block.ID)) {
			w.scanning = func() {
				w.set(ino(1), x)
				k.Adopted([]tree.Ino{ino(1)})
			}
			return nothing
		}, false, nil},
		{"it may be brought back", func(w *world, _ *Keeper, x, _ content) func(func(block.ID)) {
			w.spare = append(w.spare, x.Content)
			return nothing
		}, false, nil},
		{"it is lost while the tree is looked at, and may be brought back", func(w *world, _ *Keeper, x, _ content) func(func(block.ID)) {
			w.scanning = func() { w.spare = append(w.spare, x.Content) }
			return nothing
		}, false, nil},
		{"it is brought back while the tree is looked at", func(w *world, _ *Keeper, x, _ content) func(func(block.ID)) {
			w.spare = append(w.spare, x.Content)
			w.scanning = func() { w.spare = nil }
			return nothing
		}, false, nil},
		{"something else may be brought back whose list is not here", func(w *world, _ *Keeper, _, _ content) func(func(block.ID)) {
			w.spare = append(w.spare, w.make(2).Content)
			return nothing
		}, true, nil},
		{"the list of some file is not here", func(w *world, _ *Keeper, _, y content) func(func(block.ID)) {
			w.evict(y.list)
			return nothing
		}, false, ErrUnknown},
		{"a file whose list is not here is adopted meanwhile", func(w *world, k *Keeper, _, _ content) func(func(block.ID)) {
			z := w.make(2)
			w.scanning = func() {
				w.set(ino(3), z)
				k.Adopted([]tree.Ino{ino(3)})
			}
			return nothing
		}, false, ErrUnknown},
		{"a snapshot refers to it", func(w *world, _ *Keeper, x, _ content) func(func(block.ID)) {
			w.store(w.snapshot(x))
			return nothing
		}, false, nil},
		{"a snapshot refers to something else", func(w *world, _ *Keeper, _, y content) func(func(block.ID)) {
			w.store(w.snapshot(y))
			return nothing
		}, true, nil},
		{"a directory of a snapshot is not here", func(w *world, _ *Keeper, _, y content) func(func(block.ID)) {
			w.snapshot(y)
			return nothing
		}, false, ErrUnknown},
		{"a list of a file that only a snapshot has is not here", func(w *world, _ *Keeper, _, _ content) func(func(block.ID)) {
			w.store(w.snapshot(w.make(2)))
			return nothing
		}, false, ErrUnknown},
		{"a list is not here, but other files refer to it", func(w *world, _ *Keeper, x, y content) func(func(block.ID)) {
			w.evict(y.list)
			w.set(ino(3), x)
			return nothing
		}, false, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			k := w.keeper(false)
			x := w.make(3)
			w.store(x)
			got, err := k.Garbage(x.ids(), c.do(w, k, x, w.file(2, 2)))
			if !errors.Is(err, c.err) {
				t.Fatalf("error %v, want %v", err, c.err)
			}
			if (len(got) > 0) != c.want || c.want && len(got) != len(x.all) {
				t.Errorf("%d of %d blocks are garbage", len(got), len(x.all))
			}
			if len(k.watch.of) > 0 {
				t.Error("it goes on watching")
			}
		})
	}
}

// TestGarbageLearnsLists: lists that are missing are fetched, after which garbage
// can be told: none that one of them names, even if the cache has no room for it.
func TestGarbageLearnsLists(t *testing.T) {
	for _, noRoom := range []bool{false, true} {
		w := newWorld(t)
		w.noRoom = noRoom
		k := w.keeper(false)
		far, gone := w.make(3), w.make(2)
		w.set(ino(1), far) // a file of another device, which uses a block that is here
		w.set(ino(2), gone)
		shared := far.data[1]
		w.here[shared] = far.all[shared]
		x := w.make(1)
		w.store(x)
		ids := []block.ID{x.data[0], shared}
		check := func(when string, want int, err error) {
			t.Helper()
			got, e := k.Garbage(ids, nothing)
			if !errors.Is(e, err) || len(got) != want || want == 1 && got[0] != x.data[0] {
				t.Errorf("no room %v, %s: garbage %v, %v", noRoom, when, got, e)
			}
		}
		check("at first", 0, ErrUnknown)
		settle(k)
		check("nobody is there", 0, ErrUnknown)
		if k.learn.len() != 2 || len(k.learn.order) > 0 {
			t.Errorf("no room %v: asked for again at once", noRoom)
		}
		w.offer(far)
		k.Reconnected()
		settle(k)
		check("one list is missing still", 0, ErrUnknown)
		w.set(ino(2))
		check("its file is deleted", 1, nil)
		if w.Has(far.list) == noRoom || w.Has(far.data[0]) {
			t.Errorf("no room %v: the list is here %v, a block of data %v", noRoom, w.Has(far.list), w.Has(far.data[0]))
		}
	}
}
