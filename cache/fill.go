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
	prio    Priority      // guarded by Cache.mu
	done    chan struct{} // closed once data and err are final
	data    []byte        // shared by all waiters: read-only
	err     error
}

// Get returns the sealed bytes of a block, verified, which the caller must not
// change: resident ones, or those that the Fetcher obtains, which are kept if
// room can be had for them. It returns soon when ctx ends.
func (c *Cache) Get(ctx context.Context, id block.ID, p Priority) ([]byte, error) {
	for {
		sealed, err := c.read(id, p != Background)
		if err == nil || !errors.Is(err, ErrMissing) || c.fetcher == nil {
			return sealed, err
		}
		f, err := c.join(id, p)
		if err != nil {
			return nil, err
		}
		select {
		case <-f.done:
			c.leave(f)
			if f.err == nil {
				return f.data, nil
			}
			if errors.Is(f.err, errAbandoned) && ctx.Err() == nil {
				continue // its last waiter left just before this one came
			}
			return nil, f.err
		case <-ctx.Done():
			c.leave(f)
			return nil, context.Cause(ctx)
		}
	}
}

// errAbandoned is how a fill ends whose last waiter gave up. Who joined it since
// begins another.
var errAbandoned = errors.New("nobody waits for the block any more")

// join returns the fill of a block, begun if there is none, with one waiter more.
func (c *Cache) join(id block.ID, p Priority) (*fill, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, ErrClosed
	}
	if f, ok := c.fills[id]; ok {
		f.waiters++
		if p < f.prio {
			f.prio = p
			if r, ok := c.fetcher.(Raiser); ok {
				r.Raise(id, p)
			}
		}
		return f, nil
	}
	ctx, cancel := context.WithCancel(c.ctx)
	f := &fill{cancel: cancel, waiters: 1, prio: p, done: make(chan struct{})}
	c.fills[id] = f
	c.fillers.Go(func() {
		defer cancel()
		c.run(ctx, f, id, p)
	})
	return f, nil
}

// leave takes a waiter away; the last one ends the fill.
func (c *Cache) leave(f *fill) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f.waiters--; f.waiters == 0 {
		f.cancel()
	}
}

// run fetches a block for its fill, gives it to the waiters, and keeps it if
// there is room.
func (c *Cache) run(ctx context.Context, f *fill, id block.ID, p Priority) {
	data, err := c.fetcher.Fetch(ctx, id, p)
	if err == nil {
		if len(data) == 0 || len(data) > block.MaxSealed {
			err = fmt.Errorf("fetch block %v: %d bytes: %w", id, len(data), block.ErrDamaged)
		} else if !c.verified {
			if err = block.Verify(id, data); err != nil {
				err = fmt.Errorf("fetch block: %w", err)
			}
		}
	}
	if err == nil {
		// Kept before it is handed out, so that who asks next finds it. The
		// waiters do not wait for more than one search for room.
		if perr := c.put(c.ctx, id, data, forFetched, 0, p == ReadAhead); perr != nil && !errors.Is(perr, block.ErrNoRoom) && !errors.Is(perr, ErrClosed) && c.ctx.Err() == nil {
			c.warn("fetched block not kept", "block", id, "err", perr)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.fills, id)
	if err != nil && ctx.Err() != nil && c.ctx.Err() == nil {
		err = errAbandoned
	}
	f.data, f.err = data, err
	if err != nil {
		f.data = nil
	}
	close(f.done)
}
