package app

import (
	"context"
	"errors"
	"strings"

	"github.com/roamfs/roamfs/peer/device"
	"github.com/roamfs/roamfs/sync/replica"
)

// everyone is the name that stands for all devices of which something is held back.
const everyone = "all"

// Pending lists what is held back; see [Device].
func (d *live) Pending(context.Context) ([]Pending, error) {
	out := d.pending()
	for _, m := range d.id.members.Former() {
		if n := d.replica.HeldBack(m); n > 0 {
			out = append(out, Pending{Device: DeviceRef{ID: m.ID.String(), Name: m.Label}, Since: m.RevokedAt.UTC(), Late: n})
		}
	}
	return out, nil
}

func (d *live) pending() []Pending {
	var out []Pending
	for _, h := range d.replica.Pending() {
		p := Pending{
			Device:  DeviceRef{ID: h.Device.ID.String(), Name: h.Device.Label},
			Removes: h.Removed, Rewrites: h.Rewritten, Since: h.Since, WholeTree: h.Whole,
		}
		for _, path := range h.Paths {
			p.Paths = append(p.Paths, Path{Path: path})
		}
		out = append(out, p)
	}
	return out
}

// Decide accepts or rejects what is held back; see [Device].
func (d *live) Decide(_ context.Context, name string, accept bool) (done Decided, err error) {
	var devs []device.ID
	if name == everyone && accept {
		for _, h := range d.replica.Pending() {
			devs = append(devs, h.Device.ID)
		}
	} else {
		m, err := d.called(name)
		if err != nil {
			return done, d.onlyShown(name, err)
		}
		devs = []device.ID{m.ID}
	}
	decide := d.replica.Reject
	if accept {
		decide = d.replica.Accept
	}
	for _, dev := range devs {
		err := decide(dev)
		if errors.Is(err, replica.ErrNothingHeld) {
			continue // or it went with another
		}
		if err != nil {
			return done, err
		}
		done.Devices = append(done.Devices, d.ref(dev))
	}
	if len(done.Devices) == 0 {
		of := " of " + name
		if name == everyone {
			of = ""
		}
		return done, failure(CodeNotFound, "`roam pending` lists what is held back", "nothing%s is held back", of)
	}
	return done, nil
}

// onlyShown explains why nothing can be decided about a device that was removed and did
// something later; it returns err for any other name.
func (d *live) onlyShown(name string, err error) error {
	for _, m := range d.id.members.Former() {
		if strings.EqualFold(m.Label, name) && d.replica.HeldBack(m) > 0 {
			return failure(CodeNotFound, "run `roam rescue DIR` on "+m.Label+", and copy what you want of DIR into the hive",
				"%s was removed: what it did later is on that device alone", m.Label)
		}
	}
	return err
}
