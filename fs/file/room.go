package file

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/roamfs/roamfs/sync/block"
)

const (
	// roomStep is by how much the table's reservation grows, in bytes.
	roomStep = 1 << 20

	// A writer without room waits for so long after the last sign of progress,
	// in all, and between two looks.
	patience = 5 * time.Second
	longest  = 30 * time.Second
	look     = 50 * time.Millisecond
)

// claim is the room that a draft of held bytes over lower bytes takes: for
// itself and for the blocks that it becomes, with their padding and with what the last
// piece has of the old content, so that a commit, which is what gives room back,
// does not itself lack it. Many small changes can need more.
func claim(held, lower int64) int64 {
	if held == 0 {
		return 0
	}
	blocks := held + min(lower, block.MaxPlain)
	return held + blocks + blocks/4 + pageSize
}

// purse holds the reservation that all drafts share, so that a small file does
// not cost a call to the cache.
type purse struct {
	blocks Blocks

	growing sync.Mutex // one Grow at a time; taken before mu

	mu   sync.Mutex
	room Room  // nil until the first take
	held int64 // bytes reserved
	used int64 // bytes of them taken
}

// take takes n bytes. Without room it fails with [block.ErrNoRoom], at once.
func (p *purse) take(ctx context.Context, n int64) error {
	if n <= 0 || p.quick(n) {
		return nil
	}
	p.growing.Lock()
	defer p.growing.Unlock()
	if p.quick(n) {
		return nil
	}
	p.mu.Lock()
	lack := n - (p.held - p.used)
	p.mu.Unlock()
	err := p.grow(ctx, lack+roomStep)
	if errors.Is(err, block.ErrNoRoom) {
		err = p.grow(ctx, lack)
	}
	if err != nil {
		return err
	}
	if !p.quick(n) { // what was spent meanwhile
		return block.ErrNoRoom
	}
	return nil
}

func (p *purse) quick(n int64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.used+n > p.held {
		return false
	}
	p.used += n
	return true
}

// grow is called with growing held.
func (p *purse) grow(ctx context.Context, n int64) error {
	p.mu.Lock()
	room := p.room
	p.mu.Unlock()
	if room != nil {
		if err := room.Grow(ctx, n); err != nil {
			return err
		}
	} else {
		var err error
		if room, err = p.blocks.Reserve(ctx, n); err != nil {
			return err
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.room = room
	p.held += n
	return nil
}

// give gives n bytes back.
func (p *purse) give(n int64) {
	if n <= 0 {
		return
	}
	p.mu.Lock()
	p.used -= n
	room, surplus := p.room, int64(0)
	if spare := p.held - p.used; spare > 4*roomStep {
		surplus = spare - roomStep
		p.held -= surplus
	}
	p.mu.Unlock()
	if room != nil && surplus > 0 {
		room.Shrink(surplus)
	}
}

// idle gives back what is reserved beyond what drafts take.
func (p *purse) idle() {
	p.mu.Lock()
	surplus, room := p.held-p.used, p.room
	p.held = p.used
	p.mu.Unlock()
	if room != nil && surplus > 0 {
		room.Shrink(surplus)
	}
}

// spend returns n taken bytes to the cache at once, for a block that is about to be put there.
func (p *purse) spend(n int64) {
	p.mu.Lock()
	p.used -= n
	p.held -= n
	room := p.room
	p.mu.Unlock()
	if room != nil && n > 0 {
		room.Shrink(n)
	}
}

// needRoom takes n bytes for a draft. When there are none it commits what is
// uncommitted, which frees the drafts' room at once, and that of the blocks as soon as
// other devices have them: it waits as long as the last commit, or the last
// time that this gave room, is not long ago.
func (t *Table) needRoom(ctx context.Context, n int64) error {
	err := t.purse.take(ctx, n)
	if !errors.Is(err, block.ErrNoRoom) {
		return err
	}
	select { // one writer does the work, the others profit
	case t.squeeze <- struct{}{}:
		defer func() { <-t.squeeze }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if err = t.purse.take(ctx, n); !errors.Is(err, block.ErrNoRoom) {
		return err
	}
	for begin := time.Now(); ; {
		_ = t.Flush(ctx) // commits that fail have said so
		if t.o.Draining != nil && t.o.Draining() {
			t.progress.Store(now())
		}
		if err = t.purse.take(ctx, n); !errors.Is(err, block.ErrNoRoom) {
			t.progress.Store(now())
			return err
		}
		last := time.Unix(0, t.progress.Load())
		if time.Since(last) >= patience || time.Since(begin) >= longest {
			return err
		}
		wait := time.NewTimer(look)
		select {
		case <-ctx.Done():
			wait.Stop()
			return ctx.Err()
		case <-wait.C:
		}
	}
}
