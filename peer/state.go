package peer

import (
	"slices"
	"sync"
	"time"

	"github.com/roamfs/roamfs/peer/device"
	"github.com/roamfs/roamfs/peer/wire"
)

const (
	// liarFor is how long a device that sent wrong bytes is not asked.
	liarFor = 10 * time.Minute
	// coldFor is how long a device that failed coldAfter times in a row is asked last.
	coldFor   = 30 * time.Second
	coldAfter = 3
	// lately is how long after its loss a device is expected to come back soon.
	lately = 15 * time.Second

	hedgeMin = 30 * time.Millisecond
	samples  = 64 // latencies kept for the quantile
	few      = 8  // samples that say nothing yet
)

// peer is what is known of one other device. It is made at first sight and stays.
type peer struct {
	dev      device.ID
	lanes    [wire.Lanes]*lane
	wake     chan struct{} // cap 1: for attend
	turn     chan struct{} // cap 1: held by the session
	attended bool          // guarded by Exchange.mu

	mu      sync.Mutex
	in      [wire.Lanes]Stream // that are served
	current *session           // nil: none
	telling time.Time          // since when it tells anew all that it holds; zero: it does not
	seen    time.Time          // last time that it came or went
	first   [wire.Lanes]window64
	rate    float64 // bytes per second
	fails   int     // in a row
	cold    time.Time
	liar    time.Time // until when
	fault   string
}

// window64 keeps the last durations.
type window64 struct {
	d [samples]time.Duration
	n int // taken so far
}

func newPeer(e *Exchange, dev device.ID) *peer {
	p := &peer{
		dev:  dev,
		wake: make(chan struct{}, 1), turn: make(chan struct{}, 1),
	}
	for l := range p.lanes {
		p.lanes[l] = &lane{e: e, p: p, l: wire.Lane(l), opening: make(chan struct{}, 1)}
	}
	return p
}

// admit makes s the one stream of a lane that is served, and ends the one before.
func (p *peer) admit(l int, s Stream) (leave func()) {
	p.mu.Lock()
	old := p.in[l]
	p.in[l] = s
	p.mu.Unlock()
	if old != nil {
		_ = old.Reset()
	}
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.in[l] == s {
			p.in[l] = nil
		}
	}
}

func (p *peer) poke() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

func (p *peer) session() *session {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.current
}

// tellingSince returns since when the device tells anew all that it holds, zero if it does not.
func (p *peer) tellingSince() time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.telling
}

func (p *peer) setTelling(t time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.telling = t
}

// sighted notes that the device has come or gone, which ends what was held
// against its connection.
func (p *peer) sighted() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seen = time.Now()
	p.fails, p.cold = 0, time.Time{}
}

// lostLately reports whether the device, which is not connected, was until just now.
func (p *peer) lostLately() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.seen.IsZero() && time.Since(p.seen) < lately
}

// answered notes how long the first byte of an answer took.
func (p *peer) answered(l wire.Lane, d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	w := &p.first[l]
	w.d[w.n%samples] = d
	w.n++
	p.fails = 0
}

// patience returns how long the first byte of an answer may take before another
// device is asked: what 95 of 100 took, but at least 30 ms.
func (p *peer) patience(l wire.Lane, rtt time.Duration) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	w := &p.first[l]
	n := min(w.n, samples)
	if n < few {
		return max(hedgeMin, rtt*3/2)
	}
	sorted := slices.Sorted(slices.Values(w.d[:n]))
	return max(hedgeMin, sorted[n*95/100])
}

// carried notes that bytes came within d while requests were under way.
func (p *peer) carried(bytes int64, d time.Duration) {
	if bytes < guess || d <= 0 {
		return // mostly waiting
	}
	r := float64(bytes) / d.Seconds()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.rate > 0 {
		r = 0.7*p.rate + 0.3*r
	}
	p.rate = r
}

// failed notes a request that failed for the device's fault or its line's.
func (p *peer) failed() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.fails++; p.fails >= coldAfter {
		p.cold = time.Now().Add(coldFor)
	}
}

// lied notes that the device sent bytes that are not what they should be.
func (p *peer) lied(what string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.liar, p.fault = time.Now().Add(liarFor), what
}

// isLiar reports whether the device is not to be asked.
func (p *peer) isLiar() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return time.Now().Before(p.liar)
}

// cost estimates when the device would have delivered a block.
func (p *peer) cost(l wire.Lane, rtt time.Duration) time.Duration {
	out := int64(guess)
	for i := range l + 1 { // what goes before it
		out += p.lanes[i].outstanding()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	rate := p.rate
	if rate == 0 { // not known: better than slow ones
		rate = 20e6
	}
	d := rtt + time.Duration(float64(out)/rate*float64(time.Second))
	if time.Now().Before(p.cold) {
		d += time.Hour
	}
	return d
}

func (p *peer) describe(info *PeerInfo) {
	p.mu.Lock()
	defer p.mu.Unlock()
	info.LastSeen, info.Rate = p.seen, p.rate
	if time.Now().Before(p.liar) {
		info.Fault = p.fault
	}
}

// budget lets what is asked twice be a twentieth of all.
type budget struct {
	mu    sync.Mutex
	asked int64 // bytes
	twice int64
}

const hedgeStart = 8 << 20 // bytes that may be asked twice before any budget has grown

func (b *budget) fetched(n int) {
	b.mu.Lock()
	b.asked += int64(n)
	b.mu.Unlock()
}

// take reports whether a block may be asked twice.
func (b *budget) take() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.twice+guess > hedgeStart+b.asked/20 {
		return false
	}
	b.twice += guess
	return true
}
