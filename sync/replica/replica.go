// Package replica is one device's replica of the tree: it carries out the
// user's operations, publishes them as signed commits, adopts the commits of
// other devices, and tells those who show the tree what changed.
//
// # Batches
//
// Operations change the local records at once, under the dot (actor, n+1) of
// the open batch, where n is the number of this actor's last commit. Publishing
// closes the batch: what it put and dropped becomes a delta, the manifest over
// it is signed, and only after the database is synced does either leave the
// process, so that no dot that another device has seen can be given out again.
// An operation that undoes another of the same batch leaves no trace; a batch
// that comes to nothing is not published. A batch that puts a file in the place of
// another waits for its content (replace.go). One operation that changes very many
// records is a commit of its own (large.go says how large one can be).
//
// # Adoption
//
// A commit is applied when everything that its author had seen is here. Peers
// push commits in the order in which they came to know them, which keeps that
// true; a gap is closed by saying hello again. A device that lacks commits that
// nobody keeps any more walks the Merkle tree over the state of one peer, takes the
// leaves of it that differ from its own, checks that with them it has the root that this
// peer signed, and joins them in one step (package tree, join; walk.go). What is alike
// in both is in the join as it is. A new device does the same, and lacks all.
// It takes no more of it than was offered and than there is room for, and nothing
// of it stays if it turns out to be of no use. If the peer goes away, the leaves
// that came are kept for a while: the next walk, over the state of whomever, does
// not ask for them again.
//
// Nothing is adopted from whoever knows another commit under a number than this
// device does (forks.go).
//
// Idea: sync.md's dotted store with one join; push of signed deltas with an
// anti-entropy hello, as in Demers et al., Epidemic Algorithms (1987).
package replica

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/roamfs/roamfs/peer/device"
	"github.com/roamfs/roamfs/sync/manifest"
	"github.com/roamfs/roamfs/sync/store"
	"github.com/roamfs/roamfs/sync/tree"
)

// A batch is published once it has this many records or bytes, so that a
// commit fits one database transaction and one message.
const (
	batchRecords = 2048
	batchBytes   = 384 << 10
)

// ErrBroken means that the view no longer matches the database after a failed
// read; the device has to be restarted.
var ErrBroken = errors.New("the tree could not be read after a change: restart this device")

// Config is what a replica needs. All fields but Reserve, Keep, Now, Guard and Log are required.
type Config struct {
	Store   *store.Store
	Key     device.Key
	Actor   tree.Actor // the incarnation; another than before if the database may be a copy (incarnation.go)
	Members *device.Log
	Spread  [32]byte // keys the shape of the Merkle tree; the same on all devices of a hive
	Staging string   // file path for a state that is being received
	Kept    string   // file path for what makes the next Open fast
	// Reserve finds room on the disk for n bytes of such a state before any of it is
	// taken. Default: there is always room.
	Reserve func(ctx context.Context, n int64) (Room, error)
	Keep    int64            // bytes of commits kept for peers; default 8 MiB
	Now     func() time.Time // default time.Now
	// Guard is the percentage of the tree that another device may remove before it
	// is held back (guard.go); 0: everything is let through.
	Guard int
	Log   *slog.Logger
}

// Replica is safe for concurrent use.
//
// Locks: mu guards the view and the bookkeeping below it and is held during
// database transactions, which run at memory speed, but never during a sync, a
// send or a call to a subscriber. sessions.mu is taken alone or inside mu.
type Replica struct {
	cfg Config
	st  *store.Store
	log *slog.Logger

	dirty chan struct{} // 1: the open batch has something

	changes atomic.Uint64 // see Changes; grows with mu held

	mu      sync.RWMutex
	view    *tree.View
	vector  tree.Vector // commits published or adopted; replaced, never changed
	synced  tree.Vector // as much of it as is on the disk, and so may be told
	open    batch
	index   uint64 // of the next Edit of this process
	spans   spans
	heads   map[tree.Actor]head // with a commit each
	stated  head                // this device's newest checkpoint
	commits commits
	broken  bool
	oldCopy bool      // see ErrOldCopy
	coming  *incoming // a state that was compared with this one, if not nil
	gone    gone      // files that other devices deleted; has a lock of its own
	locals  map[tree.Ino]Local
	guard   guarding

	telling   sync.Mutex // one call to the subscribers at a time
	subMu     sync.Mutex
	subs      []*func(tree.Affected)
	writes    []func(tree.Ino)
	onMembers []func() // of the members
	setting   []func()

	sessions sessions
	staging  sync.Mutex // one walk at a time; guards stage; taken before all others
	stage    *stage     // leaves that a walk has received so far, or nil
	syncing  sync.Mutex // one publish at a time
	saving   sync.Mutex // held while the members are saved
	words    words      // what other devices said they know
	held     held       // what revoked devices are known to have done besides

	replacing replacing // has a lock of its own

	between func() // tests: called between two transactions of one adoption, with mu held
}

