package peertest

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/roamfs/roamfs/peer/device"
	"github.com/roamfs/roamfs/peer/wire"
)

// Host is one device on a [Network]. It satisfies peer.Transport.
type Host struct {
	net    *Network
	dev    device.ID
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup // handlers and dispatch
	wake   chan struct{}  // cap 1

	// guarded by net.mu
	closed   bool
	handlers map[string]func(context.Context, device.ID, wire.Stream)
	onChange []func(device.ID, bool)
	events   []change
	known    map[device.ID][]string
	addrs    []string
}

type change struct {
	dev device.ID
	up  bool
}

// Handle sets what is done with streams for proto.
func (h *Host) Handle(proto string, f func(ctx context.Context, dev device.ID, s wire.Stream)) {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	h.handlers[proto] = f
}

// Open opens a stream. That the other host has no handler shows when it is used.
func (h *Host) Open(ctx context.Context, dev device.ID, proto string) (wire.Stream, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	n := h.net
	n.mu.Lock()
	l := n.linkLocked(h.dev, dev)
	other := n.hosts[dev]
	if h.closed || !l.up || other == nil || other.closed {
		n.mu.Unlock()
		return nil, ErrNotConnected
	}
	there, back := newPipe(n, h.dev, dev), newPipe(n, dev, h.dev)
	mine := &stream{net: n, link: l, in: back, out: there}
	theirs := &stream{net: n, link: l, in: there, out: back}
	l.streams[mine] = struct{}{}
	l.streams[theirs] = struct{}{}
	f := other.handlers[proto]
	if f == nil {
		n.mu.Unlock()
		_ = theirs.Reset()
		return mine, nil
	}
	other.wg.Go(func() {
		// The other end learns of a stream when the first bytes arrive.
		if there.arrived(other.ctx) {
			f(other.ctx, h.dev, theirs)
		} else {
			_ = theirs.Reset()
		}
	})
	n.mu.Unlock()
	return mine, nil
}

// Connected returns the hosts that are connected, as far as this one knows.
func (h *Host) Connected() []device.ID {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	var devs []device.ID
	for p, l := range h.net.links {
		if l.up && p.a == h.dev {
			devs = append(devs, p.b)
		} else if l.up && p.b == h.dev {
			devs = append(devs, p.a)
		}
	}
	slices.SortFunc(devs, device.ID.Compare)
	return devs
}

// OnChange has f called after a host got connected or no longer is.
func (h *Host) OnChange(f func(dev device.ID, up bool)) {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	h.onChange = append(h.onChange, f)
}

func (h *Host) changedLocked(dev device.ID, up bool) {
	h.events = append(h.events, change{dev, up})
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

func (h *Host) dispatch() {
	for {
		select {
		case <-h.wake:
		case <-h.ctx.Done():
			return
		}
		h.net.mu.Lock()
		events, fs := h.events, h.onChange
		h.events = nil
		h.net.mu.Unlock()
		for _, e := range events {
			for _, f := range fs {
				f(e.dev, e.up)
			}
		}
	}
}

// RTT returns twice the latency.
func (h *Host) RTT(dev device.ID) time.Duration { return h.net.rtt(h.dev, dev) }

// Path returns "memory".
func (h *Host) Path(device.ID) string { return "memory" }

// SetAddrs sets what Addrs returns.
func (h *Host) SetAddrs(addrs ...string) {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	h.addrs = addrs
}

// Addrs returns what was set.
func (h *Host) Addrs() []string {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	return slices.Clone(h.addrs)
}

// Remember keeps the addresses of a device, in the place of earlier ones.
func (h *Host) Remember(dev device.ID, addrs []string) {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	h.known[dev] = slices.Clone(addrs)
}

// KnownAddrs returns what was remembered.
func (h *Host) KnownAddrs(dev device.ID) []string {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	return slices.Clone(h.known[dev])
}

// Close cuts all connections and waits for the handlers.
func (h *Host) Close() error {
	n := h.net
	n.mu.Lock()
	h.closed = true
	var peers []device.ID
	for p := range n.links {
		if p.a == h.dev {
			peers = append(peers, p.b)
		} else if p.b == h.dev {
			peers = append(peers, p.a)
		}
	}
	n.mu.Unlock()
	h.cancel()
	for _, dev := range peers {
		n.Cut(h.dev, dev)
	}
	h.wg.Wait()
	return nil
}
