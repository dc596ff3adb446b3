package cache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"

	"github.com/roamfs/roamfs/sync/block"
)

// Put stores a sealed block, which it verifies and does not keep. It is there or
// not, also after a crash; it is durable after the next [Cache.Sync]. A block
// that is resident already is left as it is. If no room can be made the error
// is a [block.ErrNoRoom].
func (c *Cache) Put(ctx context.Context, id block.ID, sealed []byte, o Origin) error {
	if len(sealed) == 0 || len(sealed) > block.MaxSealed {
		return fmt.Errorf("put block %v: %d bytes: %w", id, len(sealed), block.ErrDamaged)
	}
	if err := block.Verify(id, sealed); err != nil {
		return fmt.Errorf("put block: %w", err)
	}
	cl, flags := forLocal, uint16(onlyHere)
	if o == Fetched {
		cl, flags = forFetched, 0
	}
	return c.put(ctx, id, sealed, cl, flags, false)
}

// put stores a block that was verified.
func (c *Cache) put(ctx context.Context, id block.ID, sealed []byte, cl class, flags uint16, spec bool) error {
	resident, err := c.claim(ctx, id)
	if err != nil || resident {
		return err
	}
	defer c.unclaim(id)
	size := int64(len(sealed))
	small := size < PackBelow
	room := roundUp(size) + dirRoom
	if small {
		room = packRoom(size)
	}
	if err := c.reserve(ctx, room, cl); err != nil {
		return fmt.Errorf("put block %v: %w", id, err)
	}
	e := entry{size: uint32(size), pages: uint16(roundUp(size) / pageSize)}
	used := roundUp(size)
	if small {
		e, used, err = c.appendPack(id, sealed)
	} else {
		err = c.writeFile(id, sealed)
	}
	if err != nil {
		c.settle(room, 0)
		if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
			// Others have filled the disk below the limit.
			err = fmt.Errorf("%w: %w", block.ErrNoRoom, err)
		}
		return fmt.Errorf("put block %v: %w", id, err)
	}
	e.flags = flags | fresh
	c.mu.Lock()
	defer c.mu.Unlock()
	c.settleLocked(room, used)
	c.insertLocked(id, e, spec)
	c.unsynced.add(id, small)
	return nil
}

// Read returns the sealed bytes of a resident block, verified; the caller owns
// them. Without it, or if it is damaged, the error is [ErrMissing]: a damaged
// block is set aside and counts as gone.
func (c *Cache) Read(id block.ID) ([]byte, error) { return c.read(id, false) }

// read is Read; use says whether it counts for the order of eviction.
func (c *Cache) read(id block.ID, use bool) ([]byte, error) {
	e, p, ok := c.hold(id, use)
	if !ok {
		return nil, fmt.Errorf("block %v: %w", id, ErrMissing)
	}
	sealed, err := c.readEntry(id, e, p)
	c.unhold(id)
	if err == nil {
		return sealed, nil
	}
	if !isDamage(err) {
		// Nothing says that the block is bad, only that it cannot be read now.
		return nil, fmt.Errorf("read block %v: %w", id, err)
	}
	c.setAside(id, e, err)
	return nil, fmt.Errorf("block %v: %w", id, ErrMissing)
}

// isDamage reports whether an error is about the block rather than the moment,
// such as that of a process that has run out of files.
func isDamage(err error) bool {
	return errors.Is(err, block.ErrDamaged) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, io.EOF) ||
		errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.EIO)
}

// hold finds a block and keeps it from being removed until unhold.
func (c *Cache) hold(id block.ID, use bool) (e entry, p *pack, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	at := c.index.Get(id)
	if at == 0 || c.closed {
		return e, nil, false
	}
	e = *c.index.Val(at)
	h := c.holds[id]
	h.readers++
	c.holds[id] = h
	if use {
		c.order.Hit(id)
	}
	if e.pack != 0 {
		p = c.packs[e.pack]
	}
	return e, p, true
}

