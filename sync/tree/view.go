package tree

import (
	"cmp"
	"fmt"
	"io/fs"
	"slices"
)

// View is the tree that a [State] shows. In memory it keeps the directories and
// the places where something is in conflict; all else is read when asked for.
//
// Reading methods may run at the same time. NewView, Prepare, Done and changes
// of the State need everything else to wait.
type View struct {
	s     State
	label func(Actor) string

	dirs      *layer[Ino, dirNode]
	displaced *layer[Ino, Place]   // directories that are not shown where their link says
	lost      *layer[Ino, int32]   // unknown parents -> files placed in them
	noted     *layer[Ino, *noted]  // directories that contain a conflict
	virtual   *layer[Ino, virtual] // conflict copies that have no records of their own
	garbage   *garbage             // nil in the view of an Edit

	off rules // none, but in the tests that prove each rule is needed
}

// rules names what the tests can leave out of [Edit].
type rules struct {
	touch, snap, keepAlive, skeleton, baseDot    bool
	pinNames, pinCopies, pinGhosts, pinDisplaced bool
	uphold, anchor                               bool
	everyWord, haveWords, bare, circles          bool // of garbage
}

// virtual is where a conflict copy comes from.
type virtual struct {
	of   Ino
	dot  Dot
	snap bool // see version
}

// NewView reads from s what the view keeps in memory: every directory, every
// inode in conflict, the children of skeletons, and which inodes are garbage.
func NewView(s State, opts ...Option) (*View, error) {
	v := emptyView(s, opts)
	if err := newDelta(v).load(); err != nil {
		return nil, fmt.Errorf("load tree: %w", err)
	}
	return v, nil
}

func emptyView(s State, opts []Option) *View {
	v := &View{
		s:         s,
		dirs:      newLayer[Ino, dirNode](nil),
		displaced: newLayer[Ino, Place](nil),
		lost:      newLayer[Ino, int32](nil),
		noted:     newLayer[Ino, *noted](nil),
		virtual:   newLayer[Ino, virtual](nil),
		garbage:   newGarbage(),
	}
	for _, o := range opts {
		o(v)
	}
	return v
}

// fork returns a view of s that starts as v and leaves v as it is.
func (v *View) fork(s State) *View {
	return &View{
		s:         s,
		label:     v.label,
		off:       v.off,
		dirs:      newLayer(v.dirs),
		displaced: newLayer(v.displaced),
		lost:      newLayer(v.lost),
		noted:     newLayer(v.noted),
		virtual:   newLayer(v.virtual),
	}
}

func (v *View) reads() *cached { return &cached{s: v.s} }

// isDir returns nil if ino is a directory that is shown, else ErrNotDir or
// fs.ErrNotExist.
func (v *View) isDir(c *cached, ino Ino) error {
	if v.shows(ino) {
		return nil
	}
	if v.virtual.has(ino) {
		return ErrNotDir
	}
	n, err := c.get(ino)
	switch {
	case err != nil:
		return err
	case !n.dir && n.visible():
		return ErrNotDir
	}
	return fs.ErrNotExist
}

func entry(s *shown, parent Ino, name string, derived bool) Entry {
	return Entry{Name: name, Ino: s.ino, Parent: parent, Kind: s.kind(), Conflict: derived || s.copy}
}

// Lookup returns what name in dir shows, or fs.ErrNotExist, or [ErrNotDir] if
// dir is none. It reads one name and the inodes placed there, unless the name
// is made up.
func (v *View) Lookup(dir Ino, name string) (Entry, error) {
	c := v.reads()
	if err := v.isDir(c, dir); err != nil {
		return Entry{}, err
	}
	s, base, ok, err := v.find(c, Place{dir, name})
	if err != nil {
		return Entry{}, err
	}
	if !ok {
		return Entry{}, fs.ErrNotExist
	}
	return entry(&s, dir, name, base.Name != name), nil
}

// List returns all that dir shows, sorted by name. Errors are those of Lookup.
func (v *View) List(dir Ino) ([]Entry, error) { return v.list(v.reads(), dir) }

