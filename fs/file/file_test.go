package file

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"testing"

	"github.com/roamfs/roamfs/sync/tree"
)

func TestWriteReadCommit(t *testing.T) {
	for name, size := range map[string]int{
		"empty": 0, "inline": 50, "one byte over inline": 65, "small": 4096, "small draft limit": smallDraft,
		"draft file": smallDraft + 1, "whole": 500 << 10, "cut": 5<<20 + 123,
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			want := noise(1, size)
			ino := r.file(0, want)
			n := r.node(ino)
			same(t, "committed", r.committed(n), want)
			h := r.open(ino, false)
			defer h.Release()
			same(t, "read", content(t, h), want)
			if files, _ := r.t.Pending(); files != 0 {
				t.Errorf("%d files pending", files)
			}
			if e, _ := os.ReadDir(r.dir); len(e) != 0 {
				t.Errorf("%d draft files left", len(e))
			}
			if r.t.purse.used != 0 {
				t.Errorf("%d bytes of room still taken", r.t.purse.used)
			}
		})
	}
}

func TestHandlesShareTheDraft(t *testing.T) {
	r := newRig(t)
	ino := r.file(0, []byte("hello"))
	w, rd := r.open(ino, true), r.open(ino, false)
	r.write(w, []byte("J"), 0)
	same(t, "reader", content(t, rd), []byte("Jello"))
	if _, err := w.Append(context.Background(), []byte(" world")); err != nil {
		t.Fatal(err)
	}
	same(t, "reader", content(t, rd), []byte("Jello world"))
	if n := r.t.Stat(r.node(ino)); n.Size != 11 {
		t.Errorf("stat: %d bytes", n.Size)
	}
	if _, err := rd.WriteAt(context.Background(), []byte("x"), 0); !errors.Is(err, ErrNotWritable) {
		t.Errorf("write through a reader: %v", err)
	}
}

func TestReaderKeepsItsVersion(t *testing.T) {
	r := newRig(t)
	ino := r.file(0, []byte("one"))
	old := r.open(ino, false)
	r.tree.replace(ino, tree.Content{Kind: tree.File, Size: 3, Inline: []byte("two")})
	fresh := r.open(ino, false)
	same(t, "old", content(t, old), []byte("one"))
	same(t, "fresh", content(t, fresh), []byte("two"))
	w := r.open(ino, true)
	r.write(w, []byte("T"), 0)
	same(t, "old", content(t, old), []byte("one"))
	same(t, "fresh", content(t, fresh), []byte("Two"))
}

func TestWriterOfAnOldVersionMakesAConflict(t *testing.T) {
	r := newRig(t)
	ino := r.file(0, []byte("one"))
	w := r.open(ino, true)
	r.tree.replace(ino, tree.Content{Kind: tree.File, Size: 3, Inline: []byte("two")})
	w2 := r.open(ino, true) // sees "two"
	r.write(w, []byte("O"), 0)
	same(t, "writer", content(t, w), []byte("One"))
	r.write(w2, []byte("!"), 2) // joins the draft that is there
	same(t, "second writer", content(t, w2), []byte("On!"))
	r.must(r.t.Flush(context.Background()))
	r.write(w2, []byte("?"), 2)
	r.must(r.t.Flush(context.Background()))
	var got []string
	for _, n := range r.tree.files[ino] {
		got = append(got, string(n.Inline))
	}
	if len(got) != 2 || got[0] != "two" || got[1] != "On?" {
		t.Errorf("versions %q, want both", got)
	}
}

func TestOpenOfAStaleNode(t *testing.T) {
	r := newRig(t)
	ino := r.file(0, []byte("old"))
	stale := r.node(ino)
	w := r.open(ino, true)
	r.write(w, []byte("new"), 0)
	r.must(r.t.Commit(context.Background(), ino))
	w.Release()
	if n := r.t.Stat(stale); string(n.Inline) != "new" {
		t.Errorf("stat shows %q", n.Inline)
	}
	h, err := r.t.Open(stale, false, false)
	r.must(err)
	same(t, "read", content(t, h), []byte("new"))
}

