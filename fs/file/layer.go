package file

import (
	"errors"
	"fmt"
	"io"
	"os"
)

const (
	pageSize = 4096

	// smallDraft is how much of a draft is kept in memory and in its journal
	// record, instead of a file: bytes from the begin of the content.
	smallDraft = 32 << 10

	// maxSpans bounds the spans of one layer. A writer that reaches it waits
	// for a commit, which begins a new layer.
	maxSpans = 32 << 10
)

// layer is a draft: what was written over some content below it, which has
// lower bytes. It shows its own bytes where something was written, otherwise
// what is below; where that is hidden by an earlier truncation or punch, and beyond
// lower, zeros.
//
// It changes only by who holds inode.op and, where a reader could see it,
// inode.mu. Bytes of the draft file are written before the span that shows them is set.
type layer struct {
	seq   uint64 // names the draft file; unique in the table
	path  string // of the draft file
	lower int64

	size  int64
	mtime int64 // ns
	kept  bool  // mtime was set by the user after the last write
	set   spans // what was written, within size
	hid   spans // what is hidden of what is below, within lower: all from size on

	mem    []byte   // before there is a file: the byte at off is mem[off]
	filed  bool     // its bytes are in the draft file
	file   *os.File // the draft file, open, if they are
	backed spans    // pages of the draft file that are allocated
	stale  spans    // parts of it that nothing refers to, but the journal record may
	room   int64    // bytes of room held for it
	named  bool     // the draft file's directory entry is durable
	synced bool     // an fsync made a record durable that had the bytes in memory
	begun  int64    // when it became dirty, ns
}

// blank reports whether the layer changes nothing of what is below but the time.
func (l *layer) blank() bool { return l.set.n == 0 && l.hid.n == 0 && l.size == l.lower }

// held is the bytes that the layer occupies.
func (l *layer) held() int64 {
	if l.file == nil {
		return roundUp(int64(len(l.mem)))
	}
	return l.backed.bytes + pageSize*(1+int64(l.backed.n)/256)
}

// claim is the room that the layer is to have.
func (l *layer) claim() int64 { return claim(l.held(), l.lower) }

func roundUp(n int64) int64   { return (n + pageSize - 1) &^ (pageSize - 1) }
func roundDown(n int64) int64 { return n &^ (pageSize - 1) }

// note records that off..end-1 was written.
func (l *layer) note(off, end int64) {
	l.set.set(off, end)
	l.stale.clear(off, end)
	l.size = max(l.size, end)
}

// resize truncates or grows; what is new reads as zeros.
func (l *layer) resize(size int64) {
	if size < l.size {
		l.leave(size, l.size)
		l.set.clear(size, l.size)
		l.hid.set(size, l.lower)
		l.mem = l.mem[:min(int64(len(l.mem)), size)]
	}
	l.size = size
}

// zero makes off..end-1 read as zeros; end is at most the size.
func (l *layer) zero(off, end int64) {
	if off >= end {
		return
	}
	l.leave(off, end)
	l.set.clear(off, end)
	l.hid.set(off, min(end, l.lower))
}

// leave notes that nothing will refer to what is written in off..end-1.
func (l *layer) leave(off, end int64) {
	if !l.filed {
		return
	}
	l.set.each(off, end, func(s span) bool {
		l.stale.set(max(s.off, off), min(s.end, end))
		return true
	})
}

// fits reports whether a write of off..end-1 can stay in memory.
func (l *layer) fits(end int64) bool { return l.file == nil && end <= smallDraft }

// put copies p into memory at off.
func (l *layer) put(p []byte, off int64) {
	end := int(off) + len(p)
	if end > len(l.mem) {
		if end > cap(l.mem) {
			n := end
			if len(l.mem) > 0 { // it grows: expect more
				n = min(max(2*cap(l.mem), end), smallDraft)
			}
			l.mem = append(make([]byte, 0, n), l.mem...)
		}
		l.mem = l.mem[:end]
	}
	copy(l.mem[off:], p)
}

// unbacked returns how many bytes of the pages of off..end-1 have no room yet.
func (l *layer) unbacked(off, end int64) int64 {
	if l.fits(end) {
		return max(0, roundUp(end)-roundUp(int64(len(l.mem))))
	}
	off, end = roundDown(off), roundUp(end)
	n := end - off
	l.backed.each(off, end, func(s span) bool {
		n -= min(s.end, end) - max(s.off, off)
		return true
	})
	return n
}

// create makes the draft file and moves what is in memory there. The caller
// then publishes both under inode.mu with adopt.
func (l *layer) create() (*os.File, error) {
	f, err := os.OpenFile(l.path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, fmt.Errorf("draft: %w", err)
	}
	for s := range l.set.all {
		if _, err := f.WriteAt(l.mem[s.off:s.end], s.off); err != nil {
			return nil, errors.Join(fmt.Errorf("draft: %w", err), f.Close(), os.Remove(l.path))
		}
	}
	return f, nil
}

