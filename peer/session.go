package peer

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/roamfs/roamfs/peer/device"
	"github.com/roamfs/roamfs/peer/wire"
	"github.com/roamfs/roamfs/sync/block"
)

const (
	helloTimeout = 10 * time.Second
	reopenMin    = 50 * time.Millisecond
	reopenMax    = 5 * time.Second
	writePiece   = 64 << 10 // of a frame, that must get through within writeStall
	maxWork      = 8        // questions of a peer that are worked on or wait
)

// session is one control stream with one peer, from HELLO to its end. There is
// at most one to a peer.
type session struct {
	e     *Exchange
	p     *peer
	s     Stream
	hello wire.Hello // of the peer
	knows bool       // what the peer holds was known when the session began, or is being told
	out   *outbox
	have  chan wire.HaveQuery // to answer
	keep  chan wire.KeepQuery // to answer; takes longer, so in a queue of its own
	ended chan struct{}       // closed by end

	mu    sync.Mutex
	err   error // why it ended; nil: it has not
	next  uint32
	haves map[uint32]chan []bool
	keeps map[wire.Nonce]chan []bool

	inbox   [][]byte // messages not yet delivered
	owed    int      // cost of those not yet given back
	arrived chan struct{}
}

// attend opens the control stream to a device whenever it is connected and there
// is none.
func (e *Exchange) attend(ctx context.Context, p *peer) {
	pause := reopenMin
	for ctx.Err() == nil {
		if !e.isConnected(p.dev) {
			select {
			case <-p.wake:
				pause = reopenMin
				continue
			case <-ctx.Done():
				return
			}
		}
		began := time.Now()
		s, err := e.cfg.Host.Open(ctx, p.dev, wire.ControlProtocol)
		if err == nil {
			err = e.control(ctx, p, s)
		}
		e.log.Debug("session ended", "device", p.dev.Short(), "err", err)
		if time.Since(began) > reopenMax {
			pause = reopenMin
		}
		if !sleep(ctx, pause) {
			return
		}
		pause = min(2*pause, reopenMax)
	}
}

func (e *Exchange) isConnected(dev device.ID) bool {
	for _, d := range e.cfg.Host.Connected() {
		if d == dev {
			return true
		}
	}
	return false
}

// serveControl takes a control stream that a peer has opened.
func (e *Exchange) serveControl(ctx context.Context, dev device.ID, s Stream) {
	ctx, done, ok := e.begin(ctx)
	if !ok || e.cfg.Self.Compare(dev) <= 0 { // it is ours to open
		_ = s.Reset()
		if ok {
			done()
		}
		return
	}
	defer done()
	err := e.control(ctx, e.peer(dev), s)
	e.log.Debug("session ended", "device", dev.Short(), "err", err)
}

