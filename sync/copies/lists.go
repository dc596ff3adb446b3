package copies

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/roamfs/roamfs/sync/block"
	"github.com/roamfs/roamfs/sync/chunk"
	"github.com/roamfs/roamfs/sync/tree"
)

// lists are sealed list blocks, and blocks of directories of snapshots, that were fetched and for which the cache had no
// room. A cache that is full of garbage has none, and they are needed to find it.
type lists struct {
	mu      sync.Mutex
	of      map[block.ID][]byte
	bytes   int
	full    bool // one did not fit
	emptied time.Time
}

// listMemory bounds the lists in memory, in bytes: they tell of about 100 GiB of
// content. Some of them may be needed no more, so they are thrown away when
// there are too many, but not again before listsFor has passed.
const (
	listMemory = 16 << 20
	listsFor   = 10 * time.Minute
)

func (l *lists) get(id block.ID) []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.of[id]
}

func (l *lists) put(id block.ID, sealed []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ok := l.of[id]; ok {
		return
	}
	if l.bytes+len(sealed) > listMemory {
		l.full = true
		return
	}
	if l.of == nil {
		l.of = map[block.ID][]byte{}
	}
	l.of[id] = sealed
	l.bytes += len(sealed)
}

// room reports whether it may help to fetch more lists for which the cache has
// no room.
func (l *lists) room() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.full && time.Since(l.emptied) >= listsFor {
		l.of, l.bytes, l.full, l.emptied = nil, 0, false, time.Now()
	}
	return !l.full
}

// open returns a function that opens list blocks: resident ones, those in
// memory, and others if get is not nil and obtains them. Its error is an
// [ErrUnknown].
func (k *Keeper) open(get func(block.ID) ([]byte, error)) func(block.ID) ([]byte, error) {
	return func(id block.ID) ([]byte, error) {
		sealed, err := k.cfg.Blocks.Read(id)
		if err != nil {
			if sealed = k.lists.get(id); sealed != nil {
				err = nil
			} else if get != nil {
				sealed, err = get(id)
			}
		}
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrUnknown, err)
		}
		return k.cfg.Keys.Open(id, block.List, sealed)
	}
}

// obtain returns a function that fetches list blocks, and keeps them in memory
// if the cache does not.
func (k *Keeper) obtain(ctx context.Context) func(block.ID) ([]byte, error) {
	return func(id block.ID) ([]byte, error) {
		sealed, err := k.cfg.Blocks.Fill(ctx, id)
		if err == nil && !k.cfg.Blocks.Has(id) {
			k.lists.put(id, sealed)
		}
		return sealed, err
	}
}

// blocks calls fn with every block of a content, list blocks too; get, if it is
// not nil, obtains the sealed bytes of list blocks that are not here.
func (k *Keeper) blocks(r Ref, get func(block.ID) ([]byte, error), fn func(block.ID) error) error {
	if r.ID.IsZero() {
		return nil
	}
	if r.Depth == 0 {
		return fn(r.ID)
	}
	return chunk.Blocks(r.Depth, r.ID, r.Size, k.open(get), func(id block.ID, _ block.Type) error { return fn(id) })
}

// Learn brings the lists of a content here, so that [Keeper.Where] can tell
// which blocks it consists of.
func (k *Keeper) Learn(ctx context.Context, r Ref) error {
	return k.blocks(r, k.obtain(ctx), func(block.ID) error { return nil })
}

// learnFile learns the lists of all contents of a file.
func (k *Keeper) learnFile(ctx context.Context, ino tree.Ino) error {
	if !k.lists.room() {
		return fmt.Errorf("%w: too many lists for which there is no room", ErrUnknown)
	}
	if ino == pastIno {
		return k.learnPast(ctx)
	}
	err := k.cfg.Tree.ContentsOf(ino, func(c tree.Content, _ tree.Dot) error { return k.Learn(ctx, Ref{c.Ref, c.Size}) })
	if err == nil {
		k.alone.learned()
	}
	return err
}

// Tied returns those of ids that must stay here though others have them: the
// lists of files of which something is here only. If one went, this device would not know
// after a restart that the rest is in its keeping. The first call may have to go
// through the whole tree.
func (k *Keeper) Tied(ctx context.Context, ids []block.ID) (map[block.ID]struct{}, error) {
	if err := k.account(ctx); err != nil {
		return nil, err
	}
	_, _, fresh := k.alone.count()
	lists := map[block.ID]struct{}{} // of files that are not in the account as they are now
	for ino, was := range fresh {
		if o, err := k.assess(ino, was); err != nil || o.alone {
			for _, id := range o.lists {
				lists[id] = struct{}{}
			}
		}
	}
	tied := map[block.ID]struct{}{}
	k.alone.mu.Lock()
	defer k.alone.mu.Unlock()
	for _, id := range ids {
		if _, ok := lists[id]; ok || k.alone.lists[id] > 0 {
			tied[id] = struct{}{}
		}
	}
	return tied, nil
}
