// Package guard decides whether what another device did to the tree is mass
// damage: whether it removes or rewrites so much that a person should say that
// it was meant. It is pure: no input or output, no clock, no locks.
//
// # What counts
//
// An [Account] is about one author. It has what of the tree that author has
// taken away and not given back, each file once, with the records that it had
// before. Commits are small and many, so no single one tells anything: an account covers
// all that came within [Window], whether in a second or in an hour.
//
//   - A file is removed when the last of its names goes, a directory when it is
//     marked deleted. A move is neither: the link stays and says another place.
//   - A file is rewritten when it shows another content than before. A new file
//     that takes the name of a removed one is a rewrite of that: programs save
//     by rename, and git removes before it writes. If it shows the same, nothing is lost
//     as long as it stays.
//   - What comes back as it was, under its inode or at its place, does not count.
//   - What the author itself made or wrote within Window does not count: a file
//     that comes and goes is no loss, one that is written over and over is rewritten once.
//
// # When it is too much
//
// With a share of s percent ([Limits]): more than s percent of the names of the
// tree removed and more than [Floor] of them, or more than twice s percent of the names
// rewritten and more than Floor. The tree is that of the device that judges, as it
// was before the damage. To a device whose tree is empty nothing is damage.
//
// What a git repository keeps does not count ([Account.Kept]): then a checkout of another
// branch is not too much, whatever its size.
//
// Only adding is never too much. What is: a deliberate rm -rf of a tenth. That costs one answer.
package guard

import (
	"cmp"
	"slices"
	"time"

	"github.com/roamfs/roamfs/sync/manifest"
	"github.com/roamfs/roamfs/sync/tree"
)

const (
	// Floor is how many files may be removed, and how many rewritten, in any tree.
	Floor = 1000
	// Share is the default of Limits.Share, in percent.
	Share = 10
	// Window is for how long what an author did is added up.
	Window = time.Hour
)

// Limits say how much is too much.
type Limits struct {
	Share int // percent of the tree that may be removed; twice that rewritten; 0: all
}

// Over reports whether so many removed and rewritten are too many in a tree. names is
// asked for only if it matters: it returns how many names the tree had before, or any
// number from enough on if there are more.
func (l Limits) Over(removed, rewritten int, names func(enough int) (int, error)) (bool, error) {
	if l.Share <= 0 || removed <= Floor && rewritten <= Floor {
		return false, nil
	}
	n, err := names(max(removed, (rewritten+1)/2)*100/l.Share + 100)
	if err != nil {
		return false, err
	}
	return removed > max(Floor, n*l.Share/100) || rewritten > max(Floor, n*2*l.Share/100), nil
}

// Kind says what became of something.
type Kind uint8

// The kinds of losses.
const (
	Rewritten Kind = iota // it shows another content
	Removed
	Replaced // it was written, or another took its place, and shows the same: no loss as long as that stays
)

// Loss is a file or directory that was taken away or changed.
type Loss struct {
	At     int64 // when that was noticed, ns
	Kind   Kind
	By     tree.Ino      // the file that took its place; zero if none did
	Before []tree.Record // all of the inode as it was
}

// Account is what one author took away. Its zero value has nothing. It is not
// safe for concurrent use.
type Account struct {
	lost  map[tree.Ino]Loss
	at    map[tree.Place]tree.Ino // where they were
	by    map[tree.Ino]tree.Ino   // what took the place of one -> that one
	kinds [Replaced + 1]int
	found map[tree.Ino]spot // in which repositories losses are, as far as that was asked
}

// Effect is what one commit does to an account.
type Effect struct {
	Lost map[tree.Ino]Loss // new, or as they are now
}

// Count returns how many are removed, and how many rewritten.
func (a *Account) Count() (removed, rewritten int) {
	return a.kinds[Removed], a.kinds[Rewritten]
}

// Clone returns a copy that shares the records, which are never changed.
func (a *Account) Clone() *Account {
	c := &Account{}
	for ino, l := range a.lost {
		c.set(ino, l)
	}
	return c
}

