package app

import (
	"context"

	"github.com/roamfs/roamfs/sync/block"
	"github.com/roamfs/roamfs/sync/chunk"
	"github.com/roamfs/roamfs/sync/history"
	"github.com/roamfs/roamfs/sync/tree"
)

// What only snapshots need is the first to go on a bounded cache, before anything
// that the tree shows now. It is found by comparing each new snapshot with the one
// before: whatever was replaced in between is in the older one.

// changed tells that snapshots were made or removed, here or elsewhere.
func (p *past) changed() {
	p.d.keeper.Kept()
	p.recount()
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// follow demotes what the newest snapshot replaced, until ctx ends.
func (p *past) follow(ctx context.Context) error {
	var last block.ID
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-p.wake:
		}
		all, err := p.Snapshots()
		if err != nil {
			p.d.log.Warn("snapshots cannot be read", "err", err)
			continue
		}
		if n := len(all); n > 1 && all[n-1].Root.ID != last {
			last = all[n-1].Root.ID
			p.demote(all[n-2].Root, all[n-1].Root)
		}
	}
}

// demote makes the blocks of what now has no more the first to go, as far as that
// can be told here without fetching anything.
func (p *past) demote(old, now history.Object) {
	read := func(o history.Object) ([]history.Entry, error) { return history.Read(o, p.d.keys, p.d.cache.Read) }
	history.Replaced(old, now, read, func(e history.Entry) {
		is, err := p.d.replica.Node(e.Ino)
		if err == nil && is.Ref.ID == e.Ref.ID {
			return // it was moved
		}
		needed := map[block.ID]bool{}
		if err == nil && p.each(is.Ref, is.Size, func(id block.ID) { needed[id] = true }) != nil {
			return // the versions may share blocks
		}
		_ = p.each(e.Ref, e.Size, func(id block.ID) { // as far as it is known
			if !needed[id] {
				p.d.cache.Demote(id)
			}
		})
	})
}

// each calls fn with the blocks of a content, as far as its lists are here.
func (p *past) each(r tree.Ref, size int64, fn func(block.ID)) error {
	if r.ID.IsZero() {
		return nil
	}
	return chunk.Blocks(r.Depth, r.ID, size, func(id block.ID) ([]byte, error) {
		sealed, err := p.d.cache.Read(id)
		if err != nil {
			return nil, err
		}
		return p.d.keys.Open(id, block.List, sealed)
	}, func(id block.ID, _ block.Type) error { fn(id); return nil })
}
