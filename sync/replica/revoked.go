package replica

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"sync"

	"github.com/roamfs/roamfs/peer/device"
	"github.com/roamfs/roamfs/sync/manifest"
	"github.com/roamfs/roamfs/sync/store"
	"github.com/roamfs/roamfs/sync/tree"
)

// What a revoked device wrote counts up to the cutoff of its revocation, however
// late and from whomever it comes, and beyond that if a member has taken it over:
// that member may not have known of the revocation, others have built on it, and a
// join cannot take it out again. A device that is no member can bring nothing but
// what lies within the cutoff. All members take over what any of them has, so they come
// to one tree, in whatever order commits and revocation reach them (sync.md,
// section 3.5).
//
// That a member has taken a commit over shows in that it sends it, on a
// connection on which it has proven its key, alone or within a whole state that
// it has signed: what it has not taken over it does not send.
//
// The rest is held back: it is never applied here, and the newest of it that
// was seen is noted for people to be told.

// ErrRevoked means that this device does not belong to the hive any more. What is
// here can be read, and nothing is changed.
var ErrRevoked = fmt.Errorf("this device was removed from the hive: its files can be read here and not be changed: %w", fs.ErrPermission)

// errHeldBack means a commit of a revoked device that does not count.
var errHeldBack = errors.New("made by a device after it was revoked")

// Revoked reports whether this device does not belong to the hive any more.
func (r *Replica) Revoked() bool { return r.shut(r.cfg.Key.ID()) }

// shut reports whether a device is no member.
func (r *Replica) shut(dev device.ID) bool {
	_, ok := r.cfg.Members.Member(dev)
	return !ok
}

// heardOfFormer reports whether a message is listened to that a device sent which is
// no member: what it has done is taken or noted. Its log could only fill ours.
func heardOfFormer(kind byte) bool { return kind == msgCommit || kind == msgMore }

// Writable returns why nothing is changed here any more, or nil: [ErrRevoked], [ErrOldCopy]
// or [ErrBroken].
func (r *Replica) Writable() error {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.stoppedLocked()
}

// stoppedLocked returns why nothing is changed here any more, or nil.
func (r *Replica) stoppedLocked() error {
	switch {
	case r.broken:
		return ErrBroken
	case r.oldCopy:
		return ErrOldCopy
	case r.Revoked():
		return ErrRevoked
	}
	return nil
}

// late decides whether a manifest of dev, which is revoked, counts as it comes
// from the device from. This device itself has decided before.
func (r *Replica) late(m *manifest.Manifest, dev device.Member, from device.ID) error {
	if from == r.cfg.Key.ID() {
		return nil
	}
	if m.Flags&manifest.FlagCommit != 0 {
		cut := r.cfg.Members.Cutoff(m.Actor)
		if m.Ctr < cut.Ctr || m.Ctr == cut.Ctr && m.Hash() == cut.Hash || !r.shut(from) {
			return nil
		}
	}
	return fmt.Errorf("%w: commit %d of %s", errHeldBack, m.Ctr, dev.Label)
}

// held is the newest commit that is known to be of a revoked device, by actor,
// whether or not it was applied since.
type held struct {
	mu sync.Mutex
	at map[tree.Actor]uint64
}

// lateKey begins the value of the database with the number of that commit (8).
const lateKey = "late"

func (r *Replica) loadHeld() error {
	r.held.at = map[tree.Actor]uint64{}
	for _, m := range r.cfg.Members.Former() {
		for _, a := range m.Actors {
			b, err := r.st.Value(lateKey + string(a[:]))
			if err != nil {
				return err
			}
			if b == nil {
				continue
			}
			if len(b) != 8 {
				return fmt.Errorf("%w: what is held back of %s", store.ErrDamaged, m.Label)
			}
			r.held.at[a] = binary.BigEndian.Uint64(b)
		}
	}
	return nil
}

// holdBack notes a commit of dev, whose signature was checked.
func (r *Replica) holdBack(m *manifest.Manifest, known tree.Vector) {
	if m.Ctr <= known[m.Actor] {
		return // a member had taken it over
	}
	dev, _ := r.cfg.Members.ByActor(m.Actor)
	h := &r.held
	h.mu.Lock()
	defer h.mu.Unlock()
	if m.Ctr <= h.at[m.Actor] {
		return
	}
	h.at[m.Actor] = m.Ctr
	r.log.Warn("work of a revoked device is held back", "device", dev.Label, "commit", m.Ctr)
	if err := r.st.Update(func(tx *store.Tx) error {
		tx.SetValue(lateKey+string(m.Actor[:]), binary.BigEndian.AppendUint64(nil, m.Ctr))
		return nil
	}); err != nil {
		r.log.Error("note what is held back", "device", dev.Label, "err", err)
	}
}

