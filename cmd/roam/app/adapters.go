package app

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/roamfs/roamfs/cache"
	"github.com/roamfs/roamfs/fs/file"
	"github.com/roamfs/roamfs/peer"
	"github.com/roamfs/roamfs/peer/device"
	"github.com/roamfs/roamfs/sync/block"
	"github.com/roamfs/roamfs/sync/store"
)

// The parts of a device do not know each other. Here each small interface that
// one of them declares is satisfied by another.

// fetcher lets the cache obtain blocks from the peers.
type fetcher struct{ d *live }

func (f fetcher) Fetch(ctx context.Context, id block.ID, p cache.Priority) ([]byte, error) {
	return f.d.exchange.Fetch(ctx, id, lanes[p])
}

// lanes are the cache's priorities as the network knows them.
var lanes = map[cache.Priority]peer.Priority{
	cache.Demand: peer.Demand, cache.ReadAhead: peer.ReadAhead, cache.Background: peer.Background,
}

// prover lets the cache evict what other devices hold, and what nothing in the
// tree refers to any more.
type prover struct{ d *live }

func (p prover) Prove(ctx context.Context, ids []block.ID) ([]cache.Proof, error) {
	kept, err := p.d.exchange.Prove(ctx, ids)
	held := make(map[block.ID]struct{}, len(kept))
	out := make([]cache.Proof, 0, len(ids))
	for _, k := range kept {
		holders := make([][32]byte, len(k.Devices))
		for i, dev := range k.Devices {
			holders[i] = dev
		}
		held[k.ID] = struct{}{}
		proof := cache.NewProof(k.ID, holders, k.AsOf)
		if !k.Until.IsZero() {
			proof = proof.Before(k.Until)
		}
		out = append(out, proof)
	}
	var rest []block.ID
	for _, id := range ids {
		if _, ok := held[id]; !ok {
			rest = append(rest, id)
		}
	}
	if len(rest) == 0 {
		return out, err
	}
	garbage, gerr := p.d.keeper.Garbage(rest, p.d.files.Live)
	if gerr != nil {
		p.d.log.Debug("garbage cannot be told", "err", gerr) // more room may be had once lists are here
		return out, err
	}
	for _, id := range garbage {
		out = append(out, cache.Unreferenced(id))
	}
	return out, err
}

// holdings keeps what other devices say they hold, and tells the keeper of
// copies when that is less than before.
type holdings struct {
	*store.Store
	d *live
}

// Hold implements [peer.Holdings].
func (h holdings) Hold(dev device.ID, added, gone []block.ID, cursor []byte) error {
	err := h.Store.Hold(dev, added, gone, cursor)
	if len(gone) > 0 {
		h.d.keeper.Lost(gone)
	}
	return err
}

// ForgetHoldings implements [peer.Holdings].
func (h holdings) ForgetHoldings(dev device.ID) error {
	err := h.Store.ForgetHoldings(dev)
	h.d.keeper.LostAll()
	return err
}

// blocks is the cache as the files see it.
type blocks struct{ d *live }

var _ file.Blocks = blocks{}

func (b blocks) Get(ctx context.Context, id block.ID) ([]byte, error) {
	return b.d.cache.Get(ctx, id, cache.Demand)
}

func (b blocks) Ahead(ctx context.Context, id block.ID) ([]byte, error) {
	return b.d.cache.Get(ctx, id, cache.ReadAhead)
}

func (b blocks) Has(id block.ID) bool { return b.d.cache.Has(id) }

func (b blocks) Put(ctx context.Context, id block.ID, sealed []byte) error {
	return b.d.cache.Put(ctx, id, sealed, cache.Local)
}

func (b blocks) Sync() error { return b.d.cache.Sync() }

func (b blocks) Reserve(ctx context.Context, n int64) (file.Room, error) {
	r, err := b.d.cache.Reserve(ctx, n)
	if err != nil {
		return nil, err // not a nil *Reservation in an interface
	}
	return r, nil
}

// copied is the cache as the keeper of copies sees it.
type copied struct{ c *cache.Cache }

func (c copied) Has(id block.ID) bool { return c.c.Has(id) }

func (c copied) Read(id block.ID) ([]byte, error) { return c.c.Read(id) }

func (c copied) Fill(ctx context.Context, id block.ID) ([]byte, error) {
	return c.c.Get(ctx, id, cache.Background)
}

// overhead measures what of the state directory neither the cache nor a
// reservation accounts for: the database, the log, the settings.
type overhead struct {
	dir   string
	slack int64 // what the database may grow by until it is measured again

	mu   sync.Mutex
	at   time.Time
	last int64
}

// overheadEvery is how long a measurement serves. The slack covers what the
// database can write in that time and in one compaction.
const overheadEvery = 50 * time.Millisecond

func newOverhead(s *State, small bool) *overhead {
	o := &overhead{dir: s.Dir(), slack: 24 << 20}
	if small {
		o.slack = 8 << 20
	}
	return o
}

func (o *overhead) bytes() int64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	if now := time.Now(); now.Sub(o.at) >= overheadEvery {
		o.at, o.last = now, o.measure()
	}
	return o.last + o.slack
}

// measure adds up the allocated bytes; what vanishes meanwhile counts nothing.
func (o *overhead) measure() int64 {
	var n int64
	add := func(path string) {
		if info, err := os.Lstat(path); err == nil {
			if st, ok := info.Sys().(*syscall.Stat_t); ok {
				n += st.Blocks * 512
			}
		}
	}
	add(o.dir)
	for _, dir := range []string{o.dir, filepath.Join(o.dir, databaseName)} {
		list, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			continue
		}
		for _, e := range list {
			if !e.IsDir() {
				add(filepath.Join(dir, e.Name()))
			}
		}
	}
	add(filepath.Join(o.dir, databaseName))
	add(filepath.Join(o.dir, draftsName))
	return n
}
