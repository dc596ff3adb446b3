package sim

import (
	"encoding/binary"
	"fmt"
	"maps"
	"slices"

	"github.com/roamfs/roamfs/sync/manifest"
	"github.com/roamfs/roamfs/sync/merkle"
	"github.com/roamfs/roamfs/sync/tree"
)

// back notes what a machine has to show once it is on again.
func (m *machine) back(img *image) {
	m.w.mu.Lock()
	defer m.w.mu.Unlock()
	m.shownNow, m.ops = img.shown, img.ops
	m.seen = nil
	m.actor = img.actor
	m.exact = img.exact
	m.least = img.known
}

// wake turns a machine on and checks that nothing is missing that was on its disk
// (I15), and that nobody knows what it does not know itself (I12).
func (w *world) wake(m *machine) {
	m.start()
	if m.exact != "" && m.seen.text != m.exact {
		violate("I15: %s shows after the start\n%sand before it\n%s", m.name, m.seen.text, m.exact)
	}
	v := vectorOf(m.st)
	if !v.Covers(m.least) {
		violate("I15: %s knows %v after the start, and knew %v", m.name, v, m.least)
	}
	m.exact, m.least = "", nil
	w.kept(m, m.seen)
	if m.forked && !expectConverge {
		return
	}
	for _, o := range w.machines {
		if running(o) {
			if n := vectorOf(o.st)[m.actor]; n > v[m.actor] {
				violate("I12: %s knows commit %d of %s, which knows %d itself", o.name, n, m.name, v[m.actor])
			}
		}
	}
}

// look checks what m shows after it may have changed.
func (w *world) look(m *machine) {
	if !m.stale {
		return
	}
	before, after := m.seen, list(m.rep, w.mayLose())
	w.mu.Lock()
	aff := m.affected
	m.stale, m.affected = false, tree.Affected{}
	w.mu.Unlock()
	told(m, before, after, aff)
	m.seen = after
	w.kept(m, after)
}

// told checks that whatever is shown differently was reported: the kernel keeps
// the rest for good.
func told(m *machine, before, after *listing, aff tree.Affected) {
	if aff.All {
		return
	}
	for _, pair := range [][2]*listing{{before, after}, {after, before}} {
		for p, ino := range pair[0].entries {
			if other, ok := pair[1].entries[p]; (!ok || other != ino) && !slices.Contains(aff.Entries, p) {
				violate("%s: name %q in %v changed and was not reported", m.name, p.Name, p.Parent)
			}
		}
		for ino, n := range pair[0].nodes {
			if o, ok := pair[1].nodes[ino]; ok && n != o && !slices.Contains(aff.Inodes, ino) {
				violate("%s: inode %v changed and was not reported:\n%v\n%v", m.name, ino, n, o)
			}
		}
	}
}

