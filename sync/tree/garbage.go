package tree

import (
	"cmp"
	"fmt"
	"slices"
)

// garbage are the inodes that show nothing and of which records are left: the
// skeletons of removed directories, and what a delete has left of a file of which
// it had not seen all (the mode that somebody else set meanwhile, a name that a
// pin gave it). They go when the removal is causally stable, as in Baquero,
// Almeida and Shoker, Pure Operation-Based Replicated Data Types (2017).
//
// # Rule
//
// A device with the state S and its vector V may drop all records of an inode i if
//
//	(1) there was a moment at which it knew just M, the records of i said that
//	    it shows nothing, and they are the same ones since;
//	(2) every other member has said that it knows all of M;
//	(3) V has all that these words have;
//	(4) if i is a directory: it is not shown for what is in it, and no link record,
//	    of a lost move or a deleted directory neither, is placed in it, unless it
//	    goes as well (children first).
//
// (2) and (3) are looked at together, at one moment after (1), and (4) when the
// records go. A word is what a member knew at a moment when all its work so far
// was in commits: so what it had done before is part of the word, and by (3) of V,
// and what it did after that it did knowing M. Who counts as a member is the
// business of the caller: whoever does not, and can still write, must have seen M
// too (package replica).
//
// # Why nobody needs i any more
//
// Let ρ be a record that the device does not know when it drops those of i. Its
// author m wrote it after its word, so it had all of M, and what it wrote before
// is in S.
//
// If i was a directory, it was deleted at m. For a link of it that m had, and S
// has not, was written over in S, by one that was written over in turn, and so on,
// up to one that S has. That is in M by (1), and so m knew all of this. Something
// may have been in i at m that S knows to be gone, so that m showed it all the
// same. But whoever places something in a deleted directory writes the link of
// that anew in the same batch (Edit.uphold), and that link is not among those that
// go here. So if ρ is placed in i, its author had a link of i which this drop does
// not know. That one is taken away only by a later link of i, or by another drop,
// for which the same holds. Two drops cannot each take away what the other one has
// not seen: by the above the author of each of the two links had the last one that
// the other drop took, and wrote over it, and neither of them can come after the
// other. So whatever is placed in i has i.
//
// If i was a file, it had no name and content at m either, or m had records of it
// that S knows to be gone. Those are not among the records that go. Who works on
// what they show writes down anew what it keeps, with a link, a content or a
// snapshot that has the mode, and needs none of the others. All that can be missed
// is another name, that somebody gave while somebody else deleted it.
//
// To drop a directory that shows nothing and has nothing in it moves no other one,
// as long as there is no cycle: as long as there is one, none goes. A later one is
// resolved by looking at where a directory was before (Prev), for which the root
// stands if that has gone.
//
// # Whoever forgets what it has said
//
// The proof needs that a member keeps what it said it knows. One that was put back
// to an old image of itself does not, and may work in a directory that has gone
// everywhere else. It comes back as another actor, and so it knows: all that it
// does it does anchored ([Edit.Anchor]), with the links of the directories above
// written anew, unless by this actor before. A drop that has seen nothing of this
// actor leaves these links alone, so they come back with what is in them. One that
// has seen something of it is not made on the word of the former actor: the caller
// does not count what a member said before it was known to have another one.
//
// What is left is a device that is put back and does not notice, and two copies of
// one device that are in use at once, where one does not know of the other, which
// speaks for both. What they put into a directory that has gone is shown in
// [Recovered] and can be moved from there: nothing is lost, and all devices show
// the same.
//
// A member that is not heard of for long keeps all garbage alive until it is shut
// out. To set it aside ("parking") would put at risk what it did meanwhile, to
// save some 150 bytes for each directory that was removed.
type garbage struct {
	young map[Ino]struct{} // changed since mark was taken, or not garbage before
	aged  map[Ino]struct{} // as it was at mark
	mark  Vector           // what was known then; nil if there is none
	ripe  map[Ino]struct{} // as it was at a mark that all know
	order []Ino            // ripe and former ones, children before their parents
	proof Vector           // that mark
}

func newGarbage() *garbage {
	return &garbage{young: map[Ino]struct{}{}, aged: map[Ino]struct{}{}, ripe: map[Ino]struct{}{}}
}

// note says that the records of ino have changed.
func (g *garbage) note(ino Ino, dead bool) {
	delete(g.aged, ino)
	delete(g.ripe, ino)
	if dead {
		g.young[ino] = struct{}{}
	} else {
		delete(g.young, ino)
	}
}

func (g *garbage) empty() bool { return len(g.young)+len(g.aged)+len(g.ripe) == 0 }

// dead reports whether n has records and shows nothing by them.
func (n *inode) dead() bool {
	switch {
	case len(n.records) == 0 || n.ino == Root || n.ino[0] == 0xff:
		return false
	case n.dir:
		return n.loc.Deleted
	}
	return !n.visible()
}

