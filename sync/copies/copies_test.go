package copies

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/roamfs/roamfs/peer/device"
	"github.com/roamfs/roamfs/sync/block"
	"github.com/roamfs/roamfs/sync/chunk"
	"github.com/roamfs/roamfs/sync/tree"
)

// world is the tree, the blocks and the word of other devices in memory. It
// leaves out everything that takes time or fails by itself.
type world struct {
	t    testing.TB
	keys *block.Keys

	mu       sync.Mutex
	files    map[tree.Ino][]versioned
	shared   map[tree.Dot]bool
	here     map[block.ID][]byte
	far      map[block.ID][]byte // what Fill obtains
	held     map[block.ID]map[device.ID]bool
	revoked  map[device.ID]bool
	filling  func(block.ID) // called by Fill
	scanning func()         // called between two contents of a scan
	broken   error          // of Node
}

type versioned struct {
	c tree.Content
	d tree.Dot
}

var errFar = errors.New("no device within reach has it")

func newWorld(tb testing.TB) *world {
	tb.Helper()
	keys, err := block.NewKeys(1, map[uint32]block.Secret{1: {1}})
	if err != nil {
		tb.Fatal(err)
	}
	return &world{
		t: tb, keys: keys,
		files: map[tree.Ino][]versioned{}, shared: map[tree.Dot]bool{},
		here: map[block.ID][]byte{}, far: map[block.ID][]byte{},
		held: map[block.ID]map[device.ID]bool{}, revoked: map[device.ID]bool{},
	}
}

func (w *world) keeper(archive bool) *Keeper {
	return New(Config{
		Tree: w, Blocks: w, Holders: w, Keys: w.keys, Archive: archive,
		Counts: func(dev device.ID) bool { return !w.revoked[dev] },
	})
}

func (w *world) Contents(fn func(tree.Ino, tree.Content, tree.Dot) error) error {
	w.mu.Lock()
	all, scanning := maps.Clone(w.files), w.scanning
	w.mu.Unlock()
	for _, ino := range slices.SortedFunc(maps.Keys(all), tree.Ino.Compare) {
		for _, v := range all[ino] {
			if err := fn(ino, v.c, v.d); err != nil {
				return err
			}
		}
		if scanning != nil {
			scanning()
		}
	}
	return nil
}

func (w *world) ContentsOf(ino tree.Ino, fn func(tree.Content, tree.Dot) error) error {
	w.mu.Lock()
	all := slices.Clone(w.files[ino])
	w.mu.Unlock()
	for _, v := range all {
		if err := fn(v.c, v.d); err != nil {
			return err
		}
	}
	return nil
}

func (w *world) Node(ino tree.Ino) (tree.Node, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.broken != nil {
		return tree.Node{}, w.broken
	}
	all := w.files[ino]
	if len(all) == 0 {
		return tree.Node{}, fs.ErrNotExist
	}
	c := all[0].c // the first wins, the others are conflict copies
	return tree.Node{Ino: ino, Kind: tree.File, Size: c.Size, Ref: c.Ref, Inline: c.Inline}, nil
}

func (w *world) Shared(d tree.Dot) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.shared[d]
}

func (w *world) Has(id block.ID) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.here[id] != nil
}

func (w *world) Read(id block.ID) ([]byte, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if b := w.here[id]; b != nil {
		return b, nil
	}
	return nil, errFar
}