func (c *Cache) unhold(id block.ID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	h := c.holds[id]
	h.readers--
	c.setHoldLocked(id, h)
}

// readEntry reads and verifies the bytes of a block. One in a pack may have moved since it
// was looked up; then it is looked up again.
func (c *Cache) readEntry(id block.ID, e entry, p *pack) ([]byte, error) {
	for e.pack != 0 {
		if p == nil {
			return nil, fmt.Errorf("pack %d: %w", e.pack, fs.ErrNotExist)
		}
		sealed, err := p.read(e)
		if err == nil {
			err = block.Verify(id, sealed)
		}
		if err == nil {
			return sealed, nil
		}
		c.mu.Lock()
		now := entry{}
		if at := c.index.Get(id); at != 0 {
			now = *c.index.Val(at)
		}
		next := c.packs[now.pack]
		c.mu.Unlock()
		if now.same(e) || next == nil {
			return nil, err
		}
		e, p = now, next
	}
	sealed, err := os.ReadFile(c.filePath(id))
	if err == nil {
		err = block.Verify(id, sealed)
	}
	if err != nil {
		return nil, err
	}
	return sealed, nil
}

// setAside takes a block that cannot be read out of the index.
func (c *Cache) setAside(id block.ID, e entry, why error) {
	resident := func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		at := c.index.Get(id)
		if at == 0 || !c.index.Val(at).same(e) {
			return false
		}
		if _, busy := c.busy[id]; busy {
			return false
		}
		c.busy[id] = make(chan struct{})
		return true
	}()
	if !resident {
		return
	}
	defer c.unclaim(id)
	c.unfit(id, e, why)
}

// unfit removes a claimed block that is damaged: it is reported as gone first,
// and a file of its own is kept in quarantine for a while.
func (c *Cache) unfit(id block.ID, e entry, why error) {
	c.warn("damaged block set aside", "block", id, "err", why)
	c.mu.Lock()
	e = c.removeLocked(id, false)
	c.notes.add(event{gone: []block.ID{id}})
	p := c.packs[e.pack]
	c.mu.Unlock()
	c.notes.deliver()
	if e.pack != 0 {
		if p != nil {
			if err := c.dropEntry(p, e); err != nil {
				c.warn("remove damaged block", "block", id, "err", err)
			}
		}
		return
	}
	c.quarantine(id, e)
}

// aside is a damaged block in quarantine.
type aside struct {
	path   string
	charge int64
}

// mostAside is how many damaged blocks are kept.
const mostAside = 64

func (c *Cache) quarantine(id block.ID, e entry) {
	err := c.makeDir(dirQuarantine)
	to := c.dirPath(dirQuarantine) + string(os.PathSeparator) + id.String()
	if err == nil {
		err = os.Rename(c.filePath(id), to)
	}
	if err != nil {
		if err := remove(c.filePath(id)); err != nil {
			c.warn("remove damaged block", "block", id, "err", err)
			return
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.freedLocked(int64(e.pages) * pageSize)
		return
	}
	c.chargeDir(dirQuarantine)
	c.mu.Lock()
	c.damaged = append(c.damaged, aside{to, int64(e.pages) * pageSize})
	over := len(c.damaged) - mostAside
	c.mu.Unlock()
	if over > 0 {
		c.emptyQuarantine(over)
	}
}

// dropQuarantine gives back the room of all damaged blocks.
func (c *Cache) dropQuarantine() { c.emptyQuarantine(mostAside + 1) }

// emptyQuarantine removes the n oldest damaged blocks.
func (c *Cache) emptyQuarantine(n int) {
	c.mu.Lock()
	n = min(n, len(c.damaged))
	old := c.damaged[:n]
	c.damaged = c.damaged[n:]
	c.mu.Unlock()
	for _, a := range old {
		if err := remove(a.path); err != nil {
			c.warn("empty quarantine", "err", err)
			continue
		}
		c.mu.Lock()
		c.freedLocked(a.charge)
		c.mu.Unlock()
	}
}
