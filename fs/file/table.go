package file

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/roamfs/roamfs/sync/block"
	"github.com/roamfs/roamfs/sync/tree"
)

// MaxSize is the largest file, in bytes: what a draft file on ext4 can be.
const MaxSize = 16<<40 - pageSize

var (
	// ErrTooLarge means a file of more than [MaxSize] bytes.
	ErrTooLarge = errors.New("file too large")

	// ErrNotWritable means a change through a handle that was opened for reading.
	ErrNotWritable = errors.New("not opened for writing")

	// ErrClosed means a handle that was released.
	ErrClosed = errors.New("file handle is released")
)

// Tree is what the table needs of the replicated tree and its database. Each
// call is one transaction; what has returned survives kill -9. It is safe for
// concurrent use.
type Tree interface {
	// Node returns the inode as it is shown, or fs.ErrNotExist.
	Node(ino tree.Ino) (tree.Node, error)

	// Write commits new content that supersedes the versions base, and with
	// dropDraft removes the inode's journal entry in the same transaction. It
	// returns the node as it is shown then. A file that another device deleted, before or
	// after a restart, is made anew, as another inode, to which its journal entry goes
	// over in the same transaction. The error for one that is gone otherwise is fs.ErrNotExist.
	Write(ino tree.Ino, base []tree.Dot, c tree.Content, dropDraft bool) (tree.Node, error)

	// PutDraft replaces the journal entry of an inode. It does not keep d.Data.
	// The transaction in which this device's user removes the last link of an
	// inode removes the entry too.
	PutDraft(d tree.Draft) error

	// DropDraft removes the journal entry of an inode, if there is one.
	DropDraft(ino tree.Ino) error

	// Drafts returns all journal entries.
	Drafts() ([]tree.Draft, error)

	// Sync makes everything that has returned survive power loss.
	Sync() error
}

// Blocks is where sealed blocks are, and the account of the room they and the drafts take.
// It is safe for concurrent use. The errors are those of sync/block.
type Blocks interface {
	// Get returns the sealed bytes of a block, verified, from this device or
	// another. The caller does not change them. It returns when ctx ends.
	Get(ctx context.Context, id block.ID) ([]byte, error)

	// Ahead is Get for a block that nobody waits for yet.
	Ahead(ctx context.Context, id block.ID) ([]byte, error)

	// Has reports whether the block is resident.
	Has(id block.ID) bool

	// Put stores a block that this device made; [block.ErrNoRoom] if it cannot.
	Put(ctx context.Context, id block.ID, sealed []byte) error

	// Sync makes every block put so far survive power loss.
	Sync() error

	// Reserve takes room for n bytes; [block.ErrNoRoom] if it cannot be had.
	Reserve(ctx context.Context, n int64) (Room, error)
}

// Room is a reservation. It is safe for concurrent use.
type Room interface {
	// Grow adds n bytes; [block.ErrNoRoom] if they cannot be had.
	Grow(ctx context.Context, n int64) error

	// Shrink gives n bytes back.
	Shrink(n int64)

	// Release gives everything back. The Room is not used afterwards.
	Release()
}

// Options are the parts of a table. Dir, Tree, Blocks and Keys are required.
type Options struct {
	Dir    string // of the draft files; made if it is missing; nothing else is kept there
	Tree   Tree
	Blocks Blocks
	Keys   *block.Keys

	Memory    int64 // bytes of decoded content kept in memory; default 32 MiB
	ReadAhead int64 // bytes that one handle reads ahead at most; default 16 MiB
	Log       *slog.Logger

	// Hint, if set, is told before a block is fetched whose content it is of.
	Hint func(ino tree.Ino, id block.ID)

	// Draining, if set, reports whether other devices are taking blocks right
	// now, so that room may come of itself: writers wait for it, up to 30 s.
	// Without it they wait only while commits of this table free some.
	Draining func() bool
}

// Table holds the files that are open or not committed yet. It is safe for
// concurrent use.
//
// Locks, in the order in which they are taken: squeeze (a writer without
// room commits what there is), inode.op (the turn to change one inode's content; held during
// reads and writes of its draft file and transactions of the tree, never during a
// fetch, a sync or a wait for room), mu, inode.mu, and the small ones: purse, lru, flights, ahead.mu,
// settling.
type Table struct {
	o        Options
	log      *slog.Logger
	workers  int
	chunkKey [32]byte

	chunks      *lru[block.ID, []byte]
	lists       *lru[block.ID, *layout]
	flights     flights
	flyingBytes atomic.Int64
	purse       purse
	progress    atomic.Int64  // when a commit last gave room, ns
	windows     sync.Pool     // of *window
	sealing     chan struct{} // one token for each block being sealed
	storing     chan struct{} // one token for each draft file being cut
	squeeze     chan struct{}
	settling    settling

	// How drafts are made durable; tests look in.
	datasync func(*os.File) error
	syncDir  func(string) error

	seq  atomic.Uint64 // of the layer made last
	wake chan struct{} // 1: the head of the queue may be another

	mu     sync.Mutex
	files  map[tree.Ino]*inode // what an Open joins, by present and by earlier number
	all    map[*inode]struct{} // also versions that only older handles read
	queue  dueQueue            // dirty inodes that are to be committed, by time
	linger []*inode            // closed and committed a short while ago, by time
}

