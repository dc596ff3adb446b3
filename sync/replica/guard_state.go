package replica

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/roamfs/roamfs/peer/device"
	"github.com/roamfs/roamfs/sync/guard"
	"github.com/roamfs/roamfs/sync/manifest"
	"github.com/roamfs/roamfs/sync/store"
	"github.com/roamfs/roamfs/sync/tree"
)

// stateHold is that the whole state of a device was not joined, since too much of
// the tree would be lost. The state is not kept: it is asked for again once the
// user has decided. Until then no state is asked for, as that of another
// device is likely to say the same.
//
// In the database it is the value "stateheld" device, in JSON.
type stateHold struct {
	Removed   int      `json:"removed"`
	Rewritten int      `json:"rewritten"`
	Since     int64    `json:"since"` // ns
	Paths     []string `json:"paths"`
	Verdict   string   `json:"verdict"` // what the user decided about the next state
}

const (
	stateHeldKey  = "stateheld"
	verdictAccept = "accept"
	verdictReject = "reject"
)

func (r *Replica) loadStateHolds() error {
	return r.st.Values(stateHeldKey, func(rest string, v []byte) error {
		var dev device.ID
		h := &stateHold{}
		if len(rest) != len(dev) || json.Unmarshal(v, h) != nil {
			return fmt.Errorf("%w: state that is held back", store.ErrDamaged)
		}
		copy(dev[:], rest)
		r.guard.states[dev] = h
		return nil
	})
}

func (r *Replica) saveStateHold(dev device.ID, h *stateHold) error {
	v, err := json.Marshal(h)
	if err != nil {
		return err
	}
	return r.st.Update(func(tx *store.Tx) error { tx.SetValue(stateHeldKey+string(dev[:]), v); return nil })
}

// stateHeld reports whether the state of a peer would be held back.
func (r *Replica) stateHeld(p *session) bool {
	s := &r.sessions
	s.mu.Lock()
	theirs := p.theirs.Clone()
	s.mu.Unlock()
	r.mu.RLock()
	defer r.mu.RUnlock()
	for _, h := range r.guard.states {
		if h.Verdict == "" {
			return true
		}
	}
	for a, h := range r.guard.holds {
		if theirs[a] >= h.first {
			return true
		}
	}
	return false
}

// decideStateLocked notes what to do with the next state of a device. It reports
// whether one was held.
func (r *Replica) decideStateLocked(dev device.ID, verdict string) (bool, error) {
	h := r.guard.states[dev]
	if h == nil || h.Verdict != "" {
		return false, nil
	}
	h.Verdict = verdict
	if err := r.saveStateHold(dev, h); err != nil {
		return false, err
	}
	r.sessions.greetAll()
	return true, nil
}

// judgeStateLocked returns [errHeld] if a received state takes away too much. If
// it was decided to reject that, what it takes away is noted, to be brought back.
func (r *Replica) judgeStateLocked(in *incoming, mine tree.Vector) error {
	if r.cfg.Guard == 0 || in.keep {
		return nil
	}
	dev := in.m.Device
	h := r.guard.states[dev]
	if h != nil && h.Verdict == verdictAccept {
		return nil
	}
	if names, err := r.namesLocked(guard.Floor + 1); err != nil || names <= guard.Floor {
		return err
	}
	var d manifest.Delta
	drops := 0
	if err := r.mergeLocked(in, mine, func(bool) bool { return true }, func(put []tree.Record, drop []tree.KeyDot) error {
		d.Put, d.Drop = append(d.Put, put...), append(d.Drop, drop...)
		drops += len(drop)
		return nil
	}); err != nil {
		return err
	}
	if drops <= guard.Floor {
		return nil
	}
	tree.SortRecords(d.Put)
	slices.SortFunc(d.Drop, tree.KeyDot.Compare)
	var a guard.Account
	now := r.cfg.Now().UnixNano()
	c := guard.Commit{Wall: in.m.Wall, Delta: d}
	e, err := a.Assess(c, now, r.st.Records)
	if err != nil {
		return err
	}
	a.Apply(e)
	if h != nil && h.Verdict == verdictReject {
		return r.planLocked(&a, tree.Actor{})
	}
	over, err := r.overLocked(&a, guard.Effect{}, c, 0, func() (guard.Tree, error) {
		after := guard.NewOverlay(r.st)
		return after, after.Apply(d)
	})
	if err != nil || !over {
		return err
	}
	removed, rewritten := a.Count()
	h = &stateHold{Removed: removed, Rewritten: rewritten, Since: now, Paths: r.samplesLocked(&a)}
	if err := r.saveStateHold(dev, h); err != nil {
		return err
	}
	r.guard.states[dev] = h
	r.log.Warn("the tree of a device takes away much of what is here: it is held back until that is accepted", "device", r.name(dev), "removed", removed, "rewritten", rewritten)
	return errHeld
}

// joinedStateLocked ends what was decided about the state that was joined.
func (r *Replica) joinedStateLocked(dev device.ID) (aff tree.Affected, err error) {
	r.guard.counted = r.guard.counted.AddDate(-1, 0, 0) // count anew
	if r.guard.states[dev] != nil {
		if err := r.st.Update(func(tx *store.Tx) error { tx.SetValue(stateHeldKey+string(dev[:]), nil); return nil }); err != nil {
			return aff, err
		}
		delete(r.guard.states, dev)
	}
	return r.restoreLocked()
}
