package copies

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/roamfs/roamfs/sync/block"
	"github.com/roamfs/roamfs/sync/tree"
)

// TestAlone: what is said to be here only, step by step. Each case begins with
// file 1 of three blocks that are here, if blank is not set.
func TestAlone(t *testing.T) {
	for _, c := range []struct {
		name  string
		blank bool
		do    func(w *world, k *Keeper, x content)
		want  int64 // files that wait
		blind bool  // after a restart that is not known
		open  bool  // it is not settled
	}{
		{name: "an empty tree", blank: true, do: func(*world, *Keeper, content) {}, want: 0},
		{name: "a file that was just written", do: func(_ *world, k *Keeper, _ content) {
			k.Wrote(ino(1))
		}, want: 1},
		{name: "its blocks are elsewhere, but nobody else knows the file", do: func(w *world, k *Keeper, x content) {
			k.Wrote(ino(1))
			w.hold(dev(1), x.ids()...)
			k.HeardHoldings()
		}, want: 1},
		{name: "others know the file and have its blocks", do: func(w *world, k *Keeper, x content) {
			k.Wrote(ino(1))
			w.hold(dev(1), x.ids()...)
			w.share(dev(1), x)
			k.HeardHoldings()
		}, want: 0},
		{name: "others know the file and had its blocks before", do: func(w *world, k *Keeper, x content) {
			w.hold(dev(1), x.ids()...)
			k.Wrote(ino(1))
			settle(k)
			w.share(dev(1), x)
			k.HeardCommits()
		}, want: 0},
		{name: "others know the file and take its blocks then", do: func(w *world, k *Keeper, x content) {
			k.Wrote(ino(1))
			settle(k)
			w.share(dev(1), x)
			k.HeardCommits()
			settle(k)
			w.hold(dev(1), x.ids()...)
			k.HeardHoldings()
		}, want: 0},
		{name: "one block is nowhere else", do: func(w *world, k *Keeper, x content) {
			w.share(dev(1), x)
			w.hold(dev(1), x.list, x.data[0], x.data[2])
			k.Wrote(ino(1))
		}, want: 1},
		{name: "the blocks are divided between two others", do: func(w *world, k *Keeper, x content) {
			w.share(dev(1), x)
			w.hold(dev(1), x.list, x.data[0])
			w.hold(dev(2), x.data[1], x.data[2])
			k.Wrote(ino(1))
		}, want: 0},
		{name: "who has them does not belong any more", do: func(w *world, k *Keeper, x content) {
			w.share(dev(1), x)
			w.hold(dev(1), x.ids()...)
			w.revoked[dev(1)] = true
			k.Wrote(ino(1))
		}, want: 1},
		{name: "who had them gave one up", do: func(w *world, k *Keeper, x content) {
			safe(w, k, x)
			w.unhold(dev(1), x.data[1])
			k.Lost(x.data[1:2])
		}, want: 1},
		{name: "who had them gave one up, and others have the list", do: func(w *world, k *Keeper, x content) {
			safe(w, k, x)
			w.evict(x.list)
			w.offer(x)
			w.unhold(dev(1), x.data[1])
			k.Lost(x.data[1:2])
		}, want: 1},
		{name: "who had them gave one up, and the list cannot be had", do: func(w *world, k *Keeper, x content) {
			safe(w, k, x)
			w.evict(x.list)
			w.unhold(dev(1), x.data[1])
			k.Lost(x.data[1:2])
		}, want: 0, open: true, blind: true},
		{name: "then the file is deleted", do: func(w *world, k *Keeper, x content) {
			safe(w, k, x)
			w.evict(x.list)
			w.unhold(dev(1), x.data[1])
			k.Lost(x.data[1:2])
			settle(k)
			w.set(ino(1))
			k.Adopted([]tree.Ino{ino(1)})
		}, want: 0},
		{name: "then another device takes it again", do: func(w *world, k *Keeper, x content) {
			safe(w, k, x)
			w.evict(x.list)
			w.unhold(dev(1), x.data[1])
			k.Lost(x.data[1:2])
			settle(k)
			w.hold(dev(2), x.data[1])
			k.LostAll()
		}, want: 0},
		{name: "what was given up is garbage", blank: true, do: func(w *world, k *Keeper, _ content) {
			y := w.make(1)
			w.store(y)
			k.Lost(y.ids())
		}, want: 0},
		{name: "all that was heard of a device is replaced", do: func(w *world, k *Keeper, x content) {
			safe(w, k, x)
			w.unhold(dev(1), x.ids()...)
			k.LostAll()
		}, want: 1},
		{name: "a small file that nobody else knows", blank: true, do: func(w *world, k *Keeper, _ content) {
			w.set(ino(1), w.small("ab"))
			k.Wrote(ino(1))
		}, want: 1},
		{name: "an empty file that nobody else knows", blank: true, do: func(w *world, k *Keeper, _ content) {
			w.set(ino(1), w.small(""))
			k.Wrote(ino(1))
		}, want: 1},
		{name: "a small file that others know", blank: true, do: func(w *world, k *Keeper, _ content) {
			x := w.small("ab")
			w.set(ino(1), x)
			w.share(dev(1), x)
			k.Wrote(ino(1))
		}, want: 0},
		{name: "a conflict copy", do: func(w *world, k *Keeper, x content) {
			y := w.make(1)
			w.store(y)
			w.share(dev(1), x, y)
			w.hold(dev(1), x.ids()...)
			w.set(ino(1), x, y)
			k.Wrote(ino(1))
		}, want: 1},
		{name: "a deleted file", do: func(w *world, k *Keeper, _ content) {
			k.Wrote(ino(1))
			settle(k)
			w.set(ino(1))
			k.HeardHoldings()
		}, want: 0},
		{name: "another device brings a deleted file back", do: func(w *world, k *Keeper, x content) {
			w.share(dev(1), x)
			k.Wrote(ino(1))
			settle(k)
			w.set(ino(1))
			k.HeardHoldings()
			settle(k)
			w.set(ino(1), x)
			k.Adopted([]tree.Ino{ino(1)})
		}, want: 1},
		{name: "the tree cannot be read", do: func(w *world, k *Keeper, _ content) {
			k.Wrote(ino(1))
			w.broken = errors.New("broken")
		}, want: 1},
		{name: "the list was damaged before all of the rest was elsewhere", do: func(w *world, k *Keeper, x content) {
			w.share(dev(1), x)
			k.Wrote(ino(1))
			settle(k)
			w.hold(dev(1), x.list)
			w.evict(x.list)
			k.HeardHoldings()
			settle(k)
			k.LostAll()
		}, want: 1, blind: true},
		{name: "the list was evicted and can be had", do: func(w *world, k *Keeper, x content) {
			safe(w, k, x)
			w.evict(x.list)
			w.offer(x)
			k.HeardHoldings()
		}, want: 0},
		{name: "a file of another device that was never read here", do: func(w *world, k *Keeper, x content) {
			w.evict(x.ids()...)
			w.share(dev(1), x)
			w.hold(dev(1), x.ids()...)
			k.Adopted([]tree.Ino{ino(1)})
		}, want: 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			var x content
			if !c.blank {
				x = w.make(3)
			}
			k := w.keeper(false)
			settle(k)
			if !c.blank {
				w.store(x)
				w.set(ino(1), x)
			}
			c.do(w, k, x)
			settle(k)
			if n, _ := k.Waiting(); n != c.want || k.Settled() == c.open {
				t.Errorf("%d files wait, settled %v; want %d", n, k.Settled(), c.want)
			}
			if w.broken != nil {
				return
			}
			again := w.keeper(false) // as after a restart
			if again.Settled() {
				t.Error("a keeper that has looked at nothing is settled")
			}
			settle(again)
			if n, _ := again.Waiting(); n != c.want && !c.blind {
				t.Errorf("after a restart %d files wait, want %d", n, c.want)
			}
		})
	}
}

