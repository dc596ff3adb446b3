package file

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/roamfs/roamfs/sync/block"
	"github.com/roamfs/roamfs/sync/tree"
)

// line is how remote blocks arrive: each takes a while, any number at once.
type line struct {
	mu      sync.Mutex
	wait    time.Duration
	flying  map[block.ID]int
	most    int
	demand  int // blocks asked for by a reader, before they were on their way
	ahead   int
	stopped int // fetches that were cancelled
}

func (l *line) arrive(ctx context.Context, id block.ID, ahead bool) error {
	l.mu.Lock()
	if l.flying == nil {
		l.flying = map[block.ID]int{}
	}
	if l.flying[id]++; l.flying[id] == 1 {
		if ahead {
			l.ahead++
		} else {
			l.demand++
		}
	}
	l.most = max(l.most, len(l.flying))
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.flying[id]--; l.flying[id] == 0 {
			delete(l.flying, id)
		}
	}()
	t := time.NewTimer(l.wait)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		l.mu.Lock()
		l.stopped++
		l.mu.Unlock()
		return ctx.Err()
	}
}

func (l *line) inFlight() int {
	synctest.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.flying)
}

// remote makes a file of size bytes whose blocks are elsewhere.
func remote(t *testing.T, size int, change ...func(*Options)) (*rig, *line, tree.Ino) {
	t.Helper()
	r := newRig(t, change...)
	ino := r.file(0, noise(1, size))
	r.blocks.away()
	r.start(change...)
	l := &line{wait: 10 * time.Millisecond}
	r.blocks.arrive = l.arrive
	return r, l, ino
}

func TestReadAhead(t *testing.T) {
	const size = 16 << 20
	want := noise(1, size)
	read := func(t *testing.T, h *Handle, off int64) {
		t.Helper()
		p := make([]byte, 128<<10)
		n, err := h.ReadAt(context.Background(), p, off)
		if err != nil {
			t.Fatal(err)
		}
		same(t, "read", p[:n], want[off:off+int64(n)])
	}
	t.Run("sequential", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r, l, ino := remote(t, size)
			h := r.open(ino, false)
			begin := time.Now()
			for off := int64(0); off < size; off += 128 << 10 {
				read(t, h, off)
			}
			// One after the other, some 60 blocks would take 600 ms.
			if d := time.Since(begin); d > 200*time.Millisecond {
				t.Errorf("took %v", d)
			}
			if l.most > aheadMost+1 || l.most < aheadMost/2 {
				t.Errorf("%d blocks at once", l.most)
			}
			if l.demand > 8 {
				t.Errorf("%d blocks were not on their way when the reader came to them, %d were", l.demand, l.ahead)
			}
			h.Release()
		})
	})
	t.Run("first read", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r, l, ino := remote(t, size)
			h := r.open(ino, false)
			read(t, h, 0)
			if l.ahead > 0 {
				t.Errorf("%d blocks read ahead after one read", l.ahead)
			}
			h.Release()
		})
	})
	t.Run("random", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r, l, ino := remote(t, size)
			h := r.open(ino, false)
			for _, mib := range []int64{10, 3, 14, 7, 5, 12, 8, 1} {
				read(t, h, mib<<20)
			}
			for mib := int64(9); mib < 13; mib++ {
				read(t, h, mib<<20+512<<10)
			}
			if l.ahead > 0 {
				t.Errorf("%d blocks read ahead", l.ahead)
			}
			h.Release()
		})
	})
	for _, end := range []string{"seek", "close"} {
		t.Run(end+" cancels", func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, l, ino := remote(t, size)
				h := r.open(ino, false)
				for off := int64(0); off < 4<<20 || l.inFlight() == 0; off += 128 << 10 {
					read(t, h, off)
				}
				if end == "seek" {
					read(t, h, 15<<20)
				} else {
					h.Release()
				}
				synctest.Wait()
				l.mu.Lock()
				if l.stopped == 0 || len(l.flying) > 0 {
					t.Errorf("%d fetches cancelled, %d still under way", l.stopped, len(l.flying))
				}
				l.mu.Unlock()
				if n := r.t.flyingBytes.Load(); n != 0 {
					t.Errorf("%d bytes count as under way", n)
				}
				h.Release()
			})
		})
	}
}

// TestReadIsInterrupted checks that one reader's interruption ends its wait
// only.
func TestReadIsInterrupted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, l, ino := remote(t, 300<<10)
		l.wait = time.Second
		h := r.open(ino, false)
		ctx, cancel := context.WithCancel(context.Background())
		first, second := make(chan error), make(chan error)
		p, q := make([]byte, 10), make([]byte, 10)
		go func() { _, err := h.ReadAt(ctx, p, 0); first <- err }()
		synctest.Wait()
		go func() { _, err := h.ReadAt(context.Background(), q, 5); second <- err }()
		synctest.Wait()
		cancel()
		if err := <-first; !errors.Is(err, context.Canceled) {
			t.Errorf("interrupted: %v", err)
		}
		if err := <-second; err != nil {
			t.Errorf("the other: %v", err)
		}
		same(t, "the other", q, noise(1, 300<<10)[5:15])
		h.Release()
	})
}

