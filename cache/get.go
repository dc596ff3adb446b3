package cache

import (
	"context"
	"errors"
	"fmt"

	"github.com/roamfs/roamfs/sync/block"
)

// fill is one fetch under way. The cache owns it, not the reader that began it:
// it goes on while any reader waits, and ends with the last waiter or the cache.
type fill struct {
	cancel  context.CancelFunc
	waiters int           // guarded by Cache.mu
	p       Priority      // the most urgent of the waiters; guarded by Cache.mu
	done    chan struct{} // closed once data and err are final
	data    []byte        // shared by all waiters: read-only
	err     error
}

// Get returns the sealed bytes of block id, verified. They may be shared with
// other callers: nobody may change them.
//
// A block that is not resident is fetched, once however many ask for it, and
// kept if there is room or room can be had quickly; else its bytes are passed on
// without being kept, so that Get never fails for want of room. Without a Fetcher, or if
// nobody within reach has the block, the error is a [block.ErrNoReplica].
func (c *Cache) Get(ctx context.Context, id block.ID, p Priority) ([]byte, error) {
	for {
		data, err := c.read(id, p != Background)
		if !errors.Is(err, ErrMissing) {
			return data, err
		}
		f, err := c.join(id, p)
		if err != nil {
			return nil, err
		}
		if f == nil {
			continue // it became resident just now
		}
		select {
		case <-f.done:
		case <-ctx.Done():
			c.leave(id, f)
			return nil, fmt.Errorf("get block %v: %w", id, ctx.Err())
		}
		c.leave(id, f)
		if f.err != nil {
			return nil, fmt.Errorf("get: %w", f.err)
		}
		return f.data, nil
	}
}

// join waits at the fill of a block, beginning it if need be. It returns nil if
// the block is resident.
func (c *Cache) join(id block.ID, p Priority) (*fill, error) {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil, ErrClosed
	}
	if c.index.Get(id) != 0 {
		c.mu.Unlock()
		return nil, nil
	}
	if f := c.fills[id]; f != nil {
		f.waiters++
		raised := p < f.p
		f.p = min(f.p, p)
		c.mu.Unlock()
		if r, ok := c.fetcher.(Raiser); ok && raised {
			r.Raise(id, p)
		}
		return f, nil
	}
	defer c.mu.Unlock()
	if c.fetcher == nil {
		return nil, fmt.Errorf("get: %w", &block.UnavailableError{ID: id, Err: ErrMissing})
	}
	ctx, cancel := context.WithCancel(c.ctx)
	f := &fill{cancel: cancel, waiters: 1, p: p, done: make(chan struct{})}
	c.fills[id] = f
	c.fillers.Add(1)
	go c.fill(ctx, id, f, p)
	return f, nil
}

func (c *Cache) leave(id block.ID, f *fill) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f.waiters--
	if f.waiters > 0 {
		return
	}
	f.cancel()
	if c.fills[id] == f {
		delete(c.fills, id)
	}
}

// fill fetches a block, keeps it if it can, and hands it to the waiters.
func (c *Cache) fill(ctx context.Context, id block.ID, f *fill, p Priority) {
	defer c.fillers.Done()
	defer f.cancel()
	data, err := c.fetcher.Fetch(ctx, id, p)
	if err == nil {
		err = check(id, data)
	}
	if err == nil {
		c.mu.Lock()
		spec := f.p != Demand
		c.mu.Unlock()
		// What has been fetched is worth keeping even if nobody waits any more.
		kept := c.keepBlock(c.ctx, id, data, forFetched, 0, spec)
		if kept != nil && !errors.Is(kept, block.ErrNoRoom) && c.ctx.Err() == nil {
			c.warn("fetched block is not kept", "block", id, "err", kept)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		f.err = fmt.Errorf("fetch block %v: %w", id, err)
	} else {
		f.data = data
	}
	if c.fills[id] == f {
		delete(c.fills, id)
	}
	close(f.done)
}
