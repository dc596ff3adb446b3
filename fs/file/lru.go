package file

import "sync"

// lru is a bounded memory cache in two segments: what was used once may be
// driven out by a scan, what was used again not before it fills half of the
// whole. Values are read-only. It is safe for concurrent use.
//
// Idea: segmented LRU (Karedla et al., "Caching strategies to improve disk
// system performance", 1994).
type lru[K comparable, V any] struct {
	max int64

	mu    sync.Mutex
	items map[K]*item[K, V]
	once  queue[K, V] // used once, or fetched ahead
	again queue[K, V] // used again
	fresh int64       // bytes fetched ahead and not used yet
}

type item[K comparable, V any] struct {
	key        K
	value      V
	bytes      int64
	fresh      bool // fetched ahead, not used
	in         *queue[K, V]
	prev, next *item[K, V]
}

// queue is a ring around its first field, the newest item first.
type queue[K comparable, V any] struct {
	ring  item[K, V]
	bytes int64
}

func newLRU[K comparable, V any](limit int64) *lru[K, V] {
	c := &lru[K, V]{max: limit, items: map[K]*item[K, V]{}}
	for _, q := range []*queue[K, V]{&c.once, &c.again} {
		q.ring.prev, q.ring.next = &q.ring, &q.ring
	}
	return c
}

func (q *queue[K, V]) push(x *item[K, V]) {
	x.in, x.prev, x.next = q, &q.ring, q.ring.next
	x.prev.next, x.next.prev = x, x
	q.bytes += x.bytes
}

func (q *queue[K, V]) cut(x *item[K, V]) {
	x.prev.next, x.next.prev = x.next, x.prev
	q.bytes -= x.bytes
}

// get returns what is cached under k. With use it counts as a use: one that
// only goes on with the last one does not.
func (c *lru[K, V]) get(k K, use bool) (v V, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	x, ok := c.items[k]
	if !ok {
		return v, false
	}
	switch {
	case x.fresh:
		x.fresh = false
		c.fresh -= x.bytes
	case use:
		x.in.cut(x)
		c.again.push(x)
	}
	return x.value, true
}

// has reports whether k is cached, without using it.
func (c *lru[K, V]) has(k K) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, ok := c.items[k]
	return ok
}

// put caches v; fresh says that it was fetched ahead of use. What is larger
// than half of the cache is not kept.
func (c *lru[K, V]) put(k K, v V, bytes int64, fresh bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.items[k]; ok || bytes > c.max/2 {
		return
	}
	x := &item[K, V]{key: k, value: v, bytes: bytes, fresh: fresh}
	c.items[k] = x
	c.once.push(x)
	if fresh {
		c.fresh += bytes
	}
	for c.once.bytes+c.again.bytes > c.max {
		q := &c.once
		if c.once.bytes <= c.max/2 && c.again.bytes > 0 {
			q = &c.again
		}
		old := q.ring.prev
		q.cut(old)
		delete(c.items, old.key)
		if old.fresh {
			c.fresh -= old.bytes
		}
	}
}

// clear lets go of everything.
func (c *lru[K, V]) clear() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, x := range c.items {
		x.in.cut(x)
	}
	clear(c.items)
	c.fresh = 0
}

// unused returns the bytes that were fetched ahead and not used yet.
func (c *lru[K, V]) unused() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.fresh
}
