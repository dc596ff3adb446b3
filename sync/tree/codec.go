package tree

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
)

// ErrRecord means bytes that are not the canonical encoding of a legal record,
// key, value or vector, or a field outside its bounds.
var ErrRecord = errors.New("malformed record")

// malformed reports what is wrong, as an ErrRecord.
func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrRecord, fmt.Sprintf(format, args...))
}

// reader takes canonical fields off the front of b. After the first error it
// returns zero values; the error stays in err.
type reader struct {
	b   []byte
	err error
}

func (r *reader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = malformed(format, args...)
	}
	r.b = nil
}

// take returns the next n bytes, which alias the input.
func (r *reader) take(n int) []byte {
	if r.err != nil || n > len(r.b) {
		r.fail("ends early")
		return nil
	}
	p := r.b[:n:n]
	r.b = r.b[n:]
	return p
}

func (r *reader) byte() byte {
	if p := r.take(1); p != nil {
		return p[0]
	}
	return 0
}

// uvarint reads a minimal varint of at most max.
func (r *reader) uvarint(limit uint64) uint64 {
	n, size := binary.Uvarint(r.b)
	if r.err != nil || size <= 0 {
		r.fail("bad number")
		return 0
	}
	if size != max(1, (bits.Len64(n)+6)/7) {
		r.fail("number not minimal")
		return 0
	}
	if n > limit {
		r.fail("number %d above %d", n, limit)
		return 0
	}
	r.b = r.b[size:]
	return n
}

func (r *reader) int64() int64 {
	if p := r.take(8); p != nil {
		return int64(binary.BigEndian.Uint64(p))
	}
	return 0
}

// bytes reads a length of at most max and so many bytes, which alias the input.
func (r *reader) bytes(limit int) []byte { return r.take(int(r.uvarint(uint64(limit)))) }

func (r *reader) ino() (i Ino) {
	copy(i[:], r.take(inoLen))
	return i
}

// end reports the first error, or bytes that are left over.
func (r *reader) end() error {
	if r.err == nil && len(r.b) > 0 {
		r.fail("%d bytes too many", len(r.b))
	}
	return r.err
}

// version reads the format byte that begins every value.
func (r *reader) version() {
	if v := r.byte(); r.err == nil && v != valueVersion {
		r.fail("format %d", v)
	}
}

func appendInt64(b []byte, n int64) []byte { return binary.BigEndian.AppendUint64(b, uint64(n)) }

func appendBytes[T string | []byte](b []byte, p T) []byte {
	b = binary.AppendUvarint(b, uint64(len(p)))
	return append(b, p...)
}
