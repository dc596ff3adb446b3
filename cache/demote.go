package cache

import (
	"github.com/roamfs/roamfs/cache/evict"
	"github.com/roamfs/roamfs/sync/block"
)

// Demote makes a resident block one of the first to go when room is needed, until
// somebody asks for it. It needs a proof like any other.
func (c *Cache) Demote(id block.ID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	h := c.index.Get(id)
	if h == 0 {
		return
	}
	e := *c.index.Val(h)
	c.order.Remove(id)
	c.order.Add(evict.Item{ID: id, Size: chargeOf(e), Cost: missCost(e.size), Spec: true})
}
