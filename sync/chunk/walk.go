package chunk

import (
	"fmt"

	"github.com/roamfs/roamfs/sync/block"
)

// MaxExtents is the most extents that [Load] returns, at 48 bytes each. Longer
// lists are read in parts, with [Walk].
const MaxExtents = 1 << 24

// Load returns the list that [Build] stored under depth and id, for content of
// size bytes. Get returns the content of a block of type [block.List]; what it
// returns is checked, and only its authenticity is taken on trust. Load fails
// with [ErrList] for lists that Build would not have written, also if they do
// not add up to size; with [ErrTooLong] beyond [MaxExtents]; and with the error
// of get.
func Load(depth uint8, id block.ID, size int64, get func(block.ID) ([]byte, error)) (List, error) {
	var l List
	w := walker{get: get, to: size, extent: func(_ int64, e Extent) error {
		if len(l) == MaxExtents {
			return fmt.Errorf("%d extents: %w", len(l)+1, ErrTooLong)
		}
		l = append(l, e)
		return nil
	}}
	if err := w.walk(depth, id, size); err != nil {
		return nil, err
	}
	for d := uint8(1); d < depth; d++ {
		if w.entries[d] <= oneGroup {
			return nil, fmt.Errorf("%w: more depths than needed", ErrList)
		}
	}
	return l, nil
}

// Walk calls fn, in order, for each extent that overlaps the bytes from
// (included) to to (excluded) of the content, with the offset at which it
// begins. It gets only the list blocks that lead there, and keeps at most three
// in memory. It stops at the first error, of fn, of get or an [ErrList], and
// returns it. The other arguments are those of [Load].
func Walk(depth uint8, id block.ID, size, from, to int64, get func(block.ID) ([]byte, error), fn func(off int64, e Extent) error) error {
	w := walker{get: get, from: max(from, 0), to: min(to, size), extent: fn}
	if w.from >= w.to {
		return nil
	}
	return w.walk(depth, id, size)
}

// Blocks calls fn for every block of the content: each list block before what
// is below it, and each data block in the order of the content. A block that
// occurs twice is reported twice. Errors and the other arguments are as for
// [Walk].
func Blocks(depth uint8, id block.ID, size int64, get func(block.ID) ([]byte, error), fn func(id block.ID, t block.Type) error) error {
	w := walker{
		get: get, to: size,
		list: func(id block.ID) error { return fn(id, block.List) },
		extent: func(_ int64, e Extent) error {
			if e.Hole {
				return nil
			}
			return fn(e.ID, block.Data)
		},
	}
	return w.walk(depth, id, size)
}

// walker visits the part from..to of a stored list.
type walker struct {
	get      func(block.ID) ([]byte, error)
	from, to int64
	list     func(id block.ID) error // told of each list block; may be nil
	extent   func(off int64, e Extent) error

	entries  [MaxDepth + 1]int // entries seen, by the depth of their list block
	prevHole bool              // the last extent visited is a hole
}

func (w *walker) walk(depth uint8, id block.ID, size int64) error {
	switch {
	case size < 0:
		return fmt.Errorf("%w: content of %d bytes", ErrList, size)
	case depth > MaxDepth:
		return fmt.Errorf("%w: depth %d", ErrList, depth)
	case id.IsZero() && depth > 0:
		return fmt.Errorf("%w: depth %d without a block", ErrList, depth)
	case depth > 0:
		return w.group(depth, id, 0, size, true, true)
	case id.IsZero() && size == 0:
		return nil
	}
	e := Extent{Len: size, ID: id, Hole: id.IsZero()}
	if err := e.check(1); err != nil {
		return err
	}
	return w.visit(0, e)
}

// group visits the list block id, which holds size bytes of content from off
// on. Root says that no other block lists it, last that its group is the last
// of its depth.
func (w *walker) group(depth uint8, id block.ID, off, size int64, root, last bool) error {
	if w.list != nil {
		if err := w.list(id); err != nil {
			return err
		}
	}
	plain, err := w.get(id)
	if err != nil {
		return fmt.Errorf("list block %v: %w", id, err)
	}
	entries, err := Children(depth, plain)
	if err == nil {
		err = checkGroup(entries, root, last)
	}
	if err == nil && List(entries).Size() != size {
		err = fmt.Errorf("%w: holds %d bytes, not %d", ErrList, List(entries).Size(), size)
	}
	if err != nil {
		return fmt.Errorf("list block %v: %w", id, err)
	}
	w.entries[depth] += len(entries)
	for i, e := range entries {
		if off < w.to && off+e.Len > w.from {
			if depth == 1 {
				err = w.visit(off, e)
			} else {
				err = w.group(depth-1, e.ID, off, e.Len, false, last && i == len(entries)-1)
			}
			if err != nil {
				return err
			}
		}
		off += e.Len
	}
	return nil
}

func (w *walker) visit(off int64, e Extent) error {
	if off >= w.to || off+e.Len <= w.from {
		return nil
	}
	if e.Hole && w.prevHole {
		return fmt.Errorf("%w: adjacent holes", ErrList)
	}
	w.prevHole = e.Hole
	return w.extent(off, e)
}

// checkGroup reports whether entries are grouped as Build groups them, as far
// as one block and its place can tell.
func checkGroup(entries []Extent, root, last bool) error {
	n := len(entries)
	if root {
		if n < 2 {
			return fmt.Errorf("%w: list of one entry", ErrList)
		}
		return nil
	}
	for i, e := range entries {
		ends := endsGroup(e, i+1)
		if ends && i < n-1 {
			return fmt.Errorf("%w: entry %d ends its group", ErrList, i)
		}
		if !ends && i == n-1 && !last {
			return fmt.Errorf("%w: group ends at entry %d", ErrList, i)
		}
	}
	return nil
}
