package cache

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/roamfs/roamfs/sync/block"
)

// Read returns the sealed bytes of block id, which the caller then owns, if it is
// resident, else [ErrMissing]. They are verified: a block that is found damaged is
// reported as gone, put aside, and missing from then on. Read does not count as use
// in the order of eviction; [Cache.Get] does.
func (c *Cache) Read(id block.ID) ([]byte, error) { return c.read(id, false) }

func (c *Cache) read(id block.ID, counts bool) ([]byte, error) {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil, ErrClosed
	}
	h := c.index.Get(id)
	if h == 0 {
		c.mu.Unlock()
		return nil, fmt.Errorf("read block %v: %w", id, ErrMissing)
	}
	e := *c.index.Val(h)
	if counts {
		c.order.Hit(id)
	}
	hd := c.holds[id]
	hd.readers++ // it will not be evicted, but may be moved by compaction
	c.holds[id] = hd
	c.mu.Unlock()
	defer c.readDone(id)

	for {
		data, err := c.load(id, e)
		if err == nil {
			return data, nil
		}
		now, here := c.lookup(id)
		switch {
		case !here: // another reader found it damaged first
			return nil, fmt.Errorf("read block %v: %w", id, ErrMissing)
		case !now.same(e):
			e = now
			continue
		case !isDamage(err):
			return nil, fmt.Errorf("read block %v: %w", id, err)
		}
		c.warn("resident block is damaged", "block", id, "err", err)
		c.putAside(id, e, data)
		return nil, fmt.Errorf("read block %v: %w: %w", id, ErrMissing, err)
	}
}

func (c *Cache) lookup(id block.ID) (entry, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	h := c.index.Get(id)
	if h == 0 {
		return entry{}, false
	}
	return *c.index.Val(h), true
}

func (c *Cache) readDone(id block.ID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	h := c.holds[id]
	h.readers--
	c.setHoldLocked(id, h)
}

// load reads and verifies a block where e says it is. With an error it may return
// the bytes that it found.
func (c *Cache) load(id block.ID, e entry) ([]byte, error) {
	path, off := c.blockPath(id), int64(0)
	if e.pack != 0 {
		path, off = c.packPath(e.pack), int64(e.off)+entryHead
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // it was only read
	data := make([]byte, e.size)
	if n, err := f.ReadAt(data, off); err != nil {
		return data[:n], err
	}
	return data, block.Verify(id, data)
}

// isDamage reports whether an error of load is about the block rather than about
// the moment.
func isDamage(err error) bool {
	return errors.Is(err, block.ErrDamaged) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.EIO)
}

// aside is a damaged block in quarantine.
type aside struct {
	name   string
	charge int64
}

// quarantineShare: the quarantine takes one part in this many of the limit.
const (
	quarantineShare = 64
	quarantineMax   = 16 << 20 // bytes
)

// putAside removes a damaged block from the index, reports it as gone, and only
// then moves what is left of its bytes aside.
func (c *Cache) putAside(id block.ID, e entry, data []byte) {
	c.mu.Lock()
	h := c.index.Get(id)
	if h == 0 || !c.index.Val(h).same(e) {
		c.mu.Unlock()
		return
	}
	e = c.removeLocked(id, false)
	c.busy[id] = make(chan struct{})
	c.notes.add(event{gone: []block.ID{id}})
	c.mu.Unlock()
	c.notes.deliver()
	defer c.unclaim(id)

	if e.pack == 0 {
		c.moveAside(id, int64(e.pages)*pageSize)
	} else {
		c.copyAside(id, data)
		c.bury(e.pack, []entry{e})
	}
	c.trimQuarantine()
}

func (c *Cache) moveAside(id block.ID, charge int64) {
	name := id.String()
	if c.take(dirRoom, forUpkeep) {
		err := c.makeDir(quarantineDir)
		if err == nil {
			err = os.Rename(c.blockPath(id), filepath.Join(c.dirPath(quarantineDir), name))
		}
		c.measureDir(quarantineDir)
		c.settle(dirRoom, 0)
		if err == nil {
			c.addAside(aside{name, charge})
			return
		}
	}
	if err := c.removeFile(c.blockPath(id)); err != nil {
		c.warn("damaged block cannot be removed", "block", id, "err", err)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.freedLocked(charge)
}

func (c *Cache) copyAside(id block.ID, data []byte) {
	room := roundUp(int64(len(data))) + dirRoom
	if len(data) == 0 || !c.take(room, forFetched) {
		return
	}
	name := id.String()
	err := c.makeDir(quarantineDir)
	var charge int64
	if err == nil {
		// Beside what may be there from an earlier time, which is then replaced.
		tmp := filepath.Join(c.dirPath(quarantineDir), "."+name)
		if charge, err = writeWhole(tmp, data, false); err == nil {
			err = os.Rename(tmp, filepath.Join(c.dirPath(quarantineDir), name))
		}
		if err != nil {
			charge = 0
			err = errors.Join(err, c.removeFile(tmp))
		}
	}
	c.measureDir(quarantineDir)
	c.settle(room, charge)
	if err != nil {
		c.warn("damaged block is not kept aside", "block", id, "err", err)
		return
	}
	c.addAside(aside{name, charge})
}

func (c *Cache) addAside(a aside) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, old := range c.damaged {
		if old.name == a.name { // the rename has replaced it
			c.freedLocked(old.charge)
			c.damaged = append(c.damaged[:i], c.damaged[i+1:]...)
			break
		}
	}
	c.damaged = append(c.damaged, a)
}

// trimQuarantine removes the oldest until the rest is within its share.
func (c *Cache) trimQuarantine() {
	c.mu.Lock()
	most := int64(quarantineMax)
	if l := c.accounts.limit; l > 0 {
		most = min(most, l/quarantineShare)
	}
	c.mu.Unlock()
	c.cutQuarantine(most)
}

// dropQuarantine makes room: damaged blocks go before any that is good.
func (c *Cache) dropQuarantine() { c.cutQuarantine(0) }

func (c *Cache) cutQuarantine(most int64) {
	for {
		c.mu.Lock()
		var sum int64
		for _, a := range c.damaged {
			sum += a.charge
		}
		if sum <= most || len(c.damaged) == 0 {
			c.mu.Unlock()
			return
		}
		a := c.damaged[0]
		c.damaged = c.damaged[1:]
		c.mu.Unlock()
		if err := c.removeFile(filepath.Join(c.dirPath(quarantineDir), a.name)); err != nil {
			c.warn("damaged block cannot be removed", "block", a.name, "err", err)
			continue
		}
		c.mu.Lock()
		c.freedLocked(a.charge)
		c.mu.Unlock()
	}
}
