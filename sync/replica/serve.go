package replica

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/roamfs/roamfs/sync/manifest"
	"github.com/roamfs/roamfs/sync/merkle"
	"github.com/roamfs/roamfs/sync/store"
	"github.com/roamfs/roamfs/sync/tree"
)

// serveIdle is how long a frozen state is kept for a peer that does not ask for
// more of it. Who walks it has given up before that.
const serveIdle = 2 * stateStall

// maxServed is for how many peers a state is frozen at once, at most. Each costs
// some 60 bytes for 32 inodes, and what the database keeps of the past.
const maxServed = 8

// served is a state frozen for a peer that walks it. The session's run alone
// uses it.
type served struct {
	n    uint32 // of the walk
	snap *store.Snapshot
	tree *merkle.Tree
	idle *time.Timer
}

// frozen closes the open batch and freezes and signs the state.
func (r *Replica) frozen() (v *served, begin []byte, err error) {
	m, heads, v, err := r.checkpoint()
	if err != nil {
		return nil, nil, err
	}
	if begin, err = r.begin(m, heads, v.tree.Top()); err != nil {
		v.snap.Release()
		return nil, nil, err
	}
	return v, begin, nil
}

// begin returns the message that begins a state.
func (r *Replica) begin(m *manifest.Manifest, heads [][]byte, top merkle.Ref) ([]byte, error) {
	told := make([]toldHead, 0, len(heads))
	for _, b := range heads {
		hashes, err := r.hashesBefore(b, maxHashes/len(heads))
		if err != nil {
			return nil, err
		}
		told = append(told, toldHead{b, hashes})
	}
	return encodeState(m.Encode(), told, top), nil
}

// serve freezes the state for a peer that wants it, and tells it the top.
func (s *sessions) serve(ctx context.Context, p *session) (again bool, err error) {
	s.letGo(p)
	s.mu.Lock()
	n := p.wanted
	room := s.serving < maxServed
	if room {
		s.serving++
	} else {
		p.wants = true // letGo wakes it
	}
	s.mu.Unlock()
	if !room {
		return false, nil
	}
	v, begin, err := s.r.frozen()
	if err != nil {
		s.served(nil)
		return false, err
	}
	v.n, v.idle, p.served = n, time.NewTimer(s.idle), v
	return true, p.transmit(ctx, ofWalk(n, begin))
}

// letGo ends the walk of a peer over a state of this device, if there is one.
func (s *sessions) letGo(p *session) {
	if p.served == nil {
		return
	}
	p.served.idle.Stop()
	p.served.snap.Release()
	p.served = nil
	s.served(p)
}

// served makes room for the walk of another peer than p.
func (s *sessions) served(p *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.serving--
	for _, q := range s.live {
		if q.wants && q != p {
			q.poke()
		}
	}
}

// asked is a question of a peer.
type asked struct {
	walk uint32
	refs []merkle.Ref
}

// left returns a channel that gets a value once a peer has not gone on with its
// walk for too long.
func (p *session) left() <-chan time.Time {
	if p.served == nil {
		return nil
	}
	return p.served.idle.C
}

// asked takes a question for nodes of the state that is frozen for a peer.
func (r *Replica) asked(p *session, n uint32, body []byte) error {
	refs, err := decodeAsk(body)
	if err != nil {
		return err
	}
	s := &r.sessions
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(p.asked) == maxAsks {
		return fmt.Errorf("%w: asks for more and more", errMessage)
	}
	p.asked = append(p.asked, asked{n, refs})
	p.poke()
	return nil
}

// answer sends a peer the nodes that it asked for.
func (s *sessions) answer(ctx context.Context, p *session, q asked) error {
	mine := p.served != nil && p.served.n == q.walk
	switch {
	case len(q.refs) == 0 && !mine:
		return nil
	case len(q.refs) == 0:
		s.letGo(p)
		return nil
	case !mine:
		return p.transmit(ctx, ofWalk(q.walk, []byte{msgPieces})) // it has to begin again
	}
	p.served.idle.Reset(s.idle)
	err := p.served.answer(q.refs, func(msg []byte) error {
		if s.apart(p) {
			return errApart
		}
		ctx, cancel := context.WithTimeout(ctx, s.idle)
		defer cancel()
		return p.transmit(ctx, ofWalk(q.walk, msg))
	})
	if err != nil {
		s.letGo(p)
	}
	if errors.Is(err, errApart) {
		return nil
	}
	return err
}

// answer sends the nodes of refs, in messages of pieces.
func (v *served) answer(refs []merkle.Ref, send func([]byte) error) error {
	a := answer{send: send}
	for len(refs) > 0 {
		if refs[0].Height > 0 {
			node, err := v.tree.Node(refs[0])
			if err != nil {
				return err
			}
			if err := a.put(node); err != nil {
				return err
			}
			refs = refs[1:]
			continue
		}
		n, err := v.leaves(refs, a.put)
		if err != nil {
			return err
		}
		refs = refs[n:]
	}
	return a.flush()
}

// leaves puts the leaves with which refs begin, as far as each follows the one
// before: they are read in one go. It returns how many they are.
func (v *served) leaves(refs []merkle.Ref, put func([]byte) error) (n int, err error) {
	from, to, err := v.tree.Leaf(refs[0])
	if err != nil {
		return 0, err
	}
	ends := [][]byte{to}
	for _, ref := range refs[1:] {
		if to == nil || ref.Height > 0 {
			break
		}
		next, end, err := v.tree.Leaf(ref)
		if err != nil {
			return 0, err
		}
		if !bytes.Equal(next, to) {
			break
		}
		ends, to = append(ends, end), end
	}
	var part []byte
	finish := func() error { // the leaf
		err := put(part)
		part, n = part[:0], n+1
		return err
	}
	if err := v.snap.Scan(from, to, func(rec tree.Record) error {
		for ends[n] != nil && string(rec.Key) >= string(ends[n]) {
			if err := finish(); err != nil {
				return err
			}
		}
		if part = tree.AppendRecord(part, rec); len(part) < partSize {
			return nil
		}
		err := put(part)
		part = part[:0]
		return err
	}); err != nil {
		return n, err
	}
	for n < len(ends) {
		if err := finish(); err != nil {
			return n, err
		}
	}
	return n, nil
}

// answer collects pieces for a message.
type answer struct {
	send func([]byte) error
	msg  []byte
	n    int // pieces in it
}

func (a *answer) put(piece []byte) error {
	size := len(binary.AppendUvarint(nil, uint64(len(piece)))) + len(piece)
	if a.n == maxRefs || a.n > 0 && len(a.msg)-1+size > partSize {
		if err := a.flush(); err != nil {
			return err
		}
	}
	if a.n == 0 {
		a.msg = append(a.msg, msgPieces)
	}
	a.msg = appendPiece(a.msg, piece)
	a.n++
	return nil
}

func (a *answer) flush() error {
	if a.n == 0 {
		return nil
	}
	msg := a.msg
	a.msg, a.n = nil, 0
	return a.send(msg)
}
