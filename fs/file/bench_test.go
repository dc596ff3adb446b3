package file

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/roamfs/roamfs/sync/block"
)

// background runs the commits of a table until the test ends.
func (r *rig) background(tb testing.TB) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := r.t.Run(ctx); err != nil {
			tb.Error(err)
		}
	})
	return func() { cancel(); wg.Wait() }
}

// BenchmarkSmallFiles creates, writes, closes and commits files; the commits run
// beside it.
func BenchmarkSmallFiles(b *testing.B) {
	for _, size := range []int{40, 4 << 10, 100 << 10} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			r := newRig(b)
			stop := r.background(b)
			defer stop()
			p := noise(1, size)
			ctx := context.Background()
			b.ReportAllocs()
			n := 0
			for b.Loop() {
				ino := inoOf(n)
				n++
				h, err := r.t.Open(r.tree.create(ino), true, false)
				if err != nil {
					b.Fatal(err)
				}
				p[0], p[1], p[2] = byte(n), byte(n>>8), byte(n>>16)
				r.write(h, p, 0)
				if err := h.Flush(ctx); err != nil {
					b.Fatal(err)
				}
				h.Release()
			}
			if err := r.t.Flush(ctx); err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "files/s")
		})
	}
}

func BenchmarkSequentialWrite(b *testing.B) {
	const size, step = 256 << 20, 128 << 10
	p := noise(1, step)
	for _, commit := range []bool{false, true} {
		b.Run(fmt.Sprintf("commit=%v", commit), func(b *testing.B) {
			b.SetBytes(size)
			for b.Loop() {
				r := newRig(b)
				ino := inoOf(0)
				h, err := r.t.Open(r.tree.create(ino), true, false)
				if err != nil {
					b.Fatal(err)
				}
				for off := int64(0); off < size; off += step {
					p[0], p[1], p[2] = byte(off>>17), byte(off>>25), byte(off>>33)
					r.write(h, p, off)
				}
				if commit {
					r.must(r.t.Flush(context.Background()))
				}
				h.Release()
			}
		})
	}
}

func BenchmarkRandomWrite(b *testing.B) {
	r := newRig(b)
	ino := r.file(0, noise(1, 64<<20))
	h := r.open(ino, true)
	p := noise(2, 4096)
	x := uint64(1)
	b.SetBytes(4096)
	b.ReportAllocs()
	for b.Loop() {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		r.write(h, p, int64(x%(16<<10))*4096)
	}
}

// readBench reads a file of incompressible bytes from begin to end.
func readBench(b *testing.B, r *rig, size int, before func()) {
	ino := r.file(0, noise(1, size))
	p := make([]byte, 128<<10)
	b.SetBytes(int64(size))
	ctx := context.Background()
	for b.Loop() {
		before()
		r.start()
		h := r.open(ino, false)
		for off := int64(0); off < int64(size); off += int64(len(p)) {
			if n, err := h.ReadAt(ctx, p, off); n == 0 || err != nil {
				b.Fatal(n, err)
			}
		}
		h.Release()
	}
}

// BenchmarkSequentialRead reads resident blocks; nothing is decoded yet.
func BenchmarkSequentialRead(b *testing.B) {
	readBench(b, newRig(b), 128<<20, func() {})
}

// BenchmarkRemoteRead reads blocks that another device has, over a line of
// 250 MB/s and 2 ms.
func BenchmarkRemoteRead(b *testing.B) {
	r := newRig(b)
	var line sync.Mutex
	var free time.Time
	due := map[block.ID]time.Time{} // one fetch for all who ask
	r.blocks.arrive = func(ctx context.Context, id block.ID, _ bool) error {
		r.blocks.mu.Lock()
		n := len(r.blocks.blocks[id])
		r.blocks.mu.Unlock()
		line.Lock()
		at, ok := due[id]
		if !ok || time.Since(at) > 100*time.Millisecond {
			if now := time.Now(); free.Before(now) {
				free = now
			}
			free = free.Add(time.Duration(n) * time.Second / (250 << 20))
			at = free.Add(2 * time.Millisecond)
			due[id] = at
		}
		line.Unlock()
		t := time.NewTimer(time.Until(at))
		defer t.Stop()
		select {
		case <-t.C:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	readBench(b, r, 64<<20, r.blocks.away)
}

func BenchmarkRandomRead(b *testing.B) {
	r := newRig(b)
	ino := r.file(0, noise(1, 16<<20))
	h := r.open(ino, false)
	p := make([]byte, 4096)
	x := uint64(1)
	ctx := context.Background()
	b.SetBytes(4096)
	b.ReportAllocs()
	for b.Loop() {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		if _, err := h.ReadAt(ctx, p, int64(x%4096)*4096); err != nil {
			b.Fatal(err)
		}
	}
}
