package device

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// ErrNotOwner reports a device that wants to shut out another one, which only the
// owner key may.
var ErrNotOwner = errors.New("only the owner key, from the recovery sheet, may shut out another device")

// Revoke shuts dev out for good, on the word of by: the owner key, or the key of
// dev itself. Of what dev wrote counts what lies within cutoffs, at most one for
// each of its actors and 64 in all, in any order, and what other members had
// taken over before they knew.
//
// Errors: [ErrNotOwner], [ErrNotMember], [ErrFull], and [ErrRecord] for arguments
// out of bounds.
func (l *Log) Revoke(by Key, dev ID, class Class, cutoffs []Cutoff, now time.Time) error {
	cutoffs = slices.Clone(cutoffs)
	slices.SortFunc(cutoffs, func(a, b Cutoff) int { return slices.Compare(a.Actor[:], b.Actor[:]) })
	err := l.say(by, now, func(*state, Member) (Record, error) {
		if by.ID() != dev && HiveOf(by.ID()) != l.hive {
			return Record{}, ErrNotOwner
		}
		return Record{Kind: KindRevoke, Device: dev, Class: class, Cutoffs: cutoffs}, nil
	}, dev)
	if err != nil {
		return fmt.Errorf("revoke device: %w", err)
	}
	return nil
}

// Former returns the devices that do not belong to the hive any more: those that
// were revoked, then those that only a revoked device had admitted. The caller owns the
// slice; the Actors in it are shared and must not be changed.
func (l *Log) Former() []Member {
	st := l.current()
	return slices.Clone(st.members[st.present:])
}

// WasMember returns the device with this id if it does not belong to the hive any
// more. It costs a walk over those devices.
func (l *Log) WasMember(id ID) (Member, bool) {
	for _, m := range l.Former() {
		if m.ID == id {
			return m, true
		}
	}
	return Member{}, false
}

// Cutoff returns the last commit of a revoked device's actor that counts in any
// case. Ctr is 0 if none does, and for the actors of devices that are members.
func (l *Log) Cutoff(actor [8]byte) Cutoff { return l.current().cutoff(actor) }

// Notice returns an encoded log that tells dev that it does not belong to the hive
// any more, and nothing that was said besides after that: the revocation of dev
// with its past or, if dev was never revoked itself, every revocation. It is nil
// for members and devices that never belonged.
func (l *Log) Notice(dev ID) []byte {
	if _, ok := l.WasMember(dev); !ok {
		return nil
	}
	st := l.current()
	var keep set
	for _, own := range []bool{true, false} {
		for i := range st.records {
			if r := &st.records[i]; r.Kind == KindRevoke && (r.Device == dev || !own) {
				keep.union(&st.past[i])
				keep.add(i)
			}
		}
		if keep != (set{}) {
			break
		}
	}
	var recs []Record
	for i := range st.records {
		if keep.has(i) {
			recs = append(recs, st.records[i])
		}
	}
	return encode(l.hive, recs)
}
