package tree

// Mkdir makes a directory and returns its inode, which is the same on every
// device that makes it there first. Errors are those of Create.
func (e *Edit) Mkdir(parent Ino, name string, mode uint32) (ino Ino, err error) {
	err = e.do(func() error {
		if mode&^uint32(ModeMask) != 0 {
			return malformed("mode %o", mode)
		}
		p, c := Place{parent, name}, e.reads()
		if err := e.into(c, p); err != nil {
			return err
		}
		if err := e.pin(pins{places: []Place{p}, dirLink: true}); err != nil {
			return err
		}
		n, err := e.newDir(e.reads(), p)
		if err != nil {
			return err
		}
		ino = n.ino
		for _, r := range n.records {
			if r.Key.Type() != TypeLink {
				e.drop(r) // what the skeleton still had
			}
		}
		e.setLink(n, LinkID{}, Link{Parent: parent, Name: name, LocTime: e.now, Dir: true})
		if mode != DirMode {
			k := AttrKey(ino)
			e.put(k, Attr{Rank: n.rank(k), Wall: e.now, Mode: mode}.Encode())
		}
		return nil
	})
	return ino, err
}

// newDir chooses the inode of a new directory at p: the one that belongs there
// if it is not in use, or has only its skeleton at that very place.
func (e *Edit) newDir(c *cached, p Place) (*inode, error) {
	ino := dirIno(p.Parent, p.Name)
	n, err := c.get(ino)
	if err != nil {
		return nil, err
	}
	if d, ok := e.v.dirs.get(ino); ok {
		if at, _ := e.v.placeOf(ino); at == p && !d.visible() && (Place{d.parent, d.name}) == p {
			return n, nil
		}
	} else if len(n.records) == 0 {
		// Links may be placed in it though it has no records: they must stay
		// where they are shown.
		inos, err := e.v.s.Children(ino)
		if err != nil {
			return nil, err
		}
		if len(inos) == 0 {
			return n, nil
		}
	}
	return &inode{ino: freshDirIno(p.Parent, e.dot, e.index, e.next())}, nil
}

// Rmdir removes an empty directory. Its skeleton stays, for what others may be
// putting into it, until it is garbage. Errors: fs.ErrNotExist, [ErrNotDir], [ErrNotEmpty].
func (e *Edit) Rmdir(parent Ino, name string) error {
	return e.do(func() error {
		p := Place{parent, name}
		s, err := e.lookup(p)
		if err != nil {
			return err
		}
		if err := e.removable(&s); err != nil {
			return err
		}
		if err := e.pin(s.pins(p)); err != nil {
			return err
		}
		if s, err = e.lookup(p); err != nil {
			return err
		}
		e.rmdir(s.of)
		return nil
	})
}

// removable returns nil if s is an empty directory.
func (e *Edit) removable(s *shown) error {
	if !s.dir {
		return ErrNotDir
	}
	empty, err := e.v.empty(e.reads(), s.ino)
	if err == nil && !empty {
		err = ErrNotEmpty
	}
	return err
}

func (e *Edit) rmdir(n *inode) {
	if e.v.off.skeleton {
		for _, r := range n.records {
			e.drop(r)
		}
		return
	}
	l := n.loc.Link
	l.Deleted = true
	e.setLink(n, LinkID{}, l)
}
