package peer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/roamfs/roamfs/peer/wire"
	"github.com/roamfs/roamfs/sync/block"
)

const (
	// window is how many bytes may be under way on a lane.
	window = 16 << 20
	// guess is what a block counts whose size is not known yet.
	guess = 256 << 10
	// frameStall bounds how long a frame may take from its first byte to its last.
	frameStall = 30 * time.Second
	// writeStall bounds how long a write may wait.
	writeStall = 20 * time.Second
)

// Errors by which requests fail.
var (
	errNotHave   = errors.New("does not have it")
	errBusy      = errors.New("busy")
	errLaneEnded = errors.New("stream ended")
)

// lane is this device's end of the block stream of one priority to one peer. It
// opens the stream when it is needed, and again after it broke.
type lane struct {
	e *Exchange
	p *peer
	l wire.Lane

	opening chan struct{} // cap 1: held while the stream is opened

	mu     sync.Mutex
	stream *laneStream // nil: none is open
}

// laneStream is one stream of a lane, with its requests.
type laneStream struct {
	lane *lane
	s    Stream
	out  chan []byte   // frames to write
	dead chan struct{} // closed at the end

	mu    sync.Mutex
	next  uint32
	calls map[uint32]*call
	under int64         // bytes under way
	room  chan struct{} // closed when under has shrunk; nil: nobody waits
	err   error         // why the stream ended
	busy  time.Time     // since when there are calls without a break
	moved int64         // bytes that came since busy
}

// call is one request.
type call struct {
	number  uint32
	charged int64       // of under; guarded by laneStream.mu
	dropped atomic.Bool // nobody waits any more
	sent    time.Time
	first   atomic.Int64 // ns from sent to the first byte; 0: it has not come
	last    atomic.Int64 // unix ns of the last byte; 0: none has come
	done    chan struct{}
	err     error // final once done is closed

	buf []byte // of the length that was announced; the reader's, unless err is nil in the end
	got int    // the reader's
}

// request asks for one block and waits for it. progress is told of the call once
// it is sent. The data are not verified.
func (l *lane) request(ctx context.Context, id block.ID, wait time.Duration, progress func(*call)) ([]byte, error) {
	ls, err := l.open(ctx)
	if err != nil {
		return nil, err
	}
	c, err := ls.send(ctx, id, wait)
	if err != nil {
		return nil, err
	}
	progress(c)
	select {
	case <-c.done:
		if c.err != nil {
			return nil, c.err
		}
		return c.buf, nil
	case <-ctx.Done():
		ls.cancel(c)
		return nil, ctx.Err()
	}
}

// open returns the stream, and opens it if there is none.
func (l *lane) open(ctx context.Context) (*laneStream, error) {
	if ls := l.current(); ls != nil {
		return ls, nil
	}
	select {
	case l.opening <- struct{}{}:
		defer func() { <-l.opening }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if ls := l.current(); ls != nil {
		return ls, nil
	}
	s, err := l.e.cfg.Host.Open(ctx, l.p.dev, wire.BlockProtocol(l.l))
	if err != nil {
		return nil, err
	}
	ls := &laneStream{
		lane: l, s: s, out: make(chan []byte, 4*wire.MaxWants), dead: make(chan struct{}),
		calls: make(map[uint32]*call),
	}
	l.mu.Lock()
	l.stream = ls
	l.mu.Unlock()
	if !l.e.spawn(ls.read) || !l.e.spawn(ls.write) {
		ls.end(errLaneEnded)
		return nil, errLaneEnded
	}
	return ls, nil
}

func (l *lane) current() *laneStream {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.stream
}

// reset ends the stream, if there is one.
func (l *lane) reset(why error) {
	if ls := l.current(); ls != nil {
		ls.end(why)
	}
}

// outstanding returns the bytes under way.
func (l *lane) outstanding() int64 {
	ls := l.current()
	if ls == nil {
		return 0
	}
	ls.mu.Lock()
	defer ls.mu.Unlock()
	return ls.under
}

// send sends a WANT as soon as the window has room.
func (ls *laneStream) send(ctx context.Context, id block.ID, wait time.Duration) (*call, error) {
	for {
		ls.mu.Lock()
		if ls.err != nil {
			defer ls.mu.Unlock()
			return nil, ls.err
		}
		if len(ls.calls) == 0 || ls.under+guess <= window && len(ls.calls) < wire.MaxWants {
			break
		}
		if ls.room == nil {
			ls.room = make(chan struct{})
		}
		room := ls.room
		ls.mu.Unlock()
		select {
		case <-room:
		case <-ls.dead:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	defer ls.mu.Unlock()
	for ls.calls[ls.next] != nil {
		ls.next++
	}
	c := &call{number: ls.next, charged: guess, sent: time.Now(), done: make(chan struct{})}
	ls.next++
	if len(ls.calls) == 0 {
		ls.busy, ls.moved = c.sent, 0
	}
	ls.calls[c.number] = c
	ls.under += guess
	ms := uint32(min(wait.Milliseconds(), math.MaxUint32))
	ls.queueLocked(wire.Want{Request: c.number, ID: id, Wait: ms})
	return c, nil
}

// queueLocked queues a frame. There is always room: of each call in use there are
// a WANT and a CANCEL at most, and of those that ended no more CANCELs than were in
// use when the writer last got through, for a call ends only after its WANT was written.
func (ls *laneStream) queueLocked(m wire.Message) {
	select {
	case ls.out <- wire.Append(nil, m):
	case <-ls.dead:
	}
}

// cancel gives a call up. What still comes of it is thrown away.
func (ls *laneStream) cancel(c *call) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if ls.calls[c.number] == c && !c.dropped.Swap(true) {
		ls.queueLocked(wire.Cancel{Request: c.number})
	}
}

// write writes what is queued, all that is there in one go.
func (ls *laneStream) write() {
	var buf []byte
	for {
		select {
		case frame := <-ls.out:
			buf = append(buf[:0], frame...)
		case <-ls.dead:
			return
		}
		for len(ls.out) > 0 && len(buf) < 4<<10 { // nobody else takes from it
			buf = append(buf, <-ls.out...)
		}
		err := ls.s.SetWriteDeadline(time.Now().Add(writeStall))
		if err == nil {
			_, err = ls.s.Write(buf)
		}
		if err != nil {
			ls.end(fmt.Errorf("%w: %w", errLaneEnded, err))
			return
		}
	}
}

func (ls *laneStream) read() {
	r := wire.NewReader(ls.s, wire.DataLimits, frameStall)
	for {
		t, n, err := r.Next()
		switch {
		case err != nil:
		case t == wire.TypeData:
			err = ls.data(r, n)
		default:
			err = ls.ended(r)
		}
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = errLaneEnded
			}
			ls.end(fmt.Errorf("%w: %w", errLaneEnded, err))
			return
		}
	}
}