func (w *world) Fill(ctx context.Context, id block.ID) ([]byte, error) {
	w.mu.Lock()
	fn := w.filling
	w.mu.Unlock()
	if fn != nil {
		fn(id)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if b := w.here[id]; b != nil {
		return b, nil
	}
	b := w.far[id]
	if b == nil {
		return nil, errFar
	}
	w.here[id] = b
	return b, nil
}

func (w *world) Holders(id block.ID) ([]device.ID, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.SortedFunc(maps.Keys(w.held[id]), device.ID.Compare), nil
}

// content is a content and what it consists of.
type content struct {
	tree.Content
	list block.ID // zero if there is none
	data []block.ID
	all  map[block.ID][]byte
}

// make makes a content of n blocks that nobody else has. Its blocks are nowhere yet.
func (w *world) make(seed, n int) content {
	w.t.Helper()
	c := content{all: map[block.ID][]byte{}}
	put := func(typ block.Type, plain []byte) block.ID {
		id, sealed, err := w.keys.Seal(typ, plain)
		if err != nil {
			w.t.Fatal(err)
		}
		c.all[id] = sealed
		return id
	}
	var list chunk.List
	for i := range n {
		plain := binary.BigEndian.AppendUint64(make([]byte, 100), uint64(seed<<16|i))
		id := put(block.Data, plain)
		c.data = append(c.data, id)
		list = append(list, chunk.Extent{Len: int64(len(plain)), ID: id})
	}
	depth, id, err := chunk.Build(list, func(plain []byte) (block.ID, error) { return put(block.List, plain), nil })
	if err != nil {
		w.t.Fatal(err)
	}
	if depth > 0 {
		c.list = id
	}
	c.Content = tree.Content{Kind: tree.File, Size: list.Size(), Ref: tree.Ref{ID: id, Depth: depth}}
	return c
}

func ino(n int) (i tree.Ino) { i[23], i[0] = byte(n), 1; return i }

func dot(n int) tree.Dot { return tree.Dot{Actor: tree.Actor{1}, Ctr: uint64(n)} }

func dev(n int) (d device.ID) { d[0] = byte(n); return d }

func (w *world) store(c content) {
	w.mu.Lock()
	defer w.mu.Unlock()
	maps.Copy(w.here, c.all)
}

func (w *world) set(i tree.Ino, vs ...versioned) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(vs) == 0 {
		delete(w.files, i)
		return
	}
	w.files[i] = vs
}

func (w *world) hold(d device.ID, ids ...block.ID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, id := range ids {
		if w.held[id] == nil {
			w.held[id] = map[device.ID]bool{}
		}
		w.held[id][d] = true
	}
}

func (w *world) unhold(d device.ID, ids ...block.ID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, id := range ids {
		delete(w.held[id], d)
	}
}

func (w *world) share(ds ...tree.Dot) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, d := range ds {
		w.shared[d] = true
	}
}

func ids(c content) []block.ID { return slices.Collect(maps.Keys(c.all)) }

