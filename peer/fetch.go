package peer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/roamfs/roamfs/peer/device"
	"github.com/roamfs/roamfs/peer/wire"
	"github.com/roamfs/roamfs/sync/block"
)

const (
	firstByte  = time.Second     // after which an answer that did not begin is overtaken
	noProgress = 5 * time.Second // after which one that stands still is
	bulkFirst  = 15 * time.Second
	bulkStill  = time.Minute
	askTimeout = 2 * time.Second // for whether a device has a block
	watchEvery = 250 * time.Millisecond
	busyTries  = 20
	retryEvery = 500 * time.Millisecond // after an attempt failed for a reason that may pass
)

// Fetch returns the sealed bytes of a block, verified, which the caller then owns.
// If no device can deliver, the error is a [*block.UnavailableError]; if ctx ends
// before, it is that of ctx. See the package comment for whom it asks and how
// long it waits.
func (e *Exchange) Fetch(ctx context.Context, id block.ID, prio Priority) ([]byte, error) {
	parent := ctx
	ctx, done, ok := e.begin(ctx)
	if !ok {
		if parent.Err() != nil {
			return nil, parent.Err()
		}
		return nil, ErrStopped
	}
	defer done()
	l := prio.lane()
	if l == wire.Bulk {
		if err := e.asking.wait(ctx, l); err != nil {
			return nil, e.over(parent, err)
		}
	}
	e.asking.enter(l)
	defer e.asking.leave(l)
	ctx, cancel := context.WithCancel(ctx)
	f := &fetch{
		e: e, id: id, lane: l, began: time.Now(),
		tried: make(map[device.ID]bool), results: make(chan result),
	}
	data, err := f.run(ctx)
	cancel()
	for range f.running {
		<-f.results // the attempts that lost end now
	}
	e.asking.step(l)
	if err == nil {
		e.hedge.fetched(len(data))
		e.succeeded(id)
		return data, nil
	}
	if errors.Is(err, block.ErrNoReplica) {
		return nil, err
	}
	return nil, e.over(parent, err)
}

