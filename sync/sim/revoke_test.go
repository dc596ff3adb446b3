package sim

import "github.com/roamfs/roamfs/peer/device"

// shutOut revokes a device, if enough others are left. One that has added another
// one stays: with it would go whatever it has added, and perhaps nobody else
// knows that.
func (w *world) shutOut(m, of *machine) {
	if left := w.belonging() - 1; left < 2 || of.revoked || of.sponsor {
		return
	}
	err := m.rep.Revoke(w.key(ownerKey), of.key.ID(), device.ClassLost)
	w.logf("%s: revokes %s: %v", m.name, of.name, err)
	if m.dead.Load() || err == nil {
		for _, o := range w.machines { // all copies of it
			o.revoked = o.revoked || o.key.ID() == of.key.ID()
		}
	}
}

// belonging returns how many machines belong to the hive.
func (w *world) belonging() (n int) {
	for _, m := range w.machines {
		if !m.revoked && m.birth != nil {
			n++
		}
	}
	return n
}