func TestTruncate(t *testing.T) {
	r := newRig(t)
	full := noise(3, 300<<10)
	ino := r.file(0, full)
	ctx := context.Background()
	r.must(r.t.Truncate(ctx, r.node(ino), 100<<10))
	r.must(r.t.Truncate(ctx, r.node(ino), 200<<10))
	want := append(bytes.Clone(full[:100<<10]), make([]byte, 100<<10)...)
	h := r.open(ino, false)
	same(t, "draft", content(t, h), want)
	r.must(r.t.Flush(ctx))
	same(t, "committed", r.committed(r.node(ino)), want)
	same(t, "after", content(t, h), want)
	h2, err := r.t.Open(r.node(ino), true, true)
	r.must(err)
	if h.Size() != 0 {
		t.Errorf("size %d after O_TRUNC", h.Size())
	}
	r.write(h2, []byte("x"), 10)
	r.must(r.t.Flush(ctx))
	same(t, "committed", r.committed(r.node(ino)), append(make([]byte, 10), 'x'))
}

func TestHoles(t *testing.T) {
	r := newRig(t)
	ctx := context.Background()
	ino := inoOf(0)
	r.tree.create(ino)
	h := r.open(ino, true)
	const gib = 1 << 30
	r.write(h, noise(1, 8192), 0)
	r.write(h, noise(2, 8192), 3*gib)
	r.must(h.Truncate(ctx, 5*gib))
	check := func(what string) {
		t.Helper()
		for _, c := range []struct {
			off, data, hole int64
		}{{0, 0, -1}, {gib, 3 * gib, gib}, {4 * gib, -1, 4 * gib}, {5*gib - 1, -1, 5*gib - 1}, {5 * gib, -1, -1}} {
			d, err := h.SeekData(c.off)
			if errors.Is(err, io.EOF) {
				d = -1
			} else {
				r.must(err)
			}
			if d > c.data || d < c.data-holeUnit || c.data == -1 && d != -1 {
				t.Errorf("%s: SeekData(%d) = %d, want %d", what, c.off, d, c.data)
			}
			d, err = h.SeekHole(c.off)
			if errors.Is(err, io.EOF) {
				d = -1
			} else {
				r.must(err)
			}
			if c.hole != -1 && d != c.hole || c.hole == -1 && d > 1<<20 {
				t.Errorf("%s: SeekHole(%d) = %d, want %d", what, c.off, d, c.hole)
			}
		}
	}
	check("draft")
	r.must(r.t.Flush(ctx))
	check("committed")
	if len(r.blocks.blocks) > 4 {
		t.Errorf("%d blocks for two pieces", len(r.blocks.blocks))
	}
	r.must(h.Allocate(ctx, 0, 4*gib, true, true, false))
	check2 := make([]byte, 8192)
	if n, err := h.ReadAt(ctx, check2, 3*gib); n != 8192 || err != nil || !zeros(check2) {
		t.Errorf("punched range: %d, %v", n, err)
	}
	r.must(r.t.Flush(ctx))
	if n := r.node(ino); !n.Ref.ID.IsZero() || n.Size != 5*gib {
		t.Errorf("all hole: %+v", n.Ref)
	}
}

func TestWriteToRemoteFileFetchesLittle(t *testing.T) {
	r := newRig(t)
	ino := r.file(0, noise(9, 40<<20))
	r.blocks.away()
	r.start() // nothing in memory
	h := r.open(ino, true)
	r.write(h, []byte("change"), 20<<20)
	if len(r.blocks.fetched) != 0 {
		t.Errorf("the write fetched %d blocks", len(r.blocks.fetched))
	}
	r.must(r.t.Commit(context.Background(), ino))
	if n := len(r.blocks.fetched); n > 12 {
		t.Errorf("the commit fetched %d blocks", n)
	}
	want := noise(9, 40<<20)
	copy(want[20<<20:], "change")
	same(t, "committed", r.committed(r.node(ino)), want)
}

func TestRemoved(t *testing.T) {
	r := newRig(t)
	ino := inoOf(0)
	r.tree.create(ino)
	h := r.open(ino, true)
	r.write(h, noise(1, 100<<10), 0)
	r.must(h.Flush(context.Background()))
	r.tree.unlink(ino)
	r.t.Removed(ino)
	if len(r.tree.draft) != 0 {
		t.Error("the journal keeps a removed file")
	}
	r.write(h, []byte("still here"), 0)
	r.must(h.Flush(context.Background()))
	r.must(h.Sync(context.Background()))
	if got := content(t, h); !bytes.HasPrefix(got, []byte("still here")) {
		t.Errorf("read %q", got[:10])
	}
	r.must(r.t.Flush(context.Background()))
	h.Release()
	if e, _ := os.ReadDir(r.dir); len(e) != 0 || len(r.tree.draft) != 0 || len(r.t.all) != 0 || r.t.purse.used != 0 {
		t.Errorf("left: %d files, %d records, %d inodes, %d bytes of room", len(e), len(r.tree.draft), len(r.t.all), r.t.purse.used)
	}
}

