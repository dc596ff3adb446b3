package file

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"sync"
	"testing"

	"github.com/roamfs/roamfs/sync/block"
	"github.com/roamfs/roamfs/sync/chunk"
	"github.com/roamfs/roamfs/sync/tree"
)

// fakeTree keeps inodes, each with any number of content versions, and the
// journal, in a map. It leaves out names, ranks that compare, and conflict
// copies with numbers of their own: the newest version is the one shown.
type fakeTree struct {
	mu           sync.Mutex
	files        map[tree.Ino][]tree.Node // versions, the one shown last
	gone         map[tree.Ino]bool        // deleted by another device
	draft        map[tree.Ino]tree.Draft
	ctr          uint64
	hook         func(op string) error // before each change; an error fails the operation
	writes, puts int
}

func newFakeTree() *fakeTree {
	return &fakeTree{files: map[tree.Ino][]tree.Node{}, gone: map[tree.Ino]bool{}, draft: map[tree.Ino]tree.Draft{}}
}

// clone copies everything but the hook.
func (ft *fakeTree) clone() *fakeTree {
	ft.mu.Lock()
	defer ft.mu.Unlock()
	c := &fakeTree{files: maps.Clone(ft.files), gone: maps.Clone(ft.gone), draft: maps.Clone(ft.draft), ctr: ft.ctr}
	for ino, v := range c.files {
		c.files[ino] = slices.Clone(v)
	}
	return c
}

func (ft *fakeTree) step(op string) error {
	if ft.hook != nil {
		return ft.hook(op)
	}
	return nil
}

func inoOf(n int) (ino tree.Ino) {
	binary.BigEndian.PutUint64(ino[16:], uint64(n)+1)
	return ino
}

func (ft *fakeTree) create(ino tree.Ino) tree.Node {
	ft.mu.Lock()
	defer ft.mu.Unlock()
	ft.ctr++
	n := tree.Node{Ino: ino, Kind: tree.File, Mode: 0o644, Base: []tree.Dot{{Ctr: ft.ctr}}}
	ft.files[ino] = []tree.Node{n}
	return n
}

// replace is another device's new version, which has seen all that is here.
func (ft *fakeTree) replace(ino tree.Ino, c tree.Content) {
	ft.mu.Lock()
	defer ft.mu.Unlock()
	ft.ctr++
	ft.files[ino] = []tree.Node{nodeOf(ino, c, tree.Dot{Actor: tree.Actor{'r'}, Ctr: ft.ctr})}
}

// remove is another device's delete.
func (ft *fakeTree) remove(ino tree.Ino) {
	ft.mu.Lock()
	defer ft.mu.Unlock()
	delete(ft.files, ino)
	ft.gone[ino] = true
}

// unlink is what the user of this device deletes.
func (ft *fakeTree) unlink(ino tree.Ino) {
	ft.mu.Lock()
	defer ft.mu.Unlock()
	delete(ft.files, ino)
	delete(ft.draft, ino)
}

func nodeOf(ino tree.Ino, c tree.Content, d tree.Dot) tree.Node {
	return tree.Node{
		Ino: ino, Kind: c.Kind, Mode: c.Mode, Size: c.Size, MTime: c.MTime,
		Ref: c.Ref, Inline: c.Inline, Base: []tree.Dot{d},
	}
}

func (ft *fakeTree) Node(ino tree.Ino) (tree.Node, error) {
	ft.mu.Lock()
	defer ft.mu.Unlock()
	v := ft.files[ino]
	if len(v) == 0 {
		return tree.Node{}, fs.ErrNotExist
	}
	return v[len(v)-1], nil
}

