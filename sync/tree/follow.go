package tree

import (
	"fmt"
	"maps"
	"slices"
)

// Pending is a change that the view has been told of and that is being applied.
type Pending struct {
	v      *View
	before map[Ino]past
}

// past is how an inode looked before the change.
type past struct {
	n     *inode
	spots []spot
}

// spot is one thing that a file shows in a directory.
type spot struct {
	ref
	at   Place
	wall int64
	copy bool
}

// spots lists what a file shows, and the places where.
func (v *View) spots(n *inode) []spot {
	if n.dir || !n.visible() {
		return nil
	}
	ss := make([]spot, 0, len(n.own)+len(n.copies))
	for i := range n.own {
		l := &n.own[i]
		ss = append(ss, spot{ref{n.ino, l.id}, v.rendered(&l.Link), l.LocTime, l.Copy})
	}
	for i := range n.copies {
		ss = append(ss, spot{ref{ino: n.copyIno(&n.copies[i])}, ss[0].at, n.copies[i].Wall, false})
	}
	return ss
}

// Prepare must be called before the State takes ch, and Done of the result
// after it has. Only the inodes that ch touches are read. In between the view
// is not to be used.
func (v *View) Prepare(ch Change) (*Pending, error) {
	p := &Pending{v: v, before: make(map[Ino]past, len(ch.Put))}
	c := v.reads()
	for _, ino := range ch.Born {
		p.before[ino] = past{n: sortOut(ino, nil)}
	}
	add := func(k Key) error {
		ino := k.Ino()
		if _, ok := p.before[ino]; ok || ino[0] == 0xff {
			return nil
		}
		n, err := c.get(ino)
		if err != nil {
			return err
		}
		p.before[ino] = past{n, v.spots(n)}
		return nil
	}
	for i := range ch.Put {
		if err := add(ch.Put[i].Key); err != nil {
			return nil, err
		}
	}
	for i := range ch.Drop {
		if err := add(ch.Drop[i].Key); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// Done brings the view up to date with the State and reports what may be shown
// differently than before Prepare. After an error the view is not to be used
// any more; make a new one.
func (p *Pending) Done() (Affected, error) {
	d := newDelta(p.v)
	for ino := range p.before {
		d.inodes[ino] = struct{}{}
	}
	for _, step := range []func(*Pending) error{d.followDirs, d.followFiles, d.recount, d.settle} {
		if err := step(p); err != nil {
			return Affected{}, fmt.Errorf("follow change: %w", err)
		}
	}
	if g := p.v.garbage; g != nil {
		for ino := range p.before {
			n, err := d.c.get(ino)
			if err != nil {
				return Affected{}, fmt.Errorf("follow change: %w", err)
			}
			g.note(ino, n.dead())
		}
	}
	return d.affected(), nil
}

// delta gathers what a change touches while the view follows it.
type delta struct {
	v *View
	c *cached
	// places that a group may have changed at: true if what wants the name may
	// be others now, false if only what they show.
	places  map[Place]bool
	inodes  map[Ino]struct{}
	entries map[Place]struct{}
	live    map[Ino]int32    // parents -> how many files more they have
	count   map[Ino]struct{} // parents whose files must be counted anew
	loose   map[Ino]struct{} // directories that their parents do not count now
	bare    map[Ino]struct{} // directories that have gone and had nothing in them
}

func newDelta(v *View) *delta {
	return &delta{
		v:       v,
		c:       &cached{s: v.s, m: map[Ino]*inode{}},
		places:  map[Place]bool{},
		inodes:  map[Ino]struct{}{},
		entries: map[Place]struct{}{},
		live:    map[Ino]int32{},
		count:   map[Ino]struct{}{},
		loose:   map[Ino]struct{}{},
		bare:    map[Ino]struct{}{},
	}
}

func (d *delta) affected() Affected {
	return Affected{
		Entries: slices.SortedFunc(maps.Keys(d.entries), Place.compare),
		Inodes:  slices.SortedFunc(maps.Keys(d.inodes), Ino.Compare),
	}
}

// followFiles compares what each touched file shows now with what it showed.
func (d *delta) followFiles(p *Pending) error {
	for _, was := range p.before {
		for i := range was.n.copies {
			ino := was.n.copyIno(&was.n.copies[i])
			d.v.virtual.del(ino)
			if err := d.markForged(ino); err != nil {
				return err
			}
		}
	}
	for ino, was := range p.before {
		n, err := d.c.get(ino)
		if err != nil {
			return err
		}
		d.countLinks(was.n, -1)
		d.countLinks(n, 1)
		if err := d.addCopies(n); err != nil {
			return err
		}
		now := d.v.spots(n)
		d.compare(was.spots, now)
		d.compare(now, was.spots)
	}
	return nil
}

// addCopies makes the conflict copies of n known by their inodes.
func (d *delta) addCopies(n *inode) error {
	if n.dir || !n.visible() {
		return nil
	}
	for i := range n.copies {
		ino := n.copyIno(&n.copies[i])
		d.v.virtual.set(ino, virtual{n.ino, n.copies[i].dot(), n.copies[i].snap})
		if err := d.markForged(ino); err != nil {
			return err
		}
	}
	return nil
}

// markForged marks the places of a file that has the inode of a conflict copy.
func (d *delta) markForged(ino Ino) error {
	n, err := d.c.get(ino)
	if err != nil {
		return err
	}
	d.compare(d.v.spots(n), nil)
	return nil
}

// markCopy marks the places of the conflict copy that has the inode ino.
func (d *delta) markCopy(ino Ino) error {
	x, ok := d.v.virtual.get(ino)
	if !ok {
		return nil
	}
	return d.markForged(x.of)
}

// compare marks the places of a, surely if b has not the same there.
func (d *delta) compare(a, b []spot) {
	for _, s := range a {
		changed := !slices.Contains(b, s)
		d.places[s.at] = d.places[s.at] || changed
		d.inodes[s.ino] = struct{}{}
	}
}

// recount brings up to date how many files skeletons and unknown parents show.
func (d *delta) recount(*Pending) error {
	for dir := range d.count {
		delete(d.live, dir)
		n, ok := d.v.dirs.get(dir)
		var files int32
		if !ok || n.deleted {
			var err error
			if files, err = d.v.countFiles(d.c, dir, 1<<30); err != nil {
				return err
			}
		}
		d.setFiles(dir, files)
	}
	for dir, by := range d.live {
		if n, _ := d.v.dirs.get(dir); d.v.known(dir) {
			if n.deleted {
				d.setFiles(dir, n.live+by)
			}
			continue
		}
		was, _ := d.v.lost.get(dir)
		d.setFiles(dir, was+by)
	}
	return nil
}

// countLinks notes that the files of n come to (by 1) or leave (by -1) their
// parents.
func (d *delta) countLinks(n *inode, by int32) {
	if !n.visible() {
		return
	}
	for i := range n.own {
		d.live[n.own[i].Parent] += by
	}
}

// setFiles records how many files are placed in dir, for dir itself if it is
// known and for Recovered if not.
func (d *delta) setFiles(dir Ino, files int32) {
	if d.v.known(dir) {
		d.setLive(dir, files)
		files = 0
	}
	was, _ := d.v.lost.get(dir)
	if was == files {
		return
	}
	if files > 0 {
		d.v.lost.set(dir, files)
	} else {
		d.v.lost.del(dir)
	}
	r, _ := d.v.dirs.get(Recovered)
	d.setLive(Recovered, r.live+files-was)
}

// setLive records how many files dir shows, which may show or hide it.
func (d *delta) setLive(dir Ino, files int32) {
	n, _ := d.v.dirs.get(dir)
	if n.live == files {
		return
	}
	was := n.visible()
	n.live = files
	d.v.dirs.set(dir, n)
	d.flip(dir, was, n.visible())
}

// addKid counts one directory more or less that dir shows, which may show or
// hide dir and so on.
func (d *delta) addKid(dir Ino, by int32) {
	n, ok := d.v.dirs.get(dir)
	if !ok {
		return
	}
	was := n.visible()
	n.kids += by
	d.v.dirs.set(dir, n)
	d.inodes[dir] = struct{}{}
	d.flip(dir, was, n.visible())
}

// flip tells the parent of dir if dir appears or disappears.
func (d *delta) flip(dir Ino, was, is bool) {
	if _, loose := d.loose[dir]; loose || was == is || dir == Root {
		return
	}
	at, _ := d.v.placeOf(dir)
	d.places[at] = true
	d.inodes[dir] = struct{}{}
	if is {
		d.addKid(at.Parent, 1)
	} else {
		d.addKid(at.Parent, -1)
	}
}

// settle looks at the groups of all places touched, and gives names anew in the
// directories where one of them is or was in conflict.
func (d *delta) settle(*Pending) error {
	touched := map[Ino]map[string]bool{} // directory -> its conflicts, if they may be named anew
	for p, changed := range d.places {
		old, _ := d.v.noted.get(p.Parent)
		was := old != nil && old.places[p.Name]
		if !changed && !was {
			continue
		}
		d.entries[p] = struct{}{}
		g, err := d.v.group(d.c, p)
		if err != nil {
			return err
		}
		is := notable(g)
		if !is && !was && (old == nil || !Notable(p.Name)) {
			continue // nobody is named after it, nor was kept from a name by it
		}
		names := touched[p.Parent]
		if names == nil {
			names = map[string]bool{}
			if old != nil {
				maps.Copy(names, old.places)
			}
			touched[p.Parent] = names
		}
		if is {
			names[p.Name] = true
		} else {
			delete(names, p.Name)
		}
	}
	for dir, names := range touched {
		if err := d.rename(dir, names); err != nil {
			return err
		}
	}
	return nil
}

// rename gives names anew in dir, whose conflicts are at the plain names given.
func (d *delta) rename(dir Ino, names map[string]bool) error {
	old, _ := d.v.noted.get(dir)
	if old == nil {
		old = &noted{}
	}
	now := &noted{}
	if len(names) == 0 {
		d.v.noted.del(dir)
	} else {
		var err error
		if now, err = d.v.derive(d.c, dir, names); err != nil {
			return err
		}
		d.v.noted.set(dir, now)
	}
	for _, pair := range [][2]*noted{{old, now}, {now, old}} {
		a, b := pair[0], pair[1]
		for name, t := range a.derived {
			if b.derived[name] != t {
				d.entries[Place{dir, name}] = struct{}{}
			}
		}
		for r, name := range a.names {
			if b.names[r] != name {
				d.inodes[r.ino] = struct{}{}
			}
		}
	}
	return nil
}
