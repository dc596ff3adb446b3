package file

import (
	"slices"
	"sort"
)

// span is the range off..end-1 of bytes.
type span struct{ off, end int64 }

// spans is a set of bytes as spans in order, of which no two touch. They
// are kept in runs, so that random writes to a large file do not move all that come
// after. The zero value is empty. Not safe for concurrent use.
type spans struct {
	runs  [][]span // none is empty
	n     int
	bytes int64
}

const maxRun = 128 // spans; a longer run is split

// place is a position among the spans: before runs[run][i].
type place struct{ run, i int }

// find returns the place of the first span that ends after off.
func (s *spans) find(off int64) place {
	r := sort.Search(len(s.runs), func(r int) bool {
		run := s.runs[r]
		return run[len(run)-1].end > off
	})
	if r == len(s.runs) {
		return place{r, 0}
	}
	run := s.runs[r]
	return place{r, sort.Search(len(run), func(i int) bool { return run[i].end > off })}
}

func (s *spans) at(p place) (span, bool) {
	if p.run >= len(s.runs) {
		return span{}, false
	}
	return s.runs[p.run][p.i], true
}

func (s *spans) next(p place) place {
	if p.i++; p.i == len(s.runs[p.run]) {
		return place{p.run + 1, 0}
	}
	return p
}

// each calls fn, in order, for each span that overlaps off..end-1, until it
// returns false. The spans are not clipped.
func (s *spans) each(off, end int64, fn func(span) bool) {
	for p := s.find(off); ; p = s.next(p) {
		x, ok := s.at(p)
		if !ok || x.off >= end || !fn(x) {
			return
		}
	}
}

// all yields every span in order.
func (s *spans) all(yield func(span) bool) {
	for _, run := range s.runs {
		for _, x := range run {
			if !yield(x) {
				return
			}
		}
	}
}

// touches reports whether any span overlaps off..end-1.
func (s *spans) touches(off, end int64) bool {
	x, ok := s.at(s.find(off))
	return ok && x.off < end
}

// covers reports whether off..end-1 is in the set.
func (s *spans) covers(off, end int64) bool {
	x, ok := s.at(s.find(off))
	return off >= end || ok && x.off <= off && x.end >= end
}

// set adds off..end-1 to the set.
func (s *spans) set(off, end int64) {
	if off >= end {
		return
	}
	x := span{off, end}
	from := s.find(off - 1)
	to := from
	for y, ok := s.at(to); ok && y.off <= end; y, ok = s.at(to) {
		x.off, x.end = min(x.off, y.off), max(x.end, y.end)
		to = s.next(to)
	}
	s.splice(from, to, x)
}

// clear removes off..end-1 from the set.
func (s *spans) clear(off, end int64) {
	if off >= end {
		return
	}
	from := s.find(off)
	to := from
	var before, after span
	for y, ok := s.at(to); ok && y.off < end; y, ok = s.at(to) {
		if y.off < off {
			before = span{y.off, off}
		}
		if y.end > end {
			after = span{end, y.end}
		}
		to = s.next(to)
	}
	if from != to {
		s.splice(from, to, before, after)
	}
}

// splice replaces the spans from..to by those of repl that are not empty.
func (s *spans) splice(from, to place, repl ...span) {
	for p := from; p != to; p = s.next(p) {
		x := s.runs[p.run][p.i]
		s.bytes -= x.end - x.off
		s.n--
	}
	fresh := make([]span, 0, 2)
	for _, x := range repl {
		if x.off < x.end {
			fresh = append(fresh, x)
			s.bytes += x.end - x.off
			s.n++
		}
	}
	switch {
	case from.run == len(s.runs):
		if from.run == 0 {
			s.runs = append(s.runs, fresh)
			break
		}
		from.run--
		s.runs[from.run] = append(s.runs[from.run], fresh...)
	case from.run == to.run:
		s.runs[from.run] = slices.Replace(s.runs[from.run], from.i, to.i, fresh...)
	default:
		s.runs[from.run] = append(s.runs[from.run][:from.i], fresh...)
		drop := to.run
		if to.run < len(s.runs) {
			s.runs[to.run] = slices.Delete(s.runs[to.run], 0, to.i)
		}
		s.runs = slices.Delete(s.runs, from.run+1, drop)
	}
	switch run := s.runs[from.run]; {
	case len(run) == 0:
		s.runs = slices.Delete(s.runs, from.run, from.run+1)
	case len(run) > maxRun:
		half := len(run) / 2
		tail := append(make([]span, 0, maxRun), run[half:]...)
		s.runs[from.run] = slices.Clip(run[:half])
		s.runs = slices.Insert(s.runs, from.run+1, tail)
	}
}
