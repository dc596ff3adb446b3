package cache

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/roamfs/roamfs/sync/block"
)

// unsynced is what a Sync has to make durable. It is guarded by Cache.mu.
type unsynced struct {
	ids   []block.ID // put since
	dirs  [numDirs]bool
	packs map[uint32]bool

	// lost are blocks put as Local that could not be made durable, and when. Each
	// Sync reports them until they are put again or lostFor has passed, for whoever put
	// them may not be the one whose Sync failed first.
	lost map[block.ID]time.Time
}

const (
	lostFor  = 5 * time.Minute
	syncers  = 8  // files made durable at the same time
	lostShow = 10 // blocks named in an error
)

func (u *unsynced) putLocked(id block.ID, e entry) {
	u.ids = append(u.ids, id)
	if e.pack == 0 {
		u.dirs[id[0]] = true
	}
	delete(u.lost, id)
}

func (c *Cache) anyUnsynced() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.unsynced.ids) > 0
}

// Sync makes durable everything that was put before the call, and reports it
// through Options.Changed. Blocks that cannot be made durable are no longer
// resident, since nobody can tell what the disk has of them: after an error, put
// again what must not be lost.
func (c *Cache) Sync() error {
	c.mu.Lock()
	closed := c.closed
	c.mu.Unlock()
	if closed {
		return ErrClosed
	}
	return c.sync()
}

func (c *Cache) sync() error {
	c.syncing.Lock()
	defer c.syncing.Unlock()
	begun := time.Now()
	c.mu.Lock()
	u := c.unsynced
	c.unsynced = unsynced{packs: map[uint32]bool{}, lost: u.lost}
	files := make([]block.ID, 0, len(u.ids))
	for _, id := range u.ids {
		if h := c.index.Get(id); h != 0 {
			e := c.index.Val(h)
			e.flags &^= fresh
			if e.pack == 0 {
				files = append(files, id)
			}
		}
	}
	c.mu.Unlock()

	f := newFailures()
	c.syncFiles(files, f)
	for n := range u.packs {
		f.pack(n, syncPath(c.packPath(n)))
	}
	for d, changed := range u.dirs {
		if changed && d != rootDir {
			f.dir(d, syncPath(c.dirPath(d)))
		}
	}
	if u.dirs[rootDir] {
		f.dir(rootDir, syncPath(c.dir))
	}
	err := c.finishSync(u.ids, f)
	if err == nil && len(u.ids) > 0 {
		// Only a hint for the next Open: see the package comment.
		_ = os.Chtimes(filepath.Join(c.dir, stateName), begun, begun)
	}
	return err
}

// syncFiles makes block files durable and charges what they take now.
func (c *Cache) syncFiles(ids []block.ID, f *failures) {
	work := make(chan block.ID)
	var wg sync.WaitGroup
	for range min(syncers, len(ids)) {
		wg.Go(func() {
			for id := range work {
				f.block(id, c.syncFile(id))
			}
		})
	}
	for _, id := range ids {
		work <- id
	}
	close(work)
	wg.Wait()
}

func (c *Cache) syncFile(id block.ID) error {
	path := c.blockPath(id)
	if err := syncPath(path); err != nil {
		return err
	}
	fi, err := os.Lstat(path)
	if err != nil {
		return nil // evicted meanwhile
	}
	// The file may have been replaced by an equal one meanwhile: no harm.
	c.mu.Lock()
	defer c.mu.Unlock()
	if h := c.index.Get(id); h != 0 && c.index.Val(h).pack == 0 {
		e := c.index.Val(h)
		if pages := allocated(fi) / pageSize; pages > int64(e.pages) {
			c.accounts.used += (pages - int64(e.pages)) * pageSize
			e.pages = uint16(pages)
		}
	}
	return nil
}

// finishSync marks blocks as durable, and removes those that are not.
func (c *Cache) finishSync(ids []block.ID, f *failures) error {
	var added, gone []block.ID
	var victims []victim
	now := time.Now()
	c.mu.Lock()
	for _, id := range ids {
		h := c.index.Get(id)
		if h == 0 {
			continue
		}
		e := c.index.Val(h)
		switch {
		case f.has(id, *e):
			if e.flags&onlyHere != 0 {
				c.unsynced.lost[id] = now
			}
			_, held := c.holds[id]
			if _, busy := c.busy[id]; held || busy {
				c.unsynced.ids = append(c.unsynced.ids, id) // the next Sync tries again
				continue
			}
			victims = append(victims, victim{id, c.removeLocked(id, false)})
			c.busy[id] = make(chan struct{})
			gone = append(gone, id)
		case e.flags&(durable|fresh) == 0:
			e.flags |= durable
			added = append(added, id)
		}
	}
	c.notes.add(event{added: added, gone: gone})
	var lost []block.ID
	for id, at := range c.unsynced.lost {
		if now.Sub(at) > lostFor {
			delete(c.unsynced.lost, id)
		} else {
			lost = append(lost, id)
		}
	}
	c.mu.Unlock()
	c.notes.deliver()
	c.discard(victims)
	if err := f.err(); err != nil {
		return fmt.Errorf("make %d blocks durable: %w", len(ids), err)
	}
	if len(lost) > 0 {
		return fmt.Errorf("%d blocks could not be made durable and must be put again, among them %v",
			len(lost), lost[:min(len(lost), lostShow)])
	}
	return nil
}

// failures collects what could not be made durable.
type failures struct {
	mu     sync.Mutex
	blocks map[block.ID]bool
	packs  map[uint32]bool
	dirs   [numDirs]bool
	errs   []error
}

func newFailures() *failures {
	return &failures{blocks: map[block.ID]bool{}, packs: map[uint32]bool{}}
}

func (f *failures) note(err error, mark func()) {
	if err == nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	mark()
	if len(f.errs) < lostShow {
		f.errs = append(f.errs, err)
	}
}

func (f *failures) block(id block.ID, err error) { f.note(err, func() { f.blocks[id] = true }) }
func (f *failures) pack(n uint32, err error)     { f.note(err, func() { f.packs[n] = true }) }
func (f *failures) dir(d int, err error)         { f.note(err, func() { f.dirs[d] = true }) }
func (f *failures) err() error                   { return errors.Join(f.errs...) }

func (f *failures) has(id block.ID, e entry) bool {
	if f.dirs[rootDir] || f.blocks[id] {
		return true
	}
	if e.pack != 0 {
		return f.packs[e.pack] || f.dirs[packsDir]
	}
	return f.dirs[id[0]]
}
