package app

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/roamfs/roamfs/peer/device"
	"github.com/roamfs/roamfs/sync/copies"
	"github.com/roamfs/roamfs/sync/tree"
)

// Revoke removes a member; see [Device].
func (d *live) Revoke(ctx context.Context, o RevokeOptions) (Revoked, error) {
	m, err := d.called(o.Name)
	if err != nil {
		return Revoked{}, err
	}
	class, err := device.ParseClass(o.Reason)
	if err != nil {
		return Revoked{}, usage("%w", err)
	}
	by, err := d.revoker(m, o.Sheet)
	if err != nil {
		return Revoked{}, err
	}
	if m.ID == d.self.ID {
		if _, err := d.Flush(ctx); err != nil { // what it leaves behind is what the others have then
			return Revoked{}, err
		}
		if len(d.id.members.Members()) > 1 && len(d.host.Connected()) == 0 && !o.Force {
			return Revoked{}, failure(CodeUnreachable, "try again when another device can be reached, or add --force", "no other device would hear of it")
		}
	}
	risk, err := d.risk(ctx, m)
	if err != nil {
		return Revoked{}, err
	}
	if why := risk.text(m.Label); why != "" && !o.Force {
		return Revoked{}, failure(CodeRefused, "copy it away first, or add --force to remove the device all the same", "%s", why)
	}
	if err := d.replica.Revoke(by, m.ID, class); err != nil {
		return Revoked{}, err
	}
	if m.ID == d.self.ID {
		// Whoever hears of it parts from this device.
		err := d.await(ctx, heardTime, func() bool { return len(d.host.Connected()) == 0 })
		if err != nil && !errors.Is(err, errNoProgress) {
			return Revoked{}, err
		}
	}
	return Revoked{
		Device: DeviceInfo{ID: m.ID.String(), Name: m.Label, Role: m.Role.String()},
		This:   m.ID == d.self.ID, Reason: class.String(), AtRisk: risk.amount,
	}, nil
}

// heardTime is how long a device that leaves waits for others to hear of it.
const heardTime = 5 * time.Second

// revoker returns the key that may remove m: that of the owner from a recovery
// sheet or, if m is this device, its own.
func (d *live) revoker(m device.Member, text string) (device.Key, error) {
	if text == "" {
		if m.ID != d.self.ID {
			return device.Key{}, failure(CodeUsage, "add --sheet FILE, or --sheet - to type it in",
				"only the recovery sheet of the hive can remove another device")
		}
		return d.id.key, nil
	}
	sheet, err := device.ParseSheet(text)
	if err != nil {
		return device.Key{}, usage("%w", err)
	}
	if sheet.Hive != d.id.members.Hive() {
		return device.Key{}, failure(CodeFailed, "look for the sheet that says hive "+d.id.members.Hive().String(),
			"this is the recovery sheet of another hive, %s", sheet.Hive)
	}
	return sheet.Key(), nil
}

// risk is what removing a device would put at risk.
type risk struct {
	last    bool // it is the only device
	unheard bool // what it changed last is not known to others
	archive bool // it is the only archive, and there are others
	amount  Amount
}

// text says so in one sentence; "" if nothing is at risk.
func (r risk) text(name string) string {
	switch {
	case r.last:
		return fmt.Sprintf("%s is the last device of the hive", name)
	case r.amount.Files > 0:
		return fmt.Sprintf("%s only on %s as far as is known here", existsText(r.amount), name)
	case r.unheard:
		return fmt.Sprintf("no other device has said yet that it knows the latest changes of %s", name)
	case r.archive:
		return fmt.Sprintf("%s is the last archive of the hive: no other device keeps everything", name)
	}
	return ""
}

// risk finds out what would be at risk without m, by what is known here.
func (d *live) risk(ctx context.Context, m device.Member) (r risk, err error) {
	archives, all := 0, d.id.members.Members()
	for _, o := range all {
		if o.Role == device.Archive {
			archives++
		}
	}
	r.last = len(all) == 1
	r.archive = m.Role == device.Archive && archives == 1
	if m.ID == d.self.ID {
		r.amount.Files, r.amount.Bytes = d.keeper.Waiting()
		r.unheard = d.replica.Unshared()
		return r, nil
	}
	seen := map[tree.Ino]bool{}
	err = d.replica.Contents(func(ino tree.Ino, c tree.Content, _ tree.Dot, _ func() bool) error {
		if c.Ref.ID.IsZero() || seen[ino] {
			return ctx.Err() // travels with the tree
		}
		only, err := d.onlyOn(m.ID, c)
		if err != nil || !only {
			return err
		}
		seen[ino] = true
		r.amount.Files++
		r.amount.Bytes += c.Size
		return ctx.Err()
	})
	return r, err
}

// onlyOn reports whether dev holds something of a content that neither this device nor
// another member holds in whole.
func (d *live) onlyOn(dev device.ID, c tree.Content) (bool, error) {
	w, err := d.keeper.Where(copies.Ref{Ref: c.Ref, Size: c.Size}, nil)
	if err != nil || w.Listed && w.Missing == 0 {
		return false, err
	}
	for other, held := range w.Holders {
		if other != dev && held.Complete {
			return false, nil
		}
	}
	_, holds := w.Holders[dev]
	return holds, nil
}

// formers lists the devices that do not belong to the hive any more.
func (d *live) formers() (out []Member) {
	for _, m := range d.id.members.Former() {
		out = append(out, Member{
			DeviceInfo: DeviceInfo{ID: m.ID.String(), Name: m.Label, Role: m.Role.String()},
			This:       m.ID == d.self.ID, Added: m.Added.UTC(),
			Revoked: new(m.RevokedAt.UTC()), Reason: m.Class.String(),
			HeldBack: &HeldBack{Commits: d.replica.HeldBack(m)},
		})
	}
	return out
}

// heldBack counts what all of them did that does not count.
func (d *live) heldBack() (h HeldBack) {
	for _, m := range d.id.members.Former() {
		h.Commits += d.replica.HeldBack(m)
	}
	return h
}

// membersChanged acts on a membership log that has grown: it parts from devices
// that are out, and learns the secrets that are in it.
func (d *live) membersChanged() {
	d.learnSecrets()
	if d.host == nil || d.exchange == nil {
		return // being opened
	}
	for _, dev := range d.host.Connected() {
		if !d.isMember(dev) {
			d.host.Disconnect(dev)
		}
	}
	if d.replica.Revoked() {
		d.log.Error("this device was removed from the hive", "err", errRevoked)
	}
	d.keeper.LostAll() // the copies of a device that is out do not count
	d.cache.Reconsider()
	select {
	case d.news <- struct{}{}:
	default:
	}
}

// errRevoked says what has become of a device that is out.
var errRevoked = errors.New("it takes part in nothing any more; its files can be read here, as far as their content is here, and not be changed")

// out tells whether a device was a member and is none any more.
func (d *live) out(dev device.ID) bool {
	return slices.ContainsFunc(d.id.members.Former(), func(m device.Member) bool { return m.ID == dev })
}