func (ft *fakeTree) Write(ino tree.Ino, base []tree.Dot, c tree.Content, dropDraft bool) (tree.Node, error) {
	if err := ft.step("write"); err != nil {
		return tree.Node{}, err
	}
	if r := (tree.Record{Key: tree.ContentKey(ino), Dot: tree.Dot{Actor: tree.Actor{1}, Ctr: 1}, Value: c.Encode()}); tree.Check(r) != nil {
		return tree.Node{}, fmt.Errorf("content: %w", tree.Check(r))
	}
	ft.mu.Lock()
	defer ft.mu.Unlock()
	if len(ft.files[ino]) == 0 && !ft.gone[ino] {
		return tree.Node{}, fs.ErrNotExist
	}
	ft.writes++
	ft.ctr++
	if len(ft.files[ino]) == 0 {
		old := ino
		ino = inoOf(1000 + int(ft.ctr))
		if d, ok := ft.draft[old]; ok {
			delete(ft.draft, old)
			d.Ino = ino
			ft.draft[ino] = d
		}
	}
	c.Inline = bytes.Clone(c.Inline)
	n := nodeOf(ino, c, tree.Dot{Ctr: ft.ctr})
	stays := slices.DeleteFunc(slices.Clone(ft.files[ino]), func(n tree.Node) bool { return slices.Contains(base, n.Base[0]) })
	ft.files[ino] = append(stays, n)
	if dropDraft {
		delete(ft.draft, ino)
	}
	return n, nil
}

func (ft *fakeTree) PutDraft(d tree.Draft) error {
	if err := ft.step("put draft"); err != nil {
		return err
	}
	if len(d.Data) > maxRecord {
		return fmt.Errorf("draft of %d bytes", len(d.Data))
	}
	ft.mu.Lock()
	defer ft.mu.Unlock()
	ft.puts++
	d.Data, d.Base = bytes.Clone(d.Data), slices.Clone(d.Base)
	ft.draft[d.Ino] = d
	return nil
}

func (ft *fakeTree) DropDraft(ino tree.Ino) error {
	if err := ft.step("drop draft"); err != nil {
		return err
	}
	ft.mu.Lock()
	defer ft.mu.Unlock()
	delete(ft.draft, ino)
	return nil
}

func (ft *fakeTree) Drafts() ([]tree.Draft, error) {
	ft.mu.Lock()
	defer ft.mu.Unlock()
	return slices.Collect(maps.Values(ft.draft)), nil
}

func (ft *fakeTree) Sync() error { return ft.step("sync tree") }

// fakeBlocks keeps blocks in a map, some of them on another device, and counts
// room. It leaves out eviction: blocks that were put stay and take room.
type fakeBlocks struct {
	mu      sync.Mutex
	blocks  map[block.ID][]byte
	remote  map[block.ID]bool // not resident: Get fetches them
	offline bool
	limit   int64 // bytes of room; 0: unbounded
	used    int64 // by blocks put and reservations
	fetched []block.ID
	hook    func(op string) error
	arrive  func(ctx context.Context, id block.ID, ahead bool) error // waits for a fetch
}

func newFakeBlocks() *fakeBlocks {
	return &fakeBlocks{blocks: map[block.ID][]byte{}, remote: map[block.ID]bool{}}
}

func (fb *fakeBlocks) clone() *fakeBlocks {
	fb.mu.Lock()
	defer fb.mu.Unlock()
	return &fakeBlocks{blocks: maps.Clone(fb.blocks), remote: maps.Clone(fb.remote)}
}

func (fb *fakeBlocks) step(op string) error {
	if fb.hook != nil {
		return fb.hook(op)
	}
	return nil
}

func (fb *fakeBlocks) Get(ctx context.Context, id block.ID) ([]byte, error) {
	return fb.get(ctx, id, false)
}

func (fb *fakeBlocks) Ahead(ctx context.Context, id block.ID) ([]byte, error) {
	return fb.get(ctx, id, true)
}

