package tree

import (
	"io/fs"
	"slices"
)

// inodes returns the inodes that an operation on the attributes of ino is for:
// itself, and those it hides because they show the same.
func (e *Edit) inodes(ino Ino) ([]*inode, error) {
	if ino == Recovered {
		return nil, fs.ErrPermission
	}
	if e.v.shows(ino) {
		w := pins{dirs: []Ino{ino}}
		if at, ok := e.v.placeOf(ino); ok {
			w.places = append(w.places, at)
		}
		if err := e.pin(w); err != nil {
			return nil, err
		}
		n, err := e.reads().get(ino)
		return []*inode{n}, err
	}
	n, err := e.file(ino)
	if err != nil {
		return nil, err
	}
	if n, err = e.pinFile(n, nil); err != nil {
		return nil, err
	}
	same, _, err := e.twins(n)
	if err != nil {
		return nil, err
	}
	all := []*inode{n}
	for _, m := range same {
		if !m.virtual && !slices.Contains(all, m.of) {
			all = append(all, m.of)
		}
	}
	return all, nil
}

// attribute runs fn for each inode that stands for ino.
func (e *Edit) attribute(ino Ino, fn func(*inode)) error {
	return e.do(func() error {
		ns, err := e.inodes(ino)
		if err != nil {
			return err
		}
		for _, n := range ns {
			fn(n)
		}
		return nil
	})
}

// Chmod sets the permission bits. Alone it does not keep the inode from a
// delete that has not seen it. Errors: fs.ErrNotExist, fs.ErrPermission
// (Recovered), [ErrRecord] (bits outside ModeMask).
func (e *Edit) Chmod(ino Ino, mode uint32) error {
	if mode&^uint32(ModeMask) != 0 {
		return malformed("mode %o", mode)
	}
	return e.attribute(ino, func(n *inode) {
		k := AttrKey(n.ino)
		e.set(n, k, Attr{Rank: n.rank(k), Wall: e.now, Mode: mode}.Encode())
	})
}

// SetMTime sets the modification time, in ns; the next write ends it. Alone it
// does not keep the inode from a delete. Errors: fs.ErrNotExist,
// fs.ErrPermission (Recovered).
func (e *Edit) SetMTime(ino Ino, t int64) error {
	return e.attribute(ino, func(n *inode) {
		k := MTimeKey(n.ino)
		e.set(n, k, MTime{Rank: n.rank(k), Wall: e.now, MTime: t}.Encode())
	})
}

// SetXattr sets an extended attribute; value is at most MaxXattr bytes and is
// not kept. It counts as an edit. Errors: fs.ErrNotExist, fs.ErrPermission
// (Recovered), [ErrName], [ErrTooBig].
func (e *Edit) SetXattr(ino Ino, name string, value []byte) error {
	switch {
	case !validXattr(name):
		return ErrName
	case len(value) > MaxXattr:
		return ErrTooBig
	}
	return e.attribute(ino, func(n *inode) {
		k := XattrKey(n.ino, name)
		e.set(n, k, Xattr{Rank: n.rank(k), Wall: e.now, Value: value}.Encode())
		e.keep(n)
	})
}

// keep touches n so that a delete which has not seen this keeps off.
func (e *Edit) keep(n *inode) {
	switch {
	case e.v.off.touch:
	case n.dir && n.ino != Root:
		e.touch(n, &n.loc, nil)
	case !n.dir:
		e.touch(n, &n.own[0], e.snapshot(n))
	}
}

// RemoveXattr removes an extended attribute, or returns [ErrNoXattr]. Other
// errors are those of SetXattr.
func (e *Edit) RemoveXattr(ino Ino, name string) error {
	x, err := e.node(ino)
	if err != nil {
		return err
	}
	if _, ok := x.Xattrs[name]; !ok {
		return ErrNoXattr
	}
	return e.attribute(ino, func(n *inode) {
		e.clear(n, XattrKey(n.ino, name))
		e.keep(n)
	})
}

// node returns the node as it is after the operations so far.
func (e *Edit) node(ino Ino) (x Node, err error) {
	err = e.do(func() error {
		x, err = e.v.Node(ino)
		return err
	})
	return x, err
}