func TestUnavailable(t *testing.T) {
	r, _, ino := remote(t, 300<<10)
	r.blocks.offline = true
	h := r.open(ino, false)
	_, err := h.ReadAt(context.Background(), make([]byte, 10), 0)
	if e, ok := errors.AsType[*block.UnavailableError](err); !ok || len(e.Holders) != 1 {
		t.Errorf("error %v", err)
	}
	if n := r.t.Stat(r.node(ino)); n.Size != 300<<10 {
		t.Errorf("size %d", n.Size)
	}
}

// TestDamaged checks that bytes of another length than the list says are not shown.
func TestDamaged(t *testing.T) {
	r := newRig(t)
	ino := r.file(0, noise(1, 300<<10))
	n := r.node(ino)
	n.Size++
	r.tree.files[ino] = []tree.Node{n}
	r.start()
	h := r.open(ino, false)
	if _, err := h.ReadAt(context.Background(), make([]byte, 10), 0); !errors.Is(err, block.ErrDamaged) {
		t.Errorf("error %v", err)
	}
}

func TestHint(t *testing.T) {
	var hinted []tree.Ino // one reader, who reads nothing ahead
	r, _, ino := remote(t, 1<<20, func(o *Options) {
		o.Hint = func(ino tree.Ino, _ block.ID) { hinted = append(hinted, ino) }
	})
	h := r.open(ino, false)
	for range 2 {
		if _, err := h.ReadAt(context.Background(), make([]byte, 10), 0); err != nil {
			t.Fatal(err)
		}
	}
	if len(hinted) != 2 || hinted[0] != ino { // the list and one piece, each once
		t.Errorf("hints %v", hinted)
	}
}

func TestLive(t *testing.T) {
	r := newRig(t)
	live := func() map[block.ID]bool {
		ids := map[block.ID]bool{}
		r.t.Live(func(id block.ID) { ids[id] = true })
		return ids
	}
	ino := r.file(0, noise(1, 2<<20))
	old := r.open(ino, false)
	before := len(r.blocks.blocks)
	w := r.open(ino, true)
	r.tree.replace(ino, tree.Content{Kind: tree.File})
	r.write(w, noise(2, 4096), 1<<20)
	if n := len(live()); n != before {
		t.Errorf("%d blocks live, want the %d of the version that is drafted over", n, before)
	}
	r.must(r.t.Flush(context.Background()))
	for id := range live() {
		if _, ok := r.blocks.blocks[id]; !ok {
			t.Errorf("%v is live and nowhere", id)
		}
	}
	w.Release()
	old.Release()
	r.t.mu.Lock()
	for f := range r.t.all {
		f.committed = time.Time{}
	}
	r.t.sweep()
	r.t.mu.Unlock()
	if n := len(live()); n != 0 {
		t.Errorf("%d blocks live with everything closed", n)
	}
}

// TestMemory checks that a scan leaves what is used again, and the bound.
func TestMemory(t *testing.T) {
	c := newLRU[int, string](1000)
	for k := range 4 {
		c.put(k, "hot", 100, false)
		c.get(k, true)
	}
	for k := 10; k < 100; k++ {
		c.put(k, "scan", 100, k%2 == 0)
		if k%2 == 0 {
			if _, ok := c.get(k, false); !ok {
				t.Fatalf("%d is gone before it was used", k)
			}
		}
		if n := c.once.bytes + c.again.bytes; n > 1000 {
			t.Fatalf("%d bytes", n)
		}
	}
	for k := range 4 {
		if !c.has(k) {
			t.Errorf("a scan drove out %d", k)
		}
	}
	if c.unused() != 0 {
		t.Errorf("%d bytes unused", c.unused())
	}
	if n := len(c.items); n != 10 {
		t.Errorf("%d items", n)
	}
	c.put(200, "ahead", 100, true)
	c.clear()
	if c.has(0) || len(c.items) != 0 || c.once.bytes+c.again.bytes+c.unused() != 0 {
		t.Errorf("cleared: %d items, %d and %d bytes, %d unused", len(c.items), c.once.bytes, c.again.bytes, c.unused())
	}
	c.put(0, "new", 100, false)
	if v, ok := c.get(0, true); !ok || v != "new" {
		t.Errorf("after clear: %q, %v", v, ok)
	}
}

// TestManyReaders reads from many handles at once; -race looks on.
func TestManyReaders(t *testing.T) {
	r := newRig(t, func(o *Options) { o.Memory = 4 << 20 })
	const size = 12 << 20
	want := noise(1, size)
	ino := r.file(1, want)
	r.start(func(o *Options) { o.Memory = 4 << 20 })
	var wg sync.WaitGroup
	for k := range 6 {
		wg.Go(func() {
			h := r.open(ino, false)
			defer h.Release()
			p := make([]byte, 200<<10)
			for off := int64(k) << 20; off < size; off += int64(len(p)) {
				n, err := h.ReadAt(context.Background(), p, off)
				if err != nil {
					t.Error(err)
				}
				if d := differ(p[:n], want[off:off+int64(n)]); d != "" {
					t.Error(fmt.Sprint("at ", off, ": ", d))
				}
			}
		})
	}
	wg.Wait()
	if n := r.t.chunks.once.bytes + r.t.chunks.again.bytes; n > 4<<20 {
		t.Errorf("%d bytes in memory", n)
	}
	if n := r.t.flyingBytes.Load(); n != 0 {
		t.Errorf("%d bytes count as under way", n)
	}
}
