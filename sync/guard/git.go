package guard

import (
	"strings"
	"time"

	"github.com/roamfs/roamfs/sync/tree"
)

// What a git repository keeps is not lost: a checkout of another branch removes
// and rewrites files of the work tree which the objects of the repository still have.
// Nothing here reads a file, so this goes by what git leaves in the tree. Losses in
// the directory that has .git, outside of it and of other repositories within, are
// kept if
//
//   - the author replaces the index as git does, under a new inode, or holds index.lock;
//     an index that is written in its place is none of git's doing, nor is such a HEAD;
//   - the repository is whole: nobody rewrote an object or a pack, and what was removed of
//     them is outnumbered by what the indexes of new packs name (a repack: the same
//     object may have been there twice, loose and packed). HEAD, objects and refs are there,
//     and branches were not removed by the hundred unless packed-refs was written;
//   - .git was there before the author began;
//   - they are not more than the index has, or had, entries for. That bounds what is not
//     seen: files that git does not track, or changes that were never committed.
//
// What a repack removes of the store is kept, too. Whoever encrypts or removes a clone as a
// whole reaches its objects, and then all of it counts, with what went before.
// Work trees whose .git is a file, and bare repositories, count like any directory.

// Bounds of what is taken for git's work.
const (
	// indexEntry is the size of the smallest entry of an index, in bytes: the
	// fixed 62 of all versions, a name of one byte, and its end.
	indexEntry = 64
	// mostHeads is how many branches may be removed without a packed-refs.
	mostHeads = 100
	// idxFixed and idxEntry are the sizes of an index of a pack, version 2.
	idxFixed, idxEntry = 8 + 256*4 + 2*20, 20 + 4 + 4
)

// settles is how long after a file came to its place its content may be committed,
// though it was written before.
const settles = time.Minute

// Tree is what is to be known of a tree. The inodes of Named and Children may be more
// than there are: their records tell.
type Tree interface {
	Records(ino tree.Ino) ([]tree.Record, error)
	Named(parent tree.Ino, name string) ([]tree.Ino, error)
	Children(parent tree.Ino) ([]tree.Ino, error)
}

// Kept tells how many of those that [Account.After] counts git repositories keep. Of c
// only the author and its clock matter; after is the tree with what is judged. It looks at every loss, so ask only if these are too many.
func (a *Account) Kept(e Effect, c Commit, after Tree) (removed, rewritten int, err error) {
	k := keeper{a: a, e: e, c: c, after: after, dirs: map[tree.Ino]spot{}, repos: map[tree.Ino]*repository{}}
	for ino, l := range a.lost {
		if _, again := e.Lost[ino]; again {
			continue // below
		}
		at, known := a.found[ino]
		if !known {
			if at, err = k.find(l); err != nil {
				return 0, 0, err
			}
			if a.found == nil {
				a.found = map[tree.Ino]spot{}
			}
			a.found[ino] = at
		}
		k.add(at, l)
	}
	for _, l := range e.Lost {
		at, err := k.find(l)
		if err != nil {
			return 0, 0, err
		}
		k.add(at, l)
	}
	for git, r := range k.repos {
		x, y, err := k.kept(git, r)
		if err != nil {
			return 0, 0, err
		}
		removed, rewritten = removed+x, rewritten+y
	}
	return removed, rewritten, nil
}

// area says which part of a repository something is, or what a directory has.
type area uint8

const (
	nowhere area = iota
	worktree
	gitDir
	objectsDir
	looseDir
	packDir
	refsDir
	headsDir
	gitOther // of no matter
	indexFile
	headFile  // .git/HEAD
	storeFile // an object or a part of a pack
)

// spot is where something is: in which repository, by the inode of .git.
type spot struct {
	git     tree.Ino
	area    area
	objects int64 // how many objects a file of the store stands for
}

// repository is what an account has of one.
type repository struct {
	removed, rewritten int   // of the work tree
	store              int   // removed files and directories of the store
	objects            int64 // that these had
	heads              int   // removed branches
	index              int64 // size of the largest one, bytes
	indexed            bool  // the index was replaced
	broken             bool
}

