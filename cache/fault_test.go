package cache

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/roamfs/roamfs/sync/block"
)

func mustOpen(t *testing.T, dir string, o Options) *Cache {
	t.Helper()
	c, err := Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func mustPut(t *testing.T, c *Cache, seed uint64, size int) (block.ID, []byte) {
	t.Helper()
	id, b := sealed(seed, size)
	if err := c.Put(t.Context(), id, b, Local); err != nil {
		t.Fatal(err)
	}
	return id, b
}

// TestReadErrorIsNotDamage: a block that cannot be read at the moment, because
// files have run out, is still there afterwards.
func TestReadErrorIsNotDamage(t *testing.T) {
	for name, size := range map[string]int{"file": 100_000, "pack": 5000} {
		t.Run(name, func(t *testing.T) {
			c := mustOpen(t, t.TempDir(), Options{})
			id, b := mustPut(t, c, 1, size)
			if size < PackBelow {
				c.mu.Lock()
				f := c.packs[c.index.Val(c.index.Get(id)).pack].file
				c.mu.Unlock()
				wo, err := os.OpenFile(f.Name(), os.O_WRONLY, 0)
				if err != nil {
					t.Fatal(err)
				}
				swap := func(with *os.File) {
					for _, p := range c.packs {
						p.gate.Lock()
						p.file = with
						p.gate.Unlock()
					}
				}
				swap(wo) // reading it is EBADF
				if _, err := c.Read(id); err == nil || errors.Is(err, ErrMissing) {
					t.Errorf("error %v, want that of the file", err)
				}
				swap(f)
				_ = wo.Close()
			} else {
				var old syscall.Rlimit
				if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &old); err != nil {
					t.Fatal(err)
				}
				if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: 3, Max: old.Max}); err != nil {
					t.Fatal(err)
				}
				_, err := c.Read(id)
				if e := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &old); e != nil {
					t.Fatal(e)
				}
				if err == nil || errors.Is(err, ErrMissing) {
					t.Errorf("error %v, want that of the file", err)
				}
			}
			if got, err := c.Read(id); err != nil || !bytes.Equal(got, b) {
				t.Errorf("afterwards: %v", err)
			}
		})
	}
}

// TestDamageOfEachRegion flips one bit in each part of a pack: at most the block
// that it lies in is lost, also over a start.
func TestDamageOfEachRegion(t *testing.T) {
	const size, n = 3000, 5
	es := int(entrySize(size))
	regions := map[string]struct{ at, lost int }{
		"pack magic": {0, -1}, "pack version": {8, -1}, "nonce": {20, -1},
		"entry magic": {packHeader + es + 1, -1}, "state": {packHeader + es + 4, -1},
		"length": {packHeader + es + 9, 1}, "id": {packHeader + es + 20, 1}, "check": {packHeader + es + 45, -1},
		"content": {packHeader + es + 100, 1}, "padding": {packHeader + 2*es - 1, -1},
		"last length": {packHeader + (n-1)*es + 8, n - 1}, "last content": {packHeader + n*es - 100, n - 1},
	}
	for name, r := range regions {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			c := mustOpen(t, dir, Options{})
			var ids []block.ID
			var want [][]byte
			for i := range uint64(n) {
				id, b := mustPut(t, c, i, size)
				ids, want = append(ids, id), append(want, b)
			}
			if err := c.Close(); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(dir, "packs", "00000001")
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			b[r.at] ^= 0x10
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
			var gone []block.ID
			c = mustOpen(t, dir, Options{Changed: func(_, g []block.ID) { gone = append(gone, g...) }})
			for round := range 2 {
				for i, id := range ids {
					got, err := c.Read(id)
					switch {
					case i != r.lost && (err != nil || !bytes.Equal(got, want[i])):
						t.Errorf("round %d: block %d: %v", round, i, err)
					case i == r.lost && (!errors.Is(err, ErrMissing) || c.Has(id)):
						t.Errorf("round %d: damaged block %d: %v", round, i, err)
					}
				}
				// What was lost can be had again, and more can be added.
				if r.lost >= 0 {
					if err := c.Put(t.Context(), ids[r.lost], want[r.lost], Fetched); err != nil {
						t.Fatal(err)
					}
					r.lost = -1
				}
				mustPut(t, c, 77, size)
				if err := c.Close(); err != nil {
					t.Fatal(err)
				}
				c = mustOpen(t, dir, Options{})
			}
		})
	}
}

