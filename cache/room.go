package cache

import (
	"context"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/roamfs/roamfs/sync/block"
)

// pageSize is what file systems commonly allocate at least, in bytes.
const pageSize = 4096

func roundUp(n int64) int64 { return (n + pageSize - 1) &^ (pageSize - 1) }

// accounts are guarded by Cache.mu.
//
// used + reserved + overhead + margin <= limit, with two exceptions that cannot be
// helped: when Open finds more than the limit allows, and when the overhead
// grows by itself.
type accounts struct {
	limit    int64 // 0 is unbounded
	used     int64 // allocated below the directory, or more
	reserved int64 // will be allocated below the directory, or by the owner of a Reservation
	freed    int64 // sum of all decreases of used by removal

	blockBytes int64
	onlyHere   int64

	dirs  [numDirs]int64   // charge of each directory, part of used; 0 is not made yet
	files map[string]int64 // charge of the files beside the blocks, part of used

	waiting bool          // a writer waits in the lane: nobody passes it
	changed chan struct{} // closed when room was freed or something may have become provable
	barren  time.Time     // until then a search for room is known to be in vain
	idle    time.Time     // until then a reader does not search: it has just been in vain
	recheck time.Time     // from then on a reader may have held blocks looked at again
}

// class says on whose behalf room is taken.
type class uint8

const (
	forLocal   class = iota // waits in the lane if need be
	forFetched              // waits for one pass of eviction at most
	forUpkeep               // compaction and the like: may use what is kept back for it
	inLane                  // forLocal, holding the lane
)

// margin is never given away. It covers what the file system allocates later than
// we measure, such as blocks of extent trees at writeback, and what du gets wrong
// while blocks come and go: it counts a file that is removed and the one that takes
// its room if it meets them in this order.
func (a *accounts) margin() int64 { return min(max(a.limit/32, 64<<10), 16<<20) }

// segment is how large a pack grows, and what is kept back for compaction.
func (a *accounts) segment() int64 {
	if a.limit == 0 {
		return 8 << 20
	}
	return roundUp(min(max(a.limit/64, 256<<10), 8<<20))
}

// free returns what may still be taken. It is negative when the limit is
// exceeded.
func (a *accounts) free(overhead int64, cl class) int64 {
	if a.limit == 0 {
		return math.MaxInt64
	}
	n := a.limit - a.margin() - overhead - a.used - a.reserved
	if cl != forUpkeep {
		n -= a.segment()
	}
	return n
}

// headroom is what Run keeps free, so that few have to wait for proofs.
func (a *accounts) headroom(overhead int64) int64 {
	if a.limit == 0 {
		return 0
	}
	all := a.limit - a.margin() - a.segment() - overhead
	return max(0, min(max(a.limit/20, 2*block.MaxSealed), all/4))
}

// take reserves n bytes if they are free.
func (c *Cache) take(n int64, cl class) bool {
	over := c.overhead()
	c.mu.Lock()
	defer c.mu.Unlock()
	a := &c.accounts
	if a.waiting && (cl == forLocal || cl == forFetched) {
		return false
	}
	free := a.free(over, cl)
	if cl != forUpkeep && free-n < a.headroom(over) {
		c.wake()
	}
	if free < n {
		return false
	}
	a.reserved += n
	return true
}

// wake makes Run look for room.
func (c *Cache) wake() {
	select {
	case c.kick <- struct{}{}:
	default:
	}
}

// settleLocked turns a reservation into what was allocated.
func (c *Cache) settleLocked(reserved, used int64) {
	c.accounts.reserved -= reserved
	c.accounts.used += used
	if reserved > used {
		c.announceRoomLocked()
	}
}

func (c *Cache) settle(reserved, used int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.settleLocked(reserved, used)
}

// freedLocked records that the file system has given back n bytes.
func (c *Cache) freedLocked(n int64) {
	c.accounts.used -= n
	if n > 0 {
		c.accounts.freed += n
		c.announceRoomLocked()
	}
}

func (c *Cache) announceRoomLocked() {
	c.accounts.barren, c.accounts.idle = time.Time{}, time.Time{}
	close(c.accounts.changed)
	c.accounts.changed = make(chan struct{})
}

// Reconsider says that blocks which could not be proven may be provable now,
// because a device came within reach or has taken copies.
func (c *Cache) Reconsider() {
	c.mu.Lock()
	c.accounts.recheck = time.Time{}
	c.announceRoomLocked()
	c.mu.Unlock()
	c.wake()
}

// The bounds of a writer's wait for room.
const (
	waitMax      = 30 * time.Second // altogether
	waitProgress = 5 * time.Second  // while less than enough is freed
	enough       = 64 << 10
	tickMin      = 100 * time.Millisecond // between two looks at what was held
	tickMax      = 2 * time.Second
	barrenFor    = time.Second
	fetchedFor   = time.Second // a reader's wait for a pass
)

// reserve takes n bytes, evicting for them if need be. The error is a
// block.ErrNoRoom or that of ctx.
func (c *Cache) reserve(ctx context.Context, n int64, cl class) error {
	if c.take(n, cl) {
		return nil
	}
	c.dropQuarantine()
	if c.take(n, cl) {
		return nil
	}
	switch cl {
	case forLocal:
		return c.reserveLocal(ctx, n)
	case forFetched:
		return c.reserveFetched(ctx, n)
	default: // upkeep waits for nobody
		return c.noRoom(n)
	}
}

