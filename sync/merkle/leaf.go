package merkle

import "fmt"

// Leaf returns the range, as [Source.Scan] takes it, of the entries of the leaf
// with hash r.Hash to which group r.First falls, which need not be its first one.
// The leaves are those of the last [Tree.Root]; for any other one, and if r.Height
// is not 0, Leaf returns [ErrGone].
func (t *Tree) Leaf(r Ref) (from, to []byte, err error) {
	l := &t.layers[0]
	i := l.find(r.First)
	if r.Height != 0 || i == len(l.nodes) || l.nodes[i].hash != r.Hash {
		return nil, nil, fmt.Errorf("%v: %w", r, ErrGone)
	}
	s := l.span(i)
	if !s.open {
		to = bound(s.to)
	}
	return bound(s.from), to, nil
}

// A LeafHasher computes the hash of a leaf entry by entry, for who does not want
// to hold all of it in memory (see [LeafHash]).
type LeafHasher struct{ h *hasher }

// NewLeafHasher returns a hasher of a leaf without entries so far.
func NewLeafHasher() *LeafHasher {
	h := newNodeHasher()
	h.begin(0)
	return &LeafHasher{h}
}

// Add adds the next entry in order.
func (l *LeafHasher) Add(e Entry) { l.h.entry(e) }

// Sum returns the hash of the entries added since the last Sum, and begins a new
// leaf.
func (l *LeafHasher) Sum() Hash {
	sum := l.h.end()
	l.h.begin(0)
	return sum
}
