package peer

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/roamfs/roamfs/peer/device"
	"github.com/roamfs/roamfs/peer/wire"
	"github.com/roamfs/roamfs/sync/block"
)

// Errors of an Exchange.
var (
	// ErrNotConnected means that there is no session with the device now.
	ErrNotConnected = errors.New("not connected")
	// ErrStopped means that Run has ended.
	ErrStopped = errors.New("exchange stopped")
	// ErrMessageSize means a message of no bytes, or of more than 4 MiB.
	ErrMessageSize = errors.New("message of no possible size")
)

const defaultReadTimeout = 10 * time.Second

// Exchange exchanges blocks and messages with the connected devices of the hive.
// It is safe for concurrent use. Nothing happens before Run: calls that need the
// network wait for it.
//
// Locks: Exchange.mu, peer.mu, lane.mu, laneStream.mu, server.mu, session.mu,
// ledger.mu, intents.mu, turns.mu. None is held during a call of anything that
// can wait or call back; of two, the one named first is taken first.
type Exchange struct {
	cfg     Config
	log     *slog.Logger
	ledger  *ledger
	serving turns // frames that are sent, of all peers
	asking  turns // fetches under way
	intents *intents
	hedge   budget
	started chan struct{} // closed by Run

	mu      sync.Mutex
	ctx     context.Context // of Run; nil before
	stopped bool
	wg      sync.WaitGroup // everything that was started; no Add after stopped
	peers   map[device.ID]*peer
	changed chan struct{} // closed when a device has come or gone, then replaced
	hints   map[block.ID]device.ID
	failed  []Unavailable // the last ones, oldest first
}

// New returns an Exchange and sets its handlers on cfg.Host.
func New(cfg Config) *Exchange {
	if cfg.ReadTimeout <= 0 {
		cfg.ReadTimeout = defaultReadTimeout
	}
	cfg.Copies = max(cfg.Copies, 1)
	log := cfg.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	e := &Exchange{
		cfg: cfg, log: log,
		ledger: newLedger(), intents: newIntents(),
		started: make(chan struct{}),
		peers:   make(map[device.ID]*peer),
		changed: make(chan struct{}),
		hints:   make(map[block.ID]device.ID),
	}
	for l := range wire.Lane(wire.Lanes) {
		cfg.Host.Handle(wire.BlockProtocol(l), func(ctx context.Context, dev device.ID, s Stream) {
			e.serveLane(ctx, dev, s, l)
		})
	}
	cfg.Host.Handle(wire.ControlProtocol, e.serveControl)
	cfg.Host.OnChange(e.onChange)
	return e
}

// Run exchanges until ctx ends, and then waits for all that the Exchange has
// begun. It is called once.
func (e *Exchange) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	e.mu.Lock()
	if e.ctx != nil {
		e.mu.Unlock()
		return ErrStopped
	}
	e.ctx = ctx
	e.mu.Unlock()
	close(e.started)
	e.spawn(func() { e.ledger.load(ctx, e.cfg.Blocks) })
	for _, dev := range e.cfg.Host.Connected() {
		e.onChange(dev, true)
	}
	<-ctx.Done()
	e.mu.Lock()
	e.stopped = true
	peers := e.allLocked()
	e.mu.Unlock()
	for _, p := range peers {
		for _, l := range p.lanes {
			l.reset(ErrStopped)
		}
	}
	e.wg.Wait()
	return ctx.Err()
}

// spawn runs f in a goroutine that Run waits for, unless Run has ended.
func (e *Exchange) spawn(f func()) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.stopped {
		return false
	}
	e.wg.Go(f)
	return true
}

