package replica

import (
	"encoding/binary"
	"errors"
	"math"
	"slices"
	"time"

	"github.com/roamfs/roamfs/sync/guard"
	"github.com/roamfs/roamfs/sync/manifest"
	"github.com/roamfs/roamfs/sync/store"
	"github.com/roamfs/roamfs/sync/tree"
)

// beginHoldLocked notes that from its commit ctr on an actor is held back.
func (r *Replica) beginHoldLocked(a tree.Actor, ctr uint64, now int64) error {
	v := binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, ctr), uint64(now))
	if err := r.st.Update(func(tx *store.Tx) error { tx.SetValue(holdKey+string(a[:]), v); return nil }); err != nil {
		return err
	}
	r.guard.holds[a] = &hold{first: ctr, since: now, account: r.guard.accounts[a].Clone()}
	r.log.Warn("a device takes away much of the tree: it is held back until that is accepted", "device", r.label(a))
	return nil
}

// holdBackLocked keeps a commit that is held, as far as there is room, and
// reports [errHeld], or what was changed if its coming made all good again.
func (r *Replica) holdBackLocked(c store.Commit, d manifest.Delta) (aff tree.Affected, err error) {
	g := &r.guard
	dot := tree.Dot{Actor: c.Actor, Ctr: c.Ctr}
	if g.at[dot] {
		return aff, errHeld
	}
	size := int64(c.Size())
	if g.full[c.Actor] || g.bytes+size > 4*r.cfg.Keep {
		g.full[c.Actor] = true
		g.version++
		return aff, errHeld
	}
	seq := g.next
	if err := r.st.StageCommit(seq, c); err != nil {
		return aff, err
	}
	x := heldCommit{dot, seq, size}
	if err := r.st.Update(func(tx *store.Tx) error { tx.SetValue(x.row(), x.value()); return nil }); err != nil {
		return aff, err
	}
	if err := r.addHeldLocked(x, c, d); err != nil {
		return aff, err
	}
	for a, h := range g.holds {
		gone := 0
		if acc := g.accounts[a]; acc != nil {
			gone, _ = acc.Count()
		}
		over, err := r.overLocked(h.account, guard.Effect{}, guard.Commit{Author: a, Wall: h.wall}, gone, func() (guard.Tree, error) { return g.after, nil })
		if err != nil {
			return aff, err
		}
		if !over && !g.full[a] {
			r.log.Info("what a device took away was given back", "device", r.label(a))
			return r.releaseLocked(a, true)
		}
	}
	return aff, errHeld
}

func (x heldCommit) row() string {
	return string(binary.BigEndian.AppendUint64([]byte(heldKey), x.seq))
}

func (x heldCommit) value() []byte {
	b := binary.BigEndian.AppendUint64(slices.Clone(x.dot.Actor[:]), x.dot.Ctr)
	return binary.BigEndian.AppendUint64(b, uint64(x.size))
}

// addHeldLocked enters a held commit into the books.
func (r *Replica) addHeldLocked(x heldCommit, c store.Commit, d manifest.Delta) error {
	g := &r.guard
	g.held, g.at[x.dot], g.bytes, g.next = append(g.held, x), true, g.bytes+x.size, x.seq+1
	g.version++
	m, err := manifest.Decode(c.Manifest)
	if err != nil {
		return err
	}
	for a, h := range g.holds {
		if a == c.Actor {
			h.wall = m.Wall
		}
		e, err := h.account.Assess(guard.Commit{Author: c.Actor, Wall: m.Wall, Delta: d}, h.since, g.after.Records)
		if err != nil {
			return err
		}
		h.account.Apply(e)
	}
	return g.after.Apply(d)
}

