package device

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"github.com/zeebo/blake3"
)

// A Member is a device of the hive, or one that was.
type Member struct {
	ID    ID
	Label string // unique among members now
	Role  Role
	// Actors are the device's incarnations in the order in which they were
	// enrolled. A device writes as the last one.
	Actors [][8]byte
	Added  time.Time // by the clock of the device that admitted it
	// Enrolled is the label in the record that admitted the device. Unlike Label
	// it does not follow a rename. It need not be unique.
	Enrolled string
	Revoked  bool
	// Class and RevokedAt say why and when, by the clock of whoever revoked it: the
	// gravest reason and the first time, if there are several revocations.
	Class     Class
	RevokedAt time.Time
}

// A set holds positions in state.records.
type set [MaxRecords / 64]uint64

func (s *set) add(i int)      { s[i/64] |= 1 << (i % 64) }
func (s *set) has(i int) bool { return s[i/64]&(1<<(i%64)) != 0 }
func (s *set) union(o *set) {
	for i := range s {
		s[i] |= o[i]
	}
}

// state is a set of acceptable records and all that follows from it.
type state struct {
	records []Record     // in order of reading
	index   map[Hash]int // of records
	past    []set        // by record: everything before it, without itself
	hash    [32]byte

	// members are those present, then those revoked, then those that only a device
	// admitted which was revoked; each part in order of admission.
	members []Member
	present int
	byID    map[ID]int      // index of members, of those that are or were
	actors  map[[8]byte]int // index of members
	cutoffs map[cutoffKey]Cutoff
	epochs  []epochState // ascending by number and secret
}

// newState checks the authority of every record in its past and derives the
// rest. The records are distinct, well formed, of this hive, and signed.
func newState(hive HiveID, recs []Record) (*state, error) {
	if len(recs) > MaxRecords {
		return nil, fmt.Errorf("%w: %d records", ErrFull, len(recs))
	}
	recs, index, err := readingOrder(recs)
	if err != nil {
		return nil, err
	}
	st := &state{records: recs, index: index, past: make([]set, len(recs))}
	if n := len(encode(hive, recs)); n > MaxLog {
		return nil, fmt.Errorf("%w: %d bytes", ErrFull, n)
	}
	for i := range recs {
		for _, p := range recs[i].Parents {
			j := index[p]
			st.past[i].union(&st.past[j])
			st.past[i].add(j)
		}
		if err := st.authority(hive, i); err != nil {
			return nil, err
		}
	}
	st.derive(hive)
	st.deriveEpochs(hive)
	st.hash = st.sum(hive)
	return st, nil
}

// readingOrder sorts records by (height, hash) and returns where each stands.
func readingOrder(recs []Record) ([]Record, map[Hash]int, error) {
	type item struct {
		rec     Record
		hash    Hash
		height  int
		missing int // parents whose height is not known yet
	}
	items := make([]item, len(recs))
	index := make(map[Hash]int, len(recs))
	for i := range recs {
		items[i] = item{rec: recs[i], hash: recs[i].Hash(), missing: len(recs[i].Parents)}
		index[items[i].hash] = i
	}
	children := make(map[Hash][]int)
	var ready []int
	for i := range items {
		for _, p := range items[i].rec.Parents {
			if _, ok := index[p]; !ok {
				return nil, nil, fmt.Errorf("%w: %v of %s", ErrParent, items[i].rec.Kind, items[i].rec.Device.Short())
			}
			children[p] = append(children[p], i)
		}
		if items[i].missing == 0 {
			ready = append(ready, i)
		}
	}
	// No cycle can keep a record from becoming ready: each hash covers the
	// parents' hashes.
	for len(ready) > 0 {
		i := ready[len(ready)-1]
		ready = ready[:len(ready)-1]
		for _, c := range children[items[i].hash] {
			items[c].height = max(items[c].height, items[i].height+1)
			if items[c].missing--; items[c].missing == 0 {
				ready = append(ready, c)
			}
		}
	}
	slices.SortFunc(items, func(a, b item) int {
		return cmp.Or(cmp.Compare(a.height, b.height), a.hash.Compare(b.hash))
	})
	sorted := make([]Record, len(items))
	for i, it := range items {
		sorted[i], index[it.hash] = it.rec, i
	}
	return sorted, index, nil
}

