package replica

import (
	"fmt"
	"slices"
	"time"

	"github.com/roamfs/roamfs/peer/device"
	"github.com/roamfs/roamfs/sync/guard"
	"github.com/roamfs/roamfs/sync/tree"
)

// Pending is what is held back of one device.
type Pending struct {
	Device             device.Member
	Removed, Rewritten int
	Since              time.Time
	Commits            int      // kept here, with those that build on it
	Whole              bool     // it comes as a whole state, which is not kept here
	Paths              []string // some of what would be lost, at most mostSamples
}

const mostSamples = 10

// Pending returns what is held back, by the label of the device.
func (r *Replica) Pending() []Pending {
	r.mu.RLock()
	defer r.mu.RUnlock()
	var out []Pending
	for a, h := range r.guard.holds {
		m, _ := r.Author(a)
		p := Pending{Device: m, Since: time.Unix(0, h.since), Commits: len(r.guard.held)}
		p.Removed, p.Rewritten = h.account.Count()
		p.Paths = r.samplesLocked(h.account)
		out = append(out, p)
	}
	for dev, h := range r.guard.states {
		if h.Verdict != "" {
			continue
		}
		m, _ := r.cfg.Members.Member(dev)
		out = append(out, Pending{Device: m, Since: time.Unix(0, h.Since), Removed: h.Removed, Rewritten: h.Rewritten, Whole: true, Paths: h.Paths})
	}
	slices.SortFunc(out, func(a, b Pending) int {
		if a.Device.Label != b.Device.Label {
			if a.Device.Label < b.Device.Label {
				return -1
			}
			return 1
		}
		return a.Since.Compare(b.Since)
	})
	return out
}

func (r *Replica) samplesLocked(a *guard.Account) (paths []string) {
	a.Lost(func(ino tree.Ino, l guard.Loss) {
		if len(paths) >= mostSamples || l.Kind == guard.Replaced {
			return
		}
		if p, err := r.view.Path(ino); err == nil {
			paths = append(paths, p)
		} else if o := formerOf(l.Before); len(o.links) > 0 {
			dir, err := r.view.Path(o.links[0].Parent)
			if err != nil || dir == "/" {
				dir = ""
			}
			paths = append(paths, dir+"/"+o.links[0].Name)
		}
	})
	slices.Sort(paths)
	return paths
}

// Accept lets through what is held back of a device up to now. It reports
// [ErrNothingHeld] if there is nothing.
func (r *Replica) Accept(dev device.ID) error {
	aff, err := func() (aff tree.Affected, err error) {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.broken {
			return aff, ErrBroken
		}
		any, err := r.decideStateLocked(dev, verdictAccept)
		if err != nil {
			return aff, err
		}
		for _, a := range r.heldActorsLocked(dev) {
			any = true
			one, err := r.releaseLocked(a, true)
			aff.Entries, aff.Inodes = append(aff.Entries, one.Entries...), append(aff.Inodes, one.Inodes...)
			if err != nil {
				return aff, err
			}
		}
		if !any {
			return aff, ErrNothingHeld
		}
		return aff, nil
	}()
	r.tell(aff)
	r.tellSettings()
	if err != nil {
		return fmt.Errorf("accept: %w", err)
	}
	return r.Publish()
}

func (r *Replica) heldActorsLocked(dev device.ID) (out []tree.Actor) {
	m, in := r.cfg.Members.Member(dev)
	if !in { // removed meanwhile
		m, _ = r.cfg.Members.WasMember(dev)
	}
	for a := range r.guard.holds {
		if madeBy(m, a) {
			out = append(out, a)
		}
	}
	slices.SortFunc(out, tree.Actor.Compare)
	return out
}
