package tree

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
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
	if strings.HasPrefix(token, "f=") || h.killed[token] {
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
				if err := h.run(stepsOf(seed)); err != nil {
					t.Logf("history-seed %d: %v", seed, err)
					return
				}
			}
			t.Errorf("%d histories hold without this rule", enough)
		})
	}
}

// snap is all that a view shows.
type snap struct {
	view    *View
	paths   map[string]item
	entries map[Place]Ino
	nodes   map[Ino]Node
}

// item is what one path shows.
type item struct {
	ino      Ino
	kind     Kind
	token    string
	mode     uint32
	mtime    int64
	xattr    string
	conflict bool
}

func (s *snap) String() string {
	var b strings.Builder
	for _, p := range slices.Sorted(maps.Keys(s.paths)) {
		i := s.paths[p]
		fmt.Fprintf(&b, "%s %v %q %o %v\n", p, i.kind, i.token, i.mode, i.ino)
	}
	return b.String()
}

func contents(s *snap) map[string]bool {
	m := map[string]bool{}
	for _, i := range s.paths {
		if i.kind != Dir {
			m[i.token] = true
		}
	}
	return m
}

func token(n Node) string {
	if n.Kind == Dir {
		return ""
	}
	return n.Kind.String()[:1] + string(n.Inline)
}

// snapshot walks the whole view and checks I4 on the way: every directory once,
// legal unique names, and List, Lookup, Node and Path of one mind.
func snapshot(v *View) *snap {
	s := &snap{v, map[string]item{}, map[Place]Ino{}, map[Ino]Node{}}
	seen := map[Ino]bool{}
	var walk func(dir Ino, path string)
	walk = func(dir Ino, path string) {
		if seen[dir] {
			violate("I4: directory %v is shown twice", dir)
		}
		seen[dir] = true
		n, err := v.Node(dir)
		must(err)
		s.nodes[dir] = n
		es, err := v.List(dir)
		must(err)
		for i, e := range es {
			if CheckName(e.Name) != nil || i > 0 && es[i-1].Name >= e.Name || e.Parent != dir {
				violate("I4: entries %v of %q", es, path)
			}
			if got, err := v.Lookup(dir, e.Name); err != nil || got != e {
				violate("I4: %q is listed as %v and looked up as %v, %v", path+"/"+e.Name, e, got, err)
			}
			n, err := v.Node(e.Ino)
			if err != nil || n.Kind != e.Kind || n.Ino != e.Ino {
				violate("I4: %q has node %v, %v", path+"/"+e.Name, n, err)
			}
			s.entries[Place{dir, e.Name}], s.nodes[e.Ino] = e.Ino, n
			it := item{e.Ino, n.Kind, token(n), n.Mode, n.MTime, "", e.Conflict}
			if x, ok := n.Xattrs["user.x"]; ok {
				it.xattr = "=" + string(x)
			}
			s.paths[path+"/"+e.Name] = it
			if e.Kind == Dir {
				walk(e.Ino, path+"/"+e.Name)
			}
		}
	}
	walk(Root, "")
	for ino := range s.nodes {
		p, err := v.Path(ino)
		if it, ok := s.paths[p]; err != nil || ino != Root && (!ok || it.ino != ino && it.token != token(s.nodes[ino])) {
			violate("I4: path of %v is %q, %v", ino, p, err)
		}
	}
	v.dirs.each(func(i Ino, n dirNode) {
		if n.visible() && !seen[i] {
			violate("I4: directory %v cannot be reached", i)
		}
	})
	cs, err := v.Conflicts()
	must(err)
	listed := map[string]bool{}
	for _, c := range cs {
		listed[c.Path] = true
	}
	for p, i := range s.paths {
		if listed[p] != i.conflict {
			violate("I4: %q: conflict %v, in Conflicts %v", p, i.conflict, listed[p])
		}
	}
	return s
}

// checkAffected: whatever differs was reported.
func checkAffected(before, after *snap, aff Affected) {
	for _, pair := range [][2]*snap{{before, after}, {after, before}} {
		for p, ino := range pair[0].entries {
			if other, ok := pair[1].entries[p]; (!ok || other != ino) && !slices.Contains(aff.Entries, p) {
				violate("name %q in %v changed and was not reported", p.Name, p.Parent)
			}
		}
		for ino, n := range pair[0].nodes {
			o, ok := pair[1].nodes[ino]
			o.Parent, o.Name = n.Parent, n.Name
			if ok && !reflect.DeepEqual(n, o) && !slices.Contains(aff.Inodes, ino) {
				violate("inode %v changed and was not reported:\n%+v\n%+v", ino, n, o)
			}
		}
	}
}

