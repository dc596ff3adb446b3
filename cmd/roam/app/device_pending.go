package app

import (
	"context"
	"errors"

	"github.com/roamfs/roamfs/peer/device"
	"github.com/roamfs/roamfs/sync/replica"
)

// everyone is the name that stands for all devices of which something is held back.
const everyone = "all"

// Pending lists what is held back; see [Device].
func (d *live) Pending(context.Context) ([]Pending, error) { return d.pending(), nil }

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
			return done, err
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