// HeldBack returns how many commits of dev, which does not belong to the hive any
// more, are known to exist and are not part of the tree.
func (r *Replica) HeldBack(dev device.Member) (n uint64) {
	mine := r.known()
	h := &r.held
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, a := range dev.Actors {
		if at := h.at[a]; at > mine[a] {
			n += at - mine[a]
		}
	}
	return n
}

// Lacking calls fn with every content that this device wrote and the others lack as far
// as is known here: no member has said that it knows the commit. What one has taken over
// counts for all, also beyond the cutoff. Conflict copies come with the inode that they are of.
func (r *Replica) Lacking(fn func(ino tree.Ino, c tree.Content) error) error {
	former, _ := r.cfg.Members.WasMember(r.cfg.Key.ID())
	lacks := func(d tree.Dot) bool {
		return (d.Actor == r.cfg.Actor || madeBy(former, d.Actor)) && !r.Shared(d)
	}
	// Snaps stand in for content that somebody removed: they count for an inode that has none.
	var ino tree.Ino
	var snaps []tree.Content
	written := false
	next := func() error {
		for _, c := range snaps {
			if written {
				break
			}
			if err := fn(ino, c); err != nil {
				return err
			}
		}
		return nil
	}
	snap := r.st.Snapshot()
	defer snap.Release()
	if err := snap.Scan(nil, nil, func(rec tree.Record) error {
		if i := rec.Key.Ino(); i != ino {
			if err := next(); err != nil {
				return err
			}
			ino, snaps, written = i, nil, false
		}
		c, err := contentOf(&rec)
		if err != nil || c == nil {
			return err
		}
		if rec.Key.Type() != tree.TypeContent {
			if lacks(rec.Dot) {
				snaps = append(snaps, *c)
			}
			return nil
		}
		written = true
		if lacks(rec.Dot) {
			return fn(ino, *c)
		}
		return nil
	}); err != nil {
		return err
	}
	return next()
}

// Newest returns the newest manifest with a commit of this device, encoded; nil
// if there is none. A device that was revoked shows with it what it has done.
func (r *Replica) Newest() ([]byte, error) { return r.st.Head(r.cfg.Actor) }

// Farewell takes such a manifest of a device that does not belong to the hive any
// more, and notes what is held back.
func (r *Replica) Farewell(dev device.ID, encoded []byte) error {
	m, err := manifest.Decode(encoded)
	if err != nil {
		return err
	}
	if m.Device != dev || m.Flags&manifest.FlagCommit == 0 {
		return fmt.Errorf("%w: of %v", errMessage, m.Device)
	}
	if err := r.check(m, dev); !errors.Is(err, errHeldBack) {
		return err
	}
	return nil
}

// Revoke shuts dev out of the hive for good, on the word of by, the owner key or
// that of dev itself; what is known here of its work counts. If this device
// stays, it begins a new epoch, whose secret dev does not learn. The errors are
// those of [device.Log.Revoke].
func (r *Replica) Revoke(by device.Key, dev device.ID, class device.Class) error {
	if err := r.Publish(); err != nil { // what counts of a device that leaves
		return err
	}
	m, ok := r.cfg.Members.Member(dev)
	if !ok {
		return fmt.Errorf("revoke %s: %w", dev.Short(), device.ErrNotMember)
	}
	cutoffs, err := r.cutoffs(m)
	if err != nil {
		return err
	}
	if err := r.cfg.Members.Revoke(by, dev, class, cutoffs, r.cfg.Now()); err != nil {
		return err
	}
	r.log.Info("device revoked", "device", m.Label, "why", class)
	if dev != r.cfg.Key.ID() {
		return r.Rotate()
	}
	return r.say(nil)
}

// cutoffs returns the newest commits of a device that are known here.
func (r *Replica) cutoffs(m device.Member) (out []device.Cutoff, err error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	for _, a := range m.Actors {
		n := r.vector[tree.Actor(a)]
		if n == 0 {
			continue
		}
		h, err := r.hashLocked(tree.Dot{Actor: a, Ctr: n})
		if err != nil {
			return nil, err
		}
		out = append(out, device.Cutoff{Actor: a, Ctr: n, Hash: h})
	}
	return out, nil
}

// Rotate begins a new epoch and tells the peers.
func (r *Replica) Rotate() error {
	var secret [32]byte
	_, _ = rand.Read(secret[:]) // never fails
	err := r.cfg.Members.Rotate(r.cfg.Key, secret, r.cfg.Now())
	// What the log has taken before counts in any case.
	return errors.Join(err, r.say(nil))
}

// ShareEpoch hands the secret of the epoch in which members seal to those that
// lack it, and tells the peers.
func (r *Replica) ShareEpoch(e device.EpochSecret) error {
	return r.say(r.cfg.Members.Share(r.cfg.Key, e, r.cfg.Now()))
}
