package replica

import (
	"fmt"
	"slices"
	"sync"

	"github.com/roamfs/roamfs/peer/device"
	"github.com/roamfs/roamfs/sync/store"
	"github.com/roamfs/roamfs/sync/tree"
)

// words is what the other devices said they know, the last word of each, also
// from before a restart. A device says what is on its disk, so its word means that the
// changes outlive this device. What this device sent is not counted before.
type words struct {
	mu   sync.Mutex
	of   map[device.ID]word
	subs []func()
}

// word is what a device said it knows.
type word struct {
	knows tree.Vector
	log   [32]byte // hash of its membership log then; zero if that is not known
}

// wordKey is the value of the database with the last word of a device: the vector,
// and the hash if there is one.
func wordKey(dev device.ID) string { return "word" + string(dev[:]) }

func (r *Replica) loadWords() error {
	w := &r.words
	w.of = map[device.ID]word{}
	for _, m := range r.cfg.Members.Members() {
		b, err := r.st.Value(wordKey(m.ID))
		if err != nil {
			return err
		}
		if b == nil {
			continue
		}
		v, rest, err := tree.DecodeVector(b)
		x := word{knows: v}
		if err != nil || len(rest) > 0 && len(rest) != len(x.log) {
			return fmt.Errorf("%w: what %s knows: %w", store.ErrDamaged, m.Label, err)
		}
		copy(x.log[:], rest)
		w.of[m.ID] = x
	}
	return nil
}

// word notes what a device says it knows. It may be less than before, if the
// device was put back to an older state.
func (r *Replica) word(dev device.ID, x word) error {
	w := &r.words
	w.mu.Lock()
	if old, ok := w.of[dev]; ok && old.knows.Equal(x.knows) && old.log == x.log {
		w.mu.Unlock()
		return nil
	}
	b := x.knows.Append(nil)
	if x.log != ([32]byte{}) {
		b = append(b, x.log[:]...)
	}
	err := r.st.Update(func(tx *store.Tx) error { tx.SetValue(wordKey(dev), b); return nil })
	if err == nil {
		w.of[dev] = x
	}
	subs := w.subs
	w.mu.Unlock()
	for _, fn := range subs {
		fn()
	}
	return err
}

// SubscribeWords registers fn to be told that another device said what it
// knows. It is called without locks held and must not wait.
func (r *Replica) SubscribeWords(fn func()) {
	r.words.mu.Lock()
	defer r.words.mu.Unlock()
	r.words.subs = append(r.words.subs, fn)
}

// Knowing returns the other members that said they know the commits dots, of
// which those that made one of them are some.
func (r *Replica) Knowing(dots ...tree.Dot) []device.ID {
	var out []device.ID
	w := &r.words
	members := r.cfg.Members.Members()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, m := range members {
		if m.ID == r.cfg.Key.ID() {
			continue
		}
		said, all := w.of[m.ID].knows, true
		for _, d := range dots {
			all = all && (said.Has(d) || madeBy(m, d.Actor))
		}
		if all {
			out = append(out, m.ID)
		}
	}
	return out
}

func madeBy(m device.Member, a tree.Actor) bool {
	for _, own := range m.Actors {
		if tree.Actor(own) == a {
			return true
		}
	}
	return false
}

// Shared reports whether another member has the commit d: it made it, or said
// that it knows it.
func (r *Replica) Shared(d tree.Dot) bool { return len(r.Knowing(d)) > 0 }

// Unshared reports whether something was changed here, by this or a former
// incarnation, that no other member has said it knows: it would be lost with this device.
func (r *Replica) Unshared() bool {
	own := [][8]byte{r.cfg.Actor}
	if self, ok := r.cfg.Members.Member(r.cfg.Key.ID()); ok {
		own = self.Actors
	}
	r.mu.RLock()
	open, vector := !r.open.empty(), r.vector
	r.mu.RUnlock()
	return open || slices.ContainsFunc(own, func(a [8]byte) bool {
		return vector[a] > 0 && !r.Shared(tree.Dot{Actor: a, Ctr: vector[a]})
	})
}

// OldCopy reports [ErrOldCopy] if nothing is changed here any more because of it.
func (r *Replica) OldCopy() error {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if r.oldCopy {
		return ErrOldCopy
	}
	return nil
}
