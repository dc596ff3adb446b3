package file

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/roamfs/roamfs/sync/tree"
)

// pass lets time pass in a bubble.
func pass(d time.Duration) { <-time.After(d) }

// TestWhenDraftsAreCommitted runs in fake time.
func TestWhenDraftsAreCommitted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		stop := r.background(t)
		defer stop()
		ino := inoOf(1)
		r.tree.create(ino)
		begin := time.Now()
		commits := func() int {
			synctest.Wait()
			r.tree.mu.Lock()
			defer r.tree.mu.Unlock()
			return r.tree.writes
		}
		want := func(n int, what string) {
			t.Helper()
			if got := commits(); got != n {
				t.Fatalf("after %v, %s: %d commits, want %d", time.Since(begin), what, got, n)
			}
		}
		h := r.open(ino, true)
		r.write(h, noise(1, 1000), 0)
		want(0, "open")
		h.Release()
		want(1, "closed for the first time")
		h = r.open(ino, true)
		r.write(h, noise(2, 1000), 0)
		r.must(h.Flush(context.Background()))
		h.Release()
		pass(900 * time.Millisecond)
		want(1, "closed again within a second")
		pass(200 * time.Millisecond)
		want(2, "a second later")
		pass(2 * time.Second)
		h = r.open(ino, true)
		r.write(h, noise(3, 1000), 0)
		pass(900 * time.Millisecond)
		want(2, "open and written to")
		pass(200 * time.Millisecond)
		want(3, "quiet for a second")
		for range 49 {
			r.write(h, noise(4, 1000), 0)
			pass(100 * time.Millisecond)
		}
		want(3, "written to all the time for almost 5 s")
		r.write(h, noise(4, 1000), 0)
		pass(200 * time.Millisecond)
		want(4, "the same for more than 5 s")
		h.Release()
		pass(lingering + time.Second)
		if commits(); len(r.t.all)+len(r.t.files) != 0 {
			t.Errorf("%d inodes are remembered", len(r.t.all))
		}
		pass(lingering + time.Second)
		if synctest.Wait(); r.t.purse.held != 0 {
			t.Errorf("%d bytes are reserved by nobody", r.t.purse.held)
		}
	})
}

func TestRetry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		stop := r.background(t)
		defer stop()
		fails := 6
		tries := 0
		r.blocks.hook = func(op string) error {
			if op != "put block" {
				return nil
			}
			tries++
			if tries <= fails {
				return errCut
			}
			return nil
		}
		ino := inoOf(1)
		r.tree.create(ino)
		h := r.open(ino, true)
		r.write(h, noise(1, 1000), 0)
		h.Release()
		pass(time.Minute)
		synctest.Wait()
		if tries != fails+1 || r.tree.writes != 1 {
			t.Errorf("%d tries and %d commits", tries, r.tree.writes)
		}
		same(t, "committed", r.committed(r.node(ino)), noise(1, 1000))
	})
}

// TestGroup checks that many small files share the syncs.
func TestGroup(t *testing.T) {
	synctest.Test(t, group)
}

func group(t *testing.T) {
	r := newRig(t)
	syncs := 0 // one at a time
	r.blocks.hook = func(op string) error {
		if op == "sync blocks" {
			syncs++
			pass(2 * time.Millisecond)
		}
		return nil
	}
	ctx := context.Background()
	const files = 500
	for i := range files {
		ino := inoOf(i)
		r.tree.create(ino)
		h := r.open(ino, true)
		r.write(h, noise(uint64(i), 1000), 0)
		r.must(h.Flush(ctx))
		h.Release()
	}
	r.must(r.t.Flush(ctx))
	if syncs > files/5 {
		t.Errorf("%d syncs for %d files", syncs, files)
	}
	if r.tree.writes != files || len(r.tree.draft) != 0 {
		t.Errorf("%d commits, %d records left", r.tree.writes, len(r.tree.draft))
	}
}

// TestWritersAndCommits writes from several goroutines while commits run, and
// checks that every write is in the end.
func TestWritersAndCommits(t *testing.T) {
	r := newRig(t)
	stop := r.background(t)
	ino := inoOf(1)
	r.tree.create(ino)
	ctx := context.Background()
	const writers, regions, size = 4, 40, 10_000
	var wg sync.WaitGroup
	for w := range writers {
		h := r.open(ino, true)
		wg.Go(func() {
			defer h.Release()
			p := make([]byte, size)
			for i := range regions {
				off := int64(w*regions+i) * size
				r.write(h, noise(uint64(off), size), off)
				if n, err := h.ReadAt(ctx, p, off); n != size || err != nil || differ(p, noise(uint64(off), size)) != "" {
					t.Errorf("reads %d, %v", n, err)
				}
				switch i % 5 {
				case 0:
					if err := h.Flush(ctx); err != nil {
						t.Error(err)
					}
				case 2:
					if err := r.t.Commit(ctx, ino); err != nil {
						t.Error(err)
					}
				case 3:
					if err := h.Sync(ctx); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	// Readers see whole regions or none of them.
	for range 2 {
		h := r.open(ino, false)
		wg.Go(func() {
			defer h.Release()
			p := make([]byte, size)
			for i := range 4 * regions {
				off := int64(i) * size
				n, err := h.ReadAt(ctx, p, off)
				if err != nil {
					t.Error(err)
				}
				if n == size && !zeros(p) && differ(p, noise(uint64(off), size)) != "" {
					// A read beside a write may see part of it, as on any file system, but nothing else.
					for j, b := range p {
						if b != 0 && b != noise(uint64(off), size)[j] {
							t.Errorf("byte %d is nobody's", off+int64(j))
							break
						}
					}
				}
			}
		})
	}
	wg.Wait()
	r.must(r.t.Flush(ctx))
	stop()
	var want []byte
	for i := range writers * regions {
		want = append(want, noise(uint64(i*size), size)...)
	}
	same(t, "committed", r.committed(r.node(ino)), want)
	if len(r.tree.draft) != 0 {
		t.Error("a record is left")
	}
}

// TestCommitIsOneMoment checks that a commit holds what the file was at one
// moment, whatever is written meanwhile.
func TestCommitIsOneMoment(t *testing.T) {
	r := newRig(t)
	ino := inoOf(1)
	r.tree.create(ino)
	h := r.open(ino, true)
	const size = 3 << 20
	fill := func(b byte) []byte {
		p := noise(1, size)
		for i := range p {
			p[i] ^= b
		}
		return p
	}
	r.write(h, fill(0), 0)
	round := byte(0)
	r.blocks.hook = func(op string) error {
		if op == "put block" && round < 3 {
			round++
			r.write(h, fill(round), 0)
		}
		return nil
	}
	seen := tree.Node{}
	r.tree.hook = func(op string) error {
		if op == "write" && seen.Size == 0 {
			seen.Size = -1
		}
		return nil
	}
	r.t.sealing = make(chan struct{}, 1)
	c, _ := r.t.begin(r.t.lookup(ino))
	r.t.run(context.Background(), c)
	<-c.done
	r.must(c.err)
	same(t, "first commit", r.committed(r.node(ino)), fill(0))
	r.must(r.t.Flush(context.Background()))
	same(t, "second commit", r.committed(r.node(ino)), fill(round))
}
