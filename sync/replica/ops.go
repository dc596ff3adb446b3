package replica

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"

	"github.com/roamfs/roamfs/sync/store"
	"github.com/roamfs/roamfs/sync/tree"
)

// Lookup returns the inode that dir shows under name, or [fs.ErrNotExist].
func (r *Replica) Lookup(dir tree.Ino, name string) (tree.Node, error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.lookupLocked(dir, name)
}

func (r *Replica) lookupLocked(dir tree.Ino, name string) (tree.Node, error) {
	e, err := r.view.Lookup(dir, name)
	if err != nil {
		return tree.Node{}, err
	}
	return r.view.Node(e.Ino)
}

// Node returns an inode as it is shown, or [fs.ErrNotExist].
func (r *Replica) Node(ino tree.Ino) (tree.Node, error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.view.Node(ino)
}

// List returns the entries of a directory, sorted by name.
func (r *Replica) List(dir tree.Ino) ([]tree.Entry, error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.view.List(dir)
}

// ListNodes is List with the inodes of the entries, unless there are more than
// most, and what [Replica.Changes] was then.
func (r *Replica) ListNodes(dir tree.Ino, most int) (es []tree.Entry, nodes []tree.Node, changes uint64, err error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	es, nodes, err = r.view.ListNodes(dir, most)
	return es, nodes, r.changes.Load(), err
}

// Changes returns a number that grows with each change of what is shown, before
// the change can be seen.
func (r *Replica) Changes() uint64 { return r.changes.Load() }

// Path returns the path of an inode's first link from the root.
func (r *Replica) Path(ino tree.Ino) (string, error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.view.Path(ino)
}

// Conflicts returns every conflict copy.
func (r *Replica) Conflicts() ([]tree.Conflict, error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.view.Conflicts()
}

// edit carries out one user operation and makes it visible and safe from
// kill -9 before it returns.
func (r *Replica) edit(fn func(*tree.Edit) error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, err := r.editLocked(fn, nil)
	return err
}

// remove is edit for an operation that may take the last name of a file: whoever
// is told of its content is told that it is gone.
func (r *Replica) remove(fn func(*tree.Edit) error) error {
	gone, err := func() (gone []tree.Ino, err error) {
		r.mu.Lock()
		defer r.mu.Unlock()
		aff, err := r.editLocked(fn, nil)
		if err != nil {
			return nil, err
		}
		for _, ino := range aff.Inodes {
			if _, err := r.view.Node(ino); errors.Is(err, fs.ErrNotExist) {
				gone = append(gone, ino)
			}
		}
		return gone, nil
	}()
	for _, ino := range gone {
		r.wrote(ino)
	}
	return err
}

// editLocked returns what the operation changed for those who show the tree.
func (r *Replica) editLocked(fn func(*tree.Edit) error, also func(*store.Tx) error) (aff tree.Affected, err error) {
	if err := r.stoppedLocked(); err != nil {
		return aff, err
	}
	if r.open.full() {
		if err := r.closeBatchLocked(); err != nil {
			return aff, err
		}
	}
	e := r.newEdit()
	if err := fn(e); err != nil {
		return aff, err
	}
	ch := e.Change()
	if !fits(ch) {
		return r.editLargeLocked(fn, also)
	}
	deleted, err := r.deletedLocked(ch)
	if err != nil {
		return aff, err
	}
	aff, err = r.stepLocked(ch, func(tx *store.Tx) error {
		for _, ino := range deleted {
			if err := r.dropDraft(tx, ino); err != nil {
				return err
			}
		}
		if also != nil {
			return also(tx)
		}
		return nil
	})
	if err != nil {
		return aff, err
	}
	for _, ino := range deleted {
		r.gone.forget(ino)
		r.replacing.remove(ino)
	}
	if !r.open.empty() {
		r.wake()
	}
	return aff, nil
}

// stepLocked makes a change that fits one transaction part of the open batch.
func (r *Replica) stepLocked(ch tree.Change, also func(*store.Tx) error) (aff tree.Affected, err error) {
	p, err := r.view.Prepare(ch)
	if err != nil {
		return aff, err
	}
	touch := r.open.touch(r.dot(), ch)
	err = r.st.Update(func(tx *store.Tx) error {
		if err := tx.Apply(ch); err != nil {
			return err
		}
		if len(touch.Put)+len(touch.Drop) > 0 {
			tx.LogTouch(r.open.next, touch)
		}
		if also != nil {
			return also(tx)
		}
		return nil
	})
	if err != nil {
		return aff, err
	}
	r.open.add(touch, ch)
	r.touchSpans(ch)
	r.changes.Add(1)
	if aff, err = p.Done(); err != nil {
		r.broken = true
		return aff, fmt.Errorf("%w: %w", ErrBroken, err)
	}
	return aff, nil
}