// Lost calls fn for everything that is lost, in the order of inodes.
func (a *Account) Lost(fn func(tree.Ino, Loss)) {
	inos := make([]tree.Ino, 0, len(a.lost))
	for ino := range a.lost {
		inos = append(inos, ino)
	}
	slices.SortFunc(inos, tree.Ino.Compare)
	for _, ino := range inos {
		fn(ino, a.lost[ino])
	}
}

// Set adds a loss that was noted before.
func (a *Account) Set(ino tree.Ino, l Loss) { a.set(ino, l) }

func (a *Account) set(ino tree.Ino, l Loss) {
	if a.lost == nil {
		a.lost, a.at, a.by = map[tree.Ino]Loss{}, map[tree.Place]tree.Ino{}, map[tree.Ino]tree.Ino{}
	}
	a.drop(ino)
	a.lost[ino] = l
	a.kinds[l.Kind]++
	if l.By != (tree.Ino{}) {
		a.by[l.By] = ino
	}
	for _, p := range stateOf(l.Before).places {
		a.at[p] = ino
	}
}

func (a *Account) drop(ino tree.Ino) {
	l, ok := a.lost[ino]
	if !ok {
		return
	}
	delete(a.lost, ino)
	delete(a.found, ino)
	a.kinds[l.Kind]--
	if a.by[l.By] == ino {
		delete(a.by, l.By)
	}
	for _, p := range stateOf(l.Before).places {
		if a.at[p] == ino {
			delete(a.at, p)
		}
	}
}

// Apply adds an effect.
func (a *Account) Apply(e Effect) {
	for ino, l := range e.Lost {
		a.set(ino, l)
	}
}

// After returns what Count would be after Apply.
func (a *Account) After(e Effect) (removed, rewritten int) {
	kinds := a.kinds
	for ino, l := range e.Lost {
		if old, ok := a.lost[ino]; ok {
			kinds[old.Kind]--
		}
		kinds[l.Kind]++
	}
	return kinds[Removed], kinds[Rewritten]
}

// Expire forgets what is older than Window at the time now and returns it.
func (a *Account) Expire(now int64) (old []tree.Ino) {
	for ino, l := range a.lost {
		if l.At <= now-int64(Window) {
			old = append(old, ino)
		}
	}
	for _, ino := range old {
		a.drop(ino)
	}
	return old
}

// Commit is what is judged.
type Commit struct {
	Author tree.Actor
	Wall   int64 // its author's clock, ns
	Delta  manifest.Delta
	Others []*Account // to give back what is in them is no loss
}

// restores reports whether is shows what another took away from ino.
func (c *Commit) restores(ino tree.Ino, is state) bool {
	for _, o := range c.Others {
		if l, ok := o.lost[ino]; ok && is.same(stateOf(l.Before)) {
			return true
		}
	}
	return false
}

