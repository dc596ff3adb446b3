package p2p

import (
	"context"
	"errors"
	"net"
	"slices"
	"time"

	"github.com/roamfs/roamfs/peer/device"
)

const (
	// settle is how long addresses must stand still before they are acted on.
	settle = 200 * time.Millisecond
	// poll is how often addresses are compared where the system does not tell.
	poll = 2 * time.Second
)

// ErrRunning means that Run was called twice.
var ErrRunning = errors.New("host is running")

// Run keeps every device connected whose addresses are remembered, looks for
// devices by multicast DNS, and reacts to changes of the network, until ctx ends
// or the Host is closed. Connections stay when it returns.
func (h *Host) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(h.ctx, cancel)()
	h.mu.Lock()
	if h.closed || h.run != nil {
		defer h.mu.Unlock()
		if h.closed {
			return ErrClosed
		}
		return ErrRunning
	}
	h.run = ctx
	h.wg.Add(1) // Close waits for Run
	h.mu.Unlock()
	defer h.wg.Done()
	for _, dev := range h.book.devices() {
		h.dial(dev, true)
	}
	h.follow(ctx)
	h.mu.Lock()
	h.run = nil
	clear(h.dialers)
	h.mu.Unlock()
	h.dialing.Wait()
	return ctx.Err()
}

// follow runs multicast DNS and follows the changes of the network.
func (h *Host) follow(ctx context.Context) {
	changes, stop := watchAddrs()
	defer stop()
	ips := interfaceIPs()
	for ctx.Err() == nil {
		beacon := h.beacon(ctx)
		now := awaitChange(ctx, changes, ips)
		beacon()
		if ctx.Err() == nil {
			h.log.Info("network changed", "addresses", len(now))
			ips = now
			h.moved()
		}
	}
}

// awaitChange waits until the addresses of the interfaces are not ips, and stand
// still. It returns those that they are then.
func awaitChange(ctx context.Context, changes <-chan struct{}, ips []net.IP) []net.IP {
	tick := time.NewTicker(poll)
	defer tick.Stop()
	if changes != nil {
		tick.Stop()
	}
	for {
		select {
		case <-ctx.Done():
			return ips
		case <-changes:
		case <-tick.C:
		}
		now := interfaceIPs()
		for !sameIPs(now, ips) {
			if !rest(ctx, settle) {
				return ips
			}
			again := interfaceIPs()
			if sameIPs(again, now) {
				return now
			}
			now = again
		}
	}
}

func sameIPs(a, b []net.IP) bool {
	return slices.EqualFunc(a, b, func(a, b net.IP) bool { return a.Equal(b) })
}

// moved acts on a change of the network: all devices are dialed anew without
// waiting, and connections must prove that they still work.
func (h *Host) moved() {
	h.mu.Lock()
	dialers := make([]*dialer, 0, len(h.dialers))
	for _, d := range h.dialers {
		dialers = append(dialers, d)
	}
	conns := make([]*conn, 0, len(h.conns))
	for _, c := range h.conns {
		conns = append(conns, c)
	}
	h.mu.Unlock()
	for _, c := range conns {
		select {
		case c.check <- struct{}{}:
		default:
		}
	}
	for _, d := range dialers {
		d.wakeUp(true)
	}
}

func (b *book) devices() []device.ID {
	b.mu.Lock()
	defer b.mu.Unlock()
	devs := make([]device.ID, 0, len(b.addrs))
	for dev := range b.addrs {
		devs = append(devs, dev)
	}
	return devs
}
