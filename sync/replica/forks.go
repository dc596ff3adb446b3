package replica

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/roamfs/roamfs/peer/device"
	"github.com/roamfs/roamfs/sync/manifest"
	"github.com/roamfs/roamfs/sync/store"
	"github.com/roamfs/roamfs/sync/tree"
)

// A fork is that two different commits of one actor have one number: its state
// directory was copied and used twice, or put back and used on, or the device
// lies. Both carry the same dot, so to a join each looks like the other one, and
// either of them would be dropped as known and removed. Therefore nothing is adopted
// from whoever shows that it knows another commit than this device does, and
// the two say so. Each goes on with its own branch, and with all who know the same.
//
// What is compared are the hashes of commits: those of the newest ones in each
// hello and told, and those that each adopted manifest names in its frontier.
// To have something to compare them with, the hash of every commit that was
// adopted or made here is kept, the latest mostHashes of each actor, which come
// to about 4 MiB. A whole state brings those of commits that were never here by
// themselves, as far as its sender has them and they fit its begin. They are not
// signed: a member that lies about them makes this device refuse others, and no more.
// So two devices do not notice if neither of them knows the newest commit that the
// other one has of the forked device: it is more than mostHashes commits back, or
// more than a state brings.

const mostHashes = 1 << 16

// ForkedError means that a device made two commits with one number, of which
// this device knows the one and whoever is named as Told by the other.
type ForkedError struct {
	Device string // label of the device with two histories
	Ctr    uint64 // number of the commit that exists twice
	Told   string // who shows the other one
	actor  tree.Actor
}

// Error says what to do about it.
func (e *ForkedError) Error() string {
	return fmt.Sprintf("%s made two different changes with the number %d, of which %s knows another than this device: was it restored from a copy, or is a copy of it in use? Nothing is taken over from %s", e.Device, e.Ctr, e.Told, e.Told)
}

// hashKey is the value of the database with the hash of a commit's manifest.
func hashKey(d tree.Dot) string {
	return string(binary.BigEndian.AppendUint64(append([]byte("hash"), d.Actor[:]...), d.Ctr))
}

// keepHash notes the hash of a commit, and forgets that of one long before.
func keepHash(tx *store.Tx, d tree.Dot, h manifest.Hash) {
	tx.SetValue(hashKey(d), h[:])
	if d.Ctr > mostHashes {
		tx.SetValue(hashKey(tree.Dot{Actor: d.Actor, Ctr: d.Ctr - mostHashes}), nil)
	}
}

// hashesBefore returns the hashes of the commits before the one of a manifest,
// at most so many, and none that follows one which is not known.
func (r *Replica) hashesBefore(encoded []byte, most int) ([]byte, error) {
	m, err := manifest.Decode(encoded)
	if err != nil {
		return nil, err
	}
	r.mu.RLock()
	defer r.mu.RUnlock()
	var all []manifest.Hash
	for ctr := m.Ctr - 1; ctr > 0 && len(all) < most; ctr-- {
		h, err := r.hashLocked(tree.Dot{Actor: m.Actor, Ctr: ctr})
		if err != nil {
			return nil, err
		}
		if h.IsZero() {
			break
		}
		all = append(all, h)
	}
	b := make([]byte, 0, 32*len(all))
	for _, h := range slices.Backward(all) {
		b = append(b, h[:]...)
	}
	return b, nil
}

// headsBefore gives such hashes their numbers. The last must be the one that the
// manifest names.
func headsBefore(m *manifest.Manifest, hashes []byte) ([]manifest.Head, error) {
	n := uint64(len(hashes) / 32)
	if n >= m.Ctr {
		return nil, fmt.Errorf("%w: %d commits before number %d", errMessage, n, m.Ctr)
	}
	heads := make([]manifest.Head, n)
	for i := range heads {
		heads[i] = manifest.Head{Actor: m.Actor, Ctr: m.Ctr - n + uint64(i), Hash: manifest.Hash(hashes[32*i:])}
	}
	if n > 0 && heads[n-1].Hash != m.CommitHash(m.Ctr-1) {
		return nil, fmt.Errorf("%w: hash of the commit before %d of %v", errMessage, m.Ctr, m.Device)
	}
	return heads, nil
}

// keepHashesLocked notes the hashes that came with a state, of commits that were
// not here.
func (r *Replica) keepHashesLocked(heads []manifest.Head) error {
	for part := range slices.Chunk(heads, 1000) {
		if err := r.st.Update(func(tx *store.Tx) error {
			for _, h := range part {
				if h.Ctr > r.vector[h.Actor] {
					keepHash(tx, tree.Dot{Actor: h.Actor, Ctr: h.Ctr}, h.Hash)
				}
			}
			return nil
		}); err != nil {
			return err
		}
	}
	return nil
}

// hashLocked returns the hash of a commit, or zeros if it is not here or not
// known any more.
func (r *Replica) hashLocked(d tree.Dot) (h manifest.Hash, err error) {
	if newest := r.heads[d.Actor]; newest.ctr == d.Ctr {
		return newest.hash, nil
	}
	if d.Ctr > r.vector[d.Actor] {
		return h, nil
	}
	b, err := r.st.Value(hashKey(d))
	if err != nil || b == nil {
		return h, err
	}
	if len(b) != len(h) {
		return h, fmt.Errorf("%w: hash of a commit", store.ErrDamaged)
	}
	return manifest.Hash(b), nil
}

