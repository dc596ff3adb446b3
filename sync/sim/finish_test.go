package sim

import (
	"fmt"
	"maps"
	"testing/synctest"
	"time"

	"github.com/roamfs/roamfs/peer/device"
	"github.com/roamfs/roamfs/sync/tree"
)

// expectConverge says what becomes of a device that was restored from an old
// image or cloned. True: it notices at its next start, as the program does, and
// goes on as a new incarnation, and all come to one state. False: it does not
// notice, as in a virtual machine that is set back, and then it or the others may
// stop exchanging, as long as nobody loses anything and it is named.
const expectConverge = true

// finish heals everything and checks that all devices come to one state and then
// are silent.
func (w *world) finish() {
	w.logf("all is well")
	w.mu.Lock()
	w.relay = false
	for _, m := range w.machines {
		m.fuse = 0
	}
	w.mu.Unlock()
	if !w.forks {
		w.heal(func(*machine) bool { return true })
		return
	}
	// Of a device that runs twice one copy is on at a time: first the one, then the other.
	copies := map[device.ID][]*machine{}
	for _, m := range w.machines {
		copies[m.key.ID()] = append(copies[m.key.ID()], m)
	}
	for turn := range 2 {
		w.heal(func(m *machine) bool {
			c := copies[m.key.ID()]
			return c[(turn+int(w.seed))%len(c)] == m
		})
	}
}

// heal lets the machines that on chooses run without faults until they are silent.
func (w *world) heal(on func(*machine) bool) {
	for _, l := range w.lines {
		l.apart = false
		w.end(l, 0)
		w.end(l, 1)
	}
	var all []*machine
	for _, m := range w.machines {
		switch on := on(m) && m.birth != nil && !m.revoked; {
		case on && !m.up:
			w.wake(m)
		case !on && m.up:
			m.shut()
		}
		if m.up {
			all = append(all, m)
		}
	}
	ring := !w.joins && w.rng.IntN(2) == 0 // a device that was added knows its sponsor at least
	silent := w.settle(all, ring)
	w.logf("healed after %v", silent)
	w.compare(all)
	w.quiet(all)
	w.tidied(all, ring)
	w.restarted(all)
}

// settle delivers all until the machines are silent, and returns for how long they
// were then.
func (w *world) settle(all []*machine, ring bool) time.Duration {
	const patience = 15 * time.Minute
	const settled = 65 * time.Second // a device that refused the state of another one says hello again after a minute
	silent := time.Duration(0)
	for begin, rounds := time.Now(), 0; ; {
		w.connectAll(all, ring)
		if w.deliverAll() {
			silent = 0
			if rounds++; rounds > 20000 {
				violate("I9: %d messages and no end of it", w.sent)
			}
			continue
		}
		if silent >= settled && w.agreed(all) || silent > 5*time.Minute {
			break
		}
		if time.Since(begin) > patience {
			w.logf("no end of it after %v", time.Since(begin))
			break
		}
		d := 50*time.Millisecond + silent/2
		silent += d
		w.wait(d)
	}
	return silent
}

// tidied checks that what nobody needs any more goes with what users do next, and
// that this changes nothing else.
func (w *world) tidied(all []*machine, ring bool) {
	garbage := func(m *machine) (n int) {
		check(m.st.Dead(func(i tree.Ino) error {
			inos, err := m.st.Children(i) // of a removed directory that is shown, or one that a lost move went to
			if _, shown := m.rep.Node(i); shown != nil && len(inos) == 0 {
				n++
			}
			return err
		}))
		return n
	}
	before := garbage(all[0])
	for i := 0; i < 3 || i < 20 && garbage(all[0]) > 0; i++ {
		m := all[i%len(all)]
		w.tokens++
		o := op{kind: "create", from: fmt.Sprint("/tidy", w.tokens), token: fmt.Sprint(w.tokens)}
		w.logf("%s: %v", m.name, o)
		w.do(m, o)
		w.settle(all, ring)
	}
	w.compare(all)
	w.gone += before - garbage(all[0])
	log := all[0].log
	if len(log.Members()) != len(all) || circles(all[0]) {
		return // somebody is not heard of, or no directory goes (package tree, garbage.go)
	}
	v := vectorOf(all[0].st)
	for _, m := range log.Former() {
		for _, a := range m.Actors {
			if log.Cutoff(a).Ctr > v[a] {
				return // something may come yet
			}
		}
	}
	for _, m := range all {
		if n := garbage(m); n > 0 {
			violate("%s has records of %d inodes that show nothing", m.name, n)
		}
	}
}

