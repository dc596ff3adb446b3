package app

import (
	"context"
	"log/slog"
	"time"

	"github.com/roamfs/roamfs/peer/device"
	"github.com/roamfs/roamfs/sync/history"
)

// hourly decides when an automatic snapshot is made. While nothing changes it does
// nothing, not even a look at the tree.
type hourly struct {
	up    time.Time     // the device runs since
	waits time.Duration // for others to make it

	root   func() ([32]byte, error)                // over all records
	newest func() (time.Time, error)               // of the snapshots; zero if there is none
	make   func(ctx context.Context) (bool, error) // false: the newest has all that there is
	thin   func(now time.Time) error

	seen  [32]byte  // the root of a tree of which nothing is to be kept
	after time.Time // no step before it
}

// hourlyAgain is how long it takes until a snapshot that could not be made is
// tried again: the cache may be full.
const hourlyAgain = 10 * time.Minute

// step makes a snapshot if it is time.
func (h *hourly) step(ctx context.Context, now time.Time) error {
	if now.Before(h.after) {
		return nil
	}
	newest, err := h.newest()
	if err != nil || !history.Due(now, h.up, newest, h.waits) {
		return err
	}
	root, err := h.root()
	if err != nil || root == h.seen {
		return err
	}
	made, err := h.make(ctx)
	if err == nil && made {
		err = h.thin(now)
	}
	if err != nil {
		h.after = now.Add(hourlyAgain)
		return err
	}
	if !made { // what changed while one was made, and the snapshot itself, is looked at next time
		h.seen = root
	}
	return nil
}

// run makes automatic snapshots until ctx ends.
func (p *past) run(ctx context.Context) error {
	h := hourly{
		up: time.Now(), waits: history.CacheWaits,
		root: func() ([32]byte, error) {
			root, _, err := p.d.replica.State()
			return root, err
		},
		newest: func() (time.Time, error) {
			all, err := p.Snapshots()
			if err != nil || len(all) == 0 {
				return time.Time{}, err
			}
			return all[len(all)-1].Time, nil
		},
		make: func(ctx context.Context) (bool, error) {
			_, made, err := p.make(ctx, history.Automatic, "")
			return made, err
		},
		thin: p.thin,
	}
	if p.d.self.Role == device.Archive {
		h.waits = history.ArchiveWaits
	}
	return h.run(ctx, p.d.log)
}

func (h *hourly) run(ctx context.Context, log *slog.Logger) error {
	tick := time.NewTicker(time.Minute)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if err := h.step(ctx, time.Now()); err != nil && ctx.Err() == nil {
			log.Warn("no snapshot is made", "err", err)
		}
	}
}
