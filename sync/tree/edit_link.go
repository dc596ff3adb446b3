package tree

import (
	"io/fs"
	"slices"
)

// Link gives the file ino another name. Errors: fs.ErrExist, fs.ErrNotExist,
// [ErrNotDir] (parent), fs.ErrPermission (ino is a directory, or in Recovered),
// [ErrName], [ErrTooManyLinks].
func (e *Edit) Link(ino Ino, parent Ino, name string) error {
	return e.do(func() error {
		if e.v.shows(ino) {
			return fs.ErrPermission
		}
		p := Place{parent, name}
		if err := e.into(e.reads(), p); err != nil {
			return err
		}
		n, err := e.file(ino)
		if err != nil {
			return err
		}
		if len(n.own) >= MaxLinks {
			return ErrTooManyLinks
		}
		if err := e.pin(pins{places: []Place{p}, inodes: []Ino{ino}}); err != nil {
			return err
		}
		if n, err = e.reads().get(ino); err != nil {
			return err
		}
		k := LinkKey(ino, freshLinkID(e.dot, e.index, e.next()))
		e.putLink(k, Link{Parent: parent, Name: name, Rank: 1, LocTime: e.now, Snap: e.snapshot(n)})
		return nil
	})
}

// Unlink removes a name that is no directory, and with the last one all that
// this device has seen of the inode. Errors: fs.ErrNotExist, [ErrIsDir],
// [ErrNotDir] (parent).
func (e *Edit) Unlink(parent Ino, name string) error {
	return e.do(func() error {
		p := Place{parent, name}
		s, err := e.lookup(p)
		if err != nil {
			return err
		}
		if s.dir {
			return ErrIsDir
		}
		if err := e.pin(s.pins(p)); err != nil {
			return err
		}
		if s, err = e.lookup(p); err != nil {
			return err
		}
		e.remove(s.all())
		return nil
	})
}

// lookup returns what p shows, or fs.ErrNotExist or ErrNotDir.
func (e *Edit) lookup(p Place) (shown, error) {
	c := e.reads()
	if err := e.v.isDir(c, p.Parent); err != nil {
		return shown{}, err
	}
	s, base, ok, err := e.v.find(c, p)
	if err == nil && !ok {
		err = fs.ErrNotExist
	}
	s.base = base
	return s, err
}

// remove takes away members of groups, none of them a directory. Those of one
// inode come from one reader.
func (e *Edit) remove(ms []member) {
	links := map[*inode][]LinkID{}
	for _, m := range ms {
		if m.virtual {
			e.dropVersion(m.of, m.version)
			continue
		}
		links[m.of] = append(append(links[m.of], m.link), m.also...)
	}
	for n, ids := range links {
		e.unlink(n, ids)
	}
}

// unlink takes the links ids away from n. If others remain, one of them is
// touched with a snapshot: two devices that each remove another name of one
// file do not mean to lose it.
func (e *Edit) unlink(n *inode, ids []LinkID) {
	stay := slices.IndexFunc(n.own, func(l link) bool { return !slices.Contains(ids, l.id) })
	if stay < 0 {
		for _, r := range n.records {
			e.drop(r)
		}
		return
	}
	for _, id := range ids {
		e.clear(n, LinkKey(n.ino, id))
	}
	if !e.v.off.keepAlive {
		e.touch(n, &n.own[stay], e.snapshot(n))
	}
}
