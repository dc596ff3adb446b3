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

// TestOldOnlyHere: what only snapshots need is counted as far as it is here and
// nowhere else, once for all of them, and not what a file needs that is counted anyway.
func TestOldOnlyHere(t *testing.T) {
	w := newWorld(t)
	k := w.keeper(false)
	old, now := w.make(3), w.file(1, 2)
	dirs, more := w.snapshot(old, now), w.snapshot(now, old)
	w.store(old, dirs, more)
	only := func() int64 {
		t.Helper()
		settle(k)
		n, all, err := k.OldOnlyHere(t.Context())
		if err != nil || !all {
			t.Fatalf("all is told: %v, %v", all, err)
		}
		return n
	}
	k.Wrote(ino(1))
	var listed int64 // sizes of the directories
	for _, d := range []content{dirs, more} {
		w.hold(dev(1), d.ids()...)
	}
	if n := only(); n != old.Size+1 { // its list counts as a byte
		t.Fatalf("%d bytes, of %d", n, old.Size)
	}
	for _, d := range []content{dirs, more} {
		w.unhold(dev(1), d.ids()...)
	}
	if listed = only() - old.Size - 1; listed <= 0 {
		t.Fatalf("directories count for %d bytes", listed)
	}
	w.hold(dev(1), old.data[0])
	if n := only(); n != old.Size*2/3+1+listed {
		t.Fatalf("with one of three blocks elsewhere, %d bytes", n)
	}
	w.hold(dev(1), old.ids()...)
	if n := only(); n != listed {
		t.Fatalf("with all of it elsewhere, %d bytes", n)
	}
	w.set(ino(1)) // deleted: the snapshots have it
	k.Adopted([]tree.Ino{ino(1)})
	if n := only(); n != listed+now.Size+1 {
		t.Fatalf("after the file was deleted, %d bytes", n)
	}
	w.evict(now.list)
	if _, all, err := k.OldOnlyHere(t.Context()); err != nil || all {
		t.Fatalf("without a list, all is told: %v, %v", all, err)
	}
}
