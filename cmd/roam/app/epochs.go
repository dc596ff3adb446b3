package app

import (
	"context"
	"time"

	"github.com/roamfs/roamfs/peer/device"
	"github.com/roamfs/roamfs/sync/block"
)

// mendTime is how much longer each member than the one admitted before it waits
// before it does what any of them can do, so that not all of them do it at once.
const mendTime = 5 * time.Second

// current returns the secret of the epoch in which members seal, if it is here.
func (id *identity) current() (device.EpochSecret, bool) {
	n, name := id.members.Epoch()
	for _, e := range id.all() {
		if e.Epoch == n && (n == device.FirstEpoch || e.ID() == name) {
			return e, true
		}
	}
	return device.EpochSecret{}, false
}

// all returns the secrets that this device has: those that it was given when it was
// paired, and those that the membership log has for it.
func (id *identity) all() []device.EpochSecret {
	return append(append([]device.EpochSecret(nil), id.secrets...), id.members.Secrets(id.key)...)
}

// keys returns the block keys of all secrets that are here.
func (id *identity) keys() (*block.Keys, error) {
	first := id.secrets[0] // there is one: [loadIdentity]
	keys, err := block.NewKeys(first.Epoch, map[uint32]block.Secret{first.Epoch: first.Secret})
	if err != nil {
		return nil, err
	}
	return keys, id.learn(keys)
}

// learn tells keys all secrets that are here, and in which epoch to seal. As long as
// the secret of the newest one is not here, that is the one before.
func (id *identity) learn(keys *block.Keys) error {
	now, known := id.current()
	for _, e := range id.all() {
		if err := keys.Learn(e.Epoch, e.Secret, known && e == now); err != nil {
			return err
		}
	}
	return nil
}

// learnSecrets learns what the membership log has for this device.
func (d *live) learnSecrets() {
	d.learning.Lock() // what was looked at last is what counts
	defer d.learning.Unlock()
	before := d.keys.Epoch()
	if err := d.id.learn(d.keys); err != nil {
		d.log.Error("secrets of the hive", "err", err)
	}
	if now := d.keys.Epoch(); now != before {
		d.log.Info("sealing in a new epoch", "epoch", now)
	}
}

// mendEpochs sees to it, until ctx ends, that members seal in an epoch whose
// secret no revoked device knows and every member has.
func (d *live) mendEpochs(ctx context.Context) error {
	for {
		var due <-chan time.Time
		if wait, ok := d.mendDue(); ok {
			due = time.After(wait)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-d.news:
		case <-due:
			if err := d.mendEpoch(); err != nil {
				d.log.Error("new epoch", "err", err)
				select { // what is amiss may pass
				case <-ctx.Done():
					return ctx.Err()
				case <-d.news:
				case <-time.After(time.Minute):
				}
			}
		}
	}
}

// mendDue returns how long to leave it to others to do something about the epoch,
// and whether there is anything to do that this device can.
func (d *live) mendDue() (time.Duration, bool) {
	stale, lacking := d.id.members.Stale(), d.id.members.Lacking()
	_, known := d.id.current()
	if !stale && (len(lacking) == 0 || !known) {
		return 0, false
	}
	for i, m := range d.id.members.Members() {
		if m.ID == d.self.ID {
			return time.Duration(i) * mendTime, true
		}
	}
	return 0, false // this device is out
}

func (d *live) mendEpoch() error {
	if _, ok := d.mendDue(); !ok {
		return nil // somebody has done it
	}
	if d.id.members.Stale() {
		return d.replica.Rotate()
	}
	now, _ := d.id.current()
	return d.replica.ShareEpoch(now)
}
