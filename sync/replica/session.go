package replica

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/roamfs/roamfs/peer/device"
	"github.com/roamfs/roamfs/sync/store"
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
	room    Room          // for that state, once there is some and it is asked for
	left    int64         // bytes of it that may still come; 0 as long as there is no room
	// resting are the devices whose state was of no use, and until when they are
	// not asked again.
	resting map[device.ID]time.Time
	rest    time.Duration // stateRest; tests are shorter

	serving int           // for how many peers a state is frozen
	idle    time.Duration // serveIdle; tests are shorter

	sizing sync.Mutex  // guards sized and size; taken alone
	sized  tree.Vector // what was known here when the state had size bytes
	size   uint64
}

// stateStall is how long the next part of a whole state is waited for.
const stateStall = time.Minute

// slowest is how many bytes of a state have to come in a second, on average, before
// that is taken for no answer.
const slowest = 1 << 10

// stateRest is how long a device is not asked for its state after that was
// refused.
const stateRest = time.Minute

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
	members  [32]byte    // its membership log, as far as it said or was sent
	log      [32]byte    // its membership log as it said
	told     tree.Vector // what the peer was told that this device knows
	hello    bool        // a hello is due
	offered  bool        // the peer was offered the whole state and has not answered
	wants    bool        // the peer asked for the whole state
	ask      bool        // ask the peer for its whole state
	walk     *walk       // over the state of the peer
	number   uint32      // of that walk, or of the last one
	wanted   uint32      // number of the walk for which the peer wants the state here
	merging  bool        // all of it is here and it is being joined
	asks     [][]byte    // messages of the walk that are to be sent
	asked    []asked     // what the peer asks for of the state here
	gap      gap
	apart    bool        // it knows another history of some device: nothing is exchanged
	accuses  bool        // it said so itself, and does not say so again in this session
	fork     []byte      // what to tell it of that
	holds    tree.Vector // what the peer holds back: commits up to it are not sent
	heldTold uint64      // version of what this device holds back that it was told
	why      *ForkedError

	long   *long   // used by the caller of Receive alone
	served *served // used by run alone
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

func (s *sessions) init(r *Replica) {
	s.r, s.live, s.stall, s.rest, s.idle = r, map[device.ID]*session{}, stateStall, stateRest, serveIdle
	s.resting = map[device.ID]time.Time{}
}

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
	p.quitLocked(errStale)
	if s.joining == p {
		s.giveUpLocked()
	}
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
	defer s.letGo(p)
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
		case <-p.left():
			s.letGo(p)
		}
	}
}

// step sends one message, or the answer to a question, and reports whether there may be more.
func (s *sessions) step(ctx context.Context, p *session) (again bool, err error) {
	r := s.r
	mine := r.known()
	members := r.cfg.Members.Hash()
	held, version := r.heldBack()

	s.mu.Lock()
	hold := p.heldTold != version
	p.heldTold = version
	theirs := p.theirs.Clone()
	if theirs != nil {
		theirs.Merge(p.holds)
	}
	greeted := p.theirs != nil
	var greet, tell, wants, ask bool // the first that is due
	var fork, question []byte
	var q asked
	var answer bool
	shut := r.shut(p.dev)
	switch {
	case shut: // it is told of that, and nothing else
		if tell = p.members != members; tell {
			p.members = members
		}
	case hold: // before the hello that the peer answers with what it has
	case p.hello:
		greet, p.hello, p.told = true, false, mine
	case !greeted:
	case p.members != members:
		tell, p.members = true, members // sent once; if the peer's log differs it says hello again
	case p.fork != nil:
		fork, p.fork = p.fork, nil
	case p.wants:
		wants, p.wants = true, false
	case p.ask:
		ask, p.ask = true, false
	case len(p.asks) > 0:
		question, p.asks = p.asks[0], p.asks[1:]
	case len(p.asked) > 0:
		answer, q, p.asked = true, p.asked[0], p.asked[1:]
	}
	offered, apart, number := p.offered, p.apart, p.number
	s.mu.Unlock()

	switch {
	case shut && !tell:
		return false, nil
	case hold && !shut:
		return true, p.transmit(ctx, appendHeads([]byte{msgHeld}, held))
	case greet:
		heads, err := r.newest()
		if err != nil || r.cfg.Members.Hash() != members { // what is said to be known, is known by these members
			s.update(p, func() { p.hello = true })
			return err == nil, err
		}
		h := hello{hive: r.cfg.Members.Hive(), members: members, heads: heads}
		return true, p.transmit(ctx, h.encode())
	case shut:
		if b := r.cfg.Members.Notice(p.dev); b != nil {
			return true, p.transmit(ctx, append([]byte{msgMembers}, b...))
		}
		return false, nil
	case !greeted:
		return false, nil
	case tell:
		return true, p.transmit(ctx, append([]byte{msgMembers}, r.cfg.Members.Encode()...))
	case fork != nil:
		return true, p.transmit(ctx, append([]byte{msgFork}, fork...))
	case apart:
		return false, nil // until it says something else
	case wants:
		return s.serve(ctx, p) // after an error the peer asks again
	case ask:
		return true, p.transmit(ctx, ofWalk(number, []byte{msgWant}))
	case question != nil:
		return true, p.transmit(ctx, question)
	case answer:
		return true, s.answer(ctx, p, q)
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
		size, err := s.stateSize(mine)
		if err != nil {
			s.update(p, func() { p.offered = false })
			return false, err
		}
		return true, p.transmit(ctx, encodeOffer(size))
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
		if err := p.commit(ctx, c); err != nil {
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
		if n := mine[r.cfg.Actor]; p.told != nil && n > 0 {
			p.told = p.told.Clone()
			p.told[r.cfg.Actor] = n // the commits said so, and of nothing else
		}
		s.mu.Unlock()
		return true, nil
	}
	s.mu.Lock()
	due := p.told == nil || !p.told.Equal(mine)
	p.told = mine
	s.mu.Unlock()
	if due {
		heads, err := r.newest()
		if err != nil || r.cfg.Members.Hash() != members { // the members come first
			s.update(p, func() { p.told = nil })
			return err == nil, err
		}
		return true, p.transmit(ctx, appendHeads([]byte{msgTold}, heads))
	}
	return false, nil
}

// commit sends a commit, in pieces if it is long.
func (p *session) commit(ctx context.Context, c store.Commit) error {
	piece, rest := c.Delta[:min(len(c.Delta), pieceSize)], c.Delta
	if err := p.transmit(ctx, encodeCommit(c.Manifest, piece)); err != nil {
		return err
	}
	for len(piece) == pieceSize {
		rest = rest[pieceSize:]
		piece = rest[:min(len(rest), pieceSize)]
		if err := p.transmit(ctx, append([]byte{msgMore}, piece...)); err != nil {
			return err
		}
	}
	return nil
}

// known returns the vector of what may be told to peers: published and durable.
func (r *Replica) known() tree.Vector {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.synced.Clone()
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
