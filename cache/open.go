package cache

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/roamfs/roamfs/cache/evict"
	"github.com/roamfs/roamfs/sync/block"
)

// Open opens the cache in dir, which is made if it is not there (its parent
// must be). It locks nothing: the caller makes sure that only one process has
// the directory open. What an earlier process left unfinished is removed, and
// what is in use is computed from the directory. If that is more than the limit, Open
// succeeds, and nothing can be put until enough was evicted.
//
// End the cache with [Cache.Close].
func Open(dir string, o Options) (*Cache, error) {
	if o.Limit < 0 {
		return nil, fmt.Errorf("open blocks: limit of %d bytes", o.Limit)
	}
	c := &Cache{
		dir: filepath.Clean(dir), keep: o.Keep, fetcher: o.Fetcher, prover: o.Prover, overhead: o.Overhead, log: o.Log,
		notes: notifier{changed: o.Changed},
		kick:  make(chan struct{}, 1), lane: make(chan struct{}, 1), sweeping: make(chan struct{}, 1),
		order: evict.New(), holds: map[block.ID]hold{}, busy: map[block.ID]chan struct{}{},
		fills: map[block.ID]*fill{}, packs: map[uint32]*pack{},
		accounts: accounts{limit: o.Limit, files: map[string]int64{}, changed: make(chan struct{})},
		unsynced: unsynced{packs: map[uint32]bool{}, lost: map[block.ID]time.Time{}},
	}
	if c.overhead == nil {
		c.overhead = func() int64 { return 0 }
	}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	c.tail.next = 1
	c.ctx, c.stop = context.WithCancel(context.Background())
	if err := c.recover(); err != nil {
		c.stop()
		return nil, fmt.Errorf("open blocks: %w", err)
	}
	return c, nil
}

// Close makes everything durable, saves the order of eviction and ends the cache. Fetches under way
// are cancelled and waited for; whoever waits for them gets an error. The caller
// ends Run, or Close does, and must not use the cache afterwards.
func (c *Cache) Close() error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return ErrClosed
	}
	c.mu.Unlock()
	c.stop()
	c.mu.Lock()
	c.closed = true // no fill begins any more
	c.mu.Unlock()
	c.fillers.Wait()
	err := c.sync()
	if e := c.saveOrder(); e != nil && !errors.Is(e, block.ErrNoRoom) {
		err = errors.Join(err, e)
	}
	c.tail.Lock()
	if c.tail.file != nil {
		err = errors.Join(err, c.tail.file.Close())
	}
	c.tail.pack, c.tail.file = nil, nil
	c.tail.Unlock()
	if err == nil {
		err = c.writeState("clean")
	}
	if err != nil {
		return fmt.Errorf("close blocks: %w", err)
	}
	return nil
}

// session is what the state file says about the last one.
type session struct {
	found    bool
	clean    bool
	sameBoot bool
	synced   time.Time // the last Sync
}

const stateHead = "roamfs blocks 1"

// bootID identifies this start of the machine; it is empty where nobody knows.
func bootID() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

func (c *Cache) writeState(how string) error {
	return c.writeSmall(stateName, fmt.Appendf(nil, "%s\nboot %s\n%s\n", stateHead, bootID(), how))
}

func (c *Cache) readState() (s session, err error) {
	path := filepath.Join(c.dir, stateName)
	fi, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return s, err
	}
	if fi.Size() > pageSize {
		return s, fmt.Errorf("%s: %w", path, ErrVersion)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return s, err
	}
	lines := strings.Split(string(b), "\n")
	if lines[0] != stateHead {
		if len(b) == 0 {
			return s, nil // lost with the power: as if it were not there
		}
		return s, fmt.Errorf("%s: %w", path, ErrVersion)
	}
	boot := bootID()
	s = session{found: true, synced: fi.ModTime()}
	s.sameBoot = len(lines) > 1 && boot != "" && lines[1] == "boot "+boot
	s.clean = len(lines) > 2 && lines[2] == "clean"
	return s, nil
}

// doubt is how long before the last Sync something may seem to have been written
// that it did not see: clocks of file systems are coarse.
const doubt = 2 * time.Second

// fresh reports whether something modified at t may not be durable.
func (s *session) fresh(t time.Time) bool { return !s.clean && !t.Before(s.synced.Add(-doubt)) }

// suspect reports whether something modified at t may not be what was written.
func (s *session) suspect(t time.Time) bool { return !s.sameBoot && s.fresh(t) }

