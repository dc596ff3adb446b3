package replica

import (
	"errors"
	"fmt"
	"sync"

	"github.com/roamfs/roamfs/sync/merkle"
	"github.com/roamfs/roamfs/sync/store"
	"github.com/roamfs/roamfs/sync/tree"
)

// spans is the Merkle tree over the records. It is brought up to date when a
// root is wanted; until then the inodes that have changed are only noted.
type spans struct {
	touched map[tree.Ino]struct{} // since tree was brought up to date; Replica.mu guards it

	mu   sync.Mutex // taken inside Replica.mu, and kept without it by prepareRoot
	tree *merkle.Tree
}

// takeLocked passes what was touched to the tree, whose mu is held as well.
func (s *spans) takeLocked() {
	for ino := range s.touched {
		s.tree.Touch(ino)
	}
	clear(s.touched)
}

// touchSpans notes which inodes a change is about.
func (r *Replica) touchSpans(ch tree.Change) {
	for i := range ch.Put {
		r.spans.touched[ch.Put[i].Key.Ino()] = struct{}{}
	}
	for i := range ch.Drop {
		r.spans.touched[ch.Drop[i].Key.Ino()] = struct{}{}
	}
}

// prepareRoot reads what the root of the present records is made of, so that
// the next rootLocked has little left to read: that one holds up every operation.
func (r *Replica) prepareRoot() error {
	r.mu.Lock()
	s := &r.spans
	s.mu.Lock()
	defer s.mu.Unlock()
	s.takeLocked()
	snap := r.st.Snapshot()
	r.mu.Unlock()
	defer snap.Release()
	if _, err := s.tree.Root(source{snap}); err != nil && !errors.Is(err, merkle.ErrStale) { // rootLocked sees to that
		return fmt.Errorf("root: %w", err)
	}
	return nil
}

// rootLocked returns the root over the present records, those of the open batch
// included. It needs mu for writing.
func (r *Replica) rootLocked() (root merkle.Hash, err error) {
	s := &r.spans
	s.mu.Lock()
	defer s.mu.Unlock()
	s.takeLocked()
	snap := r.st.Snapshot()
	defer snap.Release()
	root, err = s.tree.Root(source{snap})
	if errors.Is(err, merkle.ErrStale) {
		r.log.Warn("merkle spans are stale, building them anew")
		var anew *merkle.Tree
		if anew, err = merkle.Build(r.cfg.Spread, source{snap}); err == nil {
			s.tree = anew
			root, err = anew.Root(source{snap})
		}
	}
	if err != nil {
		return root, fmt.Errorf("root: %w", err)
	}
	return root, nil
}

// ownUnsound returns [errOvertaken] if the own tree was not that of the records
// here, which it is now, and else the error.
func (r *Replica) ownUnsound(err error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	was, fail := r.rootLocked()
	if fail != nil {
		return fail
	}
	snap := r.st.Snapshot()
	defer snap.Release()
	anew, fail := merkle.Build(r.cfg.Spread, source{snap})
	if fail != nil {
		return fail
	}
	if anew.Top().Hash == was {
		return err
	}
	r.log.Warn("merkle spans are wrong, building them anew")
	r.spans.mu.Lock()
	defer r.spans.mu.Unlock()
	r.spans.tree = anew
	return errOvertaken
}

// source lets the Merkle tree read the records of a snapshot.
type source struct{ *store.Snapshot }

// Scan implements [merkle.Source].
func (s source) Scan(from, to []byte, fn func(merkle.Entry) error) error {
	return s.Snapshot.Scan(from, to, func(r tree.Record) error {
		return fn(entryOf(r))
	})
}

// entryOf is how a record enters the Merkle tree: its key, and its dot and
// value in one.
func entryOf(r tree.Record) merkle.Entry {
	v := make([]byte, 0, 16+len(r.Value))
	v = append(v, r.Dot.Actor[:]...)
	for s := 56; s >= 0; s -= 8 {
		v = append(v, byte(r.Dot.Ctr>>s))
	}
	return merkle.Entry{Key: []byte(r.Key), Value: append(v, r.Value...)}
}
