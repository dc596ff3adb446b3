package tree

import (
	"cmp"
	"fmt"
	"slices"
)

// inode is what the records of one inode say by themselves: the winners of its
// registers. Records that do not decode, or stand under a key that means
// nothing, are as good as absent.
type inode struct {
	ino     Ino
	records []Record

	dir bool   // the winner of link 0 is a directory: loc tells, the rest is empty
	loc link   // of a directory
	own []link // of anything else: the links that are alive, by LinkID

	content *Content  // what it shows; nil if it shows nothing
	base    []Dot     // the C dots that say so, best first; none if a snapshot does
	author  Actor     // who wrote it
	copies  []version // the other contents, best first: its conflict copies
}

// link is the winner of one link register.
type link struct {
	Link
	id  LinkID
	dot Dot
}

// version is one content and the C records that say the same, or a snapshot that
// no C record can have been written over.
type version struct {
	Content
	dots []Dot // best first; the first names the copy. Of a snapshot: the one of its link
	snap bool
}

func (v *version) dot() Dot { return v.dots[0] }

// visible reports whether a file has a name and something to show under it.
func (n *inode) visible() bool { return n.content != nil && len(n.own) > 0 }

// Shown reports whether an inode that has these records is a file that is shown: it
// has a name and content. They are in [KeyDot.Compare] order.
func Shown(ino Ino, records []Record) bool { return sortOut(ino, records).visible() }

// copyIno names the copy that shows version v.
func (n *inode) copyIno(v *version) Ino {
	if v.snap {
		return snapIno(n.ino, v.dot())
	}
	return copyIno(n.ino, v.dot())
}

// beats is the order of every register: alive before deleted, then rank, wall,
// actor, counter.
func beats(aDeleted, bDeleted bool, aRank, bRank uint64, aWall, bWall int64, a, b Dot) bool {
	if aDeleted != bDeleted {
		return bDeleted
	}
	return cmp.Or(cmp.Compare(aRank, bRank), cmp.Compare(aWall, bWall), a.Compare(b)) > 0
}

// sortOut reads the records of ino. It never fails: see inode.
func sortOut(ino Ino, records []Record) *inode {
	n := &inode{ino: ino, records: records}
	if ino == Root || ino[0] == 0xff {
		n.dir = ino == Root
		return n
	}
	var all, snaps []version
	for _, r := range records {
		switch r.Key.Type() {
		case TypeLink:
			id, ok := r.Key.link()
			l, err := DecodeLink(r.Value)
			if !ok || err != nil || l.Dir && id != (LinkID{}) {
				continue
			}
			if l.Snap != nil {
				snaps = append(snaps, version{*l.Snap, []Dot{r.Dot}, true})
			}
			last := len(n.own) - 1
			if last < 0 || n.own[last].id != id {
				n.own = append(n.own, link{l, id, r.Dot})
			} else if w := &n.own[last]; beats(l.Deleted, w.Deleted, l.Rank, w.Rank, l.LocTime, w.LocTime, r.Dot, w.dot) {
				*w = link{l, id, r.Dot}
			}
		case TypeContent:
			if c, err := DecodeContent(r.Value); err == nil && r.Key.Sub() == "" {
				all = append(all, version{c, []Dot{r.Dot}, false})
			}
		}
	}
	if len(n.own) > 0 && n.own[0].id == (LinkID{}) && n.own[0].Dir {
		n.dir, n.loc, n.own = true, n.own[0], nil
		return n
	}
	n.own = slices.DeleteFunc(n.own, func(l link) bool { return l.Deleted })
	n.classify(all, snaps)
	return n
}

// classify sets content, base, author and copies from all C records and
// snapshots.
func (n *inode) classify(all, snaps []version) {
	sortVersions(all)
	sortVersions(snaps)
	kept := all[:0]
	for _, v := range all {
		i := slices.IndexFunc(kept, func(k version) bool { return k.same(&v.Content) })
		if i < 0 {
			kept = append(kept, v)
		} else {
			kept[i].dots = append(kept[i].dots, v.dot())
		}
	}
	// A write outranks what it is written over, so nobody has written over the
	// snapshots of the highest rank.
	for _, s := range snaps {
		top := len(kept) == 0 || s.Rank >= kept[0].Rank && s.Rank == snaps[0].Rank
		if top && !slices.ContainsFunc(kept, func(k version) bool { return k.same(&s.Content) }) {
			kept = append(kept, s)
		}
	}
	if len(kept) == 0 {
		return
	}
	n.content, n.author, n.copies = &kept[0].Content, kept[0].dot().Actor, kept[1:]
	if !kept[0].snap {
		n.base = kept[0].dots
	}
}

