package replica

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/roamfs/roamfs/peer/device"
	"github.com/roamfs/roamfs/sync/merkle"
	"github.com/roamfs/roamfs/sync/store"
	"github.com/roamfs/roamfs/sync/tree"
)

// node is one device under test: a replica over a real database.
type node struct {
	t     testing.TB
	dir   string
	key   device.Key
	actor tree.Actor
	log   *device.Log
	keep  int64
	share int          // percent of the tree, see Config.Guard
	room  *disk        // nil: endless
	skew  atomic.Int64 // of its clock, ns
	said  said         // its log
	owner device.Key
	st    *store.Store
	*Replica
	stop func()
}

// hive makes n devices of one hive, all members, none connected.
func hive(tb testing.TB, n int) []*node {
	tb.Helper()
	owner, err := device.Generate()
	if err != nil {
		tb.Fatal(err)
	}
	var out []*node
	for i := range n {
		key, err := device.Generate()
		if err != nil {
			tb.Fatal(err)
		}
		d := &node{t: tb, dir: tb.TempDir(), owner: owner, key: key, actor: device.NewActor(key.ID(), [16]byte{byte(i)})}
		label := fmt.Sprint("dev", i)
		if i == 0 {
			d.log, err = device.NewHive(owner.Private(), key.ID(), label, device.Cache, d.actor, time.Now())
		} else {
			if _, err = out[0].log.Add(out[0].key, key.ID(), label, device.Cache, d.actor, time.Now()); err == nil {
				d.log, err = device.Decode(out[0].log.Encode())
			}
		}
		if err != nil {
			tb.Fatal(err)
		}
		out = append(out, d)
	}
	for _, d := range out { // everybody knows everybody
		if _, err := d.log.Merge(out[0].log.Encode()); err != nil {
			tb.Fatal(err)
		}
		d.open()
		tb.Cleanup(d.close)
	}
	return out
}

// said keeps the lines of a log.
type said struct {
	mu    sync.Mutex
	lines []string
}

func (s *said) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lines = append(s.lines, string(p))
	return len(p), nil
}

// count returns how many lines have all of what.
func (s *said) count(what ...string) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.lines {
		if !slices.ContainsFunc(what, func(w string) bool { return !strings.Contains(l, w) }) {
			n++
		}
	}
	return n
}

