package replica

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/roamfs/roamfs/peer/device"
	"github.com/roamfs/roamfs/sync/tree"
)

// forwardDelay is how long a commit of a third device waits before it is passed
// on: its author is probably telling that peer itself.
const forwardDelay = 300 * time.Millisecond

// sessions are the peers that are connected. Its mutex guards all fields of it
// and of each session, and is never held during a send.
type sessions struct {
	r      *Replica
	mu     sync.Mutex
	live   map[device.ID]*session
	closed bool
	done   sync.WaitGroup
	// joining is the peer whose whole state is being received, if any, and at
	// when it was last heard of. Another is asked if it takes too long.
	joining *session
	at      time.Time
	stall   time.Duration // stateStall; tests are shorter
	watch   *time.Timer   // while joining
}

// stateStall is how long the next part of a whole state is waited for.
const stateStall = time.Minute

// A gap that does not close is asked about again after gapMin, twice as long
// each time, up to gapMax.
const (
	gapMin = time.Second
	gapMax = time.Minute
)

// retryPause is how long a session waits after a failure on this side.
const retryPause = time.Second

// errSend means that a message could not be sent: the peer is gone.
var errSend = errors.New("not sent")

// session is the exchange with one peer from connect to disconnect. Its
// goroutine sends; received messages are handled by the caller of Receive.
type session struct {
	dev    device.ID
	send   func(context.Context, []byte) error
	cancel context.CancelFunc
	kick   chan struct{} // 1: look again what to send

	theirs   tree.Vector // what the peer knows; nil until it said hello
	members  [32]byte    // its membership log
	told     tree.Vector // what the peer was told that this device knows
	hello    bool        // a hello is due
	offered  bool        // the peer was offered the whole state and has not answered
	wants    bool        // the peer asked for the whole state
	ask      bool        // ask the peer for its whole state
	incoming *incoming   // the state that is being received
	merging  bool        // all of it is here and it is being joined
	gap      gap
}

// gap is what was here when a peer was last told so because one of its commits
// builds on something else.
type gap struct {
	vector  tree.Vector
	members [32]byte
	pause   time.Duration
	timer   *time.Timer // until it is told again, if not nil
}

// transmit sends a message.
func (p *session) transmit(ctx context.Context, msg []byte) error {
	if err := p.send(ctx, msg); err != nil {
		return fmt.Errorf("%w: %w", errSend, err)
	}
	return nil
}

func (s *sessions) init(r *Replica) { s.r, s.live, s.stall = r, map[device.ID]*session{}, stateStall }

// Connected starts the exchange with a peer. send transmits one message, in
// order, and may block; it fails once the peer is gone.
func (r *Replica) Connected(dev device.ID, send func(context.Context, []byte) error) {
	s := &r.sessions
	r.Disconnected(dev)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	p := &session{dev: dev, send: send, cancel: cancel, kick: make(chan struct{}, 1), hello: true}
	s.live[dev] = p
	p.poke()
	s.done.Go(func() { s.run(ctx, p) })
}

// Disconnected ends the exchange with a peer.
func (r *Replica) Disconnected(dev device.ID) {
	s := &r.sessions
	s.mu.Lock()
	defer s.mu.Unlock()
	if p, ok := s.live[dev]; ok {
		delete(s.live, dev)
		s.dropLocked(p)
	}
}

// dropLocked ends a session and what it was receiving; another peer is asked
// for the state instead.
func (s *sessions) dropLocked(p *session) {
	p.cancel()
	if p.gap.timer != nil {
		p.gap.timer.Stop()
	}
	p.incoming.abandon(s.joining == p)
	if s.joining == p {
		s.giveUpLocked()
	}
}

// giveUpLocked waits no longer for the state that is being received: whoever
// still has more than we do will offer it again.
func (s *sessions) giveUpLocked() {
	s.joining = nil
	s.watch.Stop()
	for _, q := range s.live {
		q.hello = true
		q.poke()
	}
}

// join begins to wait for the whole state of p, unless that of another peer is
// on its way.
func (s *sessions) joinLocked(p *session) {
	if s.joining != nil {
		return
	}
	s.joining, s.at, p.ask = p, time.Now(), true
	if s.watch != nil {
		s.watch.Stop()
	}
	s.watch = time.AfterFunc(s.stall, func() { s.look(p) })
}