// TestAlone: what is said to be here only, step by step.
func TestAlone(t *testing.T) {
	ctx := context.Background()
	for _, c := range []struct {
		name string
		do   func(w *world, k *Keeper)
		want int64 // files that wait
	}{
		{"an empty tree", func(*world, *Keeper) {}, 0},
		{"a file that was just written", func(w *world, k *Keeper) {
			x := w.make(1, 1)
			w.store(x)
			w.set(ino(1), versioned{x.Content, dot(1)})
			k.Wrote(ino(1))
		}, 1},
		{"its blocks are elsewhere, but nobody else knows the file", func(w *world, k *Keeper) {
			x := w.make(1, 1)
			w.store(x)
			w.set(ino(1), versioned{x.Content, dot(1)})
			k.Wrote(ino(1))
			w.hold(dev(1), ids(x)...)
			k.Heard()
		}, 1},
		{"others know the file and have its blocks", func(w *world, k *Keeper) {
			x := w.make(1, 3)
			w.store(x)
			w.set(ino(1), versioned{x.Content, dot(1)})
			k.Wrote(ino(1))
			w.hold(dev(1), ids(x)...)
			w.share(dot(1))
			k.Heard()
		}, 0},
		{"one block is nowhere else", func(w *world, k *Keeper) {
			x := w.make(1, 3)
			w.store(x)
			w.set(ino(1), versioned{x.Content, dot(1)})
			w.share(dot(1))
			w.hold(dev(1), x.list, x.data[0], x.data[2])
			k.Wrote(ino(1))
		}, 1},
		{"the blocks are divided between two others", func(w *world, k *Keeper) {
			x := w.make(1, 3)
			w.store(x)
			w.set(ino(1), versioned{x.Content, dot(1)})
			w.share(dot(1))
			w.hold(dev(1), x.list, x.data[0])
			w.hold(dev(2), x.data[1], x.data[2])
			k.Wrote(ino(1))
		}, 0},
		{"who has them does not belong any more", func(w *world, k *Keeper) {
			x := w.make(1, 1)
			w.store(x)
			w.set(ino(1), versioned{x.Content, dot(1)})
			w.share(dot(1))
			w.hold(dev(1), ids(x)...)
			w.revoked[dev(1)] = true
			k.Wrote(ino(1))
		}, 1},
		{"who had them gave one up", func(w *world, k *Keeper) {
			x := w.make(1, 3)
			w.store(x)
			w.set(ino(1), versioned{x.Content, dot(1)})
			w.share(dot(1))
			w.hold(dev(1), ids(x)...)
			k.Wrote(ino(1))
			k.look(ctx)
			w.unhold(dev(1), x.data[1])
			k.Lost(x.data[1:2])
		}, 1},
		{"all that was heard of a device is forgotten", func(w *world, k *Keeper) {
			x := w.make(1, 1)
			w.store(x)
			w.set(ino(1), versioned{x.Content, dot(1)})
			w.share(dot(1))
			w.hold(dev(1), ids(x)...)
			k.Wrote(ino(1))
			k.look(ctx)
			w.unhold(dev(1), ids(x)...)
			k.LostAll()
		}, 1},
		{"a small file that nobody else knows", func(w *world, k *Keeper) {
			w.set(ino(1), versioned{tree.Content{Kind: tree.File, Size: 2, Inline: []byte("ab")}, dot(1)})
			k.Wrote(ino(1))
		}, 1},
		{"an empty file that nobody else knows", func(w *world, k *Keeper) {
			w.set(ino(1), versioned{tree.Content{Kind: tree.File}, dot(1)})
			k.Wrote(ino(1))
		}, 1},
		{"a small file that others know", func(w *world, k *Keeper) {
			w.set(ino(1), versioned{tree.Content{Kind: tree.File, Size: 2, Inline: []byte("ab")}, dot(1)})
			w.share(dot(1))
			k.Wrote(ino(1))
		}, 0},
		{"a conflict copy", func(w *world, k *Keeper) {
			x, y := w.make(1, 1), w.make(2, 1)
			w.store(x)
			w.store(y)
			w.share(dot(1), dot(2))
			w.hold(dev(1), ids(x)...)
			w.set(ino(1), versioned{x.Content, dot(1)}, versioned{y.Content, dot(2)})
			k.Wrote(ino(1))
		}, 1},
		{"a deleted file", func(w *world, k *Keeper) {
			x := w.make(1, 1)
			w.store(x)
			w.set(ino(1), versioned{x.Content, dot(1)})
			k.Wrote(ino(1))
			k.look(ctx)
			w.set(ino(1))
			k.Heard()
		}, 0},
		{"another device brings a deleted file back", func(w *world, k *Keeper) {
			x := w.make(1, 1)
			w.store(x)
			w.share(dot(1))
			w.set(ino(1), versioned{x.Content, dot(1)})
			k.Wrote(ino(1))
			k.look(ctx)
			w.set(ino(1))
			k.Heard()
			k.look(ctx)
			w.set(ino(1), versioned{x.Content, dot(1)})
			k.Adopted([]tree.Ino{ino(1)})
		}, 1},
		{"the tree cannot be read", func(w *world, k *Keeper) {
			x := w.make(1, 1)
			w.store(x)
			w.set(ino(1), versioned{x.Content, dot(1)})
			k.Wrote(ino(1))
			w.broken = errors.New("broken")
		}, 1},
		{"the list was evicted before all of the rest was elsewhere", func(w *world, k *Keeper) {
			x := w.make(1, 3)
			w.store(x)
			w.share(dot(1))
			w.set(ino(1), versioned{x.Content, dot(1)})
			k.Wrote(ino(1))
			k.look(ctx)
			w.hold(dev(1), x.list)
			delete(w.here, x.list)
			k.Heard()
			k.look(ctx)
			k.LostAll()
		}, 1},
		{"the list was evicted and can be had", func(w *world, k *Keeper) {
			x := w.make(1, 3)
			w.store(x)
			w.share(dot(1))
			w.set(ino(1), versioned{x.Content, dot(1)})
			k.Wrote(ino(1))
			k.look(ctx)
			w.hold(dev(1), ids(x)...)
			delete(w.here, x.list)
			w.far[x.list] = x.all[x.list]
			k.Heard()
		}, 0},
		{"a file of another device that was never read here", func(w *world, k *Keeper) {
			x := w.make(1, 3)
			w.share(dot(1))
			w.hold(dev(1), ids(x)...)
			w.set(ino(1), versioned{x.Content, dot(1)})
			k.Adopted([]tree.Ino{ino(1)})
		}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			k := w.keeper(false)
			k.look(ctx)
			c.do(w, k)
			k.look(ctx)
			if n, _ := k.Waiting(); n != c.want || !k.Settled() {
				t.Errorf("%d files wait, settled %v; want %d", n, k.Settled(), c.want)
			}
			if w.broken != nil {
				return
			}
			again := w.keeper(false) // as after a restart
			if again.Settled() {
				t.Error("a keeper that has looked at nothing is settled")
			}
			again.look(ctx)
			if c.name == "the list was evicted before all of the rest was elsewhere" {
				return // the new one cannot know that
			}
			if n, _ := again.Waiting(); n != c.want {
				t.Errorf("after a restart %d files wait, want %d", n, c.want)
			}
		})
	}
}

