package replica

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/roamfs/roamfs/peer/device"
	"github.com/roamfs/roamfs/sync/manifest"
	"github.com/roamfs/roamfs/sync/store"
	"github.com/roamfs/roamfs/sync/tree"
)

// errGap means that a commit builds on one that is not here yet.
var errGap = errors.New("an earlier commit is missing")

// errStranger means that a manifest's author is not a member as far as this
// device knows yet.
var errStranger = errors.New("signed by a device that is not a member")

// check verifies a manifest's signature, that its author owns the actor, and that
// the author is a member, or else, that the manifest counts as it comes from the
// device from (revoked.go).
func (r *Replica) check(m *manifest.Manifest, from device.ID) error {
	err := r.checkOnly(m, from)
	if errors.Is(err, errHeldBack) {
		r.holdBack(m, r.known())
	}
	return err
}

// checkOnly is check, but does not note what is held back.
func (r *Replica) checkOnly(m *manifest.Manifest, from device.ID) error {
	if m.Hive != r.cfg.Members.Hive() {
		return fmt.Errorf("manifest of another hive")
	}
	if err := m.Verify(); err != nil {
		return err
	}
	dev, ok := r.cfg.Members.ByActor(m.Actor)
	switch {
	case !ok || dev.ID != m.Device:
		return fmt.Errorf("%w: %v as %x", errStranger, m.Device, m.Actor)
	case dev.Revoked:
		return r.late(m, dev, from)
	}
	return nil
}

// adopt is adoptFrom for a commit that was found good before, and so may be of a
// device that was revoked since.
func (r *Replica) adopt(encoded, delta []byte) (tree.Dot, error) {
	return r.adoptFrom(r.cfg.Key.ID(), encoded, delta)
}

// adoptFrom applies a commit that came from the device from, and returns its dot. It reports [errGap] if the commit
// builds on something that is not here, and nil if it is known already.
func (r *Replica) adoptFrom(from device.ID, encoded, delta []byte) (dot tree.Dot, err error) {
	m, err := manifest.Decode(encoded)
	if err != nil {
		return dot, fmt.Errorf("adopt: %w", err)
	}
	if err := r.check(m, from); err != nil {
		return dot, fmt.Errorf("adopt: %w", err)
	}
	if m.Flags&manifest.FlagCommit == 0 || m.Ctr == 0 {
		return dot, fmt.Errorf("adopt: manifest %d of %v carries no commit", m.Seq, m.Device)
	}
	if uint64(len(delta)) != m.DeltaLen || manifest.Sum(delta) != m.DeltaHash {
		return dot, fmt.Errorf("adopt: delta is not the one that %v signed", m.Device)
	}
	d, err := manifest.DecodeDelta(delta)
	if err != nil {
		return dot, fmt.Errorf("adopt: %w", err)
	}
	dot = tree.Dot{Actor: m.Actor, Ctr: m.Ctr}
	for _, rec := range d.Put {
		if rec.Dot != dot {
			return dot, fmt.Errorf("adopt: %v adds a record under a dot that is not its own", m.Device)
		}
		if err := tree.Check(rec); err != nil {
			return dot, fmt.Errorf("adopt: %v: %w", m.Device, err)
		}
	}
	aff, err := r.apply(m, store.Commit{Actor: m.Actor, Ctr: m.Ctr, Manifest: encoded, Delta: delta}, d)
	r.tell(aff) // an error may come after something else was let through
	if err != nil {
		return dot, fmt.Errorf("adopt commit %d of %v: %w", m.Ctr, m.Device, err)
	}
	if aboutSettings(d) {
		r.tellSettings()
	}
	return dot, nil
}

func (r *Replica) apply(m *manifest.Manifest, c store.Commit, d manifest.Delta) (aff tree.Affected, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.applyLocked(m, c, d)
}

