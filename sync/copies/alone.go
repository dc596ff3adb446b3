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
	mu    sync.Mutex
	in    map[tree.Ino]suspect
	gen   uint64
	stale bool // what is known of the inodes in the set may be wrong by now
	wake  chan struct{}
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

// heard says that other devices may hold what they did not before.
func (a *alone) heard() {
	a.mu.Lock()
	a.stale = true
	a.mu.Unlock()
	a.poke()
}

// changed says that another device has changed inodes, of which some may be in the set.
func (a *alone) changed(inos []tree.Ino) {
	a.mu.Lock()
	known := 0
	for _, ino := range inos {
		if _, ok := a.in[ino]; ok {
			a.gen++
			a.in[ino] = suspect{-1, a.gen}
			known++
		}
	}
	a.mu.Unlock()
	if known > 0 {
		a.poke()
	}
}

// unseen returns what was not looked at yet.
func (a *alone) unseen() map[tree.Ino]suspect {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := map[tree.Ino]suspect{}
	for ino, s := range a.in {
		if s.bytes < 0 {
			out[ino] = s
		}
	}
	return out
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

// follow looks at what was written a few times a second, and at the whole set
// when something was heard. What was deleted since is found by the way: the
// whole set is also looked at now and then as long as something is written. To
// look at 10,000 inodes takes a tenth of a second, which five times a second was
// a fifth of what making them cost; so it takes a part of the time at most.
func (a *alone) follow(ctx context.Context, k *Keeper) {
	var took time.Duration // for the whole set
	var last time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-a.wake:
		}
		begun := time.Now()
		a.mu.Lock()
		stale, since := a.stale, begun.Sub(last)
		whole := stale && since >= 4*took || since >= max(5*time.Second, 50*took)
		if whole {
			a.stale = false
		}
		a.mu.Unlock()
		if whole {
			k.examine(a.all())
			last, took = time.Now(), time.Since(begun)
		} else {
			k.examine(a.unseen())
			if stale {
				a.poke() // its time comes
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// examine looks once at inodes of the set.
func (k *Keeper) examine(inos map[tree.Ino]suspect) {
	for ino, was := range inos {
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
