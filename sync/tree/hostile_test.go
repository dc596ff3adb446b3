package tree

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// hostile makes states that no honest device would: cycles, directories that
// are files elsewhere, parents that do not exist, one dot with two values, dots
// that the vector does not contain, and values that are noise.
type hostile struct {
	rng  *rand.Rand
	inos []Ino
}

func newHostile(seed uint64) *hostile {
	h := &hostile{rng: rand.New(rand.NewPCG(seed, 7))}
	h.inos = []Ino{Root, Recovered, dirIno(Root, "a")}
	for i := range 6 {
		h.inos = append(h.inos, Ino{1, byte(i)})
	}
	c := copyIno(h.inos[4], Dot{Actor{1}, 1})
	h.inos = append(h.inos, c)
	return h
}

func (h *hostile) ino() Ino { return h.inos[h.rng.IntN(len(h.inos))] }

func (h *hostile) name() string {
	return []string{"a", "b", "c", ".recovered", "a (conflict 01000000 1970-01-01 000000)"}[h.rng.IntN(5)]
}

func (h *hostile) content() Content {
	if h.rng.IntN(6) == 0 {
		return Content{Kind: Symlink, Rank: uint64(h.rng.IntN(3)), Size: 1, Inline: []byte("t")}
	}
	return fileContentRank(fmt.Sprint(h.rng.IntN(3)), uint64(h.rng.IntN(3)))
}

func fileContentRank(token string, rank uint64) Content {
	c := fileContent(token)
	c.Rank = rank
	return c
}

func (h *hostile) record() Record {
	ino := h.ino()
	r := Record{Dot: Dot{Actor{byte(1 + h.rng.IntN(3))}, uint64(1 + h.rng.IntN(4))}}
	switch h.rng.IntN(8) {
	case 0:
		r.Key, r.Value = ContentKey(ino), h.content().Encode()
	case 1:
		r.Key, r.Value = AttrKey(ino), Attr{Mode: 0o700}.Encode()
	case 2:
		r.Key, r.Value = XattrKey(ino, "user.x"), Xattr{Value: []byte("v")}.Encode()
	default:
		l := Link{Parent: h.ino(), Name: h.name(), Rank: uint64(h.rng.IntN(3)), LocTime: int64(h.rng.IntN(3)), Dir: h.rng.IntN(3) > 0, Deleted: h.rng.IntN(4) == 0, Copy: h.rng.IntN(8) == 0}
		if h.rng.IntN(2) == 0 {
			l.Prev = &Place{h.ino(), h.name()}
		}
		if h.rng.IntN(5) == 0 {
			l.Parent = Ino{2, byte(h.rng.IntN(2))} // does not exist
		}
		if !l.Dir && h.rng.IntN(3) == 0 {
			c := h.content()
			l.Snap = &c
		}
		r.Key, r.Value = LinkKey(ino, LinkID{7: byte(h.rng.IntN(2))}), l.Encode()
	}
	if h.rng.IntN(12) == 0 { // noise
		v := append([]byte(nil), r.Value...)
		v[h.rng.IntN(len(v))] ^= byte(1 + h.rng.IntN(255))
		r.Value = v
	}
	if h.rng.IntN(40) == 0 {
		r.Key = r.Key[:h.rng.IntN(len(r.Key))]
	}
	return r
}

func (h *hostile) state() *Mem {
	m := NewMem()
	var ch Change
	seen := map[KeyDot]bool{}
	for range h.rng.IntN(24) {
		if r := h.record(); !seen[r.ID()] {
			seen[r.ID()] = true
			ch.Put = append(ch.Put, r)
		}
	}
	m.Apply(ch)
	m.vector = Vector{}
	for a := range 3 {
		if n := h.rng.IntN(5); n > 0 {
			m.vector[Actor{byte(a + 1)}] = uint64(n)
		}
	}
	return m
}

// plain hides the Surveyor of a Mem.
type plain struct{ State }

// TestHostile: for any states, joins are associative, commutative and
// idempotent, and the view is total: an acyclic tree of legal unique names that
// shows every file, and follows changes exactly. User operations keep their
// promises or are refused.
func TestHostile(t *testing.T) {
	seed, err := firstFailure(t, "triples of states", *historySeed, *histories, func(seed uint64) error {
		return caught(func() { hostileRun(seed) })
	})
	if err != nil {
		t.Fatalf("history-seed %d: %v", seed, err)
	}
}

func hostileRun(seed uint64) {
	h := newHostile(seed)
	a, b, c := h.state(), h.state(), h.state()
	checkLaws(a, b)
	ab, bc := a.Clone(), b.Clone()
	ab.Join(b)
	ab.Join(c)
	bc.Join(c)
	abc := a.Clone()
	abc.Join(bc)
	if !same(ab, abc) {
		violate("I1: join is not associative")
	}
	run := &history{written: map[string]bool{}}
	for _, m := range []*Mem{a, b, c} {
		v := run.newView(m)
		total(v, m)
		next := []*Mem{b, c, a}[h.rng.IntN(3)]
		ch, _ := m.Diff(next)
		before := snapshot(v)
		p, err := v.Prepare(ch)
		must(err)
		m = m.Clone()
		// The view stands on the old Mem; let it see the new one.
		v.s = m
		m.Join(next)
		checkIndex(m)
		aff, err := p.Done()
		must(err)
		sameMemory(v, run.newView(m), "view after a hostile change")
		total(v, m)
		checkAffected(before, snapshot(v), aff)
		if _, err = NewView(plain{m}, Labels(label)); err != nil {
			violate("view without survey: %v", err)
		}
	}
}

// total: everything that has content and a name is shown.
func total(v *View, m *Mem) {
	s := snapshot(v)
	for ino, rs := range m.recs {
		n := sortOut(ino, rs)
		if n.dir || !n.visible() || v.virtual.has(ino) {
			continue
		}
		if x := fileNode(ino, n.content); !s.contents[token(&x)] {
			violate("I4: file %v is not shown", ino)
		}
	}
}

// TestSurveyTells: a view made without Survey is the same, but for links whose
// parent has no records.
func TestSurveyTells(t *testing.T) {
	for seed := range uint64(200) {
		h := newHistory(seed, leftOut{})
		h.check = false
		if err := h.run(stepsOf(seed)); err != nil {
			t.Fatal(err)
		}
		for _, d := range h.devices {
			v, err := NewView(plain{d.mem}, Labels(label))
			if err != nil {
				t.Fatal(err)
			}
			sameMemory(v, d.view, "view without survey")
		}
	}
}

// TestLongCycles: a hostile chain of moves is undone in time.
func TestLongCycles(t *testing.T) {
	const n = 600
	m := NewMem()
	var ch Change
	ino := func(i int) Ino { return Ino{1, byte(i >> 8), byte(i)} }
	for i := range n {
		l := Link{Parent: ino((i + 1) % n), Name: "d", Dir: true, LocTime: int64(i), Prev: &Place{ino((i + n/2) % n), "p"}}
		ch.Put = append(ch.Put, Record{LinkKey(ino(i), LinkID{}), Dot{Actor{1}, 1}, l.Encode()})
	}
	m.Apply(ch)
	v, err := NewView(m)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if r := recover(); r != nil {
			t.Fatal(r)
		}
	}()
	if s := snapshot(v); len(s.paths) != n {
		t.Fatalf("%d of %d directories are shown", len(s.paths), n)
	}
}