// adopt makes f, from create, the layer's draft file.
func (l *layer) adopt(f *os.File) {
	for s := range l.set.all {
		l.backed.set(roundDown(s.off), roundUp(s.end))
	}
	l.file, l.filed = f, true
	l.mem = nil
}

// remove closes and deletes the draft file, if there is one.
func (l *layer) remove() error {
	if l.file == nil {
		return nil
	}
	err := l.file.Close()
	if rerr := os.Remove(l.path); rerr != nil && !errors.Is(rerr, os.ErrNotExist) {
		err = errors.Join(err, rerr)
	}
	return err
}

// piece is a part of a read that is still to be done once no lock is held.
type piece struct {
	at   int      // in the reader's buffer
	n    int      // bytes
	file *os.File // where they are, or nil for the committed content
	off  int64    // in the file or in the content
}

// gather reads the layers, the uppermost first, into p: what is zero or in
// memory at once; for the rest it appends pieces. The caller holds inode.mu.
func gather(layers []*layer, base *version, p []byte, at int, off int64, pieces []piece) []piece {
	if len(layers) == 0 {
		n := int(max(0, min(int64(len(p)), base.size-off)))
		clear(p[n:])
		if n > 0 {
			pieces = append(pieces, piece{at: at, n: n, off: off})
		}
		return pieces
	}
	l := layers[0]
	if over := off + int64(len(p)) - l.size; over > 0 {
		n := max(0, len(p)-int(min(over, int64(len(p)))))
		clear(p[n:])
		p = p[:n]
	}
	end := off + int64(len(p))
	pos := off
	below := func(to int64) { // nothing was written in pos..to-1
		show := func(to int64) {
			if pos < to {
				in := p[pos-off : to-off]
				pieces = gather(layers[1:], base, in, at+int(pos-off), pos, pieces)
				pos = to
			}
		}
		if edge := min(to, l.lower); pos < edge {
			l.hid.each(pos, edge, func(s span) bool {
				show(s.off)
				from := pos
				pos = min(s.end, edge)
				clear(p[from-off : pos-off])
				return true
			})
			show(edge)
		}
		if pos < to {
			clear(p[pos-off : to-off])
			pos = to
		}
	}
	l.set.each(off, end, func(s span) bool {
		from, to := max(s.off, off), min(s.end, end)
		below(from)
		in := p[from-off : to-off]
		if l.file == nil {
			copy(in, l.mem[from:to])
		} else {
			pieces = append(pieces, piece{at: at + int(from-off), n: len(in), file: l.file, off: from})
		}
		pos = to
		return true
	})
	below(end)
	return pieces
}

// readFull reads from a draft file; what lies beyond its end is zeros.
func readFull(f *os.File, p []byte, off int64) error {
	n, err := f.ReadAt(p, off)
	if errors.Is(err, io.EOF) {
		clear(p[n:])
		return nil
	}
	return err
}

// extentAt returns the end of a run of bytes at off that are all in a hole, or
// all not, not beyond size; the next run may be of the same sort. The caller
// holds inode.mu.
func extentAt(layers []*layer, base *version, y *layout, off, size int64) (end int64, hole bool) {
	if len(layers) == 0 {
		switch {
		case off >= base.size:
			return size, true
		case len(base.inline) > 0:
			return min(base.size, size), false
		}
		i := y.find(off)
		return min(y.off[i]+y.ext[i].Len, size), y.ext[i].Hole
	}
	l := layers[0]
	if off >= l.size {
		return size, true
	}
	size = min(size, l.size)
	for _, set := range [...]*spans{&l.set, &l.hid} {
		if x, ok := set.at(set.find(off)); ok {
			if x.off <= off {
				return min(x.end, size), set == &l.hid
			}
			size = min(size, x.off)
		}
	}
	if off >= l.lower {
		return size, true
	}
	return extentAt(layers[1:], base, y, off, min(size, l.lower))
}

// touches reports whether anything of off..end-1 is other than what is below.
func (l *layer) touches(off, end int64) bool {
	return l.set.touches(off, end) || l.hid.touches(off, end)
}

// conceals reports whether nothing of what is below shows.
func (l *layer) conceals() bool {
	var pos int64
	for pos < min(l.size, l.lower) {
		x, ok := l.set.at(l.set.find(pos))
		if !ok || x.off > pos {
			if x, ok = l.hid.at(l.hid.find(pos)); !ok || x.off > pos {
				return false
			}
		}
		pos = x.end
	}
	return true
}

// spans returns how many spans the layer has.
func (l *layer) spans() int { return l.set.n + l.hid.n }