// safe has a device know file 1 and hold all of it, and the keeper know that.
func safe(w *world, k *Keeper, x content) {
	w.share(dev(1), x)
	w.hold(dev(1), x.ids()...)
	k.Wrote(ino(1))
	settle(k)
}

// model is what is random in [TestAccountMatchesModel].
type model struct {
	*world
	k    *Keeper
	rnd  *rand.Rand
	pool []content // of files
	at   string    // seed and step
}

// alone reports whether something of a content is here only.
func (m *model) alone(c content) bool {
	return !m.Shared(c.dot) || slices.ContainsFunc(c.ids(), func(id block.ID) bool { return m.here[id] != nil && len(m.held[id]) == 0 })
}

// truth returns how many files the account has to name.
func (m *model) truth() (n int64) {
	for _, cs := range m.files {
		if slices.ContainsFunc(cs, m.alone) {
			n++
		}
	}
	return n
}

// listed reports whether every list is here, so that all can be told.
func (m *model) listed() bool {
	for _, cs := range m.files {
		if slices.ContainsFunc(cs, func(c content) bool { return c.Ref.Depth > 0 && m.here[c.list] == nil }) {
			return false
		}
	}
	return true
}

// commit returns a content of the pool under a commit of its own.
func (m *model) commit(p content) content {
	m.made++
	p.dot = dot(m.made)
	return p
}

