package wire

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"
)

// ErrFrame reports bytes that are no frame, or none that the stream admits.
var ErrFrame = errors.New("malformed frame")

const (
	maxHeader  = 5 // uvarint of a length below 2^28, and the type
	readBuffer = 32 << 10
	growStep   = 64 << 10  // how far memory may run ahead of what has arrived
	keepBody   = 256 << 10 // a larger buffer is given up after the frame
)

// Limits says how many bytes the body of a frame of type t may have on a stream,
// and false if the stream admits no such frames.
type Limits func(t Type) (bytes int, ok bool)

// Reader reads frames. It is for one goroutine.
type Reader struct {
	br     *bufio.Reader
	limits Limits
	stall  time.Duration
	stream interface{ SetReadDeadline(time.Time) error } // nil: no deadlines
	armed  bool
	rest   int // bytes of the body not yet read
	body   []byte
}

// NewReader returns a Reader of the frames of r that limits admits. If stall is
// positive and r has read deadlines, a frame must be there in full within stall
// of its first byte; between frames a Reader waits without end.
func NewReader(r io.Reader, limits Limits, stall time.Duration) *Reader {
	rd := &Reader{br: bufio.NewReaderSize(r, readBuffer), limits: limits, stall: stall}
	if s, ok := r.(interface{ SetReadDeadline(time.Time) error }); ok && stall > 0 {
		rd.stream = s
	}
	return rd
}

// Next goes to the next frame, past what was not read of the last one, and
// returns its type and the length of its body. Between frames the error is io.EOF.
func (r *Reader) Next() (Type, int, error) {
	if cap(r.body) > keepBody {
		r.body = nil
	}
	if r.rest > 0 {
		if _, err := r.br.Discard(r.rest); err != nil {
			return 0, 0, noEOF(err)
		}
		r.rest = 0
	}
	if r.armed {
		r.armed = false
		if err := r.stream.SetReadDeadline(time.Time{}); err != nil {
			return 0, 0, err
		}
	}
	if _, err := r.br.Peek(1); err != nil {
		return 0, 0, err
	}
	n, err := r.length()
	if err != nil {
		return 0, 0, noEOF(err)
	}
	c, err := r.br.ReadByte()
	if err != nil {
		return 0, 0, noEOF(err)
	}
	t := Type(c)
	limit, ok := r.limits(t)
	switch {
	case !ok:
		return 0, 0, fmt.Errorf("%w: %v is not for this stream", ErrFrame, t)
	case n-1 > limit:
		return 0, 0, fmt.Errorf("%w: %v of %d bytes, at most %d", ErrFrame, t, n-1, limit)
	}
	r.rest = n - 1
	if r.rest > r.br.Buffered() {
		if err := r.arm(); err != nil {
			return 0, 0, err
		}
	}
	return t, r.rest, nil
}

// length reads the length of a frame.
func (r *Reader) length() (int, error) {
	n := 0
	for i := range maxHeader - 1 {
		if r.br.Buffered() == 0 {
			if err := r.arm(); err != nil {
				return 0, err
			}
		}
		c, err := r.br.ReadByte()
		if err != nil {
			return 0, err
		}
		n |= int(c&0x7f) << (7 * i)
		if c < 0x80 {
			if c == 0 {
				break // zero, or not the shortest form
			}
			return n, nil
		}
	}
	return 0, fmt.Errorf("%w: length", ErrFrame)
}

// arm starts the time in which the frame must arrive.
func (r *Reader) arm() error {
	if r.stream == nil || r.armed {
		return nil
	}
	r.armed = true
	return r.stream.SetReadDeadline(time.Now().Add(r.stall))
}

// Read reads from the body of the frame; at its end the error is io.EOF.
func (r *Reader) Read(p []byte) (int, error) {
	if r.rest == 0 {
		return 0, io.EOF
	}
	n, err := r.br.Read(p[:min(len(p), r.rest)])
	r.rest -= n
	if r.rest > 0 {
		err = noEOF(err)
	}
	return n, err
}

// Body returns what is left of the body of the frame. It is the Reader's, and
// good until the next call.
func (r *Reader) Body() ([]byte, error) {
	n := r.rest
	r.body = r.body[:0]
	for len(r.body) < n {
		have := len(r.body)
		step := min(n-have, max(growStep, have))
		if cap(r.body)-have < step {
			grown := make([]byte, have, have+step)
			copy(grown, r.body)
			r.body = grown
		}
		r.body = r.body[:have+step]
		if _, err := io.ReadFull(r, r.body[have:]); err != nil {
			return nil, noEOF(err)
		}
	}
	return r.body, nil
}

// Message reads the next frame and decodes it. Slices of bytes in the message
// are the Reader's, and good until the next call.
func (r *Reader) Message() (Message, error) {
	t, _, err := r.Next()
	if err != nil {
		return nil, err
	}
	body, err := r.Body()
	if err != nil {
		return nil, err
	}
	return Decode(t, body)
}

func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// Append appends m as a frame to b.
func Append(b []byte, m Message) []byte {
	if large, ok := m.(interface{ size() int }); ok { // not to be moved about
		b = binary.AppendUvarint(b, uint64(large.size())+1)
		return m.append(append(b, byte(m.Type())))
	}
	start := len(b)
	b = append(b, make([]byte, maxHeader)...)
	b = m.append(b)
	body := b[start+maxHeader:]
	k := start + binary.PutUvarint(b[start:start+maxHeader-1], uint64(len(body))+1)
	b[k] = byte(m.Type())
	return append(b[:k+1], body...)
}

// AppendFrame appends a frame of type t and the given body to b, unchecked. It is
// for tests that send what no Message can say.
func AppendFrame(b []byte, t Type, body []byte) []byte {
	b = binary.AppendUvarint(b, uint64(len(body))+1)
	b = append(b, byte(t))
	return append(b, body...)
}
