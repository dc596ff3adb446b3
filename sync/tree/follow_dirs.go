package tree

import "slices"

// pastDir is how a directory looked before the change.
type pastDir struct {
	dirNode
	at      Place
	existed bool
}

func (v *View) pastDir(ino Ino) pastDir {
	n, ok := v.dirs.get(ino)
	at, _ := v.placeOf(ino)
	return pastDir{n, at, ok}
}

func (p *pastDir) shown() bool { return p.existed && p.visible() }

// followDirs brings the graph up to date: quickly where no cycle can have come
// or gone, else all of it.
func (d *delta) followDirs(p *Pending) error {
	v := d.v
	old, now := map[Ino]pastDir{}, map[Ino]dirNode{}
	for ino := range p.before {
		n, err := d.c.get(ino)
		if err != nil {
			return err
		}
		was := v.pastDir(ino)
		if ino == Root || !n.dir && !was.existed {
			continue
		}
		if n.dir {
			x := nodeOf(&n.loc)
			if was.existed && x.sameLink(&was.dirNode) {
				continue
			}
			x.live, x.kids = was.live, was.kids
			now[ino] = x
		}
		old[ino] = was
	}
	if len(old) == 0 {
		return nil
	}
	quick, err := d.quick(old, now)
	if err != nil {
		return err
	}
	var rest map[Ino]pastDir
	if !quick {
		rest = d.others(old)
	}
	for ino, was := range old {
		x, is := now[ino]
		if is {
			v.dirs.set(ino, x)
		} else {
			v.dirs.del(ino)
		}
		_, bare := d.bare[ino]
		if !bare && (is != was.existed || x.deleted != was.deleted) {
			d.count[ino] = struct{}{}
		}
		if err := d.markCopy(ino); err != nil {
			return err
		}
		if !bare && is != was.existed && (was.existed || v.lost.has(ino)) {
			if err := d.moveFiles(ino); err != nil {
				return err
			}
		}
	}
	if quick && !d.attach(old, now) {
		quick, rest = false, d.others(old)
	}
	if quick {
		return nil
	}
	v.arrange()
	for ino, was := range rest {
		d.compareDir(ino, was)
	}
	for ino, was := range old {
		d.compareDir(ino, was)
	}
	return nil
}

// quick reports whether the graph can be followed without working it out anew,
// provided that attach finds no cycle.
func (d *delta) quick(old map[Ino]pastDir, now map[Ino]dirNode) (bool, error) {
	v := d.v
	var wanted map[Ino]struct{} // directories that displaced ones would be in
	if v.displaced.len() > 0 {
		wanted = map[Ino]struct{}{}
		v.displaced.each(func(i Ino, _ Place) {
			n, _ := v.dirs.get(i)
			wanted[n.parent] = struct{}{}
			if n.prev != nil {
				wanted[n.prev.Parent] = struct{}{}
			}
		})
	}
	for ino, was := range old {
		_, is := now[ino]
		if _, w := wanted[ino]; w || was.existed && wanted != nil || !is && was.shown() {
			return false, nil
		}
		if is {
			continue
		}
		inos, err := v.s.Children(ino) // there are seldom any: see garbage
		if len(inos) > 0 || err != nil {
			return false, err
		}
		d.bare[ino] = struct{}{}
	}
	return true, nil
}

// attach moves the changed directories to their new places. It reports false,
// and has changed nothing that arrange does not, if that makes a cycle.
func (d *delta) attach(old map[Ino]pastDir, now map[Ino]dirNode) bool {
	v := d.v
	for ino, n := range now {
		if !v.known(n.parent) {
			v.displaced.set(ino, Place{Recovered, n.name})
		}
	}
	clear := map[Ino]struct{}{Root: {}, Recovered: {}}
	for ino := range now {
		path := map[Ino]struct{}{}
		for i := ino; ; {
			if _, ok := clear[i]; ok {
				break
			}
			if _, ok := path[i]; ok {
				return false
			}
			path[i] = struct{}{}
			at, _ := v.placeOf(i)
			i = at.Parent
		}
		for i := range path {
			clear[i] = struct{}{}
		}
	}
	for ino := range old {
		d.loose[ino] = struct{}{}
	}
	for _, was := range old {
		if was.shown() {
			d.addKid(was.at.Parent, -1)
		}
	}
	for ino, was := range old {
		delete(d.loose, ino)
		n, is := v.dirs.get(ino)
		at, _ := v.placeOf(ino)
		if is && n.visible() {
			d.addKid(at.Parent, 1)
		}
		d.mark(ino, was)
	}
	return true
}

// mark notes the places of a directory that has changed.
func (d *delta) mark(ino Ino, was pastDir) {
	d.inodes[ino] = struct{}{}
	if was.shown() {
		d.places[was.at] = true
	}
	if at, ok := d.v.placeOf(ino); ok {
		d.places[at] = true
	}
}