func (fb *fakeBlocks) get(ctx context.Context, id block.ID, ahead bool) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	fb.mu.Lock()
	b, ok := fb.blocks[id]
	away := fb.remote[id]
	if away && !fb.offline {
		fb.fetched = append(fb.fetched, id)
	}
	offline, arrive := fb.offline, fb.arrive
	fb.mu.Unlock()
	if !ok || away && offline {
		return nil, &block.UnavailableError{ID: id, Holders: []string{"attic"}}
	}
	if away && arrive != nil {
		if err := arrive(ctx, id, ahead); err != nil {
			return nil, err
		}
	}
	if away {
		fb.mu.Lock()
		delete(fb.remote, id)
		fb.mu.Unlock()
	}
	return b, nil
}

func (fb *fakeBlocks) Has(id block.ID) bool {
	fb.mu.Lock()
	defer fb.mu.Unlock()
	_, ok := fb.blocks[id]
	return ok && !fb.remote[id]
}

func (fb *fakeBlocks) Put(_ context.Context, id block.ID, sealed []byte) error {
	if err := fb.step("put block"); err != nil {
		return err
	}
	if err := block.Verify(id, sealed); err != nil {
		return err
	}
	fb.mu.Lock()
	defer fb.mu.Unlock()
	if _, ok := fb.blocks[id]; ok {
		return nil
	}
	if fb.limit > 0 && fb.used+roundUp(int64(len(sealed))) > fb.limit {
		return block.ErrNoRoom
	}
	fb.used += roundUp(int64(len(sealed)))
	fb.blocks[id] = sealed
	return nil
}

func (fb *fakeBlocks) Sync() error { return fb.step("sync blocks") }

func (fb *fakeBlocks) Reserve(ctx context.Context, n int64) (Room, error) {
	r := &fakeRoom{fb: fb}
	return r, r.Grow(ctx, n)
}

type fakeRoom struct {
	fb *fakeBlocks
	n  int64
}

func (r *fakeRoom) Grow(_ context.Context, n int64) error {
	r.fb.mu.Lock()
	defer r.fb.mu.Unlock()
	if r.fb.limit > 0 && r.fb.used+n > r.fb.limit {
		return block.ErrNoRoom
	}
	r.fb.used += n
	r.n += n
	return nil
}

func (r *fakeRoom) Shrink(n int64) {
	r.fb.mu.Lock()
	defer r.fb.mu.Unlock()
	if n > r.n {
		panic(fmt.Sprintf("shrink by %d of %d", n, r.n))
	}
	r.fb.used -= n
	r.n -= n
}

func (r *fakeRoom) Release() { r.Shrink(r.n) }

// away makes every block of the tree one that another device has.
func (fb *fakeBlocks) away() {
	fb.mu.Lock()
	defer fb.mu.Unlock()
	for id := range fb.blocks {
		fb.remote[id] = true
	}
	fb.fetched = nil
}

// tester is what testing.T and rapid.T have in common.
type tester interface {
	Helper()
	Fatal(...any)
	Fatalf(string, ...any)
}

// rig is a table over fakes.
type rig struct {
	tb     tester
	dir    string
	tree   *fakeTree
	blocks *fakeBlocks
	keys   *block.Keys
	t      *Table
}

func newRig(tb testing.TB, change ...func(*Options)) *rig {
	tb.Helper()
	return rigIn(tb, tb.TempDir(), change...)
}

func rigIn(tb tester, dir string, change ...func(*Options)) *rig {
	tb.Helper()
	keys, err := block.NewKeys(1, map[uint32]block.Secret{1: {7}})
	if err != nil {
		tb.Fatal(err)
	}
	r := &rig{tb: tb, dir: dir, tree: newFakeTree(), blocks: newFakeBlocks(), keys: keys}
	r.start(change...)
	return r
}

// start makes a table, the first one or one after a crash.
func (r *rig) start(change ...func(*Options)) {
	r.tb.Helper()
	o := Options{Dir: r.dir, Tree: r.tree, Blocks: r.blocks, Keys: r.keys}
	for _, c := range change {
		c(&o)
	}
	t, err := New(o)
	if err != nil {
		r.tb.Fatal(err)
	}
	if err := t.Recover(context.Background()); err != nil {
		r.tb.Fatal(err)
	}
	r.t = t
}

