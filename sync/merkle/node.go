package merkle

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"sort"
)

var (
	// ErrGone reports a node that the tree does not have, or has no more.
	ErrGone = errors.New("no such node")
	// ErrNode reports what is not the node that was asked for, or breaks the format.
	ErrNode = errors.New("not the node that was named")
)

// MaxHeight is the greatest height of a node. A higher tree would have more than
// 2^40 groups of level 12, each of which takes 2^60 trials to find.
const MaxHeight = 15

// A Ref names a node of a tree: its height, the first group in it, its hash. A
// leaf has height 0. The tree of no entries is one leaf, said to begin at the
// group of zeros.
type Ref struct {
	Height int
	First  [24]byte
	Hash   Hash
}

func (r Ref) String() string {
	return fmt.Sprintf("node %.8v of height %d at %x", r.Hash, r.Height, r.First)
}

// Top names the node whose hash is the root, as of the last [Tree.Root].
func (t *Tree) Top() Ref {
	r := Ref{Height: len(t.layers) - 1, Hash: t.top()}
	if l := t.layers[r.Height]; len(l.nodes) > 0 {
		r.First = l.nodes[0].first
	}
	return r
}

// Node returns the encoding of a node above the leaves, which says what its
// children are: at most 57,346 bytes, of which r.Hash is the hash. The caller owns
// them. The nodes are those of the last [Tree.Root]; for a leaf and for any other
// node Node returns [ErrGone].
func (t *Tree) Node(r Ref) ([]byte, error) {
	if r.Height < 1 || r.Height >= len(t.layers) {
		return nil, fmt.Errorf("%v: %w", r, ErrGone)
	}
	l := &t.layers[r.Height]
	i := l.find(r.First)
	if l.nodes[i].hash != r.Hash {
		return nil, fmt.Errorf("%v: %w", r, ErrGone)
	}
	return t.appendChildren([]byte{nodeVersion, byte(r.Height)}, r.Height, i), nil
}

// appendChildren appends the children of node i of a layer above the leaves.
func (t *Tree) appendChildren(b []byte, height, i int) []byte {
	below := t.layers[height-1].nodes
	s := t.layers[height].span(i)
	from, to := lowerBound(below, s.from), len(below)
	if !s.open {
		to = lowerBound(below, s.to)
	}
	b = slices.Grow(b, childLen*(to-from))
	for _, c := range below[from:to] {
		b = append(b, c.first[:]...)
		b = append(b, c.hash[:]...)
	}
	return b
}

// Clone returns a copy that stays as it is when t changes. It costs 60 bytes a
// leaf, and is for a walk that must not hold up the tree while it waits for a peer.
func (t *Tree) Clone() *Tree {
	c := &Tree{lim: t.lim, h: t.h.clone(), layers: slices.Clone(t.layers)}
	for i := range c.layers {
		l := &c.layers[i]
		l.nodes, l.dirty = slices.Clone(l.nodes), slices.Clone(l.dirty)
	}
	return c
}

// A span is the groups from one to before another. The nodes of one height share
// all groups out among them: the first has the group of zeros, whether it is there
// or not, and the last is open.
type span struct {
	from, to [prefixLen]byte
	open     bool // no end; to is zero
}

// ahead reports whether p comes before the end.
func (s span) ahead(p [prefixLen]byte) bool { return s.open || bytes.Compare(p[:], s.to[:]) < 0 }

// empty reports whether no group lies in s.
func (s span) empty() bool { return !s.ahead(s.from) }

// until returns s cut off at the group at which next begins.
func (s span) until(next [prefixLen]byte) span {
	if s.ahead(next) {
		s.to, s.open = next, false
	}
	return s
}

// span returns the groups of node i.
func (l *layer) span(i int) span {
	s := span{open: i+1 == len(l.nodes)}
	if i > 0 {
		s.from = l.nodes[i].first
	}
	if !s.open {
		s.to = l.nodes[i+1].first
	}
	return s
}

// childLen is the length of a child in the encoding of a node.
const childLen = prefixLen + 32

// children is the encoding of a node above the leaves, without version and height.
type children []byte

func (c children) len() int                    { return len(c) / childLen }
func (c children) first(i int) [prefixLen]byte { return [prefixLen]byte(c[i*childLen:]) }
func (c children) hash(i int) Hash             { return Hash(c[i*childLen+prefixLen:]) }
func (c children) span(i int, parent span) span {
	s := parent
	if i > 0 {
		s.from = c.first(i)
	}
	if i+1 < c.len() {
		s.to, s.open = c.first(i+1), false
	}
	return s
}

// find returns the child to which group p falls.
func (c children) find(p [prefixLen]byte) int {
	i := sort.Search(c.len(), func(i int) bool {
		first := c.first(i)
		return bytes.Compare(first[:], p[:]) > 0
	})
	return max(i-1, 0)
}

// check reports why c cannot be the children of a node that begins at first and
// has the groups of s.
func (c children) check(first [prefixLen]byte, s span) error {
	n := c.len()
	switch {
	case n == 0 || len(c)%childLen != 0:
		return fmt.Errorf("%w: %d bytes of children", ErrNode, len(c))
	case c.first(0) != first:
		return fmt.Errorf("%w: begins at %x", ErrNode, c.first(0))
	case !s.ahead(c.first(n - 1)):
		return fmt.Errorf("%w: has %x of the node behind it", ErrNode, c.first(n-1))
	}
	for i := 1; i < n; i++ {
		if a, b := c.first(i-1), c.first(i); bytes.Compare(a[:], b[:]) >= 0 {
			return fmt.Errorf("%w: child %x after %x", ErrNode, b, a)
		}
	}
	return nil
}