// TestAccountMatchesModel: whatever happens in whatever order, nothing is ever
// said to be safe that is not, and once all was looked at the account is exact.
func TestAccountMatchesModel(t *testing.T) {
	for seed := range uint64(200) {
		w := newWorld(t)
		k := w.keeper(false)
		rnd := rand.New(rand.NewPCG(seed, 1))
		pool := make([]content, 6)
		for i := range pool {
			pool[i] = w.make(i, 1+rnd.IntN(3))
		}
		next := 0
		alone := func(c tree.Content, d tree.Dot) bool {
			if !w.shared[d] {
				return true
			}
			for _, p := range pool {
				if p.Ref != c.Ref {
					continue
				}
				for id := range p.all {
					counts := false
					for d := range w.held[id] {
						counts = counts || !w.revoked[d]
					}
					if w.here[id] != nil && !counts {
						return true
					}
				}
			}
			return false
		}
		truth := func() (n int64) {
			for _, vs := range w.files {
				if slices.ContainsFunc(vs, func(v versioned) bool { return alone(v.c, v.d) }) {
					n++
				}
			}
			return n
		}
		listed := func() bool { // every list is here, so that all can be told
			for _, vs := range w.files {
				for _, v := range vs {
					if v.c.Ref.Depth > 0 && w.here[v.c.Ref.ID] == nil {
						return false
					}
				}
			}
			return true
		}
		for step := range 80 {
			i, p, d := ino(1+rnd.IntN(4)), pool[rnd.IntN(len(pool))], dev(1+rnd.IntN(2))
			what := rnd.IntN(10)
			switch what {
			case 0: // written here
				next++
				w.store(p)
				w.set(i, versioned{p.Content, dot(next)})
				k.Wrote(i)
			case 1: // a conflict copy is adopted
				next++
				w.share(dot(next))
				w.set(i, append(slices.Clone(w.files[i]), versioned{p.Content, dot(next)})...)
				k.Adopted([]tree.Ino{i})
			case 2: // deleted, here or elsewhere
				w.set(i)
				k.Adopted([]tree.Ino{i})
			case 3: // others learn of everything
				for n := range next {
					w.share(dot(n + 1))
				}
				k.Heard()
			case 4: // a device takes something
				w.hold(d, ids(p)[rnd.IntN(len(p.all)):]...)
				k.Heard()
			case 5: // and gives something up
				some := ids(p)[rnd.IntN(len(p.all)):]
				w.unhold(d, some...)
				k.Lost(some)
			case 6: // a data block is evicted here, since others have it
				if id := p.data[0]; len(w.held[id]) > 0 {
					delete(w.here, id)
				}
			case 7: // a block is read here
				id := p.data[len(p.data)-1]
				if p.list.IsZero() || w.here[p.list] != nil {
					w.here[id] = p.all[id]
					k.LostAll() // a block that nobody else has cannot come here; be told all the same
				}
			case 8:
				k.look(context.Background())
			default:
				k.LostAll()
				k.look(context.Background())
				if n, _ := k.Waiting(); n < truth() || n > truth() && listed() || !k.Settled() {
					t.Fatalf("seed %d, step %d: %d files wait, settled %v; want %d", seed, step, n, k.Settled(), truth())
				}
			}
			if n, _ := k.Waiting(); n == 0 && k.Settled() && truth() > 0 {
				t.Fatalf("seed %d, step %d, after %d: all is said to be safe, and %d files are not", seed, step, what, truth())
			}
		}
	}
}