func TestSetMTime(t *testing.T) {
	r := newRig(t)
	ino := r.file(0, []byte("x"))
	if r.t.SetMTime(ino, 5) {
		t.Fatal("a clean file took the time")
	}
	h := r.open(ino, true)
	r.write(h, []byte("y"), 0)
	if !r.t.SetMTime(ino, 5) {
		t.Fatal("the draft did not take the time")
	}
	if n := r.t.Stat(r.node(ino)); n.MTime != 5 {
		t.Errorf("stat: %d", n.MTime)
	}
	r.must(r.t.Flush(context.Background()))
	if n := r.node(ino); n.MTime != 5 {
		t.Errorf("committed: %d", n.MTime)
	}
	r.write(h, noise(1, 100), 0) // closed, and then the time is set
	r.must(h.Flush(context.Background()))
	r.t.SetMTime(ino, 6)
	crashed := r.snapshot("the end").revive(t)
	defer func() { _ = os.RemoveAll(crashed.dir) }()
	if n := crashed.t.Stat(crashed.node(ino)); n.MTime != 6 {
		t.Errorf("after a crash: %d", n.MTime)
	}
	r.write(h, []byte("z"), 0)
	if n := r.t.Stat(r.node(ino)); n.MTime == 6 {
		t.Error("a write leaves the time alone")
	}
}

// TestCutAnew checks that a content cut only where it changed has the blocks
// that it has when it is cut as a whole.
func TestCutAnew(t *testing.T) {
	base := noise(1, 6<<20)
	insert := func(p []byte, off int, q []byte) []byte { return slices.Concat(p[:off], q, p[off:]) }
	for name, c := range map[string]struct {
		want []byte
		off  int // from where it is written
		n    int
	}{
		"overwritten": {slices.Concat(base[:2<<20], noise(2, 1000), base[2<<20+1000:]), 2 << 20, 1000},
		"head":        {slices.Concat(noise(2, 1000), base[1000:]), 0, 1000},
		"appended":    {slices.Concat(base, noise(2, 100)), 6 << 20, 100},
		"much":        {slices.Concat(base, noise(2, 3<<20)), 6 << 20, 3 << 20},
		"inserted":    {insert(base, 1<<20, noise(2, 100)), 1 << 20, 5<<20 + 100},
		"truncated":   {base[:4<<20], 0, 0},
		"a little":    {base[:6<<20-10], 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			ino := r.file(0, base)
			before := len(r.blocks.blocks)
			h := r.open(ino, true)
			if c.n > 0 {
				r.write(h, c.want[c.off:c.off+c.n], int64(c.off))
			}
			r.must(h.Truncate(context.Background(), int64(len(c.want))))
			r.must(r.t.Flush(context.Background()))
			same(t, "committed", r.committed(r.node(ino)), c.want)
			if c.n < 1<<20 && len(r.blocks.blocks)-before > 8 {
				t.Errorf("%d new blocks", len(r.blocks.blocks)-before)
			}
			whole := newRig(t)
			fresh := whole.node(whole.file(1, c.want))
			// One overwritten in place is cut in another way, but not if it was cut before.
			if got := r.node(ino).Ref; got != fresh.Ref {
				t.Errorf("cut anew: %+v, as a whole: %+v", got, fresh.Ref)
			}
		})
	}
}

// TestHolesKeepPiecesInPlace punches a file that is updated in place, whose
// pieces begin at multiples of 64 KiB.
func TestHolesKeepPiecesInPlace(t *testing.T) {
	r := newRig(t)
	ctx := context.Background()
	p := noise(1, 2<<20)
	copy(p, "SQLite format 3\x00")
	ino := r.file(0, p)
	h := r.open(ino, true)
	r.must(h.Allocate(ctx, 300_000, 400_000, true, true, false))
	clear(p[300_000:700_000])
	r.must(r.t.Flush(ctx))
	same(t, "committed", r.committed(r.node(ino)), p)
	y, err := r.t.layout(ctx, r.t.lookup(ino).base)
	r.must(err)
	holes := 0
	for i, e := range y.ext {
		if y.off[i]%holeUnit != 0 {
			t.Errorf("extent %d begins at %d", i, y.off[i])
		}
		if e.Hole {
			holes++
		}
	}
	if holes != 1 {
		t.Errorf("%d holes", holes)
	}
}
