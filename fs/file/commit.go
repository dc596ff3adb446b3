package file

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/roamfs/roamfs/sync/block"
	"github.com/roamfs/roamfs/sync/tree"
)

// commit is one commit of a frozen layer on its way.
type commit struct {
	f     *inode
	layer *layer
	base  *version

	mu     sync.Mutex
	credit int64 // bytes of the layer's room that are for blocks, and not spent yet

	content tree.Content
	made    *version // what base becomes, without its dots
	blocks  bool     // some were put

	done chan struct{} // closed once err is final
	err  error
}

// begin freezes what is uncommitted of f and returns its commit, or one that is
// under way already, with own false; nil if there is nothing to commit.
func (t *Table) begin(f *inode) (c *commit, own bool) {
	f.op.Lock()
	defer f.op.Unlock()
	t.mu.Lock()
	defer t.mu.Unlock()
	if f.commit != nil {
		return f.commit, false
	}
	if f.removed || f.upper() == nil {
		return nil, false
	}
	f.mu.Lock()
	if f.frozen == nil {
		f.frozen, f.top = f.top, nil
		f.topSaved = false
	}
	c = &commit{f: f, layer: f.frozen, base: f.base, done: make(chan struct{})}
	f.making = map[block.ID]struct{}{}
	f.mu.Unlock()
	f.commit = c
	t.unqueue(f)
	return c, true
}

// run carries out the first part of a commit, up to the point where its blocks
// are stored, and hands it on. When it returns the commit may not be done.
func (t *Table) run(ctx context.Context, c *commit) {
	err := t.store(ctx, c)
	if err != nil {
		t.end(c, err)
		return
	}
	t.settle(c)
}

// end finishes a commit that failed, or that is done if err is nil.
func (t *Table) end(c *commit, err error) {
	f := c.f
	f.op.Lock()
	t.mu.Lock()
	f.commit = nil
	f.mu.Lock()
	f.making = nil
	f.mu.Unlock()
	gone := false
	switch {
	case f.removed:
		err = nil
		gone = f.handles == 0
	case err != nil:
		f.failures++
		f.retry = time.Now().Add(min(firstRetry<<min(f.failures-1, 16), retriesMost))
		t.schedule(f)
	default:
		f.failures, f.retry = 0, time.Time{}
		f.committed = time.Now()
		t.progress.Store(f.committed.UnixNano())
		t.schedule(f)
		if f.handles == 0 && t.clean(f) {
			t.letGo(f)
		}
	}
	failures := f.failures
	t.mu.Unlock()
	if gone {
		t.discard(f)
	}
	c.err = err
	close(c.done)
	if err != nil && !cancelled(err) {
		level := t.log.Warn
		if failures > 1 {
			level = t.log.Info
		}
		level("commit of a draft", "ino", f.ino, "tries", failures, "err", err)
	}
	f.op.Unlock()
}

// land makes a stored commit part of the tree. Its blocks are durable. What it
// returns has to be removed once the tree is.
func (t *Table) land(c *commit) (old []*layer, err error) {
	f := c.f
	f.op.Lock()
	defer f.op.Unlock()
	if f.removed {
		return nil, nil
	}
	c.content.MTime = c.layer.mtime
	// Writes that came during the commit and were flushed are in the record,
	// over what is the content so far. It has to stay until one replaces it that tells of them
	// over the new content, and a crash between must not commit twice.
	keep := f.top != nil && f.topSaved
	if keep {
		f.next = c.made
		err := f.save()
		f.next = nil
		if err != nil {
			return nil, err
		}
	}
	node, err := t.o.Tree.Write(f.ino, c.base.dots, c.content, f.journaled && !keep)
	if err != nil {
		return nil, err
	}
	c.made.dots = c.base.dots
	if c.made.same(node) {
		c.made.dots = node.Base
	}
	t.mu.Lock()
	f.mu.Lock()
	f.base, f.frozen = c.made, nil
	f.mu.Unlock()
	if node.Ino != f.ino {
		t.move(f, node.Ino)
	}
	t.mu.Unlock()
	f.saves++
	old = append(f.spent, c.layer)
	f.spent = nil
	if !keep {
		f.journaled, f.topSaved, f.unsaved = false, false, f.top != nil
		return old, nil
	}
	if err = f.save(); err != nil {
		f.spent, old = old, nil // the record in the journal names their files
		f.unsaved = true
		t.log.Error("journal of a draft", "ino", f.ino, "err", err)
	}
	return old, nil
}

