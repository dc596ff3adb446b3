package peer

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/roamfs/roamfs/peer/device"
	"github.com/roamfs/roamfs/peer/wire"
	"github.com/roamfs/roamfs/sync/block"
)

const (
	// serveRetry is what is told to a peer that asks for too much.
	serveRetry = 50 * time.Millisecond
	// bulkStall is how long a copy may make no progress before its stream ends.
	bulkStall = time.Minute
)

// server answers the requests of one stream of one peer: one goroutine takes
// them, one reads blocks, one sends. Three blocks at most are in memory for it, of
// which one is being read and one being sent.
type server struct {
	e *Exchange
	l wire.Lane
	s Stream

	mu    sync.Mutex
	wants map[uint32]*want // to their END
	queue []*want          // not yet taken by load
	ends  []wire.End       // of requests that need no block; before all else
	more  chan struct{}    // cap 1: queue or ends has grown
	ready chan reply
}

type want struct {
	wire.Want
	until     time.Time
	cancelled bool // guarded by server.mu
}

// reply is a request with its block, or with the status that it ends with.
type reply struct {
	*want
	data   []byte
	status wire.Status
}

// serveLane answers the requests on s, until it ends.
func (e *Exchange) serveLane(ctx context.Context, dev device.ID, s Stream, l wire.Lane) {
	ctx, done, ok := e.begin(ctx)
	if !ok {
		_ = s.Reset()
		return
	}
	defer done()
	p := e.peer(dev)
	defer p.admit(int(l), s)() // an older stream of this lane ends
	sv := &server{
		e: e, l: l, s: s,
		wants: make(map[uint32]*want), more: make(chan struct{}, 1), ready: make(chan reply, 1),
	}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	end := func() { cancel(); _ = s.Reset() }
	defer context.AfterFunc(ctx, func() { _ = s.Reset() })()
	wg.Go(func() { sv.load(ctx) })
	wg.Go(func() { defer end(); sv.send(ctx) })
	err := sv.take()
	end()
	wg.Wait()
	e.log.Debug("block stream ended", "device", dev.Short(), "lane", l.String(), "err", err)
}

// take takes requests.
func (sv *server) take() error {
	r := wire.NewReader(sv.s, wire.WantLimits, frameStall)
	for {
		m, err := r.Message()
		if err != nil {
			return err
		}
		switch m := m.(type) {
		case wire.Want:
			err = sv.want(m)
		case wire.Cancel:
			sv.cancel(m.Request)
		}
		if err != nil {
			return err
		}
		select {
		case sv.more <- struct{}{}:
		default:
		}
	}
}

func (sv *server) want(m wire.Want) error {
	sv.mu.Lock()
	defer sv.mu.Unlock()
	if sv.wants[m.Request] != nil {
		return fmt.Errorf("%w: request %d made twice", wire.ErrMessage, m.Request)
	}
	if len(sv.wants)+len(sv.ends) >= 2*wire.MaxWants {
		return fmt.Errorf("%w: requests without end", wire.ErrMessage)
	}
	if len(sv.wants) >= wire.MaxWants {
		sv.ends = append(sv.ends, wire.End{Request: m.Request, Status: wire.Busy, Retry: uint32(serveRetry.Milliseconds())})
		return nil
	}
	w := &want{Want: m, until: time.Now().Add(time.Duration(m.Wait) * time.Millisecond)}
	sv.wants[m.Request] = w
	sv.queue = append(sv.queue, w)
	return nil
}

// cancel drops a request that is queued; one that is being sent is stopped.
func (sv *server) cancel(number uint32) {
	sv.mu.Lock()
	defer sv.mu.Unlock()
	w := sv.wants[number]
	if w == nil {
		return // it has ended, and the END is on its way
	}
	w.cancelled = true
	if i := slices.Index(sv.queue, w); i >= 0 {
		sv.queue = slices.Delete(sv.queue, i, i+1)
		delete(sv.wants, number)
		sv.ends = append(sv.ends, wire.End{Request: number, Status: wire.Cancelled})
	}
}