func (r *Replica) dot() tree.Dot {
	return tree.Dot{Actor: r.cfg.Actor, Ctr: r.vector[r.cfg.Actor] + 1}
}

// Create makes a file, symlink or fifo; [fs.ErrExist] if the name is taken.
func (r *Replica) Create(parent tree.Ino, name string, c tree.Content) (n tree.Node, err error) {
	return r.made(func(e *tree.Edit) (tree.Ino, error) { return e.Create(parent, name, c) })
}

// Mkdir makes a directory.
func (r *Replica) Mkdir(parent tree.Ino, name string, mode uint32) (tree.Node, error) {
	return r.made(func(e *tree.Edit) (tree.Ino, error) { return e.Mkdir(parent, name, mode) })
}

// Link gives a file another name.
func (r *Replica) Link(ino, parent tree.Ino, name string) (tree.Node, error) {
	return r.made(func(e *tree.Edit) (tree.Ino, error) { return ino, e.Link(ino, parent, name) })
}

// made runs an operation that returns an inode and reads it back in the same step.
func (r *Replica) made(fn func(*tree.Edit) (tree.Ino, error)) (n tree.Node, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var ino tree.Ino
	_, err = r.editLocked(func(e *tree.Edit) (err error) { ino, err = fn(e); return err }, nil)
	if err != nil {
		return n, err
	}
	return r.view.Node(ino)
}

// Unlink removes a name of a file. With the last one goes the draft in the
// journal, in the same step; so it does when a rename replaces the file.
func (r *Replica) Unlink(parent tree.Ino, name string) error {
	return r.remove(func(e *tree.Edit) error { return e.Unlink(parent, name) })
}

// Rmdir removes an empty directory.
func (r *Replica) Rmdir(parent tree.Ino, name string) error {
	return r.edit(func(e *tree.Edit) error { return e.Rmdir(parent, name) })
}

// Rename moves an entry as rename(2) does; noReplace and exchange as in renameat2(2).
func (r *Replica) Rename(op tree.Ino, on string, np tree.Ino, nn string, noReplace, exchange bool) error {
	return r.remove(func(e *tree.Edit) error {
		replaced := r.replacedLocked(op, on, np, nn, exchange)
		err := e.Rename(op, on, np, nn, noReplace, exchange)
		if err == nil {
			for _, ino := range replaced {
				r.replacing.add(ino)
			}
		}
		return err
	})
}

// Chmod sets the permission bits (07777).
func (r *Replica) Chmod(ino tree.Ino, mode uint32) error {
	return r.edit(func(e *tree.Edit) error { return e.Chmod(ino, mode) })
}

// SetMTime sets the modification time, in ns since 1970.
func (r *Replica) SetMTime(ino tree.Ino, ns int64) error {
	return r.edit(func(e *tree.Edit) error { return e.SetMTime(ino, ns) })
}

// SetXattr stores an extended attribute of at most 64 KiB.
func (r *Replica) SetXattr(ino tree.Ino, name string, value []byte) error {
	return r.edit(func(e *tree.Edit) error { return e.SetXattr(ino, name, value) })
}

// RemoveXattr removes an extended attribute, or reports [tree.ErrNoXattr].
func (r *Replica) RemoveXattr(ino tree.Ino, name string) error {
	return r.edit(func(e *tree.Edit) error { return e.RemoveXattr(ino, name) })
}

// Write commits new content of a file: it supersedes the versions base, which
// are what the writer had opened, and nothing else. A file that another device
// deleted meanwhile comes back where it was, as another inode, since an edit
// beats a delete that did not see it; one that was deleted here is [fs.ErrNotExist]. With dropDraft the file's
// journal entry goes in the same step; without it, the entry of a file that comes back becomes that of the new inode.
func (r *Replica) Write(ino tree.Ino, base []tree.Dot, c tree.Content, dropDraft bool) (n tree.Node, err error) {
	var aff tree.Affected
	n, err = func() (n tree.Node, err error) {
		r.mu.Lock()
		defer r.mu.Unlock()
		real := ino
		aff, err = r.editLocked(func(e *tree.Edit) (err error) {
			real, err = e.Write(ino, base, c)
			return err
		}, func(tx *store.Tx) error {
			if dropDraft {
				return r.dropDraft(tx, ino)
			}
			return nil
		})
		if err == nil && dropDraft {
			r.gone.dropDraft(ino)
		}
		if s, ok := r.gone.of(ino); ok && errors.Is(err, fs.ErrNotExist) {
			real, err = r.reviveLocked(ino, s, c, dropDraft)
		}
		if err != nil {
			return n, err
		}
		return r.view.Node(real)
	}()
	if err != nil {
		return n, err
	}
	if len(aff.Entries) > 0 { // it met a version that it had not seen: a conflict copy
		r.tell(aff)
	}
	r.replacing.remove(ino)
	r.wrote(n.Ino)
	return n, nil
}

