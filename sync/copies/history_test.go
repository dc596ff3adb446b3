package copies

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/roamfs/roamfs/peer/device"
	"github.com/roamfs/roamfs/sync/block"
	"github.com/roamfs/roamfs/sync/history"
	"github.com/roamfs/roamfs/sync/tree"
)

func (w *world) Roots() ([]Root, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.roots), nil
}

// snapshot makes a snapshot of files with these contents, all in a directory below
// the root, and returns the blocks of its directories, which are nowhere yet.
func (w *world) snapshot(cs ...content) content {
	w.t.Helper()
	w.made++
	dirs := content{dot: dot(w.made), all: map[block.ID][]byte{}}
	put := func(entries ...history.Entry) history.Object {
		data, err := history.Encode(entries)
		if err != nil {
			w.t.Fatal(err)
		}
		o, err := history.Put(data, w.keys, func(id block.ID, sealed []byte) error {
			dirs.all[id] = slices.Clone(sealed)
			return nil
		})
		if err != nil {
			w.t.Fatal(err)
		}
		return o
	}
	var files []history.Entry
	for i, c := range cs {
		files = append(files, history.Entry{Name: fmt.Sprint(i), Kind: tree.File, Size: c.Size, Ref: c.Ref, Inline: c.Inline})
	}
	sub := put(files...)
	root := put(history.Entry{Name: "sub", Kind: tree.Dir, Ref: sub.Ref, Size: sub.Size})
	w.mu.Lock()
	defer w.mu.Unlock()
	w.roots = append(w.roots, Root{Object: root, Dot: dirs.dot})
	return dirs
}

// TestArchiveCopiesSnapshots: an archive brings here what only a snapshot needs,
// directories, lists and data; what it lost it brings again; and it does not look
// again at what is complete.
func TestArchiveCopiesSnapshots(t *testing.T) {
	w := newWorld(t)
	k := w.keeper(true)
	x, y := w.make(3), w.make(1)
	dirs := w.snapshot(x)
	w.offer(x, dirs)
	slots := make(chan struct{}, parallel)
	copied := func() error { return k.copyFile(t.Context(), pastIno, slots) }
	if err := copied(); err != nil || w.missing(x)+w.missing(dirs) > 0 {
		t.Fatalf("%v: %d and %d blocks are missing", err, w.missing(x), w.missing(dirs))
	}
	more := w.snapshot(x, y)
	w.offer(more)
	if err := copied(); err == nil || w.missing(more) > 0 || w.missing(y) != 1 {
		t.Fatalf("%v: %d blocks of directories are missing, %d of a file that nobody offers", err, w.missing(more), w.missing(y))
	}
	w.offer(y)
	if err := copied(); err != nil || w.missing(y) > 0 {
		t.Fatalf("%v: %d blocks are missing", err, w.missing(y))
	}
	w.evict(x.data[1])
	if err := copied(); err != nil || w.missing(x) != 1 {
		t.Fatalf("%v: complete directories were gone through", err)
	}
	k.Dropped()
	if err := copied(); err != nil || w.missing(x) > 0 {
		t.Fatalf("%v: %d blocks are missing that were lost", err, w.missing(x))
	}
}

// TestGarbageLearnsSnapshots: directories and lists of snapshots that are not here
// are fetched, after which garbage can be told, also if the cache has no room.
func TestGarbageLearnsSnapshots(t *testing.T) {
	for _, noRoom := range []bool{false, true} {
		w := newWorld(t)
		w.noRoom = noRoom
		k := w.keeper(false)
		old, x := w.make(3), w.make(1)
		w.store(x)
		w.here[old.data[0]] = old.all[old.data[0]]
		w.offer(old, w.snapshot(old))
		ids := []block.ID{x.data[0], old.data[0]}
		if got, err := k.Garbage(ids, nothing); !errors.Is(err, ErrUnknown) {
			t.Fatalf("no room %v: at first %v, %v", noRoom, got, err)
		}
		settle(k)
		if got, err := k.Garbage(ids, nothing); err != nil || len(got) != 1 || got[0] != x.data[0] {
			t.Errorf("no room %v: garbage %v, %v", noRoom, got, err)
		}
		if w.Has(old.data[1]) {
			t.Errorf("no room %v: data was fetched", noRoom)
		}
		w.mu.Lock()
		w.roots = nil // the snapshot is removed
		w.mu.Unlock()
		if got, err := k.Garbage(ids, nothing); err != nil || len(got) != 2 {
			t.Errorf("no room %v: after the removal %v, %v", noRoom, got, err)
		}
	}
}

// TestInformedOfSnapshots: who does not know a snapshot may take what it needs for
// garbage.
func TestInformedOfSnapshots(t *testing.T) {
	w := newWorld(t)
	k := w.keeper(false)
	x := w.file(1, 1)
	w.share(dev(1), x)
	dirs := w.snapshot(x)
	for _, want := range [][]device.ID{nil, {dev(1)}} {
		if got, err := k.Informed(); err != nil || !slices.Equal(got, want) {
			t.Errorf("%v, %v; want %v", got, err, want)
		}
		w.share(dev(1), dirs)
	}
}

// TestDeepSnapshot: directories that lie deeper in each other than any tree has
// them are not followed, and keep garbage from being told.
func TestDeepSnapshot(t *testing.T) {
	w := newWorld(t)
	k := w.keeper(false)
	x := w.make(1)
	w.store(x)
	dir := history.Entry{Name: "x", Kind: tree.File, Size: x.Size, Ref: x.Ref}
	for range history.MaxDepth + 10 {
		data, err := history.Encode([]history.Entry{dir})
		if err != nil {
			t.Fatal(err)
		}
		o, err := history.Put(data, w.keys, func(id block.ID, sealed []byte) error { w.here[id] = slices.Clone(sealed); return nil })
		if err != nil {
			t.Fatal(err)
		}
		dir = history.Entry{Name: "d", Kind: tree.Dir, Ref: o.Ref, Size: o.Size}
	}
	w.roots = append(w.roots, Root{Object: dir.Object()})
	if got, err := k.Garbage(x.ids(), nothing); !errors.Is(err, ErrUnknown) {
		t.Errorf("garbage %v, %v", got, err)
	}
}