// others remembers all directories but those in old.
func (d *delta) others(old map[Ino]pastDir) map[Ino]pastDir {
	rest := make(map[Ino]pastDir, d.v.dirs.len())
	d.v.dirs.each(func(i Ino, _ dirNode) {
		if _, ok := old[i]; !ok {
			rest[i] = d.v.pastDir(i)
		}
	})
	return rest
}

// compareDir notes what arrange has changed about a directory.
func (d *delta) compareDir(ino Ino, was pastDir) {
	now := d.v.pastDir(ino)
	if now.kids != was.kids {
		d.inodes[ino] = struct{}{}
	}
	if now.at != was.at || now.shown() != was.shown() || !now.sameLink(&was.dirNode) {
		d.mark(ino, was)
	}
}

// moveFiles notes the files of a directory that has become known or unknown:
// they move out of Recovered or into it.
func (d *delta) moveFiles(dir Ino) error {
	inos, err := d.v.s.Children(dir)
	if err != nil {
		return err
	}
	for _, ino := range inos {
		n, err := d.c.get(ino)
		if err != nil {
			return err
		}
		if n.dir {
			continue
		}
		for i := range n.own {
			if l := &n.own[i]; l.Parent == dir {
				d.places[Place{dir, l.Name}], d.places[Place{Recovered, l.Name}] = true, true
			}
		}
		for _, s := range d.v.spots(n) {
			d.inodes[s.ino] = struct{}{}
		}
	}
	return nil
}

// load fills an empty view.
func (d *delta) load() error {
	v := d.v
	v.dirs.set(Root, dirNode{})
	v.dirs.set(Recovered, dirNode{name: RecoveredName, deleted: true})
	inos, err := gather(v.s.Dirs)
	if err != nil {
		return err
	}
	for _, ino := range inos {
		rs, err := v.s.Records(ino)
		if err != nil {
			return err
		}
		if n := sortOut(ino, rs); n.dir && ino != Root {
			v.dirs.set(ino, nodeOf(&n.loc))
		}
	}
	if err := d.survey(); err != nil {
		return err
	}
	v.dirs.each(func(i Ino, n dirNode) {
		if n.deleted && i != Recovered {
			d.count[i] = struct{}{}
		}
	})
	for dir := range d.count {
		d.loose[dir] = struct{}{} // arrange will count them
	}
	d.loose[Recovered] = struct{}{}
	if err := d.recount(nil); err != nil {
		return err
	}
	v.arrange()
	v.displaced.each(func(_ Ino, at Place) { d.places[at] = true })
	d.places[Place{Root, RecoveredName}] = true
	return d.loadRest()
}

// loadRest is the end of load: what is garbage, what is in conflict, and the names
// for it.
func (d *delta) loadRest() error {
	v := d.v
	if err := v.s.Dead(func(i Ino) error { v.garbage.note(i, true); return nil }); err != nil {
		return err
	}
	inos, err := gather(v.s.Conflicted)
	if err != nil {
		return err
	}
	for _, ino := range inos {
		n, err := d.c.get(ino)
		if err != nil {
			return err
		}
		if err := d.addCopies(n); err != nil {
			return err
		}
		d.compare(v.spots(n), nil)
	}
	return d.settle(nil)
}

func gather(each func(func(Ino) error) error) (all []Ino, err error) {
	err = each(func(i Ino) error {
		all = append(all, i)
		return nil
	})
	return all, err
}

// survey finds unknown parents and the places that may be in conflict.
func (d *delta) survey() error {
	v := d.v
	sv, ok := v.s.(Surveyor)
	if !ok {
		return d.walk()
	}
	var lost []Ino
	err := sv.Survey(func(parent Ino, names []string) error {
		if !v.known(parent) {
			lost = append(lost, parent)
			return nil
		}
		for _, name := range names {
			d.places[Place{parent, name}] = true
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, p := range lost {
		d.count[p] = struct{}{}
		if err := d.moveFiles(p); err != nil {
			return err
		}
	}
	return nil
}

// walk is survey for a State that cannot tell: it reads everything.
func (d *delta) walk() error {
	v := d.v
	var dirs []Ino
	v.dirs.each(func(i Ino, _ dirNode) { dirs = append(dirs, i) })
	slices.SortFunc(dirs, Ino.Compare)
	for _, dir := range dirs {
		inos, err := v.s.Children(dir)
		if err != nil {
			return err
		}
		c, seen := v.reads(), map[string]struct{}{}
		for _, ino := range inos {
			n, err := c.get(ino)
			if err != nil {
				return err
			}
			err = eachPlace(n, dir, dir, func(_ *inode, p Place) error {
				if _, twice := seen[p.Name]; twice || Notable(p.Name) {
					d.places[p] = true
				}
				seen[p.Name] = struct{}{}
				return nil
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}
