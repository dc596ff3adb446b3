package tree

import (
	"errors"
	"io/fs"
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

	anchor bool             // see Anchor
	placed map[Ino]struct{} // directories in which this operation has placed something
}

// Edit starts operations of the batch dot at the time now (ns of the wall
// clock). index must be different for each Edit of the same dot: it goes into
// the names of new inodes.
func (v *View) Edit(dot Dot, index uint64, now int64) *Edit {
	return &Edit{v: v, dot: dot, index: index, now: now, done: newSteps(), stage: newSteps(), placed: map[Ino]struct{}{}}
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

// Anchor makes the operations that follow write the links of all directories
// above what they place anew, as far as this actor has not written them before. It
// is for a device that may have said that it knows more than it does: see garbage.
func (e *Edit) Anchor() { e.anchor = true }

// Keep anchors directories in which something has been placed under the dot of
// this Edit by other means.
func (e *Edit) Keep(dirs ...Ino) error {
	return e.do(func() error {
		for _, i := range dirs {
			e.placed[i] = struct{}{}
		}
		return nil
	})
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
	clear(e.placed)
	err := op()
	if err == nil {
		err = e.uphold()
	}
	if err != nil && e.n != n {
		e.err = err
	}
	return err
}

// uphold writes the links of the directories in which the operation has placed
// something anew, if they are marked deleted, and so on upwards: whoever drops
// what is left of such a directory has not seen these links. An operation has made
// alive what it shows (see pin), so that there is seldom anything to do, unless all
// directories are to be anchored.
func (e *Edit) uphold() error {
	for len(e.placed) > 0 {
		p := pinner{e: e, dirs: map[Ino]struct{}{}, renew: true}
		for dir := range e.placed {
			if e.sways(dir) {
				p.dirs[dir] = struct{}{}
			}
		}
		clear(e.placed)
		if len(p.dirs) == 0 {
			return nil
		}
		if err := e.flush(); err != nil {
			return err
		}
		p.c = e.reads()
		if err := p.pinDirs(true); err != nil {
			return err
		}
	}
	return nil
}

// sways reports whether the link of dir could be dropped by somebody who has not
// seen this batch.
func (e *Edit) sways(dir Ino) bool {
	d, ok := e.v.dirs.get(dir)
	if !ok || dir == Root || dir == Recovered || e.v.off.uphold || d.dot == e.dot {
		return false
	}
	if _, written := e.stage.put[KeyDot{LinkKey(dir, LinkID{}), e.dot}]; written {
		return false
	}
	return d.deleted || e.anchor && !e.v.off.anchor && d.dot.Actor != e.dot.Actor
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

// putLink writes a link under k.
func (e *Edit) putLink(k Key, l Link) {
	e.put(k, l.Encode())
	e.placed[l.Parent] = struct{}{}
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
	e.clear(n, k)
	e.putLink(k, l)
}

// touch writes link l of n again as it is, but for the snapshot, so that a
// delete which has not seen this keeps off.
func (e *Edit) touch(n *inode, l *link, snap *Content) {
	x, k := l.Link, LinkKey(n.ino, l.id)
	x.Snap = snap
	e.clear(n, k)
	e.putLink(k, x)
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

// errState means that the view does not belong to the state.
var errState = errors.New("state changed behind the view")
