package file

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/roamfs/roamfs/sync/tree"
)

// ErrJournal means a journal record that this package did not write.
var ErrJournal = errors.New("malformed draft record")

const (
	recordVersion = 1
	maxRecord     = 1 << 20 // bytes
	slackSpans    = 4       // by which the last operation may exceed maxSpans

	flagKept  = 1 << 0 // the time was set by the user
	flagFiled = 1 << 1 // the bytes are in a draft file, not in the record

	hasNext = 1 << 2 // beside the number of layers
	noBlock = 0xff   // instead of a depth
)

// record is the content of tree.Draft.Data: see the package comment. Of the
// versions, ino and dots are not part of it.
type record struct {
	base   *version
	next   *version // what the base is about to become, or nil
	layers []*layer // one or two, the uppermost first
}

func (r record) encode() []byte {
	n := 128
	for _, l := range r.layers {
		n += 32 + 8*l.spans() + len(l.mem)
	}
	b := make([]byte, 0, n)
	form := byte(len(r.layers))
	if r.next != nil {
		form |= hasNext
	}
	b = append(b, recordVersion, form)
	b = r.base.encode(b)
	if r.next != nil {
		b = r.next.encode(b)
	}
	for _, l := range r.layers {
		b = l.encode(b)
	}
	return b
}

func (v *version) encode(b []byte) []byte {
	b = binary.AppendUvarint(b, uint64(v.size))
	b = append(b, byte(len(v.inline)))
	b = append(b, v.inline...)
	if v.ref.ID.IsZero() {
		return append(b, noBlock)
	}
	b = append(b, v.ref.Depth, v.ref.Cutter)
	return append(b, v.ref.ID[:]...)
}

func (l *layer) encode(b []byte) []byte {
	var flags byte
	if l.kept {
		flags |= flagKept
	}
	if l.filed {
		flags |= flagFiled
	}
	b = append(b, flags)
	b = binary.AppendUvarint(b, l.seq)
	b = binary.AppendUvarint(b, uint64(l.lower))
	b = binary.AppendUvarint(b, uint64(l.size))
	b = binary.BigEndian.AppendUint64(b, uint64(l.mtime))
	b = l.set.encode(b)
	b = l.hid.encode(b)
	if !l.filed {
		for s := range l.set.all {
			b = append(b, l.mem[s.off:s.end]...)
		}
	}
	return b
}

func (s *spans) encode(b []byte) []byte {
	b = binary.AppendUvarint(b, uint64(s.n))
	var last int64
	for x := range s.all {
		b = binary.AppendUvarint(b, uint64(x.off-last))
		b = binary.AppendUvarint(b, uint64(x.end-x.off))
		last = x.end
	}
	return b
}

// decodeRecord is the inverse of encode. The layers have no files and paths
// yet. The result owns its memory.
func decodeRecord(b []byte) (r record, err error) {
	if len(b) > maxRecord {
		return r, fmt.Errorf("%w: %d bytes", ErrJournal, len(b))
	}
	d := decoder{b: b}
	if v := d.byte(); v != recordVersion && d.err == nil {
		return r, fmt.Errorf("%w: version %d", ErrJournal, v)
	}
	form := d.byte()
	count := int(form &^ hasNext)
	d.check(count == 1 || count == 2, "layers")
	d.check(form&hasNext == 0 || count == 2, "next without a commit")
	r.base = d.version()
	if form&hasNext != 0 {
		r.next = d.version()
	}
	for i := 0; i < count && d.err == nil; i++ {
		l := d.layer()
		if i > 0 {
			d.check(r.layers[i-1].lower == l.size, "layer sizes")
			d.check(r.layers[i-1].seq != l.seq, "layer numbers")
		}
		r.layers = append(r.layers, l)
	}
	d.check(len(d.b) == 0, "length")
	if d.err == nil {
		d.check(r.layers[count-1].lower == r.base.size, "base size")
		d.check(r.next == nil || r.next.size == r.layers[0].lower, "next size")
	}
	if d.err != nil {
		return record{}, d.err
	}
	return r, nil
}

func (d *decoder) version() *version {
	n := tree.Node{Size: d.int(MaxBase)}
	inline := int64(d.byte())
	d.check(inline <= tree.MaxInline && (inline == 0 || inline == n.Size), "inline")
	n.Inline = append([]byte(nil), d.take(inline)...)
	if depth := d.byte(); depth != noBlock {
		n.Ref.Depth, n.Ref.Cutter = depth, d.byte()
		copy(n.Ref.ID[:], d.take(int64(len(n.Ref.ID))))
		d.check(depth <= tree.MaxDepth && !n.Ref.ID.IsZero() && inline == 0, "block")
	}
	return newVersion(n)
}

// MaxBase bounds the size of committed content that a draft may be over: what
// the tree allows, which may be more than [MaxSize].
const MaxBase = tree.MaxSize

// decoder reads a record; after the first error it reads nothing but zeros.
type decoder struct {
	b   []byte
	err error
}

func (d *decoder) check(ok bool, what string) {
	if !ok && d.err == nil {
		d.err = fmt.Errorf("%w: %s", ErrJournal, what)
		d.b = nil
	}
}

func (d *decoder) take(n int64) []byte {
	if n < 0 || n > int64(len(d.b)) {
		d.check(false, "ends early")
		return nil
	}
	p := d.b[:n]
	d.b = d.b[n:]
	return p
}

func (d *decoder) byte() byte {
	if p := d.take(1); p != nil {
		return p[0]
	}
	return 0
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 || n > 1 && d.b[n-1] == 0 {
		d.check(false, "number")
		return 0
	}
	d.b = d.b[n:]
	return v
}

// int reads a number of at most most.
func (d *decoder) int(most int64) int64 {
	v := d.uvarint()
	if v > uint64(most) {
		d.check(false, "number too large")
		return 0
	}
	return int64(v)
}

func (d *decoder) layer() *layer {
	l := &layer{}
	flags := d.byte()
	d.check(flags <= flagKept|flagFiled, "flags")
	l.kept, l.filed = flags&flagKept != 0, flags&flagFiled != 0
	l.seq = d.uvarint()
	l.lower, l.size = d.int(MaxBase), d.int(MaxBase)
	if p := d.take(8); p != nil {
		l.mtime = int64(binary.BigEndian.Uint64(p))
	}
	d.spans(&l.set, l.size)
	d.spans(&l.hid, l.lower)
	d.check(l.spans() <= maxSpans+slackSpans, "spans")
	d.check(l.hid.covers(l.size, l.lower), "nothing hides what is beyond the end")
	if l.filed || d.err != nil {
		return l
	}
	for s := range l.set.all {
		d.check(s.end <= smallDraft, "small draft too large")
		if p := d.take(s.end - s.off); p != nil {
			l.put(p, s.off)
		}
	}
	return l
}

// spans reads a set of bytes below end.
func (d *decoder) spans(s *spans, end int64) {
	var pos int64
	for i := range d.int(maxSpans + slackSpans) {
		gap, n := d.int(MaxBase), d.int(MaxBase)
		if gap > end-pos || n > end-pos-gap || n == 0 || gap == 0 && i > 0 {
			d.check(false, "span")
		}
		if d.err != nil {
			return
		}
		s.set(pos+gap, pos+gap+n)
		pos += gap + n
	}
}
