package copies

import (
	"context"
	"encoding/binary"
	"errors"
	"io/fs"
	"maps"
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
	made int // contents

	mu       sync.Mutex
	files    map[tree.Ino][]content
	knows    map[device.ID]map[tree.Dot]bool
	here     map[block.ID][]byte
	far      map[block.ID][]byte // what Fill obtains
	noRoom   bool                // Fill keeps nothing
	held     map[block.ID]map[device.ID]bool
	revoked  map[device.ID]bool
	filling  func(block.ID) // called by Fill
	spare    []tree.Content // what may be brought back
	scanning func()         // called between two contents of a scan
	broken   error          // of Node
	roots    []Root         // of snapshots
}

// content is a content, the commit that it comes with, and what it consists of.
type content struct {
	tree.Content
	dot  tree.Dot
	list block.ID // zero if there is none
	data []block.ID
	all  map[block.ID][]byte
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
		files: map[tree.Ino][]content{}, knows: map[device.ID]map[tree.Dot]bool{},
		here: map[block.ID][]byte{}, far: map[block.ID][]byte{},
		held: map[block.ID]map[device.ID]bool{}, revoked: map[device.ID]bool{},
	}
}

func (w *world) keeper(archive bool) *Keeper {
	return New(Config{
		Tree: w, Blocks: w, Holders: w, Keys: w.keys, Archive: archive, History: w,
		Counts: func(dev device.ID) bool { return !w.revoked[dev] },
	})
}

func (w *world) Spare(fn func(tree.Content) error) error {
	for _, c := range w.spare {
		if err := fn(c); err != nil {
			return err
		}
	}
	return nil
}

func (w *world) Contents(fn func(tree.Ino, tree.Content, tree.Dot, func() bool) error) error {
	w.mu.Lock()
	all, scanning := maps.Clone(w.files), w.scanning
	w.mu.Unlock()
	for _, ino := range slices.SortedFunc(maps.Keys(all), tree.Ino.Compare) {
		for _, c := range all[ino] {
			if err := fn(ino, c.Content, c.dot, func() bool { _, err := w.Node(ino); return err == nil }); err != nil {
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
	for _, c := range all {
		if err := fn(c.Content, c.dot); err != nil {
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
	c := all[0] // the first wins, the others are conflict copies
	return tree.Node{Ino: ino, Kind: tree.File, Size: c.Size, Ref: c.Ref, Inline: c.Inline}, nil
}

func (w *world) Shared(d tree.Dot) bool { return len(w.Knowing(d)) > 0 }

func (w *world) Knowing(dots ...tree.Dot) (out []device.ID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for dev, knows := range w.knows {
		if !slices.ContainsFunc(dots, func(d tree.Dot) bool { return !knows[d] }) {
			out = append(out, dev)
		}
	}
	return out
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
	if !w.noRoom {
		w.here[id] = b
	}
	return b, nil
}

func (w *world) Holders(id block.ID) ([]device.ID, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.SortedFunc(maps.Keys(w.held[id]), device.ID.Compare), nil
}

// make makes a content of n blocks that nobody else has, under a commit of its
// own that nobody else knows. Its blocks are nowhere yet.
func (w *world) make(n int) content {
	w.t.Helper()
	w.made++
	c := content{dot: dot(w.made), all: map[block.ID][]byte{}}
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
		plain := binary.BigEndian.AppendUint64(make([]byte, 100), uint64(w.made<<16|i))
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

// small makes a content that travels with the tree.
func (w *world) small(text string) content {
	w.made++
	return content{Content: tree.Content{Kind: tree.File, Size: int64(len(text)), Inline: []byte(text)}, dot: dot(w.made)}
}

func ino(n int) (i tree.Ino) { i[23], i[0] = byte(n), 1; return i }

func dot(n int) tree.Dot { return tree.Dot{Actor: tree.Actor{1}, Ctr: uint64(n)} }

func dev(n int) (d device.ID) { d[0] = byte(n); return d }

func (c content) ids() []block.ID { return slices.Collect(maps.Keys(c.all)) }

func (c content) ref() Ref { return Ref{c.Ref, c.Size} }

// store brings all blocks of contents here.
func (w *world) store(cs ...content) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range cs {
		maps.Copy(w.here, c.all)
	}
}

// evict takes blocks from here.
func (w *world) evict(ids ...block.ID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, id := range ids {
		delete(w.here, id)
	}
}

// offer lets all blocks of contents be had from other devices.
func (w *world) offer(cs ...content) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range cs {
		maps.Copy(w.far, c.all)
	}
}

// set gives a file these contents; without any it is deleted.
func (w *world) set(i tree.Ino, cs ...content) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(cs) == 0 {
		delete(w.files, i)
		return
	}
	w.files[i] = cs
}

// file makes file i of n blocks that are here.
func (w *world) file(i, n int) content {
	w.t.Helper()
	c := w.make(n)
	w.store(c)
	w.set(ino(i), c)
	return c
}

// hold has a device say that it holds blocks, unhold that it does not any more.
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

// share has a device say that it knows contents.
func (w *world) share(d device.ID, cs ...content) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.knows[d] == nil {
		w.knows[d] = map[tree.Dot]bool{}
	}
	for _, c := range cs {
		w.knows[d][c.dot] = true
	}
}

// missing returns how many blocks of a content are not here.
func (w *world) missing(c content) (n int) {
	for id := range c.all {
		if !w.Has(id) {
			n++
		}
	}
	return n
}

// settle lets a keeper look until it has nothing to do; what cannot be fetched
// is left alone.
func settle(k *Keeper) {
	for again := true; again; {
		k.look(context.Background(), true)
		again = false
		for ino, ok := k.learn.take(); ok; ino, ok = k.learn.take() {
			again = true
			err := k.learnFile(context.Background(), ino)
			k.learn.done(ino, err != nil)
		}
	}
}

func await(t *testing.T, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); <-time.After(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("does not come true")
		}
	}
}

// failing is a world whose contents cannot be read if err is set.
type failing struct {
	*world
	err error
}

func (f *failing) Contents(fn func(tree.Ino, tree.Content, tree.Dot, func() bool) error) error {
	if f.err != nil {
		return f.err
	}
	return f.world.Contents(fn)
}

func (f *failing) ContentsOf(ino tree.Ino, fn func(tree.Content, tree.Dot) error) error {
	if f.err != nil {
		return f.err
	}
	return f.world.ContentsOf(ino, fn)
}
