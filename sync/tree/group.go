package tree

import (
	"cmp"
	"fmt"
	"slices"
)

// ref names one thing that wants a name: a link, or a conflict copy of an inode
// (ino is then that of the copy).
type ref struct {
	ino  Ino
	link LinkID
}

// member is one of those that want the same name in the same directory.
type member struct {
	ref
	also    []LinkID // further links of the inode at the same place
	virtual bool     // a conflict copy beside the primary name of of
	of      *inode
	version *version // of a virtual member
	dir     bool
	copy    bool
	wall    int64 // ns, of the last change of place, or of the content of a copy
	dot     Dot
}

// content is what a member that is no directory shows.
func (m *member) content() *Content {
	if m.virtual {
		return &m.version.Content
	}
	return m.of.content
}

func (m *member) kind() Kind {
	if m.dir {
		return Dir
	}
	return m.content().Kind
}

// compare is the order in a name group: the first keeps the name.
func (m *member) compare(o *member) int {
	before := func(a, b bool) int {
		switch {
		case a == b:
			return 0
		case a:
			return -1
		}
		return 1
	}
	return cmp.Or(before(m.dir, o.dir), before(o.virtual, m.virtual), cmp.Compare(m.wall, o.wall), m.ino.Compare(o.ino), slices.Compare(m.link[:], o.link[:]))
}

// origin is what the conflict name of m is made from.
func (v *View) origin(m *member) origin {
	o := origin{label: v.actorLabel(m.dot.Actor), wall: m.wall, dir: m.dir}
	switch {
	case m.virtual && m.version.snap:
		o.id = hash("name", []byte(LinkKey(m.of.ino, LinkID{})), dotBytes(m.dot))
	case m.virtual:
		o.id = hash("name", []byte(ContentKey(m.of.ino)), dotBytes(m.dot))
	default:
		o.id = hash("name", []byte(LinkKey(m.ino, m.link)))
	}
	return o
}

// shown is a member that gets a name, and those it stands for because they show
// the same.
type shown struct {
	member
	twins []member
	base  Place // plain place of the group; set by Edit
}

func (s *shown) has(r ref) bool {
	return s.is(r) || slices.ContainsFunc(s.twins, func(m member) bool { return m.is(r) })
}

// is reports whether m is what r names.
func (m *member) is(r ref) bool {
	return m.ref == r || !m.virtual && m.ino == r.ino && slices.Contains(m.also, r.link)
}

// all returns the member and its twins.
func (s *shown) all() []member { return append([]member{s.member}, s.twins...) }

// group returns those that want the name p, in order; the first keeps it.
func (v *View) group(c *cached, p Place) ([]shown, error) {
	inos, err := v.placed(p)
	if err != nil {
		return nil, err
	}
	var ms []member
	for _, ino := range inos {
		n, err := c.get(ino)
		if err != nil {
			return nil, err
		}
		ms = v.members(ms, n, p)
	}
	if p == (Place{Root, RecoveredName}) && v.shows(Recovered) {
		ms = append(ms, member{ref: ref{ino: Recovered}, of: &inode{ino: Recovered, dir: true}, dir: true})
	}
	if len(ms) > 1 {
		slices.SortFunc(ms, func(a, b member) int { return a.compare(&b) })
	}
	return collapse(ms), nil
}

// collapse makes those that show the same as an earlier one its twins.
func collapse(ms []member) []shown {
	g := make([]shown, 0, len(ms))
next:
	for _, m := range ms {
		if !m.dir {
			for i := range g {
				if !g[i].dir && g[i].content().same(m.content()) {
					g[i].twins = append(g[i].twins, m)
					continue next
				}
			}
		}
		g = append(g, shown{member: m})
	}
	return g
}

// placed returns the inodes that may be shown at p, each once.
func (v *View) placed(p Place) ([]Ino, error) {
	parents := []Ino{p.Parent}
	if p.Parent == Recovered {
		v.lost.each(func(i Ino, _ int32) { parents = append(parents, i) })
	}
	var all []Ino
	for _, d := range parents {
		inos, err := v.s.Named(d, p.Name)
		if err != nil {
			return nil, fmt.Errorf("name %q in directory %v: %w", p.Name, d, err)
		}
		all = append(all, inos...)
	}
	if v.displaced.len() > 0 {
		v.displaced.each(func(i Ino, at Place) {
			if at == p {
				all = append(all, i)
			}
		})
	}
	if len(all) < 2 {
		return all, nil
	}
	slices.SortFunc(all, Ino.Compare)
	return slices.Compact(all), nil
}

