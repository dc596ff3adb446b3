package tree

import (
	"errors"
	"io/fs"
	"slices"
)

const (
	// MaxLinks bounds the names of one inode that [Edit.Link] gives.
	MaxLinks = 4096
	maxTouch = 64 // links that a write touches, the lowest LinkIDs
)

// Edit carries out user operations and gathers the change that they make, all
// of it under one dot. It neither changes the State nor the View it was made
// from, and may use them only until either changes. Later operations see what
// earlier ones did.
//
// An operation that is refused changes nothing. If one fails otherwise (the
// State cannot be read), the whole Edit has failed: each operation returns that
// error, and Change is empty.
type Edit struct {
	v     *View
	ov    *overlay // nil until something must be seen that is only staged
	dot   Dot
	index uint64
	now   int64
	made  uint64 // inodes and links named so far
	done  steps  // in ov
	stage steps  // not yet in ov
	n     int    // steps so far
	c     *cached
	err   error
}

// Edit starts operations of the batch dot at the time now (ns of the wall
// clock). index must be different for each Edit of the same dot: it goes into
// the names of new inodes.
func (v *View) Edit(dot Dot, index uint64, now int64) *Edit {
	return &Edit{v: v, dot: dot, index: index, now: now, done: newSteps(), stage: newSteps()}
}

// Change returns what the State has to take, in order. It is the caller's.
func (e *Edit) Change() Change {
	if e.err != nil {
		return Change{}
	}
	if !e.stage.empty() && e.done.empty() {
		return e.stage.change()
	}
	all := newSteps()
	all.add(e.done)
	all.add(e.stage)
	return all.change()
}

// do runs one operation.
func (e *Edit) do(op func() error) error {
	if e.err != nil {
		return e.err
	}
	if e.err = e.flush(); e.err != nil {
		return e.err
	}
	n := e.n
	err := op()
	if err != nil && e.n != n {
		e.err = err
	}
	return err
}

// flush makes the view see what is staged.
func (e *Edit) flush() error {
	if e.stage.empty() {
		return nil
	}
	if e.ov == nil {
		e.ov = newOverlay(e.v.s)
		e.v = e.v.fork(e.ov)
	}
	ch := e.stage.change()
	p, err := e.v.Prepare(ch)
	if err != nil {
		return err
	}
	if err := e.ov.apply(ch); err != nil {
		return err
	}
	if _, err := p.Done(); err != nil {
		return err
	}
	e.done.add(e.stage)
	e.stage, e.c = newSteps(), nil
	return nil
}

func (e *Edit) put(k Key, value []byte) {
	e.n++
	e.stage.doPut(KeyDot{k, e.dot}, value)
}

func (e *Edit) drop(r Record) {
	e.n++
	e.stage.doDrop(r.ID())
}

// set writes a register: value replaces all records of n under k.
func (e *Edit) set(n *inode, k Key, value []byte) {
	e.clear(n, k)
	e.put(k, value)
}

// clear removes all records of n under k.
func (e *Edit) clear(n *inode, k Key) {
	for _, r := range n.records {
		if r.Key == k {
			e.drop(r)
		}
	}
}

// rank is what a value must carry to win over all records of n under k.
func (n *inode) rank(k Key) uint64 {
	var top uint64
	for _, r := range n.records {
		if r.Key != k {
			continue
		}
		var rank uint64
		switch k.Type() {
		case TypeLink:
			l, _ := DecodeLink(r.Value)
			rank = l.Rank
		case TypeContent:
			c, _ := DecodeContent(r.Value)
			rank = c.Rank
		case TypeAttr:
			a, _ := DecodeAttr(r.Value)
			rank = a.Rank
		case TypeMTime:
			m, _ := DecodeMTime(r.Value)
			rank = m.Rank
		case TypeXattr:
			x, _ := DecodeXattr(r.Value)
			rank = x.Rank
		}
		top = max(top, rank)
	}
	return min(top+1, MaxRank)
}

// setLink writes link id of n, under a rank that wins.
func (e *Edit) setLink(n *inode, id LinkID, l Link) {
	k := LinkKey(n.ino, id)
	l.Rank = n.rank(k)
	e.set(n, k, l.Encode())
}

// touch writes link l of n again as it is, but for the snapshot, so that a
// delete which has not seen this keeps off.
func (e *Edit) touch(n *inode, l *link, snap *Content) {
	x := l.Link
	x.Snap = snap
	e.set(n, LinkKey(n.ino, l.id), x.Encode())
}

// snapshot is the snapshot for a link of n.
func (e *Edit) snapshot(n *inode) *Content {
	if e.v.off.snap {
		return nil
	}
	return n.snapshot()
}

func (e *Edit) next() uint64 {
	e.made++
	return e.made - 1
}

// reads returns a reader that keeps inodes until the next flush.
func (e *Edit) reads() *cached {
	if e.c == nil {
		e.c = &cached{s: e.v.s, m: map[Ino]*inode{}}
	}
	return e.c
}

// into returns nil if something may be put at p: a legal name that is free, in a
// directory of the user's.
func (e *Edit) into(c *cached, p Place) error {
	if err := e.directory(c, p); err != nil {
		return err
	}
	_, _, taken, err := e.v.find(c, p)
	if err == nil && taken {
		err = fs.ErrExist
	}
	return err
}

func (e *Edit) directory(c *cached, p Place) error {
	if err := CheckName(p.Name); err != nil {
		return err
	}
	if p.Parent == Recovered {
		return fs.ErrPermission
	}
	return e.v.isDir(c, p.Parent)
}

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
		e.put(ContentKey(ino), c.Encode())
		e.put(LinkKey(ino, LinkID{}), Link{Parent: parent, Name: name, Rank: 1, LocTime: e.now}.Encode())
		return nil
	})
	return ino, err
}

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

// Write gives ino new content. It supersedes the content that the writer saw,
// which base names ([Node].Base), and what this actor wrote since; any other
// stays beside it as a conflict copy. The permission bits stay as they are, and
// Rank and Wall of c are set here. The inode returned is the one that holds the
// content now; it differs from ino never, as a conflict copy keeps its inode
// when it becomes real. Errors: fs.ErrNotExist (no name shows it any more),
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
			return virtual || slices.Contains(base, d) || slices.ContainsFunc(base, later)
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
		e.put(k, Link{Parent: parent, Name: name, Rank: 1, LocTime: e.now, Snap: e.snapshot(n)}.Encode())
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
			for _, d := range m.version.dots {
				e.drop(Record{Key: ContentKey(m.of.ino), Dot: d})
			}
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

// Rmdir removes an empty directory. Its skeleton stays, for what others may be
// putting into it. Errors: fs.ErrNotExist, [ErrNotDir], [ErrNotEmpty].
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
	l := n.loc.Link
	l.Deleted = true
	e.setLink(n, LinkID{}, l)
}

// errState means that the view does not belong to the state.
var errState = errors.New("state changed behind the view")
