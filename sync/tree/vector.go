package tree

import (
	"encoding/binary"
	"math"
	"slices"
)

// MaxActors bounds the entries of an encoded Vector.
const MaxActors = 4096

// Vector is a version vector: of each actor, how many of its commit batches a
// state contains. A missing actor and one with 0 mean the same.
type Vector map[Actor]uint64

// Has reports whether the batch d is contained.
func (v Vector) Has(d Dot) bool { return d.Ctr <= v[d.Actor] }

// Add makes v contain d, and with it all earlier batches of its actor.
func (v Vector) Add(d Dot) {
	if d.Ctr > v[d.Actor] {
		v[d.Actor] = d.Ctr
	}
}

// Clone returns a copy.
func (v Vector) Clone() Vector {
	c := make(Vector, len(v))
	for a, n := range v {
		c[a] = n
	}
	return c
}

// Merge raises v to the pointwise maximum of v and o.
func (v Vector) Merge(o Vector) {
	for a, n := range o {
		v.Add(Dot{a, n})
	}
}

// Covers reports whether v contains everything that o contains.
func (v Vector) Covers(o Vector) bool {
	for a, n := range o {
		if n > v[a] {
			return false
		}
	}
	return true
}

// Equal reports whether both contain the same.
func (v Vector) Equal(o Vector) bool { return v.Covers(o) && o.Covers(v) }

// Append appends the canonical encoding: the number of entries, then actor and
// counter of each in the order of the actors, without zeros.
func (v Vector) Append(b []byte) []byte {
	as := make([]Actor, 0, len(v))
	for a, n := range v {
		if n > 0 {
			as = append(as, a)
		}
	}
	slices.SortFunc(as, Actor.Compare)
	b = binary.AppendUvarint(b, uint64(len(as)))
	for _, a := range as {
		b = append(b, a[:]...)
		b = binary.AppendUvarint(b, v[a])
	}
	return b
}

// DecodeVector takes one Append off the front of b.
func DecodeVector(b []byte) (v Vector, rest []byte, err error) {
	r := reader{b: b}
	n := int(r.uvarint(MaxActors))
	if n > len(r.b)/9 {
		r.fail("vector ends early")
		n = 0
	}
	v = make(Vector, n)
	var last Actor
	for i := range n {
		var a Actor
		copy(a[:], r.take(len(a)))
		ctr := r.uvarint(math.MaxInt64)
		if r.err != nil {
			break
		}
		if ctr == 0 || i > 0 && a.Compare(last) <= 0 {
			r.fail("vector not in order")
			break
		}
		v[a], last = ctr, a
	}
	if r.err != nil {
		return nil, nil, r.err
	}
	return v, r.b, nil
}
