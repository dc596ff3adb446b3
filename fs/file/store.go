package file

import (
	"context"
	"fmt"

	"golang.org/x/sync/errgroup"

	"github.com/roamfs/roamfs/sync/block"
	"github.com/roamfs/roamfs/sync/chunk"
	"github.com/roamfs/roamfs/sync/tree"
)

const (
	// holeUnit is where holes begin and end, and the least of one, in bytes.
	// With Fixed128K it is double that, so that pieces stay where they are.
	holeUnit = 64 << 10
)

// store cuts the content of a commit's layer, seals what is new and puts it,
// and fills in c.content and c.made. The blocks are not durable yet.
func (t *Table) store(ctx context.Context, c *commit) error {
	l := c.layer
	if lack := l.claim() - l.room; lack > 0 && t.purse.take(ctx, lack) == nil {
		l.room += lack // an earlier try has spent it
	}
	credit := max(0, l.room-l.held())
	c.credit = credit
	defer func() { l.room -= credit - c.credit }() // the blocks hold that now
	if l.file != nil {
		select {
		case t.storing <- struct{}{}:
			defer func() { <-t.storing }()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	switch {
	case l.blank():
		c.content = tree.Content{Kind: tree.File, Size: l.size, Ref: c.base.ref, Inline: c.base.inline, Mode: c.f.mode}
		c.made = &version{ino: c.f.ino, size: l.size, ref: c.base.ref, inline: c.base.inline, loading: make(chan struct{}, 1)}
		c.made.list.Store(c.base.list.Load())
		return nil
	case l.size <= tree.MaxInline:
		p := make([]byte, l.size)
		if err := t.readLayer(ctx, c, p, 0); err != nil {
			return err
		}
		c.inline(p, c.f.mode)
		return nil
	}
	s, err := t.newCutter(ctx, c)
	if err != nil {
		return err
	}
	list, err := s.cut(ctx)
	if err != nil {
		return err
	}
	ref := tree.Ref{Cutter: uint8(s.cutter)}
	ref.Depth, ref.ID, err = chunk.Build(list, func(plain []byte) (block.ID, error) {
		return t.seal(ctx, c, block.List, plain)
	})
	if err != nil {
		return err
	}
	if ref.ID.IsZero() {
		ref = tree.Ref{}
	}
	c.content = tree.Content{Kind: tree.File, Size: l.size, Ref: ref, Mode: c.f.mode}
	c.made = &version{ino: c.f.ino, size: l.size, ref: ref, loading: make(chan struct{}, 1)}
	t.keepLayout(c.made, list)
	return nil
}

// inline makes p the content.
func (c *commit) inline(p []byte, mode uint32) {
	c.content = tree.Content{Kind: tree.File, Size: int64(len(p)), Inline: p, Mode: mode}
	c.made = &version{ino: c.f.ino, size: int64(len(p)), inline: p, loading: make(chan struct{}, 1)}
	c.made.flat()
}

// readLayer reads p of what the commit's layer shows.
func (t *Table) readLayer(ctx context.Context, c *commit, p []byte, off int64) error {
	c.f.mu.RLock()
	pieces := gather([]*layer{c.layer}, c.base, p, 0, off, nil)
	c.f.mu.RUnlock()
	return t.readPieces(ctx, c.base, p, pieces, nil)
}

// seal seals a block and puts it.
func (t *Table) seal(ctx context.Context, c *commit, typ block.Type, plain []byte) (block.ID, error) {
	select {
	case t.sealing <- struct{}{}:
		defer func() { <-t.sealing }()
	case <-ctx.Done():
		return block.ID{}, ctx.Err()
	}
	id, sealed, err := t.o.Keys.Seal(typ, plain)
	if err != nil {
		return id, err
	}
	c.f.mu.Lock()
	if c.f.making != nil {
		c.f.making[id] = struct{}{}
	}
	c.f.mu.Unlock()
	c.mu.Lock()
	n := min(c.credit, roundUp(int64(len(sealed))))
	c.credit -= n
	c.blocks = true
	c.mu.Unlock()
	t.purse.spend(n)
	if err := t.o.Blocks.Put(ctx, id, sealed); err != nil {
		return id, fmt.Errorf("put block: %w", err)
	}
	return id, nil
}

// cutter cuts one content anew where it changed.
type cutter struct {
	t      *Table
	c      *commit
	l      *layer
	size   int64
	cutter chunk.Cutter
	split  *chunk.Splitter
	old    *layout // of the base; without extents if none can stay
	keeps  bool    // the base was cut by the same cutter
	unit   int64   // of holes
	win    *window
}

// newCutter chooses how the content is cut.
func (t *Table) newCutter(ctx context.Context, c *commit) (*cutter, error) {
	l, base := c.layer, c.base
	s := &cutter{t: t, c: c, l: l, size: l.size, old: &layout{}, unit: holeUnit}
	prev := chunk.Cutter(base.ref.Cutter)
	// What the layer does not cover shows the base, whose list is needed then.
	if !l.conceals() {
		y, err := t.layout(ctx, base)
		if err != nil {
			return nil, err
		}
		s.old = y
	} else {
		prev = 0 // rewritten as a whole
	}
	var head []byte
	if n := min(l.size, chunk.HeadLen); prev == 0 || prev == chunk.Whole {
		head = make([]byte, n)
		if err := t.readLayer(ctx, c, head, 0); err != nil {
			return nil, err
		}
	}
	inPlace := l.size == l.lower && l.hid.n == 0 && len(s.old.ext) > 0
	s.cutter = chunk.Choose(l.size, head, inPlace, prev)
	if s.cutter == chunk.Fixed128K {
		s.unit = 2 * holeUnit
	}
	s.keeps = prev == s.cutter
	if prev == chunk.Whole && s.cutter != prev {
		s.old = &layout{} // it was small: cut all of it anew
	}
	var err error
	s.split, err = chunk.NewSplitter(s.cutter, t.chunkKey, l.size)
	return s, err
}

// cut returns the list of the content; its blocks are put.
func (s *cutter) cut(ctx context.Context) (chunk.List, error) {
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(s.t.workers)
	list, ids, err := s.pieces(gctx, g)
	if werr := g.Wait(); werr != nil {
		err = werr // which made pieces fail
	}
	if s.win != nil {
		s.win.release(s.t)
	}
	if err != nil {
		return nil, err
	}
	for i, id := range ids {
		if id != nil {
			list[i].ID = *id
		}
	}
	return merge(list), nil
}

// pieces returns the extents of the content and, for those that g is sealing,
// where their ID will be.
func (s *cutter) pieces(ctx context.Context, g *errgroup.Group) (list chunk.List, ids []*block.ID, err error) {
	add := func(e chunk.Extent, id *block.ID) { list, ids = append(list, e), append(ids, id) }
	k := 0 // the first old extent that begins at off or later
	for off := int64(0); off < s.size; off += list[len(list)-1].Len {
		if err := ctx.Err(); err != nil {
			return nil, nil, err
		}
		for k < len(s.old.ext) && s.old.off[k] < off {
			k++
		}
		if e, ok := s.stays(k, off); ok {
			add(e, nil)
			continue
		}
		if n := s.hole(off); n > 0 {
			add(chunk.Extent{Len: n, Hole: true}, nil)
			continue
		}
		p, win, err := s.next(ctx, off)
		if err != nil {
			return nil, nil, err
		}
		if zeros(p) {
			win.release(s.t)
			add(chunk.Extent{Len: int64(len(p)), Hole: true}, nil)
			continue
		}
		id := new(block.ID)
		add(chunk.Extent{Len: int64(len(p))}, id)
		job := func() (err error) {
			defer win.release(s.t)
			*id, err = s.t.seal(ctx, s.c, block.Data, p)
			return err
		}
		if int64(len(p)) < s.size {
			g.Go(job)
		} else if err := job(); err != nil { // the only one
			return nil, nil, err
		}
	}
	return list, ids, nil
}

// merge merges adjacent holes.
func merge(l chunk.List) chunk.List {
	out := l[:0]
	for _, e := range l {
		if n := len(out); e.Hole && n > 0 && out[n-1].Hole {
			out[n-1].Len += e.Len
			continue
		}
		out = append(out, e)
	}
	return out
}

func zeros(p []byte) bool {
	for len(p) >= 8 {
		if p[0]|p[1]|p[2]|p[3]|p[4]|p[5]|p[6]|p[7] != 0 {
			return false
		}
		p = p[8:]
	}
	for _, b := range p {
		if b != 0 {
			return false
		}
	}
	return true
}

// stays reports whether old extent k begins at off and can be used as it is.
func (s *cutter) stays(k int, off int64) (chunk.Extent, bool) {
	if k >= len(s.old.ext) || s.old.off[k] != off {
		return chunk.Extent{}, false
	}
	e := s.old.ext[k]
	if e.Hole || off+e.Len > s.size || s.l.touches(off, off+e.Len) {
		return e, false
	}
	return e, !s.keeps || s.split.Keeps(s.c.base.size, off, int(e.Len))
}

// zeroRun returns the end of the run of zeros at off that are known without
// reading; off if there is none.
func (s *cutter) zeroRun(off int64) int64 {
	for off < s.size {
		end, hole := s.extent(off)
		if !hole {
			return off
		}
		off = end
	}
	return off
}

// extent is extentAt for the content that is cut.
func (s *cutter) extent(off int64) (end int64, hole bool) {
	y := s.c.base.list.Load()
	if y == nil {
		y = s.old // not looked at: the layer covers all
	}
	return extentAt([]*layer{s.l}, s.c.base, y, off, s.size)
}

// hole returns the length of the hole that begins at off, or 0.
func (s *cutter) hole(off int64) int64 {
	if off%s.unit != 0 && s.fixed() {
		return 0
	}
	end := s.zeroRun(off)
	if end < s.size {
		end -= end % s.unit
	}
	if end-off < s.unit && end < s.size || end <= off {
		return 0
	}
	return end - off
}

func (s *cutter) fixed() bool { return s.cutter == chunk.Fixed64K || s.cutter == chunk.Fixed128K }

// next returns the piece that begins at off, where there is neither a hole nor
// an old extent that stays. The window that it lies in is released after use.
func (s *cutter) next(ctx context.Context, off int64) ([]byte, *window, error) {
	most := off + int64(s.split.Max(off))
	// A hole ends the piece before it.
	for pos := off; pos < most; {
		end, hole := s.extent(pos)
		if hole {
			from := (pos + s.unit - 1) / s.unit * s.unit
			if to := s.zeroRun(pos); from > off && from < most && (to-from >= s.unit || to == s.size && to > from) {
				most = from
			}
			end = max(end, s.zeroRun(pos))
		}
		pos = end
	}
	p, err := s.read(ctx, off, most)
	if err != nil {
		return nil, nil, err
	}
	n := s.split.Next(off, p)
	if n == 0 {
		return nil, nil, fmt.Errorf("cut at %d of %d: %w", off, s.size, chunk.ErrCutter)
	}
	s.win.users.Add(1)
	return p[:n], s.win, nil
}
