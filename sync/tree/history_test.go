package tree

import (
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

var (
	histories   = flag.Int("histories", 2000, "random histories to run")
	historySeed = flag.Uint64("history-seed", 1, "seed of the first random history")
)

// violation is what a history stops with when an invariant does not hold.
type violation struct{ msg string }

func (v violation) Error() string { return v.msg }

func violate(format string, args ...any) { panic(violation{fmt.Sprintf(format, args...)}) }

func must(err error) {
	if err != nil {
		violate("unexpected error: %v", err)
	}
}

// device is one replica of a history.
type device struct {
	actor   Actor
	mem     *Mem
	view    *View
	ctr     uint64
	open    bool // the batch ctr may take more edits
	index   uint64
	skew    int64
	past    *Mem
	handles []handle
	wrote   map[string]Ino // content -> the file it was written to here
	knows   map[int]bool   // acts
}

// handle is a file that was opened and may be written much later.
type handle struct {
	ino   Ino
	base  []Dot
	token string
}

// history is a run of random operations on some devices. Every step draws from
// a generator of its own, so a step can be left out without changing others.
type history struct {
	seed    uint64
	devices []*device
	off     rules
	tokens  int
	written map[string]bool  // every content ever written
	killed  map[string]bool  // contents that were written over where they were shown
	acts    map[string][]act // content -> what was done to keep it
	removed map[int]bool     // acts whose content was removed by one who knew of the act
	act     int
	log     []string
	dirs    bool // mostly operations on directories
	moves   bool // mostly moves of a few directories
	check   bool // compare with a view from scratch after every step
}

func newHistory(seed uint64, off rules) *history {
	rng := rand.New(rand.NewPCG(seed, 0))
	h := &history{seed: seed, off: off, dirs: rng.IntN(3) == 0, written: map[string]bool{}, killed: map[string]bool{}, acts: map[string][]act{}, removed: map[int]bool{}, check: true}
	const year = int64(365 * 24 * time.Hour)
	for i := range 2 + rng.IntN(3) {
		d := &device{actor: Actor{byte(i + 1), byte(rng.Uint32())}, mem: NewMem(), wrote: map[string]Ino{}, knows: map[int]bool{}}
		d.skew = []int64{0, 0, int64(i) * 500, 10 * year, -10 * year, -3000}[rng.IntN(6)]
		d.view = h.newView(d.mem)
		d.past = d.mem.Clone()
		h.devices = append(h.devices, d)
	}
	if h.moves = rng.IntN(6) == 0; h.moves {
		d := h.devices[0]
		for _, name := range letters {
			d.ctr++
			h.do(d, op{kind: "mkdir", from: "/" + name}, 0)
		}
		for _, o := range h.devices[1:] {
			h.join(o, d)
		}
	}
	return h
}

func label(a Actor) string { return fmt.Sprintf("dev%d", a[0]) }

func (h *history) newView(m *Mem) *View {
	v, err := NewView(m, Labels(label))
	must(err)
	v.off = h.off
	return v
}

// run plays the steps and returns the first violation.
func (h *history) run(steps []int) (err error) {
	defer func() {
		if r := recover(); r != nil {
			v, ok := r.(violation)
			if !ok {
				panic(r)
			}
			err = v
		}
	}()
	for _, s := range steps {
		h.step(rand.New(rand.NewPCG(h.seed, uint64(s)+1)), s)
	}
	h.finish(rand.New(rand.NewPCG(h.seed, 1<<40)))
	return nil
}

func (h *history) logf(format string, args ...any) {
	h.log = append(h.log, fmt.Sprintf(format, args...))
}

func (h *history) step(rng *rand.Rand, s int) {
	i := rng.IntN(len(h.devices))
	d := h.devices[i]
	switch rng.IntN(10) {
	case 0, 1:
		j := rng.IntN(len(h.devices))
		if i != j {
			h.logf("%d: join of %d", i, j)
			h.join(d, h.devices[j])
		}
	default:
		now := int64(s)*1000 + d.skew + int64(2e18/10)
		if !d.open || rng.IntN(2) == 0 {
			if rng.IntN(10) == 0 {
				d.past = d.mem.Clone()
			}
			d.ctr++
			d.open = true
		}
		d.index++
		o := h.pick(rng, d)
		h.logf("%d: %v (now %d, ctr %d)", i, o, now, d.ctr)
		h.do(d, o, now)
	}
}

// join makes d take all that from has.
func (h *history) join(d, from *device) {
	d.open, from.open = false, false
	before := snapshot(d.view)
	owed := contents(before)
	maps.Copy(owed, contents(snapshot(from.view)))
	ch, alarm := d.mem.Diff(from.mem)
	if alarm {
		violate("two values for one dot")
	}
	if d.mem.Vector().Covers(from.mem.Vector()) && !ch.Empty() {
		violate("a state that was seen whole changes something: %v", ch)
	}
	p, err := d.view.Prepare(ch)
	must(err)
	d.mem.Join(from.mem)
	maps.Copy(d.knows, from.knows)
	aff, err := p.Done()
	must(err)
	h.compare(d)
	after := snapshot(d.view)
	checkAffected(before, after, aff)
	h.checkContents(owed, d.knows, after)
	if d.mem.Vector().Equal(from.mem.Vector()) && !reflect.DeepEqual(d.mem.All(), from.mem.All()) {
		violate("I2: equal vectors, different records")
	}
}

// act is something done to keep a content: it was written, or the file that
// showed it was moved or linked.
type act struct {
	id      int
	ino     Ino
	written bool
}

// missing reports whether a state that contains the acts known must show token,
// which s does not: nobody wrote over it, and something was done to keep it that
// no one knew of who removed it. To move or link a file keeps the file, but not
// this content of it if another one has been written there meanwhile.
func (h *history) missing(token string, known map[int]bool, s *snap) bool {
	if shared(token) || h.killed[token] {
		return false
	}
	return slices.ContainsFunc(h.acts[token], func(a act) bool {
		if !known[a.id] || h.removed[a.id] {
			return false
		}
		_, err := s.view.Node(a.ino)
		return a.written || err != nil
	})
}

// keeps notes that d did something to keep token.
func (h *history) keeps(d *device, token string, ino Ino, written bool) {
	h.act++
	h.acts[token] = append(h.acts[token], act{h.act, ino, written})
	d.knows[h.act] = true
}

// checkContents: what was shown and not replaced or removed anywhere is shown,
// and nothing is shown that nobody wrote.
func (h *history) checkContents(owed map[string]bool, known map[int]bool, s *snap) {
	shown := contents(s)
	for token := range owed {
		if !shown[token] && h.missing(token, known, s) {
			violate("I5: content %q is lost", token)
		}
	}
	for token := range shown {
		if !h.written[token] {
			violate("I6: content %q was never written", token)
		}
	}
}

// compare: the view that followed the changes is the one made from scratch.
func (h *history) compare(d *device) {
	if !h.check {
		return
	}
	sameMemory(memory(d.view), memory(h.newView(d.mem)), "view after following changes")
}

func flat[K comparable, V any](l *layer[K, V]) map[K]V {
	m := map[K]V{}
	l.each(func(k K, v V) { m[k] = v })
	if len(m) != l.len() {
		violate("layer counts %d entries and has %d", l.len(), len(m))
	}
	return m
}

func notes(v *View) map[Ino]noted {
	m := map[Ino]noted{}
	for ino, d := range flat(v.noted) {
		m[ino] = *d
	}
	return m
}

// memory is all that a view keeps, by name.
func memory(v *View) map[string]any {
	return map[string]any{
		"dirs": flat(v.dirs), "displaced": flat(v.displaced), "lost": flat(v.lost), "noted": notes(v), "virtual": flat(v.virtual),
	}
}

func sameMemory(got, want map[string]any, what string) {
	for name := range want {
		if !reflect.DeepEqual(got[name], want[name]) {
			violate("%s: %s: got %+v, want %+v", what, name, got[name], want[name])
		}
	}
}

// finish joins all devices in several shapes and checks that all agree.
func (h *history) finish(rng *rand.Rand) {
	var want []Record
	var vector Vector
	var list *snap
	for shape := range 3 {
		ms := make([]*Mem, len(h.devices))
		for i, d := range h.devices {
			ms[i] = d.mem.Clone()
		}
		rng.Shuffle(len(ms), func(i, j int) { ms[i], ms[j] = ms[j], ms[i] })
		for len(ms) > 1 { // join two at random until one is left
			i, j := rng.IntN(len(ms)), rng.IntN(len(ms))
			if i == j {
				continue
			}
			checkLaws(ms[i], ms[j])
			ms[i].Join(ms[j])
			ms = slices.Delete(ms, j, j+1)
		}
		m := ms[0]
		if shape == 0 {
			want, vector, list = m.All(), m.Vector(), snapshot(h.newView(m))
			continue
		}
		if !reflect.DeepEqual(m.All(), want) || !m.Vector().Equal(vector) {
			violate("I1: joins in another shape differ")
		}
	}
	known := map[int]bool{}
	for _, d := range h.devices {
		maps.Copy(known, d.knows)
	}
	h.checkContents(h.written, known, list)
	for _, d := range h.devices {
		for _, o := range h.devices {
			if o != d {
				h.join(d, o)
			}
		}
	}
	for _, d := range h.devices {
		for _, o := range h.devices {
			if o != d {
				h.join(d, o)
			}
		}
		if got := snapshot(d.view); !reflect.DeepEqual(got.nodes, list.nodes) || !reflect.DeepEqual(got.paths, list.paths) {
			violate("I3: listings differ:\n%v\n%v", got, list)
		}
		before := d.mem.All()
		d.mem.Join(d.past)
		if !reflect.DeepEqual(d.mem.All(), before) {
			violate("I9: join with the own past changes something")
		}
	}
}

// checkLaws: joins of two states commute and are idempotent, and Join and
// Mem.Join say the same.
func checkLaws(a, b *Mem) {
	x, y := a.Clone(), b.Clone()
	x.Join(b)
	y.Join(a)
	rs, v, _ := Join(a.All(), b.All(), a.Vector(), b.Vector())
	if !reflect.DeepEqual(x.All(), y.All()) || !x.Vector().Equal(y.Vector()) {
		violate("I1: join does not commute")
	}
	if all := x.All(); len(all)+len(rs) > 0 && !reflect.DeepEqual(all, rs) || !v.Equal(x.Vector()) {
		violate("Join and Mem.Join differ")
	}
	z := x.Clone()
	z.Join(b)
	z.Join(x)
	if !reflect.DeepEqual(z.All(), x.All()) {
		violate("I1: join is not idempotent")
	}
}

// shrink drops steps as long as the history still fails.
func shrink(seed uint64, off rules, steps []int) ([]int, *history, error) {
	var last *history
	var lastErr error
	for again := true; again; {
		again = false
		for i := len(steps) - 1; i >= 0; i-- {
			fewer := slices.Delete(slices.Clone(steps), i, i+1)
			h := newHistory(seed, off)
			if err := h.run(fewer); err != nil {
				steps, last, lastErr, again = fewer, h, err, true
			}
		}
	}
	if last == nil {
		last = newHistory(seed, off)
		lastErr = last.run(steps)
	}
	return steps, last, lastErr
}

func stepsOf(seed uint64) []int {
	n := 1 + rand.New(rand.NewPCG(seed, 1<<50)).IntN(45)
	steps := make([]int, n)
	for i := range steps {
		steps[i] = i
	}
	return steps
}

// TestHistories plays random histories and checks I1 to I9 of the package
// comment after every step. Run more with -histories, another set with
// -history-seed; a failure prints its seed and the steps that are needed.
func TestHistories(t *testing.T) {
	n := *histories
	if testing.Short() {
		n /= 10
	}
	begin := time.Now()
	for i := range n {
		seed := *historySeed + uint64(i)
		h := newHistory(seed, rules{})
		if err := h.run(stepsOf(seed)); err != nil {
			_, h, small := shrink(seed, rules{}, stepsOf(seed))
			t.Fatalf("history-seed %d: %v\nshrunk to:\n%s\n%v", seed, err, strings.Join(h.log, "\n"), small)
		}
	}
	t.Logf("seeds %d to %d, %.0f histories a minute", *historySeed, *historySeed+uint64(n)-1, float64(n)/time.Since(begin).Minutes())
}

// TestRulesAreNeeded leaves out one rule of Edit after the other and demands
// that some history then breaks an invariant.
func TestRulesAreNeeded(t *testing.T) {
	for name, c := range map[string]struct {
		off  rules
		from uint64 // a seed that was found to fail; if that changes, later ones are tried
	}{
		"touch":         {rules{touch: true}, 8},
		"snap":          {rules{snap: true}, 29},
		"keep alive":    {rules{keepAlive: true}, 1653},
		"pin names":     {rules{pinNames: true}, 41},
		"pin copies":    {rules{pinCopies: true}, 57},
		"pin ghosts":    {rules{pinGhosts: true}, 6},
		"pin displaced": {rules{pinDisplaced: true}, 5312},
	} {
		t.Run(name, func(t *testing.T) {
			const enough = 30000
			for seed := c.from; seed < c.from+enough; seed++ {
				h := newHistory(seed, c.off)
				h.check = false
				// An invariant has to break: that an operation fails is not enough.
				if err := h.run(stepsOf(seed)); err != nil && strings.HasPrefix(err.Error(), "I") {
					t.Logf("history-seed %d: %v", seed, err)
					return
				}
			}
			t.Errorf("%d histories hold without this rule", enough)
		})
	}
}