// newest returns what may be told to peers: what is published and durable.
func (r *Replica) newest() ([]manifest.Head, error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	heads := make([]manifest.Head, 0, len(r.synced))
	for a, n := range r.synced {
		if n == 0 {
			continue
		}
		h, err := r.hashLocked(tree.Dot{Actor: a, Ctr: n})
		if err != nil {
			return nil, err
		}
		heads = append(heads, manifest.Head{Actor: a, Ctr: n, Hash: h})
	}
	slices.SortFunc(heads, func(a, b manifest.Head) int { return bytes.Compare(a.Actor[:], b.Actor[:]) })
	return heads, nil
}

// agreeLocked returns a [*ForkedError] if one of the commits that told names
// is another than the one that is known here.
func (r *Replica) agreeLocked(told device.ID, heads []manifest.Head) error {
	for _, h := range heads {
		known, err := r.hashLocked(tree.Dot{Actor: h.Actor, Ctr: h.Ctr})
		if err != nil {
			return err
		}
		if !known.IsZero() && !h.Hash.IsZero() && known != h.Hash {
			return r.forkedLocked(told, h.Actor, h.Ctr)
		}
	}
	return nil
}

func (r *Replica) forkedLocked(told device.ID, a tree.Actor, ctr uint64) *ForkedError {
	return &ForkedError{Device: r.label(a), Ctr: ctr, Told: r.name(told), actor: a}
}

// errApart ends what was being sent to a peer that turns out to know another history.
var errApart = errors.New("the peer knows another history")

// apart reports whether nothing is exchanged with a peer because of a fork.
func (s *sessions) apart(p *session) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return p.apart
}

// Fork returns why nothing is exchanged with a peer that is connected, or nil.
func (r *Replica) Fork(dev device.ID) *ForkedError {
	s := &r.sessions
	s.mu.Lock()
	defer s.mu.Unlock()
	if p, ok := s.live[dev]; ok && p.apart {
		return p.why
	}
	return nil
}

// heard takes the heads that a peer named in a hello or told, and what also notes
// of the rest of it in the same step: the session goes on with all of it at once.
func (r *Replica) heard(p *session, heads []manifest.Head, also func()) error {
	r.mu.RLock()
	err := r.agreeLocked(p.dev, heads)
	r.mu.RUnlock()
	fork, forked := errors.AsType[*ForkedError](err)
	switch {
	case forked:
		r.part(p, fork)
	case err != nil:
		return err
	}
	v := vectorOf(heads)
	var log [32]byte
	r.sessions.update(p, func() {
		also()
		log = p.log
		if p.theirs, p.offered, p.apart = v.Clone(), false, forked || p.accuses; forked {
			p.why = fork
		}
	})
	if forked {
		return nil // its word is about other commits than those known here
	}
	return r.word(p.dev, word{v, log})
}

// part ends the exchange with a peer that knows another history of some actor,
// until it says something else, and tells it.
func (r *Replica) part(p *session, fork *ForkedError) {
	b, err := r.st.Head(fork.actor)
	if err != nil {
		r.log.Warn("newest commit of a forked device", "device", fork.Device, "err", err)
	}
	s := &r.sessions
	news := false
	s.update(p, func() {
		if news = !p.apart; news {
			p.apart, p.fork, p.why = true, b, fork
		}
	})
	if err := r.disbelieve(p.dev, fork.actor); err != nil {
		r.log.Warn("word of a device about a forked one", "device", r.name(p.dev), "err", err)
	}
	if news {
		r.log.Error("one device has two histories", "device", fork.Device, "err", fork)
	}
}

// disbelieve takes back what a device said it knows of a forked one, which may be
// about other commits than those known here.
func (r *Replica) disbelieve(dev device.ID, a tree.Actor) error {
	r.words.mu.Lock()
	v := r.words.of[dev].knows.Clone()
	r.words.mu.Unlock()
	delete(v, a)
	return r.word(dev, word{knows: v})
}

// accused hears from a peer that it knows another history of some device than
// this one told it, with the newest commit that the peer has of it.
func (r *Replica) accused(p *session, encoded []byte) error {
	m, err := manifest.Decode(encoded)
	if err != nil {
		return err
	}
	if err := r.check(m, p.dev); err != nil {
		return err
	}
	if m.Flags&manifest.FlagCommit == 0 {
		return errMessage
	}
	r.mu.Lock()
	known, err := r.hashLocked(tree.Dot{Actor: m.Actor, Ctr: m.Ctr})
	fork := r.forkedLocked(p.dev, m.Actor, m.Ctr)
	if err == nil && m.Actor == r.cfg.Actor && known != m.Hash() && (!known.IsZero() || m.Ctr > r.vector[m.Actor]) {
		r.fenceLocked() // a copy of this device signed it
	}
	r.mu.Unlock()
	if err != nil || known == m.Hash() {
		return err // what is known here agrees with it
	}
	r.sessions.update(p, func() { p.accuses = true })
	r.part(p, fork)
	return nil
}
