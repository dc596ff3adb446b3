package copies

import (
	"context"
	"errors"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/roamfs/roamfs/sync/block"
	"github.com/roamfs/roamfs/sync/tree"
)

// So many blocks are fetched at once: enough to fill a line with small files, few
// enough to leave a reader's requests their place.
const parallel = 16

// retryAfter is how long a file that no reachable device holds waits, unless a
// device connects before.
const retryAfter = 10 * time.Second

// queue is a set of inodes in the order in which they came.
type queue struct {
	mu      sync.Mutex
	order   []tree.Ino
	in      map[tree.Ino]struct{}
	later   map[tree.Ino]struct{} // failed: tried again after a while or when a device connects
	active  map[tree.Ino]struct{} // taken and neither done nor failed
	running int                   // how often: one may be taken again meanwhile
	wake    chan struct{}
}

func (q *queue) init() {
	q.in, q.later, q.active = map[tree.Ino]struct{}{}, map[tree.Ino]struct{}{}, map[tree.Ino]struct{}{}
	q.wake = make(chan struct{}, 1)
}

func (q *queue) push(inos ...tree.Ino) {
	q.mu.Lock()
	for _, ino := range inos {
		q.pushLocked(ino)
	}
	q.mu.Unlock()
	q.poke()
}

func (q *queue) pushLocked(ino tree.Ino) {
	if _, ok := q.in[ino]; !ok {
		q.in[ino] = struct{}{}
		q.order = append(q.order, ino)
	}
}

// want is push, but leaves alone for a while what failed.
func (q *queue) want(inos ...tree.Ino) {
	q.mu.Lock()
	for _, ino := range inos {
		if _, failed := q.later[ino]; !failed {
			q.pushLocked(ino)
		}
	}
	q.mu.Unlock()
	q.poke()
}

func (q *queue) poke() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// take removes the oldest inode. Whoever takes it calls done.
func (q *queue) take() (ino tree.Ino, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.order) == 0 {
		return ino, false
	}
	ino = q.order[0]
	q.order = q.order[1:]
	delete(q.in, ino)
	delete(q.later, ino)
	q.running++
	q.active[ino] = struct{}{}
	return ino, true
}

// done ends what take began; what failed is tried again later.
func (q *queue) done(ino tree.Ino, failed bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.running--
	delete(q.active, ino)
	if failed {
		q.later[ino] = struct{}{}
	}
}

// retry queues again what failed.
func (q *queue) retry() {
	q.mu.Lock()
	for ino := range q.later {
		q.pushLocked(ino)
	}
	clear(q.later)
	q.mu.Unlock()
	q.poke()
}

func (q *queue) len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.order) + len(q.later) + q.running
}

// lenWithout is len, but for one inode.
func (q *queue) lenWithout(ino tree.Ino) int {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := len(q.order) + len(q.later) + q.running
	for _, in := range []map[tree.Ino]struct{}{q.in, q.later, q.active} {
		if _, ok := in[ino]; ok {
			n--
		}
	}
	return n
}

// Run takes stock of the whole tree and then follows it until ctx ends. Only an
// archive copies; every device keeps account of what is on it alone, and fetches
// lists without which that, or what is garbage, cannot be told.
func (k *Keeper) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { k.follow(ctx); return nil })
	g.Go(func() error { k.work(ctx, &k.learn, k.learnFile); return nil })
	if k.cfg.Archive {
		slots := make(chan struct{}, parallel) // bounds blocks under way, over all files
		g.Go(func() error {
			k.work(ctx, &k.fetch, func(ctx context.Context, ino tree.Ino) error { return k.copyFile(ctx, ino, slots) })
			return nil
		})
	}
	return g.Wait()
}

// Adopted tells the keeper which inodes another device has changed.
func (k *Keeper) Adopted(inos []tree.Ino) {
	k.watch.note(inos...)
	k.heads.note(inos...)
	if k.cfg.Archive {
		k.fetch.push(inos...)
	}
	k.alone.touch(inos...)
}

// AdoptedAll tells the keeper that other devices may have changed every inode.
func (k *Keeper) AdoptedAll() {
	k.watch.noteAll()
	k.heads.again()
	k.alone.again()
}