// sortVersions sorts the best to the front.
func sortVersions(vs []version) {
	if len(vs) < 2 {
		return
	}
	slices.SortFunc(vs, func(a, b version) int {
		if beats(false, false, a.Rank, b.Rank, a.Wall, b.Wall, a.dot(), b.dot()) {
			return -1
		}
		return 1
	})
}

// Conflicted reports whether records, all of one inode, say more than one thing
// of its content, so that it may have conflict copies. What does not decode says
// nothing.
func Conflicted(records []Record) bool {
	contents := 0
	var said []Content
	differs := func(c Content) bool {
		said = append(said, c)
		return !said[0].same(&c)
	}
	for _, r := range records {
		switch r.Key.Type() {
		case TypeContent:
			if contents++; contents > 1 {
				return true
			}
			if c, err := DecodeContent(r.Value); err == nil && r.Key.Sub() == "" && differs(c) {
				return true
			}
		case TypeLink:
			if _, ok := r.Key.link(); !ok {
				continue
			}
			if l, err := DecodeLink(r.Value); err == nil && l.Snap != nil && differs(*l.Snap) {
				return true
			}
		}
	}
	return false
}

// attrs is what the A, M and X records of an inode say.
type attrs struct {
	mode   *uint32
	mtime  *int64
	wall   int64 // of mtime
	xattrs map[string][]byte
}

// winner is the record of a register that counts.
type winner struct {
	rank uint64
	wall int64
	Record
}

// attrs reads the registers beside links and content.
func (n *inode) attrs() attrs {
	a, _ := n.winners()
	return a
}

// registers returns the records that attrs goes by, in the order of their keys.
func (n *inode) registers() (rs []Record) {
	_, best := n.winners()
	for _, w := range best {
		rs = append(rs, w.Record)
	}
	SortRecords(rs)
	return rs
}

func (n *inode) winners() (a attrs, best map[Key]winner) {
	best = map[Key]winner{}
	wins := func(r Record, rank uint64, wall int64) bool {
		w, ok := best[r.Key]
		if ok && !beats(false, false, rank, w.rank, wall, w.wall, r.Dot, w.Dot) {
			return false
		}
		best[r.Key] = winner{rank, wall, r}
		return true
	}
	for _, r := range n.records {
		switch r.Key.Type() {
		case TypeAttr:
			if x, err := DecodeAttr(r.Value); err == nil && r.Key.Sub() == "" && wins(r, x.Rank, x.Wall) {
				a.mode = &x.Mode
			}
		case TypeMTime:
			if x, err := DecodeMTime(r.Value); err == nil && r.Key.Sub() == "" && wins(r, x.Rank, x.Wall) {
				a.mtime, a.wall = &x.MTime, x.Wall
			}
		case TypeXattr:
			if x, err := DecodeXattr(r.Value); err == nil && validXattr(r.Key.Sub()) && wins(r, x.Rank, x.Wall) {
				if a.xattrs == nil {
					a.xattrs = map[string][]byte{}
				}
				a.xattrs[r.Key.Sub()] = x.Value
			}
		}
	}
	return a, best
}

// snapshot is the content with the attributes as they are shown.
func (n *inode) snapshot() *Content {
	if n.content == nil {
		return nil
	}
	c, a := *n.content, n.attrs()
	if a.mode != nil {
		c.Mode = *a.mode
	}
	if a.mtime != nil {
		c.MTime = *a.mtime
	}
	return &c
}

// snaps returns the snapshots in the records of the links given.
func (n *inode) snaps(ids ...LinkID) (all []Content) {
	for _, r := range n.records {
		id, ok := r.Key.link()
		if !ok || !slices.Contains(ids, id) {
			continue
		}
		if l, err := DecodeLink(r.Value); err == nil && l.Snap != nil {
			all = append(all, *l.Snap)
		}
	}
	return all
}

// cached reads inodes of a State and, if m is set, keeps them.
type cached struct {
	s    State
	m    map[Ino]*inode
	most int // inodes that m may have; 0: all
}

func (c *cached) get(ino Ino) (*inode, error) {
	if n, ok := c.m[ino]; ok {
		return n, nil
	}
	rs, err := c.s.Records(ino)
	if err != nil {
		return nil, fmt.Errorf("records of inode %v: %w", ino, err)
	}
	n := sortOut(ino, rs)
	if c.m != nil && (c.most == 0 || len(c.m) < c.most) {
		c.m[ino] = n
	}
	return n, nil
}

// gather reads many inodes that get is going to be asked for, as far as c keeps them.
func (c *cached) gather(inos []Ino) error {
	g, ok := c.s.(Gatherer)
	if !ok || c.m == nil || c.most > 0 && len(c.m)+len(inos) > c.most {
		return nil
	}
	return g.Gather(inos, func(ino Ino, rs []Record) { c.m[ino] = sortOut(ino, rs) })
}