func (v *View) list(c *cached, dir Ino) ([]Entry, error) {
	if err := v.isDir(c, dir); err != nil {
		return nil, err
	}
	d, _ := v.noted.get(dir)
	var es []Entry
	err := v.each(c, dir, func(n *inode, p Place) error {
		if d != nil && d.places[p.Name] {
			return nil
		}
		for _, m := range v.members(nil, n, p) {
			es = append(es, entry(&shown{member: m}, dir, p.Name, false))
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if d != nil {
		for base := range d.places {
			g, err := v.group(c, Place{dir, base})
			if err != nil {
				return nil, err
			}
			for i := range g {
				name := v.finalName(Place{dir, base}, g[i].ref)
				es = append(es, entry(&g[i], dir, name, i > 0))
			}
		}
	}
	if d == nil || !d.places[RecoveredName] {
		if dir == Root && v.shows(Recovered) {
			es = append(es, Entry{Name: RecoveredName, Ino: Recovered, Parent: Root, Kind: Dir})
		}
	}
	slices.SortFunc(es, func(a, b Entry) int { return cmp.Compare(a.Name, b.Name) })
	return slices.Compact(es), nil // Recovered may find a file in two of its parents
}

// each calls fn for every place in dir that an inode wants, once for each inode
// and place. The inode may not be shown there.
func (v *View) each(c *cached, dir Ino, fn func(*inode, Place) error) error {
	parents := []Ino{dir}
	if dir == Recovered {
		v.lost.each(func(i Ino, _ int32) {
			if i != dir {
				parents = append(parents, i)
			}
		})
	}
	for _, p := range parents {
		inos, err := v.s.Children(p)
		if err != nil {
			return fmt.Errorf("children of %v: %w", p, err)
		}
		if err := c.gather(inos); err != nil {
			return fmt.Errorf("children of %v: %w", p, err)
		}
		for _, ino := range inos {
			if v.dirs.has(ino) {
				if at, _ := v.placeOf(ino); at.Parent != dir || v.displaced.has(ino) || !v.shows(ino) {
					continue
				}
			}
			n, err := c.get(ino)
			if err != nil {
				return err
			}
			if err := eachPlace(n, p, dir, fn); err != nil {
				return err
			}
		}
	}
	var here []Ino
	v.displaced.each(func(i Ino, at Place) {
		if at.Parent == dir {
			here = append(here, i)
		}
	})
	for _, ino := range here {
		n, err := c.get(ino)
		if err != nil {
			return err
		}
		at, _ := v.placeOf(ino)
		if err := fn(n, at); err != nil {
			return err
		}
	}
	return nil
}

// eachPlace calls fn for each name that n has in parent, which is shown as dir.
func eachPlace(n *inode, parent, dir Ino, fn func(*inode, Place) error) error {
	if n.dir {
		return fn(n, Place{dir, n.loc.Name})
	}
	for i := range n.own {
		l := &n.own[i]
		first := func(o link) bool { return o.Parent == l.Parent && o.Name == l.Name }
		if l.Parent != parent || slices.IndexFunc(n.own, first) != i {
			continue
		}
		if err := fn(n, Place{dir, l.Name}); err != nil {
			return err
		}
	}
	return nil
}

// empty reports whether dir shows nothing.
func (v *View) empty(c *cached, dir Ino) (bool, error) {
	if n, ok := v.dirs.get(dir); !ok || n.kids > 0 {
		return false, nil
	}
	n, err := v.countFiles(c, dir, 1)
	return n == 0, err
}

// countFiles counts the links of files that are shown and placed in dir, up to
// at least limit.
func (v *View) countFiles(c *cached, dir Ino, limit int32) (count int32, err error) {
	inos, err := v.s.Children(dir)
	if err != nil {
		return 0, fmt.Errorf("children of %v: %w", dir, err)
	}
	for _, ino := range inos {
		if count >= limit {
			break
		}
		if v.dirs.has(ino) {
			continue
		}
		n, err := c.get(ino)
		if err != nil {
			return 0, err
		}
		if !n.dir && n.visible() {
			for i := range n.own {
				if n.own[i].Parent == dir {
					count++
				}
			}
		}
	}
	return count, nil
}

// Untouched reports whether the view is that of a tree in which nothing was ever made,
// as far as it can tell.
func (v *View) Untouched() (bool, error) {
	if v.dirs.len() > 2 { // the root and Recovered
		return false, nil
	}
	es, err := v.List(Root)
	return len(es) == 0, err
}

// Path returns "/" or "/a/b", the primary name of ino, or fs.ErrNotExist.
func (v *View) Path(ino Ino) (string, error) {
	if ino == Root {
		return "/", nil
	}
	x, err := v.Node(ino)
	if err != nil {
		return "", err
	}
	return v.path(x.Parent, x.Name), nil
}

// path joins the name of dir's path and name.
func (v *View) path(dir Ino, name string) string {
	p := "/" + name
	v.up(dir, func(i Ino, _ dirNode) bool {
		if at, ok := v.placeOf(i); ok {
			p = "/" + v.finalName(at, ref{ino: i}) + p
		}
		return true
	})
	return p
}

// Conflict is an entry that is a conflict copy.
type Conflict struct {
	Entry
	Path string
}

// Conflicts returns every conflict copy, sorted by path: those whose name is
// made up now, and those that were given it for good and not renamed since.
func (v *View) Conflicts() ([]Conflict, error) {
	c := v.reads()
	type dirNoted struct {
		dir Ino
		*noted
	}
	var all []dirNoted
	v.noted.each(func(dir Ino, d *noted) { all = append(all, dirNoted{dir, d}) })
	var out []Conflict
	for _, d := range all {
		for base := range d.places {
			p := Place{d.dir, base}
			g, err := v.group(c, p)
			if err != nil {
				return nil, err
			}
			for i := range g {
				e := entry(&g[i], d.dir, v.finalName(p, g[i].ref), i > 0)
				if e.Conflict {
					out = append(out, Conflict{e, v.path(d.dir, e.Name)})
				}
			}
		}
	}
	slices.SortFunc(out, func(a, b Conflict) int { return cmp.Compare(a.Path, b.Path) })
	return out, nil
}