func (m *model) step() {
	i, p, d := ino(1+m.rnd.IntN(4)), m.pool[m.rnd.IntN(len(m.pool))], dev(1+m.rnd.IntN(2))
	some := p.ids()[m.rnd.IntN(len(p.all)):]
	switch m.rnd.IntN(10) {
	case 0: // written here
		m.store(p)
		m.set(i, m.commit(p))
		m.k.Wrote(i)
	case 1: // a conflict copy is adopted of a device that has it
		c := m.commit(p)
		m.share(d, c)
		m.hold(d, p.ids()...)
		m.offer(p)
		m.set(i, append(slices.Clone(m.files[i]), c)...)
		m.k.Adopted([]tree.Ino{i})
	case 2: // deleted, here or elsewhere
		m.set(i)
		m.k.Adopted([]tree.Ino{i})
	case 3: // others learn of everything
		for _, cs := range m.files {
			m.share(d, cs...)
		}
		m.k.HeardCommits()
	case 4: // a device takes something
		m.hold(d, some...)
		m.offer(p)
		m.k.HeardHoldings()
	case 5: // and gives something up, since it is here or with the other one
		some = slices.DeleteFunc(some, func(id block.ID) bool { return m.here[id] == nil && len(m.held[id]) < 2 })
		m.unhold(d, some...)
		m.k.Lost(some)
	case 6: // blocks are evicted here, since others have them
		tied, err := m.k.Tied(m.t.Context(), some)
		if err != nil {
			m.t.Fatal(err)
		}
		for _, id := range some {
			if _, stays := tied[id]; !stays && len(m.held[id]) > 0 {
				m.evict(id)
			}
		}
	case 7: // a block is read here
		if id := p.data[len(p.data)-1]; p.list.IsZero() || m.here[p.list] != nil {
			m.here[id] = p.all[id]
			m.k.LostAll() // a block that nobody else has cannot come here; be told all the same
		}
	case 8:
		m.k.look(m.t.Context(), true)
	default:
		m.k.LostAll()
		settle(m.k)
		if n, _ := m.k.Waiting(); n < m.truth() || n > m.truth() && m.listed() || !m.k.Settled() {
			m.t.Fatalf("%s: %d files wait, settled %v; want %d", m.at, n, m.k.Settled(), m.truth())
		}
		again := m.keeper(false)
		settle(again)
		if n, _ := again.Waiting(); n < m.truth() {
			m.t.Fatalf("%s: after a restart %d files wait, want %d", m.at, n, m.truth())
		}
	}
	if n, _ := m.k.Waiting(); n == 0 && m.k.Settled() && m.truth() > 0 {
		m.t.Fatalf("%s: all is said to be safe, and %d files are not", m.at, m.truth())
	}
}

// TestAccountMatchesModel: whatever happens in whatever order, nothing is ever
// said to be safe that is not, and once all was looked at the account is exact,
// also after a restart.
func TestAccountMatchesModel(t *testing.T) {
	for seed := range uint64(200) {
		w := newWorld(t)
		m := &model{world: w, k: w.keeper(false), rnd: rand.New(rand.NewPCG(seed, 1))}
		if seed%2 == 0 {
			m.k.alone.many = 2
		}
		for range 6 {
			m.pool = append(m.pool, w.make(1+m.rnd.IntN(3)))
		}
		m.k.look(t.Context(), true)
		for step := range 80 {
			m.at = fmt.Sprintf("seed %d, step %d", seed, step)
			m.step()
		}
	}
}

// TestLookEndsWhenTold: a look at the whole tree that is cut short is made up for.
func TestLookEndsWhenTold(t *testing.T) {
	w := newWorld(t)
	k := w.keeper(false)
	w.set(tree.Ino{1}, w.make(1))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	k.look(ctx, true)
	if k.Settled() {
		t.Error("all is said to have been looked at")
	}
	k.look(t.Context(), true)
	if n, _ := k.Waiting(); n != 1 || !k.Settled() {
		t.Errorf("%d files wait, settled %v; want 1", n, k.Settled())
	}
}

// TestAdoptedAll: when everything may have changed, all is looked at again, and nothing
// is taken for garbage on what was seen before.
func TestAdoptedAll(t *testing.T) {
	w := newWorld(t)
	k := w.keeper(false)
	settle(k)
	w.set(tree.Ino{1}, w.make(1))
	k.AdoptedAll()
	if k.Settled() {
		t.Error("all is said to have been looked at")
	}
	settle(k)
	if n, _ := k.Waiting(); n != 1 {
		t.Errorf("%d files wait, want 1", n)
	}
	c := w.make(1)
	ids := []block.ID{c.Ref.ID}
	w.scanning = func() {
		w.scanning = nil
		w.set(tree.Ino{0, 1}, c) // where the scan has been
		k.AdoptedAll()
	}
	if got, err := k.Garbage(ids, func(func(block.ID)) {}); err != nil || len(got) > 0 {
		t.Errorf("garbage %v, %v", got, err)
	}
}
