package merkle

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/zeebo/blake3"
)

// ErrSaved reports bytes that are not a saved tree, are damaged, or belong to
// another key. [Build] makes the tree again.
var ErrSaved = errors.New("not a saved tree")

const (
	savedVersion = 1
	savedDomain  = "roamfs merkle saved v1"
	savedHead    = 1 + 16 + 1
	savedLeaf    = prefixLen + 32 + 1
	savedCheck   = 32
)

// MarshalBinary saves the tree, including what was touched since the last Root.
// It takes 57 bytes for a leaf. The caller owns the result, and has to keep it
// together with the state of the source that it describes: [Load] cannot know
// whether the source changed in between.
func (t *Tree) MarshalBinary() ([]byte, error) {
	l := &t.layers[0]
	b := make([]byte, 0, savedHead+binary.MaxVarintLen64+savedLeaf*len(l.nodes)+savedCheck)
	check := t.h.check()
	b = append(b, savedVersion)
	b = append(b, check[:]...)
	b = append(b, bit(l.all))
	b = binary.AppendUvarint(b, uint64(len(l.nodes)))
	for i := range l.nodes {
		n := &l.nodes[i]
		b = append(b, n.first[:]...)
		b = append(b, n.hash[:]...)
		b = append(b, bit(n.dirty))
	}
	return append(b, sumSaved(b)...), nil
}

func bit(set bool) byte {
	if set {
		return 1
	}
	return 0
}

func sumSaved(b []byte) []byte {
	sum := make([]byte, savedCheck)
	blake3.DeriveKey(savedDomain, b, sum)
	return sum
}

// Load makes the tree again that MarshalBinary saved under the same key. It
// takes a few milliseconds for a million files. Bytes that are not what
// MarshalBinary wrote give [ErrSaved].
func Load(key [32]byte, b []byte) (*Tree, error) { return load(key, b, standard) }

func load(key [32]byte, b []byte, lim limits) (*Tree, error) {
	if len(b) < savedHead+1+savedCheck || b[0] != savedVersion {
		return nil, ErrSaved
	}
	body, sum := b[:len(b)-savedCheck], b[len(b)-savedCheck:]
	if !bytes.Equal(sumSaved(body), sum) {
		return nil, fmt.Errorf("%w: damaged", ErrSaved)
	}
	t := &Tree{lim: lim, h: newHasher(key), layers: []layer{{}}}
	if check := t.h.check(); !bytes.Equal(check[:], body[1:17]) {
		return nil, fmt.Errorf("%w: of another key", ErrSaved)
	}
	count, n := binary.Uvarint(body[savedHead:])
	if n <= 0 || n > 1 && body[savedHead+n-1] == 0 {
		return nil, fmt.Errorf("%w: bad count", ErrSaved)
	}
	rest := body[savedHead+n:]
	if uint64(len(rest))%savedLeaf != 0 || count != uint64(len(rest)/savedLeaf) {
		return nil, fmt.Errorf("%w: %d leaves in %d bytes", ErrSaved, count, len(rest))
	}
	l := &t.layers[0]
	switch all := body[17]; {
	case all == 1 && count == 0:
		l.all = true
	case all != 0:
		return nil, fmt.Errorf("%w: bad flags", ErrSaved)
	}
	l.nodes = make([]node, count)
	for i := range l.nodes {
		if err := l.nodes[i].load(rest[i*savedLeaf:]); err != nil {
			return nil, err
		}
		if i > 0 && bytes.Compare(l.nodes[i-1].first[:], l.nodes[i].first[:]) >= 0 {
			return nil, fmt.Errorf("%w: leaves out of order", ErrSaved)
		}
		l.nodes[i].level = t.h.level(l.nodes[i].first)
		if l.nodes[i].dirty {
			l.dirty = append(l.dirty, i)
		}
	}
	t.climb(nil)
	return t, nil
}

func (n *node) load(b []byte) error {
	copy(n.first[:], b)
	copy(n.hash[:], b[prefixLen:])
	n.dirty = b[prefixLen+32] == 1
	if b[prefixLen+32] > 1 {
		return fmt.Errorf("%w: bad leaf", ErrSaved)
	}
	return nil
}
