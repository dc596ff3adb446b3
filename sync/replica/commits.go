package replica

import (
	"cmp"
	"slices"
	"sync/atomic"

	"github.com/roamfs/roamfs/sync/store"
	"github.com/roamfs/roamfs/sync/tree"
)

// commits is the list of commits that are kept for peers, in the order in which
// this device came to know them. Guarded by Replica.mu except durable.
type commits struct {
	at    map[tree.Dot]store.Kept
	order []store.Kept // ascending Seq
	bytes int64
	next  uint64 // Seq of the next commit

	// Commits below it are on the disk and may be sent.
	durable atomic.Uint64
}

func (c *commits) load(st *store.Store) error {
	kept, err := st.Commits()
	if err != nil {
		return err
	}
	slices.SortFunc(kept, func(a, b store.Kept) int { return cmp.Compare(a.Seq, b.Seq) })
	c.at = make(map[tree.Dot]store.Kept, len(kept))
	c.order = kept
	c.next = 1
	for _, k := range kept {
		c.at[tree.Dot{Actor: k.Actor, Ctr: k.Ctr}] = k
		c.bytes += k.Bytes
		c.next = k.Seq + 1
	}
	// What an earlier run wrote is synced again before it is sent, by the first publish.
	return nil
}

func (c *commits) add(x store.Commit) {
	k := store.Kept{Actor: x.Actor, Ctr: x.Ctr, Seq: c.next, Bytes: int64(len(x.Manifest) + len(x.Delta))}
	c.at[tree.Dot{Actor: x.Actor, Ctr: x.Ctr}] = k
	c.order = append(c.order, k)
	c.bytes += k.Bytes
	c.next++
}

// surplus returns the oldest commits that have to go so that extra more bytes
// stay within keep, a few at a time.
func (c *commits) surplus(keep, extra int64) []store.Kept {
	n, over := 0, c.bytes+extra-keep
	for over > 0 && n < len(c.order) && n < 16 {
		over -= c.order[n].Bytes
		n++
	}
	return slices.Clone(c.order[:n])
}

// forget takes the oldest commits out of the list; drop is what surplus returned.
func (c *commits) forget(drop []store.Kept) {
	for _, k := range drop {
		delete(c.at, tree.Dot{Actor: k.Actor, Ctr: k.Ctr})
		c.bytes -= k.Bytes
	}
	c.order = c.order[len(drop):]
}

// kept reports whether k has not been forgotten since it was in the list.
func (c *commits) kept(k store.Kept) bool {
	return c.at[tree.Dot{Actor: k.Actor, Ctr: k.Ctr}] == k
}

// lacking returns the sendable commits that are in mine but not in theirs, in
// order; ok is false when one of them is no longer kept.
func (c *commits) lacking(mine, theirs tree.Vector) (lack []store.Kept, ok bool) {
	durable := c.durable.Load()
	for a, n := range mine {
		for ctr := theirs[a] + 1; ctr <= n; ctr++ {
			k, kept := c.at[tree.Dot{Actor: a, Ctr: ctr}]
			if !kept {
				return nil, false
			}
			if k.Seq < durable {
				lack = append(lack, k)
			}
		}
	}
	slices.SortFunc(lack, func(a, b store.Kept) int { return cmp.Compare(a.Seq, b.Seq) })
	return lack, true
}
