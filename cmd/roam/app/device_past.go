package app

import (
	"context"
	"time"
)

// HistoryStatus is what only old versions need. It does not keep a device from being
// shut down: nothing is lost by that, old versions are just not to be had meanwhile.
type HistoryStatus struct {
	OnlyHereBytes int64      `json:"only_here_bytes"` // on this device and on no other, beside cache.only_here_bytes
	Complete      bool       `json:"complete"`        // false: there may be more that cannot be told
	AsOf          *time.Time `json:"as_of"`           // nil: not counted yet
}

// The snapshots are gone through when something was heard that matters, and every
// pastEvery if the tree has changed, but for a fiftieth of the time at most.
const (
	pastEvery = 10 * time.Minute
	pastRest  = 2 * time.Second
	pastShare = 50
)

// recount asks for another count.
func (p *past) recount() {
	select {
	case p.again <- struct{}{}:
	default:
	}
}

// count counts what of old versions is on this device only, until ctx ends.
func (p *past) count(ctx context.Context) error {
	seen := uint64(0)
	for p.recount(); ; {
		select {
		case <-ctx.Done():
			return nil
		case <-p.again:
		case <-time.After(pastEvery):
			if p.d.replica.Changes() == seen {
				continue
			}
		}
		seen = p.d.replica.Changes()
		rest := pastRest
		if began := time.Now(); p.d.keeper.Settled() {
			bytes, all, err := p.d.keeper.OldOnlyHere(ctx)
			if err == nil {
				p.counted.Store(&HistoryStatus{OnlyHereBytes: bytes, Complete: all, AsOf: new(time.Now().UTC())})
			} else if ctx.Err() == nil {
				p.d.log.Warn("copies of old versions", "err", err)
			}
			rest = max(pastRest, pastShare*time.Since(began))
		} else {
			p.recount() // what the tree needs cannot be told apart yet
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(rest):
		}
	}
}
