package replica

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/roamfs/roamfs/peer/device"
	"github.com/roamfs/roamfs/sync/guard"
	"github.com/roamfs/roamfs/sync/manifest"
	"github.com/roamfs/roamfs/sync/store"
	"github.com/roamfs/roamfs/sync/tree"
)

// Holding back. A commit of another device that makes the losses by its author too
// many (package guard) is not adopted, nor is anything that builds on it, until
// the user of this device accepts or rejects it. It is a delay and no policy of the hive: other
// devices decide for themselves, and what this device does is never held.
//
// What a device did in the last hour is in its account: each loss with the records
// that were lost, which is also what a reject brings back. A loss is in the database before
// the commit that causes it is applied.
//
// Held commits are kept in the database in the order in which they came, up to four
// times the bytes that are kept for peers. Beyond that they stay with the peers.
// Nobody is told that this device knows them: its vector does not have them, and so
// nothing here can build on them. Peers are told in a message of its own (held) what not to
// send, so that they do not send it again with every change.
// Commits that do not build on a held one are adopted as ever.
//
// When a held device, or another that builds on it, gives back what was lost, so
// that no more than the limit is left, all of it goes through at once, in one step for readers.
//
// To accept is to adopt what is held of a device, and what came after it, and to begin its account
// anew. To reject is to adopt it all the same, since a commit cannot be taken out
// of those that build on it, and in the same step for readers to bring back what was
// lost: removed files at their places, others with their content, as new operations of this
// device (guard_restore.go). What the device added stays.
//
// A whole state is judged before it is joined, on the account of its sender
// (guard_state.go).
//
// In the database: values "held" seq(8) -> actor(8) ctr(8) size(8), the commit being
// staged under seq, which has the highest bit set; "hold" actor -> ctr(8) since(8), the
// first commit that is held and when; "passed" actor -> ctr(8), commits up to which were
// accepted; "loss" actor inode -> at(8) kind(1) by(24) delta, whose puts are the records.
type guarding struct {
	off      bool // everything is let through
	accounts map[tree.Actor]*guard.Account
	passed   map[tree.Actor]uint64
	holds    map[tree.Actor]*hold
	held     []heldCommit // in order
	at       map[tree.Dot]bool
	freed    map[tree.Actor]*hold       // what was let through in this run
	full     map[tree.Actor]bool        // nothing more is kept of it
	after    map[tree.Ino][]tree.Record // records that held commits change
	states   map[device.ID]*stateHold
	restored []tree.Ino // brought back, and not told yet
	bytes    int64
	next     uint64
	version  uint64 // of what peers are told
	names    int    // of the tree, when they were counted
	counted  time.Time
}

type hold struct {
	first   uint64
	since   int64
	account *guard.Account
}

type heldCommit struct {
	dot  tree.Dot
	seq  uint64
	size int64
}

const (
	heldKey   = "held"
	holdKey   = "hold"
	passedKey = "passed"
	lossKey   = "loss"
	heldSeq   = 1 << 63
)

var (
	// errHeld means that a change of another device is held back.
	errHeld = errors.New("held until it is accepted")

	// ErrNothingHeld means that nothing of a device is held back.
	ErrNothingHeld = errors.New("nothing is held back")
)

// readyLocked tells whether all that a commit builds on is here, or else whether
// what is missing is held back.
func (r *Replica) readyLocked(m *manifest.Manifest) (ready, held bool) {
	ready, held = true, true
	need := func(d tree.Dot) {
		if d.Ctr <= r.vector[d.Actor] {
			return
		}
		ready = false
		if r.guard.full[d.Actor] {
			r.guard.full[m.Actor] = true
		} else if !r.guard.at[d] {
			held = false
		}
	}
	need(tree.Dot{Actor: m.Actor, Ctr: m.Ctr - 1})
	for _, h := range m.Frontier {
		need(tree.Dot{Actor: h.Actor, Ctr: h.Ctr})
	}
	return ready, held && !ready
}

func (r *Replica) limits() guard.Limits { return guard.Limits{Share: r.cfg.Guard} }

