package app

import (
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
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
	d := p.d
	kept, err := d.exchange.Prove(ctx, ids, d.keeper.Informed)
	held := make(map[block.ID]struct{}, len(kept))
	for _, k := range kept {
		held[k.ID] = struct{}{}
	}
	out := make([]cache.Proof, 0, len(ids))
	if len(kept) > 0 {
		tied, terr := d.keeper.Tied(ctx, slices.Collect(maps.Keys(held)))
		if terr != nil {
			return nil, errors.Join(err, terr)
		}
		for _, k := range kept {
			if _, stays := tied[k.ID]; !stays {
				out = append(out, proofOf(k))
			}
		}
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
	garbage, gerr := d.exchange.Discard(rest, func(ids []block.ID) ([]block.ID, error) {
		return d.past.still(func() ([]block.ID, error) { return d.keeper.Garbage(ids, d.files.Live) })
	})
	if gerr != nil {
		d.log.Debug("garbage cannot be told", "err", gerr) // more room may be had once lists are here
		return out, err
	}
	for _, id := range garbage {
		out = append(out, cache.Unreferenced(id))
	}
	return out, err
}

// proofOf says to the cache what the exchange found out.
func proofOf(k peer.Kept) cache.Proof {
	holders := make([][32]byte, len(k.Devices))
	for i, dev := range k.Devices {
		holders[i] = dev
	}
	proof := cache.NewProof(k.ID, holders, k.AsOf)
	if !k.Until.IsZero() {
		proof = proof.Before(k.Until)
	}
	return proof
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

// Retold implements [peer.Holdings].
func (h holdings) Retold(dev device.ID, cursor []byte) error {
	err := h.Store.Retold(dev, cursor)
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

// Put stores a block that a commit is going to name, and that therefore
// [file.Table.Live] names already. One that was garbage until now may be
// on its way out: then either it was looked for after it was named, and stays,
// or it was intended to go before, and is kept from that here. If it has gone,
// it is stored once more.
func (b blocks) Put(ctx context.Context, id block.ID, sealed []byte) error {
	if b.d.exchange.Intends(id) {
		b.d.cache.Pin(id)
		time.AfterFunc(peer.IntentFor, func() { b.d.cache.Unpin(id) })
	}
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
	dir string

	mu   sync.Mutex
	at   time.Time
	last int64
}

// overheadEvery is how long a measurement serves. The slack on top covers what
// the database can write in that time and in one compaction, which rewrites a
// part of it, up to ten tables.
const (
	overheadEvery = 50 * time.Millisecond
	slackLeast    = 8 << 20
	slackMost     = 24 << 20
	slackPart     = 4
)

func newOverhead(s *State) *overhead { return &overhead{dir: s.Dir()} }

// bytes is what the cache leaves to the rest: what that takes, and room to grow.
func (o *overhead) bytes() int64 {
	n := o.used()
	return n + min(max(n/slackPart, slackLeast), slackMost)
}

// used is what is allocated.
func (o *overhead) used() int64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	if now := time.Now(); now.Sub(o.at) >= overheadEvery {
		o.at, o.last = now, o.measure()
	}
	return o.last
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
