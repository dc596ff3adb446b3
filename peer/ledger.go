package peer

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"sync"

	"github.com/roamfs/roamfs/peer/wire"
	"github.com/roamfs/roamfs/sync/block"
)

// maxOps is how many changes are remembered for devices that were away.
const maxOps = 1 << 16

// ledger is the sequence in which this device announces what it holds.
type ledger struct {
	mu     sync.Mutex
	epoch  uint64
	ready  chan struct{}       // closed once the set is complete
	held   map[uint64]struct{} // the first 8 bytes of each announced id
	digest [32]byte            // XOR of all announced ids
	ops    []op                // the last ones; ops[i] has the number base+1+i
	base   uint64
	more   chan struct{} // closed at the next change
}

type op struct {
	id    block.ID
	added bool
}

func newLedger() *ledger {
	l := &ledger{ready: make(chan struct{}), held: make(map[uint64]struct{}), more: make(chan struct{})}
	var b [8]byte
	for l.epoch == 0 {
		_, _ = rand.Read(b[:]) // never fails
		l.epoch = binary.BigEndian.Uint64(b[:])
	}
	return l
}

// load takes the blocks that are there when the device starts. What was changed
// meanwhile, and so announced, counts more than what load saw.
func (l *ledger) load(ctx context.Context, blocks Blocks) {
	for !l.tryLoad(ctx, blocks) { // more changes than are remembered
	}
	close(l.ready)
}

func (l *ledger) tryLoad(ctx context.Context, blocks Blocks) bool {
	l.mu.Lock()
	from := l.base + uint64(len(l.ops))
	l.mu.Unlock()
	blocks.Each(func(id block.ID, _ int64) {
		if ctx.Err() == nil && blocks.Durable(id) {
			l.mu.Lock()
			l.setLocked(id, true)
			l.mu.Unlock()
		}
	})
	l.mu.Lock()
	defer l.mu.Unlock()
	if from < l.base {
		clear(l.held)
		l.digest = [32]byte{}
		return false
	}
	for _, o := range l.ops[from-l.base:] {
		l.setLocked(o.id, o.added)
	}
	return true
}

// setLocked puts id in the set or takes it out.
func (l *ledger) setLocked(id block.ID, added bool) {
	k := binary.BigEndian.Uint64(id[:])
	if _, is := l.held[k]; is == added {
		return
	}
	if added {
		l.held[k] = struct{}{}
	} else {
		delete(l.held, k)
	}
	for i := range l.digest {
		l.digest[i] ^= id[i]
	}
}

// announce appends changes.
func (l *ledger) announce(added, gone []block.ID) {
	if len(added)+len(gone) == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, id := range added {
		l.setLocked(id, true)
		l.ops = append(l.ops, op{id, true})
	}
	for _, id := range gone {
		l.setLocked(id, false)
		l.ops = append(l.ops, op{id, false})
	}
	if over := len(l.ops) - maxOps; over > maxOps/2 {
		l.ops = append(l.ops[:0], l.ops[over:]...)
		l.base += uint64(over)
	}
	close(l.more)
	l.more = make(chan struct{})
}

// begin returns the number from which a device that knows the sequence up to known
// is to be told, and false if it must be told all.
func (l *ledger) begin(known wire.Cursor) (seq uint64, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	head := l.base + uint64(len(l.ops))
	switch {
	case known.Epoch == 0:
		return head, false
	case known.Epoch == l.epoch && known.Seq >= l.base && known.Seq <= head:
		return known.Seq, true
	default:
		return head, known.Digest == l.digest
	}
}

// since returns the changes from number seq on, at most [wire.MaxHold], as HOLD
// without Reset, and false if they are no longer remembered. If it is not Final,
// there are more. The channel is closed when there are.
func (l *ledger) since(seq uint64) (wire.Hold, <-chan struct{}, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if seq < l.base {
		return wire.Hold{}, nil, false
	}
	ops := l.ops[seq-l.base:]
	m := wire.Hold{Final: len(ops) <= wire.MaxHold}
	ops = ops[:min(len(ops), wire.MaxHold)]
	m.Cursor = wire.Cursor{Epoch: l.epoch, Seq: seq + uint64(len(ops))}
	if m.Final {
		m.Cursor.Digest = l.digest
	}
	last := make(map[block.ID]bool, len(ops))
	for _, o := range ops {
		last[o.id] = o.added
	}
	for _, o := range ops { // in the order of first mention
		added, ok := last[o.id]
		if !ok {
			continue
		}
		delete(last, o.id)
		if added {
			m.Added = append(m.Added, o.id)
		} else {
			m.Gone = append(m.Gone, o.id)
		}
	}
	return m, l.more, true
}
