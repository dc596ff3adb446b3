package tree

import "io/fs"

// Rename moves what op/on shows to np/nn, as rename(2) does: what is there is
// replaced, unless noReplace is set; with exchange both change places. Two names
// of one inode are left as they are. Errors: fs.ErrNotExist, fs.ErrExist,
// [ErrLoop] (a directory into itself), [ErrNotEmpty], [ErrIsDir], [ErrNotDir],
// [ErrName], fs.ErrPermission (into Recovered, or Recovered itself).
//
// A program that saves by writing a new file and renaming it over the old one
// replaces the inode. A concurrent edit of the old one is a conflict copy then, a
// concurrent rename keeps the old content under the new name, a concurrent mode
// is lost with the old file. Package replica says why the save is not made a write of the old inode.
func (e *Edit) Rename(op Ino, on string, np Ino, nn string, noReplace, exchange bool) error {
	return e.do(func() error {
		m := move{e: e, from: Place{op, on}, to: Place{np, nn}, exchange: exchange}
		if err := e.directory(e.reads(), m.to); err != nil {
			return err
		}
		if exchange && op == Recovered {
			return fs.ErrPermission
		}
		if err := m.find(); err != nil {
			return err
		}
		switch {
		case noReplace && m.replaces:
			return fs.ErrExist
		case exchange && !m.replaces:
			return fs.ErrNotExist
		case m.from == m.to || m.replaces && !m.src.virtual && !m.dst.virtual && m.src.ino == m.dst.ino:
			return nil
		}
		if err := m.allowed(); err != nil {
			return err
		}
		w := m.src.pins(m.from)
		if m.replaces {
			d := m.dst.pins(m.to)
			w.inodes, w.places, w.dirLink = append(w.inodes, d.inodes...), append(w.places, d.places...), w.dirLink || d.dirLink
		}
		w.places = append(w.places, m.to)
		if err := e.pin(w); err != nil {
			return err
		}
		if err := m.find(); err != nil {
			return err
		}
		return m.replace()
	})
}

// move is one rename.
type move struct {
	e        *Edit
	from, to Place
	exchange bool
	src, dst shown
	replaces bool // something is at to
}

func (m *move) find() (err error) {
	if m.src, err = m.e.lookup(m.from); err != nil {
		return err
	}
	var base Place
	m.dst, base, m.replaces, err = m.e.v.find(m.e.reads(), m.to)
	m.dst.base = base
	return err
}

// allowed returns nil if directories and files go where they can.
func (m *move) allowed() error {
	v, src, dst := m.e.v, &m.src, &m.dst
	if src.ino == Recovered || m.replaces && dst.ino == Recovered {
		return fs.ErrPermission
	}
	if src.dir && v.within(m.to.Parent, src.ino) {
		return ErrLoop
	}
	if !m.replaces {
		return nil
	}
	switch {
	case m.exchange:
		if dst.dir && v.within(m.from.Parent, dst.ino) {
			return ErrLoop
		}
		return nil
	case src.dir:
		return m.e.removable(dst)
	case dst.dir:
		return ErrIsDir
	}
	return nil
}

// replace does it.
func (m *move) replace() error {
	e := m.e
	switch {
	case !m.replaces:
	case m.exchange:
		if err := e.place(&m.dst, m.to, m.from); err != nil {
			return err
		}
	case m.dst.dir:
		e.rmdir(m.dst.of)
	default:
		e.remove(m.dst.all())
	}
	return e.place(&m.src, m.from, m.to)
}

// place writes the links of s, which from shows, so that to shows it.
func (e *Edit) place(s *shown, from, to Place) error {
	for i, m := range s.all() {
		// The older keeps the name: those that are hidden stay hidden.
		l := Link{Parent: to.Parent, Name: to.Name, LocTime: e.now + int64(i), Prev: &from, Dir: m.dir}
		if m.virtual {
			// Only when a test leaves out the pins.
			return errState
		}
		if !m.dir {
			l.Snap = e.snapshot(m.of)
		}
		e.setOne(&m, l)
	}
	return nil
}

// setOne writes the link of a member that shows one; the others that the inode
// has at the same place are not needed any more.
func (e *Edit) setOne(m *member, l Link) {
	e.setLink(m.of, m.link, l)
	for _, id := range m.also {
		e.clear(m.of, LinkKey(m.of.ino, id))
	}
}