// head is what is known of a manifest.
type head struct {
	seq  uint64
	ctr  uint64
	hash manifest.Hash
	word word // that its author gave with it; not of a checkpoint of this device
}

func headOf(m *manifest.Manifest) head {
	return head{m.Seq, m.Ctr, m.Hash(), word{m.Vector(), m.Members}}
}

// Open reads the replica from its database. An unfinished batch of an earlier
// run is closed first, so that its dot is never used for anything else.
func Open(cfg Config) (*Replica, error) {
	if cfg.Keep == 0 {
		cfg.Keep = 8 << 20
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	r := &Replica{
		cfg: cfg, st: cfg.Store, log: cfg.Log,
		dirty:  make(chan struct{}, 1),
		heads:  map[tree.Actor]head{},
		locals: map[tree.Ino]Local{},
		// A batch of an earlier run that came to nothing leaves its dot to this
		// one: the inodes that are named after it must be others.
		index: uint64(cfg.Now().UnixNano()),
	}
	r.sessions.init(r)
	if err := r.load(); err != nil {
		return nil, fmt.Errorf("open tree: %w", err)
	}
	if err := r.finish(); err != nil {
		return nil, fmt.Errorf("open tree: %w", err)
	}
	if err := r.anchorBatch(); err != nil {
		return nil, fmt.Errorf("open tree: %w", err)
	}
	if err := r.finishGuard(); err != nil {
		return nil, fmt.Errorf("open tree: %w", err)
	}
	if _, err := r.publish(); err != nil {
		return nil, fmt.Errorf("open tree: %w", err)
	}
	r.mu.Lock()
	r.view.Words(r.vector, r.vector, r.wordsLocked())
	r.mu.Unlock()
	return r, nil
}

func (r *Replica) load() error {
	b, err := r.st.Value("vector")
	if err != nil {
		return err
	}
	r.vector = tree.Vector{}
	if b != nil {
		var rest []byte
		if r.vector, rest, err = tree.DecodeVector(b); err != nil || len(rest) > 0 {
			return fmt.Errorf("%w: version vector: %w", store.ErrDamaged, err)
		}
	}
	if err := r.st.Heads(func(a tree.Actor, b []byte) error {
		m, err := manifest.Decode(b)
		if err != nil {
			return fmt.Errorf("%w: manifest of %x: %w", store.ErrDamaged, a, err)
		}
		r.heads[a] = headOf(m)
		return nil
	}); err != nil {
		return err
	}
	if err := r.loadStated(); err != nil {
		return err
	}
	if err := r.commits.load(r.st); err != nil {
		return err
	}
	if err := r.loadLocals(); err != nil {
		return err
	}
	if err := r.loadGone(); err != nil {
		return err
	}
	if err := r.loadWords(); err != nil {
		return err
	}
	if err := r.loadHeld(); err != nil {
		return err
	}
	kept, err := r.readKept()
	if err != nil {
		return err
	}
	if err := r.loadSpans(kept); err != nil {
		return err
	}
	if err := r.moveBatch(); err != nil {
		return err
	}
	if err := r.loadGuard(); err != nil {
		return err
	}
	if err := r.loadView(kept); err != nil {
		return err
	}
	return r.open.load(r.st, tree.Dot{Actor: r.cfg.Actor, Ctr: r.vector[r.cfg.Actor] + 1})
}

// Close ends all sessions and keeps what makes the next Open fast. The caller
// has stopped Run and closes the database afterwards.
func (r *Replica) Close() error {
	r.sessions.closeAll()
	r.staging.Lock()
	r.dropStage()
	r.staging.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.broken {
		return nil
	}
	if err := r.keepLocked(); err != nil {
		return fmt.Errorf("close tree: %w", err)
	}
	r.broken = true // what is kept must stay true
	return nil
}

// Run publishes what the user does until ctx ends, then publishes what is left.
func (r *Replica) Run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return r.Publish()
		case <-r.dirty:
		}
		r.settle(ctx)
		if err := r.Publish(); err != nil {
			r.log.Error("publish", "err", err)
			select { // the batch stays open: try again
			case <-ctx.Done():
			case <-time.After(time.Second):
			}
			r.wake()
		}
	}
}

