package device

import (
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	// MaxRecords is the number of records that one log holds at most.
	MaxRecords = 1024
	// MaxLog is the length of the longest encoded log, in bytes.
	MaxLog = 1 << 20

	logVersion = 1
	logDomain  = "roamfs membership log v1"
)

var (
	// ErrLog reports bytes that are not a membership log.
	ErrLog = errors.New("malformed membership log")
	// ErrHive reports a log or record of another hive.
	ErrHive = errors.New("belongs to another hive")
	// ErrNotMember reports a statement by or about a device that is not a member
	// where the statement stands.
	ErrNotMember = errors.New("not a member of the hive")
	// ErrParent reports a record whose past is not known.
	ErrParent = errors.New("membership record without its past")
	// ErrFull means the log has reached [MaxRecords] or [MaxLog].
	ErrFull = errors.New("membership log is full")
	// ErrRevoked reports a device that was revoked and needs a new key to return.
	ErrRevoked = errors.New("device was revoked")
	// ErrTaken reports a label that another member has.
	ErrTaken = errors.New("another device has this name")
	// ErrEnrolled reports an actor that is already in the log.
	ErrEnrolled = errors.New("already enrolled")
)

// A Log is the membership log of one hive as this device knows it. It only grows.
// It is safe for concurrent use; reading never waits for a merge that is under
// way.
type Log struct {
	hive HiveID // constant

	write sync.Mutex   // held while a new state is made; taken before mu
	mu    sync.RWMutex // guards the pointer state; held for an assignment only
	state *state       // immutable once published
}

// NewHive makes the log of a new hive that owner owns, with first as its only
// member. The owner key must not own a hive already, except to begin that hive
// again after the loss of all its devices. The label follows [CheckLabel]; capital
// letters are lowered.
func NewHive(owner ed25519.PrivateKey, first ID, label string, role Role, actor [8]byte, now time.Time) (*Log, error) {
	if len(owner) != ed25519.PrivateKeySize {
		return nil, errors.New("new hive: not an owner key")
	}
	key := Key{priv: owner}
	r := Record{
		Kind: KindGenesis, Hive: HiveOf(key.ID()), Signer: key.ID(), Wall: now.UnixMilli(),
		Device: first, Label: strings.ToLower(label), Role: role, Actor: actor,
	}
	if err := r.check(); err != nil {
		return nil, fmt.Errorf("new hive: %w", err)
	}
	r.sign(key)
	if err := r.verify(); err != nil { // the halves of the key do not belong together
		return nil, fmt.Errorf("new hive: %w", err)
	}
	st, err := newState(r.Hive, []Record{r})
	if err != nil {
		return nil, fmt.Errorf("new hive: %w", err)
	}
	return &Log{hive: r.Hive, state: st}, nil
}

// Decode reads a log that [Log.Encode] wrote, here or on another device, and
// verifies every record of it. Errors wrap one of this package's sentinels. A
// caller who expects a certain hive compares [Log.Hive].
func Decode(b []byte) (*Log, error) {
	hive, recs, err := split(b)
	if err != nil {
		return nil, err
	}
	l := &Log{hive: hive, state: &state{}}
	if _, err := l.join(recs); err != nil {
		return nil, err
	}
	return l, nil
}

// Hive returns the name of the hive.
func (l *Log) Hive() HiveID { return l.hive }

