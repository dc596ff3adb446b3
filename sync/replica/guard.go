package replica

import (
	"errors"
	"time"

	"github.com/roamfs/roamfs/peer/device"
	"github.com/roamfs/roamfs/sync/guard"
	"github.com/roamfs/roamfs/sync/manifest"
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
	freed    map[tree.Actor]*hold // what was let through in this run
	full     map[tree.Actor]bool  // nothing more is kept of it
	after    *guard.Overlay       // the tree with the held commits
	states   map[device.ID]*stateHold
	restored []tree.Ino // brought back, and not told yet
	bytes    int64
	next     uint64
	version  uint64 // of what peers are told
	names    int    // of the tree, when they were counted; at least as many if more is set
	more     bool
	counted  time.Time
}

type hold struct {
	first   uint64
	since   int64
	wall    int64 // the newest of its author's clock in what is held, ns
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

// namesLocked returns how many names the tree has, or had lately, or some number
// from enough on. So it reads of the tree in proportion to what was taken away, not all of a large one.
func (r *Replica) namesLocked(enough int) (int, error) {
	g := &r.guard
	now := r.cfg.Now()
	if lately := !g.counted.IsZero() && now.Sub(g.counted) <= 10*time.Minute && !now.Before(g.counted); lately && (!g.more || g.names >= enough) {
		return g.names, nil
	}
	n, err := r.st.Names(2 * enough) // twice: it is asked again and again while more is taken away
	if err != nil {
		return 0, err
	}
	g.names, g.more, g.counted = n, n >= 2*enough, now
	return n, nil
}

// overLocked reports whether an account is too much with what effect e adds. c tells whose
// it is, gone how many of the removed have left the tree here; after returns the tree with all of it.
func (r *Replica) overLocked(a *guard.Account, e guard.Effect, c guard.Commit, gone int, after func() (guard.Tree, error)) (bool, error) {
	removed, rewritten := a.After(e)
	names := func(enough int) (int, error) {
		n, err := r.namesLocked(enough)
		return n + gone, err
	}
	over, err := r.limits().Over(removed, rewritten, names)
	if err != nil || !over {
		return false, err
	}
	is, err := after()
	if err != nil {
		return false, err
	}
	files, old, err := a.Kept(e, c, is)
	if err != nil || files+old == 0 {
		return true, err
	}
	return r.limits().Over(removed-files, rewritten-old, names)
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
	c := guard.Commit{Author: m.Actor, Wall: m.Wall, Delta: d, Others: r.othersLocked(m.Actor)}
	e, err := a.Assess(c, now, r.st.Records)
	if err != nil {
		return false, err
	}
	old := a.Expire(now)
	if e.Empty() && len(old) == 0 {
		return false, nil
	}
	gone, _ := a.Count()
	over, err := r.overLocked(a, e, c, gone, func() (guard.Tree, error) {
		after := guard.NewOverlay(r.st)
		return after, after.Apply(d)
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
