package replica

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/roamfs/roamfs/peer/device"
	"github.com/roamfs/roamfs/sync/manifest"
	"github.com/roamfs/roamfs/sync/store"
	"github.com/roamfs/roamfs/sync/tree"
)

// A device whose database may be an older copy of itself, or a copy that is in
// use elsewhere, must not write under the actor of before: the commits that it is
// going to make may exist already, with other content. It writes as a new
// incarnation, whose actor its membership record adds to the former ones. What the
// former ones did since the copy was made comes from the other devices, like the
// commits of anybody else, and nothing that was deleted comes back.
//
// Whoever opens the replica notices that (it looks at where the database lies)
// and gives another [Config.Actor]. Here is what remains to be done: an open batch
// goes on under the new name.

// moveBatch gives what an earlier incarnation left unpublished the dot of this
// one. It is what an open batch is made of: records, what drafts are based on, and an
// operation that was being carried out. Nobody else has seen that dot with
// certainty only now: the device of which this is a copy may have published
// the same batch, with more in it, and then the two are edits that have not seen
// each other. It comes before the view is made, and can be done again.
func (r *Replica) moveBatch() error {
	self, ok := r.cfg.Members.Member(r.cfg.Key.ID())
	if !ok || len(self.Actors) < 2 {
		return nil
	}
	to := r.dot()
	left := map[tree.Dot]bool{}
	for _, a := range self.Actors {
		if a := tree.Actor(a); a != to.Actor {
			left[tree.Dot{Actor: a, Ctr: r.vector[a] + 1}] = true
		}
	}
	var ch tree.Change
	keys := map[tree.Key]bool{}
	if _, _, err := r.st.Touches(func(c store.Touch) {
		for _, k := range c.Put {
			keys[k] = true
		}
	}); err != nil {
		return err
	}
	for k := range keys {
		recs, err := r.st.Records(k.Ino())
		if err != nil {
			return err
		}
		for _, rec := range recs {
			if rec.Key == k && left[rec.Dot] {
				ch.Drop = append(ch.Drop, tree.KeyDot{Key: k, Dot: rec.Dot})
				rec.Dot = to
				ch.Put = append(ch.Put, rec)
			}
		}
	}
	for _, part := range parts(ch) {
		if err := r.st.Update(func(tx *store.Tx) error { return tx.Apply(part) }); err != nil {
			return err
		}
		r.touchSpans(part)
	}
	if err := r.moveDrafts(left, to); err != nil {
		return err
	}
	return r.moveEdit(left, to)
}

// moveDrafts bases the drafts on what the content has become that they are based on.
func (r *Replica) moveDrafts(left map[tree.Dot]bool, to tree.Dot) error {
	drafts, err := r.st.Drafts()
	if err != nil {
		return err
	}
	for _, d := range drafts {
		if !slices.ContainsFunc(d.Base, func(b tree.Dot) bool { return left[b] }) {
			continue
		}
		for i, b := range d.Base {
			if left[b] {
				d.Base[i] = to
			}
		}
		if err := r.st.Update(func(tx *store.Tx) error { return tx.PutDraft(d) }); err != nil {
			return err
		}
	}
	return nil
}

// moveEdit does the same for an operation that is noted under editingKey.
func (r *Replica) moveEdit(left map[tree.Dot]bool, to tree.Dot) error {
	seq, c, err := r.stagedEdit()
	if err != nil || c == nil || !left[tree.Dot{Actor: c.Actor, Ctr: c.Ctr}] {
		return err
	}
	d, err := manifest.DecodeDelta(c.Delta)
	if err != nil {
		return fmt.Errorf("%w: staged operation: %w", store.ErrDamaged, err)
	}
	for i := range d.Put {
		d.Put[i].Dot = to
	}
	delta, err := d.Encode()
	if err != nil {
		return err
	}
	// Beside the one that it takes the place of: a half-written one could not be read.
	if err := r.st.StageCommit(seq+1, store.Commit{Actor: to.Actor, Ctr: to.Ctr, Delta: delta}); err != nil {
		return err
	}
	return r.st.Update(func(tx *store.Tx) error {
		tx.SetValue(editingKey, binary.BigEndian.AppendUint64(nil, seq+1))
		return nil
	})
}

// InUseTwice reports whether two copies of a member's state directory are at
// work: one of its former incarnations made a commit though it knew one of a
// later incarnation. Of this device it also says so when another of its
// incarnations is the latest. What both do is kept, as the work of two devices,
// but what either of them holds is believed of the other.
func (r *Replica) InUseTwice(dev device.ID) (bool, error) {
	m, ok := r.cfg.Members.Member(dev)
	if !ok || len(m.Actors) < 2 {
		return false, nil
	}
	last := len(m.Actors) - 1
	if dev == r.cfg.Key.ID() && tree.Actor(m.Actors[last]) != r.cfg.Actor {
		return true, nil
	}
	for i, former := range m.Actors[:last] {
		b, err := r.st.Head(former)
		if err != nil {
			return false, err
		}
		if b == nil {
			continue
		}
		newest, err := manifest.Decode(b)
		if err != nil {
			return false, fmt.Errorf("%w: manifest of %x: %w", store.ErrDamaged, former, err)
		}
		for _, h := range newest.Frontier {
			if slices.Contains(m.Actors[i+1:], [8]byte(h.Actor)) {
				return true, nil
			}
		}
	}
	return false, nil
}
