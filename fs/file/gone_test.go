package file

import (
	"bytes"
	"context"
	"os"
	"testing"
)

// only returns the content of the one file that the tree has, after everything
// is committed, and checks that nothing else is left.
func (r *rig) only() []byte {
	r.tb.Helper()
	r.must(r.t.Flush(context.Background()))
	if len(r.tree.files) != 1 {
		r.tb.Fatalf("the tree has %d files", len(r.tree.files))
	}
	if e, _ := os.ReadDir(r.dir); len(e) > 0 || len(r.tree.draft) > 0 {
		r.tb.Fatalf("%d draft files and %d records left", len(e), len(r.tree.draft))
	}
	for ino := range r.tree.files {
		if n := len(r.tree.files[ino]); n != 1 {
			r.tb.Fatalf("in conflict with itself: %d versions", n)
		}
		return r.committed(r.node(ino))
	}
	return nil
}

// TestDeletedElsewhere: another device deletes a file that has a draft, and
// this one is restarted before it commits the draft.
func TestDeletedElsewhere(t *testing.T) {
	old := noise(1, 700<<10)
	for _, c := range []struct {
		name  string
		write func(*rig, *Handle) (want []byte)
	}{
		{"draft in the record", func(r *rig, h *Handle) []byte {
			r.write(h, []byte("precious"), 100)
			return splice(old, []byte("precious"), 100)
		}},
		{"draft file", func(r *rig, h *Handle) []byte {
			r.write(h, noise(2, 100<<10), 600<<10)
			return splice(old, noise(2, 100<<10), 600<<10)
		}},
		{"truncated", func(r *rig, h *Handle) []byte {
			r.must(h.Truncate(context.Background(), 10))
			return old[:10]
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t)
			ino := r.file(0, old)
			h := r.open(ino, true)
			want := c.write(r, h)
			r.must(h.Flush(context.Background()))
			r.tree.remove(ino)
			next := r.snapshot("the end").revive(t)
			defer func() { _ = os.RemoveAll(next.dir) }()
			if files, _ := next.t.Pending(); files != 1 {
				t.Errorf("%d files pending", files)
			}
			same(t, "committed", next.only(), want)
			if used := next.t.purse.used; used != 0 {
				t.Errorf("%d bytes of room still taken", used)
			}
		})
	}
}

func splice(p, q []byte, off int) []byte {
	p = bytes.Clone(p)
	copy(p[off:], q)
	return p
}

// TestCrashWhileItComesBack crashes at any step of the commit that makes a
// deleted file anew, with a flush in its middle: the file is there once, with what was
// flushed last.
func TestCrashWhileItComesBack(t *testing.T) {
	r := newRig(t)
	ino := r.file(0, noise(1, 700<<10))
	h := r.open(ino, true)
	r.write(h, noise(2, 100<<10), 0)
	r.must(h.Flush(context.Background()))
	r.tree.remove(ino)
	want := splice(noise(1, 700<<10), noise(2, 100<<10), 0)

	type cut struct {
		crash
		want []byte
	}
	var cuts []cut
	busy := false
	step := func(op string) error {
		if busy {
			return nil
		}
		busy = true
		defer func() { busy = false }()
		if op == "put block" && len(cuts) == 0 {
			r.write(h, noise(3, 100<<10), 300<<10)
			r.must(h.Flush(context.Background()))
			want = splice(want, noise(3, 100<<10), 300<<10)
		}
		cuts = append(cuts, cut{r.snapshot(op), want})
		return nil
	}
	r.t.sealing = make(chan struct{}, 1) // so that there is one step at a time
	r.tree.hook, r.blocks.hook = step, step
	r.must(r.t.Commit(context.Background(), ino))
	cuts = append(cuts, cut{r.snapshot("the next commit"), want})
	ops := map[string]bool{}
	for _, c := range cuts {
		ops[c.at] = true
		next := c.revive(t)
		if got := next.only(); differ(got, c.want) != "" {
			t.Errorf("after a crash before %s: %s", c.at, differ(got, c.want))
		}
		_ = os.RemoveAll(next.dir)
	}
	for _, op := range []string{"put block", "sync blocks", "write", "put draft", "sync tree"} {
		if !ops[op] {
			t.Errorf("no crash before %s", op)
		}
	}
	r.tree.hook, r.blocks.hook = nil, nil
	h.Release()
	same(t, "committed", r.only(), want)
}

// TestCrashBeforeRemoved: the user deletes a file that has a draft, and the
// device crashes before the table is told.
func TestCrashBeforeRemoved(t *testing.T) {
	r := newRig(t)
	ino := r.file(0, nil)
	h := r.open(ino, true)
	r.write(h, noise(2, 100<<10), 0)
	r.must(h.Flush(context.Background()))
	r.tree.unlink(ino)
	next := r.snapshot("Removed").revive(t)
	defer func() { _ = os.RemoveAll(next.dir) }()
	r.must(next.t.Flush(context.Background()))
	if e, _ := os.ReadDir(next.dir); len(e) > 0 || len(next.tree.files) > 0 {
		t.Errorf("%d draft files and %d files", len(e), len(next.tree.files))
	}
}