// TestCompactionKeepsWhatItsHeaderForgot: the header of an entry is damaged
// while the index knows it; emptying the pack must not lose the block.
func TestCompactionKeepsWhatItsHeaderForgot(t *testing.T) {
	dir := t.TempDir()
	c := mustOpen(t, dir, Options{Limit: 64 << 20})
	var ids []block.ID
	for i := range uint64(40) {
		id, _ := mustPut(t, c, i, 20_000)
		ids = append(ids, id)
	}
	_, want := sealed(39, 20_000)
	c.mu.Lock()
	e := *c.index.Val(c.index.Get(ids[39]))
	file := c.packs[e.pack].file
	c.mu.Unlock()
	if _, err := file.WriteAt([]byte("XXXX"), int64(e.off)); err != nil {
		t.Fatal(err)
	}
	c.nopunch.Store(true) // so that compaction has to do it
	for _, id := range ids[:39] {
		if err := c.Forget(Unreferenced(id)); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := c.Read(ids[39]); err != nil || !bytes.Equal(got, want) {
		t.Errorf("read: %v", err)
	}
}

// TestStartAboveTheLimit: a smaller limit does not keep the cache from opening.
func TestStartAboveTheLimit(t *testing.T) {
	dir := t.TempDir()
	far := &elsewhere{blocks: map[block.ID][]byte{}}
	c := mustOpen(t, dir, Options{Limit: 64 << 20})
	for i := range uint64(60) {
		id, b := mustPut(t, c, i, 200_000)
		far.put(id, b)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	c = mustOpen(t, dir, Options{Limit: 4 << 20, Prover: far})
	if n := c.Usage().Blocks; n != 60 {
		t.Fatalf("%d blocks", n)
	}
	if err := c.Sync(); err != nil {
		t.Errorf("sync: %v", err)
	}
	mustPut(t, c, 1000, 100_000)
	if n := du(dir); n > 4<<20 {
		t.Errorf("du %d after a put", n)
	}
}

// TestStateFileLost: an empty or missing state file after the machine went down
// means that everything is verified, not that nothing opens.
func TestStateFileLost(t *testing.T) {
	for _, how := range []string{"empty", "missing"} {
		t.Run(how, func(t *testing.T) {
			dir := t.TempDir()
			c := mustOpen(t, dir, Options{})
			bad, b := mustPut(t, c, 1, 100_000)
			good, _ := mustPut(t, c, 2, 100_000)
			if err := c.Close(); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(c.filePath(bad), make([]byte, len(b)), 0o600); err != nil {
				t.Fatal(err)
			}
			state := filepath.Join(dir, "state")
			if err := os.Remove(state); err != nil {
				t.Fatal(err)
			}
			if how == "empty" {
				if err := os.WriteFile(state, nil, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			c = mustOpen(t, dir, Options{})
			if c.Has(bad) || !c.Has(good) {
				t.Errorf("has the damaged one %v, the good one %v", c.Has(bad), c.Has(good))
			}
		})
	}
}

// TestStateAfterFailedClose: a session that could not make its blocks durable
// did not end well.
func TestStateAfterFailedClose(t *testing.T) {
	dir := t.TempDir()
	c := mustOpen(t, dir, Options{})
	mustPut(t, c, 1, 5000)
	for _, p := range c.packs {
		_ = p.file.Close() // Sync fails
		if ro, err := os.Open(os.DevNull); err == nil {
			p.file = ro
		}
	}
	if err := c.Close(); err == nil {
		missing(t, "fsync of /dev/null succeeds here")
	}
	b, err := os.ReadFile(filepath.Join(dir, "state"))
	if err != nil || strings.Contains(string(b), "clean") {
		t.Errorf("state %q, %v", b, err)
	}
}

// late proves nothing for the first call of each block.
type late struct {
	elsewhere
	ready   bool
	offline bool
	asked   int
}

func (l *late) Prove(ctx context.Context, ids []block.ID) ([]Proof, error) {
	l.asked += len(ids)
	if l.offline {
		return nil, errors.New("no device is within reach")
	}
	if !l.ready {
		return nil, nil
	}
	return l.elsewhere.Prove(ctx, ids)
}

func fillUp(t *testing.T, c *Cache, l *late) {
	t.Helper()
	for i := uint64(0); ; i++ {
		id, b := sealed(i, 100_000)
		l.put(id, b)
		if !c.take(fitting(b), forLocal) {
			return
		}
		c.settle(fitting(b), 0)
		if err := c.Put(t.Context(), id, b, Local); err != nil {
			t.Fatal(err)
		}
	}
}

func fitting(b []byte) int64 { return roundUp(int64(len(b))) + dirRoom }

// TestOfflineFailsAtOnce: full of what is only here and nobody within reach.
func TestOfflineFailsAtOnce(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		l := &late{elsewhere: elsewhere{blocks: map[block.ID][]byte{}}, offline: true}
		c, err := Open(dir, Options{Limit: 8 << 20, Prover: l})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		fillUp(t, c, l)
		begin := time.Now() // time stands still unless somebody waits
		id, b := sealed(9999, 100_000)
		if err := c.Put(t.Context(), id, b, Local); !errors.Is(err, block.ErrNoRoom) {
			t.Errorf("put: %v", err)
		}
		if d := time.Since(begin); d > 0 {
			t.Errorf("it waited %v", d)
		}
	})
}

// TestSearchAheadDoesNotRefuseWriters: what Run or a reader found unprovable a
// moment ago may be provable now.
func TestSearchAheadDoesNotRefuseWriters(t *testing.T) {
	for _, who := range []string{"run", "reader"} {
		t.Run(who, func(t *testing.T) {
			l := &late{elsewhere: elsewhere{blocks: map[block.ID][]byte{}}}
			c := mustOpen(t, t.TempDir(), Options{Limit: 8 << 20, Prover: l})
			fillUp(t, c, l)
			if who == "run" {
				c.ahead(t.Context(), 0)
			} else {
				for range 3 {
					id, b := sealed(5000, 100_000)
					if err := c.Put(t.Context(), id, b, Fetched); !errors.Is(err, block.ErrNoRoom) {
						t.Fatalf("put: %v", err)
					}
				}
			}
			l.ready = true
			mustPut(t, c, 9999, 100_000)
		})
	}
}

// TestJoinAfterTheLastLeft: who asks just after the last waiter gave up gets the
// block, not that waiter's cancellation.
func TestJoinAfterTheLastLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		id, b := sealed(1, 1000)
		hang := make(chan struct{})
		calls := 0
		f := fetchFunc(func(ctx context.Context, _ block.ID, _ Priority) ([]byte, error) {
			if calls++; calls > 1 {
				return b, nil
			}
			<-ctx.Done()
			<-hang // it takes its time to notice
			return nil, ctx.Err()
		})
		c, err := Open(t.TempDir(), Options{Fetcher: f})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		ctx, cancel := context.WithCancel(t.Context())
		first := make(chan error, 1)
		go func() { _, err := c.Get(ctx, id, Demand); first <- err }()
		synctest.Wait()
		cancel()
		if err := <-first; !errors.Is(err, context.Canceled) {
			t.Errorf("the first: %v", err)
		}
		second := make(chan error, 1)
		go func() { _, err := c.Get(t.Context(), id, Demand); second <- err }()
		synctest.Wait()
		close(hang)
		if err := <-second; err != nil {
			t.Errorf("the second: %v", err)
		}
	})
}

