package copies

import (
	"slices"

	"github.com/roamfs/roamfs/sync/block"
	"github.com/roamfs/roamfs/sync/tree"
)

// account is inodes that may be here only. On a device that is alone they are all, so a
// look at the whole tree leaves a sorted list of 32 bytes for each, where a map
// would take 110; what changes afterwards stands in a map before it.
type account struct {
	base   []entry
	asOf   uint64                  // of all in base
	since  map[tree.Ino]suspect    // instead of what base says
	listed map[tree.Ino][]block.ID // the lists of those files that have some
	lists  map[block.ID]int        // all lists, how often
}

// suspect is what is known of one of them.
type suspect struct {
	bytes int64  // that are here only; -1 if it was not looked at yet
	gen   uint64 // tells whether it was written again while it was looked at
	// blocks says that some of it is blocks, so that it does not help if others know of
	// the file.
	blocks bool
	gone   bool // it is not one any more; in since only
}

// entry is a suspect of the base.
type entry struct {
	ino   tree.Ino
	bytes int64 // -1-bytes if blocks are among them
}

func (e *entry) suspect(gen uint64) suspect {
	if e.bytes < 0 {
		return suspect{bytes: -1 - e.bytes, gen: gen, blocks: true}
	}
	return suspect{bytes: e.bytes, gen: gen}
}

func newAccount(gen uint64) account {
	return account{asOf: gen, since: map[tree.Ino]suspect{}, listed: map[tree.Ino][]block.ID{}, lists: map[block.ID]int{}}
}

// add enters an inode while the account is made, or says more of the one that was
// added last. They come in order.
func (a *account) add(ino tree.Ino, o only) {
	n := len(a.base)
	if n > 0 && a.base[n-1].ino == ino {
		n--
		a.base = a.base[:n]
	}
	e := entry{ino, o.bytes}
	if o.blocks {
		e.bytes = -1 - o.bytes
	}
	a.base = append(a.base, e)
	a.list(ino, o.lists)
}

// find returns where in base an inode is or would be.
func (a *account) find(ino tree.Ino) (i int, ok bool) {
	return slices.BinarySearchFunc(a.base, ino, func(e entry, ino tree.Ino) int { return e.ino.Compare(ino) })
}

// get returns what is known of an inode.
func (a *account) get(ino tree.Ino) (suspect, bool) {
	if s, ok := a.since[ino]; ok {
		return s, !s.gone
	}
	i, ok := a.find(ino)
	if !ok {
		return suspect{}, false
	}
	return a.base[i].suspect(a.asOf), true
}

// set enters what is known of an inode, as of gen.
func (a *account) set(ino tree.Ino, gen uint64, o only) {
	a.since[ino] = suspect{bytes: o.bytes, gen: gen, blocks: o.blocks}
	a.list(ino, o.lists)
}

func (a *account) drop(ino tree.Ino) {
	a.list(ino, nil)
	if _, ok := a.find(ino); ok {
		a.since[ino] = suspect{gone: true}
	} else {
		delete(a.since, ino)
	}
}

// list enters the lists of a file.
func (a *account) list(ino tree.Ino, lists []block.ID) {
	for _, id := range a.listed[ino] {
		if a.lists[id]--; a.lists[id] == 0 {
			delete(a.lists, id)
		}
	}
	delete(a.listed, ino)
	if len(lists) == 0 {
		return
	}
	a.listed[ino] = lists
	for _, id := range lists {
		a.lists[id]++
	}
}

// all yields every inode, as long as the account does not change.
func (a *account) all(yield func(tree.Ino, suspect) bool) {
	for i := range a.base {
		e := &a.base[i]
		if len(a.since) > 0 {
			if _, ok := a.since[e.ino]; ok {
				continue
			}
		}
		if !yield(e.ino, e.suspect(a.asOf)) {
			return
		}
	}
	for ino, s := range a.since {
		if !s.gone && !yield(ino, s) {
			return
		}
	}
}

// size is how many inodes there are, at most.
func (a *account) size() int { return len(a.base) + len(a.since) }
