package peertest

import (
	"errors"
	"slices"
	"sync"

	"github.com/roamfs/roamfs/peer/device"
	"github.com/roamfs/roamfs/sync/block"
)

// ErrMissing means that a block is not resident.
var ErrMissing = errors.New("peertest: block is missing")

// Blocks are blocks in memory: a cache without bound, whose blocks are durable at
// once. It satisfies peer.Blocks and is safe for concurrent use.
type Blocks struct {
	// OnRead, if not nil, is called before each Read, and may return other bytes,
	// or an error, in the place of the block's. Set it before use.
	OnRead func(id block.ID, data []byte) ([]byte, error)
	// Changed, if not nil, is called after each change. Set it before use.
	Changed func(added, gone []block.ID)

	mu   sync.Mutex
	data map[block.ID][]byte
}

// Add makes a block of some bytes, and returns its ID. It keeps data.
func (b *Blocks) Add(data []byte) block.ID {
	id := block.Sum(data)
	b.mu.Lock()
	if b.data == nil {
		b.data = make(map[block.ID][]byte)
	}
	b.data[id] = data
	b.mu.Unlock()
	if b.Changed != nil {
		b.Changed([]block.ID{id}, nil)
	}
	return id
}

// Drop removes a block.
func (b *Blocks) Drop(id block.ID) {
	b.mu.Lock()
	delete(b.data, id)
	b.mu.Unlock()
	if b.Changed != nil {
		b.Changed(nil, []block.ID{id})
	}
}

// Read returns the block, or what OnRead makes of it.
func (b *Blocks) Read(id block.ID) ([]byte, error) {
	b.mu.Lock()
	data, ok := b.data[id]
	b.mu.Unlock()
	if !ok {
		return nil, ErrMissing
	}
	if b.OnRead != nil {
		return b.OnRead(id, data)
	}
	return data, nil
}

// Has reports whether the block is there.
func (b *Blocks) Has(id block.ID) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	_, ok := b.data[id]
	return ok
}

// Durable is Has.
func (b *Blocks) Durable(id block.ID) bool { return b.Has(id) }

// Each calls fn for each block, without holding a lock.
func (b *Blocks) Each(fn func(id block.ID, size int64)) {
	b.mu.Lock()
	sizes := make(map[block.ID]int64, len(b.data))
	for id, data := range b.data {
		sizes[id] = int64(len(data))
	}
	b.mu.Unlock()
	for id, size := range sizes {
		fn(id, size)
	}
}

// Holdings keep in memory which device said that it holds what. It satisfies
// peer.Holdings and is safe for concurrent use.
type Holdings struct {
	mu      sync.Mutex
	held    map[block.ID][]device.ID
	cursors map[device.ID][]byte
	anew    map[device.ID]map[block.ID]bool // what was named since Retell
	retold  int
}

// Hold records what a device said.
func (h *Holdings) Hold(dev device.ID, added, gone []block.ID, cursor []byte) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.initLocked()
	for _, id := range added {
		if h.anew[dev] != nil {
			h.anew[dev][id] = true
		}
		if !slices.Contains(h.held[id], dev) {
			h.held[id] = append(h.held[id], dev)
		}
	}
	for _, id := range gone {
		h.dropLocked(id, dev)
	}
	if cursor != nil {
		h.cursors[dev] = slices.Clone(cursor)
	}
	return nil
}

func (h *Holdings) initLocked() {
	if h.held == nil {
		h.held, h.cursors = make(map[block.ID][]device.ID), make(map[device.ID][]byte)
		h.anew = make(map[device.ID]map[block.ID]bool)
	}
}

func (h *Holdings) dropLocked(id block.ID, dev device.ID) {
	if devs := slices.DeleteFunc(slices.Clone(h.held[id]), func(d device.ID) bool { return d == dev }); len(devs) > 0 {
		h.held[id] = devs
	} else {
		delete(h.held, id)
	}
}

// Retell notes that a device begins to tell all that it holds.
func (h *Holdings) Retell(dev device.ID) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.initLocked()
	h.anew[dev] = make(map[block.ID]bool)
	delete(h.cursors, dev)
	h.retold++
	return nil
}

// Retold forgets what a device did not name since Retell.
func (h *Holdings) Retold(dev device.ID, cursor []byte) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.initLocked()
	for id := range h.held {
		if !h.anew[dev][id] {
			h.dropLocked(id, dev)
		}
	}
	delete(h.anew, dev)
	h.cursors[dev] = slices.Clone(cursor)
	return nil
}

// Holders returns the devices that hold a block.
func (h *Holdings) Holders(id block.ID) ([]device.ID, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.held[id]), nil
}

// Affirmed is Holders without those that tell all anew and did not name the block since.
func (h *Holdings) Affirmed(id block.ID) ([]device.ID, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(h.held[id]), func(dev device.ID) bool {
		return h.anew[dev] != nil && !h.anew[dev][id]
	}), nil
}

// Cursor returns the cursor of a device, or nil.
func (h *Holdings) Cursor(dev device.ID) ([]byte, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.cursors[dev]), nil
}

// Retellings returns how often Retell was called.
func (h *Holdings) Retellings() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.retold
}

// Held returns how many blocks a device holds.
func (h *Holdings) Held(dev device.ID) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := 0
	for _, devs := range h.held {
		if slices.Contains(devs, dev) {
			n++
		}
	}
	return n
}
