package chunk

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/roamfs/roamfs/sync/block"
)

// Extent is a run of bytes of a content.
type Extent struct {
	Len  int64    // bytes, at least 1; of a piece at most block.MaxPlain
	ID   block.ID // the block that holds them; zero for a hole
	Hole bool     // they are zeros and stored nowhere
}

// List says where the bytes of a content are, from the first to the last.
type List []Extent

// Size returns the bytes of the content.
func (l List) Size() int64 {
	var n int64
	for _, e := range l {
		n += e.Len
	}
	return n
}

const (
	// MaxEntries is the most entries that one list block holds.
	MaxEntries = 4096

	// MaxDepth is the most list blocks between a content's ID and its data.
	MaxDepth = 3

	// MaxList bounds the bytes of a list block's content.
	MaxList = listHead + MaxEntries*(binary.MaxVarintLen64+len(block.ID{}))
)

const (
	listVersion = 1
	listHead    = 4

	oneGroup = 1024 // so many entries stay in one group
	minGroup = 128  // of more, no group but the last has fewer
	endsMask = 511  // one entry in 512 ends a group
)

var (
	// ErrList means that a list block, or the lists below it, are not what this
	// package writes.
	ErrList = errors.New("malformed list")

	// ErrTooLong means a list of more extents than three depths hold.
	ErrTooLong = errors.New("list too long")
)

// endsGroup reports whether a group of n entries ends with e.
func endsGroup(e Extent, n int) bool {
	return n >= MaxEntries ||
		n >= minGroup && !e.Hole && binary.BigEndian.Uint16(e.ID[:])&endsMask == 0
}

// check reports whether e may be an entry of a list block of the given depth.
func (e Extent) check(depth uint8) error {
	switch {
	case e.Len < 1:
		return fmt.Errorf("%w: extent of %d bytes", ErrList, e.Len)
	case e.Hole && !e.ID.IsZero():
		return fmt.Errorf("%w: hole with a block", ErrList)
	case e.Hole && depth > 1:
		return fmt.Errorf("%w: hole at depth %d", ErrList, depth)
	case e.Hole:
		return nil
	case e.ID.IsZero():
		return fmt.Errorf("%w: extent without a block", ErrList)
	case depth == 1 && e.Len > block.MaxPlain:
		return fmt.Errorf("%w: piece of %d bytes", ErrList, e.Len)
	}
	return nil
}

// Build stores a list by handing the content of each list block to put, which
// seals it as a block of type [block.List] and returns its ID; put must not
// keep the slice. It returns what names the whole list: the depth and the ID,
// which is zero if there is nothing but holes. Adjacent holes are merged; l is
// not changed. It fails with [ErrList] for an extent that cannot be, and with
// [ErrTooLong].
func Build(l List, put func(plain []byte) (block.ID, error)) (depth uint8, id block.ID, err error) {
	entries, err := l.normal()
	if err != nil {
		return 0, block.ID{}, err
	}
	if len(entries) == 0 || len(entries) == 1 && entries[0].Hole {
		return 0, block.ID{}, nil
	}
	var buf []byte
	for len(entries) > 1 || depth == 0 && entries[0].Hole {
		if depth++; depth > MaxDepth {
			return 0, block.ID{}, fmt.Errorf("%d extents: %w", len(l), ErrTooLong)
		}
		var next []Extent
		for group := range groups(entries) {
			buf = appendList(buf[:0], depth, group)
			id, err := put(buf)
			if err != nil {
				return 0, block.ID{}, err
			}
			next = append(next, Extent{Len: List(group).Size(), ID: id})
		}
		entries = next
	}
	return depth, entries[0].ID, nil
}

// normal returns l with adjacent holes merged, l itself if there are none.
func (l List) normal() (List, error) {
	var size int64
	merge := false
	for i, e := range l {
		if err := e.check(1); err != nil {
			return nil, fmt.Errorf("extent %d: %w", i, err)
		}
		if e.Len > math.MaxInt64-size {
			return nil, fmt.Errorf("extent %d: %w: larger than 2^63-1 bytes", i, ErrList)
		}
		size += e.Len
		merge = merge || e.Hole && i > 0 && l[i-1].Hole
	}
	if !merge {
		return l, nil
	}
	var out List
	for _, e := range l {
		if n := len(out); e.Hole && n > 0 && out[n-1].Hole {
			out[n-1].Len += e.Len
			continue
		}
		out = append(out, e)
	}
	return out, nil
}

