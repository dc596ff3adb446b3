package tree

import "slices"

// pins says what an operation is about to touch.
type pins struct {
	places  []Place             // plain places of groups, and new names
	inodes  []Ino               // files
	dirs    []Ino               // directories beside the parents of places and inodes
	dirLink bool                // a directory comes, goes or moves
	skip    func(Ino, Dot) bool // contents of an inode that are about to be superseded
}

// pins is what an operation on s, which p shows, touches.
func (s *shown) pins(p Place) pins {
	w := pins{places: []Place{p, s.base}, dirLink: s.dir}
	for _, m := range s.all() {
		if !m.dir {
			w.inodes = append(w.inodes, m.of.ino)
		}
	}
	return w
}

// pin writes down the truth as it is shown, where the operation could otherwise
// disturb it: made-up names become names, conflict copies get inodes of their
// own, directories that are shown though deleted come back to life, and if
// directories change, all those that are not shown where their links say get
// links that do. The view shows the same afterwards, and sees the pins. Where
// nothing is in conflict this reads nothing but the inodes.
func (e *Edit) pin(w pins) error {
	p := pinner{e: e, c: e.reads(), skip: w.skip, dirs: map[Ino]struct{}{}, groups: map[Place]struct{}{}, copies: map[Ino]struct{}{}, behind: map[Ino]int64{}}
	for _, at := range w.places {
		p.place(at)
	}
	for _, ino := range w.inodes {
		if err := p.inode(ino); err != nil {
			return err
		}
	}
	for _, dir := range w.dirs {
		p.ghosts(dir)
	}
	for at := range p.groups {
		if err := p.group(at); err != nil {
			return err
		}
	}
	for ino := range p.copies {
		n, err := p.c.get(ino)
		if err != nil {
			return err
		}
		for i := range n.copies {
			p.copy(n, &n.copies[i])
		}
	}
	if err := p.pinDirs(w.dirLink); err != nil {
		return err
	}
	return e.flush()
}

// pinDirs pins the directories noted, and if there are any, or any is set, those
// that are displaced.
func (p *pinner) pinDirs(any bool) error {
	if v := p.e.v; (any || len(p.dirs) > 0) && !v.off.pinDisplaced {
		v.displaced.each(func(i Ino, at Place) {
			if at.Parent != Recovered {
				p.dirs[i] = struct{}{}
			}
		})
	}
	for dir := range p.dirs {
		if err := p.dir(dir); err != nil {
			return err
		}
	}
	return nil
}

// pinner gathers what pin has to write.
type pinner struct {
	e      *Edit
	c      *cached
	skip   func(Ino, Dot) bool
	dirs   map[Ino]struct{}
	groups map[Place]struct{}
	copies map[Ino]struct{} // files whose conflict copies become real
	behind map[Ino]int64    // hidden copies -> what stands for them is that old, ns
	renew  bool             // write the links of dirs in any case
}

// place notes the group at at, and the directories above it. A name that looks
// made up may be what another's made-up name had to avoid, so then all groups
// of the directory are noted.
func (p *pinner) place(at Place) {
	p.ghosts(at.Parent)
	d, ok := p.e.v.noted.get(at.Parent)
	if !ok || p.e.v.off.pinNames {
		return
	}
	if d.places[at.Name] {
		p.groups[at] = struct{}{}
	}
	if Notable(at.Name) {
		for name := range d.places {
			p.groups[Place{at.Parent, name}] = struct{}{}
		}
	}
}

func (p *pinner) inode(ino Ino) error {
	n, err := p.c.get(ino)
	if err != nil {
		return err
	}
	for i := range n.own {
		p.place(p.e.v.rendered(&n.own[i].Link))
	}
	if len(n.copies) > 0 && !p.e.v.off.pinCopies {
		p.copies[ino] = struct{}{}
	}
	return nil
}

// ghosts notes the deleted ones among dir and its ancestors.
func (p *pinner) ghosts(dir Ino) {
	if p.e.v.off.pinGhosts {
		return
	}
	p.e.v.up(dir, func(i Ino, n dirNode) bool {
		if n.deleted && i != Recovered {
			p.dirs[i] = struct{}{}
		}
		return true
	})
}

// group pins all members at at but those that have its name already.
func (p *pinner) group(at Place) error {
	g, err := p.e.v.group(p.c, at)
	if err != nil {
		return err
	}
	for i := range g {
		name := p.e.v.finalName(at, g[i].ref)
		for j, m := range g[i].all() {
			switch {
			case m.virtual:
				if j > 0 {
					p.behind[m.ino] = g[i].wall
				}
				if !p.e.v.off.pinCopies {
					p.copies[m.of.ino] = struct{}{}
				}
			case i == 0: // it keeps the name
			case m.dir:
				p.dirs[m.ino] = struct{}{}
			default:
				p.name(&m, Place{at.Parent, name})
			}
		}
	}
	return nil
}

