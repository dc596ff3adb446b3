package sim

import (
	"context"
	"encoding/binary"
	"errors"
	"slices"
	"testing/synctest"

	"github.com/roamfs/roamfs/sync/replica"
)

// A line is what may connect two machines. What one connection takes arrives in
// order; when it breaks, what was under way is lost, each end learns of it in its own
// time, and the next connection begins when both have.
type line struct {
	ends   [2]*machine
	conn   *conn
	apart  bool        // they are in different parts of the network
	past   [2][][]byte // what was sent before, for a relay that plays it again
	closed bool        // for good
}

// conn is one connection.
type conn struct {
	begun, over [2]bool // the end was told that it began, that it is over
	cut         bool    // nothing passes any more
	queue       [2][][]byte
	room        [2]chan struct{} // closed when the queue has become shorter
	most        int
}

var errCut = errors.New("connection lost")

// between returns the line of two machines.
func (w *world) between(a, b *machine) *line {
	for _, l := range w.lines {
		if l.ends == [2]*machine{a, b} || l.ends == [2]*machine{b, a} {
			return l
		}
	}
	return nil
}

// admits reports whether the two may talk: each is a member for the other one.
func (l *line) admits() bool {
	for i, m := range l.ends {
		other := l.ends[1-i]
		if !m.up || m.dead.Load() || m.key.ID() == other.key.ID() {
			return false
		}
		if _, ok := m.log.Member(other.key.ID()); !ok {
			return false
		}
	}
	return true
}

// open begins a connection, of which neither end knows yet.
func (w *world) open(l *line, most int) bool {
	if l.conn != nil || l.closed || l.apart || !l.admits() {
		return false
	}
	for i, m := range l.ends {
		// A device has one connection to another, whichever copy of it that is.
		for _, o := range w.lines {
			for j := range o.ends {
				if o != l && o.conn != nil && o.ends[j] == m && o.ends[1-j].key.ID() == l.ends[1-i].key.ID() {
					w.end(o, 0)
					w.end(o, 1)
				}
			}
		}
	}
	l.conn = &conn{most: most}
	for i := range l.conn.room {
		l.conn.room[i] = make(chan struct{})
	}
	return true
}

// attach tells an end that the connection is there.
func (w *world) attach(l *line, i int) bool {
	c, m := l.conn, l.ends[i]
	if c == nil || c.begun[i] || c.over[i] || c.cut || !m.up || m.dead.Load() {
		return false
	}
	c.begun[i] = true
	m.rep.Connected(l.ends[1-i].key.ID(), w.sender(l, c, i))
	return true
}

// cut breaks a connection; of what is under way, the first n messages each way
// may still arrive.
func (w *world) cut(l *line, n int) bool {
	c := l.conn
	if c == nil || c.cut {
		return false
	}
	w.mu.Lock()
	c.cut = true
	for i := range c.queue {
		c.queue[i] = c.queue[i][:min(n, len(c.queue[i]))]
		close(c.room[i])
		c.room[i] = make(chan struct{})
	}
	w.mu.Unlock()
	return true
}

// end tells an end that the connection is over.
func (w *world) end(l *line, i int) bool {
	c := l.conn
	if c == nil || c.over[i] {
		return false
	}
	w.cut(l, 0)
	c.over[i] = true
	if c.begun[i] && l.ends[i].up {
		l.ends[i].rep.Disconnected(l.ends[1-i].key.ID())
	}
	if c.over[1-i] || !c.begun[1-i] {
		l.conn = nil
	}
	return true
}

// unplug ends all connections at a machine; the other ends do not know.
func (w *world) unplug(m *machine) {
	for _, l := range w.lines {
		for i, e := range l.ends {
			if e == m {
				w.end(l, i)
			}
		}
	}
}

