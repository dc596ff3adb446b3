package replica

import (
	"errors"
	"fmt"

	"github.com/roamfs/roamfs/sync/merkle"
	"github.com/roamfs/roamfs/sync/store"
	"github.com/roamfs/roamfs/sync/tree"
)

// fillLocked makes the join where there was no tree, as on a new device: the records
// are taken as they come, and the view and the spans are made of them in the end. A
// million files take 20 s, where following them takes minutes.
func (r *Replica) fillLocked(in *incoming, mine tree.Vector) error {
	blank, err := r.blankLocked()
	if err != nil {
		return err
	}
	f := &filling{r: r, blank: blank}
	if err := r.mergeLocked(in, mine, func(bool) bool { return true }, f.add); err != nil {
		return err
	}
	also, done, err := r.joinedLocked(in)
	if err != nil {
		return err
	}
	if err := f.flush(also); err != nil {
		return err
	}
	done()
	r.changes.Add(1)
	if r.view, err = tree.NewView(r.st, tree.Labels(r.label)); err != nil {
		return fmt.Errorf("%w: %w", ErrBroken, err)
	}
	return r.refillSpansLocked(in)
}

// blankLocked reports whether there is no record of any inode.
func (r *Replica) blankLocked() (bool, error) {
	snap := r.st.Snapshot()
	defer snap.Release()
	blank := true
	err := snap.Inodes(func(ino tree.Ino, _ []tree.Record) error {
		if ino[0] == 0xff { // settings are behind all inodes
			return nil
		}
		blank = false
		return errEnough
	})
	if errors.Is(err, errEnough) {
		err = nil
	}
	return blank, err
}

// filling writes the records of a join, inode by inode.
type filling struct {
	r     *Replica
	blank bool // so each inode is new when it comes
	ch    tree.Change
	last  tree.Ino
}

func (f *filling) add(put []tree.Record, drop []tree.KeyDot) error {
	for i := range put {
		if ino := put[i].Key.Ino(); ino != f.last {
			if len(f.ch.Put)+len(f.ch.Drop) >= partRecords/2 {
				if err := f.flush(nil); err != nil {
					return err
				}
			}
			f.last = ino
			if ino[0] != 0xff { // a setting
				f.ch.Born = append(f.ch.Born, ino)
			}
		}
		f.ch.Put = append(f.ch.Put, put[i])
	}
	f.ch.Drop = append(f.ch.Drop, drop...)
	return nil
}

func (f *filling) flush(also func(*store.Tx) error) error {
	all := parts(f.ch)
	if len(all) == 1 && f.blank { // else some inode may be in two of them
		all[0].Born = f.ch.Born
	}
	f.ch = tree.Change{}
	for i, part := range all {
		if err := f.r.st.Update(func(tx *store.Tx) error {
			if err := tx.Apply(part); err != nil {
				return err
			}
			if i == len(all)-1 && also != nil {
				return also(tx)
			}
			return nil
		}); err != nil {
			return err
		}
	}
	if f.r.between != nil {
		f.r.between()
	}
	return nil
}

// refillSpansLocked makes the spans of the records after a join has filled them in.
func (r *Replica) refillSpansLocked(in *incoming) error {
	r.spans.mu.Lock()
	defer r.spans.mu.Unlock()
	clear(r.spans.touched)
	if in.own != nil && r.open.empty() && r.vector.Equal(in.vector) {
		r.spans.tree = in.own // the same commits, so the same records
		return nil
	}
	snap := r.st.Snapshot()
	defer snap.Release()
	anew, err := merkle.Build(r.cfg.Spread, source{snap})
	if err == nil {
		r.spans.tree = anew
	}
	return err
}
