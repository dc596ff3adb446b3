package replica

import (
	"fmt"
	"strings"
	"testing"

	"github.com/roamfs/roamfs/peer/device"
	"github.com/roamfs/roamfs/sync/tree"
)

// rmdir removes an empty directory.
func (d *node) rmdir(path string) {
	d.t.Helper()
	dir, name := d.parent(path)
	if err := d.Rmdir(dir, name); err != nil {
		d.t.Fatalf("rmdir %s: %v", path, err)
	}
}

// garbage returns how many inodes d has records of that show nothing.
func (d *node) garbage() (n int) {
	d.t.Helper()
	if err := d.st.Dead(func(tree.Ino) error { n++; return nil }); err != nil {
		d.t.Fatal(err)
	}
	return n
}

// rest waits until each of the nodes has said to each other that it knows all.
func rest(tb testing.TB, nodes ...*node) {
	tb.Helper()
	for _, d := range nodes {
		if err := d.Publish(); err != nil {
			tb.Fatal(err)
		}
	}
	await(tb, func() bool {
		for _, d := range nodes {
			mine := d.known()
			for _, o := range nodes {
				o.words.mu.Lock()
				w := o.words.of[d.key.ID()]
				o.words.mu.Unlock()
				if n := mine[d.actor]; n > 0 {
					w.knows = w.knows.Clone()
					w.knows[d.actor] = n // its commits say so
				}
				if o != d && (!w.knows.Equal(mine) || w.log != o.log.Hash() || !o.known().Equal(mine)) {
					return false
				}
			}
		}
		return true
	})
}

// meet connects two members until both know what either has done, and parts them.
func meet(t *testing.T, a, b *node) {
	t.Helper()
	w := connect(a, b)
	rest(t, a, b)
	w.disconnect()
}

// litter leaves two skeletons, one in the other, and the mode of a file that was
// deleted by somebody who had not seen it set.
func litter(t *testing.T, a, b *node) {
	t.Helper()
	w := connect(a, b)
	a.mkdir("d")
	a.mkdir("d/e")
	a.write("d/e/f", "x")
	a.write("g", "x")
	agree(t, a, b)
	w.disconnect()
	g := b.at("g")
	if err := b.Chmod(g.Ino, 0o600); err != nil {
		t.Fatal(err)
	}
	a.rm("d/e/f")
	a.rmdir("d/e")
	a.rmdir("d")
	a.rm("g")
	w = connect(a, b)
	agree(t, a, b)
	w.disconnect()
	for _, d := range []*node{a, b} {
		if n := d.garbage(); n != 3 {
			t.Fatalf("%d inodes are garbage, 3 wanted", n)
		}
	}
}

// mesh connects all nodes with each other.
func mesh(nodes ...*node) (end func()) {
	var ws []*wire
	for i, a := range nodes {
		for _, b := range nodes[i+1:] {
			ws = append(ws, connect(a, b))
		}
	}
	return func() {
		for _, w := range ws {
			w.disconnect()
		}
	}
}

// TestGarbage: what all know not to be needed goes with the next commit, on all
// devices, and no commit is made for it.
func TestGarbage(t *testing.T) {
	n := hive(t, 3)
	litter(t, n[0], n[1])
	defer mesh(n...)()
	rest(t, n...)
	before := n[0].Commits()
	for _, d := range n {
		if err := d.Publish(); err != nil {
			t.Fatal(err)
		}
		if d.garbage() != 3 || d.Commits() != before {
			t.Fatalf("%d inodes are garbage after %d commits, 3 wanted after %d", d.garbage(), d.Commits(), before)
		}
	}
	for i := range 2 { // the first may only bring out that all know what came before
		n[0].write("h", fmt.Sprint(i))
		rest(t, n...)
	}
	agree(t, n...)
	for i, d := range n {
		if g := d.garbage(); g != 0 {
			t.Errorf("device %d has records of %d inodes that show nothing", i, g)
		}
		if d.said.count("trees differ") > 0 {
			t.Errorf("device %d finds another root than was signed", i)
		}
	}
	if got := n[1].listing(); strings.Count(got, "\n") != 1 {
		t.Errorf("shown:\n%s", got)
	}
	// The place can be used again, by its old inode.
	n[1].mkdir("d")
	n[1].write("d/new", "x")
	agree(t, n...)
}