// TestGarbage: a block is garbage only if nothing needs it at any time.
func TestGarbage(t *testing.T) {
	none := func(func(block.ID)) {}
	for _, c := range []struct {
		name string
		do   func(w *world, k *Keeper, x content) (extra func(func(block.ID)))
		want bool // the blocks of x are garbage
		err  bool
	}{
		{"nothing refers to it", func(*world, *Keeper, content) func(func(block.ID)) { return none }, true, false},
		{"a file refers to it", func(w *world, _ *Keeper, x content) func(func(block.ID)) {
			w.set(ino(1), versioned{x.Content, dot(1)})
			return none
		}, false, false},
		{"a conflict copy refers to it", func(w *world, _ *Keeper, x content) func(func(block.ID)) {
			y := w.make(9, 1)
			w.store(y)
			w.set(ino(1), versioned{y.Content, dot(1)}, versioned{x.Content, dot(2)})
			return none
		}, false, false},
		{"an open file refers to it", func(_ *world, _ *Keeper, x content) func(func(block.ID)) {
			return func(fn func(block.ID)) {
				for id := range x.all {
					fn(id)
				}
			}
		}, false, false},
		{"a file is committed and closed while the tree is looked at", func(w *world, k *Keeper, x content) func(func(block.ID)) {
			y := w.make(9, 1)
			w.store(y)
			w.set(ino(2), versioned{y.Content, dot(2)})
			w.scanning = func() { // after the scan has begun, and over before it ends
				w.set(ino(1), versioned{x.Content, dot(1)})
				k.Wrote(ino(1))
			}
			return none
		}, false, false},
		{"a file that names it is adopted while the tree is looked at", func(w *world, k *Keeper, x content) func(func(block.ID)) {
			y := w.make(9, 1)
			w.store(y)
			w.set(ino(2), versioned{y.Content, dot(2)})
			w.scanning = func() {
				w.set(ino(1), versioned{x.Content, dot(1)})
				k.Adopted([]tree.Ino{ino(1)})
			}
			return none
		}, false, false},
		{"the list of some file is not here", func(w *world, _ *Keeper, _ content) func(func(block.ID)) {
			y := w.make(9, 2)
			w.set(ino(2), versioned{y.Content, dot(2)})
			return none
		}, false, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			k := w.keeper(false)
			x := w.make(1, 3)
			w.store(x)
			extra := c.do(w, k, x)
			got, err := k.Garbage(ids(x), extra)
			if (err != nil) != c.err {
				t.Fatalf("error %v", err)
			}
			if (len(got) > 0) != c.want || c.want && len(got) != len(x.all) {
				t.Errorf("%d of %d blocks are garbage", len(got), len(x.all))
			}
			if len(k.watch.of) > 0 {
				t.Error("it goes on watching")
			}
		})
	}
}