// next takes the most urgent request from the queue; nil: there is none.
func (sv *server) next() *want {
	sv.mu.Lock()
	defer sv.mu.Unlock()
	if len(sv.queue) == 0 {
		return nil
	}
	i := 0
	if sv.l == wire.Foreground { // by deadline
		for j, w := range sv.queue {
			if w.until.Before(sv.queue[i].until) {
				i = j
			}
		}
	}
	w := sv.queue[i]
	sv.queue = slices.Delete(sv.queue, i, i+1)
	return w
}

// load reads the blocks, one ahead of what is sent.
func (sv *server) load(ctx context.Context) {
	for {
		w := sv.next()
		if w == nil {
			if sv.flush(ctx) != nil {
				return
			}
			select {
			case <-sv.more:
				continue
			case <-ctx.Done():
				return
			}
		}
		r := reply{want: w}
		if !time.Now().Before(w.until) {
			r.status = wire.Late
		} else {
			r.data, r.status = sv.e.load(w.ID)
		}
		select {
		case sv.ready <- r:
		case <-ctx.Done():
			return
		}
	}
}

// load reads a block to be sent.
func (e *Exchange) load(id block.ID) ([]byte, wire.Status) {
	if !e.cfg.Blocks.Has(id) {
		return nil, wire.NotHave
	}
	data, err := e.cfg.Blocks.Read(id)
	switch {
	case err == nil && len(data) > 0 && len(data) <= block.MaxSealed:
		return data, wire.OK
	case !e.cfg.Blocks.Has(id): // damaged, or just evicted
		return nil, wire.NotHave
	default:
		e.log.Warn("block not served", "block", id, "size", len(data), "err", err)
		return nil, wire.Failed
	}
}

// flush hands the ENDs that need no block to send, by an empty reply.
func (sv *server) flush(ctx context.Context) error {
	sv.mu.Lock()
	n := len(sv.ends)
	sv.mu.Unlock()
	if n == 0 {
		return nil
	}
	select {
	case sv.ready <- reply{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// send sends replies.
func (sv *server) send(ctx context.Context) {
	buf := make([]byte, 0, 64<<10)
	for {
		var r reply
		select {
		case r = <-sv.ready:
		case <-ctx.Done():
			return
		}
		buf = sv.takeEnds(buf[:0])
		if sv.reply(ctx, buf, r) != nil {
			return
		}
	}
}

// takeEnds appends the ENDs that need no block.
func (sv *server) takeEnds(buf []byte) []byte {
	sv.mu.Lock()
	defer sv.mu.Unlock()
	for _, end := range sv.ends {
		buf = wire.Append(buf, end)
	}
	sv.ends = sv.ends[:0]
	return buf
}

// reply sends what is in buf, which it uses, and the reply.
func (sv *server) reply(ctx context.Context, buf []byte, r reply) error {
	if r.want == nil {
		return sv.write(buf)
	}
	t := &sv.e.serving
	t.enter(sv.l)
	defer t.leave(sv.l)
	status := r.status
	for sent := 0; status == wire.OK && sent < len(r.data); {
		if err := t.wait(ctx, sv.l); err != nil {
			return err
		}
		if sv.isCancelled(r.want) {
			status = wire.Cancelled
			break
		}
		n := min(len(r.data)-sent, wire.MaxData)
		buf = wire.Append(buf, wire.Data{
			Request: r.Request, Total: uint32(len(r.data)), Offset: uint32(sent), Bytes: r.data[sent : sent+n],
		})
		if sent += n; sent == len(r.data) {
			break // goes with the END
		}
		if err := sv.write(buf); err != nil {
			return err
		}
		t.step(sv.l)
		buf = buf[:0]
	}
	sv.mu.Lock()
	delete(sv.wants, r.Request)
	sv.mu.Unlock()
	err := sv.write(wire.Append(buf, wire.End{Request: r.Request, Status: status}))
	t.step(sv.l)
	return err
}

func (sv *server) isCancelled(w *want) bool {
	sv.mu.Lock()
	defer sv.mu.Unlock()
	return w.cancelled
}

func (sv *server) write(p []byte) error {
	if len(p) == 0 {
		return nil
	}
	stall := writeStall
	if sv.l == wire.Bulk {
		stall = bulkStall
	}
	if err := sv.s.SetWriteDeadline(time.Now().Add(stall)); err != nil {
		return err
	}
	_, err := sv.s.Write(p)
	return err
}
