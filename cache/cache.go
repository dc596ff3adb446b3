package cache

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/roamfs/roamfs/cache/evict"
	"github.com/roamfs/roamfs/cache/internal/idmap"
	"github.com/roamfs/roamfs/sync/block"
)

// PackBelow is the size in bytes of a sealed block from which on it gets a file
// of its own. Smaller ones share pack files, where they cost neither an inode
// nor whole pages.
const PackBelow = 64 << 10

var (
	// ErrMissing means that a block is not resident.
	ErrMissing = errors.New("block is not resident")

	// ErrPinned means that a block cannot be removed because it is pinned or
	// being read or written.
	ErrPinned = errors.New("block is pinned or in use")

	// ErrNoProof means that a proof does not allow what was asked: it is the zero
	// Proof, it names no holder, it has lapsed, or the cache never evicts.
	ErrNoProof = errors.New("no proof that the block may go")

	// ErrClosed means that the cache was closed.
	ErrClosed = errors.New("cache is closed")

	// ErrVersion means that the directory was written by a later version.
	ErrVersion = errors.New("block directory has an unknown version")
)

// Priority says how urgent a fetch is.
type Priority uint8

// The priorities, the most urgent first.
const (
	Demand     Priority = iota // a program waits for it
	ReadAhead                  // a program is likely to ask for it soon
	Background                 // copies, healing: nobody waits
)

// Fetcher obtains blocks that are not resident. Unless [Options.Verified] is set,
// the cache checks what it returns against the ID, so a Fetcher need not be trusted.
type Fetcher interface {
	// Fetch returns the sealed bytes of block id, at most [block.MaxSealed], which
	// the caller then owns. If no device within reach holds it the error is a
	// [block.ErrNoReplica]. It returns soon when ctx ends. There is at most one
	// call for one ID at any time.
	Fetch(ctx context.Context, id block.ID, p Priority) ([]byte, error)
}

// Raiser is a Fetcher that wants to know when a fetch under way has become more
// urgent than it was begun as.
type Raiser interface {
	// Raise must not block.
	Raise(id block.ID, p Priority)
}

// Prover obtains proofs that blocks may be evicted.
type Prover interface {
	// Prove returns proofs for those of ids that are provable now, in any order.
	// An error says that nothing else will become provable soon, because no device is
	// within reach: then writers that need the room fail at once. Without one they
	// wait, for a bounded time. Proofs count even beside an error. It returns soon
	// when ctx ends.
	Prove(ctx context.Context, ids []block.ID) ([]Proof, error)
}

// Options says what a cache is for. The zero value is an unbounded cache that
// fetches nothing.
type Options struct {
	Limit int64 // bytes allocated at most; 0 is unbounded
	Keep  bool  // archive: never evict

	Fetcher Fetcher // nil: Get knows only what is resident

	// Verified says that the Fetcher compares the bytes that it returns with the ID
	// by itself, after they came from the network. They are not hashed once more then.
	// Without this hash and that of block.Keys.Open, a cold read of 1 GiB took 2.3 s of
	// CPU in user space instead of 2.9 s.
	Verified bool

	Prover Prover // nil: nothing is ever evicted by itself

	// Overhead returns the allocated bytes of whatever else counts towards the
	// limit and that nobody reserved, such as the database; nil is none. It is
	// called before each reservation and must be quick. What it may grow by until the
	// next call should be part of it.
	Overhead func() int64

	// Changed is told which blocks are now durable here and which are no longer
	// resident. Calls follow one another in the order of the events; a block that is
	// removed is reported before its bytes go. One that comes and goes between two
	// Syncs may be reported as gone without having been added. It may call methods
	// that only look (Has, Missing, Read, Usage) and must not call the others. nil is allowed.
	Changed func(added, gone []block.ID)

	Log *slog.Logger // nil: silent
}

// Origin says where a block that is put came from.
type Origin uint8

// The origins.
const (
	Local   Origin = iota // made here: this may be the only copy
	Fetched               // another device has it
)

