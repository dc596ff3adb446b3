package tree

import (
	"io/fs"
	"slices"
)

// Create makes a file, symlink or fifo and returns its inode. Rank and Wall of
// c are set here. Errors: fs.ErrExist, fs.ErrNotExist (parent), [ErrNotDir],
// [ErrName], fs.ErrPermission (in Recovered), [ErrRecord] (c is illegal).
func (e *Edit) Create(parent Ino, name string, c Content) (ino Ino, err error) {
	err = e.do(func() error {
		c.Rank, c.Wall = 1, e.now
		if err := c.check(); err != nil {
			return err
		}
		p := Place{parent, name}
		if err := e.into(e.reads(), p); err != nil {
			return err
		}
		if err := e.pin(pins{places: []Place{p}}); err != nil {
			return err
		}
		ino = fileIno(parent, e.dot, e.index, e.next())
		e.stage.born = append(e.stage.born, ino)
		e.put(ContentKey(ino), c.Encode())
		e.putLink(LinkKey(ino, LinkID{}), Link{Parent: parent, Name: name, Rank: 1, LocTime: e.now})
		return nil
	})
	return ino, err
}

// Write gives ino new content. It supersedes the content that the writer saw,
// which base names ([Node].Base), and what this actor wrote since; any other
// stays beside it as a conflict copy. The permission bits stay as they are, and
// Rank and Wall of c are set here. It returns ino, which a conflict copy keeps
// when it becomes real. A base that no longer stands for anything (the copy became
// real in another operation meanwhile) supersedes nothing. Errors: fs.ErrNotExist (no name shows it any more),
// [ErrIsDir], [ErrRecord] (c is illegal, or of another kind than the inode).
func (e *Edit) Write(ino Ino, base []Dot, c Content) (Ino, error) {
	err := e.do(func() error {
		x, err := e.v.Node(ino)
		if err != nil {
			return err
		}
		c.Rank, c.Wall, c.Mode = 1, e.now, x.Mode
		switch {
		case x.Kind == Dir:
			return ErrIsDir
		case x.Kind != c.Kind:
			return malformed("%v written to a %v", c.Kind, x.Kind)
		}
		if err := c.check(); err != nil {
			return err
		}
		_, virtual := e.v.virtual.get(ino)
		n, err := e.file(ino)
		if err != nil {
			return err
		}
		old := func(d Dot) bool {
			later := func(b Dot) bool { return b.Actor == e.dot.Actor && d.Actor == b.Actor && d.Ctr > b.Ctr }
			return virtual || e.v.off.baseDot || slices.Contains(base, d) || slices.ContainsFunc(base, later)
		}
		if n, err = e.pinFile(n, old); err != nil {
			return err
		}
		return e.write(n, old, c)
	})
	return ino, err
}

// write puts content c on n in place of the contents that are old.
func (e *Edit) write(n *inode, old func(Dot) bool, c Content) error {
	hidden := map[LinkID]bool{}
	if len(n.base) == 0 || slices.ContainsFunc(n.base, old) {
		same, links, err := e.twins(n)
		if err != nil {
			return err
		}
		e.remove(same)
		for _, id := range links {
			hidden[id] = true
			e.clear(n, LinkKey(n.ino, id))
		}
	}
	k := ContentKey(n.ino)
	c.Rank = max(n.rank(k), min(n.content.Rank+1, MaxRank))
	for _, r := range n.records {
		if r.Key.Type() == TypeMTime || r.Key == k && old(r.Dot) {
			e.drop(r)
		}
	}
	e.put(k, c.Encode())
	if e.v.off.touch {
		return nil
	}
	for i := range n.own[:min(len(n.own), maxTouch)] {
		if !hidden[n.own[i].id] {
			e.touch(n, &n.own[i], nil)
		}
	}
	return nil
}

// twins returns the members that show the same as the file n and that n stands
// for, and the links of n where another stands for it, so that n is not what the
// user sees there. If that is so everywhere, the first place of n counts as its
// own.
func (e *Edit) twins(n *inode) (same []member, hidden []LinkID, err error) {
	c := e.reads()
	var first []member
	stands := false
	for i := range n.own {
		r := ref{n.ino, n.own[i].id}
		s, ok, err := e.shownAs(c, e.v.rendered(&n.own[i].Link), r)
		if err != nil {
			return nil, nil, err
		}
		mine := !ok || s.is(r)
		stands = stands || mine
		if ok && (mine || i == 0) {
			others := slices.DeleteFunc(s.all(), func(m member) bool { return m.of.ino == n.ino })
			if mine {
				same = append(same, others...)
			} else {
				first = others
			}
		}
		if !mine {
			hidden = append(hidden, r.link)
		}
	}
	if !stands {
		return first, hidden[1:], nil
	}
	return same, hidden, nil
}

// shownAs finds what stands for r, whose plain place is at. It reads nothing,
// and returns false, where there is no conflict.
func (e *Edit) shownAs(c *cached, at Place, r ref) (shown, bool, error) {
	if d, ok := e.v.noted.get(at.Parent); !ok || !d.places[at.Name] {
		return shown{}, false, nil
	}
	g, err := e.v.group(c, at)
	i := slices.IndexFunc(g, func(s shown) bool { return s.has(r) })
	if err != nil || i < 0 {
		return shown{}, false, err
	}
	return g[i], true, nil
}

// file returns the inode behind ino, which must be shown and no directory. A
// conflict copy gets its records first.
func (e *Edit) file(ino Ino) (*inode, error) {
	if x, ok := e.v.virtual.get(ino); ok && !e.v.taken(ino) {
		if err := e.materialise(x); err != nil {
			return nil, err
		}
	}
	n, err := e.reads().get(ino)
	switch {
	case err != nil:
		return nil, err
	case n.dir && e.v.shows(ino) || ino == Recovered:
		return nil, ErrIsDir
	case n.dir || !n.visible():
		return nil, fs.ErrNotExist
	}
	return n, nil
}