// Add admits dev under label (as [CheckLabel] says; capital letters are lowered;
// one that is taken gets a number) with the given role and actor, on the word of
// by, the key of a member or of the owner, and returns the record. If dev is a
// member already it gets actor as a further incarnation and keeps label and role.
//
// Errors: [ErrNotMember] if by has no authority, [ErrRevoked] if dev may not
// return, [ErrEnrolled] if actor is in the log, [ErrFull], and [ErrRecord] for
// arguments out of bounds.
func (l *Log) Add(by Key, dev ID, label string, role Role, actor [8]byte, now time.Time) (Record, error) {
	l.write.Lock()
	defer l.write.Unlock()
	st := l.current()
	if by.IsZero() {
		return Record{}, fmt.Errorf("add device: %w: no key", ErrNotMember)
	}
	if m, ok := st.byActor(actor); ok {
		return Record{}, fmt.Errorf("add device: actor %x of %s: %w", actor, m.Label, ErrEnrolled)
	}
	if m, ok := st.find(by.ID()); HiveOf(by.ID()) != l.hive && (!ok || m.Revoked) {
		return Record{}, fmt.Errorf("add device: signer %s %w", by.ID().Short(), ErrNotMember)
	}
	r := Record{
		Kind: KindAdd, Hive: l.hive, Signer: by.ID(), Wall: now.UnixMilli(), Parents: st.heads(by.ID()),
		Device: dev, Label: strings.ToLower(label), Role: role, Actor: actor,
	}
	switch m, ok := st.find(dev); {
	case ok && m.Revoked:
		return Record{}, fmt.Errorf("add device %s: %w", dev.Short(), ErrRevoked)
	case ok:
		r.Label, r.Role = m.Label, m.Role
	case CheckLabel(r.Label) == nil:
		r.Label = freeLabel(r.Label, st.labels())
	}
	if err := r.check(); err != nil {
		return Record{}, fmt.Errorf("add device: %w", err)
	}
	r.sign(by)
	if err := l.extend(st, []Record{r}); err != nil {
		return Record{}, fmt.Errorf("add device: %w", err)
	}
	return r, nil
}

// Rename gives the member dev another label (as [CheckLabel] says; capital
// letters are lowered), on the word of by, the key of a member or of the owner.
// What the device has written keeps the label that it was admitted with.
//
// Errors: [ErrNotMember] for dev or by, [ErrTaken], [ErrFull], and [ErrRecord] for
// a label out of bounds.
func (l *Log) Rename(by Key, dev ID, label string, now time.Time) error {
	label = strings.ToLower(label)
	err := l.say(by, now, func(st *state, m Member) (Record, error) {
		if label != m.Label && st.labels()[label] {
			return Record{}, fmt.Errorf("%q: %w", label, ErrTaken)
		}
		return Record{Kind: KindRename, Device: dev, Label: label}, nil
	}, dev)
	if err != nil {
		return fmt.Errorf("rename device: %w", err)
	}
	return nil
}

// SetRole gives the member dev another role, on the word of by, the key of a
// member or of the owner. Errors: those of [Log.Rename] but ErrTaken.
func (l *Log) SetRole(by Key, dev ID, role Role, now time.Time) error {
	err := l.say(by, now, func(*state, Member) (Record, error) {
		return Record{Kind: KindRole, Device: dev, Role: role}, nil
	}, dev)
	if err != nil {
		return fmt.Errorf("role of device: %w", err)
	}
	return nil
}

// say adds the record that make returns about the member dev, signed by by.
func (l *Log) say(by Key, now time.Time, make func(*state, Member) (Record, error), dev ID) error {
	l.write.Lock()
	defer l.write.Unlock()
	st := l.current()
	if by.IsZero() {
		return fmt.Errorf("%w: no key", ErrNotMember)
	}
	if m, ok := st.find(by.ID()); HiveOf(by.ID()) != l.hive && (!ok || m.Revoked) {
		return fmt.Errorf("signer %s %w", by.ID().Short(), ErrNotMember)
	}
	m, ok := st.find(dev)
	if !ok || m.Revoked {
		return fmt.Errorf("%s %w", dev.Short(), ErrNotMember)
	}
	r, err := make(st, m)
	if err != nil {
		return err
	}
	r.Hive, r.Signer, r.Wall, r.Parents = l.hive, by.ID(), now.UnixMilli(), st.heads(by.ID())
	if err := r.check(); err != nil {
		return err
	}
	r.sign(by)
	return l.extend(st, []Record{r})
}

// Merge joins a log of the same hive, encoded, into l, and reports whether l
// learnt anything. It verifies every record that l did not have. Either all of
// them are taken or, on an error, none; errors wrap one of this package's
// sentinels. The order of the records does not matter, and a record's past may be
// in encoded or in l already.
func (l *Log) Merge(encoded []byte) (changed bool, err error) {
	hive, recs, err := split(encoded)
	if err != nil {
		return false, err
	}
	if hive != l.hive {
		return false, fmt.Errorf("merge membership: log %w (%s)", ErrHive, hive.Short())
	}
	return l.join(recs)
}