// namesLocked returns how many names the tree has, or had lately.
func (r *Replica) namesLocked() (int, error) {
	g := &r.guard
	if now := r.cfg.Now(); g.counted.IsZero() || now.Sub(g.counted) > 10*time.Minute || now.Before(g.counted) {
		snap := r.st.Snapshot()
		defer snap.Release()
		g.names = 0
		if err := snap.Scan(nil, nil, func(rec tree.Record) error {
			if rec.Key.Type() == tree.TypeLink {
				g.names++
			}
			return nil
		}); err != nil {
			return 0, err
		}
		g.counted = now
	}
	return g.names, nil
}

// judgeLocked reports whether a commit whose turn it is has to be held back. If
// not, what it takes away is noted.
func (r *Replica) judgeLocked(m *manifest.Manifest, d manifest.Delta) (hold bool, err error) {
	g := &r.guard
	if r.cfg.Guard == 0 || g.off || m.Device == r.cfg.Key.ID() || m.Ctr <= g.passed[m.Actor] {
		return false, nil
	}
	if g.holds[m.Actor] != nil {
		return true, nil
	}
	a := g.accounts[m.Actor]
	if a == nil {
		a = &guard.Account{}
		g.accounts[m.Actor] = a
	}
	now := r.cfg.Now().UnixNano()
	e, err := a.Assess(guard.Commit{Author: m.Actor, Wall: m.Wall, Delta: d, Others: r.othersLocked(m.Actor)}, now, r.st.Records)
	if err != nil {
		return false, err
	}
	old := a.Expire(now)
	if e.Empty() && len(old) == 0 {
		return false, nil
	}
	removed, rewritten := a.After(e)
	over, err := r.limits().Over(removed, rewritten, func() (int, error) {
		n, err := r.namesLocked()
		return n + removed, err
	})
	if err != nil {
		return false, err
	}
	if over {
		return true, r.beginHoldLocked(m.Actor, m.Ctr, now)
	}
	if err := r.noteLossesLocked(m.Actor, e, old); err != nil {
		return false, err
	}
	a.Apply(e)
	return false, nil
}

// othersLocked returns what other actors than a took away lately.
func (r *Replica) othersLocked(a tree.Actor) (out []*guard.Account) {
	for b, acc := range r.guard.accounts {
		if b != a {
			out = append(out, acc)
		}
	}
	for b, h := range r.guard.freed {
		if r.cfg.Now().UnixNano()-h.since > 24*int64(time.Hour) {
			delete(r.guard.freed, b)
		} else if b != a {
			out = append(out, h.account)
		}
	}
	return out
}

func (r *Replica) beginHoldLocked(a tree.Actor, ctr uint64, now int64) error {
	v := binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, ctr), uint64(now))
	if err := r.st.Update(func(tx *store.Tx) error { tx.SetValue(holdKey+string(a[:]), v); return nil }); err != nil {
		return err
	}
	r.guard.holds[a] = &hold{first: ctr, since: now, account: r.guard.accounts[a].Clone()}
	r.log.Warn("a device takes away much of the tree: it is held back until that is accepted", "device", r.label(a))
	return nil
}

