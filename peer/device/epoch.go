package device

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"
)

// FirstEpoch is the number of the epoch with which a hive begins.
const FirstEpoch uint32 = 1

// ErrNoShare means that nobody has handed the secret of the newest epoch to this
// device yet.
var ErrNoShare = errors.New("the secret of the newest epoch is not known here yet")

// epochState is what the records say about one secret.
type epochState struct {
	epoch     uint32
	id        SecretID
	records   []int // that hand it out; index of state.records
	effective bool  // one of them has an effect
	fresh     bool  // all of them know of every revocation
}

// epochAuthority checks number and shares of epoch record i in its past.
func (st *state) epochAuthority(i int) error {
	r, past := &st.records[i], &st.past[i]
	last, again := FirstEpoch, false
	in, out := make(map[ID]bool), make(map[ID]bool)
	for j := range st.records {
		if !past.has(j) {
			continue
		}
		switch o := &st.records[j]; o.Kind {
		case KindGenesis, KindAdd:
			in[o.Device] = true
		case KindRevoke:
			out[o.Device] = true
		case KindEpoch:
			last = max(last, o.Epoch)
			again = again || o.Epoch == r.Epoch && o.Secret == r.Secret
		case KindRole, KindRename:
		}
	}
	if r.Epoch != last+1 && !again {
		return fmt.Errorf("%w: epoch %d after %d", ErrRecord, r.Epoch, last)
	}
	for j := range r.Shares {
		if dev := r.Shares[j].Device; !in[dev] || out[dev] {
			return fmt.Errorf("share of epoch %d for %s: device %w", r.Epoch, dev.Short(), ErrNotMember)
		}
	}
	return nil
}

// deriveEpochs fills in the epochs.
func (st *state) deriveEpochs(hive HiveID) {
	var eff []bool
	var revokes []int
	for i := range st.records {
		switch r := &st.records[i]; r.Kind {
		case KindRevoke:
			revokes = append(revokes, i)
		case KindEpoch:
			if eff == nil {
				eff = st.effective(hive)
			}
			at := slices.IndexFunc(st.epochs, func(e epochState) bool { return e.epoch == r.Epoch && e.id == r.Secret })
			if at < 0 {
				at = len(st.epochs)
				st.epochs = append(st.epochs, epochState{epoch: r.Epoch, id: r.Secret})
			}
			e := &st.epochs[at]
			e.records = append(e.records, i)
			e.effective = e.effective || eff[i]
		case KindGenesis, KindAdd, KindRole, KindRename:
		}
	}
	for i := range st.epochs {
		e := &st.epochs[i]
		e.fresh = !slices.ContainsFunc(e.records, func(rec int) bool {
			return slices.ContainsFunc(revokes, func(v int) bool { return !st.past[rec].has(v) })
		})
	}
	slices.SortFunc(st.epochs, func(a, b epochState) int {
		return cmp.Or(cmp.Compare(a.epoch, b.epoch), bytes.Compare(a.id[:], b.id[:]))
	})
}

// current returns the epoch in which members seal, nil for the first one.
func (st *state) current() (best *epochState) {
	for i := range st.epochs {
		if e := &st.epochs[i]; e.effective && (best == nil || e.epoch > best.epoch) {
			best = e
		}
	}
	return best
}

// lacking returns the members that nobody has handed the secret of e, in order of
// admission. Who was paired by a device that knew of the epoch was given it then.
func (st *state) lacking(e *epochState) (out []ID) {
	has := make(map[ID]bool)
	for _, i := range e.records {
		has[st.records[i].Signer] = true
		for j := range st.records[i].Shares {
			has[st.records[i].Shares[j].Device] = true
		}
	}
	for i := range st.records {
		if r := &st.records[i]; (r.Kind == KindAdd || r.Kind == KindGenesis) && slices.ContainsFunc(e.records, st.past[i].has) {
			has[r.Device] = true
		}
	}
	for _, m := range st.members[:st.present] {
		if !has[m.ID] {
			out = append(out, m.ID)
		}
	}
	return out
}

// Epoch returns the number of the epoch in which members seal, and the name of
// its secret, which is zero for the first epoch.
func (l *Log) Epoch() (uint32, SecretID) {
	if e := l.current().current(); e != nil {
		return e.epoch, e.id
	}
	return FirstEpoch, SecretID{}
}

