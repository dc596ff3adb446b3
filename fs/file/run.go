package file

import (
	"container/heap"
	"context"
	"time"

	"golang.org/x/sync/errgroup"
)

// Run commits drafts when their time has come, until ctx ends; then it waits
// for the commits under way and returns nil. Drafts that are not committed by
// then stay in the journal: [Table.Flush] before ctx ends leaves none.
func (t *Table) Run(ctx context.Context) error {
	var g errgroup.Group
	g.SetLimit(t.workers + 2) // one may be ending commits, one wait for a block
	for {
		f := t.nextDue(ctx)
		if f == nil {
			break
		}
		c, own := t.begin(f)
		if c == nil || !own {
			continue
		}
		g.Go(func() error {
			t.run(ctx, c)
			return nil
		})
	}
	err := g.Wait()
	t.settled()
	return err
}

// nextDue waits for the next inode to be committed; nil once ctx has ended.
func (t *Table) nextDue(ctx context.Context) *inode {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		if ctx.Err() != nil {
			return nil
		}
		f, wait := t.takeDue()
		if f != nil {
			return f
		}
		timer.Reset(wait)
		select {
		case <-ctx.Done():
			return nil
		case <-t.wake:
		case <-timer.C:
		}
	}
}

// takeDue takes an inode whose time has come out of the queue, or returns how
// long there is none.
func (t *Table) takeDue() (*inode, time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sweep()
	for len(t.queue) > 0 {
		f := t.queue[0]
		if wait := time.Until(f.due); wait > 0 {
			return nil, min(wait, lingering)
		}
		t.schedule(f) // it may have been written to since
		if f.index > 0 && time.Until(f.due) <= 0 {
			heap.Remove(&t.queue, f.index-1)
			return f, 0
		}
	}
	if len(t.linger) == 0 {
		t.purse.idle()
		return nil, time.Hour
	}
	return nil, lingering
}