// data takes a DATA frame, whose bytes go to where they belong without a copy.
func (ls *laneStream) data(r *wire.Reader, n int) error {
	h, n, err := wire.DataHeader(r, n)
	if err != nil {
		return err
	}
	ls.mu.Lock()
	c := ls.calls[h.Request]
	if c == nil {
		ls.mu.Unlock()
		return fmt.Errorf("%w: answer to request %d, which was not made", wire.ErrMessage, h.Request)
	}
	if c.buf == nil {
		if h.Offset != 0 {
			ls.mu.Unlock()
			return fmt.Errorf("%w: block begins at %d", wire.ErrMessage, h.Offset)
		}
		ls.under += int64(h.Total) - c.charged
		c.charged = int64(h.Total)
		c.buf = make([]byte, h.Total)
	}
	ls.mu.Unlock()
	if int(h.Total) != len(c.buf) || int(h.Offset) != c.got {
		return fmt.Errorf("%w: %d bytes at %d of %d, expected at %d of %d",
			wire.ErrMessage, n, h.Offset, h.Total, c.got, len(c.buf))
	}
	if c.first.Load() == 0 {
		d := max(time.Since(c.sent), 1)
		c.first.Store(int64(d))
		ls.lane.p.answered(ls.lane.l, d)
	}
	c.last.Store(time.Now().UnixNano())
	if _, err := io.ReadFull(r, c.buf[c.got:c.got+n]); err != nil {
		return err
	}
	c.got += n
	c.last.Store(time.Now().UnixNano())
	ls.mu.Lock()
	ls.moved += int64(n)
	ls.mu.Unlock()
	return nil
}

// ended takes an END frame.
func (ls *laneStream) ended(r *wire.Reader) error {
	body, err := r.Body()
	if err != nil {
		return err
	}
	m, err := wire.Decode(wire.TypeEnd, body)
	if err != nil {
		return err
	}
	end := m.(wire.End)
	ls.mu.Lock()
	defer ls.mu.Unlock()
	c := ls.calls[end.Request]
	if c == nil {
		return fmt.Errorf("%w: end of request %d, which was not made", wire.ErrMessage, end.Request)
	}
	if end.Status == wire.OK && (c.buf == nil || c.got != len(c.buf)) {
		return fmt.Errorf("%w: ok after %d of %d bytes", wire.ErrMessage, c.got, len(c.buf))
	}
	switch end.Status {
	case wire.OK:
	case wire.NotHave:
		c.err = errNotHave
	case wire.Busy:
		c.err = errBusy
	default:
		c.err = errors.New(end.Status.String())
	}
	ls.finishLocked(c)
	if d := time.Since(ls.busy); len(ls.calls) == 0 || d > 200*time.Millisecond {
		ls.lane.p.carried(ls.moved, d)
		ls.busy, ls.moved = time.Now(), 0
	}
	return nil
}

func (ls *laneStream) finishLocked(c *call) {
	delete(ls.calls, c.number)
	ls.under -= c.charged
	if ls.room != nil {
		close(ls.room)
		ls.room = nil
	}
	close(c.done)
}

// end ends the stream and fails its calls.
func (ls *laneStream) end(err error) {
	ls.mu.Lock()
	if ls.err != nil {
		ls.mu.Unlock()
		return
	}
	ls.err = err
	close(ls.dead)
	for _, c := range ls.calls {
		c.err = err
		ls.finishLocked(c)
	}
	ls.mu.Unlock()
	l := ls.lane
	l.mu.Lock()
	if l.stream == ls {
		l.stream = nil
	}
	l.mu.Unlock()
	_ = ls.s.Reset()
}