// Dead reports whether records, all that there are of ino, show nothing: it is
// no file that has a name and content, and no directory but a removed one.
func Dead(ino Ino, records []Record) bool {
	link, content := false, false
	for _, r := range records {
		switch r.Key.Type() {
		case TypeLink:
			_, ok := r.Key.link()
			l, err := DecodeLink(r.Value)
			switch {
			case !ok || err != nil:
			case l.Dir || l.Deleted: // it depends on which of them count
				return sortOut(ino, records).dead()
			default:
				link, content = true, content || l.Snap != nil
			}
		case TypeContent:
			if _, err := DecodeContent(r.Value); err == nil && r.Key.Sub() == "" {
				content = true
			}
		}
	}
	return len(records) > 0 && (!link || !content) && ino != Root && ino[0] != 0xff
}

// Words tells the view what the members of the hive know, to find out what can
// go. known is what is known here, without the batch that is open, and next the
// same with it, as the State is. words has one vector for each other member, nil
// for one that has said nothing which counts. It is called for each batch, and costs
// little. Like Prepare it needs everything else to wait.
func (v *View) Words(known, next Vector, words []Vector) {
	g := v.garbage
	covered := func(m Vector) bool {
		return v.off.everyWord || !slices.ContainsFunc(words, func(w Vector) bool { return w == nil || !w.Covers(m) })
	}
	if len(g.ripe) > 0 && !covered(g.proof) { // somebody is new, or knows less than before
		for ino := range g.ripe {
			g.young[ino] = struct{}{}
		}
		clear(g.ripe)
	}
	if g.empty() {
		g.mark = nil
		return
	}
	if g.mark != nil {
		here := v.off.haveWords || !slices.ContainsFunc(words, func(w Vector) bool { return !known.Covers(w) })
		if !here || !covered(g.mark) {
			return
		}
		v.ripen()
	}
	g.aged, g.young = g.young, g.aged // which is empty
	g.mark = next.Clone()
}

// ripen takes what is aged for ripe.
func (v *View) ripen() {
	g := v.garbage
	depths := make(map[Ino]int, len(g.aged))
	sorted := make([]Ino, 0, len(g.aged))
	for ino := range g.aged {
		depths[ino], sorted = v.depth(ino), append(sorted, ino)
		g.ripe[ino] = struct{}{}
	}
	clear(g.aged)
	slices.SortFunc(sorted, func(a, b Ino) int {
		return cmp.Or(cmp.Compare(depths[b], depths[a]), a.Compare(b))
	})
	g.order, g.proof = append(g.order, sorted...), g.mark
}

// depth is how many directories are above ino by their links, 0 for a file.
func (v *View) depth(ino Ino) (n int) {
	const most = 4096 // they may go in circles
	for n < most && ino != Root {
		d, ok := v.dirs.get(ino)
		if !ok {
			break
		}
		ino = d.parent
		n++
	}
	return n
}

// Garbage returns inodes whose records can go, by what [View.Words] was told: as
// many as have at most so many records, those in a directory before it. One with
// more records stays for good. Nothing else is to happen before [Edit.Collect]
// has got them, and like Prepare it needs everything else to wait.
func (v *View) Garbage(records int) ([]Ino, error) {
	g := v.garbage
	if len(g.ripe) == 0 {
		g.order = nil
		return nil, nil
	}
	circles := false
	v.displaced.each(func(_ Ino, at Place) { circles = circles || at.Parent != Recovered })
	var out []Ino
	going := map[Ino]struct{}{}
	looked, left := 0, records
	for _, ino := range g.order[:min(len(g.order), 2*records)] {
		if _, ok := g.ripe[ino]; ok {
			rs, err := v.s.Records(ino)
			if err != nil {
				return nil, fmt.Errorf("records of inode %v: %w", ino, err)
			}
			bare, err := v.bare(ino, circles, going)
			if err != nil {
				return nil, err
			}
			switch {
			case !bare || len(rs) > records: // it has to wait until all know more
				g.note(ino, true)
			case len(rs) > left:
				left = -1
			default:
				left -= len(rs)
				out, going[ino] = append(out, ino), struct{}{}
			}
		}
		if left < 0 {
			break
		}
		looked++
	}
	copy(g.order[looked-len(out):looked], out) // they are passed over once they are gone
	g.order = g.order[looked-len(out):]
	return out, nil
}

// bare reports whether nothing is placed in ino but what is going as well. There
// may be circles, of which a directory could be shown in it.
func (v *View) bare(ino Ino, circles bool, going map[Ino]struct{}) (bool, error) {
	d, ok := v.dirs.get(ino)
	if !ok {
		return true, nil
	}
	if circles && !v.off.circles || d.visible() {
		return false, nil
	}
	if v.off.bare {
		return true, nil
	}
	inos, err := v.s.Children(ino)
	if err != nil {
		return false, fmt.Errorf("children of %v: %w", ino, err)
	}
	return !slices.ContainsFunc(inos, func(i Ino) bool { _, ok := going[i]; return !ok }), nil
}

// Collect takes away all records of inos, which [View.Garbage] has returned. It
// changes nothing of what is shown.
func (e *Edit) Collect(inos []Ino) error {
	return e.do(func() error {
		c := e.reads()
		for _, ino := range inos {
			n, err := c.get(ino)
			if err != nil {
				return err
			}
			for _, r := range n.records {
				e.drop(r)
			}
		}
		return nil
	})
}