// authority checks that record i may be said by its signer, given its past.
func (st *state) authority(hive HiveID, i int) error {
	r := &st.records[i]
	if r.Kind == KindGenesis {
		return nil // its form already ties the signer to the hive
	}
	owner := HiveOf(r.Signer) == hive
	if !owner && !st.admitted(r.Signer, &st.past[i], true) {
		return fmt.Errorf("%v of %s signed by %s: signer %w", r.Kind, r.Device.Short(), r.Signer.Short(), ErrNotMember)
	}
	switch r.Kind {
	case KindRevoke:
		if !owner && r.Signer != r.Device {
			return fmt.Errorf("%s may not revoke %s: %w", r.Signer.Short(), r.Device.Short(), ErrSignature)
		}
	case KindRole, KindRename:
	case KindEpoch:
		return st.epochAuthority(i)
	default:
		return nil
	}
	if !st.admitted(r.Device, &st.past[i], false) {
		return fmt.Errorf("%v of %s: device %w", r.Kind, r.Device.Short(), ErrNotMember)
	}
	return nil
}

// admitted reports whether the records in past admit dev, and do not revoke it if
// revoked matters.
func (st *state) admitted(dev ID, past *set, unrevoked bool) bool {
	ok := false
	for i := range st.records {
		if r := &st.records[i]; r.Device == dev && past.has(i) {
			switch r.Kind {
			case KindGenesis, KindAdd:
				ok = true
			case KindRevoke:
				if unrevoked {
					return false
				}
			case KindRole, KindRename, KindEpoch:
			}
		}
	}
	return ok
}

// effective returns which records have an effect: those not signed by a device
// whose revocation does not know them, resting on others that have.
func (st *state) effective(hive HiveID) []bool {
	revokes := make(map[ID][]int)
	for i := range st.records {
		if r := &st.records[i]; r.Kind == KindRevoke {
			revokes[r.Device] = append(revokes[r.Device], i)
		}
	}
	eff := make([]bool, len(st.records))
	for i := range st.records {
		r := &st.records[i]
		if r.Kind == KindRevoke || HiveOf(r.Signer) == hive {
			eff[i] = true
			continue
		}
		if slices.ContainsFunc(revokes[r.Signer], func(v int) bool { return !st.past[v].has(i) }) {
			continue
		}
		for j := range i {
			if a := &st.records[j]; eff[j] && a.Device == r.Signer && (a.Kind == KindGenesis || a.Kind == KindAdd) && st.past[i].has(j) {
				eff[i] = true
				break
			}
		}
	}
	return eff
}

// derive reads the records in order and fills in the members.
func (st *state) derive(hive HiveID) {
	st.byID, st.actors = make(map[ID]int), make(map[[8]byte]int)
	st.cutoffs = make(map[cutoffKey]Cutoff)
	eff := st.effective(hive)
	var all []Member
	pos := make(map[ID]int) // index of all
	taken := make(map[[8]byte]bool)
	for i := range st.records {
		r := &st.records[i]
		if !eff[i] {
			continue
		}
		at, known := pos[r.Device]
		switch r.Kind {
		case KindGenesis, KindAdd:
			if !known {
				at = len(all)
				pos[r.Device] = at
				all = append(all, Member{ID: r.Device, Label: r.Label, Enrolled: r.Label, Role: r.Role, Added: r.Time()})
			}
			if !taken[r.Actor] {
				taken[r.Actor] = true
				all[at].Actors = append(all[at].Actors, r.Actor)
			}
		case KindRevoke:
			if known {
				m := &all[at]
				if m.Class = max(m.Class, r.Class); !m.Revoked {
					m.Revoked, m.RevokedAt = true, r.Time()
				}
			}
			st.cutOff(hive, r)
		case KindRole:
			if known {
				all[at].Role = r.Role
			}
		case KindRename:
			if known {
				all[at].Label = r.Label
			}
		case KindEpoch:
		}
	}
	for _, revoked := range []bool{false, true} {
		for _, m := range all {
			if m.Revoked == revoked {
				st.members = append(st.members, m)
			}
		}
		if !revoked {
			st.present = len(st.members)
		}
	}
	inside := len(st.members)
	st.members = append(st.members, st.outside(eff, pos, taken)...)
	distinctLabels(st.members)
	for i, m := range st.members {
		if i < inside {
			st.byID[m.ID] = i
		}
		for _, a := range m.Actors {
			st.actors[a] = i
		}
	}
}

