package merkle

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
)

var (
	// ErrOrder reports a [Source] that yields entries out of order or out of the
	// range it was asked for.
	ErrOrder = errors.New("entries out of order")
	// ErrStale reports a [Source] that lacks a group which the tree saw there and
	// which was not touched since. [Build] makes a right tree again. Not every
	// change without a Touch is noticed.
	ErrStale = errors.New("entries changed without notice")
)

// An Entry is one record. Key and Value are only read, and only until the call
// that got them returns.
type Entry struct {
	Key   []byte
	Value []byte // in the replicated tree: dot and value
}

// A Source holds the entries of a tree.
type Source interface {
	// Scan calls fn for each entry whose key is at least from and less than to,
	// in ascending order; a nil to has no end. It returns the first error of fn,
	// or its own.
	Scan(from, to []byte, fn func(Entry) error) error
}

// limits bound a node, whatever the names are.
type limits struct {
	groups   int // in a leaf
	bytes    int // of keys and values in a leaf before its last group
	children int // of a node above
}

var standard = limits{groups: 1024, bytes: 1 << 20, children: 1024}

// A Tree is the hashes over a [Source]. It follows the source by being told what
// changed there. It is not safe for concurrent use, and the source must not
// change while [Build] or [Tree.Root] read it.
type Tree struct {
	lim    limits
	h      *hasher
	layers []layer // by height; the leaves always, others while there is more than one node below
}

// Build reads all of src. The key decides where nodes end. It is a secret of the
// hive, the same on all its devices and for good: with another key the same
// entries have another root.
func Build(key [32]byte, src Source) (*Tree, error) { return build(key, src, standard) }

func build(key [32]byte, src Source, lim limits) (*Tree, error) {
	t := &Tree{lim: lim, h: newHasher(key), layers: []layer{{all: true}}}
	if _, err := t.Root(src); err != nil {
		return nil, err
	}
	return t, nil
}

// Touch says that entries of the group (see [Prefix]) were added, removed or
// changed in the source, or that they may have been. It costs a search of the
// leaves in memory.
func (t *Tree) Touch(prefix [24]byte) { t.layers[0].touch(prefix) }

// Root brings the tree up to date with src, reading the leaves that were touched
// since the last time and no others, and returns the root. On an error the tree is
// as it was, and so is what was touched.
func (t *Tree) Root(src Source) (Hash, error) {
	leaves := &t.layers[0]
	regs := leaves.regions()
	for i := range regs {
		lo, hi := leaves.bounds(regs[i])
		nodes, err := t.scan(src, lo, hi)
		if err != nil {
			return Hash{}, fmt.Errorf("merkle root: %w", err)
		}
		regs[i].nodes = nodes
	}
	t.climb(leaves.replace(regs))
	return t.top(), nil
}

// top returns the hash of the one node of the last layer.
func (t *Tree) top() Hash {
	if l := t.layers[len(t.layers)-1]; len(l.nodes) > 0 {
		return l.nodes[0].hash
	}
	t.h.begin(0)
	return t.h.end()
}

// climb brings the layers above the leaves up to date, given the first groups of
// the leaves that changed.
func (t *Tree) climb(changed [][prefixLen]byte) {
	for h := 1; ; h++ {
		below := t.layers[h-1].nodes
		if len(below) <= 1 {
			clear(t.layers[h:])
			t.layers = t.layers[:h]
			return
		}
		if h == len(t.layers) {
			t.layers = append(t.layers, layer{height: h, all: true})
		}
		l := &t.layers[h]
		for _, p := range changed {
			if !l.all {
				l.touch(p)
			}
		}
		regs := l.regions()
		for i := range regs {
			from, to := 0, len(below)
			lo, hi := l.bounds(regs[i])
			if lo != nil {
				from = lowerBound(below, *lo)
			}
			if hi != nil {
				to = lowerBound(below, *hi)
			}
			regs[i].nodes = t.group(h, below[from:to])
		}
		changed = l.replace(regs)
	}
}

func lowerBound(nodes []node, p [prefixLen]byte) int {
	i, _ := slices.BinarySearchFunc(nodes, p, func(n node, p [prefixLen]byte) int {
		return bytes.Compare(n.first[:], p[:])
	})
	return i
}

// group makes nodes of height h out of the children of one region.
func (t *Tree) group(h int, children []node) (out []node) {
	n := 0 // children of the open node
	for i := range children {
		c := &children[i]
		if i == 0 || int(c.level) > h || n >= t.lim.children {
			if i > 0 {
				out[len(out)-1].hash = t.h.end()
			}
			out = append(out, node{first: c.first, level: c.level})
			t.h.begin(h)
			n = 0
		}
		t.h.child(c)
		n++
	}
	if len(out) > 0 {
		out[len(out)-1].hash = t.h.end()
	}
	return out
}

// scan makes leaves out of the entries from group lo to before group hi, where
// nil is the end. A lo that is not nil was there before and begins a leaf.
func (t *Tree) scan(src Source, lo, hi *[prefixLen]byte) ([]node, error) {
	var from, to []byte
	if lo != nil {
		from = bound(*lo)
	}
	if hi != nil {
		to = bound(*hi)
	}
	var (
		out   []node
		group [prefixLen]byte
		last  []byte
		n     int // groups in the open leaf
		size  int // bytes in it
	)
	err := src.Scan(from, to, func(e Entry) error {
		p := Prefix(e.Key)
		switch first := len(out) == 0; {
		case !first && bytes.Compare(last, e.Key) > 0:
			return fmt.Errorf("%w: %x after %x", ErrOrder, e.Key, last)
		case lo != nil && bytes.Compare(p[:], lo[:]) < 0, hi != nil && bytes.Compare(p[:], hi[:]) >= 0:
			return fmt.Errorf("%w: %x was not asked for", ErrOrder, e.Key)
		case first && lo != nil && p != *lo:
			return ErrStale
		case first || p != group:
			level := t.h.level(p)
			if first || level > 0 || n >= t.lim.groups || size >= t.lim.bytes {
				if !first {
					out[len(out)-1].hash = t.h.end()
				}
				out = append(out, node{first: p, level: level})
				t.h.begin(0)
				n, size = 0, 0
			}
			group = p
			n++
		}
		t.h.entry(e)
		size += len(e.Key) + len(e.Value)
		last = append(last[:0], e.Key...)
		return nil
	})
	if err != nil {
		return nil, err
	}
	if len(out) == 0 {
		if lo != nil {
			return nil, ErrStale
		}
		return nil, nil
	}
	out[len(out)-1].hash = t.h.end()
	return out, nil
}