// sender is how a replica sends: it waits while too much is under way.
func (w *world) sender(l *line, c *conn, i int) func(context.Context, []byte) error {
	m := l.ends[i]
	return func(ctx context.Context, msg []byte) error {
		for {
			w.mu.Lock()
			room := c.room[i]
			switch {
			case m.dead.Load():
				w.mu.Unlock()
				return errCut
			case c.cut: // and nobody has noticed yet
				w.mu.Unlock()
				return nil
			case len(c.queue[i]) < c.most:
				w.guard(func() { w.overhear(m, msg) })
				if s := (sending{c, i, slices.Clone(msg)}); m.fuse > 0 {
					m.limbo = append(m.limbo, s)
				} else {
					s.leave()
				}
				if w.relay && len(l.past[i]) < 200 {
					l.past[i] = append(l.past[i], slices.Clone(msg))
				}
				w.sent++
				w.mu.Unlock()
				return nil
			}
			w.mu.Unlock()
			select {
			case <-room:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
}

// sending is a message that is about to leave a machine whose power is going to
// go off: whether it gets out before that must not depend on chance.
type sending struct {
	c   *conn
	i   int
	msg []byte
}

func (s sending) leave() { s.c.queue[s.i] = append(s.c.queue[s.i], s.msg) }

// rest lets all messages leave that machines were sending when all came to rest.
func (w *world) rest() {
	for _, m := range w.machines {
		for _, s := range m.limbo {
			if !m.dead.Load() && !s.c.cut {
				s.leave()
			}
		}
		m.limbo = nil
	}
}

// waiting returns how many messages of end i are under way.
func (w *world) waiting(c *conn, i int) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(c.queue[i])
}

// deliver takes the next message from end i to the other one.
func (w *world) deliver(l *line, i int) bool {
	c := l.conn
	if c == nil || w.waiting(c, i) == 0 || !c.begun[1-i] || c.over[1-i] {
		return false
	}
	to := l.ends[1-i]
	if !to.up || to.dead.Load() {
		return false
	}
	w.mu.Lock()
	msg := c.queue[i][0]
	c.queue[i] = c.queue[i][1:]
	close(c.room[i])
	c.room[i] = make(chan struct{})
	w.mu.Unlock()
	synctest.Wait() // for whoever can send now
	w.broken()
	msg, spoilt := w.pass(l, i, msg)
	w.logf("%s <- %s: kind %d, %d bytes, %08x%s", to.name, l.ends[i].name, msg[0], len(msg), short(msg), spoilt)
	w.receive(l, i, msg, spoilt != "")
	return true
}

// receive hands a message to the end that it is for.
func (w *world) receive(l *line, i int, msg []byte, spoilt bool) {
	from, to := l.ends[i], l.ends[1-i]
	err := to.rep.Receive(context.Background(), from.key.ID(), msg)
	synctest.Wait()
	w.broken()
	w.look(to)
	if err == nil {
		return
	}
	w.logf("   %v", err)
	if !spoilt && !w.relay && !from.revoked && !to.revoked && !to.dead.Load() && !w.expected(err) {
		violate("%s refuses what %s sent: %v", to.name, from.name, err)
	}
	if spoilt {
		w.refused++
		if m, ok := to.log.Member(from.key.ID()); ok && !contains(err.Error(), m.Label) {
			violate("the error does not name %s: %v", m.Label, err)
		}
	}
	w.cut(l, 0) // as the transport does
	w.end(l, 1-i)
}

// expected reports whether an error may come from honest devices.
func (w *world) expected(err error) bool {
	return errors.Is(err, replica.ErrOldCopy) && w.forks && !expectConverge || contains(err.Error(), "whole state that nobody waits for")
}

// pass is what becomes of a message on its way: a relay may change it, play an
// old one in its place, or keep it for itself.
func (w *world) pass(l *line, i int, msg []byte) (out []byte, spoilt string) {
	if !w.relay || w.rng.IntN(8) > 0 {
		return msg, ""
	}
	switch w.rng.IntN(4) {
	case 0:
		out = slices.Clone(msg)
		// Not among the hashes of older commits that come with a state: they are not
		// signed, and what a lie about them leaves is left for good (replica, forks.go).
		n := len(out)
		if out[0] == kindState {
			_, rest := manifestOf(out[stateAt:])
			n -= len(rest)
		}
		at := w.rng.IntN(n)
		out[at] ^= 1 << w.rng.IntN(8)
		return out, ", a bit flipped"
	case 1:
		if len(msg) > 1 {
			return slices.Clone(msg[:1+w.rng.IntN(len(msg)-1)]), ", cut short"
		}
	case 2:
		w.mu.Lock()
		p := l.past[i]
		w.mu.Unlock()
		if len(p) > 0 {
			return slices.Clone(p[w.rng.IntN(len(p))]), ", an old one in its place"
		}
	default:
		if w.waiting(l.conn, i) > 0 {
			w.mu.Lock()
			q := l.conn.queue[i]
			out, l.conn.queue[i] = q[0], q[1:]
			w.mu.Unlock()
			return out, ", the one before withheld"
		}
	}
	return msg, ""
}

// The kinds of messages that the simulator looks into (package replica, message.go).
const (
	kindHello  = 1
	kindCommit = 3
	kindTold   = 4
	kindState  = 7
	stateAt    = 1 + 4 // where its manifest begins, behind the number of the walk
)

// manifestOf splits off a manifest that comes after its length.
func manifestOf(b []byte) (encoded, rest []byte) {
	n, w := binary.Uvarint(b)
	if w <= 0 || n > uint64(len(b)-w) {
		violate("a message with a manifest of %d bytes has %d", n, len(b))
	}
	return b[w : w+int(n)], b[w+int(n):]
}