// circles reports whether moves have put directories into each other.
func circles(m *machine) (found bool) {
	in := map[tree.Ino]map[tree.Ino]bool{} // a directory -> those that its links name
	check(m.st.Dirs(func(i tree.Ino) error {
		recs, err := m.st.Records(i)
		for _, r := range recs {
			if l, err := tree.DecodeLink(r.Value); err == nil && r.Key.Type() == tree.TypeLink {
				if in[i] == nil {
					in[i] = map[tree.Ino]bool{}
				}
				in[i][l.Parent] = true
			}
		}
		return err
	}))
	for start := range in {
		above := map[tree.Ino]bool{}
		var up func(tree.Ino)
		up = func(i tree.Ino) {
			for p := range in[i] {
				if !above[p] {
					above[p] = true
					up(p)
				}
			}
		}
		up(start)
		found = found || above[start]
	}
	return found
}

// connectAll connects all machines, or each with the next one.
func (w *world) connectAll(all []*machine, ring bool) {
	for i, m := range all {
		for j, o := range all[i+1:] {
			if ring && j > 0 {
				break
			}
			l := w.between(m, o)
			if w.open(l, 1000) {
				w.join(l, 0)
				w.join(l, 1)
			}
			if c := l.conn; c != nil && c.cut { // one end found fault with it
				w.end(l, 0)
				w.end(l, 1)
			}
		}
	}
}

// deliverAll delivers what is under way, once around, and reports whether there was
// something.
func (w *world) deliverAll() (some bool) {
	for _, l := range w.lines {
		for i := range 2 {
			some = w.deliver(l, i) || some
		}
	}
	return some
}

func (w *world) agreed(all []*machine) bool {
	_, want := all[0].state()
	for _, m := range all[1:] {
		if _, id := m.state(); id != want {
			return false
		}
	}
	return true
}

// compare checks that all show the same, and all that is owed.
func (w *world) compare(all []*machine) {
	owed := map[string]bool{}
	for _, m := range all {
		w.rebuilt(m)
		maps.Copy(owed, m.shownNow)
	}
	if w.forks && !expectConverge {
		w.parted(all)
		return
	}
	for _, m := range all {
		if err := m.rep.OldCopy(); err != nil {
			violate("%s has stopped: %v", m.name, err)
		}
	}
	if !w.agreed(all) {
		for _, m := range all {
			w.logf("%s knows %v and shows\n%s", m.name, vectorOf(m.st), m.seen.text)
		}
		violate("I3: the devices do not come to one state")
	}
	for _, m := range all {
		if m.seen.text != all[0].seen.text {
			violate("I3: %s shows\n%s%s shows\n%s", m.name, m.seen.text, all[0].name, all[0].seen.text)
		}
		m.shownNow = owed
		w.kept(m, m.seen)
	}
}

// parted checks that of two that are connected and have different states one has
// stopped by itself or each says whose history they do not agree on.
func (w *world) parted(all []*machine) {
	for _, l := range w.lines {
		if l.conn == nil {
			continue
		}
		a, b := l.ends[0], l.ends[1]
		_, x := a.state()
		_, y := b.state()
		if x == y || a.rep.OldCopy() != nil || b.rep.OldCopy() != nil {
			continue
		}
		if a.rep.Fork(b.key.ID()) == nil && b.rep.Fork(a.key.ID()) == nil {
			for _, m := range all {
				w.logf("%s knows %v and shows\n%s", m.name, vectorOf(m.st), m.seen.text)
			}
			violate("I3: %s and %s have different states and do not say why", a.name, b.name)
		}
	}
	for _, m := range all {
		if !m.forked && m.rep.OldCopy() != nil {
			violate("%s has stopped, and was neither restored nor cloned", m.name)
		}
	}
}

// quiet checks that nothing happens any more (I9).
func (w *world) quiet(all []*machine) {
	length := 3 * time.Minute
	if w.seed%40 == 0 {
		length = time.Hour
	}
	before := w.sent
	known := map[*machine]int{}
	for _, m := range all {
		known[m] = int(m.rep.Commits())
	}
	const step = 10 * time.Second
	for range length / step {
		w.wait(step)
		for w.deliverAll() {
			synctest.Wait()
		}
	}
	if n := w.sent - before; n > 0 {
		violate("I9: %d messages within %v after all is done", n, length)
	}
	for _, m := range all {
		if n := int(m.rep.Commits()); n != known[m] {
			violate("I9: %s has made or found %d commits with nothing to do", m.name, n-known[m])
		}
	}
}

// restarted checks that a restart changes nothing.
func (w *world) restarted(all []*machine) {
	for _, m := range all {
		_, before := m.state()
		m.exact, m.least = m.seen.text, vectorOf(m.st)
		m.shut()
		w.wake(m)
		if _, after := m.state(); after != before {
			violate("I15: %s has another state after a restart", m.name)
		}
	}
}