// control runs a session on s until it ends. The one before it ends first.
func (e *Exchange) control(ctx context.Context, p *peer, s Stream) error {
	defer func() { _ = s.Reset() }()
	if old := p.session(); old != nil {
		old.end(errors.New("a new session has begun"))
	}
	select {
	case p.turn <- struct{}{}:
		defer func() { <-p.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	ss := &session{
		e: e, p: p, s: s, out: newOutbox(),
		have: make(chan wire.HaveQuery, maxWork), keep: make(chan wire.KeepQuery, maxWork),
		ended: make(chan struct{}),
		haves: make(map[uint32]chan []bool), keeps: make(map[wire.Nonce]chan []bool),
		arrived: make(chan struct{}, 1),
	}
	defer context.AfterFunc(ctx, func() { ss.end(ctx.Err()) })()
	r := wire.NewReader(s, wire.ControlLimits, frameStall)
	if err := ss.greet(r); err != nil {
		ss.end(err)
		return err
	}
	return ss.run(ctx, r)
}

// greet exchanges HELLOs.
func (ss *session) greet(r *wire.Reader) error {
	over := time.AfterFunc(helloTimeout, func() { ss.end(errors.New("no HELLO in time")) })
	defer over.Stop()
	known, _, err := ss.e.known(ss.p.dev)
	if err != nil {
		return err
	}
	ss.knows = known.Epoch != 0
	hello := wire.Hello{Version: wire.Version, Epoch: ss.e.ledger.epoch, Known: known}
	if err := ss.write(wire.Append(nil, hello)); err != nil {
		return err
	}
	m, err := r.Message()
	if err != nil {
		return err
	}
	theirs, ok := m.(wire.Hello)
	if !ok {
		return fmt.Errorf("%w: %v before HELLO", wire.ErrMessage, m.Type())
	}
	theirs.More = nil
	ss.hello = theirs
	return nil
}

// run does all that belongs to a session, until it ends.
func (ss *session) run(ctx context.Context, r *wire.Reader) error {
	e, dev := ss.e, ss.p.dev
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ss.p.mu.Lock()
	ss.p.current = ss
	ss.p.mu.Unlock()
	e.stirred()
	var wg sync.WaitGroup
	part := func(f func(context.Context) error) {
		wg.Go(func() { ss.end(f(ctx)) })
	}
	part(ss.drain)
	if e.cfg.Sync != nil {
		e.cfg.Sync.Connected(dev, ss.send)
	}
	part(ss.deliver)
	part(ss.answerHave)
	part(ss.answerKeep)
	part(ss.tellHoldings)
	part(ss.tellAddrs)
	ss.end(ss.receive(r))
	cancel()
	wg.Wait()
	ss.p.mu.Lock()
	ss.p.current, ss.p.telling = nil, time.Time{}
	ss.p.mu.Unlock()
	if e.cfg.Sync != nil {
		e.cfg.Sync.Disconnected(dev)
	}
	e.stirred()
	ss.mu.Lock()
	defer ss.mu.Unlock()
	return ss.err
}

// stirred wakes fetches that wait for a device.
func (e *Exchange) stirred() {
	e.mu.Lock()
	defer e.mu.Unlock()
	close(e.changed)
	e.changed = make(chan struct{})
}

// end ends the session. Only the first reason is kept.
func (ss *session) end(err error) {
	if err == nil {
		err = errors.New("ended")
	}
	ss.mu.Lock()
	first := ss.err == nil
	if first {
		ss.err = err
		close(ss.ended)
	}
	ss.mu.Unlock()
	if first {
		ss.out.end(fmt.Errorf("%w: %w", ErrNotConnected, err))
		_ = ss.s.Reset()
	}
}

// send sends a message of the layer above.
func (ss *session) send(ctx context.Context, msg []byte) error { return ss.out.send(ctx, msg) }

// drain writes what is in the outbox.
func (ss *session) drain(ctx context.Context) error {
	for {
		frame := ss.out.next()
		if frame == nil {
			select {
			case <-ss.out.more:
				continue
			case <-ss.ended:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if err := ss.write(frame); err != nil {
			return err
		}
	}
}

func (ss *session) write(frame []byte) error {
	for len(frame) > 0 {
		if err := ss.s.SetWriteDeadline(time.Now().Add(writeStall)); err != nil {
			return err
		}
		n := min(len(frame), writePiece)
		if _, err := ss.s.Write(frame[:n]); err != nil {
			return err
		}
		frame = frame[n:]
	}
	return nil
}

// receive takes what the peer sends. It never waits for anything else, so that
// two peers cannot wait for each other.
func (ss *session) receive(r *wire.Reader) error {
	for {
		m, err := r.Message()
		if err != nil {
			return err
		}
		switch m := m.(type) {
		case wire.Sync:
			err = ss.arrive(m.Bytes)
		case wire.Synced:
			err = ss.out.grant(int(m.Cost))
		case wire.HaveQuery:
			select {
			case ss.have <- m:
			default: // who asks so much gets no answer
			}
		case wire.KeepQuery:
			select {
			case ss.keep <- m:
			default:
			}
		case wire.Have:
			resolve(ss, ss.haves, m.Query, m.Bits)
		case wire.Keep:
			resolve(ss, ss.keeps, m.Nonce, m.Bits)
		case wire.Hold:
			err = ss.hear(m)
		case wire.Addrs:
			ss.e.learn(ss.p.dev, m)
		case wire.Unknown:
		default:
			err = fmt.Errorf("%w: %v out of place", wire.ErrMessage, m.Type())
		}
		if err != nil {
			return err
		}
	}
}

// arrive queues a message for delivery.
func (ss *session) arrive(msg []byte) error {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	if ss.owed += wire.SyncCost(len(msg)); ss.owed > wire.SyncWindow {
		return fmt.Errorf("%w: SYNC without credit", wire.ErrMessage)
	}
	ss.inbox = append(ss.inbox, append([]byte(nil), msg...))
	select {
	case ss.arrived <- struct{}{}:
	default:
	}
	return nil
}

// deliver hands messages to the layer above, in their order.
func (ss *session) deliver(ctx context.Context) error {
	for {
		ss.mu.Lock()
		var msg []byte
		if len(ss.inbox) > 0 {
			msg, ss.inbox = ss.inbox[0], ss.inbox[1:]
		}
		ss.mu.Unlock()
		if msg == nil {
			select {
			case <-ss.arrived:
				continue
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		cost := wire.SyncCost(len(msg))
		if ss.e.cfg.Sync != nil {
			if err := ss.e.cfg.Sync.Receive(ctx, ss.p.dev, msg); err != nil {
				return fmt.Errorf("receive: %w", err)
			}
		}
		ss.mu.Lock()
		ss.owed -= cost
		ss.mu.Unlock()
		if err := ss.out.put(wire.Synced{Cost: uint32(cost)}); err != nil {
			return err
		}
	}
}

// answerHave answers HAVE?.
func (ss *session) answerHave(ctx context.Context) error {
	for {
		select {
		case m := <-ss.have:
			bits := make([]bool, len(m.IDs))
			for i, id := range m.IDs {
				bits[i] = ss.e.cfg.Blocks.Has(id)
			}
			if err := ss.out.put(wire.Have{Query: m.Query, Bits: bits}); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// answerKeep answers KEEP?.
func (ss *session) answerKeep(ctx context.Context) error {
	for {
		select {
		case m := <-ss.keep:
			bits := make([]bool, len(m.IDs))
			if ss.e.role(ss.p.dev) != device.Archive { // whose word others rely on: it must not drop
				bits = ss.e.keep(ctx, m.IDs)
			}
			if err := ss.out.put(wire.Keep{Nonce: m.Nonce, Bits: bits}); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// resolve hands an answer to who waits for it.
func resolve[K comparable](ss *session, waiting map[K]chan []bool, k K, bits []bool) {
	ss.mu.Lock()
	ch := waiting[k]
	delete(waiting, k)
	ss.mu.Unlock()
	if ch != nil {
		ch <- bits // cap 1
	}
}

// ask sends a question of n ids, and waits for the answer.
func ask[K comparable](ctx context.Context, ss *session, waiting map[K]chan []bool, k K, m wire.Message, n int) ([]bool, error) {
	ch := make(chan []bool, 1)
	ss.mu.Lock()
	waiting[k] = ch
	ss.mu.Unlock()
	defer func() {
		ss.mu.Lock()
		delete(waiting, k)
		ss.mu.Unlock()
	}()
	if err := ss.out.put(m); err != nil {
		return nil, err
	}
	select {
	case bits := <-ch:
		if len(bits) != n {
			return nil, fmt.Errorf("%w: answer to %d of %d questions", wire.ErrMessage, len(bits), n)
		}
		return bits, nil
	case <-ss.ended:
		return nil, ErrNotConnected
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Ask asks a connected device which of ids it has now. If its session has not yet
// begun, Ask waits for that.
func (e *Exchange) Ask(ctx context.Context, dev device.ID, ids []block.ID) ([]bool, error) {
	bits := make([]bool, 0, len(ids))
	for len(ids) > 0 {
		n := min(len(ids), wire.MaxQuery)
		ss, err := e.awaitSession(ctx, dev)
		if err != nil {
			return nil, fmt.Errorf("ask %s: %w", e.label(dev), err)
		}
		ss.mu.Lock()
		ss.next++
		q := ss.next
		ss.mu.Unlock()
		got, err := ask(ctx, ss, ss.haves, q, wire.HaveQuery{Query: q, IDs: ids[:n]}, n)
		if err != nil {
			return nil, fmt.Errorf("ask %s: %w", e.label(dev), err)
		}
		bits = append(bits, got...)
		ids = ids[n:]
	}
	return bits, nil
}

// awaitSession waits for the session with a device that is connected.
func (e *Exchange) awaitSession(ctx context.Context, dev device.ID) (*session, error) {
	p := e.peer(dev)
	for {
		changed := e.changes()
		if ss := p.session(); ss != nil {
			return ss, nil
		}
		if !e.isConnected(dev) {
			return nil, ErrNotConnected
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}
