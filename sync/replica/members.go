package replica

import (
	"fmt"

	"github.com/roamfs/roamfs/peer/device"
	"github.com/roamfs/roamfs/sync/store"
)

// MembersKey is the value of the database that holds the membership log.
const MembersKey = "members"

// Add makes dev a member, signed by this device, and tells the peers. The
// label may come out with a number appended if it is taken.
func (r *Replica) Add(dev device.ID, label string, role device.Role, actor [8]byte) error {
	if _, err := r.cfg.Members.Add(r.cfg.Key, dev, label, role, actor, r.cfg.Now()); err != nil {
		return fmt.Errorf("add device: %w", err)
	}
	if err := r.saveMembers(); err != nil {
		return fmt.Errorf("add device: %w", err)
	}
	r.membersChanged()
	return nil
}

// RenameDevice gives a member another label and tells the peers.
func (r *Replica) RenameDevice(dev device.ID, label string) error {
	return r.say(r.cfg.Members.Rename(r.cfg.Key, dev, label, r.cfg.Now()))
}

// SetDeviceRole gives a member another role and tells the peers.
func (r *Replica) SetDeviceRole(dev device.ID, role device.Role) error {
	return r.say(r.cfg.Members.SetRole(r.cfg.Key, dev, role, r.cfg.Now()))
}

// say makes durable and passes on what the log has taken, unless err is set.
func (r *Replica) say(err error) error {
	if err != nil {
		return err
	}
	if err := r.saveMembers(); err != nil {
		return fmt.Errorf("members: %w", err)
	}
	r.membersChanged()
	return nil
}

// mergeMembers takes the log of another device.
func (r *Replica) mergeMembers(from device.ID, encoded []byte) error {
	changed, err := r.cfg.Members.Merge(encoded)
	if err != nil || !changed {
		return err
	}
	r.log.Info("members changed", "told by", r.name(from))
	if err := r.saveMembers(); err != nil {
		return err
	}
	r.membersChanged()
	return nil
}

// saveMembers makes the log durable. One call at a time: an older one must not
// be the last that is written.
func (r *Replica) saveMembers() error {
	r.saving.Lock()
	defer r.saving.Unlock()
	if err := r.putMembers(); err != nil {
		return err
	}
	return r.st.Sync()
}

func (r *Replica) putMembers() error {
	return r.st.Update(func(tx *store.Tx) error {
		tx.SetValue(MembersKey, r.cfg.Members.Encode())
		return nil
	})
}

// membersChanged makes every session compare logs and vectors again, and tells
// the subscribers.
func (r *Replica) membersChanged() {
	s := &r.sessions
	s.mu.Lock()
	for _, p := range s.live {
		p.hello = true
		p.poke()
	}
	s.mu.Unlock()
	r.subMu.Lock()
	fns := r.onMembers
	r.subMu.Unlock()
	for _, fn := range fns {
		fn()
	}
}

// SubscribeMembers registers fn to be told that the membership log has grown. It
// is called without locks held, after the log is durable, and must not wait.
func (r *Replica) SubscribeMembers(fn func()) {
	r.subMu.Lock()
	defer r.subMu.Unlock()
	r.onMembers = append(r.onMembers, fn)
}

// MergeMembers takes the encoded log that came from a device, which need not be a
// member: every record speaks for itself.
func (r *Replica) MergeMembers(from device.ID, encoded []byte) error {
	return r.mergeMembers(from, encoded)
}

// Caught reports whether everything that the peer dev said it knows is here,
// and everything published here is known to it as far as it said or was sent.
func (r *Replica) Caught(dev device.ID) (here, there bool) {
	mine := r.known()
	s := &r.sessions
	s.mu.Lock()
	defer s.mu.Unlock()
	p, ok := s.live[dev]
	if !ok || p.theirs == nil {
		return false, false
	}
	return mine.Covers(p.theirs), p.theirs.Covers(mine)
}

// Commits returns how many commits are known here, of all devices.
func (r *Replica) Commits() (n uint64) {
	for _, ctr := range r.known() {
		n += ctr
	}
	return n
}