// look gives up the state of p if it has stalled.
func (s *sessions) look(p *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.joining != p || s.closed {
		return
	}
	if left := s.stall - time.Since(s.at); left > 0 || p.merging {
		s.watch = time.AfterFunc(max(left, s.stall/4), func() { s.look(p) })
		return
	}
	s.r.log.Warn("a device does not go on sending its tree", "device", s.r.name(p.dev))
	p.ask = false
	s.giveUpLocked()
}

// heard notes that the state of p goes on. It is false if nobody waits for it.
func (s *sessions) heard(p *session) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.joining != p {
		return false
	}
	s.at = time.Now()
	return true
}

// begin notes that all of the state of p is here.
func (s *sessions) begin(p *session) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	p.merging = s.joining == p
	return p.merging
}

func (s *sessions) closeAll() {
	s.mu.Lock()
	s.closed = true
	for dev, p := range s.live {
		delete(s.live, dev)
		s.dropLocked(p)
	}
	s.mu.Unlock()
	s.done.Wait()
}

func (p *session) poke() {
	select {
	case p.kick <- struct{}{}:
	default:
	}
}

// kickAll makes every session look for something to send, after a delay if d > 0.
func (s *sessions) kickAll(d time.Duration) {
	if d > 0 {
		time.AfterFunc(d, func() { s.kickAll(0) })
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.live {
		p.poke()
	}
}

// run sends what the peer lacks, as long as there is something, and then waits.
func (s *sessions) run(ctx context.Context, p *session) {
	for {
		again, err := s.step(ctx, p)
		if ctx.Err() != nil {
			return
		}
		if errors.Is(err, errSend) {
			s.r.log.Debug("sync with peer", "device", s.r.name(p.dev), "err", err)
			return // the transport ends the session or connects anew
		}
		if err != nil {
			s.r.log.Warn("sync with peer", "device", s.r.name(p.dev), "err", err)
			select { // the peer is there all the same
			case <-ctx.Done():
				return
			case <-time.After(retryPause):
			}
			continue
		}
		if again {
			continue
		}
		select {
		case <-ctx.Done():
			return
		case <-p.kick:
		}
	}
}

// step sends one message, or one whole state, and reports whether there may be more.
func (s *sessions) step(ctx context.Context, p *session) (again bool, err error) {
	r := s.r
	mine := r.known()
	members := r.cfg.Members.Hash()

	s.mu.Lock()
	theirs := p.theirs.Clone()
	greeted := p.theirs != nil
	var greet, tell, wants, ask bool // the first that is due
	switch {
	case p.hello:
		greet, p.hello, p.told = true, false, mine
	case !greeted:
	case p.members != members:
		tell, p.members = true, members // sent once; if the peer's log differs it says hello again
	case p.wants:
		wants, p.wants = true, false
	case p.ask:
		ask, p.ask = true, false
	}
	offered := p.offered
	s.mu.Unlock()

	switch {
	case greet:
		_, state, err := r.State()
		if err != nil {
			s.update(p, func() { p.hello = true })
			return false, err
		}
		h := hello{hive: r.cfg.Members.Hive(), members: members, state: state, vector: mine}
		return true, p.transmit(ctx, h.encode())
	case !greeted:
		return false, nil
	case tell:
		return true, p.transmit(ctx, append([]byte{msgMembers}, r.cfg.Members.Encode()...))
	case wants:
		err := r.sendState(ctx, p)
		if err != nil { // from the begin again
			s.update(p, func() { p.wants = true })
		}
		return true, err
	case ask:
		return true, p.transmit(ctx, []byte{msgWant})
	case offered:
		return false, nil // its vector says what to do next
	}

	r.mu.RLock()
	lack, ok := r.commits.lacking(mine, theirs)
	r.mu.RUnlock()
	if !ok {
		s.mu.Lock()
		p.offered = true
		s.mu.Unlock()
		return true, p.transmit(ctx, []byte{msgOffer})
	}
	for _, k := range lack {
		c, err := r.st.Commit(k.Seq)
		if err != nil {
			r.mu.RLock()
			kept := r.commits.kept(k)
			r.mu.RUnlock()
			if !kept {
				return true, nil // given up meanwhile for newer ones
			}
			return false, err
		}
		if err := p.transmit(ctx, encodeCommit(c.Manifest, c.Delta)); err != nil {
			return false, err
		}
		s.mu.Lock()
		if p.theirs != nil && p.theirs[c.Actor] < c.Ctr {
			p.theirs[c.Actor] = c.Ctr
		}
		s.mu.Unlock()
	}
	if len(lack) > 0 {
		s.mu.Lock()
		p.told = mine // the commits said so
		s.mu.Unlock()
		return true, nil
	}
	s.mu.Lock()
	due := p.told == nil || !p.told.Equal(mine)
	p.told = mine
	s.mu.Unlock()
	if due {
		return true, p.transmit(ctx, mine.Append([]byte{msgTold}))
	}
	return false, nil
}

// known returns the vector of what may be told to peers: published and durable.
func (r *Replica) known() tree.Vector {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.synced.Clone()
}

// Receive handles one message of a connected peer. Messages of one peer come
// one at a time, in order. An error means that the peer sent what it must not.
func (r *Replica) Receive(_ context.Context, dev device.ID, msg []byte) error {
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
	err := r.receive(p, msg[0], msg[1:])
	if err != nil {
		return fmt.Errorf("message %d from %s: %w", msg[0], r.name(dev), err)
	}
	return nil
}

func (r *Replica) receive(p *session, kind byte, body []byte) error {
	s := &r.sessions
	switch kind {
	case msgHello:
		h, err := decodeHello(body)
		if err != nil {
			return err
		}
		if h.hive != r.cfg.Members.Hive() {
			return fmt.Errorf("hello from another hive")
		}
		s.update(p, func() {
			p.theirs, p.members, p.offered = h.vector.Clone(), h.members, false
			p.told = nil
		})
		return r.word(p.dev, h.vector)
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
		dot, err := r.adopt(m, delta)
		switch {
		case errors.Is(err, errGap), errors.Is(err, errStranger):
			r.gap(p)
			return nil
		case err != nil:
			return err
		}
		s.update(p, func() {
			if p.theirs != nil && p.theirs[dot.Actor] < dot.Ctr {
				p.theirs[dot.Actor] = dot.Ctr
			}
		})
		r.sessions.kickAll(forwardDelay)
		r.wake() // the next publish makes it durable, and so fit to be passed on
	case msgTold:
		v, err := decodeVector(body)
		if err != nil {
			return err
		}
		s.update(p, func() { p.theirs, p.offered = v.Clone(), false })
		return r.word(p.dev, v)
	case msgOffer:
		s.update(p, func() { s.joinLocked(p) })
	case msgWant:
		s.update(p, func() { p.wants = true })
	case msgState:
		return r.stateBegin(p, body)
	case msgPart:
		return r.statePart(p, body)
	case msgEnd:
		return r.stateEnd(p)
	default:
		return fmt.Errorf("%w: kind %d", errMessage, kind)
	}
	return nil
}

// gap asks a peer for what is missing by saying what is here: at once if that
// is news, else after a while, so that what cannot be had does not keep two
// devices busy. While a whole state is on its way, the end of it does that.
func (r *Replica) gap(p *session) {
	mine, members := r.known(), r.cfg.Members.Hash()
	s := &r.sessions
	s.mu.Lock()
	defer s.mu.Unlock()
	g := &p.gap
	switch {
	case s.joining != nil:
	case g.vector == nil || !g.vector.Equal(mine) || g.members != members:
		g.vector, g.members, g.pause = mine, members, gapMin
		p.hello = true
		p.poke()
	case g.timer == nil && s.live[p.dev] == p:
		g.timer = time.AfterFunc(g.pause, func() {
			s.update(p, func() { p.hello, g.timer = true, nil })
		})
		g.pause = min(2*g.pause, gapMax)
	}
}

// update changes a session's fields and wakes it.
func (s *sessions) update(p *session, fn func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fn()
	p.poke()
}
