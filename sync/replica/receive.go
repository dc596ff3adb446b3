package replica

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/roamfs/roamfs/peer/device"
	"github.com/roamfs/roamfs/sync/manifest"
)

// long is a commit whose delta comes in pieces.
type long struct {
	manifest []byte
	delta    []byte // so far
	left     uint64 // bytes that are still to come
	skip     bool   // of a stranger: the pieces are dropped as they come
}

// Receive handles one message of a connected peer. Messages of one peer come
// one at a time, in order. An error means that the peer sent what it must not.
func (r *Replica) Receive(ctx context.Context, dev device.ID, msg []byte) error {
	s := &r.sessions
	s.mu.Lock()
	p := s.live[dev]
	s.mu.Unlock()
	if p == nil {
		return nil // it has just been disconnected
	}
	if len(msg) == 0 {
		return errMessage
	}
	err := r.receive(ctx, p, msg[0], msg[1:])
	if err != nil {
		return fmt.Errorf("message %d from %s: %w", msg[0], r.name(dev), err)
	}
	return nil
}

func (r *Replica) receive(ctx context.Context, p *session, kind byte, body []byte) error {
	s := &r.sessions
	if (kind == msgMore) != (p.long != nil) {
		return fmt.Errorf("%w: a delta cut off, or the end of none", errMessage)
	}
	if r.shut(p.dev) && !heardOfFormer(kind) {
		return nil // what it sent before it heard of its revocation
	}
	switch kind {
	case msgHello:
		h, err := decodeHello(body)
		if err != nil {
			return err
		}
		if h.hive != r.cfg.Members.Hive() {
			return fmt.Errorf("hello from another hive")
		}
		return r.heard(p, h.heads, func() { p.members, p.log, p.told = h.members, h.members, nil })
	case msgMembers:
		if len(body) > maxMembers {
			return errMessage
		}
		return r.mergeMembers(p.dev, body)
	case msgCommit:
		m, delta, err := decodeCommit(body)
		if err != nil {
			return err
		}
		if len(delta) == pieceSize {
			p.long, err = r.begun(p, m, delta)
			return err
		}
		return r.pushed(p, m, delta)
	case msgMore:
		return r.more(p, body)
	case msgTold:
		heads, err := decodeHeads(body)
		if err != nil {
			return err
		}
		return r.heard(p, heads, func() {})
	case msgFork:
		return r.accused(p, body)
	case msgHeld:
		heads, err := decodeHeads(body)
		if err != nil {
			return err
		}
		s.update(p, func() { p.holds, p.offered = vectorOf(heads), false })
	case msgOffer:
		size, err := decodeOffer(body)
		if err != nil {
			return err
		}
		r.offered(ctx, p, size)
	case msgWant, msgAsk, msgState, msgPieces:
		return r.walked(p, kind, body)
	default:
		return fmt.Errorf("%w: kind %d", errMessage, kind)
	}
	return nil
}

// walked takes a message of a walk, over the state here or over that of the peer.
func (r *Replica) walked(p *session, kind byte, body []byte) error {
	n, body, err := walkOf(body)
	if err != nil {
		return err
	}
	s := &r.sessions
	switch kind {
	case msgWant:
		s.update(p, func() { p.wants, p.wanted, p.asked = true, n, nil })
		return nil
	case msgAsk:
		return r.asked(p, n, body)
	}
	s.mu.Lock()
	current := n == p.number
	s.mu.Unlock()
	if !current {
		return nil // it was given up
	}
	return r.state(p, kind, body)
}

// begun takes the first piece of a long delta. What is kept of it in memory is
// what a member has signed, and at most [manifest.MaxDelta].
func (r *Replica) begun(p *session, encoded, piece []byte) (*long, error) {
	m, err := manifest.Decode(encoded)
	if err != nil {
		return nil, err
	}
	if m.DeltaLen < uint64(len(piece)) {
		return nil, fmt.Errorf("%w: delta longer than was signed", errMessage)
	}
	l := &long{manifest: slices.Clone(encoded), left: m.DeltaLen - uint64(len(piece))}
	if err := r.check(m, p.dev); errors.Is(err, errStranger) || errors.Is(err, errHeldBack) {
		l.skip = true
		return l, nil
	} else if err != nil {
		return nil, err
	}
	l.delta = append(make([]byte, 0, m.DeltaLen), piece...)
	return l, nil
}

// more takes the next piece of a long delta.
func (r *Replica) more(p *session, piece []byte) error {
	l := p.long
	if uint64(len(piece)) != min(l.left, pieceSize) {
		return fmt.Errorf("%w: piece of %d bytes where %d were left", errMessage, len(piece), l.left)
	}
	l.left -= uint64(len(piece))
	if !l.skip {
		l.delta = append(l.delta, piece...)
	}
	if len(piece) == pieceSize {
		return nil
	}
	p.long = nil
	if l.skip {
		r.gap(p)
		return nil
	}
	return r.pushed(p, l.manifest, l.delta)
}

// pushed takes a commit of a peer.
func (r *Replica) pushed(p *session, m, delta []byte) error {
	s := &r.sessions
	if s.apart(p) {
		return nil
	}
	dot, err := r.adoptFrom(p.dev, m, delta)
	if fork, ok := errors.AsType[*ForkedError](err); ok {
		fork.Told = r.name(p.dev)
		r.part(p, fork)
		return nil
	}
	switch {
	case errors.Is(err, errHeld):
		s.kickAll(0) // to tell the peers
		return nil
	case errors.Is(err, errGap), errors.Is(err, errStranger):
		r.gap(p)
		return nil
	case errors.Is(err, errHeldBack):
		return nil // noted
	case errors.Is(err, ErrOldCopy):
		return nil // which is no fault of the peer: it would only come again with the same
	case err != nil:
		return err
	}
	s.update(p, func() {
		if p.theirs != nil && p.theirs[dot.Actor] < dot.Ctr {
			p.theirs[dot.Actor] = dot.Ctr
		}
	})
	s.kickAll(forwardDelay)
	r.wake() // the next publish makes it durable, and so fit to be passed on
	return nil
}
