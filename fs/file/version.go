package file

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"sort"
	"sync/atomic"

	"github.com/roamfs/roamfs/sync/block"
	"github.com/roamfs/roamfs/sync/chunk"
	"github.com/roamfs/roamfs/sync/tree"
)

// version is one committed content of an inode. It is immutable, except that
// the list of its extents is loaded when it is first needed.
type version struct {
	ino    tree.Ino // whose content it is, for Hint
	size   int64
	ref    tree.Ref
	inline []byte
	dots   []tree.Dot // the tree.Node.Base that it was shown with

	list    atomic.Pointer[layout]
	loading chan struct{} // semaphore of one
}

// layout is where the bytes of a content are. It is read-only.
type layout struct {
	ext chunk.List
	off []int64 // where each extent begins
}

func newLayout(l chunk.List) *layout {
	y := &layout{ext: l, off: make([]int64, len(l))}
	var off int64
	for i, e := range l {
		y.off[i] = off
		off += e.Len
	}
	return y
}

// find returns the extent that holds off, which is inside of the content.
func (y *layout) find(off int64) int {
	return sort.Search(len(y.off), func(i int) bool { return y.off[i] > off }) - 1
}

func newVersion(n tree.Node) *version {
	v := &version{ino: n.Ino, size: n.Size, ref: n.Ref, inline: n.Inline, dots: n.Base, loading: make(chan struct{}, 1)}
	v.flat()
	return v
}

// flat sets the list of a content that has no list block.
func (v *version) flat() {
	switch {
	case v.size == 0 || len(v.inline) > 0:
		v.list.Store(&layout{})
	case v.ref.Depth == 0:
		v.list.Store(newLayout(chunk.List{{Len: v.size, ID: v.ref.ID, Hole: v.ref.ID.IsZero()}}))
	}
}

// shows reports whether n is this version.
func (v *version) shows(n tree.Node) bool {
	return v.same(n) && slices.Equal(v.dots, n.Base)
}

// same reports whether n has the same content.
func (v *version) same(n tree.Node) bool {
	return v.size == n.Size && v.ref.ID == n.Ref.ID && v.ref.Depth == n.Ref.Depth && bytes.Equal(v.inline, n.Inline)
}

// layout returns the extents of v. It may have to fetch list blocks.
func (t *Table) layout(ctx context.Context, v *version) (*layout, error) {
	if y := v.list.Load(); y != nil {
		return y, nil
	}
	select {
	case v.loading <- struct{}{}:
		defer func() { <-v.loading }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if y := v.list.Load(); y != nil {
		return y, nil
	}
	if y, ok := t.lists.get(v.ref.ID, true); ok {
		v.list.Store(y)
		return y, nil
	}
	l, err := chunk.Load(v.ref.Depth, v.ref.ID, v.size, func(id block.ID) ([]byte, error) {
		return t.listBlock(ctx, v.ino, id)
	})
	if err != nil {
		return nil, fmt.Errorf("list of %v: %w", v.ino, err)
	}
	return t.keepLayout(v, l), nil
}

func (t *Table) listBlock(ctx context.Context, ino tree.Ino, id block.ID) ([]byte, error) {
	t.hint(ino, id)
	sealed, err := t.o.Blocks.Get(ctx, id)
	if err != nil {
		return nil, err
	}
	return t.o.Keys.Open(id, block.List, sealed)
}

// keepLayout sets the list of v and caches it for whoever opens it again.
func (t *Table) keepLayout(v *version, l chunk.List) *layout {
	y := newLayout(l)
	v.list.Store(y)
	if v.ref.Depth > 0 {
		t.lists.put(v.ref.ID, y, int64(len(l))*56, false)
	}
	return y
}

// readVersion reads p, which lies inside of v. Through ahead, which may be nil,
// the reader's handle learns what is read.
func (t *Table) readVersion(ctx context.Context, v *version, p []byte, off int64, ahead *ahead) error {
	if len(v.inline) > 0 {
		copy(p, v.inline[off:])
		return nil
	}
	y, err := t.layout(ctx, v)
	if err != nil {
		return err
	}
	if ahead != nil {
		ahead.reading(v, y, off, len(p))
	}
	for i := y.find(off); len(p) > 0; i++ {
		e, from := y.ext[i], off-y.off[i]
		n := int(min(int64(len(p)), e.Len-from))
		if e.Hole {
			clear(p[:n])
		} else {
			data, err := t.chunk(ctx, v.ino, e, ahead)
			if err != nil {
				return err
			}
			copy(p[:n], data[from:])
		}
		p, off = p[n:], off+int64(n)
	}
	return nil
}

// each calls fn with every block of v that can be named without fetching.
func (t *Table) eachBlock(v *version, fn func(block.ID)) {
	if v.ref.ID.IsZero() {
		return
	}
	if v.ref.Depth == 0 {
		fn(v.ref.ID)
		return
	}
	// The blocks below a list block that is not resident cannot be read
	// before it is; they are found again once somebody has.
	_ = chunk.Blocks(v.ref.Depth, v.ref.ID, v.size, func(id block.ID) ([]byte, error) {
		if !t.o.Blocks.Has(id) {
			return nil, block.ErrNoReplica
		}
		return t.listBlock(context.Background(), v.ino, id)
	}, func(id block.ID, _ block.Type) error {
		fn(id)
		return nil
	})
	if y := v.list.Load(); y != nil {
		for _, e := range y.ext {
			if !e.Hole {
				fn(e.ID)
			}
		}
	}
}

func (t *Table) hint(ino tree.Ino, id block.ID) {
	if t.o.Hint != nil && !t.o.Blocks.Has(id) {
		t.o.Hint(ino, id)
	}
}