// Wrote tells the keeper that this device has committed content to an inode.
func (k *Keeper) Wrote(ino tree.Ino) {
	k.watch.note(ino)
	k.heads.note(ino)
	k.alone.push(ino)
}

// HeardHoldings tells the keeper that another device said what it holds.
func (k *Keeper) HeardHoldings() { k.alone.hear(heardHoldings) }

// HeardCommits tells the keeper that another device said what it knows of the
// tree.
func (k *Keeper) HeardCommits() { k.alone.hear(heardCommits) }

// Lost tells the keeper that another device said it no longer holds ids.
func (k *Keeper) Lost(ids []block.ID) {
	var lost []block.ID
	for _, id := range ids {
		if !k.cfg.Blocks.Has(id) {
			continue
		}
		if held, err := k.heldElsewhere(id); err != nil || !held {
			lost = append(lost, id)
		}
	}
	if len(lost) > 0 {
		k.alone.lose(lost...)
	}
}

// LostAll tells the keeper that what it believes of other devices is to be
// looked at anew.
func (k *Keeper) LostAll() { k.alone.again() }

// Dropped tells the keeper that blocks are no longer on this device. An archive
// gives up none by itself: they were damaged, and are brought here again.
func (k *Keeper) Dropped() {
	if k.cfg.Archive {
		k.past.lose()
		k.alone.again()
	}
}

// Reconnected tells the keeper that a device can be reached (again).
func (k *Keeper) Reconnected() {
	k.fetch.retry()
	k.learn.retry()
}

// Missing returns how many files an archive has still to look at or to copy,
// those that only snapshots have not counted.
func (k *Keeper) Missing() int { return k.fetch.lenWithout(pastIno) }

// work does something for queued inodes until ctx ends.
func (k *Keeper) work(ctx context.Context, q *queue, do func(ctx context.Context, ino tree.Ino) error) {
	files := make(chan struct{}, parallel) // bounds files under way
	var running sync.WaitGroup
	defer running.Wait()
	timer := time.NewTicker(retryAfter)
	defer timer.Stop()
	for {
		ino, ok := q.take()
		if !ok {
			select {
			case <-ctx.Done():
				return
			case <-q.wake:
			case <-timer.C:
				q.retry()
			}
			continue
		}
		select {
		case <-ctx.Done():
			return
		case files <- struct{}{}:
		}
		running.Go(func() {
			defer func() { <-files }()
			err := do(ctx, ino)
			if err != nil && ctx.Err() == nil {
				k.cfg.Log.Debug("a file waits for blocks", "inode", ino, "err", err)
			}
			q.done(ino, err != nil)
		})
	}
}

// copyFile brings every block of a file here, those of its conflict copies too.
// A block that cannot be had keeps no other from coming.
func (k *Keeper) copyFile(ctx context.Context, ino tree.Ino, slots chan struct{}) error {
	if ino == pastIno {
		return k.copyPast(ctx, slots)
	}
	var all []Ref
	if err := k.cfg.Tree.ContentsOf(ino, func(c tree.Content, _ tree.Dot) error {
		all = append(all, Ref{c.Ref, c.Size})
		return nil
	}); err != nil {
		return err
	}
	fill := k.fill(ctx, slots)
	var g errgroup.Group
	g.SetLimit(parallel)
	var errs []error
	for _, r := range all {
		errs = append(errs, k.blocks(r, fill, func(id block.ID) error {
			if k.cfg.Blocks.Has(id) {
				return nil
			}
			if err := ctx.Err(); err != nil {
				return err
			}
			g.Go(func() error { _, err := fill(id); return err })
			return nil
		}))
	}
	return errors.Join(append(errs, g.Wait())...)
}

// fill returns a function that makes blocks resident, as many at once as there
// are slots.
func (k *Keeper) fill(ctx context.Context, slots chan struct{}) func(block.ID) ([]byte, error) {
	return func(id block.ID) ([]byte, error) {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case slots <- struct{}{}:
		}
		defer func() { <-slots }()
		return k.cfg.Blocks.Fill(ctx, id)
	}
}
