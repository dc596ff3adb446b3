package file

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/roamfs/roamfs/sync/block"
	"github.com/roamfs/roamfs/sync/chunk"
	"github.com/roamfs/roamfs/sync/tree"
)

// flight is one block being fetched and decoded. Whoever began it does the
// work with its own context; the others wait, and if it was cancelled one of them begins
// anew.
type flight struct {
	ahead bool          // fetched at readahead priority
	done  chan struct{} // closed once data and err are final
	data  []byte        // read-only
	err   error
}

// flights are the blocks being decoded.
type flights struct {
	mu sync.Mutex
	by map[block.ID]*flight
}

// board returns the flight of id, and whether the caller has to fly it.
func (fs *flights) board(id block.ID, ahead bool) (f *flight, pilot bool) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if f := fs.by[id]; f != nil {
		return f, false
	}
	f = &flight{ahead: ahead, done: make(chan struct{})}
	fs.by[id] = f
	return f, true
}

func (fs *flights) land(id block.ID, f *flight) {
	fs.mu.Lock()
	delete(fs.by, id)
	fs.mu.Unlock()
	close(f.done)
}

func (fs *flights) flying(id block.ID) bool {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	return fs.by[id] != nil
}

// chunk returns the content of a data extent: read-only, e.Len bytes.
func (t *Table) chunk(ctx context.Context, ino tree.Ino, e chunk.Extent, a *ahead) ([]byte, error) {
	use := a == nil || a.moved(e.ID)
	for {
		if data, ok := t.chunks.get(e.ID, use); ok {
			return data, nil
		}
		f, pilot := t.flights.board(e.ID, false)
		if pilot {
			t.fly(ctx, f, ino, e, t.o.Blocks.Get, false)
		} else if err := t.await(ctx, f, e.ID); err != nil {
			return nil, err
		}
		if f.err == nil {
			if f.ahead {
				t.chunks.get(e.ID, false) // it is not unused any more
			}
			return f.data, nil
		}
		if pilot || ctx.Err() != nil || !f.ahead && !cancelled(f.err) {
			return nil, f.err
		}
	}
}

func cancelled(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

// await waits for a flight that somebody else began. If it is on its way at
// readahead priority, asking for the block raises that.
func (t *Table) await(ctx context.Context, f *flight, id block.ID) error {
	if f.ahead && !t.o.Blocks.Has(id) {
		select {
		case <-f.done:
		default:
			if _, err := t.o.Blocks.Get(ctx, id); err != nil {
				return err
			}
		}
	}
	select {
	case <-f.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// fly fetches and decodes a block and keeps it in memory.
func (t *Table) fly(ctx context.Context, f *flight, ino tree.Ino, e chunk.Extent,
	get func(context.Context, block.ID) ([]byte, error), fresh bool,
) {
	defer t.flights.land(e.ID, f)
	t.hint(ino, e.ID)
	sealed, err := get(ctx, e.ID)
	if err == nil {
		f.data, err = t.o.Keys.OpenVerified(e.ID, block.Data, sealed) // by Blocks
	}
	if err == nil && int64(len(f.data)) != e.Len {
		err = fmt.Errorf("block %v holds %d bytes, not %d: %w", e.ID, len(f.data), e.Len, block.ErrDamaged)
	}
	if err != nil {
		f.data, f.err = nil, err
		return
	}
	t.chunks.put(e.ID, f.data, e.Len+128, fresh)
}