// noteLossesLocked writes what an effect adds to an account and takes off it.
func (r *Replica) noteLossesLocked(a tree.Actor, e guard.Effect, old []tree.Ino) error {
	for part := range slices.Chunk(old, partRecords) {
		if err := r.st.Update(func(tx *store.Tx) error {
			for _, ino := range part {
				tx.SetValue(lossName(a, ino), nil)
			}
			return nil
		}); err != nil {
			return err
		}
	}
	type row struct {
		name string
		v    []byte
	}
	var rows []row
	bytes := 0
	flush := func() error {
		defer func() { rows, bytes = rows[:0], 0 }()
		return r.st.Update(func(tx *store.Tx) error {
			for _, x := range rows {
				tx.SetValue(x.name, x.v)
			}
			return nil
		})
	}
	for ino, l := range e.Lost {
		v, err := encodeLoss(l)
		if err != nil {
			return err
		}
		rows, bytes = append(rows, row{lossName(a, ino), v}), bytes+len(v)
		if len(rows) == partRecords || bytes > partBytes {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	return flush()
}

func lossName(a tree.Actor, ino tree.Ino) string { return lossKey + string(a[:]) + string(ino[:]) }

// mostLoss bounds the records of one loss, in bytes: attributes are left out of more.
const mostLoss = 96 << 10

func encodeLoss(l guard.Loss) ([]byte, error) {
	recs := slices.Clone(l.Before)
	tree.SortRecords(recs)
	size := 0
	recs = slices.DeleteFunc(recs, func(rec tree.Record) bool {
		size += len(rec.Key) + len(rec.Value) + 32
		return size > mostLoss && rec.Key.Type() == tree.TypeXattr
	})
	d, err := manifest.Delta{Put: recs}.Encode()
	if err != nil {
		return nil, fmt.Errorf("note a loss: %w", err)
	}
	b := append(binary.BigEndian.AppendUint64(nil, uint64(l.At)), byte(l.Kind))
	return append(append(b, l.By[:]...), d...), nil
}

func decodeLoss(b []byte) (l guard.Loss, err error) {
	const fixed = 8 + 1 + len(l.By)
	if len(b) < fixed || b[8] > byte(guard.Replaced) {
		return l, fmt.Errorf("%w: note of a loss", store.ErrDamaged)
	}
	d, err := manifest.DecodeDelta(b[fixed:])
	if err != nil {
		return l, fmt.Errorf("%w: note of a loss: %w", store.ErrDamaged, err)
	}
	if len(d.Drop) > 0 {
		return l, fmt.Errorf("%w: note of a loss", store.ErrDamaged)
	}
	return guard.Loss{At: int64(binary.BigEndian.Uint64(b)), Kind: guard.Kind(b[8]), By: tree.Ino(b[9:fixed]), Before: d.Put}, nil
}

// holdBackLocked keeps a commit that is held, as far as there is room, and
// reports [errHeld], or what was changed if its coming made all good again.
func (r *Replica) holdBackLocked(c store.Commit, d manifest.Delta) (aff tree.Affected, err error) {
	g := &r.guard
	dot := tree.Dot{Actor: c.Actor, Ctr: c.Ctr}
	if g.at[dot] {
		return aff, errHeld
	}
	size := int64(c.Size())
	if g.full[c.Actor] || g.bytes+size > 4*r.cfg.Keep {
		g.full[c.Actor] = true
		g.version++
		return aff, errHeld
	}
	seq := g.next
	if err := r.st.StageCommit(seq, c); err != nil {
		return aff, err
	}
	x := heldCommit{dot, seq, size}
	if err := r.st.Update(func(tx *store.Tx) error { tx.SetValue(x.row(), x.value()); return nil }); err != nil {
		return aff, err
	}
	if err := r.addHeldLocked(x, c, d); err != nil {
		return aff, err
	}
	for a, h := range g.holds {
		removed, rewritten := h.account.Count()
		over, err := r.limits().Over(removed, rewritten, func() (int, error) {
			n, err := r.namesLocked()
			return n + removed, err
		})
		if err != nil {
			return aff, err
		}
		if !over && !g.full[a] {
			r.log.Info("what a device took away was given back", "device", r.label(a))
			return r.releaseLocked(a, true)
		}
	}
	return aff, errHeld
}

func (x heldCommit) row() string {
	return string(binary.BigEndian.AppendUint64([]byte(heldKey), x.seq))
}

func (x heldCommit) value() []byte {
	b := binary.BigEndian.AppendUint64(slices.Clone(x.dot.Actor[:]), x.dot.Ctr)
	return binary.BigEndian.AppendUint64(b, uint64(x.size))
}

// addHeldLocked enters a held commit into the books.
func (r *Replica) addHeldLocked(x heldCommit, c store.Commit, d manifest.Delta) error {
	g := &r.guard
	g.held, g.at[x.dot], g.bytes, g.next = append(g.held, x), true, g.bytes+x.size, x.seq+1
	g.version++
	m, err := manifest.Decode(c.Manifest)
	if err != nil {
		return err
	}
	for _, h := range g.holds {
		e, err := h.account.Assess(guard.Commit{Author: c.Actor, Wall: m.Wall, Delta: d}, h.since, r.heldRecords)
		if err != nil {
			return err
		}
		h.account.Apply(e)
	}
	touched := map[tree.Ino]struct{}{}
	for i := range d.Put {
		touched[d.Put[i].Key.Ino()] = struct{}{}
	}
	for i := range d.Drop {
		touched[d.Drop[i].Key.Ino()] = struct{}{}
	}
	for ino := range touched {
		recs, err := r.heldRecords(ino)
		if err != nil {
			return err
		}
		g.after[ino] = guard.Apply(ino, recs, d)
	}
	return nil
}

// heldRecords returns the records of an inode as the held commits leave them.
func (r *Replica) heldRecords(ino tree.Ino) ([]tree.Record, error) {
	if recs, ok := r.guard.after[ino]; ok {
		return recs, nil
	}
	return r.st.Records(ino)
}

// releaseLocked lets through what is held of an actor, and what builds on it; with
// all also what there was no room for. Else that is judged anew.
func (r *Replica) releaseLocked(a tree.Actor, all bool) (aff tree.Affected, err error) {
	g := &r.guard
	ctr := g.passed[a]
	if h := g.holds[a]; h != nil {
		if all {
			ctr = max(ctr, h.first)
		}
		g.freed[a] = h
	}
	for _, x := range g.held {
		if x.dot.Actor == a {
			ctr = max(ctr, x.dot.Ctr)
		}
	}
	if all && g.full[a] { // what did not fit was meant as well
		ctr = max(ctr, r.sessions.most(a))
	}
	if acc := g.accounts[a]; acc != nil {
		if err := r.noteLossesLocked(a, guard.Effect{}, acc.Expire(math.MaxInt64)); err != nil {
			return aff, err
		}
		delete(g.accounts, a)
	}
	if err := r.st.Update(func(tx *store.Tx) error {
		tx.SetValue(passedKey+string(a[:]), binary.BigEndian.AppendUint64(nil, ctr))
		tx.SetValue(holdKey+string(a[:]), nil)
		return nil
	}); err != nil {
		return aff, err
	}
	delete(g.holds, a)
	g.passed[a] = ctr
	return r.replayLocked()
}

// releaseAllLocked lets everything through: a commit of this device builds on what
// is held, so it was here before.
func (r *Replica) releaseAllLocked() (aff tree.Affected, err error) {
	for a := range r.guard.holds {
		one, err := r.releaseLocked(a, true)
		aff.Entries, aff.Inodes = append(aff.Entries, one.Entries...), append(aff.Inodes, one.Inodes...)
		if err != nil {
			return aff, err
		}
	}
	return aff, nil
}

// replayLocked tries all held commits again. What is still held is entered anew.
func (r *Replica) replayLocked() (aff tree.Affected, err error) {
	g := &r.guard
	all := g.held
	g.held, g.at, g.bytes = nil, map[tree.Dot]bool{}, 0
	g.after, g.full = map[tree.Ino][]tree.Record{}, map[tree.Actor]bool{}
	g.version++
	g.counted = time.Time{}
	for a, h := range g.holds {
		h.account = &guard.Account{}
		if acc := g.accounts[a]; acc != nil {
			h.account = acc.Clone()
		}
	}
	for _, x := range all {
		c, err := r.st.Commit(x.seq)
		if err != nil {
			return aff, err
		}
		one, err := r.againLocked(c)
		aff.Entries, aff.Inodes = append(aff.Entries, one.Entries...), append(aff.Inodes, one.Inodes...)
		switch {
		case err == nil, errors.Is(err, errHeld), errors.Is(err, errGap):
		default:
			if r.broken {
				return aff, err
			}
			r.log.Error("a commit that was held back is of no use", "device", r.label(c.Actor), "err", err)
		}
		if err := r.st.Update(func(tx *store.Tx) error {
			tx.SetValue(x.row(), nil)
			return tx.DropStaged(x.seq)
		}); err != nil {
			return aff, err
		}
	}
	r.sessions.greetAll()
	r.wake()
	return aff, nil
}

func (r *Replica) againLocked(c store.Commit) (aff tree.Affected, err error) {
	m, err := manifest.Decode(c.Manifest)
	if err != nil {
		return aff, err
	}
	if err := r.check(m, m.Device); err != nil { // it may have been revoked since
		return aff, err
	}
	d, err := manifest.DecodeDelta(c.Delta)
	if err != nil {
		return aff, err
	}
	return r.applyLocked(m, c, d)
}

// loadGuard reads what earlier runs noted.
func (r *Replica) loadGuard() error {
	g := &r.guard
	g.accounts, g.passed, g.holds = map[tree.Actor]*guard.Account{}, map[tree.Actor]uint64{}, map[tree.Actor]*hold{}
	g.at, g.full, g.after = map[tree.Dot]bool{}, map[tree.Actor]bool{}, map[tree.Ino][]tree.Record{}
	g.states, g.freed = map[device.ID]*stateHold{}, map[tree.Actor]*hold{}
	g.next = heldSeq
	damaged := func(what string) error { return fmt.Errorf("%w: %s", store.ErrDamaged, what) }
	if err := r.st.Values(lossKey, func(rest string, v []byte) error {
		if len(rest) != 8+24 {
			return damaged("note of a loss")
		}
		l, err := decodeLoss(v)
		if err != nil {
			return err
		}
		a := tree.Actor([]byte(rest[:8]))
		if g.accounts[a] == nil {
			g.accounts[a] = &guard.Account{}
		}
		g.accounts[a].Set(tree.Ino([]byte(rest[8:])), l)
		return nil
	}); err != nil {
		return err
	}
	if err := r.st.Values(passedKey, func(rest string, v []byte) error {
		if len(rest) != 8 || len(v) != 8 {
			return damaged("what was accepted")
		}
		g.passed[tree.Actor([]byte(rest))] = binary.BigEndian.Uint64(v)
		return nil
	}); err != nil {
		return err
	}
	if err := r.st.Values(holdKey, func(rest string, v []byte) error {
		if len(rest) != 8 || len(v) != 16 {
			return damaged("what is held back")
		}
		a := tree.Actor([]byte(rest))
		h := &hold{first: binary.BigEndian.Uint64(v), since: int64(binary.BigEndian.Uint64(v[8:])), account: &guard.Account{}}
		if acc := g.accounts[a]; acc != nil {
			h.account = acc.Clone()
		}
		g.holds[a] = h
		return nil
	}); err != nil {
		return err
	}
	var held []heldCommit
	if err := r.st.Values(heldKey, func(rest string, v []byte) error {
		if len(rest) != 8 || len(v) != 24 {
			return damaged("commit that is held back")
		}
		held = append(held, heldCommit{
			dot:  tree.Dot{Actor: tree.Actor(v[:8]), Ctr: binary.BigEndian.Uint64(v[8:])},
			seq:  binary.BigEndian.Uint64([]byte(rest)),
			size: int64(binary.BigEndian.Uint64(v[16:])),
		})
		return nil
	}); err != nil {
		return err
	}
	for _, x := range held {
		if g.at[x.dot] || x.dot.Ctr <= r.vector[x.dot.Actor] { // a release was cut off
			if err := r.st.Update(func(tx *store.Tx) error {
				tx.SetValue(x.row(), nil)
				return tx.DropStaged(x.seq)
			}); err != nil {
				return err
			}
			continue
		}
		c, err := r.st.Commit(x.seq)
		if err != nil {
			return err
		}
		d, err := manifest.DecodeDelta(c.Delta)
		if err != nil {
			return fmt.Errorf("%w: commit that is held back: %w", store.ErrDamaged, err)
		}
		if err := r.addHeldLocked(x, c, d); err != nil {
			return err
		}
	}
	return r.loadStateHolds()
}

// finishGuard completes a release or a reject that was cut off, and lets
// everything through if nothing is to be held any more.
func (r *Replica) finishGuard() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	g := &r.guard
	if err := r.finishRejectLocked(); err != nil {
		return err
	}
	if r.cfg.Guard == 0 {
		if _, err := r.releaseAllLocked(); err != nil {
			return err
		}
	}
	if len(g.holds) == 0 && len(g.held) > 0 {
		_, err := r.replayLocked()
		return err
	}
	return nil
}

// heldBack returns what peers need not send, and a number that changes with it.
func (r *Replica) heldBack() ([]manifest.Head, uint64) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	g := &r.guard
	v := tree.Vector{}
	for _, x := range g.held {
		v.Add(x.dot)
	}
	for a := range g.full {
		v[a] = math.MaxInt64
	}
	heads := make([]manifest.Head, 0, len(v))
	for a, n := range v {
		heads = append(heads, manifest.Head{Actor: a, Ctr: n})
	}
	slices.SortFunc(heads, func(a, b manifest.Head) int { return a.Actor.Compare(b.Actor) })
	return heads, g.version
}

