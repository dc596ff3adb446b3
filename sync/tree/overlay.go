package tree

import (
	"fmt"
	"maps"
	"slices"
)

// overlay is a State with a change on top that it has not taken.
type overlay struct {
	base    State
	records map[Ino][]Record // of inodes that are changed
	named   map[Place][]Ino  // placed by the change; they may have left again
	within  map[Ino][]Ino
}

func newOverlay(base State) *overlay {
	return &overlay{base, map[Ino][]Record{}, map[Place][]Ino{}, map[Ino][]Ino{}}
}

func (o *overlay) apply(ch Change) error {
	puts, drops, touched := map[Ino][]Record{}, map[Ino][]KeyDot{}, map[Ino]struct{}{}
	for _, r := range ch.Put {
		puts[r.Key.Ino()] = append(puts[r.Key.Ino()], r)
		touched[r.Key.Ino()] = struct{}{}
		if _, ok := r.Key.link(); !ok {
			continue
		}
		l, err := DecodeLink(r.Value)
		if err != nil {
			return fmt.Errorf("new link: %w", err)
		}
		p := Place{l.Parent, l.Name}
		o.named[p] = append(o.named[p], r.Key.Ino())
		o.within[l.Parent] = append(o.within[l.Parent], r.Key.Ino())
	}
	for _, k := range ch.Drop {
		drops[k.Key.Ino()] = append(drops[k.Key.Ino()], k)
		touched[k.Key.Ino()] = struct{}{}
	}
	for ino := range touched {
		rs, err := o.Records(ino)
		if err != nil {
			return err
		}
		o.records[ino] = patch(rs, puts[ino], drops[ino])
	}
	return nil
}

func (o *overlay) Records(ino Ino) ([]Record, error) {
	if rs, ok := o.records[ino]; ok {
		return rs, nil
	}
	return o.base.Records(ino)
}

func (o *overlay) Named(parent Ino, name string) ([]Ino, error) {
	inos, err := o.base.Named(parent, name)
	return union(inos, o.named[Place{parent, name}]), err
}

func (o *overlay) Children(parent Ino) ([]Ino, error) {
	inos, err := o.base.Children(parent)
	return union(inos, o.within[parent]), err
}

// Dirs, Conflicted and Dead are not asked of an overlay: its view is a fork.
func (o *overlay) Dirs(fn func(Ino) error) error       { return o.base.Dirs(fn) }
func (o *overlay) Conflicted(fn func(Ino) error) error { return o.base.Conflicted(fn) }
func (o *overlay) Dead(fn func(Ino) error) error       { return o.base.Dead(fn) }

func union(a, b []Ino) []Ino {
	if len(b) == 0 {
		return a
	}
	all := slices.Concat(a, b)
	slices.SortFunc(all, Ino.Compare)
	return slices.Compact(all)
}

// steps is a change that is being made.
type steps struct {
	put  map[KeyDot][]byte
	drop map[KeyDot]struct{}
	born []Ino
}

func newSteps() steps { return steps{put: map[KeyDot][]byte{}, drop: map[KeyDot]struct{}{}} }

func (s *steps) doPut(k KeyDot, value []byte) {
	delete(s.drop, k)
	s.put[k] = value
}

func (s *steps) doDrop(k KeyDot) {
	delete(s.put, k)
	s.drop[k] = struct{}{}
}

func (s *steps) empty() bool { return len(s.put) == 0 && len(s.drop) == 0 }

func (s *steps) add(o steps) {
	for k := range o.drop {
		s.doDrop(k)
	}
	for k, v := range o.put {
		s.doPut(k, v)
	}
	s.born = append(s.born, o.born...)
}

// change returns the steps as a sorted Change.
func (s *steps) change() Change {
	var ch Change
	for k, v := range s.put {
		ch.Put = append(ch.Put, Record{k.Key, k.Dot, v})
	}
	SortRecords(ch.Put)
	ch.Drop = slices.SortedFunc(maps.Keys(s.drop), KeyDot.Compare)
	ch.Born = slices.Clone(s.born)
	return ch
}