// releaseLocked lets through what is held of an actor, and what builds on it; with
// all also what there was no room for. Else that is judged anew.
func (r *Replica) releaseLocked(a tree.Actor, all bool) (aff tree.Affected, err error) {
	g := &r.guard
	ctr := g.passed[a]
	if h := g.holds[a]; h != nil {
		if all {
			ctr = max(ctr, h.first)
		}
		g.freed[a] = h
	}
	for _, x := range g.held {
		if x.dot.Actor == a {
			ctr = max(ctr, x.dot.Ctr)
		}
	}
	if all && g.full[a] { // what did not fit was meant as well
		ctr = max(ctr, r.sessions.most(a))
	}
	if acc := g.accounts[a]; acc != nil {
		if err := r.noteLossesLocked(a, guard.Effect{}, acc.Expire(math.MaxInt64)); err != nil {
			return aff, err
		}
		delete(g.accounts, a)
	}
	if err := r.st.Update(func(tx *store.Tx) error {
		tx.SetValue(passedKey+string(a[:]), binary.BigEndian.AppendUint64(nil, ctr))
		tx.SetValue(holdKey+string(a[:]), nil)
		return nil
	}); err != nil {
		return aff, err
	}
	delete(g.holds, a)
	g.passed[a] = ctr
	return r.replayLocked()
}

// releaseAllLocked lets everything through: a commit of this device builds on what
// is held, so it was here before.
func (r *Replica) releaseAllLocked() (aff tree.Affected, err error) {
	for a := range r.guard.holds {
		one, err := r.releaseLocked(a, true)
		aff.Entries, aff.Inodes = append(aff.Entries, one.Entries...), append(aff.Inodes, one.Inodes...)
		if err != nil {
			return aff, err
		}
	}
	return aff, nil
}

// replayLocked tries all held commits again. What is still held is entered anew.
func (r *Replica) replayLocked() (aff tree.Affected, err error) {
	g := &r.guard
	all := g.held
	g.held, g.at, g.bytes = nil, map[tree.Dot]bool{}, 0
	g.after, g.full = guard.NewOverlay(r.st), map[tree.Actor]bool{}
	g.version++
	g.counted = time.Time{}
	for a, h := range g.holds {
		h.account = &guard.Account{}
		if acc := g.accounts[a]; acc != nil {
			h.account = acc.Clone()
		}
	}
	for _, x := range all {
		c, err := r.st.Commit(x.seq)
		if err != nil {
			return aff, err
		}
		one, err := r.againLocked(c)
		aff.Entries, aff.Inodes = append(aff.Entries, one.Entries...), append(aff.Inodes, one.Inodes...)
		switch {
		case err == nil, errors.Is(err, errHeld), errors.Is(err, errGap):
		default:
			if r.broken {
				return aff, err
			}
			r.log.Error("a commit that was held back is of no use", "device", r.label(c.Actor), "err", err)
		}
		if err := r.st.Update(func(tx *store.Tx) error {
			tx.SetValue(x.row(), nil)
			return tx.DropStaged(x.seq)
		}); err != nil {
			return aff, err
		}
	}
	r.sessions.greetAll()
	r.wake()
	return aff, nil
}

func (r *Replica) againLocked(c store.Commit) (aff tree.Affected, err error) {
	m, err := manifest.Decode(c.Manifest)
	if err != nil {
		return aff, err
	}
	if err := r.checkOnly(m, m.Device); err != nil { // it may have been revoked since
		if errors.Is(err, errHeldBack) {
			r.holdBack(m, r.synced)
		}
		return aff, err
	}
	d, err := manifest.DecodeDelta(c.Delta)
	if err != nil {
		return aff, err
	}
	return r.applyLocked(m, c, d)
}

// heldBack returns what peers need not send, and a number that changes with it.
func (r *Replica) heldBack() ([]manifest.Head, uint64) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	g := &r.guard
	v := tree.Vector{}
	for _, x := range g.held {
		v.Add(x.dot)
	}
	for a := range g.full {
		v[a] = math.MaxInt64
	}
	heads := make([]manifest.Head, 0, len(v))
	for a, n := range v {
		heads = append(heads, manifest.Head{Actor: a, Ctr: n})
	}
	slices.SortFunc(heads, func(a, b manifest.Head) int { return a.Actor.Compare(b.Actor) })
	return heads, g.version
}

// greetAll says hello to all peers again.
func (s *sessions) greetAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.live {
		p.hello = true
		p.poke()
	}
}

// most returns the newest commit of an actor that a peer has said it knows.
func (s *sessions) most(a tree.Actor) (n uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.live {
		n = max(n, p.theirs[a])
	}
	return n
}