// greetAll says hello to all peers again.
func (s *sessions) greetAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.live {
		p.hello = true
		p.poke()
	}
}

// most returns the newest commit of an actor that a peer has said it knows.
func (s *sessions) most(a tree.Actor) (n uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.live {
		n = max(n, p.theirs[a])
	}
	return n
}

// Pending is what is held back of one device.
type Pending struct {
	Device             device.Member
	Removed, Rewritten int
	Since              time.Time
	Commits            int      // kept here, with those that build on it
	Whole              bool     // it comes as a whole state, which is not kept here
	Paths              []string // some of what would be lost, at most mostSamples
}

const mostSamples = 10

// Pending returns what is held back, by the label of the device.
func (r *Replica) Pending() []Pending {
	r.mu.RLock()
	defer r.mu.RUnlock()
	var out []Pending
	for a, h := range r.guard.holds {
		m, _ := r.Author(a)
		p := Pending{Device: m, Since: time.Unix(0, h.since), Commits: len(r.guard.held)}
		p.Removed, p.Rewritten = h.account.Count()
		p.Paths = r.samplesLocked(h.account)
		out = append(out, p)
	}
	for dev, h := range r.guard.states {
		if h.Verdict != "" {
			continue
		}
		m, _ := r.cfg.Members.Member(dev)
		out = append(out, Pending{Device: m, Since: time.Unix(0, h.Since), Removed: h.Removed, Rewritten: h.Rewritten, Whole: true, Paths: h.Paths})
	}
	slices.SortFunc(out, func(a, b Pending) int {
		if a.Device.Label != b.Device.Label {
			if a.Device.Label < b.Device.Label {
				return -1
			}
			return 1
		}
		return a.Since.Compare(b.Since)
	})
	return out
}

