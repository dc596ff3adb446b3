package file

import (
	"context"
	"sync"

	"github.com/roamfs/roamfs/sync/block"
	"github.com/roamfs/roamfs/sync/chunk"
)

const (
	// aheadStart is how many extents the first window of a sequential reader
	// spans, aheadMost how many blocks a handle fetches at once.
	aheadStart = 2
	aheadMost  = 16

	// slack is how far out of order, in bytes, reads may come and still be
	// sequential: the kernel sends several at once.
	slack = 1 << 20
)

// ahead is the readahead of one handle. The first read fetches what it asks
// for and nothing else; the second that goes on where it ended opens a window of two
// extents, which doubles each time the reader passes its middle. A read elsewhere
// cancels what is under way and begins again with half of the window; a handle that
// sought in three of its last five reads is not read ahead for any more.
//
// Idea: the readahead of the Linux page cache (Fengguang et al., OLS 2007).
type ahead struct {
	t       *Table
	running sync.WaitGroup

	mu     sync.Mutex
	begun  bool
	next   int64    // where a sequential reader goes on
	window int64    // bytes; 0 before the second sequential read
	middle int64    // where the window doubles
	edge   int64    // everything before it has been asked for
	seeks  uint8    // the last reads, one bit each: 1 for a seek
	off    bool     // no readahead for this handle
	last   block.ID // the block read last
	flying int
	ctx    context.Context // of the fetches under way; nil if there were none
	cancel context.CancelFunc
	closed bool
}

// moved reports whether id is not the block that was read last.
func (a *ahead) moved(id block.ID) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	was := a.last
	a.last = id
	return was != id
}

// reading notes a read of n bytes at off and fetches what comes next.
func (a *ahead) reading(v *version, y *layout, off int64, n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.off || a.closed {
		return
	}
	end := off + int64(n)
	sequential := !a.begun && off == 0 || a.begun && off >= a.next-slack && off <= a.next+slack
	first := !a.begun
	a.begun = true
	a.seeks = a.seeks << 1 & 0b11111
	if !sequential {
		a.next = end
		a.edge = end
		a.window /= 2
		a.stopLocked()
		if first {
			return
		}
		a.seeks |= 1
		if ones(a.seeks) >= 3 {
			a.off = true
		}
		return
	}
	if end <= a.next {
		return // read again, or behind another that came first
	}
	a.next = end
	if first || a.next >= v.size {
		a.edge = max(a.edge, a.next)
		return
	}
	switch {
	case a.window == 0:
		i := y.find(a.next)
		for k := i; k < len(y.ext) && k < i+aheadStart; k++ {
			a.window += y.ext[k].Len
		}
		a.window = min(a.window, a.t.o.ReadAhead)
		a.middle = a.next + a.window/2
	case a.next >= a.middle:
		a.window = min(2*a.window, a.t.o.ReadAhead)
		a.middle = a.next + a.window/2
	}
	a.edge = max(a.edge, a.next)
	a.fillLocked(v, y)
}

func ones(b uint8) (n int) {
	for ; b != 0; b &= b - 1 {
		n++
	}
	return n
}

// fillLocked begins fetches until the window is full.
func (a *ahead) fillLocked(v *version, y *layout) {
	to := min(a.next+a.window, v.size)
	for a.edge < to && a.flying < aheadMost {
		i := y.find(a.edge)
		e := y.ext[i]
		if !e.Hole && !a.t.chunks.has(e.ID) && !a.t.flights.flying(e.ID) {
			if !a.t.budget(e.Len) {
				return
			}
			a.startLocked(v, e)
		}
		a.edge = y.off[i] + e.Len
	}
}

func (a *ahead) startLocked(v *version, e chunk.Extent) {
	f, pilot := a.t.flights.board(e.ID, true)
	if !pilot {
		a.t.landed(e.Len)
		return
	}
	if a.ctx == nil {
		a.ctx, a.cancel = context.WithCancel(context.Background())
	}
	ctx := a.ctx
	a.flying++
	a.running.Go(func() {
		a.t.fly(ctx, f, v.ino, e, a.t.o.Blocks.Ahead, true)
		a.t.landed(e.Len)
		a.mu.Lock()
		a.flying--
		a.mu.Unlock()
	})
}

// stopLocked cancels what is under way.
func (a *ahead) stopLocked() {
	if a.cancel != nil {
		a.cancel()
		a.ctx, a.cancel = nil, nil
	}
}

// close cancels what is under way and waits for it.
func (a *ahead) close() {
	a.mu.Lock()
	a.closed = true
	a.stopLocked()
	a.mu.Unlock()
	a.running.Wait()
}

// budget takes n bytes of what may be fetched ahead in all, if they are left.
func (t *Table) budget(n int64) bool {
	limit := t.o.Memory * 3 / 8
	for {
		flying := t.flyingBytes.Load()
		if others := flying + t.chunks.unused(); others > 0 && others+n > limit {
			return false
		}
		if t.flyingBytes.CompareAndSwap(flying, flying+n) {
			return true
		}
	}
}

func (t *Table) landed(n int64) { t.flyingBytes.Add(-n) }