// recover brings the index and the accounts to what the directory holds.
func (c *Cache) recover() error {
	if err := os.Mkdir(c.dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	s, err := c.readState()
	if err != nil {
		return err
	}
	names, err := os.ReadDir(c.dir)
	if err != nil {
		return err
	}
	c.measureDir(rootDir)
	var fans []int
	for _, de := range names {
		path := filepath.Join(c.dir, de.Name())
		switch name := de.Name(); {
		case name == "."+stateName || name == "."+orderName:
			err = c.removeFile(path)
		case name == stateName || name == orderName:
			c.accounts.files[name] = diskUsage(path)
			c.accounts.used += c.accounts.files[name]
		case name == "packs" && de.IsDir():
			c.measureDir(packsDir)
		case name == "quarantine" && de.IsDir():
			c.measureDir(quarantineDir)
			err = c.recoverQuarantine()
		case fanOf(name) >= 0 && de.IsDir():
			fans = append(fans, fanOf(name))
		default:
			c.accounts.used += diskUsage(path) // not ours: counted and left alone
		}
		if err != nil {
			return err
		}
	}
	if err := c.recoverFans(fans, &s); err != nil {
		return err
	}
	if c.accounts.dirs[packsDir] != 0 {
		if err := c.recoverPacks(&s); err != nil {
			return err
		}
	}
	if err := c.restoreOrder(); err != nil {
		c.warn("order of eviction is lost", "err", err)
	}
	err = c.writeState("open")
	if errors.Is(err, block.ErrNoRoom) || isFull(err) {
		// Over the limit, or the disk is full. Without the state file everything counts
		// as suspect at the next start, which is safe.
		err = c.forgetState()
	}
	return err
}

func (c *Cache) forgetState() error {
	if err := c.removeFile(filepath.Join(c.dir, stateName)); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.freedLocked(c.accounts.files[stateName])
	delete(c.accounts.files, stateName)
	return nil
}

// fanOf returns the number of the block directory with that name, or -1.
func fanOf(name string) int {
	if b, err := hex.DecodeString(name); err == nil && len(b) == 1 && hex.EncodeToString(b) == name {
		return int(b[0])
	}
	return -1
}

// diskUsage returns what path takes with everything below it.
func diskUsage(path string) (sum int64) {
	_ = filepath.WalkDir(path, func(_ string, de fs.DirEntry, err error) error {
		if err != nil {
			return nil // what cannot be seen cannot be counted
		}
		if fi, err := de.Info(); err == nil {
			sum += allocated(fi)
		}
		return nil
	})
	return sum
}

func (c *Cache) recoverQuarantine() error {
	dir := c.dirPath(quarantineDir)
	names, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, de := range names {
		if strings.HasPrefix(de.Name(), ".") {
			if err := c.removeFile(filepath.Join(dir, de.Name())); err != nil {
				return err
			}
			continue
		}
		a := aside{de.Name(), diskUsage(filepath.Join(dir, de.Name()))}
		c.accounts.used += a.charge
		c.damaged = append(c.damaged, a)
	}
	return nil
}

// recoverFans reads the block directories, several at a time.
func (c *Cache) recoverFans(fans []int, s *session) error {
	const readers = 4
	work := make(chan int)
	errs := make([]error, readers)
	var wg sync.WaitGroup
	for i := range readers {
		wg.Go(func() {
			for d := range work {
				errs[i] = errors.Join(errs[i], c.recoverFan(d, s))
			}
		})
	}
	for _, d := range fans {
		work <- d
	}
	close(work)
	wg.Wait()
	return errors.Join(errs...)
}

func (c *Cache) recoverFan(d int, s *session) error {
	dir := c.dirPath(d)
	names, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	c.measureDir(d)
	for _, de := range names {
		path := filepath.Join(dir, de.Name())
		if strings.HasPrefix(de.Name(), ".") && de.Type().IsRegular() {
			if err := c.removeFile(path); err != nil {
				return err
			}
			continue
		}
		fi, err := os.Lstat(path)
		if err != nil {
			return err
		}
		id, err := block.ParseID(filepath.Base(dir) + de.Name())
		if err != nil || !fi.Mode().IsRegular() {
			n := diskUsage(path)
			c.mu.Lock()
			c.accounts.used += n
			c.mu.Unlock()
			continue
		}
		if err := c.recoverFile(id, path, fi, s); err != nil {
			return err
		}
	}
	return nil
}

func (c *Cache) recoverFile(id block.ID, path string, fi fs.FileInfo, s *session) error {
	e := entry{size: uint32(fi.Size()), flags: durable}
	good := fi.Size() > 0 && fi.Size() <= block.MaxSealed
	if good && s.suspect(fi.ModTime()) {
		_, err := c.load(id, e)
		if err != nil && !isDamage(err) {
			return err
		}
		good = err == nil
	}
	if !good {
		c.warn("incomplete block is removed", "block", id)
		return c.removeFile(path)
	}
	charge := max(roundUp(fi.Size()), roundUp(allocated(fi)))
	e.pages = uint16(charge / pageSize)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.accounts.used += charge
	if s.fresh(fi.ModTime()) {
		e.flags &^= durable
		c.unsynced.putLocked(id, e)
	}
	c.insertLocked(id, e, false)
	return nil
}

func (c *Cache) recoverPacks(s *session) error {
	dir := c.dirPath(packsDir)
	names, err := os.ReadDir(dir) // sorted, so the later pack wins below
	if err != nil {
		return err
	}
	var last *pack
	for _, de := range names {
		path := filepath.Join(dir, de.Name())
		n, err := strconv.ParseUint(de.Name(), 16, 32)
		if err != nil || n == 0 || c.packPath(uint32(n)) != path || !de.Type().IsRegular() {
			c.accounts.used += diskUsage(path)
			continue
		}
		p, err := c.recoverPack(uint32(n), path, s)
		if err != nil {
			return err
		}
		c.tail.next = uint32(n) + 1
		if p != nil {
			last = p
		}
	}
	for _, p := range c.packs {
		p.sealed = p != last
	}
	for _, p := range c.packs {
		if p.sealed && p.entries == 0 {
			delete(c.packs, p.n)
			c.removePack(p)
		}
	}
	if last != nil {
		f, err := os.OpenFile(c.packPath(last.n), os.O_RDWR, 0)
		if err != nil {
			return err
		}
		c.tail.pack, c.tail.file = last, f
	}
	for _, p := range c.packs {
		c.reclaim(p)
	}
	return nil
}

// recoverPack reads one pack. It returns nil if it was none.
func (c *Cache) recoverPack(n uint32, path string, s *session) (*pack, error) {
	fi, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	if fi.Size() > maxPack {
		return nil, fmt.Errorf("%s has %d bytes: %w", path, fi.Size(), ErrVersion)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	nonce, ok := parsePackHead(b)
	if !ok {
		if len(b) > len(packMagic) && string(b[:len(packMagic)]) == packMagic && b[len(packMagic)] > packVersion {
			return nil, fmt.Errorf("%s: %w", path, ErrVersion)
		}
		// The machine went down when it was begun, or its first page is damaged: then its
		// blocks cannot be told from anything else.
		c.warn("damaged pack is removed", "pack", n, "bytes", len(b))
		return nil, c.removeFile(path)
	}
	entries, end := scanPack(b, &nonce, s.suspect(fi.ModTime()))
	if end < fi.Size() {
		if err := os.Truncate(path, end); err != nil {
			return nil, err
		}
		if fi, err = os.Lstat(path); err != nil {
			return nil, err
		}
	}
	p := &pack{n: n, nonce: nonce, size: end, pages: make([]uint8, roundUp(end)/pageSize)}
	p.pages[0] = 1 // for the header
	p.charge = max(allocated(fi), p.wholeLocked())
	c.packs[n] = p
	c.accounts.used += p.charge
	flags := uint16(durable)
	if s.fresh(fi.ModTime()) {
		flags = 0
		c.unsynced.packs[n] = true
		c.unsynced.dirs[packsDir] = true
	}
	for _, f := range entries {
		if f.dead {
			continue
		}
		e := entry{pack: n, off: uint32(f.off), size: uint32(f.size), flags: flags}
		if h := c.index.Get(f.id); h != 0 {
			// Compaction was interrupted: the later copy counts.
			old := c.removeLocked(f.id, false)
			if q := c.packs[old.pack]; q != nil {
				q.dropLocked(int64(old.off), entrySize(int64(old.size)))
			}
			e.flags |= old.flags & durable
		}
		p.addLocked(f.off, entrySize(f.size))
		c.insertLocked(f.id, e, false)
		if e.flags&durable == 0 {
			c.unsynced.putLocked(f.id, e)
		}
	}
	return p, nil
}

// maxPack is more than any pack that this version writes.
const maxPack = 64 << 20

// reclaim punches out what could have been, and was not when the process ended.
func (c *Cache) reclaim(p *pack) {
	p.tidy.Lock()
	defer p.tidy.Unlock()
	c.mu.Lock()
	spans := p.emptyLocked(0, int64(len(p.pages)))
	c.mu.Unlock()
	if len(spans) == 0 {
		return
	}
	if err := c.clear(p, nil, spans); err != nil {
		c.warn("free pages of pack cannot be given back", "pack", p.n, "err", err)
	}
}

func (c *Cache) saveOrder() error {
	c.mu.Lock()
	b := c.order.Snapshot(nil)
	c.mu.Unlock()
	return c.writeSmall(orderName, b)
}

func (c *Cache) restoreOrder() error {
	b, err := os.ReadFile(filepath.Join(c.dir, orderName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return c.order.Restore(slices.Clip(b))
}