type fetchFunc func(context.Context, block.ID, Priority) ([]byte, error)

func (f fetchFunc) Fetch(ctx context.Context, id block.ID, p Priority) ([]byte, error) {
	return f(ctx, id, p)
}

// TestFullDisk: a file system that is full below the limit is no room, and the
// account is as before.
func TestFullDisk(t *testing.T) {
	dir := tmpfs(t, "4m")
	for _, size := range []int{30_000, 300_000} {
		c, err := Open(filepath.Join(dir, "blocks"), Options{})
		if err != nil {
			t.Fatal(err)
		}
		for i := uint64(0); err == nil; i++ {
			id, b := sealed(uint64(size)+i, size)
			err = c.Put(t.Context(), id, b, Local)
		}
		if !errors.Is(err, block.ErrNoRoom) {
			t.Errorf("blocks of %d bytes: %v", size, err)
		}
		if u := c.Usage(); u.Reserved != 0 || u.Used > 4<<20+64<<10 {
			t.Errorf("usage %+v", u)
		}
		c.Each(func(id block.ID, _ int64) {
			if _, err := c.Read(id); err != nil {
				t.Errorf("read: %v", err)
			}
			if err := c.Forget(Unreferenced(id)); err != nil {
				t.Errorf("forget: %v", err)
			}
		})
		_ = c.Close()
	}
}
