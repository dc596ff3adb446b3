package merkle

import "fmt"

// MaxAsk is how many nodes [Tree.Diff] asks for at once, at most.
const MaxAsk = 128

// maxWaiting bounds the nodes that [Tree.Diff] remembers to ask for later, about
// 120 bytes each. Some 1024 for each height can come on top.
const maxWaiting = 1 << 18

// A Range is groups in which two trees differ, or may.
type Range struct {
	// From and To are what [Source.Scan] takes. A nil To has no end.
	From, To []byte
	// Leaf is the hash of the leaf in which the range lies in the other tree. All
	// its ranges follow one another, without a gap, and their entries together
	// have that hash (see [LeafHash]). It is zero if the other tree has no entries
	// in the range.
	Leaf Hash
}

// LeafHash returns the hash of a leaf, given all its entries in order.
func LeafHash(entries []Entry) Hash {
	h := NewLeafHasher()
	for _, e := range entries {
		h.Add(e)
	}
	return h.Sum()
}

// Diff calls fn with the ranges in which t, as of its last [Tree.Root], differs
// from the tree of a peer with the given top. A range lies in one leaf of each of
// the two trees. It need not hold a difference, since a leaf is compared as a
// whole; but outside of all ranges there is none. The ranges do not overlap. Their
// order says nothing, apart from what [Range] says.
//
// The top's hash has to be the root that is meant; what else the top says is
// checked like any answer. Diff calls ask with nodes above the leaves, at most
// [MaxAsk], the ones of one height together as far as that goes; [Tree.Node] of
// the peer's tree answers for each. Ask may answer for some of them, at least
// one, in the order asked: Diff then asks for the rest again.
//
// The peer need not be trusted. An answer is used after it hashes to what the node
// above said, and keeps the format; an answer that does not ends Diff with
// [ErrNode]. A peer that makes up a large tree, answer by answer, gets a large
// number of ranges from Diff, but memory stays bounded (about 40 MB and the
// answers); ask and fn can end it at any time by an error, which Diff returns.
func (t *Tree) Diff(top Ref, ask func([]Ref) ([][]byte, error), fn func(Range) error) error {
	d := differ{t: t, top: top, ask: ask, fn: fn, limit: maxWaiting}
	if err := d.run(); err != nil {
		return fmt.Errorf("merkle diff: %w", err)
	}
	return nil
}

type differ struct {
	t   *Tree
	top Ref
	ask func([]Ref) ([][]byte, error)
	fn  func(Range) error

	wait  [MaxHeight + 1][]remote // by height: nodes that differ and are to be asked for
	size  int                     // how many are in wait
	limit int                     // for size
}

// A remote is a node of the peer's tree and the groups that fall to it there.
type remote struct {
	Ref
	span
}

func (d *differ) run() error {
	if d.top.Height < 0 || d.top.Height > MaxHeight {
		return fmt.Errorf("%v: %w: limit %d", d.top, ErrNode, MaxHeight)
	}
	if d.top.Hash == d.t.top() {
		return nil
	}
	if err := d.visit(remote{d.top, span{open: true}}); err != nil {
		return err
	}
	// The lowest nodes come first. Before a height gets new nodes its old ones
	// are done, so no height gets more than the children of one batch.
	for h := 1; h < len(d.wait); h++ {
		if len(d.wait[h]) > 0 {
			if err := d.batch(h); err != nil {
				return err
			}
			h = 0
		}
	}
	return nil
}

// batch asks for some nodes of height h.
func (d *differ) batch(h int) error {
	q := d.wait[h]
	refs := make([]Ref, min(len(q), MaxAsk, max(1, (d.limit-d.size)/d.t.lim.children)))
	for i := range refs {
		refs[i] = q[i].Ref
	}
	answers, err := d.ask(refs)
	if err != nil {
		return err
	}
	if len(answers) == 0 || len(answers) > len(refs) {
		return fmt.Errorf("%w: %d answers for %d nodes", ErrNode, len(answers), len(refs))
	}
	for i, b := range answers {
		if err := d.open(q[i], b); err != nil {
			return fmt.Errorf("%v: %w", q[i].Ref, err)
		}
	}
	d.wait[h] = q[len(answers):]
	d.size -= len(answers)
	return nil
}

// open visits the children of r, which b encodes.
func (d *differ) open(r remote, b []byte) error {
	c, err := d.check(r, b)
	if err != nil {
		return err
	}
	for i := range c.len() {
		child := Ref{Height: r.Height - 1, First: c.first(i), Hash: c.hash(i)}
		if err := d.visit(remote{child, c.span(i, r.span)}); err != nil {
			return err
		}
	}
	return nil
}

// check checks that b is r, and returns its children.
func (d *differ) check(r remote, b []byte) (children, error) {
	if limit := nodeHead + d.t.lim.children*childLen; len(b) < nodeHead || len(b) > limit {
		return nil, fmt.Errorf("%w: %d bytes, limit %d", ErrNode, len(b), limit)
	}
	if b[0] != nodeVersion || int(b[1]) != r.Height {
		return nil, fmt.Errorf("%w: version %d, height %d", ErrNode, b[0], b[1])
	}
	c := children(b[nodeHead:])
	if got := d.t.h.sum(r.Height, c); got != r.Hash {
		return nil, fmt.Errorf("%w: hash %v", ErrNode, got)
	}
	if err := c.check(r.First, r.span); err != nil {
		return nil, err
	}
	if r.Ref == d.top && c.len() == 1 {
		return nil, fmt.Errorf("%w: one child at the top", ErrNode)
	}
	for i := 1; i < c.len(); i++ {
		if level := int(d.t.h.level(c.first(i))); level > r.Height {
			return nil, fmt.Errorf("%w: child %x of level %d begins no node", ErrNode, c.first(i), level)
		}
	}
	return c, nil
}

// visit compares r with the node in its place.
func (d *differ) visit(r remote) error {
	if r.Height < len(d.t.layers) {
		l := &d.t.layers[r.Height]
		i := l.find(r.First)
		if i < len(l.nodes) && l.nodes[i].hash == r.Hash {
			// Both have the same entries. In what falls to r beyond the own node
			// the peer has none.
			own := l.span(i)
			if err := d.yield(r.until(own.from), Hash{}); err != nil {
				return err
			}
			if own.open {
				return nil
			}
			return d.yield(span{from: own.to, to: r.to, open: r.open}, Hash{})
		}
	}
	if r.Height > 0 {
		d.wait[r.Height] = append(d.wait[r.Height], r)
		d.size++
		return nil
	}
	if r.Hash == d.t.h.sum(0, nil) { // of no entries
		r.Hash = Hash{}
	}
	return d.yield(r.span, r.Hash)
}

// yield passes s to the caller, in pieces that lie in one leaf.
func (d *differ) yield(s span, leaf Hash) error {
	l := &d.t.layers[0]
	for i := l.find(s.from); !s.empty(); i++ {
		piece := s
		if i+1 < len(l.nodes) {
			piece = s.until(l.nodes[i+1].first)
		}
		r := Range{From: bound(piece.from), Leaf: leaf}
		if !piece.open {
			r.To = bound(piece.to)
		}
		if err := d.fn(r); err != nil {
			return err
		}
		if piece.open {
			return nil
		}
		s.from = piece.to
	}
	return nil
}
