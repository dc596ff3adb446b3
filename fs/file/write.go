package file

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/roamfs/roamfs/sync/tree"
)

// change carries out a change of the content: do, with f.top there, the turn taken and room
// for the range that extent returns.
func (h *Handle) change(ctx context.Context, extent func(*inode) (from, to int64, err error), do func(*inode) error) error {
	if h.closed.Load() {
		return ErrClosed
	}
	if !h.write {
		return ErrNotWritable
	}
	t := h.t
	var have int64 // room taken so far
	defer func() { t.purse.give(have) }()
	for {
		f := h.f.Load()
		f.op.Lock()
		from, to, err := extent(f)
		if err == nil && to > MaxSize {
			err = ErrTooLarge
		}
		if err != nil {
			f.op.Unlock()
			return err
		}
		need := claim(roundUp(to)-roundDown(from), f.size())
		if l := f.top; l != nil {
			need = 0
			if n := l.unbacked(from, to); n > 0 {
				need = claim(l.held()+n+pageSize, l.lower) - l.room
			}
		}
		crowded := f.top != nil && f.top.spans() >= maxSpans
		if need <= have && !crowded {
			if f.top == nil && !t.draft(h, f) {
				f.op.Unlock()
				continue // h belongs to another inode object now
			}
			err := do(f)
			f.settleTime()
			take := min(have, max(0, f.top.claim()-f.top.room))
			f.top.room += take
			have -= take
			f.op.Unlock()
			return err
		}
		f.op.Unlock()
		if crowded {
			if err := t.commitFile(ctx, f); err != nil {
				return fmt.Errorf("draft of %d pieces: %w", maxSpans, err)
			}
			continue
		}
		if err := t.needRoom(ctx, need-have); err != nil {
			return err
		}
		have = need
	}
}

// settleTime gives the layer the time of the change that was just made. The caller holds op.
func (f *inode) settleTime() {
	ns := now()
	f.wrote.Store(ns)
	f.mu.Lock()
	f.top.mtime, f.top.kept = ns, false
	f.mu.Unlock()
}

// draft gives f a new top layer. If handles opened f's inode on another version
// since h was opened, and one of them has written to it, h joins them, and draft
// reports false. The caller holds f.op.
func (t *Table) draft(h *Handle, f *inode) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if f.removed {
		t.addTop(f)
		return true
	}
	switch cur := t.files[f.ino]; {
	case cur == f:
	case cur != nil && cur.drafted:
		f.handles--
		f.writers--
		cur.handles++
		cur.writers++
		h.f.Store(cur)
		if f.handles == 0 {
			t.drop(f)
		}
		return false
	default:
		t.files[f.ino] = f // as the one that is written to
		if cur != nil && cur.handles == 0 {
			t.drop(cur)
		}
	}
	t.addTop(f)
	f.drafted = true
	t.schedule(f)
	return true
}

// addTop adds an empty layer. The caller holds op and t.mu.
func (t *Table) addTop(f *inode) {
	l := &layer{seq: t.seq.Add(1), lower: f.size(), size: f.size(), begun: now()}
	l.path = t.draftPath(f.ino, l.seq)
	f.wrote.Store(l.begun)
	f.mu.Lock()
	f.top = l
	f.mu.Unlock()
}

// write writes p at off into the top layer. The caller holds op.
func (f *inode) write(p []byte, off int64) error {
	l, end := f.top, off+int64(len(p))
	if len(p) == 0 {
		return nil
	}
	if l.fits(end) {
		f.mu.Lock()
		l.put(p, off)
		l.note(off, end)
		f.mu.Unlock()
		f.touched()
		return nil
	}
	if l.file == nil {
		if err := f.spill(l); err != nil {
			return err
		}
	}
	if _, err := l.file.WriteAt(p, off); err != nil {
		return fmt.Errorf("draft: %w", err)
	}
	if end <= l.size && l.set.covers(off, end) {
		return nil // the journal record, if there is one, stays right
	}
	f.mu.Lock()
	l.note(off, end)
	l.backed.set(roundDown(off), roundUp(end))
	f.mu.Unlock()
	f.touched()
	return nil
}

// spill moves the bytes of a layer from memory to a draft file.
func (f *inode) spill(l *layer) error {
	file, err := l.create()
	if err != nil {
		return err
	}
	if l.synced {
		// What an fsync promised is durable in the journal record, and the
		// next record will not have it.
		if err = f.t.datasync(file); err == nil {
			err = f.t.syncDir(f.t.o.Dir)
		}
		if err != nil {
			return errors.Join(fmt.Errorf("sync draft: %w", err), file.Close(), os.Remove(l.path))
		}
	}
	f.mu.Lock()
	l.adopt(file)
	l.named = l.synced
	f.mu.Unlock()
	f.touched()
	return nil
}

// touched notes that the layers are no longer what the journal says. The
// caller holds op.
func (f *inode) touched() {
	f.unsaved = true
	f.changes++
}

// save writes the journal record. The caller holds op.
func (f *inode) save() error {
	if err := f.put(f.record(), f.layers()); err != nil {
		return err
	}
	if f.top != nil && f.top.stale.n > 0 {
		f.reclaim(f.top)
	}
	return nil
}

// reclaim takes out of the draft file what nothing refers to any more, neither
// the layer nor the journal: for its space, and so that a power loss which
// takes a later write there does not bring it back. The caller holds op.
func (f *inode) reclaim(l *layer) {
	for s := range l.stale.all {
		if err := punch(l.file, s.off, s.end); err != nil {
			f.t.log.Warn("punch a draft file", "err", err)
			return // it goes with the file
		}
		f.mu.Lock()
		l.backed.clear(roundUp(s.off), roundDown(s.end))
		f.mu.Unlock()
	}
	l.stale = spans{}
	if surplus := l.room - l.claim(); surplus > 0 {
		l.room -= surplus
		f.t.purse.give(surplus)
	}
}

// put writes rec, which describes the layers, into the journal. The caller holds op.
func (f *inode) put(rec tree.Draft, layers []*layer) error {
	if err := f.t.o.Tree.PutDraft(rec); err != nil {
		return fmt.Errorf("journal of draft: %w", err)
	}
	f.saves++
	f.journaled, f.unsaved = true, false
	f.topSaved = f.top != nil && len(layers) > 0 && layers[0] == f.top
	return nil
}

// record returns the journal record of the layers as they are. The caller
// holds op.
func (f *inode) record() tree.Draft {
	r := record{base: f.base, next: f.next, layers: f.layers()}
	return tree.Draft{Ino: f.ino, Base: f.base.dots, Data: r.encode()}
}