// over is the error after a context has ended.
func (e *Exchange) over(parent context.Context, err error) error {
	if parent.Err() != nil {
		return parent.Err()
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.ctx.Err() != nil {
		return ErrStopped
	}
	return err
}

// fetch is one Fetch under way. All but the attempts' goroutines is its caller's.
type fetch struct {
	e       *Exchange
	id      block.ID
	lane    wire.Lane
	began   time.Time
	tried   map[device.ID]bool
	asked   bool // the devices not known to hold the block were asked whether they do
	yes     []*peer
	active  []*attempt
	running int // attempts whose result was not taken, given up ones included
	results chan result
	broken  bool  // an attempt failed for a reason that may pass
	last    error // of the last attempt that failed
}

// attempt is one request to one device.
type attempt struct {
	p      *peer
	began  time.Time
	cancel context.CancelFunc
	call   atomic.Pointer[call]
	hedged bool // another device was asked because of it
	passed bool // it was overtaken
}

type result struct {
	a    *attempt
	data []byte
	err  error
}

// run asks until the block is there, nobody is left, or ctx ends.
func (f *fetch) run(ctx context.Context) ([]byte, error) {
	for {
		changed := f.e.changes()
		p := f.next(ctx)
		if p != nil {
			f.start(ctx, p)
		}
		if len(f.active) == 0 {
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			if !f.await(ctx, changed) {
				return nil, f.unavailable()
			}
			continue
		}
		data, more, err := f.watch(ctx)
		if data != nil || !more {
			return data, err
		}
	}
}

// watch waits for the attempts under way. It returns the block, or with more set when
// another device is to be asked.
func (f *fetch) watch(ctx context.Context) (data []byte, more bool, err error) {
	timer := time.NewTimer(f.patience())
	defer timer.Stop()
	for {
		select {
		case r := <-f.results:
			f.running--
			f.active = slices.DeleteFunc(f.active, func(a *attempt) bool { return a == r.a })
			if r.err == nil {
				return r.data, false, nil
			}
			if ctx.Err() != nil {
				return nil, false, ctx.Err()
			}
			if f.failed(r); len(f.active) == 0 {
				return nil, true, nil
			}
			if f.another() {
				return nil, true, nil
			}
		case <-timer.C:
			if f.still() > f.e.cfg.ReadTimeout && f.lane != wire.Bulk {
				f.last = fmt.Errorf("no progress for %v", f.e.cfg.ReadTimeout)
				return nil, false, f.unavailable()
			}
			if f.overtake() && f.another() {
				return nil, true, nil
			}
			timer.Reset(watchEvery)
		case <-ctx.Done():
			return nil, false, ctx.Err()
		}
	}
}

// patience is how long the newest attempt is left alone.
func (f *fetch) patience() time.Duration {
	if f.lane != wire.Foreground {
		return watchEvery
	}
	p := f.active[len(f.active)-1].p
	return min(p.patience(f.lane, f.e.cfg.Host.RTT(p.dev)), watchEvery)
}

// still is how long nothing has come.
func (f *fetch) still() time.Duration {
	last := f.began
	for _, a := range f.active {
		if t := a.progress(); t.After(last) {
			last = t
		}
	}
	return time.Since(last)
}

// progress is when the last byte came, or the zero time.
func (a *attempt) progress() time.Time {
	if c := a.call.Load(); c != nil {
		if ns := c.last.Load(); ns > 0 {
			return time.Unix(0, ns)
		}
	}
	return time.Time{}
}

// overtake reports whether another device should be asked as well.
func (f *fetch) overtake() bool {
	first, stand := firstByte, noProgress
	if f.lane == wire.Bulk {
		first, stand = bulkFirst, bulkStill
	}
	more := false
	for _, a := range f.active {
		waited, at := time.Since(a.began), a.progress()
		switch {
		case a.passed:
		case at.IsZero() && waited >= first, !at.IsZero() && time.Since(at) >= stand:
			a.passed = true
			a.p.failed()
			f.e.log.Debug("device overtaken", "device", a.p.dev.Short(), "block", f.id, "waited", waited)
			more = true
		case f.lane == wire.Foreground && !a.hedged && at.IsZero() &&
			waited >= a.p.patience(f.lane, f.e.cfg.Host.RTT(a.p.dev)):
			a.hedged = true
			more = more || f.another() && f.e.hedge.take()
		}
	}
	return more
}

// another reports whether there is a device left that is known to hold the block,
// or, with few attempts under way, one that may.
func (f *fetch) another() bool {
	return len(f.active) < 3 && (len(f.holders()) > 0 || len(f.others()) > 0)
}

// start asks p.
func (f *fetch) start(ctx context.Context, p *peer) {
	f.tried[p.dev] = true
	ctx, cancel := context.WithCancel(ctx)
	a := &attempt{p: p, began: time.Now(), cancel: cancel}
	f.active = append(f.active, a)
	f.running++
	go func() { // waited for by Fetch, which takes its result
		defer cancel()
		data, err := f.e.request(ctx, a, f.id, f.lane)
		f.results <- result{a, data, err}
	}()
}

// request asks the device of a for a block, and verifies it.
func (e *Exchange) request(ctx context.Context, a *attempt, id block.ID, l wire.Lane) ([]byte, error) {
	wait := e.cfg.ReadTimeout
	if l == wire.Bulk {
		wait = bulkStill
	}
	for try := 0; ; try++ {
		data, err := a.p.lanes[l].request(ctx, id, wait, func(c *call) { a.call.Store(c) })
		switch {
		case err == nil:
			return data, block.Verify(id, data)
		case errors.Is(err, errLaneEnded) && try == 0 && ctx.Err() == nil:
			// The connection may have been the lesser of two.
		case errors.Is(err, errBusy) && try < busyTries:
			if !sleep(ctx, serveRetry*time.Duration(1+try)) {
				return nil, ctx.Err()
			}
		default:
			return nil, err
		}
	}
}

// failed draws the conclusions from a failed attempt.
func (f *fetch) failed(r result) {
	e, p := f.e, r.a.p
	f.last = fmt.Errorf("%s: %w", e.label(p.dev), r.err)
	var mismatch *block.MismatchError
	switch {
	case errors.As(r.err, &mismatch):
		p.lied(fmt.Sprintf("sent bytes that are not block %v", f.id))
		p.lanes[f.lane].reset(r.err)
		e.log.Warn("device sent wrong bytes", "device", e.label(p.dev), "block", f.id, "got", mismatch.Got)
		f.notHeld(p)
	case errors.Is(r.err, errNotHave):
		f.notHeld(p)
	default:
		f.broken = true
		p.failed()
		e.log.Debug("block not fetched", "device", p.dev.Short(), "block", f.id, "err", r.err)
	}
}

// notHeld notes that p does not hold the block.
func (f *fetch) notHeld(p *peer) {
	if err := f.e.cfg.Holdings.Hold(p.dev, nil, []block.ID{f.id}, nil); err != nil {
		f.e.log.Warn("holdings not corrected", "device", p.dev.Short(), "err", err)
	}
}

// next returns the device to ask next; nil: none is left.
func (f *fetch) next(ctx context.Context) *peer {
	best := func(ps []*peer) *peer {
		if len(ps) == 0 {
			return nil
		}
		return slices.MinFunc(ps, func(a, b *peer) int {
			return int(a.cost(f.lane, f.e.cfg.Host.RTT(a.dev)) - b.cost(f.lane, f.e.cfg.Host.RTT(b.dev)))
		})
	}
	if p := best(f.holders()); p != nil {
		return p
	}
	if len(f.active) > 0 { // while that goes on there is no time to ask first
		return best(f.others())
	}
	if !f.asked {
		f.yes = f.e.whoHas(ctx, f.id, f.others())
		f.asked = true
	}
	return best(slices.DeleteFunc(slices.Clone(f.yes), func(p *peer) bool { return f.tried[p.dev] }))
}

// holders returns the connected devices that said they hold the block and were
// not yet asked.
func (f *fetch) holders() []*peer {
	devs, err := f.e.cfg.Holdings.Holders(f.id)
	if err != nil {
		f.e.log.Warn("holders not known", "block", f.id, "err", err)
	}
	return f.left(func(dev device.ID) bool { return slices.Contains(devs, dev) })
}

// others returns the connected devices that were not yet asked for the block, nor
// whether they have it.
func (f *fetch) others() []*peer {
	if f.asked {
		return nil
	}
	return f.left(func(device.ID) bool { return true })
}

func (f *fetch) left(want func(device.ID) bool) []*peer {
	var ps []*peer
	for _, dev := range f.e.cfg.Host.Connected() {
		if !f.tried[dev] && want(dev) {
			if p := f.e.peer(dev); !p.isLiar() {
				ps = append(ps, p)
			}
		}
	}
	return ps
}

// whoHas asks devices whether they have a block, all at once. One alone is not
// asked: to ask it for the block is as quick.
func (e *Exchange) whoHas(ctx context.Context, id block.ID, ps []*peer) []*peer {
	if len(ps) <= 1 {
		return ps
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	have := make([]bool, len(ps))
	var wg sync.WaitGroup
	for i, p := range ps {
		wg.Go(func() {
			bits, err := e.Ask(ctx, p.dev, []block.ID{id})
			have[i] = err == nil && bits[0]
		})
	}
	wg.Wait()
	var yes []*peer
	for i, p := range ps {
		if have[i] {
			yes = append(yes, p)
		}
	}
	return yes
}

// await waits for something to change that may make the block to be had. It
// reports false if that is not to be expected in time.
func (f *fetch) await(ctx context.Context, changed <-chan struct{}) bool {
	rest := f.e.cfg.ReadTimeout - time.Since(f.began)
	if f.lane != wire.Foreground || rest <= 0 {
		return false
	}
	var again <-chan time.Time
	switch {
	case f.broken: // its connection may be ending, or it recovers
		t := time.NewTimer(min(retryEvery, rest))
		defer t.Stop()
		again = t.C
	case len(f.e.cfg.Host.Connected()) > 0 && !f.soon():
		return false
	}
	timer := time.NewTimer(rest)
	defer timer.Stop()
	select {
	case <-changed:
		sleep(ctx, 10*time.Millisecond) // several may come at once
	case <-again:
	case <-timer.C:
		return false
	case <-ctx.Done():
		return true
	}
	// Who is there now is asked again, whatever it answered before.
	clear(f.tried)
	f.asked, f.broken = false, false
	return true
}

// soon reports whether a device that holds the block was lost just now.
func (f *fetch) soon() bool {
	devs, err := f.e.cfg.Holdings.Holders(f.id)
	if err != nil {
		return false
	}
	connected := f.e.cfg.Host.Connected()
	return slices.ContainsFunc(devs, func(dev device.ID) bool {
		return !slices.Contains(connected, dev) && f.e.peer(dev).lostLately()
	})
}

// changes returns a channel that is closed when a device comes or goes.
func (e *Exchange) changes() <-chan struct{} {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.changed
}

// sleep waits for d, and reports false if ctx ended before.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