func (r *rig) node(ino tree.Ino) tree.Node {
	r.tb.Helper()
	n, err := r.tree.Node(ino)
	if err != nil {
		r.tb.Fatal(err)
	}
	return n
}

func (r *rig) open(ino tree.Ino, write bool) *Handle {
	r.tb.Helper()
	h, err := r.t.Open(r.node(ino), write, false)
	if err != nil {
		r.tb.Fatal(err)
	}
	return h
}

// file makes a committed file.
func (r *rig) file(n int, content []byte) tree.Ino {
	r.tb.Helper()
	ino := inoOf(n)
	r.tree.create(ino)
	h := r.open(ino, true)
	r.write(h, content, 0)
	r.must(r.t.Commit(context.Background(), ino))
	h.Release()
	return ino
}

func (r *rig) write(h *Handle, p []byte, off int64) {
	r.tb.Helper()
	if n, err := h.WriteAt(context.Background(), p, off); n != len(p) || err != nil {
		r.tb.Fatalf("write %d bytes at %d: %d, %v", len(p), off, n, err)
	}
}

func (r *rig) must(err error) {
	r.tb.Helper()
	if err != nil {
		r.tb.Fatal(err)
	}
}

// content returns all that a handle reads.
func content(tb tester, h *Handle) []byte {
	tb.Helper()
	p := make([]byte, h.Size()+1)
	n, err := h.ReadAt(context.Background(), p, 0)
	if err != nil {
		tb.Fatal(err)
	}
	if int64(n) != h.Size() {
		tb.Fatalf("read %d of %d bytes", n, h.Size())
	}
	return p[:n]
}

// committed returns the content of a node straight from the blocks.
func (r *rig) committed(n tree.Node) []byte {
	r.tb.Helper()
	if len(n.Inline) > 0 {
		return n.Inline
	}
	get := func(typ block.Type) func(id block.ID) ([]byte, error) {
		return func(id block.ID) ([]byte, error) {
			r.blocks.mu.Lock()
			defer r.blocks.mu.Unlock()
			sealed, ok := r.blocks.blocks[id]
			if !ok {
				return nil, fmt.Errorf("no block %v", id)
			}
			return r.keys.Open(id, typ, sealed)
		}
	}
	list, err := chunk.Load(n.Ref.Depth, n.Ref.ID, n.Size, get(block.List))
	if err != nil {
		r.tb.Fatal(err)
	}
	var out []byte
	for _, e := range list {
		if e.Hole {
			out = append(out, make([]byte, e.Len)...)
			continue
		}
		p, err := get(block.Data)(e.ID)
		if err != nil {
			r.tb.Fatal(err)
		}
		if int64(len(p)) != e.Len {
			r.tb.Fatalf("block %v: %d bytes, not %d", e.ID, len(p), e.Len)
		}
		out = append(out, p...)
	}
	return out
}

// noise returns n bytes that do not compress, the same for the same seed.
func noise(seed uint64, n int) []byte {
	p := make([]byte, n+8)
	x := seed*0x9e3779b97f4a7c15 + 1
	for i := 0; i < n; i += 8 {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		binary.LittleEndian.PutUint64(p[i:], x)
	}
	return p[:n]
}

// differ tells where two contents differ.
func differ(got, want []byte) string {
	if len(got) != len(want) {
		return fmt.Sprintf("%d bytes, want %d", len(got), len(want))
	}
	for i := range got {
		if got[i] != want[i] {
			return fmt.Sprintf("byte %d of %d is %#x, want %#x", i, len(got), got[i], want[i])
		}
	}
	return ""
}

func same(tb tester, what string, got, want []byte) {
	tb.Helper()
	if d := differ(got, want); d != "" {
		tb.Fatalf("%s: %s", what, d)
	}
}

var errCut = errors.New("cut")