// kept checks that m still shows what it showed and nobody gave up (I5), and
// nothing that nobody wrote (I6).
func (w *world) kept(m *machine, l *listing) {
	for _, token := range slices.Sorted(maps.Keys(m.shownNow)) {
		if !l.contents[token] && !w.killed[token] {
			violate("I5: content %q is lost on %s, which shows\n%s", token, m.name, l.text)
		}
	}
	now := map[string]bool{}
	for token := range l.contents {
		if !w.written[token] {
			violate("I6: content %q was never written", token)
		}
		if !shared(token) {
			now[token] = true
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	m.shownNow = now
}

// write notes a content that was written.
func (w *world) write(m *machine, token string, ino tree.Ino) {
	w.written[token] = true
	m.wrote[token] = ino
}

// gaveUp notes contents that the user of m gave up and that m shows nowhere else.
func (w *world) gaveUp(m *machine, gone []string, after *listing) {
	for _, token := range gone {
		if token != "" && !after.contents[token] {
			w.killed[token] = true
		}
	}
	w.kept(m, after)
}

// maybe notes an operation of which nobody knows whether it was carried out.
func (w *world) maybe(m *machine, o op) {
	w.written["f"+o.token], w.written["s"+o.token] = true, true
	lose := func(token string) {
		if token != "" {
			w.killed[token] = true
		}
	}
	switch o.kind {
	case "write", "unlink":
		lose(m.seen.paths[o.from].token)
	case "rename":
		lose(m.seen.paths[o.to].token)
	case "remove all":
		for p, x := range m.seen.paths {
			if under(p, o.from) {
				lose(x.token)
			}
		}
	case "late write":
		if o.handle < len(m.handles) {
			lose(m.handles[o.handle].token)
			for t, ino := range m.wrote {
				if ino == m.handles[o.handle].ino {
					lose(t)
				}
			}
		}
	}
}

// overhear checks what m sends: nothing that is not on its disk (I12), and
// commits that make one chain (I10, I11).
func (w *world) overhear(m *machine, msg []byte) {
	switch msg[0] {
	case kindHello:
		w.claimed(m, heads(msg[2+64:]))
	case kindTold:
		w.claimed(m, heads(msg[1:]))
	case kindCommit:
		b, _ := manifestOf(msg[1:])
		c, err := manifest.Decode(b)
		check(err)
		w.claimed(m, c.Vector())
		w.linked(c)
	case kindState:
		b, _ := manifestOf(msg[stateAt:])
		c, err := manifest.Decode(b)
		check(err)
		w.claimed(m, c.Vector())
	}
}

// claimed checks that all of v is on the disk of m.
func (w *world) claimed(m *machine, v tree.Vector) {
	for a, n := range v {
		if n > m.durable.known[a] {
			violate("I12: %s tells of commit %d of %x, and %d are on its disk", m.name, n, a, m.durable.known[a])
		}
	}
}

func heads(b []byte) tree.Vector {
	n, k := binary.Uvarint(b)
	b = b[k:]
	v := tree.Vector{}
	for range n {
		a := tree.Actor(b)
		ctr, k := binary.Uvarint(b[8:])
		v[a] = ctr
		b = b[8+k+32:]
	}
	return v
}

// linked checks a commit against the ones beside it.
func (w *world) linked(c *manifest.Manifest) {
	of := w.chain[c.Actor]
	if of == nil {
		of = map[uint64]*manifest.Manifest{}
		w.chain[c.Actor] = of
	}
	for _, m := range w.machines {
		if m.actor == c.Actor && m.forked && !expectConverge {
			return // two histories go by its name
		}
	}
	if known := of[c.Ctr]; known != nil {
		if known.Hash() != c.Hash() {
			violate("I10: two commits %d of %x", c.Ctr, c.Actor)
		}
		return
	}
	of[c.Ctr] = c
	w.follows(of[c.Ctr-1], c)
	w.follows(c, of[c.Ctr+1])
}

func (w *world) follows(a, b *manifest.Manifest) {
	if a == nil || b == nil {
		return
	}
	switch {
	case b.Seq <= a.Seq, b.Seq == a.Seq+1 && b.Prev != a.Hash():
		violate("I10: commit %d of %x has number %d after %d, or another one before it", b.Ctr, b.Actor, b.Seq, a.Seq)
	case b.CommitHash(a.Ctr) != a.Hash():
		violate("I10: commit %d of %x names another one before it", b.Ctr, b.Actor)
	case !b.Vector().Covers(a.Vector()):
		violate("I11: commit %d of %x has seen %v and the one before it %v", b.Ctr, b.Actor, b.Vector(), a.Vector())
	}
}

// rebuilt checks that what m shows and signs follows from its records alone (I13, I16).
func (w *world) rebuilt(m *machine) {
	snap := m.st.Snapshot()
	defer snap.Release()
	var recs records
	check(snap.Scan(nil, nil, func(r tree.Record) error {
		recs = append(recs, r)
		return nil
	}))
	tr, err := merkle.Build([32]byte{1}, recs)
	check(err)
	want, err := tr.Root(recs)
	check(err)
	if root, _ := m.state(); root != want {
		violate("I16: %s has root %x, its records have %x", m.name, root, want)
	}
	mem := tree.NewMem()
	mem.Apply(tree.Change{Put: recs})
	v, err := tree.NewView(mem, tree.Labels(func(a tree.Actor) string {
		if d, ok := m.log.ByActor(a); ok {
			return d.Enrolled
		}
		return fmt.Sprintf("%x", a[:4])
	}))
	check(err)
	if got := list(v, w.mayLose()).text; got != m.seen.text {
		violate("I16: %s shows\n%sits records show\n%s", m.name, m.seen.text, got)
	}
	if c := m.complaints(); contains(c, "trees differ") || contains(c, "two versions") {
		violate("I2: %s says %s", m.name, c)
	}
}

// records is a source of the Merkle tree, spelt anew from the specification of
// what an entry is.
type records []tree.Record

func (rs records) Scan(from, to []byte, fn func(merkle.Entry) error) error {
	for _, r := range rs {
		k := string(r.Key)
		if k < string(from) || to != nil && k >= string(to) {
			continue
		}
		v := append([]byte(nil), r.Dot.Actor[:]...)
		v = binary.BigEndian.AppendUint64(v, r.Dot.Ctr)
		if err := fn(merkle.Entry{Key: []byte(k), Value: append(v, r.Value...)}); err != nil {
			return err
		}
	}
	return nil
}