func (d *node) open() {
	d.t.Helper()
	var err error
	if d.st, err = store.Open(filepath.Join(d.dir, "db"), nil); err != nil {
		d.t.Fatal(err)
	}
	cfg := Config{
		Store: d.st, Key: d.key, Actor: d.actor, Members: d.log, Spread: [32]byte{1},
		Staging: filepath.Join(d.dir, "staging"), Kept: filepath.Join(d.dir, "kept"), Keep: d.keep, Guard: d.share,
		Log: slog.New(slog.NewTextHandler(&d.said, nil)),
		Now: func() time.Time { return time.Now().Add(time.Duration(d.skew.Load())) },
	}
	if d.room != nil {
		cfg.Reserve = d.room.reserve
	}
	d.Replica, err = Open(cfg)
	if err != nil {
		d.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	d.stop = func() {
		cancel()
		if err := <-done; err != nil {
			d.t.Error(err)
		}
	}
}

func (d *node) close() {
	if d.st == nil {
		return
	}
	d.stop()
	if err := errors.Join(d.Close(), d.st.Close()); err != nil {
		d.t.Error(err)
	}
	d.st = nil
}

func (d *node) restart() {
	d.close()
	d.open()
}

// wire is a connection between two nodes: two ordered queues.
type wire struct {
	a, b  *node
	queue [2]chan []byte
	cut   chan struct{}
	done  sync.WaitGroup
}

func connect(a, b *node) *wire { return connectCounting(a, b, func(*node, []byte) {}) }

// connectCounting is connect with a look at each message that is sent, one at a time
// from each side.
func connectCounting(a, b *node, look func(from *node, msg []byte)) *wire {
	return tapped(a, b, func(from *node, msg []byte) error { look(from, msg); return nil })
}

// tapped connects two nodes; what tap returns an error for is not sent.
func tapped(a, b *node, tap func(from *node, msg []byte) error) *wire {
	w := &wire{a: a, b: b, cut: make(chan struct{})}
	ends := [2]*node{a, b}
	for i := range 2 {
		w.queue[i] = make(chan []byte, 64)
		from, to, q := ends[i], ends[1-i], w.queue[i]
		from.Connected(to.key.ID(), func(ctx context.Context, msg []byte) error {
			if len(msg) > 1<<20 {
				a.t.Errorf("message %d of %d bytes", msg[0], len(msg))
			}
			if err := tap(from, msg); err != nil {
				return err
			}
			select {
			case q <- slices.Clone(msg):
				return nil
			case <-w.cut:
				return errors.New("cut")
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	}
	for i := range 2 {
		from, to, q := ends[i], ends[1-i], w.queue[i]
		w.done.Go(func() {
			for {
				select {
				case <-w.cut:
					return
				case msg := <-q:
					if err := to.Receive(context.Background(), from.key.ID(), msg); err != nil {
						a.t.Errorf("%v", err)
						return
					}
				}
			}
		})
	}
	return w
}

func (w *wire) disconnect() {
	close(w.cut)
	w.done.Wait()
	w.a.Disconnected(w.b.key.ID())
	w.b.Disconnected(w.a.key.ID())
}

// agree waits until the nodes have one state and compares what they show.
func agree(tb testing.TB, nodes ...*node) {
	tb.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for {
		states := map[[32]byte]bool{}
		for _, d := range nodes {
			_, s, err := d.State()
			if err != nil {
				tb.Fatal(err)
			}
			states[s] = true
		}
		if len(states) == 1 {
			break
		}
		if time.Now().After(deadline) {
			for i, d := range nodes {
				tb.Logf("node %d: %v\n%s", i, d.known(), d.listing())
			}
			tb.Fatal("the nodes do not come to one state")
		}
		<-time.After(5 * time.Millisecond)
	}
	want := nodes[0].listing()
	for i, d := range nodes[1:] {
		if got := d.listing(); got != want {
			tb.Fatalf("node 0 shows\n%snode %d shows\n%s", want, i+1, got)
		}
	}
}

func (d *node) listing() string {
	var out strings.Builder
	var walk func(dir tree.Ino, path string)
	walk = func(dir tree.Ino, path string) {
		list, err := d.List(dir)
		if err != nil {
			d.t.Fatalf("list %s: %v", path, err)
		}
		for _, e := range list {
			n, err := d.Node(e.Ino)
			if err != nil {
				d.t.Fatalf("%s/%s: %v", path, e.Name, err)
			}
			fmt.Fprintf(&out, "%s/%s %v %o %d %d %q\n", path, e.Name, n.Kind, n.Mode, n.Size, n.NLink, n.Inline)
			if e.Kind == tree.Dir {
				walk(e.Ino, path+"/"+e.Name)
			}
		}
	}
	walk(tree.Root, "")
	return out.String()
}

func (d *node) write(path, text string) {
	d.t.Helper()
	dir, name := d.parent(path)
	c := tree.Content{Kind: tree.File, Size: int64(len(text)), Inline: []byte(text), Mode: 0o644, MTime: 1}
	n, err := d.Lookup(dir, name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		_, err = d.Create(dir, name, c)
	case err == nil:
		_, err = d.Write(n.Ino, n.Base, c, false)
	}
	if err != nil {
		d.t.Fatalf("write %s: %v", path, err)
	}
}

func (d *node) parent(path string) (tree.Ino, string) {
	d.t.Helper()
	dir, name := "", path
	if i := strings.LastIndexByte(path, '/'); i >= 0 {
		dir, name = path[:i], path[i+1:]
	}
	n, err := d.Resolve(dir)
	if err != nil {
		d.t.Fatalf("%s: %v", path, err)
	}
	return n.Ino, name
}

func (d *node) mkdir(path string) {
	d.t.Helper()
	dir, name := d.parent(path)
	if _, err := d.Mkdir(dir, name, 0o755); err != nil {
		d.t.Fatalf("mkdir %s: %v", path, err)
	}
}

func (d *node) rm(path string) {
	d.t.Helper()
	dir, name := d.parent(path)
	if err := d.Unlink(dir, name); err != nil {
		d.t.Fatalf("unlink %s: %v", path, err)
	}
}

func TestChangeIsPushed(t *testing.T) {
	n := hive(t, 2)
	w := connect(n[0], n[1])
	defer w.disconnect()
	told := make(chan tree.Affected, 100)
	n[1].Subscribe(func(a tree.Affected) { told <- a })
	n[0].mkdir("d")
	n[0].write("d/f", "hello")
	agree(t, n...)
	if len(told) == 0 {
		t.Fatal("nobody was told of the remote change")
	}
	n[1].write("d/f", "and back")
	agree(t, n...)
	n[1].rm("d/f")
	agree(t, n...)
}

// TestSubscriptionEnds: who cancels is not told any more, nor kept, also if it is
// the one that is being told.
func TestSubscriptionEnds(t *testing.T) {
	d := hive(t, 1)[0]
	told := map[string]int{}
	var cancels [3]func()
	for i, name := range []string{"first", "once", "last"} {
		cancels[i] = d.Subscribe(func(tree.Affected) {
			if told[name]++; name == "once" {
				cancels[1]()
			}
		})
	}
	news := tree.Affected{Inodes: []tree.Ino{{1}}}
	d.tell(news)
	d.tell(news)
	cancels[0]()
	cancels[0]()
	d.tell(news)
	if told["first"] != 2 || told["once"] != 1 || told["last"] != 3 {
		t.Errorf("told %v", told)
	}
	if len(d.subs) != 1 {
		t.Errorf("%d subscribers are kept", len(d.subs))
	}
}

// TestTemporaryFileLeavesNoTrace: a batch that comes to nothing is not published.
func TestTemporaryFileLeavesNoTrace(t *testing.T) {
	n := hive(t, 1)[0]
	n.write("kept", "x")
	if err := n.Publish(); err != nil {
		t.Fatal(err)
	}
	_, before, err := n.State()
	if err != nil {
		t.Fatal(err)
	}
	n.stop() // so that nothing is published between the two operations
	defer func() { n.stop = func() {} }()
	n.write("tmp", "y")
	n.rm("tmp")
	if err := n.Publish(); err != nil {
		t.Fatal(err)
	}
	if _, after, err := n.State(); err != nil || after != before {
		t.Fatalf("state changed, %v", err)
	}
}

func TestPartitionAndHeal(t *testing.T) {
	n := hive(t, 2)
	w := connect(n[0], n[1])
	n[0].write("shared", "before")
	n[0].write("deleted", "x")
	agree(t, n...)
	w.disconnect()
	for i, d := range n {
		d.write("shared", fmt.Sprint("edit ", i))
		d.write(fmt.Sprint("only", i), "")
		d.write("same", fmt.Sprint("by ", i))
	}
	n[0].rm("deleted")
	n[1].write("deleted", "edited")
	w = connect(n[0], n[1])
	defer w.disconnect()
	agree(t, n...)
	got := n[0].listing()
	for _, want := range []string{`"edit 0"`, `"edit 1"`, "/only0 ", "/only1 ", `"by 0"`, `"by 1"`, `/deleted file 644 6 1 "edited"`} {
		if !strings.Contains(got, want) {
			t.Errorf("%s is not in\n%s", want, got)
		}
	}
}

// TestEditOutlivesDelete: content that was written here while another device
// deleted the file is committed after the delete was adopted, and shown.
func TestEditOutlivesDelete(t *testing.T) {
	n := hive(t, 2)
	w := connect(n[0], n[1])
	defer w.disconnect()
	n[0].mkdir("e")
	n[0].write("e/f.txt", "first")
	n[0].write("mine", "first")
	agree(t, n...)
	open, err := n[0].Resolve("e/f.txt")
	if err != nil {
		t.Fatal(err)
	}
	mine, err := n[0].Resolve("mine")
	if err != nil {
		t.Fatal(err)
	}
	n[1].rm("e/f.txt")
	agree(t, n...)
	c := tree.Content{Kind: tree.File, Size: 6, Inline: []byte("second"), Mode: 0o600}
	got, err := n[0].Write(open.Ino, open.Base, c, true)
	if err != nil || got.Ino == open.Ino {
		t.Fatalf("write to what was deleted elsewhere: %v", err)
	}
	agree(t, n...)
	if l := n[1].listing(); !strings.Contains(l, `/e/f.txt file 644 6 1 "second"`) {
		t.Fatalf("the edit is not in\n%s", l)
	}
	n[0].rm("mine")
	if _, err := n[0].Write(mine.Ino, mine.Base, c, true); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("write to what was deleted here: %v", err)
	}
}

// TestForwarding: what two devices change reaches a third through the middle.
func TestForwarding(t *testing.T) {
	n := hive(t, 3)
	w1, w2 := connect(n[0], n[1]), connect(n[1], n[2])
	defer w1.disconnect()
	defer w2.disconnect()
	n[0].write("a", "from 0")
	n[2].write("b", "from 2")
	agree(t, n...)
}

// TestWholeState: commits that nobody keeps any more are replaced by the state,
// into an empty device and into one that has diverged.
func TestWholeState(t *testing.T) {
	n := hive(t, 3)
	for _, d := range n {
		d.keep = 2000 // bytes: next to nothing
		d.restart()
	}
	w := connect(n[0], n[1])
	n[0].write("old", "x")
	n[0].mkdir("d")
	agree(t, n[0], n[1])
	w.disconnect()
	for i := range 40 {
		for _, d := range n[:2] {
			d.write(fmt.Sprintf("d/f%d", i), fmt.Sprint(d.key.ID().Short(), i))
			if i%4 == 0 {
				if err := d.Publish(); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	n[1].rm("old")
	w = connect(n[0], n[1])
	agree(t, n[0], n[1])
	if strings.Contains(n[0].listing(), "/old ") {
		t.Error("the deleted file came back")
	}
	w2 := connect(n[1], n[2])
	agree(t, n...)
	w.disconnect()
	w2.disconnect()
	for _, d := range n {
		d.restart()
	}
	agree(t, n...)
}

// TestBatchSurvivesKill: what an operation acknowledged is there after a kill,
// which for the database means: it is opened without having been closed.
func TestBatchSurvivesRestart(t *testing.T) {
	n := hive(t, 2)
	n[0].stop() // nothing is published any more
	n[0].write("f", "not published")
	n[0].mkdir("d")
	if err := errors.Join(n[0].Close(), n[0].st.Close()); err != nil {
		t.Fatal(err)
	}
	n[0].open()
	n[0].write("g", "after")
	w := connect(n[0], n[1])
	defer w.disconnect()
	agree(t, n...)
	if got := n[1].listing(); !strings.Contains(got, "not published") || !strings.Contains(got, "after") {
		t.Fatalf("the other device shows\n%s", got)
	}
}

// TestBigBatches: many operations travel in several commits, each of which fits.
func TestBigBatches(t *testing.T) {
	n := hive(t, 2)
	w := connect(n[0], n[1])
	defer w.disconnect()
	for i := range 5000 {
		n[0].write(fmt.Sprintf("file with a longer name %05d", i), "x")
	}
	agree(t, n...)
	if n[0].known()[n[0].actor] < 2 {
		t.Error("everything went into one commit")
	}
}

// TestRandom drives three devices with random operations, cuts and restarts.
func TestRandom(t *testing.T) {
	for seed := range uint64(6) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(seed, 2))
			n := hive(t, 3)
			if seed%2 == 1 {
				for _, d := range n {
					d.keep = 3000
					d.restart()
				}
			}
			links := map[int]*wire{}
			drop := func() {
				for _, w := range links {
					w.disconnect()
				}
				clear(links)
			}
			for range 60 {
				d := n[rnd.IntN(3)]
				switch rnd.IntN(10) {
				case 0:
					if i := rnd.IntN(3); links[i] == nil {
						links[i] = connect(n[i], n[(i+1)%3])
					}
				case 1:
					drop()
				case 2:
					if len(links) == 0 {
						d.restart()
					}
				default:
					d.random(rnd)
				}
			}
			drop()
			for i := range 3 {
				links[i] = connect(n[i], n[(i+1)%3])
			}
			agree(t, n...)
			drop()
		})
	}
}

// random does one operation on names of a tiny alphabet; that it fails because
// of what is there is part of the game.
func (d *node) random(rnd *rand.Rand) {
	dirs := []tree.Ino{tree.Root}
	for _, name := range []string{"a", "b"} {
		if m, err := d.Lookup(tree.Root, name); err == nil && m.Kind == tree.Dir {
			dirs = append(dirs, m.Ino)
		}
	}
	pick := func() (tree.Ino, string) { return dirs[rnd.IntN(len(dirs))], string(rune('a' + rnd.IntN(3))) }
	dir, name := pick()
	to, other := pick()
	text := fmt.Sprint(rnd.IntN(1000))
	c := tree.Content{Kind: tree.File, Size: int64(len(text)), Inline: []byte(text), Mode: 0o644}
	var err error
	switch rnd.IntN(7) {
	case 0:
		_, err = d.Mkdir(dir, name, 0o755)
	case 1:
		err = d.Unlink(dir, name)
	case 2:
		err = d.Rmdir(dir, name)
	case 3:
		err = d.Rename(dir, name, to, other, false, false)
	case 4:
		var m tree.Node
		if m, err = d.Lookup(dir, name); err == nil {
			_, err = d.Link(m.Ino, to, other)
		}
	default:
		var m tree.Node
		if m, err = d.Lookup(dir, name); err == nil && m.Kind == tree.File {
			_, err = d.Write(m.Ino, m.Base, c, false)
		} else if errors.Is(err, fs.ErrNotExist) {
			_, err = d.Create(dir, name, c)
		}
	}
	for _, fine := range []error{nil, fs.ErrNotExist, fs.ErrExist, tree.ErrNotEmpty, tree.ErrIsDir, tree.ErrNotDir, tree.ErrLoop, tree.ErrTooManyLinks, fs.ErrPermission} {
		if errors.Is(err, fine) {
			return
		}
	}
	d.t.Fatal(err)
}

// TestRefusesForgeries sends a device commits that are not what their author signed.
func TestRefusesForgeries(t *testing.T) {
	n := hive(t, 3)
	n[0].write("f", "x")
	if err := n[0].Publish(); err != nil {
		t.Fatal(err)
	}
	c, err := n[0].st.Commit(n[0].commits.at[tree.Dot{Actor: n[0].actor, Ctr: 1}].Seq)
	if err != nil {
		t.Fatal(err)
	}
	_, before, err := n[1].State()
	if err != nil {
		t.Fatal(err)
	}
	flip := func(b []byte, i int) []byte { b = slices.Clone(b); b[i] ^= 1; return b }
	for i := range c.Manifest {
		if _, err := n[1].adopt(flip(c.Manifest, i), c.Delta); err == nil {
			t.Fatalf("manifest with byte %d changed was adopted", i)
		}
	}
	for i := range c.Delta {
		if _, err := n[1].adopt(c.Manifest, flip(c.Delta, i)); err == nil {
			t.Fatalf("delta with byte %d changed was adopted", i)
		}
	}
	stranger := hive(t, 1)[0]
	if _, err := stranger.adopt(c.Manifest, c.Delta); err == nil {
		t.Fatal("a commit of another hive was adopted")
	}
	if _, after, err := n[1].State(); err != nil || after != before {
		t.Fatalf("a refused commit left something behind, %v", err)
	}
	if _, err := n[1].adopt(c.Manifest, c.Delta); err != nil {
		t.Fatalf("the real one: %v", err)
	}
	if _, err := n[1].adopt(c.Manifest, c.Delta); err != nil {
		t.Fatalf("the real one again: %v", err)
	}
}

func FuzzReceive(f *testing.F) {
	n := hive(f, 2)
	n[0].write("f", "x")
	if err := n[0].Publish(); err != nil {
		f.Fatal(err)
	}
	c, err := n[0].st.Commit(1)
	if err != nil {
		f.Fatal(err)
	}
	heads, err := n[0].newest()
	if err != nil {
		f.Fatal(err)
	}
	h := hello{hive: n[0].log.Hive(), heads: heads}
	for _, msg := range [][]byte{h.encode(), encodeCommit(c.Manifest, c.Delta), appendHeads([]byte{msgTold}, heads), encodeOffer(9), {msgWant}, encodeAsk(someRefs), append([]byte{msgFork}, c.Manifest...), {msgMore, 1}, encodeState(c.Manifest, []toldHead{{c.Manifest, nil}}, merkle.Ref{}), append([]byte{msgMembers}, n[0].log.Encode()...), {msgPieces, 1, 2}} {
		f.Add(msg)
	}
	dev := n[0].key.ID()
	n[1].Connected(dev, func(context.Context, []byte) error { return nil })
	f.Fuzz(func(_ *testing.T, msg []byte) { _ = n[1].Receive(context.Background(), dev, msg) })
}

func BenchmarkCreate(b *testing.B) {
	d := hive(b, 1)[0]
	i := 0
	for b.Loop() {
		i++
		d.write(fmt.Sprint("f", i), "x")
	}
}
