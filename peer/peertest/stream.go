package peertest

import (
	"context"
	"io"
	"os"
	"sync"
	"time"

	"github.com/roamfs/roamfs/peer/device"
)

// pipeWindow is how many bytes one direction of a stream holds.
const pipeWindow = 1 << 20

// pipe is one direction of a stream.
type pipe struct {
	net      *Network
	from, to device.ID

	mu     sync.Mutex
	chunks []chunk
	size   int // bytes in chunks
	last   time.Time
	eof    bool
	err    error
	rd, wr time.Time     // deadlines
	moved  chan struct{} // closed at each change, then replaced
}

type chunk struct {
	data []byte
	at   time.Time // when it arrives
}

func newPipe(n *Network, from, to device.ID) *pipe {
	return &pipe{net: n, from: from, to: to, moved: make(chan struct{})}
}

func (p *pipe) stirLocked() {
	close(p.moved)
	p.moved = make(chan struct{})
}

func (p *pipe) stir() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stirLocked()
}

// fail ends the pipe at both ends.
func (p *pipe) fail(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err == nil {
		p.err = err
		p.chunks, p.size = nil, 0
		p.stirLocked()
	}
}

func (p *pipe) closeWrite() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.eof = true
	p.stirLocked()
}

// wait waits for a change or until t, if that is not zero; mu is held, before
// and after.
func (p *pipe) wait(t time.Time) {
	moved := p.moved
	p.mu.Unlock()
	defer p.mu.Lock()
	if t.IsZero() {
		<-moved
		return
	}
	timer := time.NewTimer(time.Until(t))
	defer timer.Stop()
	select {
	case <-moved:
	case <-timer.C:
	}
}

func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

func over(deadline time.Time) bool { return !deadline.IsZero() && !time.Now().Before(deadline) }

func (p *pipe) read(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		switch {
		case p.err != nil:
			return 0, p.err
		case over(p.rd):
			return 0, os.ErrDeadlineExceeded
		case len(b) == 0:
			return 0, nil
		}
		silent := p.net.isSilent(p.from, p.to)
		var until time.Time
		if len(p.chunks) > 0 && !silent {
			c := &p.chunks[0]
			if until = c.at; !time.Now().Before(until) {
				n := copy(b, c.data)
				if c.data = c.data[n:]; len(c.data) == 0 {
					p.chunks = p.chunks[1:]
				}
				p.size -= n
				p.stirLocked()
				return n, nil
			}
		} else if p.eof && !silent && len(p.chunks) == 0 {
			return 0, io.EOF
		}
		p.wait(earlier(until, p.rd))
	}
}

func (p *pipe) write(b []byte) (n int, err error) {
	for n < len(b) {
		part := b[n:min(len(b), n+64<<10)]
		p.mu.Lock()
		for p.err == nil && !p.eof && !over(p.wr) && p.size > 0 && p.size+len(part) > pipeWindow {
			p.wait(p.wr)
		}
		switch {
		case p.err != nil:
			err = p.err
		case p.eof:
			err = ErrClosed
		case over(p.wr):
			err = os.ErrDeadlineExceeded
		}
		if err != nil {
			p.mu.Unlock()
			return n, err
		}
		p.size += len(part) // holds the room
		p.mu.Unlock()
		at := p.net.arrival(p.from, p.to, len(part))
		p.mu.Lock()
		if at.Before(p.last) {
			at = p.last
		}
		p.last = at
		if p.err == nil {
			p.chunks = append(p.chunks, chunk{append([]byte(nil), part...), at})
			p.stirLocked()
		}
		p.mu.Unlock()
		n += len(part)
	}
	return n, nil
}

// arrived waits until something can be read; false: ctx ended, or nothing ever will.
func (p *pipe) arrived(ctx context.Context) bool {
	defer context.AfterFunc(ctx, p.stir)()
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		if ctx.Err() != nil || p.err != nil {
			return false
		}
		var until time.Time
		if !p.net.isSilent(p.from, p.to) {
			if len(p.chunks) > 0 {
				if until = p.chunks[0].at; !time.Now().Before(until) {
					return true
				}
			} else if p.eof {
				return true
			}
		}
		p.wait(until)
	}
}

func (p *pipe) setDeadline(d *time.Time, t time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	*d = t
	p.stirLocked()
}

// stream is one end of a stream.
type stream struct {
	net     *Network
	link    *link
	in, out *pipe
}

func (s *stream) Read(b []byte) (int, error)  { return s.in.read(b) }
func (s *stream) Write(b []byte) (int, error) { return s.out.write(b) }

func (s *stream) CloseWrite() error {
	s.out.closeWrite()
	return nil
}

func (s *stream) Close() error {
	s.out.closeWrite()
	s.in.fail(ErrClosed)
	s.forget()
	return nil
}

func (s *stream) Reset() error {
	// The other end learns of it only if it can be reached.
	if s.net.isSilent(s.in.from, s.in.to) {
		_ = s.SetDeadline(time.Unix(1, 0))
		return nil
	}
	s.in.fail(ErrReset)
	s.out.fail(ErrReset)
	s.forget()
	return nil
}

func (s *stream) forget() {
	s.net.mu.Lock()
	defer s.net.mu.Unlock()
	delete(s.link.streams, s)
}

func (s *stream) SetDeadline(t time.Time) error {
	s.in.setDeadline(&s.in.rd, t)
	s.out.setDeadline(&s.out.wr, t)
	return nil
}

func (s *stream) SetReadDeadline(t time.Time) error {
	s.in.setDeadline(&s.in.rd, t)
	return nil
}

func (s *stream) SetWriteDeadline(t time.Time) error {
	s.out.setDeadline(&s.out.wr, t)
	return nil
}
