package history

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
)

// ErrObject means bytes that are not the canonical encoding of a directory
// object or of a snapshot.
var ErrObject = errors.New("malformed snapshot")

const formatVersion = 1

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrObject, fmt.Sprintf(format, args...))
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

func (r *reader) int64() int64 {
	if p := r.take(8); p != nil {
		return int64(binary.BigEndian.Uint64(p))
	}
	return 0
}

// number reads a minimal varint of at most limit.
func (r *reader) number(limit uint64) uint64 {
	n, size := binary.Uvarint(r.b)
	switch {
	case r.err != nil || size <= 0:
		r.fail("bad number")
	case size != max(1, (bits.Len64(n)+6)/7):
		r.fail("number not minimal")
	case n > limit:
		r.fail("number %d above %d", n, limit)
	default:
		r.b = r.b[size:]
		return n
	}
	return 0
}

// bytes reads a length of at most limit and so many bytes, which alias the input.
func (r *reader) bytes(limit int) []byte { return r.take(int(r.number(uint64(limit)))) }

func (r *reader) version() {
	if v := r.byte(); r.err == nil && v != formatVersion {
		r.fail("format %d", v)
	}
}

// end reports the first error, or bytes that are left over.
func (r *reader) end() error {
	if r.err == nil && len(r.b) > 0 {
		r.fail("%d bytes too many", len(r.b))
	}
	return r.err
}

func appendInt64(b []byte, n int64) []byte { return binary.BigEndian.AppendUint64(b, uint64(n)) }

func appendBytes[T string | []byte](b []byte, p T) []byte {
	return append(binary.AppendUvarint(b, uint64(len(p))), p...)
}
