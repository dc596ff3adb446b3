package peer

import (
	"slices"
	"time"

	"github.com/roamfs/roamfs/peer/device"
	"github.com/roamfs/roamfs/sync/block"
)

// maxFailed is how many blocks that could not be fetched are remembered.
const maxFailed = 64

// unavailable is the error of a fetch for which nobody is left.
func (f *fetch) unavailable() error {
	e := f.e
	err := &block.UnavailableError{ID: f.id, Holders: e.expected(f.id), Err: f.last}
	if f.lane > 0 {
		return err // nobody waits for it
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	u := Unavailable{ID: f.id, Holders: err.Holders, At: time.Now(), Times: 1}
	if i := slices.IndexFunc(e.failed, func(u Unavailable) bool { return u.ID == f.id }); i >= 0 {
		u.Times += e.failed[i].Times
		e.failed = slices.Delete(e.failed, i, i+1)
	}
	e.failed = append(e.failed, u)
	if len(e.failed) > maxFailed {
		e.failed = slices.Delete(e.failed, 0, 1)
	}
	return err
}

// succeeded forgets that a block could not be fetched.
func (e *Exchange) succeeded(id block.ID) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.failed = slices.DeleteFunc(e.failed, func(u Unavailable) bool { return u.ID == id })
}

// Unavailable returns the blocks that programs waited for and that could not be
// fetched, nor since: the last 64, oldest first.
func (e *Exchange) Unavailable() []Unavailable {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.failed)
}

// expected returns the names of the devices that hold a block; if none is known,
// of the archives, which hold everything; else of the device that was hinted at.
func (e *Exchange) expected(id block.ID) []string {
	devs, err := e.cfg.Holdings.Holders(id)
	if err != nil {
		e.log.Warn("holders not known", "block", id, "err", err)
	}
	devs = slices.DeleteFunc(slices.Clone(devs), func(dev device.ID) bool { return dev == e.cfg.Self })
	var archives []device.ID
	for _, m := range e.cfg.Members() {
		if m.Role == device.Archive && m.ID != e.cfg.Self && !m.Revoked {
			archives = append(archives, m.ID)
		}
	}
	if len(devs) == 0 {
		devs = archives
	}
	if len(devs) == 0 {
		e.mu.Lock()
		dev, ok := e.hints[id]
		e.mu.Unlock()
		if ok && dev != e.cfg.Self {
			devs = []device.ID{dev}
		}
	}
	names := make([]string, 0, len(devs))
	for _, dev := range devs {
		names = append(names, e.label(dev))
	}
	slices.Sort(names)
	return names
}
