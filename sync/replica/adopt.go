package replica

import (
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

// check verifies a manifest's signature and that its author is the member that
// owns the actor.
func (r *Replica) check(m *manifest.Manifest) error {
	if m.Hive != r.cfg.Members.Hive() {
		return fmt.Errorf("manifest of another hive")
	}
	if err := m.Verify(); err != nil {
		return err
	}
	dev, ok := r.cfg.Members.Member(m.Device)
	if !ok {
		return fmt.Errorf("%w: %v", errStranger, m.Device)
	}
	for _, a := range dev.Actors {
		if tree.Actor(a) == m.Actor {
			return nil
		}
	}
	return fmt.Errorf("%w: actor %x of %s", errStranger, m.Actor, dev.Label)
}

// adopt applies another device's commit and returns its dot. It reports [errGap] if the commit
// builds on something that is not here, and nil if it is known already.
func (r *Replica) adopt(encoded, delta []byte) (dot tree.Dot, err error) {
	m, err := manifest.Decode(encoded)
	if err != nil {
		return dot, fmt.Errorf("adopt: %w", err)
	}
	if err := r.check(m); err != nil {
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
	if err != nil {
		return dot, fmt.Errorf("adopt commit %d of %v: %w", m.Ctr, m.Device, err)
	}
	r.tell(aff)
	return dot, nil
}

func (r *Replica) apply(m *manifest.Manifest, c store.Commit, d manifest.Delta) (aff tree.Affected, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.broken {
		return aff, ErrBroken
	}
	if m.Ctr <= r.vector[m.Actor] {
		return aff, nil
	}
	if m.Actor == r.cfg.Actor {
		return aff, fmt.Errorf("this device's own identity is in use elsewhere: a commit that it never made is signed with its key")
	}
	if m.Ctr != r.vector[m.Actor]+1 {
		return aff, errGap
	}
	for _, h := range m.Frontier {
		if h.Ctr > r.vector[h.Actor] {
			return aff, errGap
		}
	}
	if known, ok := r.heads[m.Actor]; ok {
		if m.Seq <= known.seq || (m.Seq == known.seq+1 && m.Prev != known.hash) {
			return aff, fmt.Errorf("history of %v forks at manifest %d", m.Device, m.Seq)
		}
	}
	vector := r.vector.Clone()
	vector[m.Actor] = m.Ctr
	// A record that this device has dropped in its open batch without having
	// published that yet cannot be among the new ones: their dot is new here.
	ch := tree.Change{Put: d.Put, Drop: d.Drop}
	drop := r.commits.surplus(r.cfg.Keep, int64(len(c.Manifest)+len(c.Delta)))
	aff, err = r.changeLocked(ch, func(tx *store.Tx) error {
		tx.SetValue("vector", vector.Append(nil))
		for _, k := range drop {
			if err := tx.DropCommit(k.Seq, k.Actor, k.Ctr); err != nil {
				return err
			}
		}
		return tx.PutCommit(r.commits.next, c)
	})
	if err != nil {
		return aff, err
	}
	r.vector = vector
	r.heads[m.Actor] = head{m.Seq, m.Ctr, m.Hash()}
	r.commits.forget(drop)
	r.commits.add(c)
	return aff, r.compareLocked(m)
}

// changeLocked applies a remote change to the records and the view in
// transactions that fit, the last of which also runs also. A crash between two
// leaves records whose commit is not in the version vector yet; it will be
// applied again, and applying is idempotent.
func (r *Replica) changeLocked(ch tree.Change, also func(*store.Tx) error) (aff tree.Affected, err error) {
	const most = 1024
	for {
		part := tree.Change{Put: ch.Put[:min(len(ch.Put), most)], Drop: ch.Drop[:min(len(ch.Drop), most)]}
		ch.Put, ch.Drop = ch.Put[len(part.Put):], ch.Drop[len(part.Drop):]
		last := len(ch.Put)+len(ch.Drop) == 0
		if err := r.noteGoneLocked(part.Drop); err != nil {
			return aff, err
		}
		p, err := r.view.Prepare(part)
		if err != nil {
			return aff, err
		}
		err = r.st.Update(func(tx *store.Tx) error {
			if err := tx.Apply(part); err != nil {
				return err
			}
			if last && also != nil {
				return also(tx)
			}
			return nil
		})
		if err != nil {
			return aff, err
		}
		r.touchSpans(part)
		a, err := p.Done()
		if err != nil {
			r.broken = true
			return aff, fmt.Errorf("%w: %w", ErrBroken, err)
		}
		aff.Entries = append(aff.Entries, a.Entries...)
		aff.Inodes = append(aff.Inodes, a.Inodes...)
		if last {
			return aff, nil
		}
	}
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