// Cache is a bounded store of blocks. All methods are safe for concurrent use.
type Cache struct {
	// constant after Open
	dir      string
	keep     bool
	fetcher  Fetcher
	verified bool // by the fetcher
	prover   Prover
	overhead func() int64
	log      *slog.Logger
	ctx      context.Context // ends with Close; carries the fills
	stop     context.CancelFunc
	fillers  sync.WaitGroup

	notes    notifier
	kick     chan struct{} // wakes Run; holds one
	lane     chan struct{} // held by the one writer that waits for room; holds one
	sweeping chan struct{} // held during a pass of eviction; holds one
	nopunch  atomic.Bool   // the file system cannot punch holes

	syncing sync.Mutex // held during Sync
	tail    tail       // the pack that is appended to

	mu       sync.Mutex // guards all below
	closed   bool
	index    idmap.Map[entry]
	order    evict.Order
	holds    map[block.ID]hold
	busy     map[block.ID]chan struct{} // closed when no longer busy
	fills    map[block.ID]*fill
	packs    map[uint32]*pack
	accounts accounts
	damaged  []aside // what is in quarantine, oldest first
	unsynced unsynced
}

// entry is what the index knows of a resident block: 16 bytes.
type entry struct {
	pack  uint32 // number of the pack that holds it; 0 is a file of its own
	off   uint32 // of its entry in the pack
	size  uint32 // sealed bytes
	pages uint16 // what a file of its own is charged, in pages
	flags uint16
}

const (
	durable  = 1 << iota // survives a power cut
	onlyHere             // put as Local, and no proof seen since
	fresh                // put since the last Sync began
)

func (e entry) same(o entry) bool { return e.pack == o.pack && e.off == o.off }

// hold keeps a block from being removed.
type hold struct {
	pins    int32 // by callers of Pin
	readers int32 // reads under way
}

// Usage is a cache's figures, in bytes except for Blocks.
type Usage struct {
	Limit      int64 // 0 is unbounded
	Used       int64 // allocated in the directory
	Reserved   int64 // promised: writes under way and Reservations
	Overhead   int64 // what Options.Overhead says
	Blocks     int64 // number of resident blocks
	BlockBytes int64 // their sealed bytes
	Pinned     int64 // sealed bytes of those that are pinned
	OnlyHere   int64 // sealed bytes of those put as Local since Open of which no proof was seen
}

func (c *Cache) hasLog() bool { return c.log != nil }

func (c *Cache) warn(msg string, args ...any) {
	if c.hasLog() {
		c.log.Warn(msg, args...)
	}
}

// Has reports whether block id is resident.
func (c *Cache) Has(id block.ID) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.index.Get(id) != 0
}

// Durable reports whether block id is resident and would survive a power cut.
// Only then may another device be told that it is here.
func (c *Cache) Durable(id block.ID) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	h := c.index.Get(id)
	return h != 0 && c.index.Val(h).flags&durable != 0
}

// Missing returns those of ids that are not resident, in their order.
func (c *Cache) Missing(ids []block.ID) []block.ID {
	c.mu.Lock()
	defer c.mu.Unlock()
	var missing []block.ID
	for _, id := range ids {
		if c.index.Get(id) == 0 {
			missing = append(missing, id)
		}
	}
	return missing
}

// Each calls fn for each resident block with its sealed bytes, in no useful
// order. It holds no lock meanwhile: blocks that come or go during the call may
// be missed or, rarely, seen twice.
func (c *Cache) Each(fn func(id block.ID, size int64)) {
	const batch = 512
	type one struct {
		id   block.ID
		size int64
	}
	some := make([]one, 0, batch)
	for from, more := idmap.Handle(0), true; more; more = from != 0 {
		some = some[:0]
		c.mu.Lock()
		from = c.index.Scan(from, batch, func(h idmap.Handle) {
			some = append(some, one{*c.index.Key(h), int64(c.index.Val(h).size)})
		})
		c.mu.Unlock()
		for _, o := range some {
			fn(o.id, o.size)
		}
	}
}

// Pin keeps block id from being removed until Unpin was called as often. It
// need not be resident: the pin then holds from when it comes. Pins do not
// survive Close.
func (c *Cache) Pin(id block.ID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	h := c.holds[id]
	h.pins++
	c.holds[id] = h
}

// Unpin takes back one Pin.
func (c *Cache) Unpin(id block.ID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	h := c.holds[id]
	h.pins = max(h.pins-1, 0)
	c.setHoldLocked(id, h)
}

