package evict

import "github.com/roamfs/roamfs/cache/internal/idmap"

// S3FIFO is the order of Yang et al., "FIFO queues are all you need for cache
// eviction" (SOSP 2023), counted in bytes. New blocks pass through a small queue
// of about a tenth of the bytes. Those with two hits by the time they reach its
// end move to the main queue, the others are the victims; that keeps a scan from
// flushing what is in use. The main queue gives a second chance for each of up to
// three hits. A block that returns while it is remembered as evicted goes
// directly to the main queue.
//
// Three things are our own. Blocks fetched ahead that nobody has asked for wait
// in a queue that is emptied first. Hits on the same block as one of the last two
// distinct ones do not count, since one program's sequential read is many requests.
// And the budget of the small queue is a tenth of what is there rather than of a
// capacity, so that nobody needs to say what the capacity is.
//
// It takes about 56 bytes a block and 8 to 16 for each block remembered, of which
// there are at most as many as there are entries.
type S3FIFO struct {
	entries idmap.Map[node]
	queues  [numQueues]queue
	ghosts  ghosts
	recent  [recentHits][32]byte // the last distinct blocks hit
	oldest  int                  // where in recent the next one goes
}

var _ Order = (*S3FIFO)(nil)

const (
	recentHits  = 2
	maxHits     = 3
	promoteHits = 2
	smallShare  = 10 // the small queue gets one part in this many
)

// The queues. A held entry remembers to which of the first three it returns.
const (
	spec = iota
	small
	main
	held
	numQueues
)

// node is a place in one of the queues.
type node struct {
	prev, next idmap.Handle // towards the head (newest), towards the tail; zero at the ends
	meta       uint32       // size, hits, home, whether held
}

const (
	sizeMask  = MaxSize
	hitsShift = 24
	homeShift = 26
	heldBit   = 1 << 28
)

func (n *node) size() int64  { return int64(n.meta & sizeMask) }
func (n *node) hits() uint32 { return n.meta >> hitsShift & 3 }
func (n *node) home() int    { return int(n.meta >> homeShift & 3) }
func (n *node) queue() int {
	if n.meta&heldBit != 0 {
		return held
	}
	return n.home()
}
func (n *node) setHits(h uint32) { n.meta = n.meta&^(3<<hitsShift) | h<<hitsShift }
func (n *node) setHome(q int)    { n.meta = n.meta&^(3<<homeShift) | uint32(q)<<homeShift }

type queue struct {
	head, tail idmap.Handle
	len        int
	bytes      int64
}

// New returns an order without entries.
func New() *S3FIFO { return &S3FIFO{} }

// Add implements Order.
func (s *S3FIFO) Add(it Item) {
	size := min(max(it.Size, 1), MaxSize)
	h, added := s.entries.Put(it.ID)
	if h == 0 {
		return
	}
	n := s.entries.Val(h)
	if !added {
		s.queues[n.queue()].bytes += size - n.size()
		n.meta = n.meta&^sizeMask | uint32(size)
		return
	}
	home := small
	switch {
	case s.ghosts.take(it.ID):
		home = main
	case it.Spec:
		home = spec
	}
	n.meta = uint32(size)
	n.setHome(home)
	s.pushHead(home, h)
}

// Hit implements Order.
func (s *S3FIFO) Hit(id [32]byte) {
	h := s.entries.Get(id)
	if h == 0 || s.justHit(id) {
		return
	}
	n := s.entries.Val(h)
	if n.home() != spec {
		n.setHits(min(n.hits()+1, maxHits))
		return
	}
	n.setHome(small)
	if n.queue() != held {
		s.unlink(spec, h)
		s.pushHead(small, h)
	}
}

func (s *S3FIFO) justHit(id [32]byte) bool {
	for i := range s.recent {
		if s.recent[i] == id {
			return true
		}
	}
	s.recent[s.oldest] = id
	s.oldest = (s.oldest + 1) % recentHits
	return false
}

// Remove implements Order.
func (s *S3FIFO) Remove(id [32]byte) { s.drop(s.entries.Get(id), false) }

// Evicted implements Order.
func (s *S3FIFO) Evicted(id [32]byte) { s.drop(s.entries.Get(id), true) }

