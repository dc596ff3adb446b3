package file

import (
	"context"
	"sync/atomic"

	"github.com/roamfs/roamfs/sync/block"
)

// windowSize is how much of a draft is read at once to be cut, in bytes.
const windowSize = block.MaxPlain

// window is a part of the content in memory, shared by the pieces in it.
type window struct {
	buf   []byte
	off   int64 // of buf in the content
	users atomic.Int32
	keep  bool // buf goes back to the pool
}

func (w *window) release(t *Table) {
	if w.users.Add(-1) == 0 && w.keep {
		t.windows.Put(w)
	}
}

// read returns from..to-1 of the content, in s.win.
func (s *cutter) read(ctx context.Context, from, to int64) ([]byte, error) {
	if w := s.win; w != nil && from >= w.off && to <= w.off+int64(len(w.buf)) {
		return w.buf[from-w.off : to-w.off], nil
	}
	if s.l.file == nil && s.l.set.covers(from, to) {
		s.use(&window{buf: s.l.mem[from:to], off: from}) // frozen: nobody writes to it
		return s.win.buf, nil
	}
	// Read on as long as it comes from the draft, where it has to be read
	// anyway; what comes from the base may have to be fetched.
	end := to
	if x, ok := s.l.set.at(s.l.set.find(to - 1)); ok && x.off < to {
		end = max(to, min(x.end, from+windowSize))
	}
	w := s.t.window(int(end - from))
	w.off = from
	var kept int64
	if o := s.win; o != nil && from >= o.off && from < o.off+int64(len(o.buf)) {
		kept = int64(copy(w.buf, o.buf[from-o.off:]))
	}
	s.use(w)
	if err := s.t.readLayer(ctx, s.c, w.buf[kept:], from+kept); err != nil {
		return nil, err
	}
	return w.buf[:to-from], nil
}

// use makes w the window, whose user is the cutter.
func (s *cutter) use(w *window) {
	if s.win != nil {
		s.win.release(s.t)
	}
	w.users.Store(1)
	s.win = w
}

// window returns a window of n bytes, at most windowSize.
func (t *Table) window(n int) *window {
	if n <= windowSize/8 {
		return &window{buf: make([]byte, n)}
	}
	w, ok := t.windows.Get().(*window)
	if !ok {
		w = &window{buf: make([]byte, windowSize), keep: true}
	}
	w.buf = w.buf[:n]
	return w
}
