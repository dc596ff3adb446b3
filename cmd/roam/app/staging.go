package app

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/roamfs/roamfs/sync/block"
	"github.com/roamfs/roamfs/sync/replica"
)

// stagingRoom finds room for n bytes of a tree that is going to be received, or of
// what is kept of it: within the bound of the state directory, for which blocks are evicted if need
// be, and on the disk, for a device without a bound.
func (d *live) stagingRoom(ctx context.Context, n int64) (replica.Room, error) {
	if d.cache == nil {
		return nil, fmt.Errorf("the block store is not open: %w", block.ErrNoRoom)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(d.state.Dir(), &st); err != nil {
		return nil, fmt.Errorf("free room of the disk: %w", err)
	}
	if free := st.Bavail * uint64(st.Bsize); uint64(n) > free {
		return nil, fmt.Errorf("%d bytes where the disk has %d: %w", n, free, block.ErrNoRoom)
	}
	r, err := d.cache.Reserve(ctx, n)
	if err != nil {
		return nil, err // not a nil *Reservation in an interface
	}
	return r, nil
}