// names of a history: few, so that they collide.
var letters = []string{"a", "b", "c"}

// op is one random operation.
type op struct {
	kind     string
	from, to string
	token    string
	flag     bool
	handle   int
}

func (o op) String() string {
	return strings.TrimSpace(fmt.Sprintf("%s %s %s %s", o.kind, o.from, o.to, o.token))
}

// pick draws an operation, mostly one that can succeed on d.
func (h *history) pick(rng *rand.Rand, d *device) op {
	s := snapshot(d.view)
	all := slices.Sorted(maps.Keys(s.paths))
	dirs := []string{""}
	for _, p := range all {
		if s.paths[p].kind == Dir && strings.Count(p, "/") < 4 {
			dirs = append(dirs, p)
		}
	}
	fresh := func() string { return dirs[rng.IntN(len(dirs))] + "/" + letters[rng.IntN(len(letters))] }
	old := func() string {
		if len(all) == 0 || rng.IntN(8) == 0 {
			return fresh()
		}
		return all[rng.IntN(len(all))]
	}
	any := func() string {
		if rng.IntN(3) == 0 {
			return old()
		}
		return fresh()
	}
	tok := func() string {
		if rng.IntN(5) == 0 {
			return fmt.Sprintf("=%d", rng.IntN(2)) // the same content from several devices
		}
		h.tokens++
		return fmt.Sprintf("%d", h.tokens)
	}
	flag := rng.IntN(4) == 0
	n := rng.IntN(20)
	if h.moves && rng.IntN(5) > 0 {
		return op{kind: "rename", from: dirs[rng.IntN(len(dirs))], to: fresh()}
	}
	if h.dirs && rng.IntN(3) > 0 {
		n = []int{0, 2, 2, 10, 10, 11, 11, 11, 11, 15, 7}[rng.IntN(11)]
	}
	switch n {
	case 0, 1:
		return op{kind: "create", from: fresh(), token: tok()}
	case 2, 3:
		return op{kind: "mkdir", from: fresh(), flag: flag}
	case 4, 5, 6:
		return op{kind: "write", from: old(), token: tok()}
	case 7, 8, 9:
		return op{kind: "unlink", from: old()}
	case 10:
		return op{kind: "rmdir", from: old()}
	case 11, 12, 13, 14:
		return op{kind: "rename", from: old(), to: any(), flag: flag}
	case 15:
		return op{kind: "exchange", from: old(), to: old()}
	case 16:
		return op{kind: "link", from: old(), to: fresh()}
	case 17:
		return op{kind: []string{"chmod", "mtime", "xattr", "noxattr"}[rng.IntN(4)], from: old(), token: fmt.Sprint(rng.IntN(100))}
	case 18:
		return op{kind: "open", from: old()}
	default:
		return op{kind: "late write", handle: rng.IntN(4), token: tok()}
	}
}

// split finds the directory of a path, which may not exist.
func split(s *snap, path string) (Ino, string) {
	i := strings.LastIndexByte(path, '/')
	if i <= 0 {
		return Root, path[i+1:]
	}
	if it, ok := s.paths[path[:i]]; ok {
		return it.ino, path[i+1:]
	}
	return Ino{1, 2, 3}, path[i+1:]
}

func fileContent(token string) Content {
	return Content{Kind: File, Size: int64(len(token)), Inline: []byte(token), Mode: 0o644}
}

// do carries out o on d and checks what it did.
func (h *history) do(d *device, o op, now int64) {
	before := snapshot(d.view)
	it, exists := before.paths[o.from]
	if o.kind == "open" {
		if exists && it.kind != Dir && len(d.handles) < 4 {
			n, err := d.view.Node(it.ino)
			must(err)
			d.handles = append(d.handles, handle{it.ino, n.Base, it.token})
		}
		return
	}
	e := d.view.Edit(Dot{d.actor, d.ctr}, d.index, now)
	err := h.edit(e, d, o, before)
	ch := e.Change()
	if err != nil {
		if !ch.Empty() {
			violate("refused operation (%v) changes something", err)
		}
		for _, ok := range []error{fs.ErrNotExist, fs.ErrExist, fs.ErrPermission, ErrNotEmpty, ErrIsDir, ErrNotDir, ErrLoop, ErrNoXattr} {
			if errors.Is(err, ok) {
				h.logf("   %v", err)
				return
			}
		}
		violate("operation fails: %v", err)
	}
	for _, r := range ch.Put {
		if err := Check(r); err != nil || r.Dot != (Dot{d.actor, d.ctr}) {
			violate("record %v: %v", r, err)
		}
	}
	var ahead map[string]any
	if h.check {
		must(e.flush())
		ahead = memory(e.v)
	}
	p, perr := d.view.Prepare(ch)
	must(perr)
	d.mem.Apply(ch)
	d.mem.Advance(Dot{d.actor, d.ctr})
	aff, perr := p.Done()
	must(perr)
	h.compare(d)
	if h.check {
		sameMemory(ahead, memory(d.view), "view of the Edit")
	}
	after := snapshot(d.view)
	checkAffected(before, after, aff)
	h.judge(d, o, before, after)
}