// PutDraft journals a draft; it survives kill -9 from now on.
func (r *Replica) PutDraft(d tree.Draft) error {
	if r.Revoked() {
		return ErrRevoked
	}
	r.mu.RLock() // the file is not deleted meanwhile
	defer r.mu.RUnlock()
	s, noted := r.gone.of(d.Ino)
	err := r.st.Update(func(tx *store.Tx) error {
		if noted {
			tx.SetValue(spotKey(d.Ino), s.encode())
		}
		return tx.PutDraft(d)
	})
	if err == nil {
		r.gone.putDraft(d.Ino, s)
	}
	return err
}

// DropDraft removes a draft from the journal.
func (r *Replica) DropDraft(ino tree.Ino) error {
	r.mu.RLock()
	defer r.mu.RUnlock()
	err := r.st.Update(func(tx *store.Tx) error { return r.dropDraft(tx, ino) })
	if err == nil {
		r.gone.dropDraft(ino)
		r.replacing.remove(ino)
	}
	return err
}

// Drafts returns the journal of drafts.
func (r *Replica) Drafts() ([]tree.Draft, error) { return r.st.Drafts() }

// Local is what this device alone keeps of an inode.
type Local struct {
	UID, GID uint32
	Owned    bool // UID and GID are set
}

// Local returns what this device keeps of an inode; the zero Local if nothing.
func (r *Replica) Local(ino tree.Ino) Local {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.locals[ino]
}

// SetLocal stores what this device keeps of an inode.
func (r *Replica) SetLocal(ino tree.Ino, l Local) error {
	var b []byte
	if l.Owned {
		b = binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32([]byte{1}, l.UID), l.GID)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.st.Update(func(tx *store.Tx) error { tx.SetLocal(ino, b); return nil }); err != nil {
		return err
	}
	if l.Owned {
		r.locals[ino] = l
	} else {
		delete(r.locals, ino)
	}
	return nil
}

func (r *Replica) loadLocals() error {
	return r.st.Locals(func(ino tree.Ino, b []byte) error {
		if len(b) != 9 || b[0] != 1 {
			return fmt.Errorf("%w: local attributes of %x", store.ErrDamaged, ino)
		}
		r.locals[ino] = Local{binary.BigEndian.Uint32(b[1:]), binary.BigEndian.Uint32(b[5:]), true}
		return nil
	})
}

// Contents calls fn with every content of the tree, inode by inode, and the
// commit that it came with: the content that current versions refer to, that of conflict
// copies, and the snaps in link records, which stand in for content that a
// concurrent delete removed. shown tells whether the inode is shown.
func (r *Replica) Contents(fn func(ino tree.Ino, c tree.Content, d tree.Dot, shown func() bool) error) error {
	snap := r.st.Snapshot()
	defer snap.Release()
	return snap.Inodes(func(ino tree.Ino, recs []tree.Record) error {
		shown := func() bool { return tree.Shown(ino, recs) }
		return contents(recs, func(c tree.Content, d tree.Dot) error { return fn(ino, c, d, shown) })
	})
}

// ContentsOf is Contents for one inode.
func (r *Replica) ContentsOf(ino tree.Ino, fn func(c tree.Content, d tree.Dot) error) error {
	recs, err := r.st.Records(ino)
	if err != nil {
		return err
	}
	return contents(recs, fn)
}

// contents calls fn with the contents in records.
func contents(recs []tree.Record, fn func(c tree.Content, d tree.Dot) error) error {
	for i := range recs {
		c, err := contentOf(&recs[i])
		if err != nil {
			return err
		}
		if c == nil {
			continue
		}
		if err := fn(*c, recs[i].Dot); err != nil {
			return err
		}
	}
	return nil
}

// contentOf returns the content that a record holds, or nil.
func contentOf(rec *tree.Record) (*tree.Content, error) {
	switch rec.Key.Type() {
	case tree.TypeContent:
		c, err := tree.DecodeContent(rec.Value)
		if err != nil {
			return nil, fmt.Errorf("%w: content record: %w", store.ErrDamaged, err)
		}
		return &c, nil
	case tree.TypeLink:
		l, err := tree.DecodeLink(rec.Value)
		if err != nil {
			return nil, fmt.Errorf("%w: link record: %w", store.ErrDamaged, err)
		}
		return l.Snap, nil
	}
	return nil, nil
}
