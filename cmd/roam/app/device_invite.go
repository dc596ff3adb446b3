package app

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/roamfs/roamfs/peer/device"
	"github.com/roamfs/roamfs/peer/pairing"
)

// Invite opens an invite and waits for a device; see [Device].
func (d *live) Invite(ctx context.Context, o InviteOptions, fn func(InviteEvent)) (err error) {
	ctx, cancel := context.WithTimeout(ctx, o.TTL)
	defer cancel()
	var joined device.ID
	inv, err := pairing.Open(pairing.OpenConfig{
		Key: d.id.key.Private(), Expires: time.Now().Add(o.TTL), Log: d.log,
		Welcome: func(dev device.ID, req pairing.Request) ([]byte, error) {
			w, err := d.enrol(dev, req, o.Role)
			joined = dev
			return w, err
		},
	})
	if err != nil {
		return fmt.Errorf("invite: %w", err)
	}
	defer func() { err = errors.Join(err, inv.Close()) }()
	fn(InviteEvent{Schema: Schema, Code: inv.Code(), Expires: new(inv.Invite().Expires.UTC())})
	err = inv.Wait(ctx)
	switch {
	case errors.Is(err, pairing.ErrExpired), errors.Is(err, context.DeadlineExceeded):
		return ErrExpired
	case errors.Is(err, pairing.ErrFailures):
		fn(InviteEvent{Schema: Schema, Refused: err.Error()})
		return failure(CodeFailed, "make a new one with `roam invite`", "%w", err)
	case err != nil:
		return err
	}
	// It is a member now. Wait until it shows the tree as well: until it says so,
	// or has come and gone again, as a join does once it has everything.
	came := false
	err = d.await(ctx, shownWait, func() bool {
		_, there := d.replica.Caught(joined)
		here := slices.Contains(d.host.Connected(), joined)
		came = came || here
		return there || (came && !here)
	})
	if err != nil && !errors.Is(err, errNoProgress) && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	ref := d.ref(joined)
	fn(InviteEvent{Schema: Schema, Joined: &ref})
	return nil
}

// shownWait is how long an invite waits for the new device to come back while
// nothing happens; it is a member in any case.
const shownWait = 3 * time.Second

// enrol makes a device that has proved to know the code a member, and returns
// what it needs to be one.
func (d *live) enrol(dev device.ID, req pairing.Request, role string) ([]byte, error) {
	as := req.Role
	if role != "" && !req.RoleGiven {
		var err error
		if as, err = device.ParseRole(role); err != nil {
			return nil, err
		}
	}
	if _, ok := d.id.current(); !ok {
		return nil, errors.New("this device has yet to learn the newest secret of the hive from another one; let another device invite")
	}
	actor, err := newActor(dev)
	if err != nil {
		return nil, err
	}
	if err := d.replica.Add(dev, device.CleanLabel(req.Label), as, actor); err != nil {
		return nil, err
	}
	w := welcome{
		actor: actor, secrets: d.id.all(),
		members: d.id.members, addresses: d.host.Addrs(),
	}
	return w.encode(), nil
}
