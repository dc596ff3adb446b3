package cache

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/roamfs/roamfs/sync/block"
)

// walk returns the allocated bytes of everything below dir by inode.
func walk(dir string) map[uint64]int64 {
	out := map[uint64]int64{}
	_ = filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err != nil {
			return nil //nolint:nilerr // removed between listing and looking
		}
		if info, err := e.Info(); err == nil {
			st := info.Sys().(*syscall.Stat_t)
			out[st.Ino] = st.Blocks * 512
		}
		return nil
	})
	return out
}

// du returns the allocated bytes below dir, as du counts them while nothing changes.
func du(dir string) (n int64) {
	for _, size := range walk(dir) {
		n += size
	}
	return n
}

// duNow returns what was allocated below dir at one instant, or less: what two
// walks, one after the other, both saw was there between them. One walk alone would count
// a file that went and the one that took its room.
func duNow(dir string) (n int64) {
	before := walk(dir)
	for ino, size := range walk(dir) {
		n += min(size, before[ino])
	}
	return n
}

// sealed makes the bytes of a block, the same for one seed.
func sealed(seed uint64, size int) (block.ID, []byte) {
	b := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16)}).Read(b)
	return block.Sum(b), b
}

// elsewhere is what the other devices hold: it proves and fetches.
type elsewhere struct {
	mu     sync.Mutex
	blocks map[block.ID][]byte
}

func (e *elsewhere) put(id block.ID, b []byte) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.blocks[id] = b
}

func (e *elsewhere) Prove(_ context.Context, ids []block.ID) (out []Proof, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, id := range ids {
		if _, ok := e.blocks[id]; ok {
			out = append(out, NewProof(id, [][32]byte{{1}}, time.Now()))
		}
	}
	return out, nil
}

func (e *elsewhere) Fetch(_ context.Context, id block.ID, _ Priority) ([]byte, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if b, ok := e.blocks[id]; ok {
		return bytes.Clone(b), nil
	}
	return nil, &block.UnavailableError{ID: id, Err: errors.New("nobody")}
}

// TestBoundUnderLoad puts and reads blocks of all sizes from several goroutines
// while du is watched: it never exceeds the limit, what is only here stays, and
// the account agrees with the directory.
func TestBoundUnderLoad(t *testing.T) {
	const limit = 24 << 20
	dir := t.TempDir()
	far := &elsewhere{blocks: map[block.ID][]byte{}}
	open := func() *Cache {
		c, err := Open(dir, Options{Limit: limit, Prover: far, Fetcher: far})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	c := open()
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = c.Run(ctx) })
	stop, top := make(chan struct{}), make(chan int64)
	go func() {
		var most int64
		for {
			most = max(most, duNow(dir))
			select {
			case <-stop:
				top <- most
				return
			default:
			}
		}
	}()
	own := map[block.ID][]byte{} // only here
	for i := range uint64(200) {
		id, b := sealed(i, 1+int(i*37)%9000)
		if err := c.Put(ctx, id, b, Local); err != nil {
			t.Fatal(err)
		}
		own[id] = b
	}
	var work sync.WaitGroup
	for g := range 4 {
		work.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(g), 5))
			for i := range 400 {
				seed := uint64(1000 + rnd.IntN(300))
				size := []int{700, 3000, 20_000, 64 << 10, 300_000, 1 << 20}[seed%6]
				id, b := sealed(seed, size)
				far.put(id, b)
				got, err := c.Get(ctx, id, Demand)
				if err != nil || !bytes.Equal(got, b) {
					t.Errorf("get: %v", err)
					return
				}
				if i%5 == 0 {
					if err := c.Put(ctx, id, b, Local); err != nil {
						t.Errorf("put: %v", err)
						return
					}
				}
				if i%50 == 0 {
					if r, err := c.Reserve(ctx, 1<<20); err == nil {
						r.Release()
					}
				}
			}
		})
	}
	work.Wait()
	close(stop)
	if most := <-top; most > limit {
		t.Errorf("du was %d, the limit is %d", most, limit)
	} else {
		t.Logf("du was at most %.2f of the limit", float64(most)/limit)
	}
	check := func(when string) {
		t.Helper()
		for id, b := range own {
			got, err := c.Read(id)
			if err != nil || !bytes.Equal(got, b) {
				t.Fatalf("%s: a block that is only here: %v", when, err)
			}
		}
		u := c.Usage()
		// Extent tree blocks come at writeback; the margin is for them.
		if real := du(dir); u.Used+16*pageSize < real || u.Used > real+1<<20 || u.Reserved != 0 {
			t.Errorf("%s: account %d, du %d, reserved %d", when, u.Used, real, u.Reserved)
		}
	}
	cancel()
	running.Wait() // it evicts ahead
	check("at the end")
	if n := c.Usage().Blocks; n < 220 {
		t.Errorf("only %d blocks are kept", n)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	c = open()
	check("after opening again")
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestCompactionEnds: a pack that holds little is emptied only if that gives
// something back.
func TestCompactionEnds(t *testing.T) {
	far := &elsewhere{blocks: map[block.ID][]byte{}}
	dir := t.TempDir()
	c, err := Open(dir, Options{Limit: 16 << 20, Prover: far})
	if err != nil {
		t.Fatal(err)
	}
	var ids []block.ID
	for i := range uint64(100) {
		id, b := sealed(i, 10_000)
		if err := c.Put(t.Context(), id, b, Local); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	for _, id := range ids[:99] {
		if err := c.Forget(Unreferenced(id)); err != nil {
			t.Fatal(err)
		}
	}
	if c.compact() {
		t.Error("there was still something to compact")
	}
	if n := du(filepath.Join(dir, "packs")); n > 10*pageSize {
		t.Errorf("one block of 10,000 bytes takes up %d", n)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if c, err = Open(dir, Options{Limit: 16 << 20}); err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, want := sealed(99, 10_000); !c.Has(ids[99]) || c.Usage().Blocks != 1 {
		t.Error("the block that was left is gone")
	} else if got, err := c.Read(ids[99]); err != nil || !bytes.Equal(got, want) {
		t.Errorf("the block that was left: %v", err)
	}
}

// TestFullOfOwn fills the cache with what nobody else has: writers are refused,
// readers are served, and room comes with proofs.
func TestFullOfOwn(t *testing.T) {
	far := &elsewhere{blocks: map[block.ID][]byte{}}
	c, err := Open(t.TempDir(), Options{Limit: 16 << 20, Prover: far, Fetcher: far})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx := t.Context()
	var ids []block.ID
	for i := uint64(0); ; i++ {
		id, b := sealed(i, 500_000)
		short, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
		err := c.Put(short, id, b, Local)
		cancel()
		if err != nil {
			if !errors.Is(err, block.ErrNoRoom) && !errors.Is(err, context.DeadlineExceeded) {
				t.Fatal(err)
			}
			break
		}
		ids = append(ids, id)
	}
	if len(ids) < 20 {
		t.Fatalf("full after %d blocks", len(ids))
	}
	id, b := sealed(99_999, 1<<20)
	far.put(id, b)
	if got, err := c.Get(ctx, id, Demand); err != nil || !bytes.Equal(got, b) {
		t.Fatalf("a reader was not served: %v", err)
	}
	for i, id := range ids {
		if !c.Has(id) {
			t.Fatalf("block %d went without a proof", i)
		}
		_, b := sealed(uint64(i), 500_000)
		far.put(id, b)
	}
	c.Reconsider()
	id, b = sealed(88_888, 1<<20)
	if err := c.Put(ctx, id, b, Local); err != nil {
		t.Fatalf("with proofs: %v", err)
	}
}
