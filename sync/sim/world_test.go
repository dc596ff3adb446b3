package sim

import (
	"bytes"
	"fmt"
	"hash/crc32"
	"hash/fnv"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing/synctest"
	"time"

	"github.com/roamfs/roamfs/peer/device"
	"github.com/roamfs/roamfs/sync/manifest"
	"github.com/roamfs/roamfs/sync/tree"
)

// violation is what a run stops with when an invariant does not hold.
type violation struct{ msg string }

func (v violation) Error() string { return v.msg }

func violate(format string, args ...any) { panic(violation{fmt.Sprintf(format, args...)}) }

func check(err error) {
	if err != nil {
		violate("unexpected error: %v", err)
	}
}

func contains(s, what string) bool { return strings.Contains(s, what) }

func short(b []byte) uint32 { return crc32.ChecksumIEEE(b) }

// off is what a run does without, to prove that its checks see it.
type off struct {
	sync  bool // the disk makes durable what it is told to
	renew bool // a restored or cloned device becomes a new incarnation
}

// world is one run. Its goroutine alone decides what happens; between two
// decisions all that the devices do comes to rest.
type world struct {
	seed     uint64
	dir      string
	off      off
	rng      *rand.Rand
	pcg      *rand.PCG // of rng; each step has a sequence of its own, so that one can be left out
	steps    int
	machines []*machine
	lines    []*line

	most  int  // messages under way on a connection
	relay bool // something in the network changes, replays and withholds messages
	forks bool // devices are restored from old images and cloned
	joins bool // devices are added
	large bool // commits that need several transactions

	mu    sync.Mutex // guards what devices change on their own: queues, disks, all below
	sent  int        // messages
	err   error      // the first violation that a device's goroutine came to
	chain map[tree.Actor]map[uint64]*manifest.Manifest

	images  int
	born    int // incarnations
	tokens  int
	refused int
	gone    int             // inodes that were dropped in the end
	written map[string]bool // every content ever written
	killed  map[string]bool // contents that a user gave up where they were shown
	log     []string
	sum     uint64 // over the log
}

func newWorld(seed uint64, dir string, off off) *world {
	pcg := rand.NewPCG(seed, 0)
	w := &world{
		seed: seed, dir: dir, off: off, pcg: pcg, rng: rand.New(pcg),
		chain: map[tree.Actor]map[uint64]*manifest.Manifest{}, written: map[string]bool{}, killed: map[string]bool{},
	}
	w.steps = 30 + w.rng.IntN(220)
	w.most = []int{2, 8, 1000}[w.rng.IntN(3)]
	switch w.rng.IntN(8) {
	case 0:
		w.relay = true
	case 1, 2:
		w.forks = true
	case 3, 4:
		w.joins = true
	case 5:
		w.large = true
	}
	return w
}

// begin sets the first devices up, all members.
func (w *world) begin() {
	owner := w.key(ownerKey)
	var log *device.Log
	for i := range 2 + w.rng.IntN(3) {
		m := w.machine(w.key(i), fmt.Sprint("dev", i))
		var err error
		if log == nil {
			log, err = device.NewHive(owner.Private(), m.key.ID(), m.name, device.Cache, m.actor, time.Now())
		} else {
			_, err = log.Add(w.machines[0].key, m.key.ID(), m.name, device.Cache, m.actor, time.Now())
		}
		check(err)
	}
	for _, m := range w.machines {
		m.birth = log.Encode()
		m.start()
	}
	if w.rng.IntN(2) == 0 {
		w.connectAll(w.machines, false)
	}
}

// ownerKey is the number of the key that owns the hive.
const ownerKey = 1 << 20

func (w *world) key(n int) device.Key {
	var seed [32]byte
	copy(seed[:], fmt.Sprintf("%d of %d", n, w.seed))
	return device.KeyFromSeed(seed)
}

