package cache

import (
	"context"
	"errors"
	"fmt"

	"github.com/roamfs/roamfs/cache/evict"
	"github.com/roamfs/roamfs/sync/block"
)

// maxBatch is how many blocks are proven and removed at once.
const maxBatch = 256

// sweep is one search for room.
type sweep struct {
	c     *Cache
	want  int64 // bytes that are needed
	held  int   // how many blocks that were held before may be looked at again
	asked bool  // something was there to be proven
	err   error // of the Prover, when it was asked last
}

// again lets up to n blocks that were held be looked at again.
func (s *sweep) again(n int) { s.held = n }

// step looks at one batch of candidates and removes those that are proven. It
// returns the bytes freed, whether there may be more candidates, and the error of
// the Prover. Only one step runs at a time.
func (s *sweep) step(ctx context.Context) (freed int64, more bool, err error) {
	c := s.c
	select {
	case c.sweeping <- struct{}{}:
	case <-ctx.Done():
		return 0, false, context.Cause(ctx)
	}
	defer func() { <-c.sweeping }()
	c.mu.Lock()
	before := c.accounts.freed
	if s.held > 0 { // each at most once, however many are allowed
		s.held = min(s.held, c.order.Stats().Held)
		s.held -= c.order.ReleaseHeld(min(s.held, maxBatch))
	}
	var ids []block.ID
	var bytes int64
	// A little more than is needed, since not all will be proven and since
	// packs give back less than their entries hold.
	target := 2*s.want + c.accounts.segment()
	c.order.Victims(func(id [32]byte, size int64) evict.Verdict {
		if len(ids) == maxBatch || (bytes >= target && len(ids) > 0) {
			return evict.Stop
		}
		if _, held := c.holds[id]; !held {
			if _, busy := c.busy[id]; !busy {
				ids = append(ids, id)
				bytes += size
			}
		}
		return evict.Hold
	})
	c.mu.Unlock()
	if len(ids) == 0 {
		return 0, false, s.err
	}
	s.asked = true
	proofs, err := c.prover.Prove(ctx, ids)
	s.err = err
	gone := c.drop(proofs)
	if gone > 0 {
		c.compact()
	}
	c.mu.Lock()
	freed = c.accounts.freed - before
	c.mu.Unlock()
	return freed, true, err
}

// drop removes the blocks that proofs allow to go, and returns how many went.
func (c *Cache) drop(proofs []Proof) int {
	type victim struct {
		id block.ID
		e  entry
		p  *pack
	}
	var out []victim
	var gone []block.ID
	c.mu.Lock()
	for _, p := range proofs {
		at := c.index.Get(p.id)
		if at == 0 || !p.allows(c.keep) {
			continue
		}
		if _, held := c.holds[p.id]; held {
			continue
		}
		if _, busy := c.busy[p.id]; busy {
			continue
		}
		c.busy[p.id] = make(chan struct{})
		e := c.removeLocked(p.id, true)
		out = append(out, victim{p.id, e, c.packs[e.pack]})
		gone = append(gone, p.id)
	}
	c.notes.add(event{gone: gone})
	c.mu.Unlock()
	c.notes.deliver()
	for _, v := range out {
		if v.e.pack != 0 {
			if v.p != nil {
				if err := c.dropEntry(v.p, v.e); err != nil {
					c.warn("evict block", "block", v.id, "err", err)
				}
			}
			c.unclaim(v.id)
			continue
		}
		err := remove(c.filePath(v.id))
		c.mu.Lock()
		if err == nil {
			c.freedLocked(int64(v.e.pages) * pageSize)
		}
		c.unclaimLocked(v.id)
		c.mu.Unlock()
		if err != nil {
			c.warn("evict block", "block", v.id, "err", err)
		}
	}
	return len(out)
}

// Evict removes blocks of which it is proven that they may go. Blocks that are
// not resident are passed over. The error is an [ErrNoProof] or [ErrPinned] if
// any could not go; the others went all the same.
func (c *Cache) Evict(_ context.Context, proofs ...Proof) error {
	var all error
	for _, p := range proofs {
		if !p.allows(c.keep) {
			all = errors.Join(all, fmt.Errorf("evict block %v: %w", p.id, ErrNoProof))
		}
	}
	c.drop(proofs)
	for _, p := range proofs {
		if p.allows(c.keep) && c.Has(p.id) {
			all = errors.Join(all, fmt.Errorf("evict block %v: %w", p.id, ErrPinned))
		}
	}
	c.compact()
	return all
}

// Forget is Evict for one block.
func (c *Cache) Forget(p Proof) error { return c.Evict(context.Background(), p) }
