// Package idmap is a map from 32-byte hashes to small fixed values that costs
// little memory for millions of entries: the keys and values lie in pages that
// are never moved, and an open-addressed table of 4-byte handles finds them.
// With an even load that is the size of the slot plus 5 to 11 bytes.
//
// Keys are expected to be hashes: their first bytes choose the place in the
// table. The zero key is not a key: it marks a free slot.
//
// A Map is not safe for concurrent use.
package idmap

import (
	"encoding/binary"
	"math/bits"
)

const (
	pageLen  = 1024 // slots in a page
	minTable = 64   // places in the smallest table, a power of two
)

// Handle names a slot of a Map. The zero Handle names none.
type Handle uint32

type slot[V any] struct {
	key [32]byte
	val V
}

// Map maps keys to values of type V. The zero Map is empty and ready for use.
type Map[V any] struct {
	pages []*[pageLen]slot[V]
	next  Handle   // the highest handle ever given out
	free  []Handle // slots that were deleted
	table []Handle // linear probing, zero is empty; a power of two long
	n     int
}

// Len returns the number of keys.
func (m *Map[V]) Len() int { return m.n }

func (m *Map[V]) slot(h Handle) *slot[V] {
	return &m.pages[(h-1)/pageLen][(h-1)%pageLen]
}

// Key returns the key of h, which must be in the map. The result is valid until
// h is deleted.
func (m *Map[V]) Key(h Handle) *[32]byte { return &m.slot(h).key }

// Val returns the value of h, which must be in the map. The result is valid
// until h is deleted.
func (m *Map[V]) Val(h Handle) *V { return &m.slot(h).val }

func (m *Map[V]) home(key *[32]byte) uint32 {
	x := binary.LittleEndian.Uint64(key[0:]) ^ bits.RotateLeft64(binary.LittleEndian.Uint64(key[8:]), 29)
	x *= 0x9E3779B97F4A7C15 // spreads keys that are not quite hashes
	return uint32(x>>32) & uint32(len(m.table)-1)
}

// find returns the place of key in the table, or the empty place where it would go.
func (m *Map[V]) find(key *[32]byte) (place uint32, h Handle) {
	for i := m.home(key); ; i = (i + 1) & uint32(len(m.table)-1) {
		h := m.table[i]
		if h == 0 || m.slot(h).key == *key {
			return i, h
		}
	}
}

// Get returns the handle of key, or zero.
func (m *Map[V]) Get(key [32]byte) Handle {
	if m.n == 0 {
		return 0
	}
	_, h := m.find(&key)
	return h
}

// Put returns the handle of key, with a zero value if it was not there before.
// It returns zero for the zero key.
func (m *Map[V]) Put(key [32]byte) (h Handle, added bool) {
	if key == ([32]byte{}) {
		return 0, false
	}
	if 4*(m.n+1) > 3*len(m.table) {
		m.grow()
	}
	place, h := m.find(&key)
	if h != 0 {
		return h, false
	}
	if k := len(m.free); k > 0 {
		h, m.free = m.free[k-1], m.free[:k-1]
	} else {
		m.next++
		h = m.next
		if int(h-1)/pageLen == len(m.pages) {
			m.pages = append(m.pages, new([pageLen]slot[V]))
		}
	}
	m.slot(h).key = key
	m.table[place] = h
	m.n++
	return h, true
}

// Delete removes h, which must be in the map.
func (m *Map[V]) Delete(h Handle) {
	s := m.slot(h)
	place, _ := m.find(&s.key)
	mask := uint32(len(m.table) - 1)
	// Move back what follows, so that no probe ends early at the new hole.
	for next := (place + 1) & mask; m.table[next] != 0; next = (next + 1) & mask {
		want := m.home(&m.slot(m.table[next]).key)
		if (next-want)&mask >= (next-place)&mask {
			m.table[place] = m.table[next]
			place = next
		}
	}
	m.table[place] = 0
	*s = slot[V]{}
	m.free = append(m.free, h)
	m.n--
}

func (m *Map[V]) grow() {
	m.table = make([]Handle, max(minTable, 2*len(m.table)))
	for h := Handle(1); h <= m.next; h++ {
		if s := m.slot(h); s.key != ([32]byte{}) {
			place, _ := m.find(&s.key)
			m.table[place] = h
		}
	}
}

// Scan calls fn for up to max entries at handles from on, in no useful order, and
// returns where to go on, or zero at the end. Entries that are added or deleted
// between two calls may or may not be seen; all others are seen exactly once.
func (m *Map[V]) Scan(from Handle, max int, fn func(Handle)) Handle {
	for h := from; h <= m.next; h++ {
		if h == 0 || m.slot(h).key == ([32]byte{}) {
			continue
		}
		if max == 0 {
			return h
		}
		max--
		fn(h)
	}
	return 0
}
