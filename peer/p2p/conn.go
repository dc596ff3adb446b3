package p2p

import (
	"cmp"
	"context"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/network"

	"github.com/roamfs/roamfs/peer/device"
)

// dupGrace is how long two connections to one device may live beside each other.
const dupGrace = 2 * time.Second

// conn is one connection, from libp2p's notice of it to its end.
type conn struct {
	h      *Host
	nc     network.Conn
	dev    device.ID
	path   path
	opened time.Time
	dead   chan struct{} // closed when the connection is of no more use
	up     chan struct{} // closed when it got up
	check  chan struct{} // cap 1: prove soon that you are alive

	last atomic.Int64 // ns since h.start when something was last read
	rtt  atomic.Int64 // ns

	mu      sync.Mutex // after h.mu
	isUp    bool
	gone    bool
	streams map[*stream]struct{}
}

// conn returns the entry of nc, and makes it if this is the first sight of nc.
// Nil: the Host is closed, or nc is.
func (h *Host) conn(nc network.Conn) *conn {
	dev, ok := deviceOf(nc.RemotePeer())
	if !ok {
		return nil
	}
	h.mu.Lock()
	c := h.conns[nc]
	h.mu.Unlock()
	if c != nil {
		return c
	}
	way := pathOf(nc.RemoteMultiaddr()) // asks the kernel: not under the lock
	h.mu.Lock()
	defer h.mu.Unlock()
	if c := h.conns[nc]; c != nil {
		return c
	}
	if h.closed || nc.IsClosed() {
		return nil
	}
	c = &conn{
		h: h, nc: nc, dev: dev, path: way, opened: time.Now(),
		dead: make(chan struct{}), up: make(chan struct{}), check: make(chan struct{}, 1),
		streams: make(map[*stream]struct{}),
	}
	c.seen()
	h.conns[nc] = c
	h.wg.Go(c.watch)
	return c
}

// drop forgets a connection that has ended.
func (h *Host) drop(nc network.Conn) {
	h.mu.Lock()
	c := h.conns[nc]
	delete(h.conns, nc)
	down := c != nil && h.removeLocked(c)
	d := h.dialers[c.device()]
	h.mu.Unlock()
	if c == nil {
		return
	}
	c.expire()
	if down {
		h.log.Info("device disconnected", "device", c.dev.Short(), "path", c.path.String())
	}
	if d != nil {
		d.wakeUp(false)
	}
}

func (c *conn) device() device.ID {
	if c == nil {
		return device.ID{}
	}
	return c.dev
}

// removeLocked takes c from the connections that are up. It reports whether c was
// the last one of its device.
func (h *Host) removeLocked(c *conn) bool {
	list := h.peers[c.dev]
	i := slices.Index(list, c)
	if i < 0 {
		return false
	}
	if list = slices.Delete(slices.Clone(list), i, i+1); len(list) > 0 {
		h.peers[c.dev] = list
		return false
	}
	delete(h.peers, c.dev)
	h.eventLocked(event{dev: c.dev})
	return true
}

func (h *Host) eventLocked(e event) {
	h.events = append(h.events, e)
	select {
	case h.newEvt <- struct{}{}:
	default:
	}
}

// answered notes that the other end of c answers, which makes c up.
func (h *Host) answered(c *conn) {
	h.mu.Lock()
	c.mu.Lock()
	first := !c.isUp && !c.gone && h.conns[c.nc] == c
	c.isUp = c.isUp || first
	c.mu.Unlock()
	if !first {
		h.mu.Unlock()
		return
	}
	list := h.peers[c.dev]
	h.peers[c.dev] = append(slices.Clone(list), c)
	if len(list) == 0 {
		h.eventLocked(event{dev: c.dev, up: true})
	}
	h.mu.Unlock()
	close(c.up)
	if len(list) == 0 {
		h.log.Info("device connected", "device", c.dev.Short(), "path", c.path.String(),
			"rtt", time.Duration(c.rtt.Load()))
	}
	if c.nc.Stat().Direction == network.DirOutbound {
		h.book.worked(c.dev, c.nc.RemoteMultiaddr())
	}
}

// ranked returns the connections to dev that are up, best first.
func (h *Host) ranked(dev device.ID) []*conn {
	h.mu.Lock()
	list := h.peers[dev] // never changed in place
	h.mu.Unlock()
	if len(list) < 2 {
		return list
	}
	list = slices.Clone(list)
	busy := make(map[*conn]int, len(list))
	for _, c := range list {
		busy[c] = c.nc.Stat().NumStreams
	}
	slices.SortStableFunc(list, func(a, b *conn) int {
		return cmp.Or(a.path.worse()-b.path.worse(), busy[b]-busy[a], a.opened.Compare(b.opened))
	})
	return list
}

// prune closes all connections to dev but the best one, if that is up to us.
func (h *Host) prune(dev device.ID) {
	if h.self.Compare(dev) > 0 {
		return
	}
	list := h.ranked(dev)
	for _, c := range list[min(1, len(list)):] {
		if time.Since(c.opened) > dupGrace {
			h.log.Debug("second connection closed", "device", dev.Short(), "path", c.path.String())
			c.kill("second connection")
		}
	}
}

// open opens a stream on c.
func (c *conn) open(ctx context.Context, proto string) (*stream, error) {
	if c.isDead() {
		return nil, ErrNotConnected
	}
	raw, err := c.nc.NewStream(network.WithAllowLimitedConn(ctx, "roamfs"))
	if err != nil {
		return nil, err
	}
	rw, err := negotiated(raw, proto)
	if err != nil {
		return nil, err
	}
	return c.wrap(raw, rw), nil
}

// wrap makes a stream of c.
func (c *conn) wrap(raw network.Stream, rw io.ReadWriter) *stream {
	s := &stream{s: raw, rw: rw, conn: c}
	c.mu.Lock()
	gone := c.gone
	if !gone {
		c.streams[s] = struct{}{}
	}
	c.mu.Unlock()
	if gone {
		_ = raw.SetDeadline(past)
	}
	return s
}

func (c *conn) forget(s *stream) {
	c.mu.Lock()
	delete(c.streams, s)
	c.mu.Unlock()
}

// seen notes that something was read.
func (c *conn) seen() { c.last.Store(int64(time.Since(c.h.start))) }

// silence is how long nothing was read.
func (c *conn) silence() time.Duration { return time.Since(c.h.start) - time.Duration(c.last.Load()) }

func (c *conn) isDead() bool {
	select {
	case <-c.dead:
		return true
	default:
		return false
	}
}

// expire makes all that waits on c's streams return, at once: closing a
// connection that no longer moves can take seconds.
func (c *conn) expire() {
	c.mu.Lock()
	if c.gone {
		c.mu.Unlock()
		return
	}
	c.gone = true
	close(c.dead)
	streams := c.streams
	c.streams = nil
	c.mu.Unlock()
	for s := range streams {
		_ = s.s.SetDeadline(past)
	}
}

// kill ends c. It does not wait.
func (c *conn) kill(why string) {
	c.h.log.Debug("connection closed", "device", c.dev.Short(), "path", c.path.String(), "why", why)
	c.h.mu.Lock()
	down := c.h.removeLocked(c)
	c.h.mu.Unlock()
	c.expire()
	if down {
		c.h.log.Info("device disconnected", "device", c.dev.Short(), "path", c.path.String(), "why", why)
	}
	if !c.h.spawn(func() { _ = c.nc.Close() }) {
		return // Close of the Host closes it
	}
}