// machine adds a machine with lines to all others.
func (w *world) machine(key device.Key, name string) *machine {
	m := &machine{w: w, n: len(w.machines), name: name, key: key, actor: device.NewActor(key.ID(), [16]byte{}), shownNow: map[string]bool{}}
	m.dir = filepath.Join(w.dir, "disk-"+name)
	m.keep = []int64{0, 0, 700, 3000}[w.rng.IntN(4)]
	const year = 365 * 24 * time.Hour
	m.clock.Store(int64([]time.Duration{0, 0, time.Duration(m.n) * time.Second, 10 * year, -10 * year, -3 * time.Second}[w.rng.IntN(6)]))
	for _, o := range w.machines {
		w.lines = append(w.lines, &line{ends: [2]*machine{o, m}})
	}
	w.machines = append(w.machines, m)
	return m
}

func (w *world) logf(format string, args ...any) {
	s := fmt.Sprintf(format, args...)
	h := fnv.New64a()
	fmt.Fprint(h, w.sum, s)
	w.sum = h.Sum64()
	w.log = append(w.log, s)
}

// guard runs fn in a goroutine of a device, with mu held, and keeps the violation
// that it stops with.
func (w *world) guard(fn func()) {
	if err := caught(fn); err != nil && w.err == nil {
		w.err = err
	}
}