// Assess tells what a commit does to the account, which stays as it is. before
// gives the records of an inode as they are without the commit; now is the time here, ns.
func (a *Account) Assess(c Commit, now int64, before func(tree.Ino) ([]tree.Record, error)) (Effect, error) {
	e := Effect{Lost: map[tree.Ino]Loss{}}
	if len(c.Delta.Drop) == 0 && len(a.lost) == 0 {
		return e, nil // it only adds
	}
	var came []arrival
	for _, x := range changes(c.Delta) {
		recs, err := before(x.ino)
		if err != nil {
			return e, err
		}
		after := x.apply(recs)
		was, is := stateOf(recs), stateOf(after)
		known, counted := a.lost[x.ino]
		l := Loss{At: now, Before: recs}
		if counted {
			l = known
		}
		if of, ok := a.by[x.ino]; ok {
			a.standIn(&e, of, is)
		}
		switch _, standIn := a.by[x.ino]; {
		case standIn:
		case was.shown && !is.shown:
			if counted || !was.madeBy(c) {
				l.Kind, l.By = Removed, tree.Ino{}
				e.Lost[x.ino] = l
			}
		case !is.shown, !counted && (!was.shown || was.dot == is.dot || was.madeBy(c) || c.restores(x.ino, is)):
		default:
			l.Kind, l.By = Rewritten, tree.Ino{}
			if is.same(stateOf(l.Before)) {
				l.Kind = Replaced
			}
			e.Lost[x.ino] = l
		}
		if is.shown && !is.dir {
			for _, p := range is.places {
				if !slices.Contains(was.places, p) || !was.shown {
					came = append(came, arrival{x.ino, p, is})
				}
			}
		}
	}
	left := map[tree.Place]tree.Ino{}
	for ino, l := range e.Lost {
		if l.Kind == Removed {
			for _, p := range stateOf(l.Before).places {
				left[p] = ino
			}
		}
	}
	for _, x := range came {
		ino, ok := left[x.at]
		if !ok {
			ino, ok = a.at[x.at]
		}
		if ok && ino != x.ino {
			a.replaced(&e, ino, x)
		}
	}
	return e, nil
}

// arrival is a file that comes to a place.
type arrival struct {
	ino tree.Ino
	at  tree.Place
	is  state
}

// replaced settles the loss of ino, at whose place another file came.
func (a *Account) replaced(e *Effect, ino tree.Ino, x arrival) {
	old, counted := a.lost[ino]
	l, ok := e.Lost[ino]
	if !ok {
		if l = old; !counted {
			return
		}
	}
	was := stateOf(l.Before)
	if was.dir || l.Kind != Removed {
		return
	}
	l.By, l.Kind = x.ino, Rewritten
	if was.showsAs(x.is) {
		l.Kind = Replaced
	}
	e.Lost[ino] = l
}

// standIn settles the loss of ino, of whose stand-in the state is now is.
func (a *Account) standIn(e *Effect, ino tree.Ino, is state) {
	l, again := e.Lost[ino]
	if !again {
		l = a.lost[ino]
	}
	was := stateOf(l.Before)
	switch {
	case !is.shown:
		l.Kind, l.By = Removed, tree.Ino{}
	case was.showsAs(is):
		l.Kind = Replaced
	default:
		l.Kind = Rewritten
	}
	e.Lost[ino] = l
}

// change is what a commit does to one inode.
type change struct {
	ino  tree.Ino
	put  []tree.Record
	drop []tree.KeyDot
}

// changes returns the inodes whose links or content a delta changes.
func changes(d manifest.Delta) []change {
	var out []change
	for i, j := 0, 0; i < len(d.Put) || j < len(d.Drop); {
		var x change
		switch {
		case j == len(d.Drop) || i < len(d.Put) && d.Put[i].Key.Ino().Compare(d.Drop[j].Key.Ino()) < 0:
			x.ino = d.Put[i].Key.Ino()
		default:
			x.ino = d.Drop[j].Key.Ino()
		}
		counts := false
		matters := func(k tree.Key) { counts = counts || k.Type() == tree.TypeLink || k.Type() == tree.TypeContent }
		for ; i < len(d.Put) && d.Put[i].Key.Ino() == x.ino; i++ {
			x.put = append(x.put, d.Put[i])
			matters(d.Put[i].Key)
		}
		for ; j < len(d.Drop) && d.Drop[j].Key.Ino() == x.ino; j++ {
			x.drop = append(x.drop, d.Drop[j])
			matters(d.Drop[j].Key)
		}
		if counts {
			out = append(out, x)
		}
	}
	return out
}

// apply returns recs after the change, as a new slice.
func (x *change) apply(recs []tree.Record) []tree.Record {
	out := slices.Clone(x.put)
	for _, r := range recs {
		id := r.ID()
		if !slices.Contains(x.drop, id) && !slices.ContainsFunc(x.put, func(p tree.Record) bool { return p.ID() == id }) {
			out = append(out, r)
		}
	}
	return out
}

