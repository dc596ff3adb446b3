package merkle

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

// MaxProof is the length of a proof, at most. A usual one has 15 kB; a longer one
// is of a leaf with a very large group.
const MaxProof = 16 << 20

// ErrProof reports bytes that are not a proof, or not one for that key and root.
var ErrProof = errors.New("not a proof")

const proofVersion = 1

// Prove brings the tree up to date with src, as [Tree.Root] does, and returns a
// proof of which entries have the key, if any, from which [Verify] gets them. It
// proves the same for all keys of the leaf. The caller owns it.
func (t *Tree) Prove(src Source, key []byte) ([]byte, error) {
	if _, err := t.Root(src); err != nil {
		return nil, err
	}
	top := len(t.layers) - 1
	group := Prefix(key)
	b := []byte{proofVersion, byte(top)}
	for h := top; h > 0; h-- {
		at := len(b)
		b = t.appendChildren(append(b, 0, 0), h, t.layers[h].find(group))
		binary.BigEndian.PutUint16(b[at:], uint16((len(b)-at-2)/childLen))
	}
	b, err := t.appendLeaf(b, src, group)
	if err != nil {
		return nil, fmt.Errorf("merkle proof: %w", err)
	}
	return b, nil
}

// appendLeaf appends the entries of the leaf to which the group falls.
func (t *Tree) appendLeaf(b []byte, src Source, group [prefixLen]byte) ([]byte, error) {
	l := &t.layers[0]
	if len(l.nodes) == 0 {
		return b, nil
	}
	i := l.find(group)
	s := l.span(i)
	var to []byte
	if !s.open {
		to = bound(s.to)
	}
	start := len(b)
	err := src.Scan(bound(s.from), to, func(e Entry) error {
		b = binary.AppendUvarint(b, uint64(len(e.Key)))
		b = append(b, e.Key...)
		b = binary.AppendUvarint(b, uint64(len(e.Value)))
		b = append(b, e.Value...)
		if len(b) > MaxProof {
			return fmt.Errorf("longer than %d bytes", MaxProof)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if t.h.sum(0, b[start:]) != l.nodes[i].hash {
		return nil, ErrStale
	}
	return b, nil
}

// Verify returns the entries with the key in the tree that has the root: what
// the proof proves. None means that there are none, which is proven as well.
// Entries are parts of proof. What proves nothing gives [ErrProof].
//
// Verify takes the author of the root to have made it from a set of entries. It
// needs no key: for any root, no two proofs for one key have different entries.
func Verify(root Hash, key, proof []byte) ([]Entry, error) {
	path, leaf, err := parseProof(proof)
	if err != nil {
		return nil, err
	}
	h, group := newNodeHasher(), Prefix(key)
	want, s := root, span{open: true}
	var first [prefixLen]byte // of the node at hand
	for i, c := range path {
		height := len(path) - i
		if i == 0 {
			if c.len() == 1 {
				return nil, fmt.Errorf("%w: one child at the top", ErrProof)
			}
			first = c.first(0)
		}
		if h.sum(height, c) != want {
			return nil, fmt.Errorf("%w: hash of node of height %d", ErrProof, height)
		}
		if err := c.check(first, s); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrProof, err)
		}
		at := c.find(group)
		first, want, s = c.first(at), c.hash(at), c.span(at, s)
	}
	if h.sum(0, leaf) != want {
		return nil, fmt.Errorf("%w: hash of leaf", ErrProof)
	}
	if len(path) > 0 && len(leaf) == 0 {
		return nil, fmt.Errorf("%w: empty leaf", ErrProof)
	}
	return findEntries(leaf, key, s)
}

// findEntries returns the entries of a leaf with the groups of s that have the key.
func findEntries(leaf, key []byte, s span) (found []Entry, err error) {
	var last []byte
	for start := true; len(leaf) > 0; start = false {
		var e Entry
		if e, leaf, err = cutEntry(leaf); err != nil {
			return nil, err
		}
		switch p := Prefix(e.Key); {
		case bytes.Compare(p[:], s.from[:]) < 0, !s.ahead(p):
			return nil, fmt.Errorf("%w: %x in another leaf", ErrProof, e.Key)
		case !start && bytes.Compare(last, e.Key) > 0:
			return nil, fmt.Errorf("%w: %x after %x", ErrProof, e.Key, last)
		}
		if bytes.Equal(e.Key, key) {
			found = append(found, e)
		}
		last = e.Key
	}
	return found, nil
}

// parseProof splits a proof into the nodes above the leaf, the top one first, and
// the leaf.
func parseProof(b []byte) (path []children, leaf []byte, err error) {
	if len(b) < 2 || len(b) > MaxProof || b[0] != proofVersion || b[1] > MaxHeight {
		return nil, nil, ErrProof
	}
	height := int(b[1])
	b = b[2:]
	for range height {
		if len(b) < 2 {
			return nil, nil, fmt.Errorf("%w: too short", ErrProof)
		}
		n := int(binary.BigEndian.Uint16(b))
		b = b[2:]
		if n == 0 || n > standard.children || len(b) < n*childLen {
			return nil, nil, fmt.Errorf("%w: %d children in %d bytes", ErrProof, n, len(b))
		}
		path = append(path, children(b[:n*childLen:n*childLen]))
		b = b[n*childLen:]
	}
	return path, b, nil
}

// cutEntry cuts the first entry off a leaf.
func cutEntry(b []byte) (e Entry, rest []byte, err error) {
	if e.Key, b, err = cutBytes(b); err != nil {
		return e, nil, err
	}
	e.Value, b, err = cutBytes(b)
	return e, b, err
}

// cutBytes cuts off bytes that follow their length.
func cutBytes(b []byte) (v, rest []byte, err error) {
	size, n := binary.Uvarint(b)
	if n <= 0 || n > 1 && b[n-1] == 0 || size > uint64(len(b)-n) {
		return nil, nil, fmt.Errorf("%w: bad length in the leaf", ErrProof)
	}
	end := n + int(size)
	return b[n:end:end], b[end:], nil
}
