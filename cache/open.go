package cache

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/roamfs/roamfs/cache/evict"
	"github.com/roamfs/roamfs/sync/block"
)

const (
	stateName  = "state"
	orderName  = "order"
	stateTitle = "roamfs blocks 1"
)

// Open opens the block directory dir, which is made if it is missing. What a
// killed process left unfinished is removed. The caller holds the lock of the
// state directory.
func Open(dir string, o Options) (*Cache, error) {
	c := &Cache{
		dir: dir, keep: o.Keep, fetcher: o.Fetcher, verified: o.Verified, prover: o.Prover, overhead: o.Overhead, log: o.Log,
		notes: notifier{changed: o.Changed},
		kick:  make(chan struct{}, 1), lane: make(chan struct{}, 1), sweeping: make(chan struct{}, 1),
		order: evict.New(), holds: map[block.ID]hold{}, busy: map[block.ID]chan struct{}{},
		fills: map[block.ID]*fill{}, packs: map[uint32]*pack{},
	}
	if c.overhead == nil {
		c.overhead = func() int64 { return 0 }
	}
	if o.Limit < 0 {
		return nil, fmt.Errorf("open blocks: limit of %d bytes", o.Limit)
	}
	c.accounts = accounts{limit: o.Limit, files: map[string]int64{}, changed: make(chan struct{})}
	c.tail.next = 1
	c.ctx, c.stop = context.WithCancel(context.Background())
	if err := c.load(); err != nil {
		c.stop()
		return nil, errors.Join(fmt.Errorf("open blocks %s: %w", dir, err), c.closePacks())
	}
	return c, nil
}

// load reads the directory.
func (c *Cache) load() error {
	if err := os.MkdirAll(c.dir, 0o700); err != nil {
		return err
	}
	since, clean, err := c.loadState()
	if err != nil {
		return err
	}
	if !clean {
		// What a killed process had not synced must not pass for durable. First, since
		// blocks for extents are allocated only now.
		if err := c.syncAll(); err != nil {
			return err
		}
	}
	top, err := os.ReadDir(c.dir)
	if err != nil {
		return err
	}
	c.chargeDir(dirTop)
	for _, e := range top {
		switch n, isBlocks := fanout(e.Name()); {
		case e.IsDir() && isBlocks:
			err = c.loadDir(n, e.Name(), since)
		case e.IsDir() && e.Name() == "packs":
			err = c.loadPacks(since)
		case e.IsDir() && e.Name() == "quarantine":
			err = c.loadQuarantine()
		case !e.IsDir() && strings.HasPrefix(e.Name(), "."):
			err = remove(filepath.Join(c.dir, e.Name()))
		default:
			err = c.chargeOther(e)
		}
		if err != nil {
			return err
		}
	}
	if b, err := os.ReadFile(filepath.Join(c.dir, orderName)); err == nil {
		if err := c.order.Restore(b); err != nil {
			c.warn("order of eviction not restored", "err", err)
		}
	}
	if err := c.writeState("open"); !errors.Is(err, block.ErrNoRoom) {
		return err
	}
	// More is here than the limit allows. Without a state file, the next start
	// verifies everything.
	if err := remove(filepath.Join(c.dir, stateName)); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.freedLocked(c.accounts.files[stateName])
	delete(c.accounts.files, stateName)
	return nil
}

func fanout(name string) (int, bool) {
	b, err := hex.DecodeString(name)
	if err != nil || len(b) != 1 || strings.ToLower(name) != name {
		return 0, false
	}
	return int(b[0]), true
}

// chargeOther counts what is not ours.
func (c *Cache) chargeOther(e fs.DirEntry) error {
	return filepath.WalkDir(filepath.Join(c.dir, e.Name()), func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		n, err := allocated(path)
		if err != nil {
			return err
		}
		c.accounts.used += n
		rel := strings.TrimPrefix(path, c.dir+string(os.PathSeparator))
		c.accounts.files[rel] = n
		return nil
	})
}

// loadState reads the state file. Files modified after since have to be verified,
// because the machine may have gone down since the last sync; forever in the future
// means that none need be. Clean is whether the last session made everything durable.
func (c *Cache) loadState() (since time.Time, clean bool, err error) {
	path := filepath.Join(c.dir, stateName)
	far := time.Unix(1<<40, 0)
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(b) == 0 {
		return time.Time{}, false, nil // new, or lost with the power
	}
	if err != nil {
		return far, false, err
	}
	lines := strings.Split(string(b), "\n")
	if lines[0] != stateTitle {
		return far, false, fmt.Errorf("%w: %q", ErrVersion, lines[0])
	}
	clean = len(lines) >= 3 && lines[2] == "clean"
	if clean || len(lines) >= 3 && lines[1] == "boot "+bootID() {
		return far, clean, nil
	}
	info, err := os.Stat(path)
	if err != nil {
		return far, false, err
	}
	return info.ModTime().Add(-2 * time.Second), false, nil
}

func (c *Cache) writeState(how string) error {
	return c.writeSmall(stateName, []byte(stateTitle+"\nboot "+bootID()+"\n"+how+"\n"))
}