func (r *Replica) applyLocked(m *manifest.Manifest, c store.Commit, d manifest.Delta) (aff tree.Affected, err error) {
	if r.broken {
		return aff, ErrBroken
	}
	if m.Ctr <= r.vector[m.Actor] {
		return aff, r.sameLocked(m)
	}
	if err := r.agreeLocked(m.Device, m.Frontier); err != nil {
		return aff, err
	}
	if m.Actor == r.cfg.Actor {
		if err := r.takeBackLocked(m); err != nil {
			return aff, err
		}
	}
	if ready, held := r.readyLocked(m); held && m.Actor == r.cfg.Actor {
		if aff, err = r.releaseAllLocked(); err == nil {
			err = errGap // for it to come again
		}
		return aff, err
	} else if held {
		return r.holdBackLocked(c, d)
	} else if !ready {
		return aff, errGap
	}
	if known, ok := r.heads[m.Actor]; ok {
		if m.Seq <= known.seq || (m.Seq == known.seq+1 && m.Prev != known.hash) {
			return aff, r.forkedLocked(m.Device, m.Actor, m.Ctr)
		}
	}
	if hold, err := r.judgeLocked(m, d); err != nil {
		return aff, err
	} else if hold {
		return r.holdBackLocked(c, d)
	}
	if r.open.meets(d) {
		if err := r.closeBatchLocked(); err != nil {
			return aff, err
		}
	}
	vector := r.vector.Clone()
	vector[m.Actor] = m.Ctr
	// A record that this device has dropped in its open batch without having
	// published that yet cannot be among the new ones: their dot is new here.
	ch := tree.Change{Put: d.Put, Drop: d.Drop}
	drop := r.commits.surplus(r.cfg.Keep, int64(c.Size()))
	seq := r.commits.next
	staged := c.Size() > partBytes || len(parts(ch)) > 1
	if staged {
		if err := r.st.StageCommit(seq, c); err != nil {
			return aff, err
		}
		if err := r.st.Update(func(tx *store.Tx) error {
			tx.SetValue(adoptingKey, binary.BigEndian.AppendUint64(nil, seq))
			return nil
		}); err != nil {
			return aff, err
		}
	}
	aff, err = r.changeLocked(ch, func(tx *store.Tx) error {
		tx.SetValue("vector", vector.Append(nil))
		keepHash(tx, tree.Dot{Actor: m.Actor, Ctr: m.Ctr}, m.Hash())
		for _, k := range drop {
			if err := tx.DropCommit(k.Seq, k.Actor, k.Ctr); err != nil {
				return err
			}
		}
		if !staged {
			return tx.PutCommit(seq, c)
		}
		tx.KeepCommit(seq, c)
		tx.SetValue(adoptingKey, nil)
		return nil
	})
	if err != nil {
		if staged && !r.broken {
			// Nothing of it is here. The note must not be taken for one on the
			// next commit that has the number.
			r.broken = r.forgetStaged() != nil
		}
		return aff, err
	}
	r.vector = vector
	r.heads[m.Actor] = headOf(m)
	r.commits.forget(drop)
	r.commits.add(c)
	if in := r.coming; in != nil && m.Ctr <= in.vector[m.Actor] {
		in.overtaken = true
	}
	return aff, r.compareLocked(m)
}

// ErrOldCopy means that this device has made commits that its database does not
// know: the state directory is an older copy of itself, or is in use twice.
var ErrOldCopy = errors.New("the state directory is an older copy, or is in use twice: keep it aside and let this device join again")

// takeBackLocked decides what becomes of a commit m that is signed by this
// device and is not here. If nothing was done here since, the commit is taken
// back like any other. Else two changes would go by one name, and one of them would be
// lost without a trace: nothing more is changed or published here.
func (r *Replica) takeBackLocked(m *manifest.Manifest) error {
	if r.open.first == r.open.next && m.Prev == r.signed().hash {
		r.log.Warn("the state directory is an older copy of itself: taking back what this device did since", "commit", m.Ctr)
		return nil
	}
	r.fenceLocked()
	return ErrOldCopy
}

func (r *Replica) fenceLocked() {
	if !r.oldCopy {
		r.log.Error("nothing is changed here any more", "err", ErrOldCopy)
	}
	r.oldCopy = true
}

// sameLocked compares a commit whose number is known already with the one that is
// known by it.
func (r *Replica) sameLocked(m *manifest.Manifest) error {
	known, err := r.hashLocked(tree.Dot{Actor: m.Actor, Ctr: m.Ctr})
	if err != nil || known.IsZero() || known == m.Hash() {
		return err
	}
	if m.Actor == r.cfg.Actor {
		r.fenceLocked()
		return ErrOldCopy
	}
	return r.forkedLocked(m.Device, m.Actor, m.Ctr)
}

// Bounds of the changes in one transaction, in records and in about the bytes
// that they and their indexes come to. Badger takes more.
const (
	partRecords = 512
	partBytes   = 192 << 10
)

// putCost and dropCost are about what a change writes, in bytes, with indexes.
func putCost(rec *tree.Record) int {
	if rec.Key.Type() == tree.TypeLink {
		return len(rec.Key) + 3*len(rec.Value) + 256
	}
	return len(rec.Key) + len(rec.Value) + 128
}

func dropCost(kd *tree.KeyDot) int { return len(kd.Key) + 512 }