// Stale reports whether a revoked device may know the secret of the epoch in which
// members seal, so that one of them has to [Log.Rotate].
func (l *Log) Stale() bool {
	st := l.current()
	if e := st.current(); e != nil {
		return !e.fresh
	}
	return slices.ContainsFunc(st.records, func(r Record) bool { return r.Kind == KindRevoke })
}

// Lacking returns the members that have yet to be handed the secret of the epoch
// in which members seal, by a member that has it, with [Log.Share].
func (l *Log) Lacking() []ID {
	st := l.current()
	if e := st.current(); e != nil {
		return st.lacking(e)
	}
	return nil
}

// Secrets returns the secrets that were sealed for the device with this key, in
// order of their epochs.
func (l *Log) Secrets(k Key) (out []EpochSecret) {
	st := l.current()
	for i := range st.epochs {
		e := &st.epochs[i]
		if s, err := st.secret(e, k, l.hive); err == nil {
			out = append(out, s)
		}
	}
	return out
}

func (st *state) secret(e *epochState, k Key, hive HiveID) (EpochSecret, error) {
	dev := k.ID()
	for _, i := range e.records {
		r := &st.records[i]
		for j := range r.Shares {
			if r.Shares[j].Device != dev {
				continue
			}
			if s, err := r.Shares[j].open(k, hive, e.epoch, e.id); err == nil {
				return s, nil // else another record may have a better one
			}
		}
	}
	return EpochSecret{}, errShare
}

// Rotate begins the next epoch with a secret that the caller has drawn at random,
// sealed for every member, on the word of by, the key of a member. Errors: those
// of [Log.Rename] but ErrTaken.
func (l *Log) Rotate(by Key, secret [32]byte, now time.Time) error {
	err := l.hand(by, now, func(st *state) (e EpochSecret, to []ID) {
		e = EpochSecret{Epoch: FirstEpoch + 1, Secret: secret}
		if n := len(st.epochs); n > 0 {
			e.Epoch = st.epochs[n-1].epoch + 1
		}
		for _, m := range st.members[:st.present] {
			to = append(to, m.ID)
		}
		return e, to
	})
	if err != nil {
		return fmt.Errorf("new epoch: %w", err)
	}
	return nil
}

// Share hands the secret of the epoch in which members seal to those that lack
// it, on the word of by, the key of a member. Another secret is not handed out
// and gives [ErrNoShare]; so does by itself if it is among those that lack it.
func (l *Log) Share(by Key, e EpochSecret, now time.Time) error {
	if n, id := l.Epoch(); e.Epoch != n || e.ID() != id {
		return fmt.Errorf("share epoch %d: %w", n, ErrNoShare)
	}
	err := l.hand(by, now, func(st *state) (EpochSecret, []ID) {
		at := slices.IndexFunc(st.epochs, func(o epochState) bool { return o.epoch == e.Epoch && o.id == e.ID() })
		return e, st.lacking(&st.epochs[at])
	})
	if err != nil {
		return fmt.Errorf("share epoch %d: %w", e.Epoch, err)
	}
	return nil
}

// hand adds a record that hands a secret to devices, of which what returns both; to
// no device, it does nothing.
func (l *Log) hand(by Key, now time.Time, what func(*state) (EpochSecret, []ID)) error {
	l.write.Lock()
	defer l.write.Unlock()
	st := l.current()
	if by.IsZero() {
		return fmt.Errorf("%w: no key", ErrNotMember)
	}
	if m, ok := st.find(by.ID()); !ok || m.Revoked {
		return fmt.Errorf("signer %s %w", by.ID().Short(), ErrNotMember)
	}
	e, to := what(st)
	if len(to) == 0 {
		return nil
	}
	if len(to) > maxShares {
		return fmt.Errorf("%w: %d members of %d that one epoch can have", ErrFull, len(to), maxShares)
	}
	r := Record{
		Kind: KindEpoch, Hive: l.hive, Wall: now.UnixMilli(), Parents: st.heads(by.ID()),
		Epoch: e.Epoch, Secret: e.ID(),
	}
	slices.SortFunc(to, ID.Compare)
	for _, dev := range to {
		s, err := sealShare(l.hive, e, dev)
		if err != nil {
			return err
		}
		r.Shares = append(r.Shares, s)
	}
	r.sign(by)
	if err := r.check(); err != nil {
		return err
	}
	return l.extend(st, []Record{r})
}
