package p2p

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	lpeer "github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	msmux "github.com/multiformats/go-multistream"

	"github.com/roamfs/roamfs/peer/device"
	"github.com/roamfs/roamfs/peer/wire"
)

// Errors of a Host.
var (
	// ErrNotConnected means that there is no connection to the device now.
	ErrNotConnected = errors.New("not connected")
	// ErrClosed means that the Host is closed.
	ErrClosed = errors.New("host closed")
	// ErrNotAllowed means that the device is not a member.
	ErrNotAllowed = errors.New("not a member")
)

// Stream is a stream between two devices.
type Stream = wire.Stream

// Config says what a Host is. Key, Allowed and Hive are needed.
type Config struct {
	Key ed25519.PrivateKey // this device's key

	// Listen are multiaddrs to listen on, TCP or QUIC. Without any: TCP and QUIC
	// on all IPv4 and IPv6 addresses and free ports.
	Listen []string

	// External are addresses under which the device is reached from elsewhere,
	// such as a forwarded port. They are told to others as they stand.
	External []string

	// Allowed reports whether a device may connect. It is called often, from many
	// goroutines.
	Allowed func(device.ID) bool

	// Visitor returns the one protocol that a device which is not allowed may use,
	// or "" for none, which is what nil does; see [Host.Receive]. It is called often, from many
	// goroutines.
	Visitor func(device.ID) string

	// TurnedAway, if not nil, is called when a device has taken a connection and
	// serves nothing on it, as it does if this device is no member for it. With open
	// it can be asked by a protocol for visitors. The connection ends when it returns.
	TurnedAway func(ctx context.Context, dev device.ID, open func(proto string) (Stream, error))

	// MDNS makes the device known on the local network, and looks for others.
	MDNS bool

	// Hive is the hive whose members are looked for. It is not sent.
	Hive device.HiveID

	// Learned, if not nil, is called when the addresses of a device have changed,
	// best first, for the caller to keep. It must not wait.
	Learned func(dev device.ID, addrs []string)

	// Log takes what a person may want to know; nil: nothing is logged.
	Log *slog.Logger
}

// Host is this device on the network. It is safe for concurrent use.
//
// There is one lock, mu, held only for memory accesses: no callback, no libp2p
// call that can wait.
type Host struct {
	self    device.ID
	allowed func(device.ID) bool
	cfg     Config
	log     *slog.Logger
	sw      *swarm.Swarm
	parts   *parts
	mux     *msmux.MultistreamMuxer[protocol.ID]
	visits  *msmux.MultistreamMuxer[protocol.ID] // of visitors
	book    *book
	start   time.Time

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	wg     sync.WaitGroup // all goroutines of the Host but those of Run

	dialing sync.WaitGroup // dialers, which end with Run

	mu      sync.Mutex
	closed  bool
	run     context.Context // of Run, nil while it does not run
	conns   map[network.Conn]*conn
	peers   map[device.ID][]*conn // those of conns that are up
	dialers map[device.ID]*dialer
	onUp    []func(device.ID, bool)
	events  []event
	newEvt  chan struct{} // cap 1
}

type event struct {
	dev device.ID
	up  bool
}

// New returns a Host that listens and answers; it dials only while Run runs. It
// must be closed.
func New(cfg Config) (*Host, error) {
	if cfg.Allowed == nil {
		return nil, errors.New("p2p: no Allowed in the configuration")
	}
	log := cfg.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	listen := cfg.Listen
	if len(listen) == 0 {
		listen = defaultListen()
	}
	h := &Host{
		allowed: cfg.Allowed, cfg: cfg, log: log,
		mux:     msmux.NewMultistreamMuxer[protocol.ID](),
		visits:  msmux.NewMultistreamMuxer[protocol.ID](),
		book:    newBook(cfg.Learned),
		start:   time.Now(),
		conns:   make(map[network.Conn]*conn),
		peers:   make(map[device.ID][]*conn),
		dialers: make(map[device.ID]*dialer),
		newEvt:  make(chan struct{}, 1),
	}
	h.ctx, h.cancel = context.WithCancel(context.Background())
	parts, err := newParts(cfg.Key, gate(h.admits), memberLimits())
	if err != nil {
		h.cancel()
		return nil, fmt.Errorf("p2p: %w", err)
	}
	h.parts, h.sw, h.self = parts, parts.swarm, parts.self
	h.Handle(wire.PingProtocol, h.servePing)
	h.sw.SetStreamHandler(h.inbound)
	h.sw.Notify(&network.NotifyBundle{
		ConnectedF:    func(_ network.Network, nc network.Conn) { h.arrived(nc) },
		DisconnectedF: func(_ network.Network, nc network.Conn) { h.drop(nc) },
	})
	h.spawn(h.dispatch)
	if err := parts.listen(listen); err != nil {
		return nil, errors.Join(fmt.Errorf("p2p: %w", err), h.Close())
	}
	return h, nil
}