// keeper is one run of [Account.Kept].
type keeper struct {
	a     *Account
	e     Effect
	c     Commit
	after Tree
	dirs  map[tree.Ino]spot
	repos map[tree.Ino]*repository
}

// find tells where a loss was.
func (k *keeper) find(l Loss) (spot, error) {
	s := stateOf(l.Before)
	if len(s.places) == 0 {
		return spot{}, nil
	}
	p := s.places[0]
	in, err := k.dir(p.Parent)
	if err != nil {
		return spot{}, err
	}
	at := in
	at.area = in.area.of(p.Name, s.dir)
	if at.area == storeFile && in.area == looseDir {
		at.objects = 1
	} else if at.area == storeFile && strings.HasSuffix(p.Name, ".idx") {
		at.objects = packed(s.content.Size)
	}
	return at, nil
}

// packed returns how many objects an index of a pack names that has so many bytes.
func packed(size int64) int64 { return max(0, (size-idxFixed)/idxEntry) }

// of returns what something is that a directory of area in has.
func (in area) of(name string, dir bool) area {
	switch in {
	case worktree:
		return worktree
	case gitDir:
		switch name {
		case "HEAD":
			return headFile
		case "index":
			return indexFile
		}
	case objectsDir:
		if dir && len(name) == 2 {
			return storeFile
		}
	case looseDir:
		if !strings.HasPrefix(name, "tmp_") {
			return storeFile
		}
	case packDir:
		if strings.HasPrefix(name, "pack-") {
			return storeFile
		}
	case headsDir:
		return headsDir
	case nowhere:
		return nowhere
	default:
	}
	return gitOther
}

// dir tells what a directory is. A directory that is lost is what it was.
func (k *keeper) dir(ino tree.Ino) (at spot, err error) {
	if at, ok := k.dirs[ino]; ok {
		return at, nil
	}
	k.dirs[ino] = spot{} // if they go in circles
	defer func() { k.dirs[ino] = at }()
	if ino != tree.Root {
		recs, err := k.records(ino)
		if err != nil {
			return at, err
		}
		s := stateOf(recs)
		if !s.dir || len(s.places) == 0 {
			return at, nil
		}
		p := s.places[0]
		if at, err = k.dir(p.Parent); err != nil {
			return at, err
		}
		if at.area != nowhere && at.area != worktree {
			at.area = at.area.inside(p.Name)
			return at, nil
		}
		if p.Name == ".git" {
			return spot{git: ino, area: gitDir}, nil
		}
	}
	git, s, err := named(k.after, ino, ".git")
	switch {
	case err != nil || !s.shown:
		return at, err // the repository that the parent is in, if it is
	case !s.dir:
		return spot{}, nil
	}
	return spot{git: git, area: worktree}, nil
}

// inside returns what a directory of that name is, in one of area in within .git.
func (in area) inside(name string) area {
	switch {
	case in == gitDir && name == "objects":
		return objectsDir
	case in == gitDir && name == "refs":
		return refsDir
	case in == objectsDir && name == "pack":
		return packDir
	case in == objectsDir && len(name) == 2:
		return looseDir
	case in == refsDir && name == "heads", in == headsDir:
		return headsDir
	}
	return gitOther
}

// records returns those of an inode, or those that it had when it was lost.
func (k *keeper) records(ino tree.Ino) ([]tree.Record, error) {
	if l, ok := k.loss(ino); ok {
		return l.Before, nil
	}
	return k.after.Records(ino)
}

func (k *keeper) loss(ino tree.Ino) (Loss, bool) {
	l, ok := k.e.Lost[ino]
	if !ok {
		l, ok = k.a.lost[ino]
	}
	return l, ok
}