func (c *Cache) noRoom(n int64) error {
	u := c.Usage()
	return fmt.Errorf("%d bytes where %d of %d are in use, %d reserved, %d overhead: %w",
		n, u.Used, u.Limit, u.Reserved, u.Overhead, block.ErrNoRoom)
}

// hopeless reports whether looking for n bytes is in vain.
func (c *Cache) hopeless(n int64) bool {
	if c.keep || c.prover == nil {
		return true
	}
	over := c.overhead()
	c.mu.Lock()
	defer c.mu.Unlock()
	a := &c.accounts
	return time.Now().Before(a.barren) || n > a.limit-a.margin()-a.segment()-over
}

// reserveLocal is the rule for a full cache: evict whatever is provable, wait
// while there is progress, and fail at once when there can be none.
func (c *Cache) reserveLocal(ctx context.Context, n int64) error {
	select {
	case c.lane <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-c.ctx.Done():
		return ErrClosed
	}
	defer func() { <-c.lane }()
	if c.take(n, inLane) {
		return nil
	}
	if c.hopeless(n) {
		return c.noRoom(n)
	}
	c.setWaiting(true)
	defer c.setWaiting(false)

	s := sweep{c: c, want: n, held: math.MaxInt}
	start := time.Now()
	progress, gained, tick := start, int64(0), tickMin
	for {
		changed := c.roomChanged()
		freed, more, err := s.step(ctx)
		if c.take(n, inLane) {
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if gained += freed; gained >= enough {
			progress, gained, tick = time.Now(), 0, tickMin
		}
		if more {
			continue
		}
		if err != nil || !s.asked || time.Since(progress) >= waitProgress || time.Since(start) >= waitMax {
			c.setBarren(barrenFor)
			return c.noRoom(n)
		}
		timer := time.NewTimer(tick)
		select {
		case <-changed:
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return context.Cause(ctx)
		case <-c.ctx.Done():
			timer.Stop()
			return ErrClosed
		}
		timer.Stop()
		if c.take(n, inLane) {
			return nil
		}
		tick = min(2*tick, tickMax)
		s.again(maxBatch)
	}
}

// reserveFetched is the rule for what could be fetched again: it is worth one
// short search.
func (c *Cache) reserveFetched(ctx context.Context, n int64) error {
	c.mu.Lock()
	held := 0
	if now := time.Now(); now.After(c.accounts.recheck) {
		c.accounts.recheck = now.Add(time.Second)
		held = maxBatch
	}
	waiting, idle := c.accounts.waiting, time.Now().Before(c.accounts.idle)
	c.mu.Unlock()
	if waiting || idle || c.hopeless(n) {
		return c.noRoom(n)
	}
	short, cancel := context.WithTimeout(ctx, fetchedFor)
	defer cancel()
	s := sweep{c: c, want: n, held: held}
	for more := true; more && short.Err() == nil; {
		_, more, _ = s.step(short)
		if c.take(n, forFetched) {
			return nil
		}
	}
	c.mu.Lock()
	c.accounts.idle = time.Now().Add(barrenFor / 4)
	c.mu.Unlock()
	return c.noRoom(n)
}

func (c *Cache) setWaiting(on bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.accounts.waiting = on
}

func (c *Cache) setBarren(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.accounts.barren = time.Now().Add(d)
}

func (c *Cache) roomChanged() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.accounts.changed
}

// SetLimit changes the limit to n bytes, 0 for unbounded. If that is less than
// what is in use, it evicts what is provable, under the rules for writers. If
// that is not enough the error is a [block.ErrNoRoom] and the limit is as before.
func (c *Cache) SetLimit(ctx context.Context, n int64) error {
	if n < 0 {
		return fmt.Errorf("limit of %d bytes", n)
	}
	c.mu.Lock()
	before := c.accounts.limit
	c.accounts.limit = n
	c.announceRoomLocked()
	c.mu.Unlock()
	if err := c.reserve(ctx, 0, forLocal); err != nil {
		c.mu.Lock()
		if c.accounts.limit == n {
			c.accounts.limit = before
		}
		c.mu.Unlock()
		return fmt.Errorf("set limit to %d bytes: %w", n, err)
	}
	return nil
}

// Reservation is room for bytes that its owner allocates elsewhere in the state
// directory, such as drafts. Its methods are safe for concurrent use.
type Reservation struct {
	c  *Cache
	mu sync.Mutex // guards n
	n  int64
}

// Reserve takes n bytes of room, evicting for them under the rules for writers;
// the error is a [block.ErrNoRoom] if they cannot be had.
func (c *Cache) Reserve(ctx context.Context, n int64) (*Reservation, error) {
	r := &Reservation{c: c}
	if err := r.Grow(ctx, n); err != nil {
		return nil, err
	}
	return r, nil
}

// Grow takes n bytes more. On error the reservation is as before.
func (r *Reservation) Grow(ctx context.Context, n int64) error {
	if n < 0 {
		return fmt.Errorf("reserve %d bytes", n)
	}
	if err := r.c.reserve(ctx, n, forLocal); err != nil {
		return fmt.Errorf("reserve: %w", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.n += n
	return nil
}

// Shrink gives back n bytes, at most what is reserved.
func (r *Reservation) Shrink(n int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n = min(max(n, 0), r.n)
	r.n -= n
	r.c.settle(n, 0)
}

// Size returns the bytes reserved.
func (r *Reservation) Size() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.n
}

// Release gives back all. The reservation may be grown again.
func (r *Reservation) Release() { r.Shrink(math.MaxInt64) }
