package tree

import (
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var (
	histories   = flag.Uint64("histories", 10000, "random histories to run")
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
	n       int // index in history.devices
	actor   Actor
	mem     *Mem
	view    *View
	shown   *snap // what view shows
	ctr     uint64
	open    bool // the batch ctr may take more edits
	index   uint64
	skew    int64
	past    image
	handles []handle
	wrote   map[string]Ino // content -> the file it was written to here
	knows   map[int]bool   // acts
	did     bool           // the open batch has something
	words   map[int]word   // what others said
	log     lives
}

// lives says how many incarnations of each device are known, as the membership log does.
type lives [4]uint8

// word is what a device said that it knows, and under which log.
type word struct {
	vector Vector
	log    lives
}

// image is a copy of all that a device had stored at some time.
type image struct {
	mem        *Mem
	ctr, index uint64
	knows      map[int]bool
	words      map[int]word
	log        lives
}

func (d *device) image() image {
	return image{d.mem.Clone(), d.ctr, d.index, maps.Clone(d.knows), maps.Clone(d.words), d.log}
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
	off     leftOut
	tokens  int
	written map[string]bool  // every content ever written
	killed  map[string]bool  // contents that were written over where they were shown
	acts    map[string][]act // content -> what was done to keep it
	removed map[int]bool     // acts whose content was removed by one who knew of the act
	act     int
	rng     *rand.Rand
	pcg     *rand.PCG // of rng
	logs    bool      // keep a log, which costs time
	log     []string
	dirs    bool // mostly operations on directories
	moves   bool // mostly moves of a few directories
	writes  bool // mostly writes to a few files
	tidy    bool // much is removed, and devices often know all of each other
	check   bool // compare with a view from scratch after every step

	dropped *atomic.Uint64 // inodes as garbage
}

func newHistory(seed uint64, off leftOut) *history {
	pcg := rand.NewPCG(seed, 0)
	rng := rand.New(pcg)
	h := &history{seed: seed, off: off, rng: rng, pcg: pcg, dirs: rng.IntN(3) == 0, written: map[string]bool{}, killed: map[string]bool{}, acts: map[string][]act{}, removed: map[int]bool{}, check: true, dropped: new(atomic.Uint64)}
	const year = int64(365 * 24 * time.Hour)
	for i := range 2 + rng.IntN(3) {
		d := &device{n: i, actor: Actor{byte(i + 1), byte(rng.Uint32())}, mem: NewMem(), wrote: map[string]Ino{}, knows: map[int]bool{}, words: map[int]word{}}
		d.skew = []int64{0, 0, int64(i) * 500, 10 * year, -10 * year, -3000}[rng.IntN(6)]
		d.view = h.newView(d.mem)
		d.shown = snapshot(d.view)
		d.past = d.image()
		h.devices = append(h.devices, d)
	}
	kind := rng.IntN(6)
	h.moves, h.writes, h.tidy = kind == 0, kind == 1, kind == 2
	h.moves = h.moves || h.tidy && rng.IntN(3) == 0
	return h
}

// begin gives all devices what the kind of history needs under every name.
func (h *history) begin() {
	o := op{kind: "mkdir"}
	switch {
	case h.writes:
		o = op{kind: "create", token: "first"}
	case !h.moves && !h.tidy:
		return
	}
	d := h.devices[0]
	for _, name := range letters {
		d.ctr++
		o.from = "/" + name
		if h.logs {
			h.logf("0: %v", o)
		}
		h.do(d, o, 0)
		o.token += "+"
	}
	for _, o := range h.devices[1:] {
		h.join(o, d)
	}
}

func label(a Actor) string { return "dev" + strconv.Itoa(int(a[0])) }

func (h *history) newView(m *Mem) *View {
	v, err := NewView(m, Labels(label))
	must(err)
	v.off = h.off.rules
	return v
}

// caught runs fn and returns the violation that it stops with.
func caught(fn func()) (err error) {
	defer func() {
		switch r := recover().(type) {
		case nil:
		case violation:
			err = r
		default:
			panic(r)
		}
	}()
	fn()
	return nil
}

// run plays the steps and returns the first violation.
func (h *history) run(steps []int) error {
	return caught(func() {
		h.begin()
		for _, s := range steps {
			h.pcg.Seed(h.seed, uint64(s)+1)
			h.step(s)
		}
		h.pcg.Seed(h.seed, 1<<40)
		h.finish()
	})
}

func (h *history) logf(format string, args ...any) {
	h.log = append(h.log, fmt.Sprintf(format, args...))
}

func (h *history) step(s int) {
	rng := h.rng
	i := rng.IntN(len(h.devices))
	d := h.devices[i]
	switch what := rng.IntN(80); {
	case h.tidy && what < 8:
		if h.logs {
			h.logf("all meet")
		}
		for range 2 {
			for _, d := range h.devices {
				h.joinAll(d)
			}
		}
	case h.tidy && what >= 17 && what < 21:
		if j := rng.IntN(len(h.devices)); i != j {
			if h.logs {
				h.logf("%d: told by %d", i, j)
			}
			h.close(h.devices[j])
			h.tell(d, h.devices[j])
		}
	case what < 16:
		j := rng.IntN(len(h.devices))
		if i != j {
			if h.logs {
				h.logf("%d: join of %d", i, j)
			}
			h.join(d, h.devices[j])
		}
	case what == 16 || h.tidy && what < 24:
		if h.logs {
			h.logf("%d: restored as of ctr %d", i, d.past.ctr)
		}
		h.restore(d)
	default:
		now := int64(s)*1000 + d.skew + int64(2e18/10)
		if !d.open || rng.IntN(2) == 0 {
			h.close(d)
			if rng.IntN(10) == 0 {
				d.past = d.image()
			}
			d.ctr++
			d.open = true
		}
		d.index++
		o := h.pick(d)
		if h.logs {
			h.logf("%d: %v (now %d, ctr %d)", i, o, now, d.ctr)
		}
		h.do(d, o, now)
	}
}

// loaded returns the view of d made of an image of it.
func (h *history) loaded(d *device) *View {
	v, err := LoadView(d.mem, d.view.Image(), Labels(label))
	must(err)
	return v
}

// restore puts an old image of d back. Others may have what it did since, under
// dots that it does not know to be used: it goes on as another actor.
func (h *history) restore(d *device) {
	old := d.past
	d.mem, d.ctr, d.index, d.knows = old.mem.Clone(), old.ctr, old.index, maps.Clone(old.knows)
	born := d.log[d.n] + 1
	d.words, d.log = maps.Clone(old.words), old.log
	if !h.off.incarnation {
		d.actor[2]++
		d.ctr = 0
		d.log[d.n] = born
	}
	d.open, d.did, d.handles = false, false, nil
	clear(d.wrote)
	d.view = h.newView(d.mem)
	d.shown = snapshot(d.view)
}

// join makes d take all that from has.
func (h *history) join(d, from *device) {
	h.close(d)
	h.close(from)
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
	before := d.shown
	if !ch.Empty() {
		var scratch *View
		if h.check {
			scratch = h.newView(d.mem)
		}
		h.followed(d, scratch, aff)
	} else if len(aff.Entries)+len(aff.Inodes) > 0 {
		violate("no change affects %v", aff)
	}
	h.checkKept(before.contents, d.knows, d.shown)
	h.checkKept(from.shown.contents, d.knows, d.shown)
	h.checkWritten(d.shown)
	if d.mem.Vector().Equal(from.mem.Vector()) && !sameRecords(d.mem, from.mem) {
		violate("I2: equal vectors, different records")
	}
	h.tell(d, from)
	h.tell(from, d)
}

// tell has from say to d what it knows.
func (h *history) tell(d, from *device) {
	for i, n := range d.log {
		n = max(n, from.log[i])
		d.log[i], from.log[i] = n, n
	}
	d.words[from.n] = word{from.mem.Vector().Clone(), from.log}
}

// close ends the open batch of d. If there is something in it, garbage goes with it.
func (h *history) close(d *device) {
	if d.did {
		h.collect(d)
	}
	d.open, d.did = false, false
}

// collect drops garbage of d, which changes nothing that is shown.
func (h *history) collect(d *device) {
	var words []Vector
	for _, o := range h.devices {
		if o == d {
			continue
		}
		w := d.words[o.n]
		if w.log != d.log {
			w.vector = nil
		}
		words = append(words, w.vector)
	}
	next := d.mem.Vector()
	known := next.Clone()
	known[d.actor]--
	d.view.Words(known, next, words)
	inos, err := d.view.Garbage(2 + int(d.ctr)%9)
	must(err)
	if len(inos) == 0 {
		return
	}
	if h.logs {
		h.logf("%d: drops %v", d.n, inos)
	}
	d.index++
	e := d.view.Edit(Dot{d.actor, d.ctr}, d.index, 0)
	must(e.Collect(inos))
	ch := e.Change()
	if len(ch.Put) > 0 {
		violate("garbage is put: %v", ch)
	}
	p, err := d.view.Prepare(ch)
	must(err)
	d.mem.Apply(ch)
	var scratch *View
	if h.check {
		scratch = h.newView(d.mem)
	}
	aff, err := p.Done()
	must(err)
	before := d.shown
	h.followed(d, scratch, aff)
	sameShown(d.shown, before, "I7: dropping garbage changes what is shown")
	h.dropped.Add(uint64(len(inos)))
}

// followed looks at d after its view has followed a change: it is like scratch,
// if there is one, made from the same records; no directory is missing; and aff
// names whatever is shown differently.
func (h *history) followed(d *device, scratch *View, aff Affected) {
	if scratch != nil {
		sameMemory(d.view, scratch, "view after following changes")
		sameMemory(h.loaded(d), scratch, "view loaded after following changes")
	}
	if d.view.shows(Recovered) {
		violate("I4: something has lost its directory")
	}
	before := d.shown
	d.shown = snapshot(d.view)
	checkAffected(before, d.shown, aff)
}

// finish joins all devices in several shapes and checks that all agree.
func (h *history) finish() {
	rng := h.rng
	for _, d := range h.devices {
		h.close(d)
	}
	var want *Mem
	for range 3 {
		ms := make([]*Mem, len(h.devices))
		for i, d := range h.devices {
			ms[i] = d.mem
		}
		rng.Shuffle(len(ms), func(i, j int) { ms[i], ms[j] = ms[j], ms[i] })
		for len(ms) > 1 { // join two at random until one is left
			i, j := rng.IntN(len(ms)), rng.IntN(len(ms))
			if i == j {
				continue
			}
			ms[i] = checkLaws(ms[i], ms[j])
			ms = slices.Delete(ms, j, j+1)
		}
		if want == nil {
			want = ms[0]
		} else if !same(ms[0], want) {
			violate("I1: joins in another shape differ")
		}
	}
	list := snapshot(h.newView(want))
	known := map[int]bool{}
	for _, d := range h.devices {
		maps.Copy(known, d.knows)
	}
	h.checkKept(h.written, known, list)
	h.checkWritten(list)
	for _, d := range h.devices {
		h.joinAll(d)
	}
	for _, d := range h.devices {
		h.joinAll(d)
		sameShown(d.shown, list, "I3: listings differ")
		if h.check {
			sameMemory(d.view, list.view, "view after all joins")
			sameMemory(h.loaded(d), list.view, "view loaded after all joins")
		}
		if !same(d.mem, want) {
			violate("I1: joins one after the other differ")
		}
		d.mem.Join(d.past.mem)
		if !same(d.mem, want) {
			violate("I9: join with the own past changes something")
		}
	}
}

// joinAll makes d take all that the others have.
func (h *history) joinAll(d *device) {
	for _, o := range h.devices {
		if o != d {
			h.join(d, o)
		}
	}
}

// shrink drops steps as long as the history still fails.
func shrink(seed uint64, off leftOut, steps []int) ([]int, *history, error) {
	var last *history
	var lastErr error
	for again := true; again; {
		again = false
		for i := len(steps) - 1; i >= 0; i-- {
			fewer := slices.Delete(slices.Clone(steps), i, i+1)
			h := newHistory(seed, off)
			h.logs = true
			if err := h.run(fewer); err != nil {
				steps, last, lastErr, again = fewer, h, err, true
			}
		}
	}
	if last == nil {
		last = newHistory(seed, off)
		last.logs = true
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

// firstFailure runs n seeds, from the given one on, on all cores. It returns the
// first that fails and its error.
func firstFailure(t *testing.T, what string, from, n uint64, run func(seed uint64) error) (seed uint64, err error) {
	t.Helper()
	// Histories leave much garbage and keep little.
	defer debug.SetGCPercent(debug.SetGCPercent(800))
	begin := time.Now()
	var next atomic.Uint64
	var mu sync.Mutex // guards seed and err
	var workers sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			for {
				s := from + next.Add(1) - 1
				if s >= from+n {
					return
				}
				e := run(s)
				if e == nil {
					continue
				}
				next.Store(n) // those before s are under way
				mu.Lock()
				if err == nil || s < seed {
					seed, err = s, e
				}
				mu.Unlock()
			}
		})
	}
	workers.Wait()
	if err == nil {
		t.Logf("seeds %d to %d, %.0f %s a minute", from, from+n-1, float64(n)/time.Since(begin).Minutes(), what)
	}
	return seed, err
}

// TestHistories plays random histories and checks I1 to I9 of the package
// comment after every step. Run more with -histories, another set with
// -history-seed; a failure prints its seed and the steps that are needed.
func TestHistories(t *testing.T) {
	n := *histories
	if testing.Short() {
		n /= 10
	}
	var dropped atomic.Uint64
	seed, err := firstFailure(t, "histories", *historySeed, n, func(seed uint64) error {
		h := newHistory(seed, leftOut{})
		h.dropped = &dropped
		return h.run(stepsOf(seed))
	})
	t.Logf("%d inodes were dropped as garbage", dropped.Load())
	if err != nil {
		_, h, small := shrink(seed, leftOut{}, stepsOf(seed))
		t.Fatalf("history-seed %d: %v\nshrunk to:\n%s\n%v", seed, err, strings.Join(h.log, "\n"), small)
	}
}