// groups yields the entries of each list block.
func groups(entries []Extent) func(yield func([]Extent) bool) {
	return func(yield func([]Extent) bool) {
		if len(entries) <= oneGroup {
			yield(entries)
			return
		}
		begin := 0
		for i, e := range entries {
			if endsGroup(e, i+1-begin) || i == len(entries)-1 {
				if !yield(entries[begin : i+1]) {
					return
				}
				begin = i + 1
			}
		}
	}
}

// appendList appends the content of the list block that holds entries.
func appendList(b []byte, depth uint8, entries []Extent) []byte {
	b = slices.Grow(b, listHead+len(entries)*(4+len(block.ID{})))
	b = append(b, listVersion, depth)
	b = binary.BigEndian.AppendUint16(b, uint16(len(entries)))
	for _, e := range entries {
		if e.Hole {
			b = binary.AppendUvarint(b, uint64(e.Len)<<1|1)
			continue
		}
		b = binary.AppendUvarint(b, uint64(e.Len)<<1)
		b = append(b, e.ID[:]...)
	}
	return b
}

// Children decodes the content of one list block of the given depth, 1 to
// [MaxDepth]. At depth 1 the result are extents of the content; above, list
// blocks of one depth less, with the bytes of content that each stands for. It
// fails with [ErrList] for anything that [Build] does not write, as far as one
// block can tell.
func Children(depth uint8, plain []byte) ([]Extent, error) {
	if depth < 1 || depth > MaxDepth {
		return nil, fmt.Errorf("%w: depth %d", ErrList, depth)
	}
	if len(plain) < listHead {
		return nil, fmt.Errorf("%w: %d bytes", ErrList, len(plain))
	}
	if plain[0] != listVersion {
		return nil, fmt.Errorf("%w: version %d", ErrList, plain[0])
	}
	if plain[1] != depth {
		return nil, fmt.Errorf("%w: depth %d, want %d", ErrList, plain[1], depth)
	}
	count := int(binary.BigEndian.Uint16(plain[2:]))
	if count < 1 || count > MaxEntries || count > len(plain)-listHead {
		return nil, fmt.Errorf("%w: %d entries in %d bytes", ErrList, count, len(plain))
	}
	entries := make([]Extent, 0, count)
	rest := plain[listHead:]
	var size int64
	for i := range count {
		e, n, err := decodeExtent(rest)
		if err == nil {
			err = e.check(depth)
		}
		switch {
		case err != nil:
			return nil, fmt.Errorf("entry %d: %w", i, err)
		case e.Len > math.MaxInt64-size:
			return nil, fmt.Errorf("entry %d: %w: larger than 2^63-1 bytes", i, ErrList)
		case e.Hole && i > 0 && entries[i-1].Hole:
			return nil, fmt.Errorf("entry %d: %w: adjacent holes", i, ErrList)
		case count > oneGroup && i < count-1 && endsGroup(e, i+1):
			return nil, fmt.Errorf("entry %d: %w: ends its group", i, ErrList)
		}
		size += e.Len
		entries = append(entries, e)
		rest = rest[n:]
	}
	if len(rest) > 0 {
		return nil, fmt.Errorf("%w: %d bytes too many", ErrList, len(rest))
	}
	return entries, nil
}

// decodeExtent decodes the entry at the begin of b and returns its length.
func decodeExtent(b []byte) (Extent, int, error) {
	v, n := binary.Uvarint(b)
	if n <= 0 || n > 1 && b[n-1] == 0 {
		return Extent{}, 0, fmt.Errorf("%w: length", ErrList)
	}
	e := Extent{Len: int64(v >> 1), Hole: v&1 != 0}
	if e.Hole {
		return e, n, nil
	}
	if len(b) < n+len(e.ID) {
		return Extent{}, 0, fmt.Errorf("%w: ends early", ErrList)
	}
	return e, n + copy(e.ID[:], b[n:]), nil
}