func (l *Log) join(recs []Record) (changed bool, err error) {
	l.write.Lock()
	defer l.write.Unlock()
	st := l.current()
	var fresh []Record
	seen := make(map[Hash]bool)
	for _, r := range recs {
		if h := r.Hash(); !st.has(h) && !seen[h] {
			seen[h] = true
			fresh = append(fresh, r)
		}
	}
	if len(fresh) == 0 {
		return false, nil
	}
	for i := range fresh {
		if fresh[i].Hive != l.hive {
			return false, fmt.Errorf("merge membership: record %w (%s)", ErrHive, fresh[i].Hive.Short())
		}
		if err := fresh[i].verify(); err != nil {
			return false, fmt.Errorf("merge membership: %w", err)
		}
	}
	if err := l.extend(st, fresh); err != nil {
		return false, fmt.Errorf("merge membership: %w", err)
	}
	return true, nil
}

// extend publishes st and the fresh records as the new state. The caller holds
// write, and has verified form, hive and signature of what is fresh.
func (l *Log) extend(st *state, fresh []Record) error {
	next, err := newState(l.hive, append(slices.Clone(st.records), fresh...))
	if err != nil {
		return err
	}
	l.mu.Lock()
	l.state = next
	l.mu.Unlock()
	return nil
}

func (l *Log) current() *state {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.state
}

// Encode returns the log in its one canonical spelling, at most [MaxLog] bytes,
// which the caller owns.
func (l *Log) Encode() []byte { return encode(l.hive, l.current().records) }

// Hash returns a hash over the hive and the set of records: two devices whose
// logs have the same hash know the same members.
func (l *Log) Hash() [32]byte { return l.current().hash }

// Records returns the records in their order of reading. The caller owns the
// slice, not what its records point to.
func (l *Log) Records() []Record { return slices.Clone(l.current().records) }

// Members returns the devices that belong to the hive now, in the order in which
// they were admitted. The caller owns the slice; the Actors in it are shared and
// must not be changed.
func (l *Log) Members() []Member {
	st := l.current()
	return slices.Clone(st.members[:st.present])
}

// Member returns the member with this id. It is false for devices that never
// belonged and for revoked ones. It costs a map look-up.
func (l *Log) Member(id ID) (Member, bool) {
	m, ok := l.current().find(id)
	if !ok || m.Revoked {
		return Member{}, false
	}
	return m, true
}

// ByActor returns the device which writes, or before its revocation wrote, as
// actor. It costs a map look-up.
func (l *Log) ByActor(actor [8]byte) (Member, bool) { return l.current().byActor(actor) }

func encode(hive HiveID, recs []Record) []byte {
	b := make([]byte, 0, 40+300*len(recs))
	b = append(b, logVersion)
	b = append(b, hive[:]...)
	b = binary.AppendUvarint(b, uint64(len(recs)))
	for i := range recs {
		e := recs[i].Encode()
		b = binary.AppendUvarint(b, uint64(len(e)))
		b = append(b, e...)
	}
	return b
}

// split parses an encoded log without verifying signatures or authority.
func split(b []byte) (HiveID, []Record, error) {
	var hive HiveID
	if len(b) > MaxLog {
		return hive, nil, fmt.Errorf("%w: %d bytes", ErrLog, len(b))
	}
	d := decoder{b: b}
	if v := d.byte(); v != logVersion {
		return hive, nil, fmt.Errorf("%w: version %d", ErrLog, v)
	}
	d.into(hive[:])
	n := d.uvarint()
	if d.short || n == 0 || n > MaxRecords {
		return hive, nil, fmt.Errorf("%w: %d records", ErrLog, n)
	}
	var recs []Record
	for range n {
		size := d.uvarint()
		if d.short || size > uint64(len(d.b)) {
			return hive, nil, fmt.Errorf("%w: cut short", ErrLog)
		}
		r, err := DecodeRecord(d.take(int(size)))
		if err != nil {
			return hive, nil, fmt.Errorf("%w: %w", ErrLog, err)
		}
		recs = append(recs, r)
	}
	if len(d.b) != 0 {
		return hive, nil, fmt.Errorf("%w: bytes after the last record", ErrLog)
	}
	return hive, recs, nil
}
