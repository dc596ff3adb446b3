package copies

import (
	"context"
	"errors"
	"io/fs"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/roamfs/roamfs/sync/block"
	"github.com/roamfs/roamfs/sync/tree"
)

// An archive fetches this many blocks at once: enough to fill a line with small
// files, few enough to leave a reader's requests their place.
const parallel = 16

// retryAfter is how long a file that no reachable device holds waits, unless a
// device connects before.
const retryAfter = 10 * time.Second

// queue is a set of inodes in the order in which they came.
type queue struct {
	mu    sync.Mutex
	order []tree.Ino
	in    map[tree.Ino]struct{}
	later map[tree.Ino]struct{} // failed: tried again after a while or when a device connects
	wake  chan struct{}
}

func (q *queue) init() {
	q.in, q.later = map[tree.Ino]struct{}{}, map[tree.Ino]struct{}{}
	q.wake = make(chan struct{}, 1)
}

func (q *queue) push(inos ...tree.Ino) {
	q.mu.Lock()
	for _, ino := range inos {
		if _, ok := q.in[ino]; !ok {
			q.in[ino] = struct{}{}
			q.order = append(q.order, ino)
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

// take removes the oldest inode.
func (q *queue) take() (ino tree.Ino, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.order) == 0 {
		return ino, false
	}
	ino = q.order[0]
	q.order = q.order[1:]
	delete(q.in, ino)
	return ino, true
}

func (q *queue) fail(ino tree.Ino) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.later[ino] = struct{}{}
}

func (q *queue) retry() {
	q.mu.Lock()
	again := make([]tree.Ino, 0, len(q.later))
	for ino := range q.later {
		again = append(again, ino)
	}
	clear(q.later)
	q.mu.Unlock()
	if len(again) > 0 {
		q.push(again...)
	}
}

func (q *queue) len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.order) + len(q.later)
}

// Run looks at the whole tree once and then follows it until ctx ends. Only an
// archive copies; every device keeps account of what is on it alone.
func (k *Keeper) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		if err := k.look(); err != nil {
			return err
		}
		k.alone.follow(ctx, k)
		return nil
	})
	if k.cfg.Archive {
		g.Go(func() error { k.copy(ctx); return nil })
	}
	return g.Wait()
}

// look takes stock: what is missing on an archive, what is here alone.
func (k *Keeper) look() error {
	var missing, own []tree.Ino
	err := k.cfg.Tree.Contents(func(ino tree.Ino, c tree.Content) error {
		switch {
		case c.Ref.ID.IsZero():
		case k.cfg.Blocks.Has(c.Ref.ID):
			own = append(own, ino)
			if c.Ref.Depth > 0 {
				missing = append(missing, ino) // the copier finds out which blocks of it are
			}
		default:
			missing = append(missing, ino)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if k.cfg.Archive {
		k.fetch.push(missing...)
	}
	k.alone.push(own...)
	return nil
}

// Adopted tells the keeper which inodes another device has changed.
func (k *Keeper) Adopted(inos []tree.Ino) {
	k.alone.changed(inos)
	if k.cfg.Archive {
		k.fetch.push(inos...)
	}
}

// Wrote tells the keeper that this device has committed content to an inode.
func (k *Keeper) Wrote(ino tree.Ino) { k.alone.push(ino) }

// Heard tells the keeper that another device said what it holds.
func (k *Keeper) Heard() { k.alone.heard() }

// Reconnected tells the keeper that a device can be reached (again).
func (k *Keeper) Reconnected() { k.fetch.retry() }

// Missing returns how many files an archive has still to look at or to copy.
func (k *Keeper) Missing() int { return k.fetch.len() }

// copy brings the content of queued inodes here.
func (k *Keeper) copy(ctx context.Context) {
	slots := make(chan struct{}, parallel) // bounds blocks under way, over all files
	files := make(chan struct{}, parallel) // bounds files under way
	var running sync.WaitGroup
	defer running.Wait()
	timer := time.NewTicker(retryAfter)
	defer timer.Stop()
	for {
		ino, ok := k.fetch.take()
		if !ok {
			select {
			case <-ctx.Done():
				return
			case <-k.fetch.wake:
			case <-timer.C:
				k.fetch.retry()
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
			if err := k.copyFile(ctx, ino, slots); err != nil && ctx.Err() == nil {
				k.cfg.Log.Debug("copy waits", "inode", ino, "err", err)
				k.fetch.fail(ino)
			}
		})
	}
}

// copyFile brings every block of a file here.
func (k *Keeper) copyFile(ctx context.Context, ino tree.Ino, slots chan struct{}) error {
	n, err := k.cfg.Tree.Node(ino)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // deleted since, or nothing that is shown
	}
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	fill := func(id block.ID) ([]byte, error) {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case slots <- struct{}{}:
		}
		defer func() { <-slots }()
		return k.cfg.Blocks.Fill(ctx, id)
	}
	g.SetLimit(parallel)
	err = k.blocks(RefOf(n), fill, func(id block.ID) error {
		if k.cfg.Blocks.Has(id) {
			return nil
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		g.Go(func() error { _, err := fill(id); return err })
		return nil
	})
	return errors.Join(g.Wait(), err)
}