// TestArchiveCopies: an archive brings everything here that can be had.
func TestArchiveCopies(t *testing.T) {
	w := newWorld(t)
	x, copied, y, gone := w.make(1, 40), w.make(2, 2), w.make(3, 1), w.make(4, 1)
	w.set(ino(1), versioned{x.Content, dot(1)}, versioned{copied.Content, dot(2)})
	w.set(ino(2), versioned{gone.Content, dot(3)})
	for _, c := range []content{x, copied, y} {
		maps.Copy(w.far, c.all)
	}
	lost := x.data[0]
	delete(w.far, lost)
	slow := make(chan struct{})
	w.filling = func(id block.ID) {
		if id != lost && id != x.list {
			<-slow // the failure is there long before the others come
		}
	}
	k := w.keeper(true)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- k.Run(ctx) }()
	await(t, func() bool { return k.Settled() })
	if k.Missing() != 2 {
		t.Errorf("%d files under way are missing, want 2", k.Missing())
	}
	close(slow)
	await(t, func() bool { return w.missing(x)+w.missing(copied) == 1 })
	w.set(ino(3), versioned{y.Content, dot(4)})
	k.Adopted([]tree.Ino{ino(3)})
	await(t, func() bool { return w.missing(y) == 0 && k.Missing() == 2 })
	// The rest comes once a device has it.
	w.mu.Lock()
	w.far[lost] = x.all[lost]
	maps.Copy(w.far, gone.all)
	w.mu.Unlock()
	k.Reconnected()
	await(t, func() bool { return w.missing(x)+w.missing(gone) == 0 && k.Missing() == 0 })
	// A block that was damaged is brought here again.
	w.mu.Lock()
	delete(w.here, y.data[0])
	w.mu.Unlock()
	k.Dropped()
	await(t, func() bool { return w.missing(y) == 0 })
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func (w *world) missing(c content) (n int) {
	for id := range c.all {
		if !w.Has(id) {
			n++
		}
	}
	return n
}

func await(t *testing.T, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); <-time.After(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("does not come true")
		}
	}
}

// TestWhere: who has what of a file.
func TestWhere(t *testing.T) {
	w := newWorld(t)
	k := w.keeper(false)
	x := w.make(1, 3)
	r := Ref{x.Ref, x.Size}
	w.hold(dev(1), ids(x)...)
	w.hold(dev(2), x.list, x.data[0])
	show := func(got Where) string {
		return fmt.Sprint(got.Blocks, got.Missing, got.Local, got.Listed, got.Holders[dev(1)], got.Holders[dev(2)])
	}
	for _, c := range []struct {
		name string
		do   func()
		ask  func([]block.ID) map[device.ID][]bool
		want string
	}{
		{"the list is elsewhere", func() {}, nil, "1 1 0 false {0 false} {0 false}"},
		{"the list is here", func() { w.here[x.list] = x.all[x.list] }, nil, "4 3 0 true {324 true} {108 false}"},
		{"a block is here", func() { w.here[x.data[1]] = x.all[x.data[1]] }, nil, "4 2 108 true {324 true} {108 false}"},
		{"asked, a device answers something else", func() {}, func(ids []block.ID) map[device.ID][]bool {
			return map[device.ID][]bool{dev(1): make([]bool, len(ids))}
		}, "4 2 108 true {0 false} {108 false}"},
		{"a device does not belong any more", func() { w.revoked[dev(1)] = true }, nil, "4 2 108 true {0 false} {108 false}"},
	} {
		c.do()
		got, err := k.Where(r, c.ask)
		if err != nil {
			t.Fatal(err)
		}
		if show(got) != c.want {
			t.Errorf("%s: %s, want %s", c.name, show(got), c.want)
		}
	}
	w.far[x.list] = x.all[x.list]
	delete(w.here, x.list)
	if err := k.Learn(context.Background(), r); err != nil || !w.Has(x.list) {
		t.Errorf("learn: %v", err)
	}
}
