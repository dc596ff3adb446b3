package p2p

import (
	"context"
	"errors"
	"time"

	"github.com/roamfs/roamfs/peer/device"
	"github.com/roamfs/roamfs/peer/wire"
)

const (
	pingEvery = 2 * time.Second
	// silent is how long a live connection can bring nothing: the other end pings
	// as well, so that even a connection with one clogged direction is not silent.
	silent = 6 * time.Second
	// prove is what is left of that after a change of network.
	prove = 2 * time.Second
)

// watch pings until c ends, and ends it when it is silent for too long.
func (c *conn) watch() {
	ctx, cancel := context.WithTimeout(c.h.ctx, silent)
	s, err := c.open(ctx, wire.PingProtocol)
	cancel()
	if err != nil {
		c.kill("no ping stream")
		return
	}
	pongs := make(chan struct{})
	sent := make(chan time.Time, 4)
	go func() { // not spawn: also while the Host is being closed it has to be waited for
		defer close(pongs)
		c.readPongs(s, sent)
	}()
	why := c.ping(s, sent, pongs)
	_ = s.Reset()
	<-pongs
	c.turnedAway()
	c.kill(why)
}

// ping sends a PING whenever it is time to, and returns why c must end.
func (c *conn) ping(s *stream, sent chan<- time.Time, pongs <-chan struct{}) string {
	tick := time.NewTicker(pingEvery)
	defer tick.Stop()
	var deadline <-chan time.Time // by which something must have been read since kick
	var kick time.Duration
	for n := uint64(1); ; n++ {
		if err := s.SetWriteDeadline(time.Now().Add(silent)); err != nil {
			return "ping: " + err.Error()
		}
		select {
		case sent <- time.Now():
		default: // unanswered ones enough
		}
		if _, err := s.Write(wire.Append(nil, wire.Ping{Number: n})); err != nil {
			return "ping: " + err.Error()
		}
		select {
		case <-c.h.ctx.Done():
			return "closing"
		case <-c.dead:
			return "ended"
		case <-pongs:
			return "ping stream ended"
		case <-c.check:
			kick = time.Since(c.h.start)
			deadline = time.After(prove)
		case <-deadline:
			deadline = nil
			if time.Duration(c.last.Load()) < kick {
				return "silent after a change of network"
			}
		case <-tick.C:
			if c.silence() > silent {
				return "silent"
			}
			c.h.prune(c.dev)
		}
	}
}

// readPongs takes the answers, which come in the order of the questions.
func (c *conn) readPongs(s *stream, sent <-chan time.Time) {
	r := wire.NewReader(s, wire.PingLimits, silent)
	for {
		m, err := r.Message()
		if err != nil {
			return
		}
		if _, ok := m.(wire.Pong); !ok {
			return
		}
		select {
		case at := <-sent:
			c.sample(time.Since(at))
		default:
		}
		c.h.answered(c)
	}
}

// sample takes a round-trip time into the average.
func (c *conn) sample(d time.Duration) {
	if old := c.rtt.Load(); old > 0 {
		d = (3*time.Duration(old) + d) / 4
	}
	c.rtt.Store(int64(max(d, 1)))
}

// servePing answers the other end's pings.
func (h *Host) servePing(_ context.Context, _ device.ID, s Stream) {
	r := wire.NewReader(s, wire.PingLimits, silent)
	for {
		m, err := r.Message()
		if err != nil {
			break
		}
		ping, ok := m.(wire.Ping)
		if !ok {
			break
		}
		if err := errors.Join(s.SetWriteDeadline(time.Now().Add(silent)),
			write(s, wire.Pong(ping))); err != nil {
			break
		}
	}
	_ = s.Reset()
}

func write(s Stream, m wire.Message) error {
	_, err := s.Write(wire.Append(nil, m))
	return err
}
