package mount

import (
	"bytes"
	"context"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/roamfs/roamfs/fs/file"
	"github.com/roamfs/roamfs/sync/block"
	"github.com/roamfs/roamfs/sync/tree"
)

// device is one device's tree in memory, over the real records, view and
// edits. It leaves out the database, signatures and the network.
type device struct {
	mu      sync.RWMutex
	actor   tree.Actor
	mem     *tree.Mem
	view    *tree.View
	ctr     uint64
	index   uint64
	ops     int   // in the open batch
	stopped error // why nothing is changed, or nil
	locals  map[tree.Ino]Local
	drafts  map[tree.Ino]tree.Draft
	syncs   int
	changes atomic.Uint64

	subMu    sync.Mutex
	subs     []*func(tree.Affected)
	unlisted bool // subscribers are told only that everything may differ
}

func newDevice(tb testing.TB, name string, mem *tree.Mem) *device {
	tb.Helper()
	d := &device{mem: mem, locals: map[tree.Ino]Local{}, drafts: map[tree.Ino]tree.Draft{}}
	copy(d.actor[:], name)
	var err error
	if d.view, err = tree.NewView(mem, tree.Labels(func(a tree.Actor) string { return string(bytes.TrimRight(a[:], "\x00")) })); err != nil {
		tb.Fatal(err)
	}
	return d
}

// fork returns another device that knows all that d knows.
func (d *device) fork(tb testing.TB) *device {
	tb.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ops = 0
	return newDevice(tb, "there", d.mem.Clone())
}

// pull makes d know all that other knows, and tells d's subscribers.
func (d *device) pull(tb testing.TB, other *device) {
	tb.Helper()
	d.mu.Lock()
	other.ops = 0 // what others have seen is a closed batch
	ch, _ := d.mem.Diff(other.mem)
	p, err := d.view.Prepare(ch)
	if err != nil {
		tb.Fatal(err)
	}
	d.mem.Apply(ch)
	for a, ctr := range other.mem.Vector() {
		d.mem.Advance(tree.Dot{Actor: a, Ctr: ctr})
	}
	d.changes.Add(1)
	aff, err := p.Done()
	if err != nil {
		tb.Fatal(err)
	}
	d.mu.Unlock()
	d.tell(aff)
}

func (d *device) tell(aff tree.Affected) {
	d.subMu.Lock()
	defer d.subMu.Unlock()
	if d.unlisted {
		aff = tree.Affected{All: true}
	}
	for _, fn := range d.subs {
		(*fn)(aff)
	}
}

func (d *device) Subscribe(fn func(tree.Affected)) (cancel func()) {
	d.subMu.Lock()
	defer d.subMu.Unlock()
	sub := &fn
	d.subs = append(d.subs, sub)
	return func() {
		d.subMu.Lock()
		defer d.subMu.Unlock()
		d.subs = slices.DeleteFunc(d.subs, func(s *func(tree.Affected)) bool { return s == sub })
	}
}

// edit carries out one operation, under a dot that some operations share.
func (d *device) edit(fn func(*tree.Edit) error) (tree.Affected, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ops%16 == 0 {
		d.ctr++
	}
	d.ops++
	dot := tree.Dot{Actor: d.actor, Ctr: d.ctr}
	e := d.view.Edit(dot, d.index, time.Now().UnixNano())
	d.index++
	if err := fn(e); err != nil {
		return tree.Affected{}, err
	}
	ch := e.Change()
	p, err := d.view.Prepare(ch)
	if err != nil {
		return tree.Affected{}, err
	}
	d.mem.Apply(ch)
	d.mem.Advance(dot)
	d.changes.Add(1)
	return p.Done()
}

func (d *device) do(fn func(*tree.Edit) error) error {
	_, err := d.edit(fn)
	return err
}

func (d *device) make(fn func(*tree.Edit) (tree.Ino, error)) (tree.Node, error) {
	var ino tree.Ino
	if _, err := d.edit(func(e *tree.Edit) (err error) { ino, err = fn(e); return err }); err != nil {
		return tree.Node{}, err
	}
	return d.Node(ino)
}

func (d *device) Lookup(dir tree.Ino, name string) (tree.Node, error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	e, err := d.view.Lookup(dir, name)
	if err != nil {
		return tree.Node{}, err
	}
	return d.view.Node(e.Ino)
}

func (d *device) Node(ino tree.Ino) (tree.Node, error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.view.Node(ino)
}

func (d *device) List(dir tree.Ino) ([]tree.Entry, error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.view.List(dir)
}

func (d *device) ListNodes(dir tree.Ino, most int) ([]tree.Entry, []tree.Node, uint64, error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	es, nodes, err := d.view.ListNodes(dir, most)
	return es, nodes, d.changes.Load(), err
}

func (d *device) Changes() uint64 { return d.changes.Load() }

func (d *device) Path(ino tree.Ino) (string, error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.view.Path(ino)
}

func (d *device) Conflicts() ([]tree.Conflict, error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.view.Conflicts()
}

func (d *device) Writable() error {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.stopped
}

func (d *device) Create(parent tree.Ino, name string, c tree.Content) (tree.Node, error) {
	return d.make(func(e *tree.Edit) (tree.Ino, error) { return e.Create(parent, name, c) })
}

func (d *device) Mkdir(parent tree.Ino, name string, mode uint32) (tree.Node, error) {
	return d.make(func(e *tree.Edit) (tree.Ino, error) { return e.Mkdir(parent, name, mode) })
}

