package copies

import (
	"context"
	"maps"
	"sync"
	"time"

	"github.com/roamfs/roamfs/sync/block"
	"github.com/roamfs/roamfs/sync/tree"
)

// alone is the set of inodes whose content may be on this device only. An
// inode leaves it once every block of it was reported by another device.
type alone struct {
	mu   sync.Mutex
	in   map[tree.Ino]suspect
	gen  uint64
	wake chan struct{}
}

// suspect is an inode that may be here only.
type suspect struct {
	bytes int64  // that are here only; -1 if it was not looked at yet
	gen   uint64 // tells whether it was written again while it was looked at
}

func (a *alone) init() { a.in, a.wake = map[tree.Ino]suspect{}, make(chan struct{}, 1) }

func (a *alone) push(inos ...tree.Ino) {
	a.mu.Lock()
	for _, ino := range inos {
		a.gen++
		a.in[ino] = suspect{-1, a.gen}
	}
	a.mu.Unlock()
	a.poke()
}

// all returns the set as it is now.
func (a *alone) all() map[tree.Ino]suspect {
	a.mu.Lock()
	defer a.mu.Unlock()
	return maps.Clone(a.in)
}

// found notes how much of an inode is here only, unless it was written since.
func (a *alone) found(ino tree.Ino, gen uint64, bytes int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.in[ino].gen != gen {
		return
	}
	if bytes > 0 {
		a.in[ino] = suspect{bytes, gen}
	} else {
		delete(a.in, ino)
	}
}

func (a *alone) poke() {
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// follow looks again at the set whenever something was written or heard, a few
// times a second at most.
func (a *alone) follow(ctx context.Context, k *Keeper) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-a.wake:
		}
		k.recount()
		select {
		case <-ctx.Done():
			return
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// recount looks at every inode of the set once.
func (k *Keeper) recount() {
	for ino, was := range k.alone.all() {
		size, err := k.onlyHere(ino)
		if err != nil {
			k.cfg.Log.Warn("copies of a file", "inode", ino, "err", err)
			continue // still counted: better once too often than lost
		}
		k.alone.found(ino, was.gen, size)
	}
}

// onlyHere returns the bytes of a file that no other device said it holds.
func (k *Keeper) onlyHere(ino tree.Ino) (int64, error) {
	n, err := k.cfg.Tree.Node(ino)
	if err != nil {
		return 0, nil //nolint:nilerr // deleted since: nothing to lose
	}
	r := RefOf(n)
	if r.ID.IsZero() {
		return 0, nil // travels with the tree
	}
	parts, err := k.parts(r)
	if err != nil {
		return 0, err
	}
	if parts == nil { // the list is not here, so it is elsewhere
		return 0, nil
	}
	var only int64
	for _, p := range parts {
		if !k.cfg.Blocks.Has(p.id) {
			continue
		}
		held, err := k.cfg.Holders.HoldsAny(p.id)
		if err != nil {
			return 0, err
		}
		if !held {
			only += max(p.bytes, 1)
		}
	}
	return only, nil
}

// Waiting returns the files of which something is on this device only, and the
// bytes of that.
func (k *Keeper) Waiting() (files, bytes int64) {
	for ino, was := range k.alone.all() {
		n := was.bytes
		if n < 0 { // written just now
			var err error
			if n, err = k.onlyHere(ino); err == nil && n == 0 {
				continue
			}
		}
		files++
		bytes += max(n, 0)
	}
	return files, bytes
}

// OnlyHere returns at most limit inodes of which something is on this device only.
func (k *Keeper) OnlyHere(limit int) []tree.Ino {
	a := &k.alone
	a.mu.Lock()
	defer a.mu.Unlock()
	out := make([]tree.Ino, 0, min(limit, len(a.in)))
	for ino := range a.in {
		if len(out) == limit {
			break
		}
		out = append(out, ino)
	}
	return out
}

// Garbage returns those of ids that nothing in the tree refers to, as far as
// the tree and the extra live blocks can tell; none if that cannot be told.
// Extra is called after the tree was looked at.
func (k *Keeper) Garbage(ids []block.ID, extra func(func(block.ID))) ([]block.ID, error) {
	dead := make(map[block.ID]struct{}, len(ids))
	for _, id := range ids {
		dead[id] = struct{}{}
	}
	extra(func(id block.ID) { delete(dead, id) })
	if err := k.Live(func(id block.ID) { delete(dead, id) }); err != nil {
		return nil, err
	}
	extra(func(id block.ID) { delete(dead, id) }) // a commit may have gone from "under way" to "in the tree" and back between
	out := make([]block.ID, 0, len(dead))
	for _, id := range ids {
		if _, ok := dead[id]; ok {
			out = append(out, id)
		}
	}
	return out, nil
}