// begin begins work that Run waits for, as soon as Run runs. The work must end
// when the returned context does; done must be called then.
func (e *Exchange) begin(ctx context.Context) (_ context.Context, done func(), ok bool) {
	select {
	case <-e.started:
	case <-ctx.Done():
		return ctx, nil, false
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.stopped {
		return ctx, nil, false
	}
	e.wg.Add(1)
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(e.ctx, cancel)
	return ctx, func() { stop(); cancel(); e.wg.Done() }, true
}

// onChange notes that a device has come or gone.
func (e *Exchange) onChange(dev device.ID, up bool) {
	p := e.peer(dev)
	p.sighted()
	if !up {
		for _, l := range p.lanes {
			l.reset(ErrNotConnected)
		}
	}
	e.mu.Lock()
	close(e.changed)
	e.changed = make(chan struct{})
	attend := e.ctx != nil && !e.stopped && !p.attended && e.cfg.Self.Compare(dev) < 0
	if attend {
		p.attended = true
		ctx := e.ctx
		e.wg.Go(func() { e.attend(ctx, p) })
	}
	e.mu.Unlock()
	p.poke()
}

// peer returns the entry of a device, and makes it if there is none.
func (e *Exchange) peer(dev device.ID) *peer {
	e.mu.Lock()
	defer e.mu.Unlock()
	p := e.peers[dev]
	if p == nil {
		p = newPeer(e, dev)
		e.peers[dev] = p
	}
	return p
}

func (e *Exchange) allLocked() []*peer {
	all := make([]*peer, 0, len(e.peers))
	for _, p := range e.peers {
		all = append(all, p)
	}
	slices.SortFunc(all, func(a, b *peer) int { return a.dev.Compare(b.dev) })
	return all
}

// sessions returns the sessions that are open now.
func (e *Exchange) sessions() []*session {
	e.mu.Lock()
	all := e.allLocked()
	e.mu.Unlock()
	var open []*session
	for _, p := range all {
		if s := p.session(); s != nil {
			open = append(open, s)
		}
	}
	return open
}

// Announce says that blocks have become durable here, and that others are no
// longer resident. Connected devices are told within a moment, the others when
// they connect. It does not wait.
func (e *Exchange) Announce(added, gone []block.ID) { e.ledger.announce(added, gone) }

// Hint says that a device is likely to have a block, for the error that names
// devices when it cannot be had. The last few thousand hints are kept.
func (e *Exchange) Hint(id block.ID, dev device.ID) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.hints) >= 4096 {
		for old := range e.hints { // any
			delete(e.hints, old)
			break
		}
	}
	e.hints[id] = dev
}

// Broadcast sends a message to all devices that have a session. It does not wait:
// a device whose queue is full loses its session, and begins anew.
func (e *Exchange) Broadcast(msg []byte) {
	for _, s := range e.sessions() {
		if err := s.out.offer(msg); err != nil {
			s.end(err)
		}
	}
}

// Send sends a message to one device, after those that were sent before. It waits
// for room in the queue.
func (e *Exchange) Send(ctx context.Context, dev device.ID, msg []byte) error {
	s := e.peer(dev).session()
	if s == nil {
		return ErrNotConnected
	}
	return s.send(ctx, msg)
}

// Peers returns what is known of the other members, connected ones first, by
// label.
func (e *Exchange) Peers() []PeerInfo {
	connected := e.cfg.Host.Connected()
	var infos []PeerInfo
	for _, m := range e.cfg.Members() {
		if m.ID == e.cfg.Self || m.Revoked {
			continue
		}
		info := PeerInfo{ID: m.ID, Label: m.Label, Role: m.Role, Connected: slices.Contains(connected, m.ID)}
		e.mu.Lock()
		p := e.peers[m.ID]
		e.mu.Unlock()
		if p != nil {
			p.describe(&info)
		}
		if info.Connected {
			info.LastSeen = time.Now()
			info.RTT, info.Path = e.cfg.Host.RTT(m.ID), e.cfg.Host.Path(m.ID)
		}
		infos = append(infos, info)
	}
	slices.SortStableFunc(infos, func(a, b PeerInfo) int {
		if a.Connected != b.Connected {
			if a.Connected {
				return -1
			}
			return 1
		}
		return cmp.Compare(a.Label, b.Label)
	})
	return infos
}

// label returns the name of a device for people.
func (e *Exchange) label(dev device.ID) string {
	for _, m := range e.cfg.Members() {
		if m.ID == dev && m.Label != "" {
			return m.Label
		}
	}
	return dev.Short()
}

// role returns the role of a member, zero if it is none.
func (e *Exchange) role(dev device.ID) device.Role {
	for _, m := range e.cfg.Members() {
		if m.ID == dev && !m.Revoked {
			return m.Role
		}
	}
	return 0
}
