package replica

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/roamfs/roamfs/sync/manifest"
	"github.com/roamfs/roamfs/sync/store"
	"github.com/roamfs/roamfs/sync/tree"
)

// How large one operation can be.
//
// Most put and drop a few records, whatever they are about: renaming or removing
// a directory is one record, however much is in it, and so is the content of
// a file, however long its list of blocks, which is blocks itself. The largest of
// those are an attribute set (64 KiB, and the link) and a write to a file with
// many names (64 links). All of that fits one transaction.
//
// Two grow with the tree:
//
//   - an operation on a conflict copy, or anything else whose name could be a made-up
//     one, gives all conflicts of the directory their names for good (tree, Edit.pin): up to
//     about 800 bytes for each, 200 to 300 with usual names. The same holds for
//     directories in moves that went in circles.
//   - the last name of a file takes all its attributes with it: up to 300 bytes for
//     the name of each, 60 with usual names; the values do not count. So does a
//     rename over the file.
//
// Neither may be cut into several commits: a half would show names that no
// device had shown, or a file without some of its attributes. So such an
// operation gets a commit of its own, whose delta may have [manifest.MaxDelta] bytes: 20,000
// conflicts in one directory with the longest names, 60,000 with usual ones; or
// 50,000 and more attributes. It is carried out in several transactions and sent
// in several messages. One beyond that is refused and changes nothing.

// ErrTooLarge means that one operation would change too many records at once.
var ErrTooLarge = errors.New("too many conflicts in one directory, or attributes of one file, for one operation")

// fits reports whether a change fits one transaction.
func fits(ch tree.Change) bool {
	if len(ch.Put)+len(ch.Drop) > partRecords {
		return false
	}
	bytes := 0
	for i := range ch.Put {
		bytes += putCost(&ch.Put[i])
	}
	for i := range ch.Drop {
		bytes += dropCost(&ch.Drop[i])
	}
	return bytes <= partBytes
}

// editLargeLocked is editLocked for an operation whose change does not fit one
// transaction. It becomes the first of its batch, so that the batch does not
// outgrow a delta. What it is going to do is noted before it begins, and the
// next Open ends what a kill interrupts.
func (r *Replica) editLargeLocked(fn func(*tree.Edit) error, also func(*store.Tx) error) (aff tree.Affected, err error) {
	if err := r.closeBatchLocked(); err != nil {
		return aff, err
	}
	e := r.newEdit()
	if err := fn(e); err != nil {
		return aff, err
	}
	ch := e.Change()
	delta, err := manifest.Delta{Put: ch.Put, Drop: ch.Drop}.Encode()
	if err != nil {
		return aff, fmt.Errorf("%w: %w", ErrTooLarge, err)
	}
	deleted, err := r.deletedLocked(ch)
	if err != nil {
		return aff, err
	}
	seq := r.commits.next // of the commit that this is going to be
	if err := r.st.StageCommit(seq, store.Commit{Actor: r.cfg.Actor, Ctr: r.dot().Ctr, Delta: delta}); err != nil {
		return aff, err
	}
	if err := r.st.Update(func(tx *store.Tx) error {
		for _, ino := range deleted {
			if err := r.dropDraft(tx, ino); err != nil {
				return err
			}
		}
		tx.SetValue(editingKey, binary.BigEndian.AppendUint64(nil, seq))
		if also != nil {
			return also(tx)
		}
		return nil
	}); err != nil {
		return aff, err
	}
	for _, ino := range deleted {
		r.gone.forget(ino)
	}
	return r.carryOutLocked(ch)
}

// carryOutLocked does what is noted under editingKey, from the begin. An error
// breaks the replica: only the next Open can end it.
func (r *Replica) carryOutLocked(ch tree.Change) (aff tree.Affected, err error) {
	defer func() {
		if err != nil {
			r.broken = true
		}
	}()
	p, err := r.view.Prepare(ch)
	if err != nil {
		return aff, err
	}
	all := parts(ch)
	for i, part := range all {
		touch := r.open.touch(r.dot(), part)
		if err := r.st.Update(func(tx *store.Tx) error {
			if err := tx.Apply(part); err != nil {
				return err
			}
			if len(touch.Put)+len(touch.Drop) > 0 {
				tx.LogTouch(r.open.next, touch)
			}
			if i == len(all)-1 {
				tx.SetValue(editingKey, nil)
			}
			return nil
		}); err != nil {
			return aff, err
		}
		r.open.add(touch, part)
		r.touchSpans(part)
		if r.between != nil && i < len(all)-1 {
			r.between()
		}
	}
	r.changes.Add(1)
	if aff, err = p.Done(); err != nil {
		return aff, fmt.Errorf("%w: %w", ErrBroken, err)
	}
	r.wake()
	return aff, nil
}

// finishEdit carries out the operation during which an earlier run ended.
func (r *Replica) finishEdit() error {
	_, c, err := r.stagedEdit()
	if err != nil || c == nil {
		return err
	}
	d, err := manifest.DecodeDelta(c.Delta)
	if err != nil {
		return fmt.Errorf("%w: staged operation: %w", store.ErrDamaged, err)
	}
	if c.Actor != r.cfg.Actor || c.Ctr != r.dot().Ctr {
		return fmt.Errorf("%w: staged operation of another batch", store.ErrDamaged)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, err := r.carryOutLocked(tree.Change{Put: d.Put, Drop: d.Drop}); err != nil {
		return fmt.Errorf("unfinished operation: %w", err)
	}
	return nil
}

// stagedEdit returns the operation during which an earlier run ended, and the
// number under which it is staged, or nil.
func (r *Replica) stagedEdit() (seq uint64, c *store.Commit, err error) {
	b, err := r.st.Value(editingKey)
	if err != nil || b == nil {
		return 0, nil, err
	}
	if len(b) != 8 {
		return 0, nil, fmt.Errorf("%w: number of a staged operation", store.ErrDamaged)
	}
	seq = binary.BigEndian.Uint64(b)
	staged, err := r.st.Commit(seq)
	return seq, &staged, err
}