// name gives a link of a file the name it is shown under.
func (p *pinner) name(m *member, at Place) {
	for i := range m.of.own {
		o := &m.of.own[i]
		if o.id != m.link {
			continue
		}
		l := o.Link
		l.Parent, l.Name, l.Copy = p.e.parent(at.Parent, l.Parent), at.Name, true
		l.Snap = m.of.keptSnap(append([]LinkID{m.link}, m.also...)...)
		p.e.setOne(m, l)
	}
}

// parent is what a link says to be shown in dir, if it says old now: nothing is
// placed in Recovered itself.
func (e *Edit) parent(dir, old Ino) Ino {
	if dir == Recovered && !e.v.known(old) {
		return old
	}
	return dir
}

// dir gives a directory a link that says what is shown of it. If that brings it
// back to life, or is done to keep it, its attributes are written again as well:
// the ones that are there may go with the link that is there.
func (p *pinner) dir(ino Ino) error {
	v := p.e.v
	n, err := p.c.get(ino)
	if err != nil {
		return err
	}
	d, _ := v.dirs.get(ino)
	at, _ := v.placeOf(ino)
	l := n.loc.Link
	l.Parent, l.Name = p.e.parent(at.Parent, l.Parent), v.finalName(at, ref{ino: ino})
	l.Deleted = !d.visible() || v.off.pinGhosts && d.deleted
	l.Copy = Notable(l.Name) && (l.Copy || l.Name != at.Name)
	same := l.Parent == d.parent && l.Name == d.name && l.Deleted == d.deleted
	switch {
	case !same:
		p.e.setLink(n, LinkID{}, l)
	case p.renew:
		p.e.touch(n, &n.loc, nil)
	default:
		return nil
	}
	if p.renew || d.deleted {
		for _, r := range n.registers() {
			p.e.set(n, r.Key, r.Value)
		}
	}
	return nil
}

// copy gives a conflict copy an inode of its own, unless what it shows is about
// to be superseded.
func (p *pinner) copy(n *inode, c *version) {
	if p.skip != nil && !c.snap && p.skip(n.ino, c.dot()) || p.e.v.taken(n.copyIno(c)) {
		return
	}
	wall := c.Wall
	if w, ok := p.behind[n.copyIno(c)]; ok {
		wall = max(wall, w+1) // it stays hidden
	}
	p.e.makeReal(n, c, wall)
}

// makeReal gives the copy c of n records of its own, and the time wall to its
// link. They are the same whoever writes them.
func (e *Edit) makeReal(n *inode, c *version, wall int64) {
	ino, first := n.copyIno(c), &n.own[0].Link
	at := e.v.rendered(first)
	name := e.v.finalName(at, ref{ino: ino})
	e.put(ContentKey(ino), c.Encode())
	e.putLink(LinkKey(ino, LinkID{}), Link{Parent: e.parent(at.Parent, first.Parent), Name: name, Rank: 1, LocTime: wall, Copy: name != at.Name})
	e.dropVersion(n, c)
}

// dropVersion takes the copy c away from n: its C records, and the snapshots that
// would show it again without them.
func (e *Edit) dropVersion(n *inode, c *version) {
	if !c.snap {
		for _, d := range c.dots {
			e.drop(Record{Key: ContentKey(n.ino), Dot: d})
		}
	}
	for i := range n.own {
		l := &n.own[i]
		if !slices.ContainsFunc(n.snaps(l.id), func(s Content) bool { return s.same(&c.Content) }) {
			continue
		}
		k := KeyDot{LinkKey(n.ino, l.id), e.dot}
		if v, ok := e.stage.put[k]; ok { // a pin gives it a name, or another copy has gone
			x, err := DecodeLink(v)
			if err != nil {
				e.err = err
				return
			}
			x.Snap = n.keptSnap(l.id)
			e.putLink(k.Key, x)
			continue
		}
		e.touch(n, l, n.keptSnap(l.id))
	}
}

// keptSnap is the snapshot that links of n have when they are written again with
// no change of what they show. It may be a sibling that goes now which had it.
func (n *inode) keptSnap(ids ...LinkID) *Content {
	if len(n.base) == 0 {
		return n.content
	}
	for _, s := range n.snaps(ids...) {
		if s.same(n.content) {
			return &s
		}
	}
	return nil
}

// materialise makes the conflict copy x real, with all that this disturbs.
func (e *Edit) materialise(x virtual) error {
	n, err := e.reads().get(x.of)
	if err != nil {
		return err
	}
	if err := e.pin(pins{inodes: []Ino{x.of}}); err != nil {
		return err
	}
	if !e.v.off.pinCopies {
		return nil
	}
	if i := n.copyBy(x); i >= 0 {
		e.makeReal(n, &n.copies[i], n.copies[i].Wall)
	}
	return e.flush()
}

// pinFile pins what a change of the file n disturbs, but for contents that it
// supersedes, and returns n as it is then.
func (e *Edit) pinFile(n *inode, skip func(Dot) bool) (*inode, error) {
	w := pins{inodes: []Ino{n.ino}}
	if skip != nil {
		// A dot may have written other inodes too: their contents stay.
		w.skip = func(ino Ino, d Dot) bool { return ino == n.ino && skip(d) }
	}
	if err := e.pin(w); err != nil {
		return nil, err
	}
	return e.reads().get(n.ino)
}
