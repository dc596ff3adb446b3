package cache

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/roamfs/roamfs/sync/block"
)

// unsynced is what was put since the last Sync. Guarded by Cache.mu.
type unsynced struct {
	files []block.ID // have files of their own
	packs []block.ID // are in packs that are marked as fresh
}

func (u *unsynced) add(id block.ID, small bool) {
	if small {
		u.packs = append(u.packs, id)
	} else {
		u.files = append(u.files, id)
	}
}

// syncOneByOne is how many files are synced each for itself. More are synced
// with the whole file system: one journal commit instead of so many.
const syncOneByOne = 8

// Sync makes every block put before the call survive a power cut.
func (c *Cache) Sync() error {
	c.syncing.Lock()
	defer c.syncing.Unlock()
	begun := time.Now()
	c.mu.Lock()
	u := c.unsynced
	c.unsynced = unsynced{}
	for _, ids := range [][]block.ID{u.files, u.packs} {
		for _, id := range ids {
			if at := c.index.Get(id); at != 0 {
				c.index.Val(at).flags &^= fresh
			}
		}
	}
	c.mu.Unlock()
	if len(u.files)+len(u.packs) == 0 {
		return nil
	}
	err := c.syncFiles(u.files)
	if err == nil {
		err = c.syncPacks()
	}
	c.mu.Lock()
	if err != nil {
		c.unsynced.files = append(u.files, c.unsynced.files...)
		c.unsynced.packs = append(u.packs, c.unsynced.packs...)
		c.mu.Unlock()
		return fmt.Errorf("sync blocks: %w", err)
	}
	var added []block.ID
	for _, ids := range [][]block.ID{u.files, u.packs} {
		for _, id := range ids {
			if at := c.index.Get(id); at != 0 && c.index.Val(at).flags&(durable|fresh) == 0 {
				c.index.Val(at).flags |= durable
				added = append(added, id)
			}
		}
	}
	c.notes.add(event{added: added})
	c.mu.Unlock()
	c.notes.deliver()
	c.measureFiles(u.files)
	if err := os.Chtimes(filepath.Join(c.dir, stateName), begun, begun); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("sync blocks: %w", err)
	}
	return nil
}

func (c *Cache) syncFiles(ids []block.ID) error {
	if len(ids) == 0 {
		return nil
	}
	if len(ids) > syncOneByOne {
		return c.syncAll()
	}
	dirs := map[string]bool{c.dir: true}
	for _, id := range ids {
		path := c.filePath(id)
		dirs[filepath.Dir(path)] = true
		if err := syncPath(path); err != nil {
			return err
		}
	}
	for dir := range dirs {
		if err := syncPath(dir); err != nil {
			return err
		}
	}
	return nil
}

// syncAll syncs the whole file system.
func (c *Cache) syncAll() error {
	d, err := os.Open(c.dir)
	if err != nil {
		return err
	}
	return errors.Join(unix.Syncfs(int(d.Fd())), d.Close())
}

// measureFiles charges what block files take now: the file system allocates
// when it writes back, and may then need blocks for a file's extents.
func (c *Cache) measureFiles(ids []block.ID) {
	for _, id := range ids {
		n, err := allocated(c.filePath(id))
		if err != nil {
			continue // evicted
		}
		c.mu.Lock()
		if at := c.index.Get(id); at != 0 {
			if e := c.index.Val(at); e.pack == 0 && n > int64(e.pages)*pageSize {
				pages := uint16(roundUp(n) / pageSize)
				c.accounts.used += int64(pages-e.pages) * pageSize
				e.pages = pages
			}
		}
		c.mu.Unlock()
	}
}

// syncPath syncs a file or directory; one that was removed needs no sync.
func syncPath(path string) error {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// syncPacks syncs the packs that were appended to.
func (c *Cache) syncPacks() error {
	c.mu.Lock()
	var fresh []*pack
	for _, p := range c.packs {
		if p.fresh {
			p.fresh = false
			fresh = append(fresh, p)
		}
	}
	c.mu.Unlock()
	if len(fresh) == 0 {
		return nil
	}
	for i, p := range fresh {
		p.gate.RLock()
		err := p.file.Sync()
		p.gate.RUnlock()
		if errors.Is(err, fs.ErrClosed) {
			continue // emptied meanwhile: what was in it has been synced elsewhere
		}
		if err != nil {
			c.mu.Lock()
			for _, p := range fresh[i:] {
				p.fresh = true
			}
			c.mu.Unlock()
			return err
		}
	}
	return errors.Join(syncPath(c.dirPath(dirPacks)), syncPath(c.dir))
}

// syncEvery is how long a fetched block may wait until it is durable and
// reported as held. What was made here is synced by whoever made it.
const syncEvery = 250 * time.Millisecond

// How soon what was held is looked at again by Run, doubling while that is in vain.
const (
	againFirst = time.Second
	againMost  = 30 * time.Second
)

// Run keeps some room free ahead of the writers, makes what was fetched durable
// and empties wasteful packs, until ctx ends.
func (c *Cache) Run(ctx context.Context) error {
	tick := time.NewTicker(syncEvery)
	defer tick.Stop()
	wait, next := againFirst, time.Now()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-c.kick:
			c.mu.Lock()
			if c.accounts.recheck.IsZero() { // Reconsider was called
				c.accounts.recheck = time.Now()
				wait, next = againFirst, time.Time{}
			}
			c.mu.Unlock()
		case <-tick.C:
			if err := c.Sync(); err != nil {
				c.warn("sync", "err", err)
			}
			c.compact()
		}
		held := 0
		if now := time.Now(); now.After(next) {
			held, next = 16*maxBatch, now.Add(wait)
		}
		if c.ahead(ctx, held) > 0 {
			wait = againFirst
		} else if held > 0 {
			wait = min(2*wait, againMost)
		}
	}
}

// ahead evicts until the headroom is free, as far as that can be proven, and
// looks again at up to held blocks that could not be before. It returns what it freed.
func (c *Cache) ahead(ctx context.Context, held int) (freed int64) {
	if c.keep || c.prover == nil {
		return 0
	}
	s := sweep{c: c, held: held}
	for ctx.Err() == nil {
		over := c.overhead()
		c.mu.Lock()
		a := &c.accounts
		s.want = a.headroom(over) - a.free(over, forLocal)
		c.mu.Unlock()
		if s.want <= 0 {
			return freed
		}
		n, more, _ := s.step(ctx)
		freed += n
		if !more {
			return freed
		}
	}
	return freed
}
