package tree

import (
	"fmt"
	"io/fs"
	"slices"
)

// Entry is one name in a directory, as shown.
type Entry struct {
	Name     string
	Ino      Ino
	Parent   Ino
	Kind     Kind
	Conflict bool // a conflict copy: the name was made up by the view or a pin
}

// Node is an inode, as shown.
type Node struct {
	Ino      Ino
	Kind     Kind
	Mode     uint32 // permission bits
	Size     int64  // bytes; 0 for a directory
	MTime    int64  // ns
	Ref      Ref
	Inline   []byte // symlink target or data of a small file; read-only
	NLink    int    // names of a file; of a directory, 2 + its subdirectories
	Xattrs   map[string][]byte
	Base     []Dot // the C dots that are shown: what a write on this supersedes
	Author   Actor // of the content that is shown
	Conflict bool  // a conflict copy
	Parent   Ino   // of the primary name
	Name     string
}

// Affected is what may be shown differently after a change, for whoever caches it.
type Affected struct {
	All     bool    // everything may differ, also what is not listed
	Entries []Place // names whose target may differ now, sorted
	Inodes  []Ino   // inodes whose content or attributes may differ, sorted
}

// Option changes a [View].
type Option func(*View)

// Labels makes conflict names use label(actor) for the device that wrote the
// content: 1 to 32 bytes without '/', NUL and parentheses, else, and without
// this option, the first digits of the actor. The answer for an actor must be
// the same on every device; if it changes, make a new View.
func Labels(label func(Actor) string) Option { return func(v *View) { v.label = label } }

// Node returns the inode as it is shown, a conflict copy by the inode that its
// [Entry] has, or fs.ErrNotExist if no name shows it.
func (v *View) Node(ino Ino) (Node, error) { return v.node(v.reads(), ino) }

// ListNodes is [View.List] with the inode of each entry, in the same order, or
// none of a directory with more than most entries. It reads what both need once.
func (v *View) ListNodes(dir Ino, most int) ([]Entry, []Node, error) {
	c := v.reads()
	c.m, c.most = map[Ino]*inode{}, most
	es, err := v.list(c, dir)
	if err != nil || len(es) > most {
		return es, nil, err
	}
	nodes := make([]Node, len(es))
	for i := range es {
		if nodes[i], err = v.node(c, es[i].Ino); err != nil {
			return nil, nil, fmt.Errorf("%s: %w", es[i].Name, err)
		}
	}
	return es, nodes, nil
}

func (v *View) node(c *cached, ino Ino) (Node, error) {
	if x, ok := v.virtual.get(ino); ok && !v.taken(ino) {
		return v.copyNode(c, ino, x)
	}
	if ino == Recovered && v.shows(ino) {
		d, _ := v.dirs.get(ino)
		at, _ := v.placeOf(ino)
		return Node{Ino: ino, Kind: Dir, Mode: 0o555, NLink: 2 + int(d.kids), Parent: Root, Name: v.finalName(at, ref{ino: ino})}, nil
	}
	n, err := c.get(ino)
	if err != nil {
		return Node{}, err
	}
	a := n.attrs()
	if n.dir {
		return v.dirNode(n, &a)
	}
	if !n.visible() {
		return Node{}, fs.ErrNotExist
	}
	x := fileNode(ino, n.content)
	x.Base, x.Author, x.NLink, x.Xattrs = slices.Clone(n.base), n.author, v.names(n), a.xattrs
	if a.mode != nil {
		x.Mode = *a.mode
	}
	if a.mtime != nil {
		x.MTime = *a.mtime
	}
	at, l := v.rendered(&n.own[0].Link), &n.own[0]
	x.Parent, x.Name = at.Parent, v.finalName(at, ref{ino, l.id})
	x.Conflict = l.Copy || x.Name != at.Name
	return x, nil
}

// names counts the different places that show the file n.
func (v *View) names(n *inode) int {
	if len(n.own) == 1 {
		return 1
	}
	seen := map[Place]struct{}{}
	for i := range n.own {
		seen[v.rendered(&n.own[i].Link)] = struct{}{}
	}
	return len(seen)
}

func fileNode(ino Ino, c *Content) Node {
	return Node{Ino: ino, Kind: c.Kind, Mode: c.Mode, Size: c.Size, MTime: c.MTime, Ref: c.Ref, Inline: c.Inline, NLink: 1}
}

func (v *View) dirNode(n *inode, a *attrs) (Node, error) {
	d, ok := v.dirs.get(n.ino)
	if !ok || !d.visible() {
		return Node{}, fs.ErrNotExist
	}
	x := Node{Ino: n.ino, Kind: Dir, Mode: DirMode, MTime: n.loc.LocTime, NLink: 2 + int(d.kids), Xattrs: a.xattrs, Author: n.loc.dot.Actor}
	if a.mode != nil {
		x.Mode = *a.mode
	}
	if a.mtime != nil && a.wall >= n.loc.LocTime {
		x.MTime = *a.mtime
	}
	if at, ok := v.placeOf(n.ino); ok {
		x.Parent, x.Name = at.Parent, v.finalName(at, ref{ino: n.ino})
		x.Conflict = d.copy && Notable(at.Name) || x.Name != at.Name
	}
	return x, nil
}

func (v *View) copyNode(c *cached, ino Ino, from virtual) (Node, error) {
	n, err := c.get(from.of)
	if err != nil {
		return Node{}, err
	}
	i := n.copyBy(from)
	if i < 0 {
		return Node{}, fs.ErrNotExist
	}
	x := fileNode(ino, &n.copies[i].Content)
	x.Author, x.Conflict = from.dot.Actor, true
	if !from.snap {
		x.Base = slices.Clone(n.copies[i].dots)
	}
	at := v.rendered(&n.own[0].Link)
	x.Parent, x.Name = at.Parent, v.finalName(at, ref{ino: ino})
	return x, nil
}

// copyBy returns the index of the copy that x is, or -1.
func (n *inode) copyBy(x virtual) int {
	return slices.IndexFunc(n.copies, func(c version) bool { return c.dot() == x.dot && c.snap == x.snap })
}
