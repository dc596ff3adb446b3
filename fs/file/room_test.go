package file

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/roamfs/roamfs/sync/block"
	"github.com/roamfs/roamfs/sync/tree"
)

func TestNoRoomCommitsAndGoesOn(t *testing.T) {
	r := newRig(t)
	r.blocks.limit = 24 << 20
	one, two := inoOf(1), inoOf(2)
	r.tree.create(one)
	r.tree.create(two)
	h1, h2 := r.open(one, true), r.open(two, true)
	p := noise(1, 8<<20)
	r.write(h1, p, 0)
	r.write(h2, p[:2<<20], 0) // more would not fit
	r.write(h2, p[2<<20:6<<20], 2<<20)
	if r.node(one).Size != 8<<20 {
		t.Error("the other draft was not committed")
	}
	same(t, "second file", content(t, h2), p[:6<<20])
	r.must(r.t.Flush(context.Background()))
	if r.t.purse.used != 0 {
		t.Errorf("%d bytes of room still taken", r.t.purse.used)
	}
}

func TestNoRoomAtAll(t *testing.T) {
	synctest.Test(t, noRoomAtAll)
}

func noRoomAtAll(t *testing.T) {
	r := newRig(t)
	r.blocks.limit = 1 << 20
	ino := inoOf(1)
	r.tree.create(ino)
	h := r.open(ino, true)
	p := noise(1, 256<<10)
	var err error
	n := 0
	for ; n < 100 && err == nil; n++ {
		_, err = h.WriteAt(context.Background(), p, int64(n*len(p)))
	}
	if !errors.Is(err, block.ErrNoRoom) {
		t.Fatalf("%v after %d writes", err, n)
	}
	if h.Size() != int64((n-1)*len(p)) {
		t.Errorf("size %d after %d writes", h.Size(), n-1)
	}
	// What was written is readable and committed.
	got := content(t, h)
	for off := 0; off < len(got); off += len(p) {
		same(t, "content", got[off:off+len(p)], p)
	}
	r.must(r.t.Flush(context.Background()))
	// The writer waits after a commit, since that may let blocks go; without
	// anything to commit it fails at once.
	r.t.progress.Store(0)
	begin := time.Now()
	if _, err := h.WriteAt(context.Background(), noise(2, 900<<10), 0); !errors.Is(err, block.ErrNoRoom) {
		t.Fatal(err)
	}
	if d := time.Since(begin); d > time.Second {
		t.Errorf("waited %v with nothing to wait for", d)
	}
}

// TestStreamThroughSmallRoom writes a file much larger than the room, while
// another device takes the blocks.
func TestStreamThroughSmallRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		const limit = 16 << 20
		r.blocks.limit = limit
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() { // the archive takes 20 MB/s
			defer close(done)
			tick := time.NewTicker(50 * time.Millisecond)
			defer tick.Stop()
			left := int64(0)
			for {
				select {
				case <-ctx.Done():
					return
				case <-tick.C:
				}
				left = min(left+1<<20, 2<<20)
				r.blocks.mu.Lock()
				for id, b := range r.blocks.blocks {
					if n := roundUp(int64(len(b))); !r.blocks.remote[id] && n <= left {
						r.blocks.remote[id] = true
						r.blocks.used -= n
						left -= n
					}
				}
				r.blocks.mu.Unlock()
			}
		}()
		ino := inoOf(1)
		r.tree.create(ino)
		h := r.open(ino, true)
		const size = 6 * limit
		p := noise(1, size)
		for off := 0; off < size; off += 128 << 10 {
			r.write(h, p[off:off+128<<10], int64(off))
		}
		r.must(h.Flush(ctx))
		h.Release()
		r.must(r.t.Flush(ctx))
		cancel()
		<-done
		same(t, "committed", r.committed(r.node(ino)), p)
	})
}

func TestWaitForRoomEndsWithTheReader(t *testing.T) {
	r := newRig(t, func(o *Options) { o.Draining = func() bool { return true } })
	r.blocks.limit = 1 << 20
	ino := inoOf(1)
	r.tree.create(ino)
	h := r.open(ino, true)
	ctx, cancel := context.WithCancel(context.Background())
	time.AfterFunc(10*time.Millisecond, cancel)
	if _, err := h.WriteAt(ctx, noise(1, 4<<20), 0); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}

// TestFailedCommitKeepsTheDraft lets commits fail for want of room.
func TestFailedCommitKeepsTheDraft(t *testing.T) {
	r := newRig(t)
	ino := inoOf(1)
	r.tree.create(ino)
	h := r.open(ino, true)
	p := noise(1, 3<<20)
	r.write(h, p, 0)
	r.must(h.Flush(context.Background()))
	fail := true
	r.blocks.hook = func(op string) error {
		if op == "put block" && fail {
			return block.ErrNoRoom
		}
		return nil
	}
	if err := r.t.Flush(context.Background()); !errors.Is(err, block.ErrNoRoom) {
		t.Fatal(err)
	}
	if files, bytes := r.t.Pending(); files != 1 || bytes != 3<<20 {
		t.Errorf("pending: %d files, %d bytes", files, bytes)
	}
	r.write(h, []byte("later"), 100)
	copy(p[100:], "later")
	same(t, "draft", content(t, h), p)
	if len(r.tree.draft) != 1 || r.node(ino).Size != 0 {
		t.Error("the failed commit left its mark")
	}
	fail = false
	r.must(r.t.Flush(context.Background()))
	same(t, "committed", r.committed(r.node(ino)), p)
	if r.t.purse.used != 0 {
		t.Errorf("%d bytes of room still taken", r.t.purse.used)
	}
}

func TestGoneFileKeepsItsDraft(t *testing.T) {
	r := newRig(t)
	ino := inoOf(1)
	n := r.tree.create(ino)
	h := r.open(ino, true)
	r.write(h, []byte("precious"), 0)
	r.tree.create(inoOf(2))
	delete(r.tree.files, ino) // nobody knows where it was
	r.must(h.Flush(context.Background()))
	h.Release()
	if err := r.t.Flush(context.Background()); !errors.Is(err, errGone) {
		t.Fatal(err)
	}
	r.start()
	if files, _ := r.t.Pending(); len(r.tree.draft) != 1 || files != 1 {
		t.Fatal("the draft is lost")
	}
	r.tree.files[ino] = []tree.Node{n} // it comes back
	r.start()
	r.must(r.t.Flush(context.Background()))
	same(t, "committed", r.committed(r.node(ino)), []byte("precious"))
}
