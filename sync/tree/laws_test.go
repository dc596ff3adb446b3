package tree

import (
	"bytes"
	"maps"
	"slices"
)

// same reports whether both have the same records and the same vector.
func same(a, b *Mem) bool { return sameRecords(a, b) && a.Vector().Equal(b.Vector()) }

func sameRecords(a, b *Mem) bool {
	return maps.EqualFunc(a.recs, b.recs, func(x, y []Record) bool { return slices.EqualFunc(x, y, sameRecord) })
}

func sameRecord(a, b Record) bool { return a.ID() == b.ID() && bytes.Equal(a.Value, b.Value) }

// checkLaws: joins of two states commute and are idempotent, and Join and
// Mem.Join say the same. It returns the join.
func checkLaws(a, b *Mem) *Mem {
	x, y := a.Clone(), b.Clone()
	x.Join(b)
	y.Join(a)
	rs, v, _ := Join(a.All(), b.All(), a.Vector(), b.Vector())
	if !same(x, y) {
		violate("I1: join does not commute")
	}
	if !slices.EqualFunc(x.All(), rs, sameRecord) || !v.Equal(x.Vector()) {
		violate("Join and Mem.Join differ")
	}
	y.Join(b)
	y.Join(x)
	if !same(y, x) {
		violate("I1: join is not idempotent")
	}
	return x
}

// checkIndex: the index of places is that of a state which got its records at once.
func checkIndex(m *Mem) {
	fresh := NewMem()
	fresh.Apply(Change{Put: m.All()})
	sameNames := func(a, b map[string][]Ino) bool { return maps.EqualFunc(a, b, slices.Equal[[]Ino]) }
	if !maps.EqualFunc(m.children, fresh.children, sameNames) {
		violate("index of places: got %v, want %v", m.children, fresh.children)
	}
}