// Empty reports whether it changes nothing.
func (e Effect) Empty() bool { return len(e.Lost) == 0 }

// after returns the records of an inode after a commit with delta d.
func after(ino tree.Ino, recs []tree.Record, d manifest.Delta) []tree.Record {
	i, _ := slices.BinarySearchFunc(d.Put, ino, func(r tree.Record, ino tree.Ino) int { return r.Key.Ino().Compare(ino) })
	j, _ := slices.BinarySearchFunc(d.Drop, ino, func(k tree.KeyDot, ino tree.Ino) int { return k.Key.Ino().Compare(ino) })
	x := change{ino: ino}
	for ; i < len(d.Put) && d.Put[i].Key.Ino() == ino; i++ {
		x.put = append(x.put, d.Put[i])
	}
	for ; j < len(d.Drop) && d.Drop[j].Key.Ino() == ino; j++ {
		x.drop = append(x.drop, d.Drop[j])
	}
	return x.apply(recs)
}

// state is what the records of one inode come to, near enough to what the view
// shows: collisions of names and cycles do not matter here.
type state struct {
	shown   bool
	dir     bool
	places  []tree.Place
	placed  int64 // when it came to its place, the last of them
	dot     tree.Dot
	content tree.Content
	known   bool // there is a content
}

func stateOf(recs []tree.Record) (s state) {
	var snap tree.Content
	var snapDot tree.Dot
	snapped := false
	newer := func(c, than *tree.Content, d, o tree.Dot) bool {
		return cmp.Or(cmp.Compare(c.Rank, than.Rank), cmp.Compare(c.Wall, than.Wall), d.Compare(o)) > 0
	}
	var dirRank uint64
	alive := false
	for i := range recs {
		r := &recs[i]
		switch r.Key.Type() {
		case tree.TypeLink:
			l, err := tree.DecodeLink(r.Value)
			if err != nil {
				continue // the database does not hold such
			}
			if l.Dir {
				if !s.dir || !l.Deleted && !alive || l.Deleted != alive && l.Rank > dirRank {
					s.dir, alive, dirRank = true, !l.Deleted, l.Rank
					s.places = []tree.Place{{Parent: l.Parent, Name: l.Name}}
					s.placed, s.dot = l.LocTime, r.Dot
				}
				continue
			}
			if s.dir {
				continue
			}
			s.places, s.placed = append(s.places, tree.Place{Parent: l.Parent, Name: l.Name}), max(s.placed, l.LocTime)
			if l.Snap != nil && (!snapped || newer(l.Snap, &snap, r.Dot, snapDot)) {
				snap, snapDot, snapped = *l.Snap, r.Dot, true
			}
		case tree.TypeContent:
			c, err := tree.DecodeContent(r.Value)
			if err != nil {
				continue
			}
			if !s.known || newer(&c, &s.content, r.Dot, s.dot) {
				s.content, s.dot, s.known = c, r.Dot, true
			}
		}
	}
	if s.dir {
		s.shown = alive
		return s
	}
	if !s.known && snapped {
		s.content, s.dot, s.known = snap, snapDot, true
	}
	s.shown = s.known && len(s.places) > 0
	return s
}

// showsAs reports whether both show the same, wherever.
func (s *state) showsAs(o state) bool {
	a, b := &s.content, &o.content
	return s.dir == o.dir && a.Kind == b.Kind && a.Size == b.Size && a.Ref.ID == b.Ref.ID && a.Ref.Depth == b.Ref.Depth && string(a.Inline) == string(b.Inline)
}

// same reports whether both are shown and show the same.
func (s *state) same(o state) bool { return s.shown && o.shown && s.showsAs(o) }

// madeBy reports whether the author of c made it, or wrote its content, lately. Of
// what is not in the account that says that there was nothing before.
func (s *state) madeBy(c Commit) bool {
	when := s.content.Wall
	if s.dir {
		when = s.placed
	}
	return s.dot.Actor == c.Author && when > c.Wall-int64(Window)
}
