package cache

import (
	"cmp"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/roamfs/roamfs/cache/internal/idmap"
	"github.com/roamfs/roamfs/sync/block"
)

const (
	packHeader  = 32
	entryHeader = 48
	packMagic   = "roamPACK"
	entryMagic  = "rEnt"
	packVersion = 1

	stateThere   = 0x4C
	stateRemoved = 0xB3
)

// castagnoli is the table of CRC-32C.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// entrySize is what a block of size sealed bytes takes up in a pack.
func entrySize(size int64) int64 { return entryHeader + (size+15)&^15 }

// pack is one pack file. num and nonce are constant; gate is held for reading
// while the file is used and for writing while it is closed; the rest is
// guarded by Cache.mu.
type pack struct {
	num   uint32
	nonce [16]byte
	file  *os.File
	gate  sync.RWMutex
	tidy  sync.Mutex // see the package comment

	end     int64 // where the next entry begins
	live    int64 // bytes of the header and of the entries that are in the index
	charge  int64 // allocated bytes
	fresh   bool  // has entries that are not synced
	damaged bool  // its header is: nothing is appended, and each entry was verified

	gone bool // being emptied: nothing is appended, and nobody else empties it
}

// tail is the pack that is appended to.
type tail struct {
	sync.Mutex       // held while an entry is appended
	pack       *pack // nil: the next entry begins a new one
	next       uint32
}

func (c *Cache) packPath(num uint32) string {
	return filepath.Join(c.dir, "packs", fmt.Sprintf("%08x", num))
}

// packRoom is the room that has to be reserved to append a block.
func packRoom(size int64) int64 { return roundUp(entrySize(size)+packHeader) + pageSize + dirRoom }