// New returns a table over the draft files in o.Dir. [Table.Recover] must be
// called once before it is used.
func New(o Options) (*Table, error) {
	if o.Tree == nil || o.Blocks == nil || o.Keys == nil {
		return nil, errors.New("file table: Tree, Blocks and Keys are required")
	}
	if o.Memory <= 0 {
		o.Memory = 32 << 20
	}
	if o.ReadAhead <= 0 {
		o.ReadAhead = 16 << 20
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("drafts: %w", err)
	}
	t := &Table{
		o: o, log: o.Log,
		workers: runtime.GOMAXPROCS(0), chunkKey: o.Keys.ChunkKey(),
		chunks: newLRU[block.ID, []byte](o.Memory),
		lists:  newLRU[block.ID, *layout](o.Memory / 8),
		wake:   make(chan struct{}, 1),

		datasync: datasync, syncDir: syncDir,

		files:   map[tree.Ino]*inode{},
		all:     map[*inode]struct{}{},
		squeeze: make(chan struct{}, 1),
	}
	t.flights.by = map[block.ID]*flight{}
	t.purse.blocks = o.Blocks
	t.sealing = make(chan struct{}, t.workers)
	t.storing = make(chan struct{}, t.workers)
	t.settling.init()
	return t, nil
}

func (t *Table) draftPath(ino tree.Ino, seq uint64) string {
	return filepath.Join(t.o.Dir, fmt.Sprintf("%x-%x", ino[:], seq))
}

// Stat returns n with the size and the modification time that the inode has
// with its uncommitted draft. If n was read before a commit that is done by now
// it returns the inode as it is since.
func (t *Table) Stat(n tree.Node) tree.Node {
	if n.Kind != tree.File {
		return n
	}
	f := t.lookup(n.Ino)
	if f == nil {
		return n
	}
	for range 2 {
		f.mu.RLock()
		l := f.upper()
		if l != nil {
			n.Size, n.MTime = l.size, l.mtime
		}
		current := l != nil || f.base.shows(n)
		f.mu.RUnlock()
		if current {
			return n
		}
		fresh, err := t.o.Tree.Node(n.Ino)
		if err != nil {
			return n
		}
		n = fresh
	}
	return n
}

func (t *Table) lookup(ino tree.Ino) *inode {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.files[ino]
}

// Truncate sets the size of a file, as truncate(2) does: what is new reads as
// zeros. The result survives kill -9 if no handle has the file open for writing;
// otherwise when one of them is flushed.
func (t *Table) Truncate(ctx context.Context, n tree.Node, size int64) error {
	h, err := t.Open(n, true, false)
	if err != nil {
		return err
	}
	defer h.Release()
	if err := h.Truncate(ctx, size); err != nil {
		return err
	}
	return h.Flush(ctx)
}

// SetMTime sets the modification time of a file that has an uncommitted draft,
// with which it is committed, and reports whether there is one. If there is none the time
// belongs into the tree.
func (t *Table) SetMTime(ino tree.Ino, ns int64) bool {
	f := t.lookup(ino)
	if f == nil {
		return false
	}
	f.op.Lock()
	defer f.op.Unlock()
	f.mu.Lock()
	l := f.upper()
	if l == nil || f.removed {
		f.mu.Unlock()
		return false
	}
	l.mtime, l.kept = ns, true
	f.mu.Unlock()
	f.touched()
	if f.journaled {
		// Whoever wrote it may have closed it already.
		if err := f.save(); err != nil {
			t.log.Error("journal of a draft", "ino", ino, "err", err)
		}
	}
	return true
}

// Removed says that this device's user removed the last link of an inode. Its
// draft is never committed, and goes when the last handle is released. A crash before this call makes
// no difference, since the tree has dropped the journal entry with the link. It is not to be called
// for what another device removed: a draft that this device has not
// seen it remove is newer than that.
func (t *Table) Removed(ino tree.Ino) {
	t.mu.Lock()
	f := t.files[ino]
	t.mu.Unlock()
	if f == nil {
		return
	}
	f.op.Lock()
	defer f.op.Unlock()
	t.mu.Lock()
	t.unqueue(f)
	f.mu.Lock()
	f.removed = true
	f.mu.Unlock()
	last := f.handles == 0 && f.commit == nil // else its end comes here
	t.mu.Unlock()
	if f.journaled {
		if err := t.o.Tree.DropDraft(f.ino); err != nil {
			t.log.Error("journal of a removed file", "ino", ino, "err", err)
		}
		f.journaled = false
	}
	if last {
		t.discard(f)
	}
}

// Pending returns how many files have a draft that is to be committed, and how
// many bytes the drafts hold.
func (t *Table) Pending() (files int, bytes int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for f := range t.all {
		f.mu.RLock()
		if f.upper() != nil && !f.removed {
			files++
			for _, l := range f.layers() {
				bytes += l.set.bytes
			}
		}
		f.mu.RUnlock()
	}
	return files, bytes
}

// Live calls fn, possibly more than once, with each block that an open handle,
// an uncommitted draft or a commit under way still needs, beside those of the tree.
func (t *Table) Live(fn func(block.ID)) {
	t.mu.Lock()
	open := slices.Collect(maps.Keys(t.all))
	t.mu.Unlock()
	for _, f := range open {
		f.mu.RLock()
		base := f.base
		for id := range f.making {
			fn(id)
		}
		f.mu.RUnlock()
		t.eachBlock(base, fn)
	}
}

// Shrink lets go of content that is kept in memory only because it may be read
// again.
func (t *Table) Shrink() { t.chunks.clear() }

// now returns the time in ns since 1970.
func now() int64 { return time.Now().UnixNano() }
