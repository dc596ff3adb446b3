package p2p

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	lcrypto "github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/network"
	lpeer "github.com/libp2p/go-libp2p/core/peer"

	"github.com/roamfs/roamfs/peer/device"
)

const (
	backoffMin = 200 * time.Millisecond
	backoffMax = 10 * time.Second
	// yield is how much later the device with the greater ID dials, so that two
	// devices that lost each other do not both dial.
	yield = 150 * time.Millisecond
	// dialAll bounds one attempt, over all addresses.
	dialAll = 10 * time.Second
	// recheck is how often a device that is no member is looked at again.
	recheck = 10 * time.Second
)

// dialer keeps one device connected. It is a goroutine of Run.
type dialer struct {
	h    *Host
	dev  device.ID
	wake chan bool // cap 1: something has changed; true: begin anew with the backoff
}

// wakeUp wakes d, which does not miss it.
func (d *dialer) wakeUp(reset bool) {
	for {
		select {
		case d.wake <- reset:
			return
		default:
		}
		select {
		case r := <-d.wake:
			reset = reset || r
		default:
		}
	}
}

// dial has dev dialed as long as Run runs.
func (h *Host) dial(dev device.ID, reset bool) {
	h.mu.Lock()
	d := h.dialers[dev]
	if d == nil && h.run != nil && len(h.dialers) < maxDevices {
		ctx := h.run
		d = &dialer{h: h, dev: dev, wake: make(chan bool, 1)}
		h.dialers[dev] = d
		h.dialing.Go(func() { d.run(ctx) })
	}
	h.mu.Unlock()
	if d != nil {
		d.wakeUp(reset)
	}
}

// run dials whenever the device is not connected, until Run ends.
func (d *dialer) run(ctx context.Context) {
	h := d.h
	wait := backoffMin
	for {
		var pause time.Duration // zero: until woken
		switch {
		case h.isUp(d.dev):
		case !h.allowed(d.dev):
			pause = recheck
		case len(h.book.get(d.dev)) == 0:
		default:
			if h.self.Compare(d.dev) > 0 && (!rest(ctx, jitter(yield)) || h.isUp(d.dev)) {
				break
			}
			if d.attempt(ctx) {
				wait = backoffMin
				continue
			}
			pause = jitter(wait)
			wait = min(wait*17/10, backoffMax)
		}
		reset, ok := d.sleep(ctx, pause)
		if !ok {
			return
		}
		if reset {
			wait = backoffMin
		}
	}
}

// sleep waits for a change, or for pause if that is not zero. It reports whether
// the backoff begins anew, and false if Run has ended.
func (d *dialer) sleep(ctx context.Context, pause time.Duration) (reset, ok bool) {
	var over <-chan time.Time
	if pause > 0 {
		t := time.NewTimer(pause)
		defer t.Stop()
		over = t.C
	}
	select {
	case reset = <-d.wake:
		return reset, ctx.Err() == nil
	case <-over:
		return false, ctx.Err() == nil
	case <-ctx.Done():
		return false, false
	}
}

// rest waits for pause, and reports false if ctx ended before.
func rest(ctx context.Context, pause time.Duration) bool {
	t := time.NewTimer(pause)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// attempt dials once. It reports whether the device is connected then.
func (d *dialer) attempt(ctx context.Context) bool {
	h := d.h
	pid, err := peerOf(d.dev)
	if err != nil {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, dialAll)
	defer cancel()
	h.parts.store.ClearAddrs(pid)
	h.parts.store.AddAddrs(pid, h.book.get(d.dev), time.Minute)
	h.sw.Backoff().Clear(pid)
	nc, err := h.sw.DialPeer(network.WithForceDirectDial(ctx, "roamfs"), pid)
	if err != nil {
		h.log.Debug("device not reached", "device", d.dev.Short(), "err", err)
		return false
	}
	c := h.conn(nc)
	if c == nil {
		return false
	}
	select {
	case <-c.up:
		return true
	case <-c.dead:
		return false
	case <-ctx.Done():
		return false
	}
}

func (h *Host) isUp(dev device.ID) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.peers[dev]) > 0
}

// jitter spreads d by a third to both sides.
func jitter(d time.Duration) time.Duration {
	return d*2/3 + rand.N(d*2/3+1)
}

func peerOf(dev device.ID) (lpeer.ID, error) {
	pub, err := lcrypto.UnmarshalEd25519PublicKey(dev[:])
	if err != nil {
		return "", errors.Join(errors.New("not a device"), err)
	}
	return lpeer.IDFromPublicKey(pub)
}
