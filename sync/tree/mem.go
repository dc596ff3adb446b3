package tree

import (
	"cmp"
	"maps"
	"slices"
)

// Mem is a [State] in memory, with its vector. It is not safe for use from
// several goroutines while one changes it.
type Mem struct {
	recs     map[Ino][]Record         // sorted; settings under their padded keys
	children map[Ino]map[string][]Ino // by parent and name, sorted
	vector   Vector
}

var (
	_ State    = (*Mem)(nil)
	_ Surveyor = (*Mem)(nil)
)

// NewMem returns the empty state.
func NewMem() *Mem {
	return &Mem{recs: map[Ino][]Record{}, children: map[Ino]map[string][]Ino{}, vector: Vector{}}
}

// Vector returns the version vector, which the caller may not change.
func (m *Mem) Vector() Vector { return m.vector }

// Advance makes the vector contain d, as a commit that only removes must.
func (m *Mem) Advance(d Dot) { m.vector.Add(d) }

// Clone returns a copy that shares the values, and the slices, which are never
// changed in place.
func (m *Mem) Clone() *Mem {
	c := &Mem{recs: maps.Clone(m.recs), children: make(map[Ino]map[string][]Ino, len(m.children)), vector: m.vector.Clone()}
	for p, names := range m.children {
		c.children[p] = maps.Clone(names)
	}
	return c
}

// All returns every record in [KeyDot.Compare] order.
func (m *Mem) All() []Record {
	var all []Record
	for _, ino := range slices.SortedFunc(maps.Keys(m.recs), Ino.Compare) {
		all = append(all, m.recs[ino]...)
	}
	SortRecords(all) // settings of less than 24 bytes stand under a padded inode
	return all
}

// Apply carries out ch and adds the dots of what it puts to the vector.
func (m *Mem) Apply(ch Change) {
	for _, d := range ch.Drop {
		m.drop(d)
	}
	for _, r := range ch.Put {
		m.put(r)
		m.vector.Add(r.Dot)
	}
}

// Join makes m the join of m and other, and reports whether the two hold
// different values for one key and dot.
func (m *Mem) Join(other *Mem) (alarm bool) {
	ch, alarm := m.Diff(other)
	for _, d := range ch.Drop {
		m.drop(d)
	}
	for _, r := range ch.Put {
		m.put(r)
	}
	m.vector.Merge(other.vector)
	return alarm
}

// Diff returns the change that turns m into the join of m and other.
func (m *Mem) Diff(other *Mem) (ch Change, alarm bool) {
	seen := func(ino Ino) {
		put, drop, a := JoinKey(m.recs[ino], other.recs[ino], m.vector, other.vector)
		ch.Put, ch.Drop, alarm = append(ch.Put, put...), append(ch.Drop, drop...), alarm || a
	}
	for ino := range m.recs {
		seen(ino)
	}
	for ino := range other.recs {
		if _, ok := m.recs[ino]; !ok {
			seen(ino)
		}
	}
	SortRecords(ch.Put)
	slices.SortFunc(ch.Drop, KeyDot.Compare)
	return ch, alarm
}

func (m *Mem) put(r Record) {
	ino := r.Key.Ino()
	rs := m.recs[ino]
	i, found := slices.BinarySearchFunc(rs, r, compareRecords)
	if found {
		m.drop(r.ID())
		rs = m.recs[ino]
	}
	m.recs[ino] = slices.Insert(slices.Clip(rs), i, r)
	p, ok := place(r)
	if !ok {
		return
	}
	names := m.children[p.Parent]
	if names == nil {
		names = map[string][]Ino{}
		m.children[p.Parent] = names
	}
	if i, found := slices.BinarySearchFunc(names[p.Name], ino, Ino.Compare); !found {
		names[p.Name] = slices.Insert(slices.Clip(names[p.Name]), i, ino)
	}
}

func (m *Mem) drop(k KeyDot) {
	ino := k.Key.Ino()
	rs := m.recs[ino]
	i, found := slices.BinarySearchFunc(rs, k, func(r Record, k KeyDot) int { return r.ID().Compare(k) })
	if !found {
		return
	}
	p, ok := place(rs[i])
	if rs = slices.Concat(rs[:i], rs[i+1:]); len(rs) > 0 {
		m.recs[ino] = rs
	} else {
		delete(m.recs, ino)
	}
	there := func(r Record) bool {
		q, ok := place(r)
		return ok && q == p
	}
	if ok && !slices.ContainsFunc(rs, there) {
		m.leave(ino, p)
	}
}

// leave takes ino out of the index, where it is at p.
func (m *Mem) leave(ino Ino, p Place) {
	names := m.children[p.Parent]
	inos := names[p.Name]
	i, _ := slices.BinarySearchFunc(inos, ino, Ino.Compare)
	if len(inos) > 1 {
		names[p.Name] = slices.Concat(inos[:i], inos[i+1:])
	} else if delete(names, p.Name); len(names) == 0 {
		delete(m.children, p.Parent)
	}
}

// place is where an L record says that its inode is.
func place(r Record) (Place, bool) {
	if _, ok := r.Key.link(); !ok {
		return Place{}, false
	}
	l, err := DecodeLink(r.Value)
	return Place{l.Parent, l.Name}, err == nil
}

// Records implements [State].
func (m *Mem) Records(ino Ino) ([]Record, error) { return m.recs[ino], nil }

// Named implements [State].
func (m *Mem) Named(parent Ino, name string) ([]Ino, error) {
	return m.children[parent][name], nil
}

// Children implements [State].
func (m *Mem) Children(parent Ino) ([]Ino, error) {
	var all []Ino
	for _, inos := range m.children[parent] {
		all = append(all, inos...)
	}
	slices.SortFunc(all, Ino.Compare)
	return slices.Compact(all), nil
}

// Dirs implements [State].
func (m *Mem) Dirs(fn func(Ino) error) error {
	return m.each(fn, func(_ Ino, rs []Record) bool {
		return slices.ContainsFunc(rs, func(r Record) bool {
			if _, ok := r.Key.link(); !ok {
				return false
			}
			l, err := DecodeLink(r.Value)
			return err == nil && l.Dir
		})
	})
}

// Conflicted implements [State].
func (m *Mem) Conflicted(fn func(Ino) error) error {
	return m.each(fn, func(_ Ino, rs []Record) bool { return Conflicted(rs) })
}

// Dead implements [State].
func (m *Mem) Dead(fn func(Ino) error) error { return m.each(fn, Dead) }

// each calls fn for the inodes whose records are such.
func (m *Mem) each(fn func(Ino) error, such func(Ino, []Record) bool) error {
	for ino, rs := range m.recs {
		if !such(ino, rs) {
			continue
		}
		if err := fn(ino); err != nil {
			return err
		}
	}
	return nil
}

// Survey implements [Surveyor].
func (m *Mem) Survey(fn func(parent Ino, names []string) error) error {
	for parent, places := range m.children {
		var names []string
		for name, inos := range places {
			if len(inos) > 1 || Notable(name) {
				names = append(names, name)
			}
		}
		slices.SortFunc(names, cmp.Compare[string])
		if err := fn(parent, names); err != nil {
			return err
		}
	}
	return nil
}
