package evict

import (
	"encoding/binary"
	"math/bits"
)

// ghosts remembers which blocks were evicted from the small queue lately: the
// last window of them. Each is a 40-bit fingerprint with the low 24 bits of its
// number, in a bucket of eight; a full bucket forgets its oldest. A false memory
// has a chance of about 8 in 2^40 divided by the number of buckets: it costs a
// block that stays a little longer.
type ghosts struct {
	buckets [][ghostWays]uint64 // a power of two long; zero is empty
	seq     uint32              // the number of the last one added, 24 bits
	window  uint32              // how many are remembered
}

const (
	ghostWays   = 8
	ghostSeq    = 1<<24 - 1
	ghostMax    = 1 << 22 // the most that are remembered: less than half of ghostSeq
	ghostSpare  = 2       // places for each that is remembered, so that full buckets are rare
	ghostMinLen = 8       // buckets
)

// fingerprint returns 40 bits of the ID, never zero.
func fingerprint(id [32]byte) uint64 {
	x := binary.LittleEndian.Uint64(id[16:]) ^ bits.RotateLeft64(binary.LittleEndian.Uint64(id[0:]), 31)
	x = (x * 0x9E3779B97F4A7C15) >> 24
	return max(x, 1)
}

func (g *ghosts) bucket(print uint64) *[ghostWays]uint64 {
	return &g.buckets[print&uint64(len(g.buckets)-1)]
}

func (g *ghosts) age(slot uint64) uint32 { return (g.seq - uint32(slot)) & ghostSeq }

// add remembers id; resident is how many blocks are resident now, for at most as
// many are remembered.
func (g *ghosts) add(id [32]byte, resident int) {
	g.resize(resident)
	g.put(fingerprint(id))
}

func (g *ghosts) put(print uint64) {
	g.seq = (g.seq + 1) & ghostSeq
	b := g.bucket(print)
	at := 0
	for i, slot := range b {
		if slot == 0 || slot>>24 == print {
			at = i
			break
		}
		if g.age(slot) > g.age(b[at]) {
			at = i
		}
	}
	b[at] = print<<24 | uint64(g.seq)
}

// take reports whether id is remembered, and forgets it.
func (g *ghosts) take(id [32]byte) bool {
	if len(g.buckets) == 0 {
		return false
	}
	print := fingerprint(id)
	b := g.bucket(print)
	for i, slot := range b {
		if slot != 0 && slot>>24 == print {
			b[i] = 0
			return g.age(slot) < g.window
		}
	}
	return false
}

// resize makes place for as many as are resident. It never shrinks by less than
// half, and keeps what fits.
func (g *ghosts) resize(resident int) {
	g.window = uint32(min(max(resident, ghostWays*ghostMinLen), ghostMax))
	want := ghostMinLen
	for want*ghostWays < int(g.window)*ghostSpare {
		want *= 2
	}
	if want <= len(g.buckets) && want*4 > len(g.buckets) {
		return
	}
	old := g.ordered()
	g.buckets = make([][ghostWays]uint64, want)
	for _, print := range old {
		g.put(print)
	}
}

// ordered returns what is remembered, the oldest first.
func (g *ghosts) ordered() []uint64 {
	ring := make([]uint64, min(int(g.window), len(g.buckets)*ghostWays*2))
	n := uint32(len(ring))
	if n == 0 {
		return nil
	}
	for _, b := range g.buckets {
		for _, slot := range b {
			if slot != 0 && g.age(slot) < n {
				ring[n-1-g.age(slot)] = slot >> 24
			}
		}
	}
	kept := ring[:0]
	for _, print := range ring {
		if print != 0 {
			kept = append(kept, print)
		}
	}
	return kept
}
