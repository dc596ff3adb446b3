package cache

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/roamfs/roamfs/sync/block"
)

// tmpfs mounts an empty file system of the given size, which needs root.
func tmpfs(t *testing.T, size string) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("none", dir, "tmpfs", 0, "size="+size); err != nil {
		missing(t, "no tmpfs can be mounted here: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	return dir
}

// missing skips a test for want of something on this machine. CI sets
// ROAM_REQUIRE_MOUNT, which turns that into a failure.
func missing(t *testing.T, format string, args ...any) {
	t.Helper()
	if os.Getenv("ROAM_REQUIRE_MOUNT") != "" {
		t.Fatalf(format, args...)
	}
	t.Skipf(format, args...)
}

// TestBoundAtEveryInstant watches a file system that holds nothing but the
// cache: what it has allocated, which one system call tells, never exceeds the
// limit less overhead and reservations. A file of 1 GiB streams through a limit of 64 MiB of
// which 25 MiB are overhead, beside thousands of small blocks.
func TestBoundAtEveryInstant(t *testing.T) {
	mnt := tmpfs(t, "256m")
	const limit, overhead = 64 << 20, 25 << 20
	far := &elsewhere{blocks: map[block.ID][]byte{}}
	c := mustOpen(t, filepath.Join(mnt, "blocks"), Options{
		Limit: limit, Prover: far, Fetcher: far, Overhead: func() int64 { return overhead },
	})
	room, err := c.Reserve(t.Context(), 3<<20)
	if err != nil {
		t.Fatal(err)
	}
	var most atomic.Int64
	stop := make(chan struct{})
	var watch sync.WaitGroup
	watch.Go(func() {
		for {
			var st syscall.Statfs_t
			if err := syscall.Statfs(mnt, &st); err != nil {
				t.Errorf("statfs: %v", err)
				return
			}
			most.Store(max(most.Load(), int64(st.Blocks-st.Bfree)*st.Bsize))
			select {
			case <-stop:
				return
			default:
			}
		}
	})
	var own []block.ID
	for i := range uint64(2500) {
		id, _ := mustPut(t, c, i, 2000)
		own = append(own, id)
	}
	var work sync.WaitGroup
	for g := range 2 {
		work.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(g), 1))
			for i := range uint64(160) {
				seed := 10_000 + uint64(g)*1000 + i
				size := []int{512 << 10, 1 << 20, 4 << 20, 2 << 20, 3000}[rnd.IntN(5)]
				id, b := sealed(seed, size)
				far.put(id, b)
				if got, err := c.Get(t.Context(), id, ReadAhead); err != nil || !bytes.Equal(got, b) {
					t.Errorf("get: %v", err)
				}
				far.mu.Lock()
				far.blocks[id] = nil // provable, and not needed any more
				far.mu.Unlock()
			}
		})
	}
	work.Wait()
	close(stop)
	watch.Wait()
	if n := most.Load(); n+overhead+room.n > limit {
		t.Errorf("%d allocated, %d overhead and %d reserved exceed %d", n, int64(overhead), room.n, int64(limit))
	} else {
		t.Logf("at most %d of %d bytes", n+overhead+room.n, int64(limit))
	}
	for _, id := range own {
		if _, err := c.Read(id); err != nil {
			t.Fatalf("a block that is only here: %v", err)
		}
	}
}

func bench(b *testing.B, size, n int, o Options, fn func(c *Cache, i int, id block.ID, data []byte)) {
	c, err := Open(filepath.Join(b.TempDir(), "blocks"), o)
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	ids, data := make([]block.ID, n), make([][]byte, n)
	for i := range ids {
		ids[i], data[i] = sealed(uint64(i), size)
	}
	for i := range min(n, 64) {
		if err := c.Put(b.Context(), ids[i], data[i], Local); err != nil {
			b.Fatal(err)
		}
	}
	b.SetBytes(int64(size))
	i := 0
	for b.Loop() {
		i++
		fn(c, i, ids[i%n], data[i%n])
	}
}

func BenchmarkPut256K(b *testing.B) { benchPut(b, 256<<10, 512) }
func BenchmarkPut2K(b *testing.B)   { benchPut(b, 2<<10, 8192) }
func benchPut(b *testing.B, size, n int) {
	b.Helper()
	bench(b, size, n, Options{}, func(c *Cache, i int, id block.ID, data []byte) {
		if c.Has(id) {
			b.StopTimer()
			if err := c.Forget(Unreferenced(id)); err != nil {
				b.Fatal(err)
			}
			b.StartTimer()
		}
		if err := c.Put(b.Context(), id, data, Local); err != nil {
			b.Fatal(err)
		}
	})
}

func BenchmarkGet256K(b *testing.B) { benchGet(b, 256<<10) }
func BenchmarkGet2K(b *testing.B)   { benchGet(b, 2<<10) }
func benchGet(b *testing.B, size int) {
	b.Helper()
	bench(b, size, 64, Options{}, func(c *Cache, _ int, id block.ID, _ []byte) {
		if _, err := c.Get(b.Context(), id, Demand); err != nil {
			b.Fatal(err)
		}
	})
}