// parts cuts a change into some that each fit a transaction. What is put comes
// before what is dropped, so that a content is never gone before the one that
// takes its place is there.
func parts(ch tree.Change) []tree.Change {
	out := []tree.Change{{}}
	n, bytes := 0, 0
	more := func(cost int) *tree.Change {
		if n > 0 && (n == partRecords || bytes+cost > partBytes) {
			out, n, bytes = append(out, tree.Change{}), 0, 0
		}
		n, bytes = n+1, bytes+cost
		return &out[len(out)-1]
	}
	for i := range ch.Put {
		part := more(putCost(&ch.Put[i]))
		part.Put = append(part.Put, ch.Put[i])
	}
	for i := range ch.Drop {
		part := more(dropCost(&ch.Drop[i]))
		part.Drop = append(part.Drop, ch.Drop[i])
	}
	return out
}

// changeLocked applies a remote change to the records and the view in
// transactions that fit, the last of which also runs also. If there may be more
// than one, the caller has noted before what is going on, so that the next Open
// does it again from the begin: applying is idempotent, and nobody sees or
// touches the tree before it is done. An error in between breaks the replica
// for the same reason.
func (r *Replica) changeLocked(ch tree.Change, also func(*store.Tx) error) (aff tree.Affected, err error) {
	spots, err := r.spotsLocked(ch)
	if err != nil {
		return aff, err
	}
	p, err := r.view.Prepare(ch) // for all of it: in a directory full of conflicts following a change is dear
	if err != nil {
		return aff, err
	}
	all := parts(ch)
	for i, part := range all {
		if err := r.st.Update(func(tx *store.Tx) error {
			if err := tx.Apply(part); err != nil {
				return err
			}
			r.keepSpots(tx, spots, part.Drop)
			if i == len(all)-1 && also != nil {
				return also(tx)
			}
			return nil
		}); err != nil {
			r.broken = r.broken || i > 0
			return aff, err
		}
		r.touchSpans(part)
		if r.between != nil && i < len(all)-1 {
			r.between()
		}
	}
	for ino, s := range spots {
		r.gone.add(ino, s)
	}
	r.changes.Add(1)
	if aff, err = p.Done(); err != nil {
		r.broken = true
		return aff, fmt.Errorf("%w: %w", ErrBroken, err)
	}
	return aff, nil
}

// The values that tell the next Open what was going on.
const (
	adoptingKey = "adopting" // number under which the commit is staged that is being applied
	joiningKey  = "joining"  // while a state is being joined: where its plan begins in the staging file (8)
	editingKey  = "editing"  // number under which the operation is staged that is being carried out
)

func (r *Replica) forgetStaged() error {
	return r.st.Update(func(tx *store.Tx) error { tx.SetValue(adoptingKey, nil); return nil })
}

// finish completes the operation, the adoption or the join in which an earlier
// run ended.
func (r *Replica) finish() error {
	if err := r.finishEdit(); err != nil {
		return err
	}
	b, err := r.st.Value(adoptingKey)
	if err != nil {
		return err
	}
	if b != nil {
		if len(b) != 8 {
			return fmt.Errorf("%w: number of a staged commit", store.ErrDamaged)
		}
		c, err := r.st.Commit(binary.BigEndian.Uint64(b))
		if err != nil {
			return err
		}
		r.guard.off = true // it was judged before it began
		if _, err := r.adopt(c.Manifest, c.Delta); err != nil {
			return fmt.Errorf("unfinished: %w", err)
		}
		r.guard.off = false
		if err := r.forgetStaged(); err != nil {
			return err
		}
	}
	if b, err = r.st.Value(joiningKey); err != nil {
		return err
	}
	if b == nil {
		return r.clearStaging()
	}
	if len(b) != 8 {
		return fmt.Errorf("%w: begin of a plan", store.ErrDamaged)
	}
	return r.resumeJoin(int64(binary.BigEndian.Uint64(b)))
}

// compareLocked checks the author's root against the tree here, when both are
// roots over the same commits: a free end-to-end test of both programs.
func (r *Replica) compareLocked(m *manifest.Manifest) error {
	if !r.open.empty() || len(m.Frontier)+1 < len(r.vector) {
		return nil
	}
	for _, h := range m.Frontier {
		if h.Actor != m.Actor && r.vector[h.Actor] != h.Ctr {
			return nil
		}
	}
	seen := map[tree.Actor]bool{m.Actor: true}
	for _, h := range m.Frontier {
		seen[h.Actor] = true
	}
	if len(seen) != len(r.vector) {
		return nil
	}
	root, err := r.rootLocked()
	if err != nil {
		return err
	}
	if root != m.Root {
		r.log.Error("trees differ after the same commits", "device", m.Device, "manifest", m.Seq, "root", fmt.Sprintf("%x", root), "theirs", fmt.Sprintf("%x", m.Root))
	}
	return nil
}

// Member returns the label of a device, or its short id.
func (r *Replica) name(dev device.ID) string {
	if m, ok := r.cfg.Members.Member(dev); ok {
		return m.Label
	}
	return dev.Short()
}
