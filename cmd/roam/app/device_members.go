package app

import (
	"context"
	"errors"
	"strings"

	"github.com/roamfs/roamfs/peer/device"
)

// Rename gives a member another name; see [Device].
func (d *live) Rename(_ context.Context, old, name string) error {
	m, err := d.called(old)
	if err != nil {
		return err
	}
	if err := device.CheckLabel(strings.ToLower(name)); err != nil {
		return usage("%w", err)
	}
	err = d.replica.RenameDevice(m.ID, name)
	if errors.Is(err, device.ErrTaken) {
		return usage("%w", err)
	}
	return err
}

// SetRole gives a member another role; see [Device].
func (d *live) SetRole(_ context.Context, name, role string) error {
	m, err := d.called(name)
	if err != nil {
		return err
	}
	r, err := device.ParseRole(role)
	if err != nil {
		return usage("%w", err)
	}
	if r == m.Role {
		return nil
	}
	return d.replica.SetDeviceRole(m.ID, r)
}

// called returns the member with a name.
func (d *live) called(name string) (device.Member, error) {
	for _, m := range d.id.members.Members() {
		if strings.EqualFold(m.Label, name) {
			return m, nil
		}
	}
	return device.Member{}, failure(CodeNotFound, "`roam devices` lists them", "no device is called %s", clip(name))
}
