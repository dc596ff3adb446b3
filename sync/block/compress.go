package block

import (
	"errors"
	"fmt"
	"sync"

	"github.com/klauspost/compress/zstd"
)

const (
	probeFrom  = 32 << 10 // content shorter than this is compressed without a probe
	probePiece = 4 << 10
	probeSize  = 3 * probePiece

	// window is how far back a match may lie, in bytes. It bounds what an
	// encoder keeps in memory.
	window = 1 << 20

	// maxFrameBlock is the most content that a block of a zstd frame holds.
	maxFrameBlock = 128 << 10
)

// coders are pools of zstd coders, which cost about a megabyte each. Every one
// works alone on the goroutine that took it, and has no goroutine of its own.
type coders struct {
	enc     *sync.Pool // of *zstd.Encoder
	dec     *sync.Pool // of *zstd.Decoder
	scratch *sync.Pool // of *[]byte, for frames
}

func newCoders() coders {
	return coders{
		enc:     &sync.Pool{New: func() any { return newEncoder() }},
		dec:     &sync.Pool{New: func() any { return newDecoder() }},
		scratch: &sync.Pool{New: func() any { return new([]byte) }},
	}
}

func newEncoder() *zstd.Encoder {
	e, err := zstd.NewWriter(nil,
		zstd.WithEncoderLevel(zstd.SpeedFastest),
		zstd.WithEncoderConcurrency(1),
		zstd.WithEncoderCRC(false), // the tag is the better checksum
		zstd.WithWindowSize(window),
		zstd.WithSingleSegment(true), // so that the frame always states its size
		zstd.WithAllLitEntropyCompression(true))
	if err != nil {
		panic(err) // only for contradictory options
	}
	return e
}

func newDecoder() *zstd.Decoder {
	d, err := zstd.NewReader(nil,
		zstd.WithDecoderConcurrency(1),
		zstd.WithDecoderMaxMemory(MaxPlain),
		zstd.WithDecodeAllCapLimit(true))
	if err != nil {
		panic(err) // only for contradictory options
	}
	return d
}

// compress returns plain as one zstd frame, or nil if it had better stay as it
// is. The frame must be given back with release.
func (c *coders) compress(plain []byte) *[]byte {
	enc := c.enc.Get().(*zstd.Encoder)
	defer c.enc.Put(enc)
	buf := c.scratch.Get().(*[]byte)
	if len(plain) >= probeFrom && !probe(enc, buf, plain) {
		c.release(buf)
		return nil
	}
	*buf = enc.EncodeAll(plain, (*buf)[:0])
	if len(plain)-len(*buf) < len(plain)/16 || len(*buf) >= len(plain) {
		c.release(buf)
		return nil
	}
	return buf
}

func (c *coders) release(frame *[]byte) { c.scratch.Put(frame) }

// probe reports whether plain, which has at least probeFrom bytes, looks worth
// compressing: by the frequencies of its bytes in three pieces, or, where these
// are even, by compressing the pieces. It uses buf as scratch.
func probe(enc *zstd.Encoder, buf *[]byte, plain []byte) bool {
	var sample [probeSize]byte
	middle := len(plain)/2 - probePiece/2
	copy(sample[0:], plain[:probePiece])
	copy(sample[probePiece:], plain[middle:middle+probePiece])
	copy(sample[2*probePiece:], plain[len(plain)-probePiece:])
	if uneven(&sample) {
		return true
	}
	*buf = enc.EncodeAll(sample[:], (*buf)[:0])
	return len(*buf) <= probeSize-probeSize/32
}

// uneven reports whether two bytes drawn from sample are the same with a
// probability above 1/184, which is 2 to the power of 15/16 × 8 bits: an
// entropy coder alone then saves about a sixteenth.
func uneven(sample *[probeSize]byte) bool {
	// Two tables, since counting equal neighbours in one would wait for itself.
	var even, odd [256]uint32
	for i := 0; i < len(sample); i += 2 {
		even[sample[i]]++
		odd[sample[i+1]]++
	}
	var squares uint64
	for i := range even {
		n := uint64(even[i] + odd[i])
		squares += n * n
	}
	return squares*184 > probeSize*probeSize
}

// decompress returns the size bytes that frame holds. It allocates nothing
// else, and refuses before it does if the frame cannot hold so much.
func (c *coders) decompress(frame []byte, size int) ([]byte, error) {
	if err := checkFrame(frame, size); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	dec := c.dec.Get().(*zstd.Decoder)
	defer c.dec.Put(dec)
	plain, err := dec.DecodeAll(frame, make([]byte, 0, size))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if len(plain) != size {
		return nil, fmt.Errorf("%w: frame holds %d bytes, not %d", ErrDamaged, len(plain), size)
	}
	return plain, nil
}

// checkFrame walks the headers of one frame (RFC 8878, 3.1.1) and reports
// whether it states size bytes, has blocks enough to hold them, and ends where
// the payload ends.
func checkFrame(frame []byte, size int) error {
	var h zstd.Header
	if err := h.Decode(frame); err != nil {
		return err
	}
	if h.Skippable || !h.HasFCS || h.FrameContentSize != uint64(size) || h.HasCheckSum || h.DictionaryID != 0 {
		return fmt.Errorf("frame is not a plain one of %d bytes", size)
	}
	rest := frame[h.HeaderSize:]
	for blocks, last := 1, false; !last; blocks++ {
		if len(rest) < 3 {
			return errors.New("frame ends early")
		}
		head := uint32(rest[0]) | uint32(rest[1])<<8 | uint32(rest[2])<<16
		last = head&1 != 0
		n := int(head >> 3)
		if head>>1&3 == 1 { // one byte, to be repeated n times
			n = 1
		}
		if n > len(rest)-3 {
			return errors.New("frame ends early")
		}
		rest = rest[3+n:]
		if last && size > blocks*maxFrameBlock {
			return fmt.Errorf("%d blocks cannot hold %d bytes", blocks, size)
		}
	}
	if len(rest) > 0 {
		return fmt.Errorf("%d bytes after the frame", len(rest))
	}
	return nil
}