// move gives f another number. The caller holds op and t.mu.
func (t *Table) move(f *inode, to tree.Ino) {
	if other := t.files[to]; other != nil && other != f && other.drafted {
		t.detach(f) // it is written to under that number already
	} else {
		t.files[to] = f
	}
	f.mu.Lock()
	f.ino = to
	f.mu.Unlock()
}

// discard drops the draft of an inode that is removed and closed. The caller
// holds f.op.
func (t *Table) discard(f *inode) {
	t.mu.Lock()
	f.mu.Lock()
	old := append(f.spent, f.layers()...)
	f.top, f.frozen, f.spent = nil, nil, nil
	f.mu.Unlock()
	t.drop(f)
	t.mu.Unlock()
	t.removeDrafts(old)
}

// removeDrafts deletes the draft files of layers and gives back their room.
func (t *Table) removeDrafts(old []*layer) {
	for _, l := range old {
		if err := l.remove(); err != nil {
			t.log.Error("remove draft", "err", err)
		}
		t.purse.give(l.room)
		l.room = 0
	}
}

// commitInline commits the draft at once if the record of the tree can hold all
// of it: that costs no more than to journal it. It reports whether it did. The caller holds f.op.
func (t *Table) commitInline(f *inode) bool {
	l := f.top
	if l == nil || f.frozen != nil || l.size > tree.MaxInline || l.file != nil {
		return false
	}
	t.mu.Lock()
	recent := time.Since(f.committed) < apart
	busy := f.commit != nil || f.failures > 0
	t.mu.Unlock()
	if recent || busy {
		return false
	}
	p := make([]byte, l.size)
	pieces := gather([]*layer{l}, f.base, p, 0, 0, nil)
	if len(f.base.inline) == 0 && len(pieces) > 0 {
		return false
	}
	for _, x := range pieces {
		copy(p[x.at:x.at+x.n], f.base.inline[x.off:])
	}
	c := &commit{f: f, layer: l, base: f.base}
	c.inline(p, f.mode)
	c.content.MTime = l.mtime
	node, err := t.o.Tree.Write(f.ino, f.base.dots, c.content, f.journaled)
	if err != nil {
		return false // the journal takes it, and the commit that follows tells why
	}
	c.made.dots = node.Base
	t.mu.Lock()
	f.mu.Lock()
	f.base, f.top = c.made, nil
	f.mu.Unlock()
	if node.Ino != f.ino {
		t.move(f, node.Ino)
	}
	f.committed = time.Now()
	t.unqueue(f)
	t.mu.Unlock()
	f.saves++
	f.journaled, f.unsaved, f.topSaved = false, false, false
	t.removeDrafts([]*layer{l})
	return true
}

// commitFile commits what is uncommitted of f now, and waits until that is done.
func (t *Table) commitFile(ctx context.Context, f *inode) error {
	f.mu.RLock()
	l := f.upper()
	f.mu.RUnlock()
	if l == nil {
		return nil
	}
	for {
		c, own := t.begin(f)
		if c == nil {
			return nil
		}
		if own {
			t.run(ctx, c)
		}
		select {
		case <-c.done:
		case <-ctx.Done():
			return ctx.Err()
		}
		if c.err != nil && (own || !cancelled(c.err)) {
			return c.err
		}
		f.mu.RLock()
		done := f.frozen != l && f.top != l
		f.mu.RUnlock()
		if done {
			return nil
		}
	}
}

// Commit commits the draft of one file now, if it has one, and waits until that
// is done.
func (t *Table) Commit(ctx context.Context, ino tree.Ino) error {
	if f := t.lookup(ino); f != nil {
		return t.commitFile(ctx, f)
	}
	return nil
}

// Flush commits every draft now, and waits until that is done. It tries all of
// them and returns the errors of those that failed; their drafts stay, and are tried again.
func (t *Table) Flush(ctx context.Context) error {
	t.mu.Lock()
	var drafts []*inode
	for f := range t.all {
		f.mu.RLock()
		if f.upper() != nil && !f.removed {
			drafts = append(drafts, f)
		}
		f.mu.RUnlock()
	}
	t.mu.Unlock()
	var (
		mu   sync.Mutex
		errs []error
		wg   sync.WaitGroup
	)
	slots := make(chan struct{}, 64) // many at once share one sync
	for _, f := range drafts {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			err := t.commitFile(ctx, f)
			mu.Lock()
			defer mu.Unlock()
			errs = append(errs, err)
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// errGone explains a draft that cannot be committed.
var errGone = errors.New("its file is gone: the draft is kept")