// settle waits for the end of a burst of operations: quiet for 10 ms, or the
// batch full, or half a second in all. A single operation reaches the other
// devices at once; an import travels in batches. See replace.go for what it waits
// for longer.
func (r *Replica) settle(ctx context.Context) {
	begin := time.Now()
	for last := r.openSize(); ; {
		select {
		case <-ctx.Done():
			return
		case <-time.After(10 * time.Millisecond):
		}
		now, took := r.openSize(), time.Since(begin)
		content, drafts := r.owes()
		switch {
		case now >= batchRecords || took >= draftsWait:
			r.replacing.clear() // there is no more waiting for these
			return
		case drafts:
		case took >= burst:
			r.replacing.clear()
			return
		case now == last && !content:
			return
		}
		last = now
	}
}

func (r *Replica) openSize() int {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.open.ops
}

func (r *Replica) wake() {
	select {
	case r.dirty <- struct{}{}:
	default:
	}
}

// Subscribe registers fn to be told what other devices changed. It is called
// without locks held, one call at a time, after the change is visible, until
// cancel is called; a call that is under way then may still end after it.
func (r *Replica) Subscribe(fn func(tree.Affected)) (cancel func()) {
	r.subMu.Lock()
	defer r.subMu.Unlock()
	sub := &fn
	r.subs = append(slices.Clip(r.subs), sub) // tell may be walking the old one
	return func() {
		r.subMu.Lock()
		defer r.subMu.Unlock()
		r.subs = slices.DeleteFunc(slices.Clone(r.subs), func(s *func(tree.Affected)) bool { return s == sub })
	}
}

func (r *Replica) tell(a tree.Affected) {
	if len(a.Entries) == 0 && len(a.Inodes) == 0 && !a.All {
		return
	}
	r.telling.Lock()
	defer r.telling.Unlock()
	r.subMu.Lock()
	subs := r.subs
	r.subMu.Unlock()
	for _, fn := range subs {
		(*fn)(a)
	}
}

// SubscribeWrites registers fn to be told the inodes to which this device has
// committed content, or which it has deleted. It is called without locks held.
func (r *Replica) SubscribeWrites(fn func(tree.Ino)) {
	r.subMu.Lock()
	defer r.subMu.Unlock()
	r.writes = append(r.writes, fn)
}

func (r *Replica) wrote(ino tree.Ino) {
	r.subMu.Lock()
	fns := r.writes
	r.subMu.Unlock()
	for _, fn := range fns {
		fn(ino)
	}
}

// label names an actor's device, for conflict copies: as it was admitted, since
// the names of files must not change when a device is renamed.
func (r *Replica) label(a tree.Actor) string {
	if m, ok := r.Author(a); ok {
		return m.Enrolled
	}
	return fmt.Sprintf("%x", a[:4])
}

// Author returns the device that an actor belongs to.
func (r *Replica) Author(a tree.Actor) (device.Member, bool) {
	return r.cfg.Members.ByActor(a)
}

// Sync makes every operation that has returned survive power loss.
func (r *Replica) Sync() error { return r.st.Sync() }

// State returns the root of the tree and the state id, which two devices share
// exactly when they show the same tree and know the same history.
func (r *Replica) State() (root, state [32]byte, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	h, err := r.rootLocked()
	if err != nil {
		return root, state, err
	}
	v := r.vector
	if !r.open.empty() {
		v = v.Clone()
		v[r.cfg.Actor]++
	}
	return h, manifest.StateID(h, v), nil
}

// Resolve finds the inode at a slash-separated path from the root.
func (r *Replica) Resolve(path string) (tree.Node, error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.resolveLocked(path)
}

func (r *Replica) resolveLocked(path string) (tree.Node, error) {
	n, err := r.view.Node(tree.Ino{})
	if err != nil {
		return n, err
	}
	for name := range strings.SplitSeq(path, "/") {
		if name == "" || name == "." {
			continue
		}
		if n.Kind != tree.Dir {
			return tree.Node{}, &fs.PathError{Op: "resolve", Path: path, Err: tree.ErrNotDir}
		}
		if n, err = r.lookupLocked(n.Ino, name); err != nil {
			return tree.Node{}, &fs.PathError{Op: "resolve", Path: path, Err: err}
		}
	}
	return n, nil
}