// appendPack puts a block at the end of the newest pack. Room for packRoom is
// reserved, of which used is what it took.
func (c *Cache) appendPack(id block.ID, sealed []byte) (e entry, used int64, err error) {
	c.tail.Lock()
	defer c.tail.Unlock()
	need := entrySize(int64(len(sealed)))
	c.mu.Lock()
	segment := c.accounts.segment()
	if p := c.tail.pack; p != nil && (p.gone || (p.end+need > segment && p.end > packHeader)) {
		c.tail.pack = nil
	}
	c.mu.Unlock()
	if c.tail.pack == nil {
		if err := c.beginPack(); err != nil {
			return e, 0, err
		}
	}
	p := c.tail.pack
	p.tidy.Lock() // nobody measures the file while it grows
	defer p.tidy.Unlock()
	c.mu.Lock()
	off := p.end
	c.mu.Unlock()
	buf := make([]byte, need)
	putEntryHeader(buf, p.nonce, id, len(sealed))
	copy(buf[entryHeader:], sealed)
	if _, err := p.file.WriteAt(buf, off); err != nil {
		return e, 0, errors.Join(fmt.Errorf("append to pack: %w", err), p.file.Truncate(off))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	p.end = off + need
	p.live += need
	p.fresh = true
	used = roundUp(p.end) - roundUp(off)
	if off == packHeader { // the header was written before anything was charged
		used = roundUp(p.end)
	}
	p.charge += used
	return entry{pack: p.num, off: uint32(off), size: uint32(len(sealed))}, used, nil
}

// beginPack makes a new pack the tail, which is locked.
func (c *Cache) beginPack() error {
	if err := c.makeDir(dirPacks); err != nil {
		return fmt.Errorf("new pack: %w", err)
	}
	p := &pack{num: c.tail.next, end: packHeader, live: packHeader}
	if _, err := rand.Read(p.nonce[:]); err != nil {
		return fmt.Errorf("new pack: %w", err)
	}
	f, err := os.OpenFile(c.packPath(p.num), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("new pack: %w", err)
	}
	head := append([]byte(packMagic), packVersion, 0, 0, 0, 0, 0, 0, 0)
	if _, err := f.Write(append(head, p.nonce[:]...)); err != nil {
		return errors.Join(fmt.Errorf("new pack: %w", err), f.Close(), remove(c.packPath(p.num)))
	}
	p.file = f
	c.tail.next++
	c.tail.pack = p
	c.mu.Lock()
	c.packs[p.num] = p
	c.mu.Unlock()
	c.chargeDir(dirPacks)
	return nil
}

func putEntryHeader(b []byte, nonce [16]byte, id block.ID, size int) {
	copy(b, entryMagic)
	b[4] = stateThere
	binary.LittleEndian.PutUint32(b[8:], uint32(size))
	copy(b[12:], id[:])
	binary.LittleEndian.PutUint32(b[44:], entryCheck(nonce, b))
}

// entryCheck is the check of the header b of an entry.
func entryCheck(nonce [16]byte, b []byte) uint32 {
	sum := crc32.Update(0, castagnoli, nonce[:])
	sum = crc32.Update(sum, castagnoli, b[:4])
	return crc32.Update(sum, castagnoli, b[8:44])
}

// header is what the header of an entry says.
type header struct {
	id      block.ID
	size    int64
	removed bool
}

// readHeader reads what is the header of an entry at off, if there is one: then
// magic says whether it begins like one, and ok whether its check is right too.
func (p *pack) readHeader(off int64) (h header, magic, ok bool) {
	var b [entryHeader]byte
	if _, err := p.file.ReadAt(b[:], off); err != nil {
		return h, false, false
	}
	h.size = int64(binary.LittleEndian.Uint32(b[8:]))
	h.removed = b[4] == stateRemoved
	copy(h.id[:], b[12:44])
	magic = string(b[:4]) == entryMagic
	return h, magic, magic && binary.LittleEndian.Uint32(b[44:]) == entryCheck(p.nonce, b[:])
}

// scan calls fn for each entry of the pack. Where there is none it looks for the
// next. It returns where the last ends. An entry that does not follow on another
// one, or whose header is damaged, is accepted only if its block verifies, and
// so are all if verify is true: a bit that flips, in the nonce say, does not lose what is good.
func (p *pack) scan(size int64, verify bool, fn func(off int64, h header)) (end int64) {
	off, lost := int64(packHeader), false
	end = off
	for off+entryHeader <= size {
		h, magic, good := p.readHeader(off)
		fits := h.size > 0 && h.size < PackBelow && off+entrySize(h.size) <= size
		ok := fits && good
		switch {
		case !fits:
		case good && h.removed:
			ok = !lost // else nothing shows that these bytes are an entry
		case h.removed:
		case !good && (magic || !lost), good && (lost || verify):
			sealed := make([]byte, h.size)
			_, err := p.file.ReadAt(sealed, off+entryHeader)
			ok = err == nil && block.Verify(h.id, sealed) == nil
		}
		if !ok {
			lost = true
			off += 16
			continue
		}
		lost = false
		fn(off, h)
		off += entrySize(h.size)
		end = off
	}
	return end
}

// readPack reads a block from a pack.
func (p *pack) read(e entry) ([]byte, error) {
	p.gate.RLock()
	defer p.gate.RUnlock()
	sealed := make([]byte, e.size)
	if _, err := p.file.ReadAt(sealed, int64(e.off)+entryHeader); err != nil {
		return nil, err
	}
	return sealed, nil
}

// dropEntry marks an entry as removed and gives back the pages that it alone
// covers.
func (c *Cache) dropEntry(p *pack, e entry) error {
	p.gate.RLock()
	defer p.gate.RUnlock()
	p.tidy.Lock()
	defer p.tidy.Unlock()
	if _, err := p.file.WriteAt([]byte{stateRemoved}, int64(e.off)+4); errors.Is(err, fs.ErrClosed) {
		return nil // the pack was emptied meanwhile, without this entry
	} else if err != nil {
		return fmt.Errorf("remove from pack: %w", err)
	}
	size := entrySize(int64(e.size))
	from, to := roundUp(int64(e.off)+entryHeader), (int64(e.off)+size)&^(pageSize-1)
	punched := false
	if to > from && !c.nopunch.Load() {
		err := unix.Fallocate(int(p.file.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, from, to-from)
		switch {
		case err == nil:
			punched = true
		case errors.Is(err, unix.EOPNOTSUPP):
			c.nopunch.Store(true)
		default:
			return fmt.Errorf("punch pack: %w", err)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	p.live -= size
	if !punched {
		return nil
	}
	// Holes cost blocks of the extent tree, so the truth is asked for.
	var st unix.Stat_t
	if err := unix.Fstat(int(p.file.Fd()), &st); err != nil {
		return fmt.Errorf("punch pack: %w", err)
	}
	c.freedLocked(p.charge - st.Blocks*512)
	p.charge = st.Blocks * 512
	return nil
}

// wasteful returns a pack that is worth emptying: one of whose allocated bytes
// more than half would come free. What is left takes up whole pages elsewhere
// too, so that a pack of one page is never worth it.
func (c *Cache) wasteful() *pack {
	c.mu.Lock()
	defer c.mu.Unlock()
	var worst *pack
	for _, p := range c.packs {
		if !p.gone && 2*roundUp(p.live) < p.charge && (worst == nil || p.charge-p.live > worst.charge-worst.live) {
			worst = p
		}
	}
	if worst != nil {
		worst.gone = true
	}
	return worst
}

// compact empties wasteful packs until there are none. It reports whether it
// emptied any.
func (c *Cache) compact() (any bool) {
	for {
		p := c.wasteful()
		if p == nil {
			return any
		}
		if err := c.emptyPack(p); err != nil {
			c.mu.Lock()
			p.gone = false
			c.mu.Unlock()
			if !errors.Is(err, errLater) {
				c.warn("compact pack", "pack", p.num, "err", err)
			}
			return any
		}
		any = true
	}
}

// errLater means that a pack cannot be emptied now.
var errLater = errors.New("pack is in use")

// emptyPack copies what is left in a pack to the newest one and removes it. The
// copies are synced before the pack goes if any of them was durable.
func (c *Cache) emptyPack(p *pack) error {
	c.tail.Lock()
	if c.tail.pack == p {
		c.tail.pack = nil
	}
	c.tail.Unlock()
	type moved struct {
		id block.ID
		e  entry
	}
	var left []moved
	// The index says what is in it, not the headers, which may be damaged.
	for from, more := idmap.Handle(0), true; more; more = from != 0 {
		c.mu.Lock()
		from = c.index.Scan(from, 4096, func(h idmap.Handle) {
			if e := c.index.Val(h); e.pack == p.num {
				left = append(left, moved{*c.index.Key(h), *e})
			}
		})
		c.mu.Unlock()
	}
	slices.SortFunc(left, func(a, b moved) int { return cmp.Compare(a.e.off, b.e.off) })
	into := map[uint32]bool{}
	for _, m := range left {
		c.mu.Lock()
		h := c.index.Get(m.id)
		current := h != 0 && c.index.Val(h).same(m.e)
		_, busy := c.busy[m.id]
		if current && !busy {
			c.busy[m.id] = make(chan struct{})
			m.e = *c.index.Val(h)
		}
		c.mu.Unlock()
		if !current {
			continue
		}
		if busy {
			return errLater
		}
		to, err := c.moveEntry(p, m.id, m.e)
		c.unclaim(m.id)
		if err != nil {
			return err
		}
		if to != 0 {
			into[to] = true
		}
	}
	// Always, and here: a Sync under way may have taken the originals for the
	// copies, or be about to sync the copies and not have done so yet.
	for num := range into {
		if err := syncPath(c.packPath(num)); err != nil {
			return err
		}
	}
	if len(into) > 0 {
		if err := syncPath(c.dirPath(dirPacks)); err != nil {
			return err
		}
	}
	p.gate.Lock() // readers of entries that have moved are done
	defer p.gate.Unlock()
	if err := errors.Join(os.Remove(c.packPath(p.num)), p.file.Close()); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.packs, p.num)
	c.freedLocked(p.charge)
	return nil
}

// moveEntry copies one block, which is claimed, to the newest pack, whose number
// it returns. It returns 0 if the block was damaged and is gone.
func (c *Cache) moveEntry(p *pack, id block.ID, e entry) (uint32, error) {
	sealed, err := p.read(e)
	if err == nil {
		err = block.Verify(id, sealed)
	}
	if err != nil && !isDamage(err) {
		return 0, err
	}
	if err != nil {
		c.unfit(id, e, err)
		return 0, nil
	}
	room := packRoom(int64(len(sealed)))
	if err := c.reserve(c.ctx, room, forUpkeep); err != nil {
		return 0, errors.Join(errLater, err)
	}
	n, used, err := c.appendPack(id, sealed)
	c.settle(room, used)
	if err != nil {
		return 0, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if h := c.index.Get(id); h != 0 {
		n.flags = c.index.Val(h).flags
		*c.index.Val(h) = n
	}
	p.live -= entrySize(int64(e.size))
	return n.pack, nil
}

// openPack opens an existing pack; a file that is none is left alone.
func (c *Cache) openPack(num uint32) (*pack, int64, error) {
	f, err := os.OpenFile(c.packPath(num), os.O_RDWR, 0o600)
	if err != nil {
		return nil, 0, err
	}
	var head [packHeader]byte
	info, err := f.Stat()
	if err == nil {
		_, err = f.ReadAt(head[:], 0)
	}
	if errors.Is(err, io.EOF) || err == nil && info.Size() <= packHeader+entryHeader {
		return nil, 0, errors.Join(fs.ErrInvalid, f.Close())
	}
	if err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	p := &pack{num: num, file: f}
	p.damaged = string(head[:8]) != packMagic || head[8] != packVersion
	copy(p.nonce[:], head[16:])
	return p, info.Size(), nil
}