func (d *device) Link(ino, parent tree.Ino, name string) (tree.Node, error) {
	return d.make(func(e *tree.Edit) (tree.Ino, error) { return ino, e.Link(ino, parent, name) })
}

func (d *device) Unlink(parent tree.Ino, name string) error {
	return d.do(func(e *tree.Edit) error { return e.Unlink(parent, name) })
}

func (d *device) Rmdir(parent tree.Ino, name string) error {
	return d.do(func(e *tree.Edit) error { return e.Rmdir(parent, name) })
}

func (d *device) Rename(op tree.Ino, on string, np tree.Ino, nn string, noReplace, exchange bool) error {
	return d.do(func(e *tree.Edit) error { return e.Rename(op, on, np, nn, noReplace, exchange) })
}

func (d *device) Chmod(ino tree.Ino, mode uint32) error {
	return d.do(func(e *tree.Edit) error { return e.Chmod(ino, mode) })
}

func (d *device) SetMTime(ino tree.Ino, ns int64) error {
	return d.do(func(e *tree.Edit) error { return e.SetMTime(ino, ns) })
}

func (d *device) SetXattr(ino tree.Ino, name string, value []byte) error {
	return d.do(func(e *tree.Edit) error { return e.SetXattr(ino, name, value) })
}

func (d *device) RemoveXattr(ino tree.Ino, name string) error {
	return d.do(func(e *tree.Edit) error { return e.RemoveXattr(ino, name) })
}

func (d *device) Write(ino tree.Ino, base []tree.Dot, c tree.Content, dropDraft bool) (tree.Node, error) {
	real := ino
	aff, err := d.edit(func(e *tree.Edit) (err error) { real, err = e.Write(ino, base, c); return err })
	if err != nil {
		return tree.Node{}, err
	}
	d.mu.Lock()
	if dropDraft {
		delete(d.drafts, ino)
	}
	d.mu.Unlock()
	if len(aff.Entries) > 0 {
		d.tell(aff)
	}
	return d.Node(real)
}

func (d *device) PutDraft(draft tree.Draft) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	draft.Data, draft.Base = bytes.Clone(draft.Data), slices.Clone(draft.Base)
	d.drafts[draft.Ino] = draft
	return nil
}

func (d *device) DropDraft(ino tree.Ino) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.drafts, ino)
	return nil
}

func (d *device) Drafts() ([]tree.Draft, error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return slices.Collect(maps.Values(d.drafts)), nil
}

func (d *device) Local(ino tree.Ino) Local {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.locals[ino]
}

func (d *device) SetLocal(ino tree.Ino, l Local) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.locals[ino] = l
	return nil
}

func (d *device) Sync() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.syncs++
	return nil
}

// store is a store of blocks in memory, without bound. A block that is withheld
// is not resident, and fetching it waits until it is released or refused.
type store struct {
	mu       sync.Mutex
	blocks   map[block.ID][]byte
	withheld chan struct{} // not nil: closed when blocks are to be had again
	refuse   error         // what fetching fails with, if withheld is nil
	waiting  chan struct{} // receives when a fetch begins to wait
}

func newStore() *store {
	return &store{blocks: map[block.ID][]byte{}, waiting: make(chan struct{}, 64)}
}

func (s *store) Get(ctx context.Context, id block.ID) ([]byte, error) {
	s.mu.Lock()
	gate, refuse := s.withheld, s.refuse
	s.mu.Unlock()
	if gate != nil {
		select {
		case s.waiting <- struct{}{}:
		default:
		}
		select {
		case <-gate:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	} else if refuse != nil {
		return nil, refuse
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	b, ok := s.blocks[id]
	if !ok {
		return nil, &block.UnavailableError{ID: id}
	}
	return b, nil
}

func (s *store) Ahead(ctx context.Context, id block.ID) ([]byte, error) { return s.Get(ctx, id) }

func (s *store) Has(id block.ID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.blocks[id]
	return ok && s.withheld == nil && s.refuse == nil
}

func (s *store) Put(_ context.Context, id block.ID, sealed []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.blocks[id] = bytes.Clone(sealed)
	return nil
}

func (s *store) Sync() error { return nil }

func (s *store) Reserve(context.Context, int64) (file.Room, error) { return room{}, nil }

// withhold makes every fetch wait; the function it returns ends that.
func (s *store) withhold() (release func()) {
	gate := make(chan struct{})
	s.mu.Lock()
	defer s.mu.Unlock()
	s.withheld = gate
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.withheld == gate {
			s.withheld = nil
			close(gate)
		}
	}
}

// set makes every fetch fail with err, or none.
func (s *store) set(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refuse = err
}

type room struct{}

func (room) Grow(context.Context, int64) error { return nil }
func (room) Shrink(int64)                      {}
func (room) Release()                          {}

// status is what the tests know about the hive.
type status struct {
	mu     sync.Mutex
	pinned map[tree.Ino]bool
}

func (s *status) State(ino tree.Ino) (State, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return State{State: "here", LocalBytes: 12, Copies: 2, Where: []string{"laptop", "nas"}, Pinned: s.pinned[ino]}, nil
}

func (s *status) SetPinned(ino tree.Ino, pinned bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pinned[ino] = pinned
	return nil
}

func (s *status) StatusJSON() []byte { return []byte("{\"schema\":1}\n") }

func (s *status) Room() Room {
	return Room{Total: 1 << 40, Free: 1 << 39, Avail: 1 << 38, Files: 1 << 20, FilesFree: 1 << 19}
}