// outside returns the devices that only records without effect admit, as revoked
// ones: what they wrote may have reached members before that was known, so their
// actors must have an owner.
func (st *state) outside(eff []bool, pos map[ID]int, taken map[[8]byte]bool) (out []Member) {
	at := make(map[ID]int) // index of out
	for i := range st.records {
		r := &st.records[i]
		if _, known := pos[r.Device]; known || eff[i] || r.Kind != KindAdd {
			continue
		}
		j, ok := at[r.Device]
		if !ok {
			j = len(out)
			at[r.Device] = j
			out = append(out, Member{
				ID: r.Device, Label: r.Label, Enrolled: r.Label, Role: r.Role, Added: r.Time(),
				Revoked: true, Class: ClassCompromised, RevokedAt: r.Time(),
			})
		}
		if !taken[r.Actor] {
			taken[r.Actor] = true
			out[j].Actors = append(out[j].Actors, r.Actor)
		}
	}
	return out
}

// A cutoffKey says which cutoff: of an actor, by a revocation of a device, on the
// word of the owner or of the device itself.
type cutoffKey struct {
	dev   ID
	actor [8]byte
	owner bool
}

// cutOff notes up to where the commits of a revoked device count: of several
// revocations, the farthest.
func (st *state) cutOff(hive HiveID, r *Record) {
	for _, c := range r.Cutoffs {
		k := cutoffKey{r.Device, c.Actor, HiveOf(r.Signer) == hive}
		old, ok := st.cutoffs[k]
		if !ok || c.Ctr > old.Ctr || c.Ctr == old.Ctr && string(c.Hash[:]) < string(old.Hash[:]) {
			st.cutoffs[k] = c
		}
	}
	if HiveOf(r.Signer) == hive {
		st.cutoffs[cutoffKey{dev: r.Device, owner: true}] = Cutoff{} // there is no actor of zeros
	}
}

// cutoff returns the cutoff of an actor. A device cannot extend what the owner has
// cut off by revoking itself, nor speak of the actors of another one.
func (st *state) cutoff(actor [8]byte) Cutoff {
	m, ok := st.byActor(actor)
	if !ok {
		return Cutoff{}
	}
	_, owner := st.cutoffs[cutoffKey{dev: m.ID, owner: true}]
	return st.cutoffs[cutoffKey{m.ID, actor, owner}]
}

// distinctLabels numbers labels that several members want. The first keeps it.
func distinctLabels(members []Member) {
	taken := make(map[string]bool)
	var losers []int
	for i, m := range members {
		if taken[m.Label] {
			losers = append(losers, i)
		}
		taken[m.Label] = true
	}
	for _, i := range losers {
		members[i].Label = freeLabel(members[i].Label, taken)
		taken[members[i].Label] = true
	}
}

func (st *state) sum(hive HiveID) (out [32]byte) {
	hashes := make([]Hash, 0, len(st.index))
	for h := range st.index {
		hashes = append(hashes, h)
	}
	slices.SortFunc(hashes, Hash.Compare)
	h := blake3.NewDeriveKey(logDomain)
	_, _ = h.Write(hive[:]) // never fails
	_, _ = h.Write(binary.AppendUvarint(nil, uint64(len(hashes))))
	for i := range hashes {
		_, _ = h.Write(hashes[i][:])
	}
	h.Sum(out[:0])
	return out
}

func (st *state) has(h Hash) bool {
	_, ok := st.index[h]
	return ok
}

func (st *state) find(id ID) (Member, bool) {
	i, ok := st.byID[id]
	if !ok {
		return Member{}, false
	}
	return st.members[i], true
}

func (st *state) byActor(a [8]byte) (Member, bool) {
	i, ok := st.actors[a]
	if !ok {
		return Member{}, false
	}
	return st.members[i], true
}

func (st *state) labels() map[string]bool {
	m := make(map[string]bool)
	for i := range st.members {
		m[st.members[i].Label] = true
	}
	return m
}

// heads returns the records that no other has in its past, ascending: the
// parents of the next one. Of more than fit it keeps at least one whose past, or
// itself, admits signer.
func (st *state) heads(signer ID) []Hash {
	var inner set
	for i := range st.records {
		inner.union(&st.past[i])
	}
	var mine, rest []Hash
	for h, i := range st.index {
		if inner.has(i) {
			continue
		}
		if r := &st.records[i]; len(mine) == 0 &&
			(st.admitted(signer, &st.past[i], false) || r.Device == signer && (r.Kind == KindGenesis || r.Kind == KindAdd)) {
			mine = append(mine, h)
		} else {
			rest = append(rest, h)
		}
	}
	slices.SortFunc(rest, Hash.Compare)
	out := append(mine, rest...)
	out = out[:min(len(out), maxParents)]
	slices.SortFunc(out, Hash.Compare)
	return out
}