// taken reports whether ino, the inode of a conflict copy, has been taken by a
// directory, which only forgery can do: the directory is shown and the copy is
// not. A forged file is not shown as long as the copy is.
func (v *View) taken(ino Ino) bool { return v.dirs.has(ino) }

// members appends what of n is shown at p.
func (v *View) members(ms []member, n *inode, p Place) []member {
	if n.dir {
		if at, ok := v.placeOf(n.ino); ok && at == p && v.shows(n.ino) {
			ms = append(ms, member{ref: ref{ino: n.ino}, of: n, dir: true, copy: n.loc.Copy && Notable(p.Name), wall: n.loc.LocTime, dot: n.loc.dot})
		}
		return ms
	}
	if !n.visible() || v.virtual.has(n.ino) {
		return ms // see taken
	}
	for i := range n.own {
		l := &n.own[i]
		if v.rendered(&l.Link) != p {
			continue
		}
		if last := len(ms) - 1; last >= 0 && ms[last].of == n && !ms[last].virtual {
			ms[last].also = append(ms[last].also, l.id)
			continue
		}
		ms = append(ms, member{ref: ref{n.ino, l.id}, of: n, copy: l.Copy, wall: l.LocTime, dot: l.dot})
	}
	if v.rendered(&n.own[0].Link) != p {
		return ms
	}
	for j := range n.copies {
		c := &n.copies[j]
		if v.taken(n.copyIno(c)) {
			continue
		}
		ms = append(ms, member{ref: ref{ino: n.copyIno(c)}, virtual: true, of: n, version: c, wall: c.Wall, dot: c.dot()})
	}
	return ms
}

// noted is what a view remembers of a directory that contains a conflict. It is
// never changed once it is stored.
type noted struct {
	places  map[string]bool   // plain names with more than one member, a copy, or a copy's name
	derived map[string]target // made-up name -> what is shown there
	names   map[ref]string    // whoever is shown under a made-up name, twins too
}

// target is what a made-up name stands for.
type target struct {
	base string // the plain name of its group
	ref  ref
}

// notable reports whether a group must be remembered.
func notable(g []shown) bool {
	return len(g) > 1 || len(g) == 1 && (len(g[0].twins) > 0 || g[0].copy)
}

// derive gives names to all in dir who do not keep theirs. places are the names
// of all groups of dir that are notable.
func (v *View) derive(c *cached, dir Ino, places map[string]bool) (*noted, error) {
	d := &noted{places: places, derived: map[string]target{}, names: map[ref]string{}}
	sorted := make([]string, 0, len(places))
	for name := range places {
		sorted = append(sorted, name)
	}
	slices.Sort(sorted)
	free := func(name string) (bool, error) {
		if _, taken := d.derived[name]; taken {
			return false, nil
		}
		g, err := v.group(c, Place{dir, name})
		return len(g) == 0, err
	}
	for _, base := range sorted {
		g, err := v.group(c, Place{dir, base})
		if err != nil {
			return nil, err
		}
		for i := 1; i < len(g); i++ {
			name, err := conflictName(base, v.origin(&g[i].member), free)
			if err != nil {
				return nil, err
			}
			d.derived[name] = target{base, g[i].ref}
			for _, m := range g[i].all() {
				d.names[m.ref] = name
			}
		}
	}
	return d, nil
}

// finalName is the name under which r is shown whose plain place is p.
func (v *View) finalName(p Place, r ref) string {
	if d, ok := v.noted.get(p.Parent); ok {
		if name, ok := d.names[r]; ok {
			return name
		}
	}
	return p.Name
}

// find returns what is shown at p and the plain place of its group.
func (v *View) find(c *cached, p Place) (s shown, base Place, ok bool, err error) {
	g, err := v.group(c, p)
	if err != nil {
		return shown{}, Place{}, false, err
	}
	if len(g) > 0 {
		return g[0], p, true, nil
	}
	d, ok := v.noted.get(p.Parent)
	if !ok {
		return shown{}, Place{}, false, nil
	}
	t, ok := d.derived[p.Name]
	if !ok {
		return shown{}, Place{}, false, nil
	}
	base = Place{p.Parent, t.base}
	if g, err = v.group(c, base); err != nil {
		return shown{}, Place{}, false, err
	}
	for _, s := range g {
		if s.ref == t.ref {
			return s, base, true, nil
		}
	}
	return shown{}, Place{}, false, fmt.Errorf("name %q in directory %v: %w", p.Name, p.Parent, errState)
}
