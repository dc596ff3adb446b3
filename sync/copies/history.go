package copies

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"

	"golang.org/x/sync/errgroup"

	"github.com/roamfs/roamfs/sync/block"
	"github.com/roamfs/roamfs/sync/history"
	"github.com/roamfs/roamfs/sync/tree"
)

// History is what is kept of the past of the tree.
type History interface {
	// Roots returns the roots of all snapshots. The error is an [ErrUnknown] if
	// there is one that cannot be read.
	Roots() ([]Root, error)
}

// Root is the root directory of a snapshot, and the commit that it came with.
type Root struct {
	Object history.Object
	Dot    tree.Dot
}

// pastIno stands for all snapshots in the queues, where it is one file. No inode
// of the tree begins so.
var pastIno = tree.Ino{0xff, 'H'}

// kept calls fn with every block that the snapshots refer to, also those of files
// that are in the tree as well. Blocks of directories and lists are opened as far as they are
// here or get, if it is not nil, obtains them; where one cannot be opened kept
// goes on with the others, and its error is an [ErrUnknown]. skip, if it is not
// nil, leaves out a directory with all that is below it; whole, if it is not nil, is
// called after all below a directory was gone through without an error.
func (k *Keeper) kept(get func(block.ID) ([]byte, error), fn func(block.ID) error, skip func(block.ID) bool, whole func(block.ID)) error {
	if k.cfg.History == nil {
		return nil
	}
	roots, err := k.cfg.History.Roots()
	if err != nil {
		return err
	}
	w := walk{k: k, get: get, fn: fn, skip: skip, whole: whole, seen: map[block.ID]bool{}}
	for _, r := range roots {
		if _, err := w.directory(r.Object, 0); err != nil {
			return err
		}
	}
	return w.unknown
}

// walk goes through snapshots, each directory once.
type walk struct {
	k       *Keeper
	get     func(block.ID) ([]byte, error)
	fn      func(block.ID) error
	skip    func(block.ID) bool
	whole   func(block.ID)
	each    func(Ref) error   // instead of fn, for whole contents
	seen    map[block.ID]bool // directories, and whether all of it could be told
	unknown error             // the first
}

// directory reports whether all blocks of o, and of what is below it, are known.
func (w *walk) directory(o history.Object, depth int) (all bool, err error) {
	if all, ok := w.seen[o.ID]; ok {
		return all, nil
	}
	if w.skip != nil && w.skip(o.ID) {
		w.seen[o.ID] = true
		return true, nil
	}
	if depth > history.MaxDepth {
		w.note(fmt.Errorf("%w: directories more than %d deep", history.ErrObject, history.MaxDepth))
		return false, nil
	}
	w.seen[o.ID] = false // no directory is below itself: its hash would be in itself
	all, err = w.content(Ref{o.Ref, o.Size})
	if err != nil {
		return false, err
	}
	entries, err := history.Read(o, w.k.cfg.Keys, w.sealed)
	if err != nil {
		w.note(err)
		return false, nil
	}
	for i := range entries {
		e := &entries[i]
		ok := false
		if e.Kind == tree.Dir {
			ok, err = w.directory(e.Object(), depth+1)
		} else {
			ok, err = w.content(Ref{e.Ref, e.Size})
		}
		if err != nil {
			return false, err
		}
		all = all && ok
	}
	w.seen[o.ID] = all
	if all && w.whole != nil {
		w.whole(o.ID)
	}
	return all, nil
}

// content calls fn with the blocks of r.
func (w *walk) content(r Ref) (all bool, err error) {
	if w.each != nil {
		err = w.each(r)
	} else {
		err = w.k.blocks(r, w.get, w.fn)
	}
	if errors.Is(err, ErrUnknown) {
		w.note(err)
		return false, nil
	}
	return err == nil, err
}

func (w *walk) note(err error) {
	if w.unknown == nil {
		w.unknown = fmt.Errorf("%w: %w", ErrUnknown, err)
	}
}

// sealed returns the sealed bytes of a block of a directory.
func (w *walk) sealed(id block.ID) ([]byte, error) {
	sealed, err := w.k.cfg.Blocks.Read(id)
	if err == nil {
		return sealed, nil
	}
	if sealed = w.k.lists.get(id); sealed != nil {
		return sealed, nil
	}
	if w.get != nil {
		return w.get(id)
	}
	return nil, err
}

// Kept tells the keeper that snapshots were made or removed, here or elsewhere.
func (k *Keeper) Kept() {
	if k.cfg.Archive && k.cfg.History != nil {
		k.fetch.push(pastIno)
	}
}

// copyPast brings every block of all snapshots here. What was found complete is
// not gone through again until a block is lost.
func (k *Keeper) copyPast(ctx context.Context, slots chan struct{}) error {
	fill := k.fill(ctx, slots)
	var g errgroup.Group
	g.SetLimit(parallel)
	complete, loss := k.past.begin()
	var fresh []block.ID
	err := k.kept(fill, func(id block.ID) error {
		if k.cfg.Blocks.Has(id) {
			return nil
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		g.Go(func() error { _, err := fill(id); return err })
		return nil
	}, func(id block.ID) bool { _, ok := complete[id]; return ok },
		func(id block.ID) { fresh = append(fresh, id) })
	copied := g.Wait()
	if copied == nil { // what could not be told is not among fresh
		k.past.end(fresh, loss)
	}
	return errors.Join(err, copied)
}

// OldOnlyHere returns how many bytes of content only snapshots need, their directories
// included, are on this device and on no other. all is false if some cannot be told, since
// what lists them is elsewhere. It goes through all snapshots, so it takes its time.
func (k *Keeper) OldOnlyHere(ctx context.Context) (bytes int64, all bool, err error) {
	if k.cfg.History == nil {
		return 0, true, nil
	}
	roots, err := k.cfg.History.Roots()
	if err != nil {
		return 0, false, err
	}
	alone := map[block.ID]int64{}
	each := func(r Ref) error {
		if err := ctx.Err(); err != nil || r.ID.IsZero() {
			return err
		}
		parts, err := k.parts(r)
		if err != nil {
			return err
		}
		unknown := parts == nil
		if unknown {
			parts = []part{{id: r.ID}}
		}
		for _, p := range parts {
			if !k.cfg.Blocks.Has(p.id) {
				continue
			}
			held, err := k.heldElsewhere(p.id)
			if err != nil {
				return err
			}
			if !held {
				alone[p.id] = max(alone[p.id], p.bytes, 1)
			}
		}
		if unknown {
			return ErrUnknown
		}
		return nil
	}
	w := walk{k: k, each: each, seen: map[block.ID]bool{}}
	for _, r := range roots {
		if _, err := w.directory(r.Object, 0); err != nil {
			return 0, false, err
		}
	}
	if len(alone) > 0 { // what the tree needs, too, is counted with its files
		for _, ino := range k.OnlyHere(math.MaxInt) {
			if err := k.cfg.Tree.ContentsOf(ino, func(c tree.Content, _ tree.Dot) error {
				return k.blocks(Ref{c.Ref, c.Size}, nil, func(id block.ID) error { delete(alone, id); return nil })
			}); err != nil && !errors.Is(err, ErrUnknown) && !errors.Is(err, fs.ErrNotExist) {
				return 0, false, err
			}
		}
	}
	for _, n := range alone {
		bytes += n
	}
	return bytes, w.unknown == nil, nil
}

// learnPast obtains what is needed to tell which blocks the snapshots need.
func (k *Keeper) learnPast(ctx context.Context) error {
	return k.kept(k.obtain(ctx), func(block.ID) error { return nil }, nil, nil)
}
