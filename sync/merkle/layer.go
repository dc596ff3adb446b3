package merkle

import (
	"bytes"
	"slices"
	"sort"
)

// A node is what memory holds of one: 58 bytes.
type node struct {
	first [prefixLen]byte // first group in it
	hash  Hash
	level uint8 // of first
	dirty bool  // hash is out of date, and so is where the rest of its run is cut
}

// A layer holds the nodes of one height, in order. A run is the nodes from one
// that begins because of its level to before the next; all but crafted runs are
// one node. Where a node begins depends on what lies before it in its run, so
// after a change in one node the rest of the run is made anew, and nothing else.
type layer struct {
	height int
	nodes  []node
	dirty  []int // positions of dirty nodes, unsorted, distinct
	all    bool  // everything is dirty; set while there are no nodes to mark
}

// natural reports whether node i begins a run.
func (l *layer) natural(i int) bool { return i == 0 || int(l.nodes[i].level) > l.height }

// find returns the node in which group p lies or would lie.
func (l *layer) find(p [prefixLen]byte) int {
	i := sort.Search(len(l.nodes), func(i int) bool { return bytes.Compare(l.nodes[i].first[:], p[:]) > 0 })
	return max(i-1, 0)
}

// touch notes that group p, or the child that begins with it, came, went or
// changed.
func (l *layer) touch(p [prefixLen]byte) {
	if len(l.nodes) == 0 {
		l.all = true
		return
	}
	i := l.find(p)
	l.mark(i)
	if i > 0 && l.nodes[i].first == p {
		l.mark(i - 1) // p may be gone, and then its node joins the one before
	}
}

func (l *layer) mark(i int) {
	if !l.nodes[i].dirty {
		l.nodes[i].dirty = true
		l.dirty = append(l.dirty, i)
	}
}

// A region is a stretch of nodes to be made anew, which ends where a run ends:
// nodes from to before to. What is outside of it stays as it is, the group with
// which the next node begins included, and so does the group with which the
// region begins unless that is the first of all.
type region struct {
	from, to int
	nodes    []node // instead of the old ones
}

// regions returns the stretches that are dirty, in order, apart from each other.
func (l *layer) regions() []region {
	if l.all {
		return []region{{from: 0, to: len(l.nodes)}}
	}
	slices.Sort(l.dirty)
	var out []region
	for _, d := range l.dirty {
		if len(out) > 0 && d < out[len(out)-1].to {
			continue
		}
		r := region{from: d, to: d + 1}
		for r.to < len(l.nodes) && !l.natural(r.to) {
			r.to++
		}
		// Two dirty nodes side by side may have lost the boundary between them.
		if n := len(out); n > 0 && out[n-1].to == r.from {
			out[n-1].to = r.to
		} else {
			out = append(out, r)
		}
	}
	return out
}

// bounds returns the first group of the region and the first after it; nil
// where it reaches the end.
func (l *layer) bounds(r region) (lo, hi *[prefixLen]byte) {
	if r.from > 0 {
		lo = &l.nodes[r.from].first
	}
	if r.to < len(l.nodes) {
		hi = &l.nodes[r.to].first
	}
	return lo, hi
}

// replace puts the new nodes of every region in place, after which nothing is
// dirty, and returns the first groups of the nodes that came, went or changed.
func (l *layer) replace(regs []region) (changed [][prefixLen]byte) {
	size := len(l.nodes)
	same := true
	for _, r := range regs {
		changed = appendChanged(changed, l.nodes[r.from:r.to], r.nodes)
		size += len(r.nodes) - (r.to - r.from)
		same = same && len(r.nodes) == r.to-r.from
	}
	switch {
	case same:
		for _, r := range regs {
			copy(l.nodes[r.from:], r.nodes)
		}
	case len(regs) == 1:
		l.nodes = slices.Replace(l.nodes, regs[0].from, regs[0].to, regs[0].nodes...)
	default:
		next, at := make([]node, 0, size), 0
		for _, r := range regs {
			next = append(next, l.nodes[at:r.from]...)
			next = append(next, r.nodes...)
			at = r.to
		}
		l.nodes = append(next, l.nodes[at:]...)
	}
	l.dirty, l.all = l.dirty[:0], false
	return changed
}

func appendChanged(out [][prefixLen]byte, was, is []node) [][prefixLen]byte {
	for len(was) > 0 || len(is) > 0 {
		c := 0
		switch {
		case len(was) == 0:
			c = 1
		case len(is) == 0:
			c = -1
		default:
			c = bytes.Compare(was[0].first[:], is[0].first[:])
		}
		switch {
		case c < 0:
			out, was = append(out, was[0].first), was[1:]
		case c > 0:
			out, is = append(out, is[0].first), is[1:]
		default:
			if was[0].hash != is[0].hash {
				out = append(out, is[0].first)
			}
			was, is = was[1:], is[1:]
		}
	}
	return out
}
