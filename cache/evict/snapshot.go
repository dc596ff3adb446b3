package evict

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/roamfs/roamfs/cache/internal/idmap"
)

// A snapshot is
//
//	version  1 byte: 1
//	4 times  (spec, small, main, ghosts): count, 4 bytes little-endian
//	entries  of spec, small and main, each from tail to head:
//	         the first 8 bytes of the ID, hits 1 byte
//	ghosts   oldest first, 5 bytes little-endian fingerprint each
//
// and ends there. Eight bytes tell blocks apart well enough here: a mistake only
// moves one block in the order.
const (
	snapshotVersion = 1
	snapshotHead    = 1 + 4*4
	snapshotEntry   = 8 + 1
	snapshotGhost   = 5
)

// ErrSnapshot means that bytes are not a snapshot of this version.
var ErrSnapshot = errors.New("not a snapshot of an eviction order")

// Snapshot implements Order.
func (s *S3FIFO) Snapshot(b []byte) []byte {
	ghosts := s.ghosts.ordered()
	b = append(b, snapshotVersion)
	counts := len(b)
	b = append(b, make([]byte, 4*4)...)
	for q := spec; q <= main; q++ {
		n := 0
		// What is held would be offered first once it is released: so it comes first.
		for _, from := range []int{held, q} {
			for h := s.queues[from].tail; h != 0; h = s.entries.Val(h).prev {
				if e := s.entries.Val(h); e.home() == q {
					b = append(b, s.entries.Key(h)[:8]...)
					b = append(b, byte(e.hits()))
					n++
				}
			}
		}
		binary.LittleEndian.PutUint32(b[counts+4*q:], uint32(n))
	}
	binary.LittleEndian.PutUint32(b[counts+4*3:], uint32(len(ghosts)))
	for _, print := range ghosts {
		b = append(b, byte(print), byte(print>>8), byte(print>>16), byte(print>>24), byte(print>>32))
	}
	return b
}

// Restore implements Order.
func (s *S3FIFO) Restore(b []byte) error {
	if len(b) < snapshotHead || b[0] != snapshotVersion {
		return ErrSnapshot
	}
	var count [4]uint64
	for i := range count {
		count[i] = uint64(binary.LittleEndian.Uint32(b[1+4*i:]))
	}
	b = b[snapshotHead:]
	entries := count[spec] + count[small] + count[main]
	if want := snapshotEntry*entries + snapshotGhost*count[3]; uint64(len(b)) != want {
		return fmt.Errorf("%d bytes instead of %d: %w", len(b), want, ErrSnapshot)
	}
	for i := range entries {
		if b[snapshotEntry*i+8] > maxHits {
			return fmt.Errorf("%d hits: %w", b[snapshotEntry*i+8], ErrSnapshot)
		}
	}

	byPrefix := make(map[uint64]idmap.Handle, s.entries.Len())
	s.entries.Scan(0, s.entries.Len(), func(h idmap.Handle) {
		byPrefix[binary.LittleEndian.Uint64(s.entries.Key(h)[:8])] = h
	})
	for q := spec; q <= main; q++ {
		here := b[:snapshotEntry*count[q]]
		b = b[len(here):]
		// From the newest to the oldest, each behind the one before.
		for ; len(here) > 0; here = here[:len(here)-snapshotEntry] {
			e := here[len(here)-snapshotEntry:]
			prefix := binary.LittleEndian.Uint64(e)
			if h, ok := byPrefix[prefix]; ok {
				delete(byPrefix, prefix) // each at most once
				s.place(h, q, uint32(e[8]))
			}
		}
	}
	s.ghosts = ghosts{}
	s.ghosts.resize(max(s.entries.Len(), int(min(count[3], ghostMax))))
	for ; len(b) > 0; b = b[snapshotGhost:] {
		s.ghosts.put(max(1, uint64(b[0])|uint64(b[1])<<8|uint64(b[2])<<16|uint64(b[3])<<24|uint64(b[4])<<32))
	}
	return nil
}

// place makes h the oldest entry of queue q.
func (s *S3FIFO) place(h idmap.Handle, q int, hits uint32) {
	n := s.entries.Val(h)
	s.unlink(n.queue(), h)
	n.meta &^= heldBit
	n.setHome(q)
	n.setHits(hits)
	s.pushTail(q, h)
}