func (r *Replica) samplesLocked(a *guard.Account) (paths []string) {
	a.Lost(func(ino tree.Ino, l guard.Loss) {
		if len(paths) >= mostSamples || l.Kind == guard.Replaced {
			return
		}
		if p, err := r.view.Path(ino); err == nil {
			paths = append(paths, p)
		} else if o := formerOf(l.Before); len(o.links) > 0 {
			dir, err := r.view.Path(o.links[0].Parent)
			if err != nil || dir == "/" {
				dir = ""
			}
			paths = append(paths, dir+"/"+o.links[0].Name)
		}
	})
	slices.Sort(paths)
	return paths
}

// Accept lets through what is held back of a device up to now. It reports
// [ErrNothingHeld] if there is nothing.
func (r *Replica) Accept(dev device.ID) error {
	aff, err := func() (aff tree.Affected, err error) {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.broken {
			return aff, ErrBroken
		}
		any, err := r.decideStateLocked(dev, verdictAccept)
		if err != nil {
			return aff, err
		}
		for _, a := range r.heldActorsLocked(dev) {
			any = true
			one, err := r.releaseLocked(a, true)
			aff.Entries, aff.Inodes = append(aff.Entries, one.Entries...), append(aff.Inodes, one.Inodes...)
			if err != nil {
				return aff, err
			}
		}
		if !any {
			return aff, ErrNothingHeld
		}
		return aff, nil
	}()
	r.tell(aff)
	r.tellSettings()
	if err != nil {
		return fmt.Errorf("accept: %w", err)
	}
	return r.Publish()
}

func (r *Replica) heldActorsLocked(dev device.ID) (out []tree.Actor) {
	m, _ := r.cfg.Members.Member(dev)
	for a := range r.guard.holds {
		if madeBy(m, a) {
			out = append(out, a)
		}
	}
	slices.SortFunc(out, tree.Actor.Compare)
	return out
}
