package replica

import (
	"slices"

	"github.com/roamfs/roamfs/sync/manifest"
	"github.com/roamfs/roamfs/sync/store"
	"github.com/roamfs/roamfs/sync/tree"
)

// batch is what the operations since the last publish have done, net. It is
// small: a full batch is published.
type batch struct {
	puts  map[tree.Key][]byte      // records that carry the batch's dot
	drops map[tree.KeyDot]struct{} // published records that the batch removed
	bytes int                      // of puts and drops
	ops   int                      // operations so far
	first uint64                   // first row of the log in the database
	next  uint64                   // row that the next operation writes
}

func (b *batch) empty() bool { return len(b.puts)+len(b.drops) == 0 }

// full reports whether the batch has to be closed before the next operation. Its
// log counts as well: it is cleared in the transaction that closes the batch.
func (b *batch) full() bool {
	return len(b.puts)+len(b.drops) >= batchRecords || b.next-b.first >= batchRecords || b.bytes >= batchBytes
}

// load reads an unfinished batch of an earlier run back from its log.
func (b *batch) load(st *store.Store, dot tree.Dot) error {
	b.reset()
	keys := map[tree.Key]struct{}{}
	first, next, err := st.Touches(func(c store.Touch) {
		for _, k := range c.Put {
			keys[k] = struct{}{}
		}
		for _, kd := range c.Drop {
			b.drop(kd)
		}
	})
	if err != nil {
		return err
	}
	b.first, b.next = first, next
	for k := range keys {
		recs, err := st.Records(k.Ino())
		if err != nil {
			return err
		}
		for _, r := range recs {
			if r.Key == k && r.Dot == dot {
				b.put(k, r.Value)
			}
		}
	}
	return nil
}

func (b *batch) reset() {
	b.puts = map[tree.Key][]byte{}
	b.drops = map[tree.KeyDot]struct{}{}
	b.bytes, b.ops = 0, 0
	b.first = b.next
}

func (b *batch) drop(kd tree.KeyDot) {
	if _, ok := b.drops[kd]; !ok {
		b.drops[kd] = struct{}{}
		b.bytes += len(kd.Key) + 16
	}
}

func (b *batch) put(k tree.Key, v []byte) {
	if old, ok := b.puts[k]; ok {
		b.bytes -= len(k) + len(old)
	}
	b.bytes += len(k) + len(v)
	b.puts[k] = v
}

// meets reports whether a delta of another device puts another version beside
// one of the batch. Then the batch ends: a later write would go under the same key
// and dot as what by then is a conflict copy, and the two would have one name.
func (b *batch) meets(d manifest.Delta) bool {
	for i := range d.Put {
		if _, ok := b.puts[d.Put[i].Key]; ok {
			return true
		}
	}
	return false
}

// touch says what a change means to the batch, for its log.
func (b *batch) touch(dot tree.Dot, ch tree.Change) (c store.Touch) {
	for _, r := range ch.Put {
		if _, ok := b.puts[r.Key]; !ok {
			c.Put = append(c.Put, r.Key)
		}
	}
	for _, kd := range ch.Drop {
		if kd.Dot != dot {
			c.Drop = append(c.Drop, kd)
		}
	}
	return c
}

// add takes a change that the database has taken.
func (b *batch) add(c store.Touch, ch tree.Change) {
	b.ops++
	if len(c.Put)+len(c.Drop) > 0 {
		b.next++
	}
	for _, kd := range c.Drop {
		b.drop(kd)
	}
	for _, kd := range ch.Drop {
		if _, published := b.drops[kd]; published {
			continue
		}
		if v, ok := b.puts[kd.Key]; ok {
			b.bytes -= len(kd.Key) + len(v)
			delete(b.puts, kd.Key)
		}
	}
	for _, r := range ch.Put {
		b.put(r.Key, r.Value)
	}
}

// delta is the batch as it is published.
func (b *batch) delta(dot tree.Dot) manifest.Delta {
	var d manifest.Delta
	for k, v := range b.puts {
		d.Put = append(d.Put, tree.Record{Key: k, Dot: dot, Value: v})
	}
	for kd := range b.drops {
		d.Drop = append(d.Drop, kd)
	}
	tree.SortRecords(d.Put)
	slices.SortFunc(d.Drop, tree.KeyDot.Compare)
	return d
}
