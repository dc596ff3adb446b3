package cache

import (
	"cmp"
	"context"
	"errors"
	"slices"

	"github.com/roamfs/roamfs/cache/internal/idmap"
)

// compactAll compacts packs as long as one is worth it.
func (c *Cache) compactAll(ctx context.Context) {
	for ctx.Err() == nil && c.ctx.Err() == nil {
		p := c.worstPack()
		if p == nil {
			return
		}
		err := c.compact(p)
		c.mu.Lock()
		p.compacting = false
		c.mu.Unlock()
		if err != nil {
			c.warn("pack cannot be compacted", "pack", p.n, "err", err)
			return
		}
	}
}

// wasteful reports whether less than half of what the pack takes is in use.
func (p *pack) wasteful() bool { return 2*p.live < p.charge }

// worstPack returns the pack with the least share in use, if that is less than half,
// and marks it as compacting. It ends the pack that is appended to if that one is wasteful
// and no longer small.
func (c *Cache) worstPack() *pack {
	c.mu.Lock()
	var worst *pack
	endTail := false
	for _, p := range c.packs {
		switch {
		case p.compacting || !p.wasteful():
		case !p.sealed:
			endTail = p.charge >= c.accounts.segment()/2
		case worst == nil || p.live*worst.charge < worst.live*p.charge:
			worst = p
		}
	}
	if worst != nil {
		worst.compacting = true
	}
	c.mu.Unlock()
	if worst != nil || !endTail {
		return worst
	}
	c.tail.Lock()
	p := c.tail.pack
	if p != nil {
		c.sealTail()
	}
	c.tail.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	if p == nil || c.packs[p.n] != p || p.compacting || !p.wasteful() {
		return nil
	}
	p.compacting = true
	return p
}

// entriesOf returns the blocks in pack n in the order in which they lie there.
func (c *Cache) entriesOf(n uint32) (all []victim) {
	const batch = 4096
	for from, more := idmap.Handle(0), true; more; more = from != 0 {
		c.mu.Lock()
		from = c.index.Scan(from, batch, func(h idmap.Handle) {
			if e := c.index.Val(h); e.pack == n {
				all = append(all, victim{*c.index.Key(h), *e})
			}
		})
		c.mu.Unlock()
	}
	slices.SortFunc(all, func(a, b victim) int { return cmp.Compare(a.off, b.off) })
	return all
}

// compact copies what is in use in a sealed pack to the end of the newest one. The
// copies are durable before the pack goes.
func (c *Cache) compact(p *pack) error {
	blocks := c.entriesOf(p.n)
	room := int64(2*pageSize + dirRoom)
	for _, b := range blocks {
		room += entrySize(int64(b.size))
	}
	room = roundUp(room) + 2*pageSize // one more pack may be begun on the way
	if !c.take(room, forUpkeep) {
		return c.noRoom(room)
	}
	defer func() { c.settle(room, 0) }()

	moved := make([]entry, len(blocks)) // zero where it could not be
	into := map[uint32]bool{}
	for i, b := range blocks {
		data, err := c.load(b.id, b.entry)
		if err != nil {
			if now, here := c.lookup(b.id); here && now.same(b.entry) {
				if !isDamage(err) {
					return err
				}
				c.warn("resident block is damaged", "block", b.id, "err", err)
				c.putAside(b.id, b.entry, data)
			}
			continue
		}
		to, used, err := c.writeEntry(b.id, data)
		room -= used
		if err != nil {
			c.finishMove(p, blocks[:i], moved[:i])
			return err
		}
		moved[i] = to
		into[to.pack] = true
	}
	var err error
	for n := range into {
		err = errors.Join(err, syncPath(c.packPath(n)))
	}
	if len(into) > 0 {
		err = errors.Join(err, syncPath(c.dirPath(packsDir)))
	}
	if err != nil {
		c.abandon(moved)
		return err
	}
	c.finishMove(p, blocks, moved)
	return nil
}

// finishMove makes the copies the blocks, and gives back the originals, or the
// copies of blocks that have gone meanwhile.
func (c *Cache) finishMove(p *pack, blocks []victim, moved []entry) {
	var originals, copies []entry
	c.mu.Lock()
	for i, b := range blocks {
		if moved[i].pack == 0 {
			continue
		}
		h := c.index.Get(b.id)
		if h == 0 || !c.index.Val(h).same(b.entry) {
			copies = append(copies, moved[i])
			continue
		}
		e := c.index.Val(h)
		e.pack, e.off = moved[i].pack, moved[i].off
		originals = append(originals, b.entry)
	}
	c.mu.Unlock()
	if len(originals) > 0 {
		c.bury(p.n, originals)
	}
	c.abandon(copies)
}

// abandon gives back entries that are not in the index.
func (c *Cache) abandon(entries []entry) {
	byPack := map[uint32][]entry{}
	for _, e := range entries {
		if e.pack != 0 {
			byPack[e.pack] = append(byPack[e.pack], e)
		}
	}
	for n, some := range byPack {
		c.bury(n, some)
	}
}