func (c *Cache) setHoldLocked(id block.ID, h hold) {
	if h == (hold{}) {
		delete(c.holds, id)
		c.order.Release(id)
	} else {
		c.holds[id] = h
	}
}

// Usage returns the present figures.
func (c *Cache) Usage() Usage {
	over := c.overhead()
	c.mu.Lock()
	defer c.mu.Unlock()
	a := &c.accounts
	u := Usage{
		Limit: a.limit, Used: a.used, Reserved: a.reserved, Overhead: over,
		Blocks: int64(c.index.Len()), BlockBytes: a.blockBytes, OnlyHere: a.onlyHere,
	}
	for id, h := range c.holds {
		if at := c.index.Get(id); at != 0 && h.pins > 0 {
			u.Pinned += int64(c.index.Val(at).size)
		}
	}
	return u
}

// insertLocked makes a block resident whose bytes are in place.
func (c *Cache) insertLocked(id block.ID, e entry, spec bool) {
	h, _ := c.index.Put(id)
	*c.index.Val(h) = e
	c.accounts.blockBytes += int64(e.size)
	if e.flags&onlyHere != 0 {
		c.accounts.onlyHere += int64(e.size)
	}
	c.order.Add(evict.Item{ID: id, Size: chargeOf(e), Cost: missCost(e.size), Spec: spec})
}

// chargeOf returns about what removing a block gives back.
func chargeOf(e entry) int64 {
	if e.pack == 0 {
		return int64(e.pages) * pageSize
	}
	return entrySize(int64(e.size))
}

// missCost is what a miss costs on a usual line away from home: 40 ms and 50 Mbit/s.
func missCost(size uint32) float32 { return 0.04 + float32(size)/6.25e6 }

// removeLocked makes a block not resident; its bytes are still there.
func (c *Cache) removeLocked(id block.ID, evicted bool) entry {
	h := c.index.Get(id)
	e := *c.index.Val(h)
	c.index.Delete(h)
	c.accounts.blockBytes -= int64(e.size)
	if e.flags&onlyHere != 0 {
		c.accounts.onlyHere -= int64(e.size)
	}
	if evicted {
		c.order.Evicted(id)
	} else {
		c.order.Remove(id)
	}
	return e
}

// claim waits until nobody else writes or removes block id and then marks it as
// busy, unless it is resident, which it reports.
func (c *Cache) claim(ctx context.Context, id block.ID) (resident bool, err error) {
	for {
		c.mu.Lock()
		ch, taken := c.busy[id]
		switch {
		case c.closed:
			c.mu.Unlock()
			return false, ErrClosed
		case taken:
			c.mu.Unlock()
			select {
			case <-ch:
			case <-ctx.Done():
				return false, fmt.Errorf("wait for block %v: %w", id, context.Cause(ctx))
			}
			continue
		case c.index.Get(id) != 0:
			c.mu.Unlock()
			return true, nil
		}
		c.busy[id] = make(chan struct{})
		c.mu.Unlock()
		return false, nil
	}
}

func (c *Cache) unclaimLocked(id block.ID) {
	if ch, ok := c.busy[id]; ok {
		close(ch)
		delete(c.busy, id)
	}
}

func (c *Cache) unclaim(id block.ID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.unclaimLocked(id)
}

// notifier calls Changed with events in their order, one call at a time.
type notifier struct {
	changed func(added, gone []block.ID)
	mu      sync.Mutex // held during changed

	events sync.Mutex // guards queue
	queue  []event
}

type event struct{ added, gone []block.ID }

// add records an event. The caller holds Cache.mu, which gives events their order.
func (n *notifier) add(e event) {
	if n.changed == nil || len(e.added)+len(e.gone) == 0 {
		return
	}
	n.events.Lock()
	n.queue = append(n.queue, e)
	n.events.Unlock()
}

// deliver returns once every event added before the call has been reported.
func (n *notifier) deliver() {
	if n.changed == nil {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for {
		n.events.Lock()
		queue := n.queue
		n.queue = nil
		n.events.Unlock()
		if len(queue) == 0 {
			return
		}
		for _, e := range queue {
			n.changed(e.added, e.gone)
		}
	}
}