// TestGarbageAfterRestart: the words of others outlast a restart, and so does what
// they are about.
func TestGarbageAfterRestart(t *testing.T) {
	n := hive(t, 2)
	litter(t, n[0], n[1])
	w := connect(n[0], n[1])
	rest(t, n...)
	w.disconnect()
	n[0].restart()
	n[0].write("h", "x")
	if err := n[0].Publish(); err != nil {
		t.Fatal(err)
	}
	if g := n[0].garbage(); g != 0 {
		t.Errorf("records of %d inodes are left", g)
	}
	meet(t, n[0], n[1])
	agree(t, n...)
}

// TestGarbageWaits: as long as one member may not know, everything stays. One that
// was shut out is not waited for.
func TestGarbageWaits(t *testing.T) {
	n := hive(t, 3)
	all := mesh(n...)
	n[2].write("k", "x")
	rest(t, n...)
	all()
	away := n[2]
	litter(t, n[0], n[1])
	w := connect(n[0], n[1])
	defer func() { w.disconnect() }()
	for i := range 5 {
		n[i%2].write("h", fmt.Sprint(i))
		rest(t, n[:2]...)
	}
	if n[0].garbage() != 3 || n[1].garbage() != 3 {
		t.Fatalf("%d and %d inodes are garbage, and a member does not know of it", n[0].garbage(), n[1].garbage())
	}
	if err := n[0].Revoke(n[0].owner, away.key.ID(), device.ClassLost); err != nil {
		t.Fatal(err)
	}
	await(t, func() bool { return n[1].shut(away.key.ID()) })
	for i := range 3 {
		n[0].write("h", fmt.Sprint("after", i))
		rest(t, n[:2]...)
	}
	if n[0].garbage() != 0 || n[1].garbage() != 0 {
		t.Errorf("%d and %d inodes are garbage, and all who are left know", n[0].garbage(), n[1].garbage())
	}
	agree(t, n[:2]...)
}