// loadDir takes in the block files of one directory.
func (c *Cache) loadDir(n int, name string, since time.Time) error {
	dir := filepath.Join(c.dir, name)
	list, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	c.chargeDir(n)
	for _, e := range list {
		path := filepath.Join(dir, e.Name())
		id, ok := blockOfFile(name, e.Name())
		if !ok || !e.Type().IsRegular() {
			if strings.HasPrefix(e.Name(), ".") && e.Type().IsRegular() {
				if err := remove(path); err != nil {
					return err
				}
				continue
			}
			size, err := allocated(path)
			if err != nil {
				return err
			}
			c.accounts.used += size
			continue
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		size := info.Size()
		if size == 0 || size > block.MaxSealed || (info.ModTime().After(since) && !verifies(path, id)) {
			c.warn("incomplete block removed", "block", id, "bytes", size)
			if err := remove(path); err != nil {
				return err
			}
			continue
		}
		charge := roundUp(size)
		if n, err := allocated(path); err == nil {
			charge = max(charge, roundUp(n))
		}
		c.accounts.used += charge
		c.insertLocked(id, entry{size: uint32(size), pages: uint16(charge / pageSize), flags: durable}, false)
	}
	return nil
}

func verifies(path string, id block.ID) bool {
	b, err := os.ReadFile(path)
	return err == nil && block.Verify(id, b) == nil
}

// loadPacks takes in the blocks of all packs.
func (c *Cache) loadPacks(since time.Time) error {
	list, err := os.ReadDir(c.dirPath(dirPacks))
	if err != nil {
		return err
	}
	c.chargeDir(dirPacks)
	for _, e := range list { // in the order of their numbers: the later of two copies counts
		num, err := strconv.ParseUint(e.Name(), 16, 32)
		if err != nil || num == 0 || len(e.Name()) != 8 {
			if err := c.chargeOther(renamed{e, filepath.Join("packs", e.Name())}); err != nil {
				return err
			}
			continue
		}
		c.tail.next = max(c.tail.next, uint32(num)+1)
		if err := c.loadPack(uint32(num), since); err != nil {
			return err
		}
	}
	if p := c.packs[c.tail.next-1]; p != nil && !p.damaged { // go on with the newest
		c.tail.pack = p
	}
	return nil
}

// renamed is a directory entry under a longer name.
type renamed struct {
	fs.DirEntry
	name string
}

func (r renamed) Name() string { return r.name }

func (c *Cache) loadPack(num uint32, since time.Time) error {
	p, size, err := c.openPack(num)
	if errors.Is(err, fs.ErrInvalid) {
		// It ends before the first entry.
		return remove(c.packPath(num))
	}
	if err != nil {
		return err
	}
	info, err := p.file.Stat()
	if err != nil {
		return errors.Join(err, p.file.Close())
	}
	verify := info.ModTime().After(since) || p.damaged
	if p.damaged {
		found := false
		p.scan(size, true, func(_ int64, h header) { found = found || !h.removed })
		if !found { // of a later version, or nothing that can be read: not ours to remove
			c.warn("unknown pack left alone", "pack", num)
			n, err := allocated(c.packPath(num))
			c.accounts.used += n
			return errors.Join(err, p.file.Close())
		}
		c.warn("pack with a damaged header", "pack", num)
	}
	c.packs[num] = p
	p.live = packHeader
	p.end = p.scan(size, verify, func(off int64, h header) {
		if h.removed {
			return
		}
		if at := c.index.Get(h.id); at != 0 { // an older copy
			old := c.removeLocked(h.id, false)
			if q := c.packs[old.pack]; q != nil {
				q.live -= entrySize(int64(old.size))
			}
		}
		p.live += entrySize(h.size)
		c.insertLocked(h.id, entry{pack: num, off: uint32(off), size: uint32(h.size), flags: durable}, false)
	})
	if p.end < size {
		if err := p.file.Truncate(p.end); err != nil {
			return err
		}
	}
	if p.charge, err = allocated(c.packPath(num)); err != nil {
		return err
	}
	p.charge = max(p.charge, min(roundUp(p.end), pageSize))
	c.accounts.used += p.charge
	return nil
}

func (c *Cache) loadQuarantine() error {
	list, err := os.ReadDir(c.dirPath(dirQuarantine))
	if err != nil {
		return err
	}
	c.chargeDir(dirQuarantine)
	for _, e := range list {
		path := filepath.Join(c.dirPath(dirQuarantine), e.Name())
		n, err := allocated(path)
		if err != nil {
			return err
		}
		c.accounts.used += n
		c.damaged = append(c.damaged, aside{path, n})
	}
	return nil
}

// Close ends fetches, makes everything durable and closes the files.
func (c *Cache) Close() error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil
	}
	c.closed = true // nothing is put any more
	c.mu.Unlock()
	c.stop()
	c.fillers.Wait()
	err := c.Sync()
	if e := c.writeSmall(orderName, c.snapshot()); e != nil && !errors.Is(e, block.ErrNoRoom) {
		err = errors.Join(err, e)
	}
	if err == nil {
		if err = c.writeState("clean"); errors.Is(err, block.ErrNoRoom) {
			err = nil // then the next start takes it for not clean, which is safe
		}
	}
	return errors.Join(err, c.closePacks())
}

func (c *Cache) snapshot() []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.order.Snapshot(nil)
}

func (c *Cache) closePacks() error {
	var all error
	for _, p := range c.packs {
		p.gate.Lock()
		all = errors.Join(all, p.file.Close())
		p.gate.Unlock()
	}
	return all
}