// edit calls the operation.
func (h *history) edit(e *Edit, d *device, o op, s *snap) error {
	dir, name := split(s, o.from)
	it, exists := s.paths[o.from]
	ino := Ino{9}
	if exists {
		ino = it.ino
	}
	switch o.kind {
	case "create":
		_, err := e.Create(dir, name, fileContent(o.token))
		return err
	case "mkdir":
		mode := uint32(DirMode)
		if o.flag {
			mode = 0o700
		}
		_, err := e.Mkdir(dir, name, mode)
		return err
	case "write":
		n, err := e.v.Node(ino)
		if err != nil {
			return err
		}
		got, err := e.Write(ino, n.Base, fileContent(o.token))
		if err == nil && got != ino {
			violate("write moves the inode")
		}
		return err
	case "late write":
		if o.handle >= len(d.handles) {
			return fs.ErrNotExist
		}
		_, err := e.Write(d.handles[o.handle].ino, d.handles[o.handle].base, fileContent(o.token))
		return err
	case "unlink":
		return e.Unlink(dir, name)
	case "rmdir":
		return e.Rmdir(dir, name)
	case "rename", "exchange":
		dir2, name2 := split(s, o.to)
		return e.Rename(dir, name, dir2, name2, o.kind == "rename" && o.flag, o.kind == "exchange")
	case "link":
		dir2, name2 := split(s, o.to)
		return e.Link(ino, dir2, name2)
	case "chmod":
		return e.Chmod(ino, 0o600)
	case "mtime":
		return e.SetMTime(ino, 12345)
	case "xattr":
		return e.SetXattr(ino, "user.x", []byte(o.token))
	case "noxattr":
		return e.RemoveXattr(ino, "user.x")
	}
	panic("operation " + o.kind)
}

// under reports whether path is top or lies below it.
func under(path, top string) bool { return path == top || strings.HasPrefix(path, top+"/") }