// broken stops the run if a goroutine of a device came to a violation. It is called
// whenever all has come to rest.
func (w *world) broken() {
	w.mu.Lock()
	w.rest()
	err := w.err
	w.mu.Unlock()
	if err != nil {
		panic(violation{err.Error()})
	}
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

// run plays the steps and returns the first violation. It is to be called in a
// bubble of synctest.
func (w *world) run(steps []int) error {
	defer os.RemoveAll(w.dir) //nolint:errcheck // a directory for temporary files
	defer w.bury()
	return caught(func() {
		w.begin()
		for _, s := range steps {
			w.pcg.Seed(w.seed, uint64(s)+1)
			w.step()
			synctest.Wait()
			w.broken()
			w.crashed()
		}
		w.pcg.Seed(w.seed, 1<<40)
		w.finish()
	})
}

// bury stops whatever still runs.
func (w *world) bury() {
	for _, m := range w.machines {
		if m.open {
			m.dead.Store(true)
			w.unplug(m)
			m.abandon()
		}
	}
}

// any returns a random machine for which ok holds, or nil.
func (w *world) any(ok func(*machine) bool) *machine {
	var all []*machine
	for _, m := range w.machines {
		if ok(m) {
			all = append(all, m)
		}
	}
	if len(all) == 0 {
		return nil
	}
	return all[w.rng.IntN(len(all))]
}

func running(m *machine) bool { return m.up && !m.dead.Load() }

// step does one random thing.
func (w *world) step() {
	rng := w.rng
	switch what := rng.IntN(100); {
	case what < 30:
		m := w.any(running)
		for range 1 + rng.IntN(3) {
			if m != nil && running(m) {
				o := w.pick(m)
				w.logf("%s: %v", m.name, o)
				w.do(m, o)
			}
		}
	case what < 55:
		n := 1 + rng.IntN(6)
		if rng.IntN(4) == 0 {
			n = 50
		}
		for range n {
			w.deliverAny()
		}
	case what < 56:
		w.meet()
	case what < 70:
		ms := []int{0, 1, 11, 11, 11, 25, 25, 310, 310, 600, 2000, 61000}[rng.IntN(12)]
		d := time.Duration(ms*1e6 + rng.IntN(1e6))
		w.logf("%v pass", d)
		w.wait(d)
	case what < 74:
		if m := w.any(running); m != nil {
			w.logf("%s: publish", m.name)
			err := m.rep.Publish()
			if err != nil && !m.dead.Load() {
				violate("%s does not publish: %v", m.name, err)
			}
		}
	case what < 77:
		if m := w.any(running); m != nil {
			w.logf("%s: sync", m.name)
			check(m.rep.Sync())
		}
	case what < 88:
		w.network()
	case what < 92:
		w.power()
	case what < 94:
		if m := w.any(running); m != nil {
			const year = 365 * 24 * time.Hour
			off := time.Duration(m.clock.Load())
			d := []time.Duration{10 * year, -10 * year, time.Hour, -time.Hour, -off}[rng.IntN(5)]
			if (off + d).Abs() > 20*year { // nothing is dated before 1970
				d = -off
			}
			w.logf("%s: the clock jumps by %v", m.name, d)
			m.clock.Add(int64(d))
		}
	case what < 96:
		w.members()
	default:
		if w.forks {
			w.copies()
		}
	}
}

// wait lets time pass.
func (w *world) wait(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
	w.broken()
	for _, m := range w.machines {
		if running(m) {
			w.look(m)
		}
	}
}

// meet connects all that run and can reach each other, until they know nearly all of
// each other.
func (w *world) meet() {
	w.logf("all meet")
	for range 4 {
		var all []*machine
		for _, m := range w.machines {
			if running(m) {
				all = append(all, m)
			}
		}
		w.connectAll(all, false)
		for rounds := 0; rounds < 200 && w.deliverAll(); rounds++ {
			synctest.Wait()
			w.broken()
		}
		w.wait(400 * time.Millisecond)
	}
}

// deliverAny delivers one message of a random line.
func (w *world) deliverAny() {
	type way struct {
		l *line
		i int
	}
	var ways []way
	for _, l := range w.lines {
		for i := range 2 {
			if c := l.conn; c != nil && w.waiting(c, i) > 0 && c.begun[1-i] && !c.over[1-i] {
				ways = append(ways, way{l, i})
			}
		}
	}
	if len(ways) > 0 {
		x := ways[w.rng.IntN(len(ways))]
		w.deliver(x.l, x.i)
		synctest.Wait()
		w.broken()
	}
}

// network connects, cuts, parts and heals.
func (w *world) network() {
	rng := w.rng
	l := w.lines[rng.IntN(len(w.lines))]
	names := l.ends[0].name + "-" + l.ends[1].name
	switch what := rng.IntN(12); {
	case what == 0:
		w.logf("the network falls apart")
		side := map[*machine]int{}
		for _, m := range w.machines {
			side[m] = rng.IntN(2)
		}
		for _, l := range w.lines {
			if l.apart = side[l.ends[0]] != side[l.ends[1]]; l.apart {
				w.cut(l, rng.IntN(3))
			}
		}
	case what == 1:
		w.logf("the network is whole")
		for _, l := range w.lines {
			l.apart = false
		}
	case what < 4:
		n := rng.IntN(4)
		w.logf("%s: cut after %d: %v", names, n, w.cut(l, n))
	case what < 6:
		i := rng.IntN(2)
		w.logf("%s: end %d over: %v", names, i, w.end(l, i))
	default:
		w.logf("%s: open: %v", names, w.open(l, w.most))
		i := rng.IntN(2)
		w.join(l, i)
		if rng.IntN(4) > 0 {
			w.join(l, 1-i)
		}
	}
}

func (w *world) join(l *line, i int) {
	if w.attach(l, i) {
		w.logf("   begins at %s", l.ends[i].name)
		synctest.Wait()
		w.broken()
	}
}

// power turns machines on and off.
func (w *world) power() {
	rng := w.rng
	if m := w.any(func(m *machine) bool { return !m.up && m.birth != nil }); m != nil && rng.IntN(3) > 0 {
		w.logf("%s: on", m.name)
		w.wake(m)
		return
	}
	m := w.any(running)
	if m == nil {
		return
	}
	switch rng.IntN(5) {
	case 0:
		w.logf("%s: off", m.name)
		m.shut()
		synctest.Wait()
		if rng.IntN(2) == 0 {
			w.wake(m)
		}
	case 1, 2:
		w.mu.Lock()
		m.fuse = 1 + rng.IntN(12)
		w.mu.Unlock()
		w.logf("%s: the power goes off in %d", m.name, m.fuse)
	case 3:
		w.logf("%s: killed", m.name)
		img := m.capture("kill")
		img.exact = m.seen.text
		w.crash(m, img)
	default:
		w.logf("%s: the power goes off, %d writes are lost", m.name, m.writes)
		img := m.durable
		if m.writes == 0 {
			img.exact = m.seen.text
		}
		w.crash(m, img)
	}
}

// crash puts img in the place of a machine's disk and starts it, sooner or later.
func (w *world) crash(m *machine, img *image) {
	m.kill(img)
	m.back(img)
	if w.rng.IntN(2) == 0 {
		w.wake(m)
	}
}

// crashed deals with the machines that went off by themselves.
func (w *world) crashed() {
	for _, m := range w.machines {
		if m.up && m.dead.Load() {
			img := m.blown
			if w.rng.IntN(2) == 0 {
				img = m.durable
			}
			w.logf("%s: went off, left with: %s", m.name, img.when)
			w.crash(m, img)
		}
	}
}

// members adds a device, or changes what is said about one.
func (w *world) members() {
	rng := w.rng
	m := w.any(func(m *machine) bool { return running(m) && !m.revoked })
	if m == nil {
		return
	}
	of := w.machines[rng.IntN(len(w.machines))]
	switch {
	case w.joins && len(w.machines) < 6 && rng.IntN(2) == 0:
		n := w.machine(w.key(len(w.machines)), fmt.Sprint("dev", len(w.machines)))
		w.logf("%s: adds %s", m.name, n.name)
		m.sponsor = true
		err := m.rep.Add(n.key.ID(), "new", device.Cache, n.actor)
		synctest.Wait()
		if m.dead.Load() {
			return // perhaps it was added, perhaps not: it never starts
		}
		check(err)
		n.birth = m.log.Encode()
		n.start()
	case w.joins && rng.IntN(3) == 0:
		w.shutOut(m, of)
	case rng.IntN(2) == 0:
		err := m.rep.RenameDevice(of.key.ID(), fmt.Sprint("name", rng.IntN(3)))
		w.logf("%s: renames %s: %v", m.name, of.name, err)
	default:
		err := m.rep.SetDeviceRole(of.key.ID(), []device.Role{device.Cache, device.Archive}[rng.IntN(2)])
		w.logf("%s: role of %s: %v", m.name, of.name, err)
	}
}

// copies makes an image of a disk, puts an old one back, or starts another
// machine from one.
func (w *world) copies() {
	rng := w.rng
	m := w.any(func(m *machine) bool { return running(m) && len(m.past) > 0 })
	if m == nil || len(m.past) < 2 && rng.IntN(3) == 0 {
		if m = w.any(running); m != nil {
			w.logf("%s: an image is made", m.name)
			img := m.capture("image")
			img.exact = m.seen.text
			m.past = append(m.past, img)
		}
		return
	}
	img := m.past[rng.IntN(len(m.past))]
	if rng.IntN(2) == 0 || len(w.machines) > 4 {
		w.logf("%s: restored as of %v", m.name, img.known)
		m.forked, m.reborn = true, true
		w.crash(m, img)
		return
	}
	c := w.machine(m.key, m.name+"'")
	c.actor, c.keep, c.birth, c.forked, c.reborn = img.actor, m.keep, m.birth, true, true
	m.forked = m.forked || !expectConverge // the original goes on as before
	w.logf("%s: a clone as of %v", m.name, img.known)
	c.put(img)
	c.back(img)
	w.wake(c)
}

// text is the log of the run for a person.
func (w *world) text() string {
	var b bytes.Buffer
	for _, s := range w.log {
		b.WriteString(s)
		b.WriteByte('\n')
	}
	for _, m := range w.machines {
		if c := m.complaints(); c != "" {
			fmt.Fprintf(&b, "%s says:\n%s", m.name, c)
		}
	}
	return b.String()
}

// all numbers the steps of a run.
func (w *world) all() []int {
	steps := make([]int, w.steps)
	for i := range steps {
		steps[i] = i
	}
	return steps
}

// mayLose reports whether a device is in use twice: what it does in a directory that has
// gone everywhere is shown without it (package tree, garbage.go).
func (w *world) mayLose() bool {
	devices := map[device.ID]bool{}
	for _, m := range w.machines {
		if devices[m.key.ID()] {
			return true
		}
		devices[m.key.ID()] = true
	}
	return false
}