func (s *S3FIFO) drop(h idmap.Handle, remember bool) {
	if h == 0 {
		return
	}
	n := s.entries.Val(h)
	if remember && n.home() == small {
		s.ghosts.add(*s.entries.Key(h), s.entries.Len())
	}
	s.unlink(n.queue(), h)
	s.entries.Delete(h)
}

// Victims implements Order.
func (s *S3FIFO) Victims(fn func(id [32]byte, size int64) Verdict) {
	for h := s.candidate(); h != 0; h = s.candidate() {
		switch fn(*s.entries.Key(h), s.entries.Val(h).size()) {
		case Evict:
			s.drop(h, true)
		case Hold:
			s.hold(h)
		default:
			return
		}
	}
}

// candidate moves the hands past what has earned another round and returns the
// next victim. Each step but the last uses up a hit or a promotion.
func (s *S3FIFO) candidate() idmap.Handle {
	for {
		if h := s.queues[spec].tail; h != 0 {
			return h
		}
		sm, mn := &s.queues[small], &s.queues[main]
		switch {
		case sm.tail != 0 && (mn.tail == 0 || sm.bytes*smallShare >= sm.bytes+mn.bytes):
			n := s.entries.Val(sm.tail)
			if n.hits() < promoteHits {
				return sm.tail
			}
			n.setHits(0)
			n.setHome(main)
			h := sm.tail
			s.unlink(small, h)
			s.pushHead(main, h)
		case mn.tail != 0:
			n := s.entries.Val(mn.tail)
			if n.hits() == 0 {
				return mn.tail
			}
			n.setHits(n.hits() - 1)
			h := mn.tail
			s.unlink(main, h)
			s.pushHead(main, h)
		default:
			return 0
		}
	}
}

// Hold implements Order.
func (s *S3FIFO) Hold(id [32]byte) {
	if h := s.entries.Get(id); h != 0 && s.entries.Val(h).queue() != held {
		s.hold(h)
	}
}

func (s *S3FIFO) hold(h idmap.Handle) {
	n := s.entries.Val(h)
	s.unlink(n.home(), h)
	n.meta |= heldBit
	s.pushHead(held, h)
}

// Release implements Order.
func (s *S3FIFO) Release(id [32]byte) {
	if h := s.entries.Get(id); h != 0 && s.entries.Val(h).queue() == held {
		s.release(h)
	}
}

func (s *S3FIFO) release(h idmap.Handle) {
	n := s.entries.Val(h)
	s.unlink(held, h)
	n.meta &^= heldBit
	s.pushTail(n.home(), h)
}

// ReleaseHeld implements Order.
func (s *S3FIFO) ReleaseHeld(n int) int {
	// The last one released is the first one offered: start at the newest of the n.
	h, k := s.queues[held].tail, 0
	if h == 0 || n <= 0 {
		return 0
	}
	for k = 1; k < n && s.entries.Val(h).prev != 0; k++ {
		h = s.entries.Val(h).prev
	}
	for h != 0 {
		next := s.entries.Val(h).next
		s.release(h)
		h = next
	}
	return k
}

// Stats implements Order.
func (s *S3FIFO) Stats() Stats {
	st := Stats{Entries: s.entries.Len(), Held: s.queues[held].len}
	for i := range s.queues {
		st.Bytes += s.queues[i].bytes
	}
	return st
}

func (s *S3FIFO) pushHead(q int, h idmap.Handle) {
	l, n := &s.queues[q], s.entries.Val(h)
	n.prev, n.next = 0, l.head
	if l.head != 0 {
		s.entries.Val(l.head).prev = h
	} else {
		l.tail = h
	}
	l.head = h
	l.len++
	l.bytes += n.size()
}

func (s *S3FIFO) pushTail(q int, h idmap.Handle) {
	l, n := &s.queues[q], s.entries.Val(h)
	n.prev, n.next = l.tail, 0
	if l.tail != 0 {
		s.entries.Val(l.tail).next = h
	} else {
		l.head = h
	}
	l.tail = h
	l.len++
	l.bytes += n.size()
}

func (s *S3FIFO) unlink(q int, h idmap.Handle) {
	l, n := &s.queues[q], s.entries.Val(h)
	if n.prev != 0 {
		s.entries.Val(n.prev).next = n.next
	} else {
		l.head = n.next
	}
	if n.next != 0 {
		s.entries.Val(n.next).prev = n.prev
	} else {
		l.tail = n.prev
	}
	n.prev, n.next = 0, 0
	l.len--
	l.bytes -= n.size()
}