// judge checks I5 to I8 for a successful operation.
func (h *history) judge(d *device, o op, before, after *snap) {
	was, is := before.paths[o.from], after.paths[o.from]
	_, there := after.paths[o.from]
	dst, dstWas := before.paths[o.to]
	var named []string // paths that may change, with all below
	var inos []Ino     // inodes that may change under any path
	var gone []string  // contents that the user gave up
	switch o.kind {
	case "create":
		named = []string{o.from}
		h.keeps(d, "f"+o.token, is.ino, true)
		d.wrote["f"+o.token] = is.ino
		h.written["f"+o.token] = true
		if is.token != "f"+o.token {
			violate("I8: create: shows %q", is.token)
		}
	case "mkdir":
		named = []string{o.from}
		if is.kind != Dir {
			violate("I8: mkdir: no directory")
		}
		for p := range after.paths {
			if p != o.from && under(p, o.from) {
				violate("I8: mkdir: not empty: %q", p)
			}
		}
	case "write":
		inos, gone = []Ino{was.ino}, []string{was.token}
		d.wrote["f"+o.token] = was.ino
		h.keeps(d, "f"+o.token, was.ino, true)
		h.written["f"+o.token] = true
		if is.token != "f"+o.token || is.ino != was.ino || is.mode != was.mode {
			violate("I8: write: shows %v", is)
		}
	case "late write":
		hd := d.handles[o.handle]
		h.written["f"+o.token] = true
		n, err := d.view.Node(hd.ino)
		must(err)
		if token(n) != "f"+o.token {
			violate("I8: late write: shows %q", token(n))
		}
		d.handles[o.handle].base, d.handles[o.handle].token = n.Base, token(n)
		h.keeps(d, "f"+o.token, hd.ino, true)
		h.lateWrite(d, hd, before, after)
		d.wrote["f"+o.token] = hd.ino
		return
	case "unlink":
		named, gone = []string{o.from}, []string{was.token}
		if there {
			violate("I8: unlink: shows %q", is.token)
		}
	case "rmdir":
		named = []string{o.from}
		if there {
			violate("I8: rmdir: still there")
		}
	case "rename", "exchange":
		if o.from == o.to || dstWas && dst.ino == was.ino {
			break
		}
		named = []string{o.from, o.to}
		if o.kind == "rename" && dstWas {
			gone = []string{dst.token}
		}
		h.judgeMove(before, after, o.from, o.to)
		h.keeps(d, was.token, was.ino, false)
		if o.kind == "exchange" {
			h.judgeMove(before, after, o.to, o.from)
			h.keeps(d, dst.token, dst.ino, false)
		} else if there {
			violate("I8: rename: shows %q at the old name", is.token)
		}
	case "link":
		named = []string{o.to}
		h.keeps(d, was.token, was.ino, false)
		if got := after.paths[o.to]; got.ino != was.ino || got.token != was.token {
			violate("I8: link: shows %v", got)
		}
	case "chmod":
		inos = []Ino{was.ino}
		if is.mode != 0o600 {
			violate("I8: chmod: mode %o", is.mode)
		}
	case "mtime":
		inos = []Ino{was.ino}
		if is.kind != Dir && is.mtime != 12345 {
			violate("I8: mtime: %d", is.mtime)
		}
	case "xattr", "noxattr":
		inos = []Ino{was.ino}
		h.keeps(d, was.token, was.ino, false)
		if want := "=" + o.token; o.kind == "xattr" && is.xattr != want || o.kind == "noxattr" && is.xattr != "" {
			violate("I8: %s: %q", o.kind, is.xattr)
		}
	}
	for _, pair := range [][2]*snap{{before, after}, {after, before}} {
		for p, x := range pair[0].paths {
			if slices.ContainsFunc(named, func(n string) bool { return under(p, n) }) || slices.Contains(inos, x.ino) {
				continue
			}
			if y, ok := pair[1].paths[p]; !ok || x != y {
				violate("I7: %v changes %q:\nbefore:\n%vafter:\n%v", o, p, before, after)
			}
		}
	}
	h.kill(d, gone, strings.Contains(o.kind, "write"), before, after)
}

// kill notes contents that the user gave up and that nothing shows any more.
func (h *history) kill(d *device, gone []string, over bool, before, after *snap) {
	now := contents(after)
	for _, token := range gone {
		switch {
		case token == "":
		case now[token]: // under another name
			for _, x := range before.paths {
				if x.token == token {
					h.keeps(d, token, x.ino, false)
				}
			}
		case over:
			h.killed[token] = true
		default:
			for _, a := range h.acts[token] {
				if d.knows[a.id] {
					h.removed[a.id] = true
				}
			}
		}
	}
	h.checkContents(contents(before), d.knows, after)
}

// lateWrite: a write on what was opened before gives up only that; contents that
// came since get names of their own.
func (h *history) lateWrite(d *device, hd handle, before, after *snap) {
	for p, x := range before.paths {
		if y := after.paths[p]; x.ino != hd.ino && x != y && !strings.HasPrefix(x.token, "f=") && x.token != hd.token {
			violate("I7: late write changes %q:\nbefore:\n%vafter:\n%v", p, before, after)
		}
	}
	gone := []string{hd.token}
	for token, ino := range d.wrote {
		if ino == hd.ino {
			gone = append(gone, token) // the device itself wrote over it
		}
	}
	h.kill(d, gone, true, before, after)
}

// judgeMove: all that was at from is at to.
func (h *history) judgeMove(before, after *snap, from, to string) {
	for p, x := range before.paths {
		if !under(p, from) {
			continue
		}
		q := to + strings.TrimPrefix(p, from)
		if p == from && x.kind == Dir {
			x.mtime = after.paths[q].mtime
		}
		y := after.paths[q]
		if p == from {
			x.conflict = y.conflict
		}
		if x != y {
			violate("I8: rename: %q was %v and %q is %v", p, x, q, y)
		}
	}
	if _, was := before.paths[from]; !was {
		return
	}
	for q := range after.paths {
		if _, ok := before.paths[from+strings.TrimPrefix(q, to)]; under(q, to) && !ok {
			violate("I8: rename: %q came from nowhere", q)
		}
	}
}
