package p2p

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"
	msmux "github.com/multiformats/go-multistream"

	"github.com/roamfs/roamfs/peer/device"
)

// GuestConfig says what a Guest is.
type GuestConfig struct {
	Key    ed25519.PrivateKey
	Listen []string // nil: does not listen
}

// Guest is a small host that devices may connect to which are no members yet: it
// serves one protocol, a few connections at a time, and announces nothing. It is
// for pairing, so that the gate of the [Host] can stay shut. Safe for concurrent
// use.
type Guest struct {
	parts  *parts
	mux    *msmux.MultistreamMuxer[protocol.ID]
	ctx    context.Context
	cancel context.CancelFunc

	mu     sync.Mutex
	closed bool
	wg     sync.WaitGroup
}

// NewGuest returns a Guest. It must be closed.
func NewGuest(cfg GuestConfig) (*Guest, error) {
	parts, err := newParts(cfg.Key, gate(func(device.ID) bool { return true }), guestLimits())
	if err != nil {
		return nil, fmt.Errorf("p2p: %w", err)
	}
	g := &Guest{parts: parts, mux: msmux.NewMultistreamMuxer[protocol.ID]()}
	g.ctx, g.cancel = context.WithCancel(context.Background())
	parts.swarm.SetStreamHandler(g.inbound)
	if len(cfg.Listen) > 0 {
		if err := parts.listen(cfg.Listen); err != nil {
			return nil, errors.Join(fmt.Errorf("p2p: %w", err), g.Close())
		}
	}
	return g, nil
}

// Handle sets what is done with streams for proto, as [Host.Handle].
func (g *Guest) Handle(proto string, f func(ctx context.Context, dev device.ID, s Stream)) {
	g.mux.AddHandler(protocol.ID(proto), handler(g.ctx, f))
}

func (g *Guest) inbound(raw network.Stream) {
	dev, ok := deviceOf(raw.Conn().RemotePeer())
	g.mu.Lock()
	ok = ok && !g.closed
	if ok {
		g.wg.Add(1)
	}
	g.mu.Unlock()
	if !ok {
		_ = raw.Reset()
		return
	}
	defer g.wg.Done()
	serve(g.mux, &stream{s: raw, rw: raw}, raw, dev)
}

// Open connects to dev, which is proven to be at the other end, at one of addrs,
// and opens a stream for proto.
func (g *Guest) Open(ctx context.Context, dev device.ID, addrs []string, proto string) (Stream, error) {
	pid, err := peerOf(dev)
	if err != nil {
		return nil, err
	}
	list := parse(dev, addrs)
	if len(list) == 0 {
		return nil, fmt.Errorf("open %s to %s: no address", proto, dev.Short())
	}
	g.parts.store.ClearAddrs(pid)
	g.parts.store.AddAddrs(pid, list, time.Minute)
	g.parts.swarm.Backoff().Clear(pid)
	nc, err := g.parts.swarm.DialPeer(ctx, pid)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotConnected, err)
	}
	raw, err := nc.NewStream(ctx)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotConnected, err)
	}
	rw, err := negotiated(raw, proto)
	if err != nil {
		return nil, err
	}
	return &stream{s: raw, rw: rw}, nil
}

// Addrs returns the addresses that the Guest listens on, as [Host.Addrs].
func (g *Guest) Addrs() []string {
	list := resolve(g.parts.swarm.ListenAddresses(), interfaceIPs())
	return texts(list[:min(len(list), maxAddrs)])
}

// Close ends all connections and waits for the handlers.
func (g *Guest) Close() error {
	g.mu.Lock()
	g.closed = true
	g.mu.Unlock()
	g.cancel()
	err := g.parts.close()
	g.wg.Wait()
	return err
}
