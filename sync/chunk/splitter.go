package chunk

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/zeebo/blake3"
)

const (
	fixedSize64K  = 64 << 10
	fixedSize128K = 128 << 10

	headEnd = 64 << 10 // content-defined pieces that begin before this are small
	tailLen = 64 << 10 // bytes of the tail that no other piece reaches into
	tailGap = 16 << 10 // with less than this before those, the tail begins here

	warmup = 64 // bytes on which the gear hash depends
)

// bounds are the parameters of content-defined pieces.
type bounds struct {
	least, turn, most int
	before, after     int // bits of the hash that are zero at an end, up to turn and beyond
}

var (
	headBounds = bounds{32 << 10, 48 << 10, 128 << 10, 17, 14}
	body256K   = bounds{64 << 10, 192 << 10, 1 << 20, 19, 16}
	body1M     = bounds{256 << 10, 768 << 10, 4 << 20, 21, 18}
)

// Splitter says where one content is cut. It is pure: it holds the cutter, the
// size and the gear table, none of which changes, and is safe for concurrent
// use.
type Splitter struct {
	cutter Cutter
	size   int64
	body   bounds
	gear   [256]uint64
}

// ErrCutter means a cutter that is not known, or not fit for the size.
var ErrCutter = errors.New("unfit cutter")

// NewSplitter returns the splitter for content of size bytes under the hive's
// chunk key ([block.Keys.ChunkKey]). It fails with [ErrCutter] for a cutter
// that is not known, for a size below zero, and for [Whole] with more than
// [MaxWhole] bytes.
func NewSplitter(c Cutter, key [32]byte, size int64) (*Splitter, error) {
	if size < 0 {
		return nil, fmt.Errorf("%w: %v for %d bytes", ErrCutter, c, size)
	}
	s := &Splitter{cutter: c, size: size}
	switch c {
	case Whole:
		if size > MaxWhole {
			return nil, fmt.Errorf("%w: %v for %d bytes", ErrCutter, c, size)
		}
	case CDC256K:
		s.body = body256K
		s.gear = gearTable(key)
	case CDC1M:
		s.body = body1M
		s.gear = gearTable(key)
	case Fixed64K, Fixed128K:
	default:
		return nil, fmt.Errorf("%w: %v", ErrCutter, c)
	}
	return s, nil
}

func gearTable(key [32]byte) (gear [256]uint64) {
	h, err := blake3.NewKeyed(key[:])
	if err != nil {
		panic(err) // only for a key that is not 32 bytes
	}
	_, _ = h.WriteString("roamfs chunk gear v1") // never fails
	var out [8 * len(gear)]byte
	_, _ = h.Digest().Read(out[:]) // never fails
	for i := range gear {
		gear[i] = binary.LittleEndian.Uint64(out[8*i:])
	}
	return gear
}

// Max returns how many bytes from offset off on Next needs to see: at least 1
// and at most [block.MaxPlain] inside the content, 0 outside of it.
func (s *Splitter) Max(off int64) int {
	if off < 0 || off >= s.size {
		return 0
	}
	_, most := s.piece(off)
	return most
}

// piece returns the bounds of a piece that begins at off, inside the content,
// and the bytes it has at the most. Bounds without a least size mean a piece of
// just that many.
func (s *Splitter) piece(off int64) (b bounds, most int) {
	left := s.size - off
	switch s.cutter {
	case Whole:
		return bounds{}, int(left)
	case Fixed64K:
		return bounds{}, int(min(left, fixedSize64K-off%fixedSize64K))
	case Fixed128K:
		return bounds{}, int(min(left, fixedSize128K-off%fixedSize128K))
	case CDC256K, CDC1M:
	}
	if left < tailLen+tailGap {
		return bounds{}, int(left)
	}
	b = s.body
	if off < headEnd {
		b = headBounds
	}
	return b, int(min(left-tailLen, int64(b.most)))
}

// Next returns the length of the piece that begins at off. Data is the content
// from off on, Max(off) bytes or more. With fewer bytes the piece ends where
// they end, at the latest: a caller that knows of a hole passes only what comes
// before it. It returns 0 only if data is empty or off outside of the content.
func (s *Splitter) Next(off int64, data []byte) int {
	if off < 0 || off >= s.size {
		return 0
	}
	b, most := s.piece(off)
	data = data[:min(len(data), most)]
	if b.least == 0 || len(data) <= b.least {
		return len(data)
	}
	return s.cut(b, data)
}

// cut returns the length of a content-defined piece at the begin of data, which
// has more than b.least bytes and no more than the piece may have.
func (s *Splitter) cut(b bounds, data []byte) int {
	gear := &s.gear
	var h uint64
	for _, c := range data[b.least-warmup : b.least-1] {
		h = h<<1 + gear[c]
	}
	turn := min(b.turn, len(data))
	limit := uint64(1) << (64 - b.before) // below it the upper bits are zero
	for i, c := range data[b.least-1 : turn] {
		h = h<<1 + gear[c]
		if h < limit {
			return b.least + i
		}
	}
	limit = uint64(1) << (64 - b.after)
	for i, c := range data[turn:] {
		h = h<<1 + gear[c]
		if h < limit {
			return turn + i + 1
		}
	}
	return len(data)
}

// Keeps reports whether a piece of n bytes at off, which the same cutter and
// key cut in a version of oldSize bytes, is cut the same in this one if its
// bytes are the same: whether a change of size moves the tail into it or away
// from it. A writer that changed a part of the content cuts anew from the begin
// of the piece that holds the first changed byte, or of the first that is not
// kept, until it meets the begin of an old piece after which nothing changed
// and every piece is kept.
func (s *Splitter) Keeps(oldSize, off int64, n int) bool {
	if off < 0 || n <= 0 || off+int64(n) > min(s.size, oldSize) {
		return false
	}
	if s.size == oldSize {
		return true
	}
	old := *s
	old.size = oldSize
	was, wasMost := old.piece(off)
	is, most := s.piece(off)
	switch {
	case was.least == 0 || is.least == 0: // no look at the content
		return was.least == is.least && most == n && wasMost == n
	case n < wasMost: // cut by its content
		return n <= most
	}
	return most == n
}
