package replica

import (
	"fmt"

	"github.com/roamfs/roamfs/sync/manifest"
	"github.com/roamfs/roamfs/sync/store"
	"github.com/roamfs/roamfs/sync/tree"
)

// Publish closes the open batch, makes everything durable and pushes it to
// the peers that are connected.
func (r *Replica) Publish() error {
	news, err := r.publish()
	if err != nil {
		return err
	}
	if news {
		r.sessions.kickAll(0)
	}
	return nil
}

// publish closes the batch and makes all commits sendable. It reports whether
// there are any that were not before.
func (r *Replica) publish() (news bool, err error) {
	r.syncing.Lock()
	defer r.syncing.Unlock()
	if err := r.prepareRoot(); err != nil {
		return false, fmt.Errorf("publish: %w", err)
	}
	r.mu.Lock()
	err = r.closeBatchLocked()
	next, vector := r.commits.next, r.vector // a vector is replaced, never changed
	same := next == r.commits.durable.Load() && r.synced.Equal(vector)
	r.mu.Unlock()
	if err != nil {
		return false, fmt.Errorf("publish: %w", err)
	}
	if same {
		return false, nil
	}
	// A dot is on the disk before any byte that carries it leaves this process.
	if err := r.st.Sync(); err != nil {
		return false, fmt.Errorf("publish: %w", err)
	}
	r.setSynced(next, vector)
	return true, nil
}

// setSynced notes that the commits below next, and all that vector names, are
// on the disk. The caller holds syncing.
func (r *Replica) setSynced(next uint64, vector tree.Vector) {
	r.commits.durable.Store(next)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.synced = vector
}

// closeBatchLocked turns the open batch into a commit of this device.
func (r *Replica) closeBatchLocked() error {
	if r.broken {
		return ErrBroken
	}
	if r.open.first == r.open.next || r.oldCopy || r.Revoked() {
		return nil
	}
	dot := r.dot()
	if r.open.empty() {
		// Everything was undone again: forget the log, nothing to tell.
		first, next := r.open.first, r.open.next
		if err := r.st.Update(func(tx *store.Tx) error { tx.ClearTouches(first, next); return nil }); err != nil {
			return err
		}
		r.open.reset()
		return nil
	}
	if err := r.collectLocked(); err != nil {
		return err
	}
	delta, err := r.open.delta(dot).Encode()
	if err != nil {
		return err
	}
	vector := r.vector.Clone()
	vector[r.cfg.Actor] = dot.Ctr
	m, err := r.signLocked(vector, dot.Ctr, delta)
	if err != nil {
		return err
	}
	c := store.Commit{Actor: dot.Actor, Ctr: dot.Ctr, Manifest: m.Encode(), Delta: delta}
	drop := r.commits.surplus(r.cfg.Keep, int64(c.Size()))
	staged := c.Size() > partBytes
	if staged {
		if err := r.st.StageCommit(r.commits.next, c); err != nil {
			return err
		}
	}
	err = r.st.Update(func(tx *store.Tx) error {
		tx.ClearTouches(r.open.first, r.open.next)
		tx.SetValue("vector", vector.Append(nil))
		keepHash(tx, dot, m.Hash())
		for _, k := range drop {
			if err := tx.DropCommit(k.Seq, k.Actor, k.Ctr); err != nil {
				return err
			}
		}
		if !staged {
			return tx.PutCommit(r.commits.next, c)
		}
		tx.KeepCommit(r.commits.next, c)
		return nil
	})
	if err != nil {
		return err
	}
	r.vector = vector
	r.heads[dot.Actor] = headOf(m)
	r.commits.forget(drop)
	r.commits.add(c)
	r.open.reset()
	return nil
}

// signLocked makes this device's next manifest over the present records.
// ctr and delta are those of a commit, or 0 and nil for a checkpoint, which
// states the tree without changing it.
func (r *Replica) signLocked(vector tree.Vector, ctr uint64, delta []byte) (*manifest.Manifest, error) {
	root, err := r.rootLocked()
	if err != nil {
		return nil, err
	}
	own := r.signed()
	epoch, _ := r.cfg.Members.Epoch()
	m := &manifest.Manifest{
		Hive:    r.cfg.Members.Hive(),
		Epoch:   epoch,
		Members: r.cfg.Members.Hash(),
		Actor:   r.cfg.Actor,
		Device:  r.cfg.Key.ID(),
		Seq:     own.seq + 1,
		Prev:    own.hash,
		Ctr:     ctr,
		Root:    root,
		StateID: manifest.StateID(root, vector),
		Wall:    r.cfg.Now().UnixNano(),
	}
	for a, n := range r.vector { // what the author had seen
		m.Frontier = append(m.Frontier, manifest.Head{Actor: a, Ctr: n, Hash: r.heads[a].hash})
	}
	if delta != nil {
		m.DeltaHash, m.DeltaLen = manifest.Sum(delta), uint64(len(delta))
		m.Flags = manifest.FlagCommit
	} else {
		m.Flags = manifest.FlagCheckpoint
	}
	if err := m.Sign(r.cfg.Key); err != nil {
		return nil, err
	}
	return m, nil
}
