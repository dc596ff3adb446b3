package copies

import (
	"context"
	"testing"

	"github.com/roamfs/roamfs/sync/block"
	"github.com/roamfs/roamfs/sync/tree"
)

// TestArchiveCopies: an archive brings everything here that can be had.
func TestArchiveCopies(t *testing.T) {
	w := newWorld(t)
	x, copied, y, gone := w.make(40), w.make(2), w.make(1), w.make(1)
	w.set(ino(1), x, copied)
	w.set(ino(2), gone)
	w.offer(x, copied, y)
	lost := x.data[0]
	delete(w.far, lost)
	slow := make(chan struct{})
	w.filling = func(id block.ID) {
		if id != lost && id != x.list {
			<-slow // the failure is there long before the others come
		}
	}
	k := w.keeper(true)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- k.Run(ctx) }()
	await(t, func() bool { return k.Settled() })
	if k.Missing() != 2 {
		t.Errorf("%d files under way are missing, want 2", k.Missing())
	}
	close(slow)
	await(t, func() bool { return w.missing(x)+w.missing(copied) == 1 })
	w.set(ino(3), y)
	k.Adopted([]tree.Ino{ino(3)})
	await(t, func() bool { return w.missing(y) == 0 && k.Missing() == 2 })
	// The rest comes once a device has it.
	w.mu.Lock()
	w.far[lost] = x.all[lost]
	w.mu.Unlock()
	w.offer(gone)
	k.Reconnected()
	await(t, func() bool { return w.missing(x)+w.missing(gone) == 0 && k.Missing() == 0 })
	// A block that was damaged is brought here again.
	w.evict(y.data[0])
	k.Dropped()
	await(t, func() bool { return w.missing(y) == 0 })
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}