// add counts a loss.
func (k *keeper) add(at spot, l Loss) {
	if at.area == nowhere {
		return
	}
	r := k.repos[at.git]
	if r == nil {
		r = &repository{}
		k.repos[at.git] = r
	}
	inPlace := l.Kind == Rewritten && l.By == (tree.Ino{})
	switch at.area {
	case worktree:
		switch l.Kind {
		case Removed:
			r.removed++
		case Rewritten:
			r.rewritten++
		case Replaced:
		}
	case storeFile:
		r.broken = r.broken || l.Kind == Rewritten
		if l.Kind == Removed {
			r.store++
			r.objects += at.objects
		}
	case headsDir:
		if l.Kind == Removed {
			r.heads++
		}
	case indexFile:
		r.broken = r.broken || inPlace
		r.indexed = r.indexed || l.By != (tree.Ino{})
		s := stateOf(l.Before)
		r.index = max(r.index, s.content.Size)
	case headFile:
		r.broken = r.broken || inPlace
	default:
	}
}

// kept tells how much of what is gone a repository keeps.
func (k *keeper) kept(git tree.Ino, r *repository) (removed, rewritten int, err error) {
	recs, err := k.after.Records(git)
	if err != nil {
		return 0, 0, err
	}
	if s := stateOf(recs); r.broken || !s.shown || s.madeBy(k.c) {
		return 0, 0, nil
	}
	for _, name := range []string{"HEAD", "objects", "refs"} { // else git takes it for none
		if _, s, err := named(k.after, git, name); err != nil || !s.shown {
			return 0, 0, err
		}
	}
	if r.heads > mostHeads {
		if _, s, err := named(k.after, git, "packed-refs"); err != nil || !s.shown || !s.madeBy(k.c) {
			return 0, 0, err
		}
	}
	if r.store > 0 {
		n, err := k.newlyPacked(git)
		if err != nil || n == 0 || r.objects > 2*n {
			return 0, 0, err
		}
		removed = r.store
	}
	for _, name := range []string{"index", "index.lock"} {
		_, is, err := named(k.after, git, name)
		if err != nil {
			return 0, 0, err
		}
		r.indexed = r.indexed || is.shown && is.madeBy(k.c)
		r.index = max(r.index, is.content.Size)
	}
	if !r.indexed {
		return removed, 0, nil
	}
	room := int(r.index / indexEntry)
	gone := min(r.removed, room)
	return removed + gone, min(r.rewritten, room-gone), nil
}

// newlyPacked returns how many objects the packs have that the author added; none if
// it wrote to one of them since, which is no loss by itself as long as the pack is new.
func (k *keeper) newlyPacked(git tree.Ino) (n int64, err error) {
	dir := git
	for _, name := range []string{"objects", "pack"} {
		ino, s, err := named(k.after, dir, name)
		if err != nil || !s.shown || !s.dir {
			return 0, err
		}
		dir = ino
	}
	inos, err := k.after.Children(dir)
	if err != nil {
		return 0, err
	}
	standIn := map[tree.Ino]bool{}
	for _, l := range k.e.Lost {
		standIn[l.By] = true
	}
	for _, ino := range inos {
		if _, lost := k.loss(ino); lost || standIn[ino] {
			continue
		}
		if _, took := k.a.by[ino]; took {
			continue
		}
		recs, err := k.after.Records(ino)
		if err != nil {
			return 0, err
		}
		s := stateOf(recs)
		for _, p := range s.places {
			if p.Parent != dir || !s.shown || !strings.HasPrefix(p.Name, "pack-") || !s.madeBy(k.c) {
				continue
			}
			if s.content.Wall > s.placed+int64(settles) {
				return 0, nil // git writes none in its place
			}
			if strings.HasSuffix(p.Name, ".idx") {
				n += packed(s.content.Size)
			}
		}
	}
	return n, nil
}

// named returns what a tree shows at a place; nothing is shown if nothing is there.
func named(t Tree, parent tree.Ino, name string) (tree.Ino, state, error) {
	inos, err := t.Named(parent, name)
	if err != nil {
		return tree.Ino{}, state{}, err
	}
	for _, ino := range inos {
		recs, err := t.Records(ino)
		if err != nil {
			return tree.Ino{}, state{}, err
		}
		s := stateOf(recs)
		for _, p := range s.places {
			if s.shown && p.Parent == parent && p.Name == name {
				return ino, s, nil
			}
		}
	}
	return tree.Ino{}, state{}, nil
}
