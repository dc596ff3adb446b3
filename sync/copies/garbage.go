package copies

import (
	"errors"
	"sync"

	"github.com/roamfs/roamfs/sync/block"
	"github.com/roamfs/roamfs/sync/tree"
)

// watch are those who want to know which inodes change meanwhile.
type watch struct {
	mu sync.Mutex
	of map[*watching]struct{}
}

type watching struct {
	inos map[tree.Ino]struct{}
	all  bool
}

func (w *watch) note(inos ...tree.Ino) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for x := range w.of {
		for _, ino := range inos {
			x.inos[ino] = struct{}{}
		}
	}
}

func (w *watch) noteAll() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for x := range w.of {
		x.all = true
	}
}

func (w *watch) begin() *watching {
	w.mu.Lock()
	defer w.mu.Unlock()
	x := &watching{inos: map[tree.Ino]struct{}{}}
	w.of[x] = struct{}{}
	return x
}

func (w *watch) end(x *watching) (inos map[tree.Ino]struct{}, all bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.of, x)
	return x.inos, x.all
}

// errEnough ends a look at the tree that has nothing to find any more.
var errEnough = errors.New("enough was seen")

// Garbage returns those of ids that nothing in the tree or in a snapshot refers
// to, as far as they and the extra live blocks can tell.
//
// Extra calls back with the blocks that are needed beside those of the tree. It
// is called before and after the tree was looked at, and what was committed or
// adopted meanwhile is looked at last: a block that goes from "being
// written" to "in the tree" at any time is seen in one of the three.
//
// Blocks of contents that may be brought back are needed, too, as far as their lists
// are here.
//
// It fails with [ErrUnknown] if a list is missing here, since what that list
// names may be here all the same: equal content is one block, so it may have come with
// another file, and other devices may rely on this copy. No rule that looks
// at less than the list is sound. Lists are small (36 bytes for some 256 KiB of
// content), so [Keeper.Run] fetches the missing ones then, and Garbage can tell
// when it is asked again.
func (k *Keeper) Garbage(ids []block.ID, extra func(func(block.ID))) ([]block.ID, error) {
	dead := make(map[block.ID]struct{}, len(ids))
	for _, id := range ids {
		dead[id] = struct{}{}
	}
	needed := func(id block.ID) { delete(dead, id) }
	var unknown []tree.Ino
	look := func(ino tree.Ino, c tree.Content) error {
		err := k.blocks(Ref{c.Ref, c.Size}, nil, func(id block.ID) error { needed(id); return nil })
		if err != nil {
			unknown = append(unknown, ino)
		}
		if len(dead) == 0 {
			return errEnough
		}
		return nil
	}
	x := k.watch.begin()
	defer k.watch.end(x)
	spare := func() error {
		return k.cfg.Tree.Spare(func(c tree.Content) error {
			// Without the list nothing can be told, and nobody fetches it.
			if err := k.blocks(Ref{c.Ref, c.Size}, nil, func(id block.ID) error { needed(id); return nil }); !errors.Is(err, ErrUnknown) {
				return err
			}
			needed(c.Ref.ID)
			return nil
		})
	}
	extra(needed)
	if err := spare(); err != nil {
		return nil, err
	}
	err := k.cfg.Tree.Contents(func(ino tree.Ino, c tree.Content, _ tree.Dot, _ func() bool) error { return look(ino, c) })
	extra(needed)
	if err == nil {
		err = spare() // something may have been lost meanwhile
	}
	changed, all := k.watch.end(x)
	if all {
		return nil, err // not a moment to tell
	}
	for ino := range changed {
		if err == nil {
			err = k.cfg.Tree.ContentsOf(ino, func(c tree.Content, _ tree.Dot) error { return look(ino, c) })
		}
	}
	if err == nil && len(dead) > 0 {
		// The snapshots come last: what one names that is made meanwhile was in the tree, or the caller sees to it.
		if err = k.kept(nil, func(id block.ID) error { needed(id); return nil }, nil, nil); errors.Is(err, ErrUnknown) {
			unknown, err = append(unknown, pastIno), nil
		}
	}
	switch {
	case errors.Is(err, errEnough) || len(dead) == 0:
		return nil, nil
	case err != nil:
		return nil, err
	case len(unknown) > 0:
		k.learn.want(unknown...)
		return nil, ErrUnknown
	}
	out := make([]block.ID, 0, len(dead))
	for _, id := range ids {
		if _, ok := dead[id]; ok {
			out = append(out, id)
		}
	}
	return out, nil
}