// Close ends all connections and waits for everything that the Host started,
// handlers of streams included. It must not be called from a handler.
func (h *Host) Close() error {
	h.mu.Lock()
	if h.closed {
		h.mu.Unlock()
		h.wg.Wait()
		return nil
	}
	h.closed = true
	conns := make([]*conn, 0, len(h.conns))
	for _, c := range h.conns {
		conns = append(conns, c)
	}
	h.mu.Unlock()
	h.cancel()
	for _, c := range conns {
		c.expire()
	}
	err := h.parts.close()
	h.wg.Wait()
	return err
}

// spawn runs f in a goroutine that Close waits for, unless the Host is closed.
func (h *Host) spawn(f func()) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return false
	}
	h.wg.Go(f)
	return true
}

// Self returns the ID of this device.
func (h *Host) Self() device.ID { return h.self }

// Handle sets what is done with streams that members open for protocol proto.
// The handler owns the stream; its ctx ends when the Host is closed. Set all
// handlers before Run.
func (h *Host) Handle(proto string, f func(ctx context.Context, dev device.ID, s Stream)) {
	h.mux.AddHandler(protocol.ID(proto), handler(h.ctx, f))
}

// inbound takes a stream that a peer opened.
func (h *Host) inbound(s network.Stream) {
	dev, ok := deviceOf(s.Conn().RemotePeer())
	if ok && !h.allowed(dev) && h.visitor(dev) != "" {
		if !h.spawn(func() { serve(h.visits, &stream{s: s, rw: s}, s, dev) }) {
			_ = s.Reset()
		}
		return
	}
	if !ok || !h.allowed(dev) {
		_ = s.Reset() // the gate has refused already: only revocation comes here
		return
	}
	c := h.conn(s.Conn())
	if c == nil || !h.spawn(func() { serve(h.mux, c.wrap(s, s), s, dev) }) {
		_ = s.Reset()
	}
}

// Open opens a stream to a device for protocol proto, over the best connection
// there is. It does not dial: without a connection the error is [ErrNotConnected].
// That the other end does not know proto shows in the first Read.
func (h *Host) Open(ctx context.Context, dev device.ID, proto string) (Stream, error) {
	err := ErrNotConnected
	if !h.allowed(dev) {
		err = ErrNotAllowed
	} else {
		for _, c := range h.ranked(dev) {
			s, oerr := c.open(ctx, proto)
			if oerr == nil {
				return s, nil
			}
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			err = oerr
		}
	}
	return nil, fmt.Errorf("open %s to %s: %w", proto, dev.Short(), err)
}

// Connected returns the devices that are connected now, in no order.
func (h *Host) Connected() []device.ID {
	h.mu.Lock()
	defer h.mu.Unlock()
	devs := make([]device.ID, 0, len(h.peers))
	for dev := range h.peers {
		devs = append(devs, dev)
	}
	return devs
}

// OnChange has f called after a device got connected (up) and after its last
// connection ended. Calls come one after the other, for one device alternately
// and without gaps; f must not wait long. Devices connected before are not told.
func (h *Host) OnChange(f func(dev device.ID, up bool)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.onUp = append(h.onUp, f)
}

// dispatch calls what OnChange has set.
func (h *Host) dispatch() {
	for {
		select {
		case <-h.ctx.Done():
			return
		case <-h.newEvt:
		}
		h.mu.Lock()
		events, fs := h.events, h.onUp
		h.events = nil
		h.mu.Unlock()
		for _, e := range events {
			for _, f := range fs {
				f(e.dev, e.up)
			}
		}
	}
}

// Disconnect ends all connections to a device, as after its revocation. A device
// that is still allowed will be connected again.
func (h *Host) Disconnect(dev device.ID) {
	h.mu.Lock()
	var conns []*conn
	for _, c := range h.conns {
		if c.dev == dev {
			conns = append(conns, c)
		}
	}
	h.mu.Unlock()
	for _, c := range conns {
		c.kill("disconnected")
	}
}

// RTT returns the round-trip time to a device, smoothed; zero if not connected.
func (h *Host) RTT(dev device.ID) time.Duration {
	for _, c := range h.ranked(dev) {
		return time.Duration(c.rtt.Load())
	}
	return 0
}

// Path says in words how a device is connected: "lan tcp", "lan quic", "tcp",
// "quic", or "" if it is not.
func (h *Host) Path(dev device.ID) string {
	for _, c := range h.ranked(dev) {
		return c.path.String()
	}
	return ""
}

func deviceOf(p lpeer.ID) (device.ID, bool) {
	pub, err := p.ExtractPublicKey()
	if err != nil {
		return device.ID{}, false
	}
	raw, err := pub.Raw()
	if err != nil || len(raw) != len(device.ID{}) {
		return device.ID{}, false
	}
	return device.ID(raw), true
}