// TestGarbageOfWhatIsNotHere: a member has put something into a directory before
// it heard that it was removed, and here that is not known yet. Its word alone does not count.
func TestGarbageOfWhatIsNotHere(t *testing.T) {
	n := hive(t, 2)
	w := connect(n[0], n[1])
	n[0].mkdir("d")
	rest(t, n...)
	w.disconnect()
	n[1].write("d/f", "x")
	if err := n[1].Publish(); err != nil {
		t.Fatal(err)
	}
	n[0].rmdir("d")
	n[0].write("h", "1")
	if err := n[0].Publish(); err != nil {
		t.Fatal(err)
	}
	// The commits of the one come, and its word goes; its own commit is lost on the way.
	for ctr := uint64(1); ctr <= n[0].known()[n[0].actor]; ctr++ {
		c := n[0].commit(ctr)
		if _, err := n[1].adopt(c.Manifest, c.Delta); err != nil {
			t.Fatal(err)
		}
	}
	if err := n[1].Publish(); err != nil {
		t.Fatal(err)
	}
	said := func() {
		if err := n[0].word(n[1].key.ID(), word{n[1].known(), n[0].log.Hash()}); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 3 {
		said()
		n[0].write("h", fmt.Sprint("again", i))
		if err := n[0].Publish(); err != nil {
			t.Fatal(err)
		}
		c := n[0].last()
		if _, err := n[1].adopt(c.Manifest, c.Delta); err != nil {
			t.Fatal(err)
		}
		if err := n[1].Publish(); err != nil {
			t.Fatal(err)
		}
	}
	met(t, n[0], n[1])
	agree(t, n...)
	if got := n[0].listing(); !strings.Contains(got, "/d/f file") || strings.Contains(got, tree.RecoveredName) {
		t.Errorf("shown:\n%s", got)
	}
}

// TestGarbageAndNewMember: one that is being added has a state in which the
// directory is there. Nothing goes before it has said what it knows.
func TestGarbageAndNewMember(t *testing.T) {
	n := hive(t, 2)
	meet(t, n[0], n[1])
	n[0].mkdir("d")
	meet(t, n[0], n[1])
	key, err := device.Generate()
	if err != nil {
		t.Fatal(err)
	}
	d := &node{t: t, dir: t.TempDir(), owner: n[0].owner, key: key, actor: device.NewActor(key.ID(), [16]byte{7})}
	if err := n[1].Add(key.ID(), "new", device.Cache, d.actor); err != nil {
		t.Fatal(err)
	}
	if d.log, err = device.Decode(n[1].log.Encode()); err != nil {
		t.Fatal(err)
	}
	d.open()
	t.Cleanup(d.close)
	meet(t, n[1], d)
	d.write("d/f", "x") // which nobody knows
	n[0].rmdir("d")
	for i := range 4 {
		n[i%2].write("h", fmt.Sprint(i))
		meet(t, n[0], n[1])
	}
	if n[0].garbage() != 1 || n[1].garbage() != 1 {
		t.Errorf("%d and %d skeletons", n[0].garbage(), n[1].garbage())
	}
	meet(t, n[0], d)
	meet(t, n[1], d)
	agree(t, n[0], n[1], d)
	if got := n[0].listing(); !strings.Contains(got, "/d/f file") || strings.Contains(got, tree.RecoveredName) {
		t.Errorf("shown:\n%s", got)
	}
}

// TestGarbageIsBounded: much of it goes with several commits, what is below
// before what is above it.
func TestGarbageIsBounded(t *testing.T) {
	n := hive(t, 2)
	n[0].mkdir("top")
	const dirs = 600
	for i := range dirs {
		n[0].mkdir(fmt.Sprint("top/", i))
	}
	meet(t, n[0], n[1])
	for i := range dirs {
		n[0].rmdir(fmt.Sprint("top/", i))
	}
	n[0].rmdir("top")
	w := connect(n[0], n[1])
	defer w.disconnect()
	rest(t, n...)
	for left, i := dirs+1, 0; left > 0; i++ {
		if i == 0 && n[1].garbage() != left {
			t.Fatalf("%d skeletons", n[1].garbage())
		}
		n[0].write("h", fmt.Sprint(i))
		rest(t, n...)
		now := n[1].garbage()
		if i > 0 && now >= left || left-now > garbageRecords {
			t.Fatalf("%d of %d are left", now, left)
		}
		left = now
	}
	agree(t, n...)
}

// TestGarbageAndOldImage: a device that was put back to an image in which a
// directory is, which has gone everywhere, works in it before it meets anybody.
func TestGarbageAndOldImage(t *testing.T) {
	for name, batch := range map[string]bool{"after": false, "in the middle of it": true} {
		t.Run(name, func(t *testing.T) {
			n := hive(t, 3)
			end := mesh(n...)
			n[0].mkdir("d")
			n[0].mkdir("d/e")
			if err := n[0].Chmod(n[0].at("d").Ino, 0o700); err != nil {
				t.Fatal(err)
			}
			rest(t, n...)
			end()
			n[2].idle()
			if batch {
				n[2].write("d/e/f", "x")
			}
			copied := n[2].twin()
			if batch {
				n[2].rm("d/e/f")
			}
			n[2].restart()
			end = mesh(n...)
			n[0].rmdir("d/e")
			n[0].rmdir("d")
			for i := range 3 {
				rest(t, n...)
				n[1].write("h", fmt.Sprint(i))
			}
			rest(t, n...)
			if g := n[1].garbage(); g != 0 {
				t.Fatalf("%d skeletons", g)
			}
			end()
			n[2].close()

			copied.reborn()
			copied.open()
			t.Cleanup(copied.close)
			if !batch {
				copied.write("d/e/f", "x")
			}
			meet(t, copied, n[1])
			meet(t, copied, n[0])
			agree(t, copied, n[0], n[1])
			got := n[0].listing()
			if !strings.Contains(got, "/d/e/f file") || !strings.Contains(got, "/d directory 700") || strings.Contains(got, tree.RecoveredName) {
				t.Errorf("shown:\n%s", got)
			}
		})
	}
}

// TestGarbageAndNewActor: what a device said does not count once it is known that it
// goes on as another actor, and so may know less.
func TestGarbageAndNewActor(t *testing.T) {
	n := hive(t, 3)
	end := mesh(n...)
	n[0].mkdir("d")
	rest(t, n...)
	copied := n[2].twin()
	n[0].rmdir("d")
	rest(t, n...)
	end()
	n[2].close()
	copied.reborn()
	if err := n[0].MergeMembers(copied.key.ID(), copied.log.Encode()); err != nil { // as any member passes it on
		t.Fatal(err)
	}
	if err := n[1].MergeMembers(copied.key.ID(), copied.log.Encode()); err != nil {
		t.Fatal(err)
	}
	for i := range 4 {
		n[i%2].write("h", fmt.Sprint(i))
		meet(t, n[0], n[1])
	}
	if g := n[0].garbage(); g != 1 {
		t.Fatalf("%d skeletons", g)
	}
	copied.open()
	t.Cleanup(copied.close)
	for i := range 3 {
		meet(t, n[0], copied)
		meet(t, n[1], copied)
		n[0].write("h", fmt.Sprint("again", i))
	}
	if g := n[0].garbage(); g != 0 {
		t.Errorf("%d skeletons", g)
	}
}

// TestGarbageAndLeaver: a device has left the hive. What it did before counts, and
// is still to come.
func TestGarbageAndLeaver(t *testing.T) {
	n := hive(t, 3)
	end := mesh(n...)
	n[0].mkdir("d")
	rest(t, n...)
	end()
	left := n[2]
	left.write("d/f", "x")
	if err := left.Revoke(left.key, left.key.ID(), device.ClassRetired); err != nil {
		t.Fatal(err)
	}
	for _, d := range n[:2] {
		if err := d.MergeMembers(left.key.ID(), left.log.Encode()); err != nil {
			t.Fatal(err)
		}
	}
	n[0].rmdir("d")
	for i := range 4 {
		n[i%2].write("h", fmt.Sprint(i))
		meet(t, n[0], n[1])
	}
	if g := n[0].garbage(); g != 1 {
		t.Errorf("%d skeletons", g)
	}
	for ctr := uint64(1); ctr <= left.known()[left.actor]; ctr++ {
		c := left.commit(ctr)
		if _, err := n[0].adoptFrom(left.key.ID(), c.Manifest, c.Delta); err != nil {
			t.Fatal(err)
		}
	}
	meet(t, n[0], n[1])
	if got := n[1].listing(); !strings.Contains(got, "/d/f file") || strings.Contains(got, tree.RecoveredName) {
		t.Errorf("shown:\n%s", got)
	}
	n[0].rm("d/f")
	n[0].rmdir("d")
	for i := range 4 {
		n[i%2].write("h", fmt.Sprint("again", i))
		meet(t, n[0], n[1])
	}
	if g := n[0].garbage(); g != 0 {
		t.Errorf("%d skeletons", g)
	}
}

// TestGarbageAndKill: a kill between the drop of garbage and the commit that it goes
// with loses nothing and tells nobody anything else.
func TestGarbageAndKill(t *testing.T) {
	n := hive(t, 2)
	litter(t, n[0], n[1])
	meet(t, n[0], n[1])
	n[0].restart() // so that all is ripe
	n[0].idle()
	n[0].write("h", "x")
	n[0].mu.Lock()
	err := n[0].collectLocked()
	n[0].mu.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	if g := n[0].garbage(); g != 0 {
		t.Fatalf("records of %d inodes are left", g)
	}
	killed := n[0].twin()
	n[0].close()
	killed.open()
	t.Cleanup(killed.close)
	meet(t, killed, n[1])
	agree(t, killed, n[1])
	if g := n[1].garbage(); g != 0 {
		t.Errorf("records of %d inodes are left", g)
	}
	if n[1].said.count("trees differ") > 0 {
		t.Error("another root than was signed")
	}
}

// TestGarbageWhileHeld: as long as a device holds back that a directory was removed, the
// skeleton stays, and a reject brings the directory back.
func TestGarbageWhileHeld(t *testing.T) {
	n, end := guarded(t)
	defer end()
	n[0].removeAllBut(-1)
	n[0].rmdir("p/q")
	await(t, n[1].holds)
	await(t, n[2].holds)
	for i := range 4 {
		n[0].write("h", fmt.Sprint(i))
		if err := n[0].Publish(); err != nil {
			t.Fatal(err)
		}
		commits := n[0].last().Ctr
		await(t, func() bool { // it has come, and is held
			n[1].mu.RLock()
			defer n[1].mu.RUnlock()
			return n[1].guard.at[tree.Dot{Actor: n[0].actor, Ctr: commits}]
		})
	}
	if g := n[0].garbage(); g != 1 {
		t.Fatalf("%d skeletons", g)
	}
	if err := n[1].Reject(n[0].key.ID()); err != nil {
		t.Fatal(err)
	}
	agree(t, n...)
	if x := n[0].at("p/q"); x.Kind != tree.Dir {
		t.Errorf("p/q is a %v", x.Kind)
	}
}

// TestGarbageOfDraft: what a delete has left of a file goes, a name here, and what
// the user is still writing to it stays.
func TestGarbageOfDraft(t *testing.T) {
	n := hive(t, 2)
	n[0].write("g", "older")
	n[1].write("g", "x")
	meet(t, n[0], n[1])
	cs, err := n[0].Conflicts()
	if err != nil || len(cs) != 1 {
		t.Fatalf("conflicts %v, %v", cs, err)
	}
	g := n[0].at(cs[0].Name)
	if err := n[0].PutDraft(tree.Draft{Ino: g.Ino, Base: g.Base, Data: []byte("draft")}); err != nil {
		t.Fatal(err)
	}
	n[0].rm("g") // gives the other one its name for good
	n[1].rm(cs[0].Name)
	meet(t, n[0], n[1])
	if n[0].garbage() != 1 || n[1].garbage() != 1 {
		t.Fatalf("%d and %d names without content", n[0].garbage(), n[1].garbage())
	}
	for i := range 4 {
		n[0].write("h", fmt.Sprint(i))
		meet(t, n[0], n[1])
	}
	if n[0].garbage() != 0 {
		t.Fatal("the name is still there")
	}
	drafts, err := n[0].Drafts()
	if err != nil || len(drafts) != 1 || drafts[0].Ino != g.Ino {
		t.Fatalf("drafts %v, %v", drafts, err)
	}
	text := []byte("what was written meanwhile")
	if _, err := n[0].Write(g.Ino, g.Base, tree.Content{Kind: tree.File, Mode: 0o644, Size: int64(len(text)), Inline: text}, true); err != nil {
		t.Fatal(err)
	}
	if got := n[0].at(cs[0].Name); string(got.Inline) != string(text) {
		t.Errorf("%s has %q, want %q", cs[0].Name, got.Inline, text)
	}
}

// TestGarbageOfStrangers: two devices never meet. Each learns from the commits of
// the other one what can go.
func TestGarbageOfStrangers(t *testing.T) {
	n := hive(t, 3)
	ws := []*wire{connect(n[0], n[1]), connect(n[1], n[2])}
	defer func() {
		for _, w := range ws {
			w.disconnect()
		}
	}()
	n[0].mkdir("d")
	agree(t, n...)
	n[0].rmdir("d")
	for i := range 4 {
		for j := 0; j < 3; j += 2 { // the one between them, who hears both, does nothing
			n[j].write("h", fmt.Sprint(i, j))
			if err := n[j].Publish(); err != nil {
				t.Fatal(err)
			}
			agree(t, n...)
		}
	}
	for i, d := range n {
		if g := d.garbage(); g != 0 {
			t.Errorf("device %d has %d skeletons", i, g)
		}
	}
}

// TestRestoreWithoutSkeleton: a directory of an earlier state is brought back though nothing of
// it is left.
func TestRestoreWithoutSkeleton(t *testing.T) {
	n := hive(t, 2)
	litter(t, n[0], n[1])
	w := connect(n[0], n[1])
	defer w.disconnect()
	for i := range 3 {
		rest(t, n...)
		n[0].write("h", fmt.Sprint(i))
	}
	rest(t, n...)
	if n[0].garbage() != 0 {
		t.Fatal("there are skeletons")
	}
	file := tree.Content{Kind: tree.File, Size: 1, Inline: []byte("x"), Mode: 0o640, MTime: 5}
	old := Old{Name: "d", Content: tree.Content{Kind: tree.Dir, Mode: 0o750}, Below: []Old{
		{Name: "e", Content: tree.Content{Kind: tree.Dir, Mode: 0o755}, Below: []Old{{Name: "f", Content: file}}},
	}}
	done, err := n[1].Restore(tree.Root, old)
	if err != nil || done.Files != 1 || done.Dirs != 2 {
		t.Fatalf("restored %+v, %v", done, err)
	}
	agree(t, n...)
	if got := n[0].listing(); !strings.Contains(got, "/d directory 750") || !strings.Contains(got, "/d/e/f file 640") {
		t.Errorf("shown:\n%s", got)
	}
}

// TestWordOfBefore: a word that an earlier version has written has no hash of the
// membership log, and counts for what it counted then.
func TestWordOfBefore(t *testing.T) {
	n := hive(t, 2)
	meet(t, n[0], n[1])
	n[0].write("f", "x")
	meet(t, n[0], n[1])
	dev := n[1].key.ID()
	if err := n[0].disbelieve(dev, tree.Actor{9}); err != nil { // which writes it so
		t.Fatal(err)
	}
	n[0].restart()
	c := n[0].last()
	if !n[0].Shared(tree.Dot{Actor: c.Actor, Ctr: c.Ctr}) {
		t.Error("the word is forgotten")
	}
	n[0].mu.Lock()
	words := n[0].wordsLocked()
	n[0].mu.Unlock()
	if len(words) != 1 || words[0] != nil {
		t.Errorf("for garbage it counts as %v", words)
	}
}
