package replica

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/roamfs/roamfs/peer/device"
	"github.com/roamfs/roamfs/sync/manifest"
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
	members  [32]byte    // its membership log
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

// long is a commit whose delta comes in pieces.
type long struct {
	manifest []byte
	delta    []byte // so far
	left     uint64 // bytes that are still to come
	skip     bool   // of a stranger: the pieces are dropped as they come
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

// quitLocked ends the walk over the state of p.
func (p *session) quitLocked(why error) (w *walk) {
	if w = p.walk; w != nil {
		w.cancel(why)
		p.asks = [][]byte{ofWalk(p.number, encodeAsk(nil))} // it need not be kept for us
		p.poke()
	}
	p.walk, p.merging, p.ask = nil, false, false
	return w
}

// giveUpLocked waits no longer for the state that is being received: whoever
// still has more than we do will offer it again.
func (s *sessions) giveUpLocked() {
	s.joinedLocked()
	for _, q := range s.live {
		q.hello = true
		q.poke()
	}
}

// joinedLocked ends the wait for a state, and gives back the room for it.
func (s *sessions) joinedLocked() {
	s.joining, s.left = nil, 0
	s.watch.Stop()
	if s.room != nil {
		s.room.Release()
		s.room = nil
	}
}

// join begins to wait for the whole state of p, unless that of another peer is
// on its way, or p is not to be asked now.
func (s *sessions) join(p *session) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.joining != nil || p.apart || s.live[p.dev] != p || time.Now().Before(s.resting[p.dev]) {
		return false
	}
	s.joining, s.at = p, time.Now()
	s.watch = time.AfterFunc(s.stall, func() { s.look(p) })
	return true
}

// ask asks p for its state, for which there is room and of which up to limit
// bytes are taken.
func (s *sessions) ask(p *session, room Room, limit int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.joining != p {
		room.Release()
		return
	}
	s.at, s.room, s.left, p.ask, p.asks = time.Now(), room, limit, true, nil
	p.number++
	p.poke()
}

// refuse ends the walk over the state of p, which is of no use, or for which there
// is no room. Others are asked, and p not before a while has passed.
func (s *sessions) refuse(p *session, why error) (w *walk) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w = p.quitLocked(why)
	if s.joining == p {
		s.giveUpLocked()
	}
	s.resting[p.dev] = time.Now().Add(s.rest)
	time.AfterFunc(s.rest, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if q, ok := s.live[p.dev]; ok {
			q.hello = true // so that it offers its state again
			q.poke()
		}
	})
	return w
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
	p.quitLocked(errStale)
	s.giveUpLocked()
}

// goesOn notes that n bytes more of the state of p came, and returns the walk over
// it, if that has begun.
func (s *sessions) goesOn(p *session, n int) (*walk, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.joining != p:
		return nil, errStale
	case int64(n) > s.left:
		return nil, errors.New("more of a whole state than was offered and asked for")
	}
	// Whoever sends little at a time does not hold up others for long.
	s.at = s.at.Add(time.Duration(n) * time.Second / slowest)
	if now := time.Now(); s.at.After(now) {
		s.at = now
	}
	s.left -= int64(n)
	s.room.Shrink(int64(n)) // it is going to be on the disk
	return p.walk, nil
}

// begin notes that all of the state of p is here.
func (s *sessions) begin(p *session, w *walk) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.joining != p || p.walk != w {
		return false
	}
	p.merging = true
	return true
}

// goOn notes that not all of the state of p is here after all.
func (s *sessions) goOn(p *session, w *walk) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.joining == p && p.walk == w {
		p.merging, s.at = false, time.Now()
	}
}

// joined notes that the state of p is joined.
func (s *sessions) joined(p *session, w *walk) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.walk != w {
		return // it was given up at the last moment
	}
	p.quitLocked(nil)
	if s.joining == p {
		s.giveUpLocked() // and look whether others know still more
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
		if err != nil {
			s.update(p, func() { p.hello = true })
			return false, err
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
		if err != nil {
			s.update(p, func() { p.told = nil })
			return false, err
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
		return r.heard(p, h.heads, func() { p.members, p.told = h.members, nil })
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
