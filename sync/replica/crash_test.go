package replica

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/roamfs/roamfs/peer/device"
	"github.com/roamfs/roamfs/sync/store"
	"github.com/roamfs/roamfs/sync/tree"
)

// twin is what a kill at this moment leaves of a device: a copy of its
// directory, opened as the same device. It shares nothing with the running one.
func (d *node) twin() *node {
	d.t.Helper()
	log, err := device.Decode(d.log.Encode())
	if err != nil {
		d.t.Fatal(err)
	}
	return &node{t: d.t, dir: d.image(), key: d.key, actor: d.actor, keep: d.keep, log: log}
}

// image copies the directory of a device as it is now.
func (d *node) image() string {
	d.t.Helper()
	to := d.t.TempDir()
	if err := os.CopyFS(to, os.DirFS(d.dir)); err != nil {
		d.t.Fatal(err)
	}
	return to
}

func TestKillBetweenTransactionsOfACommit(t *testing.T) {
	n := hive(t, 2)
	w := connect(n[0], n[1])
	n[0].mkdir("d")
	for i := range 400 {
		n[0].write(fmt.Sprintf("d/old%03d", i), "before")
	}
	agree(t, n...)
	w.disconnect()
	n[0].stop() // so that all of it is one commit
	n[0].stop = func() {}
	for i := range 400 {
		n[0].rm(fmt.Sprintf("d/old%03d", i))
		n[0].write(fmt.Sprintf("d/new%03d", i), "after")
	}
	if err := n[0].Publish(); err != nil {
		t.Fatal(err)
	}
	killed := n[1].killedAdopting(n[0])
	defer killed.close()
	want := n[0].listing()
	if got := killed.listing(); got != want {
		t.Fatalf("after a kill the device shows\n%.2000s\nwant\n%.2000s", got, want)
	}
	agree(t, n[0], n[1], killed)
}

// killedAdopting has d adopt the newest commit of another device, and returns
// what is left, opened again, if d is killed after the first of its transactions.
func (d *node) killedAdopting(from *node) (killed *node) {
	d.t.Helper()
	d.between = func() {
		if killed == nil {
			killed = d.twin()
		}
	}
	c := from.last()
	if _, err := d.adopt(c.Manifest, c.Delta); err != nil {
		d.t.Fatal(err)
	}
	if killed == nil {
		d.t.Fatal("the commit fitted one transaction")
	}
	killed.open()
	return killed
}

// publishFiles makes so many small files, each with a commit of its own.
func (d *node) publishFiles(prefix string, count int) {
	d.t.Helper()
	for i := range count {
		d.write(fmt.Sprint(prefix, i), "x")
		if err := d.Publish(); err != nil {
			d.t.Fatal(err)
		}
	}
}

// last returns the newest commit that the device has made.
func (d *node) last() store.Commit {
	d.t.Helper()
	d.mu.RLock()
	ctr := d.vector[d.actor]
	d.mu.RUnlock()
	return d.commit(ctr)
}

func TestKillBetweenTransactionsOfAJoin(t *testing.T) {
	n := hive(t, 2)
	for _, d := range n {
		d.keep = 2000 // bytes: whole states travel
		d.restart()
	}
	w := connect(n[0], n[1])
	n[0].mkdir("d")
	for i := range 300 {
		n[0].write(fmt.Sprintf("d/old%03d", i), "before")
	}
	agree(t, n...)
	w.disconnect()
	for i := range 900 {
		if i < 300 {
			n[0].rm(fmt.Sprintf("d/old%03d", i))
		}
		n[0].write(fmt.Sprintf("d/new%03d", i), "after")
		if i%200 == 0 {
			if err := n[0].Publish(); err != nil {
				t.Fatal(err)
			}
		}
	}
	n[1].write("mine", "stays")
	var killed *node
	n[1].between = func() {
		if killed == nil {
			killed = n[1].twin()
		}
	}
	w = connect(n[0], n[1])
	agree(t, n...)
	w.disconnect()
	if killed == nil {
		t.Fatal("the state fitted one transaction")
	}
	killed.open()
	defer killed.close()
	got := killed.listing()
	if strings.Contains(got, "/old") || strings.Count(got, "/new") != 900 || !strings.Contains(got, `"stays"`) {
		t.Fatalf("after a kill the device shows\n%.3000s", got)
	}
	if _, err := os.Stat(filepath.Join(killed.dir, "staging")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the staging file is still there: %v", err)
	}
	w = connect(n[0], killed)
	agree(t, n[0], n[1], killed)
	w.disconnect()
}

// TestLargeValues: what one device commits, another one can adopt, however its
// records are cut.
func TestLargeValues(t *testing.T) {
	n := hive(t, 3)
	n[0].write("f", "x")
	f, err := n[0].Resolve("f")
	if err != nil {
		t.Fatal(err)
	}
	for i := range 14 {
		if err := n[0].SetXattr(f.Ino, fmt.Sprint("user.x", i), []byte(strings.Repeat("v", 60<<10))); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 600 {
		n[0].write(fmt.Sprintf("%0250d", i), "x")
	}
	w := connect(n[0], n[1])
	agree(t, n[0], n[1])
	w.disconnect()
	// And as a whole state.
	n[0].keep = 2000
	n[0].restart()
	n[0].publishFiles("g", 3)
	w = connect(n[0], n[2])
	agree(t, n[0], n[2])
	w.disconnect()
}

// TestTemporaryFilesBeforePublish: operations that cancel out do not make a
// batch that can never be closed.
func TestTemporaryFilesBeforePublish(t *testing.T) {
	n := hive(t, 1)[0]
	n.stop() // a slow disk: nothing is published meanwhile
	n.stop = func() {}
	for range 9000 {
		n.write("tmp", "x")
		n.rm("tmp")
	}
	if err := n.Publish(); err != nil {
		t.Fatal(err)
	}
}

// TestNothingIsToldBeforeItIsDurable looks between the end of a batch and its sync.
func TestNothingIsToldBeforeItIsDurable(t *testing.T) {
	n := hive(t, 2)
	n[0].stop()
	n[0].stop = func() {}
	n[0].write("f", "x")
	n[0].mu.Lock()
	err := n[0].closeBatchLocked()
	n[0].mu.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	if v := n[0].known(); v[n[0].actor] != 0 {
		t.Fatalf("%v may be told and is not durable", v)
	}
	if err := n[0].Publish(); err != nil {
		t.Fatal(err)
	}
	if v := n[0].known(); v[n[0].actor] != 1 {
		t.Fatalf("%v may be told, want the commit", v)
	}
	c := n[0].last()
	n[1].stop()
	n[1].stop = func() {}
	if _, err := n[1].adopt(c.Manifest, c.Delta); err != nil {
		t.Fatal(err)
	}
	if v := n[1].known(); v[n[0].actor] != 0 {
		t.Fatalf("%v may be told of what was adopted and is not durable", v)
	}
}

// TestCommitsForgottenWhileSending: the peer is slow, and what it was to be sent
// next is not kept any more.
func TestCommitsForgottenWhileSending(t *testing.T) {
	n := hive(t, 2)
	n[0].keep = 3000
	n[0].restart()
	n[0].publishFiles("f", 3)
	a, b := n[0], n[1]
	back := make(chan []byte, 64)
	b.Connected(a.key.ID(), func(_ context.Context, m []byte) error { back <- append([]byte(nil), m...); return nil })
	first := true
	a.Connected(b.key.ID(), func(_ context.Context, m []byte) error {
		if m[0] == msgCommit && first {
			first = false
			for i := range 20 {
				a.write(fmt.Sprint("g", i), "x")
				if err := a.Publish(); err != nil {
					return err
				}
			}
		}
		return b.Receive(context.Background(), a.key.ID(), append([]byte(nil), m...))
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case m := <-back:
				if err := a.Receive(ctx, b.key.ID(), m); err != nil {
					t.Error(err)
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	agree(t, n...)
	cancel()
	<-done
	a.Disconnected(b.key.ID())
	b.Disconnected(a.key.ID())
}

// TestGapIsAskedAboutInMeasure: a peer whose commits build on what cannot be had
// does not keep the line busy.
func TestGapIsAskedAboutInMeasure(t *testing.T) {
	n := hive(t, 2)
	n[0].publishFiles("f", 3)
	c := n[0].last()
	hellos := make(chan struct{}, 1000)
	n[1].Connected(n[0].key.ID(), func(_ context.Context, m []byte) error {
		if m[0] == msgHello {
			hellos <- struct{}{}
		}
		return nil
	})
	<-hellos
	for range 200 {
		if err := n[1].Receive(context.Background(), n[0].key.ID(), encodeCommit(c.Manifest, c.Delta)); err != nil {
			t.Fatal(err)
		}
	}
	<-hellos // one at once, the next after a second
	n[1].Disconnected(n[0].key.ID())
	if more := len(hellos); more > 2 {
		t.Fatalf("%d hellos more", more)
	}
}

// TestStalledState: a peer that was asked for its state and never sends it does
// not keep another one from being asked.
func TestStalledState(t *testing.T) {
	n := hive(t, 3)
	n[0].keep = 2000
	n[0].restart()
	n[0].publishFiles("f", 30)
	n[1].sessions.stall = 50 * time.Millisecond
	silent := n[2].key.ID()
	n[1].Connected(silent, func(context.Context, []byte) error { return nil })
	defer n[1].Disconnected(silent)
	if err := n[1].Receive(context.Background(), silent, encodeOffer(9)); err != nil {
		t.Fatal(err)
	}
	w := connect(n[0], n[1])
	defer w.disconnect()
	agree(t, n[0], n[1])
}

// TestOlderCopyTakesBackItsCommits: a device that was put back to an older state
// and did nothing since learns from the others what it had done.
func TestOlderCopyTakesBackItsCommits(t *testing.T) {
	n := hive(t, 2)
	w := connect(n[0], n[1])
	n[0].write("a", "1")
	agree(t, n...)
	old := n[0].twin()
	n[0].write("b", "2")
	agree(t, n...)
	w.disconnect()
	n[0].close()
	old.open()
	defer old.close()
	w = connect(old, n[1])
	agree(t, old, n[1])
	old.write("c", "3")
	agree(t, old, n[1])
	w.disconnect()
	if got := n[1].listing(); strings.Count(got, "\n") != 3 {
		t.Fatalf("shows\n%s", got)
	}
}

// TestOlderCopyThatWentOn: one that changed something meanwhile has given one
// name to two changes. It must not go on, and the others keep what they have.
func TestOlderCopyThatWentOn(t *testing.T) {
	n := hive(t, 2)
	w := connect(n[0], n[1])
	n[0].write("a", "1")
	agree(t, n...)
	old := n[0].twin()
	n[0].write("b", "2")
	agree(t, n...)
	w.disconnect()
	c := n[0].last()
	n[0].close()
	old.open()
	defer old.close()
	old.write("other", "3")
	if err := old.Publish(); err != nil {
		t.Fatal(err)
	}
	if _, err := old.adopt(c.Manifest, c.Delta); !errors.Is(err, ErrOldCopy) {
		t.Fatalf("a second change of the same name: %v", err)
	}
	if _, err := old.Create(tree.Root, "more", tree.Content{Kind: tree.File, Mode: 0o644}); !errors.Is(err, ErrOldCopy) {
		t.Fatalf("create: %v", err)
	}
	if got := old.listing(); !strings.Contains(got, "/other ") {
		t.Errorf("what was written there is gone:\n%s", got)
	}
}

// TestOlderCopyBlamesNoPeer: a device that finds out from another one that it is
// an older copy does not call that an error of the other one, which would be
// disconnected and send the same again at once, for ever.
func TestOlderCopyBlamesNoPeer(t *testing.T) {
	n := hive(t, 2)
	old := n[0].twin()
	w := connect(n[0], n[1])
	n[0].write("a", "1")
	agree(t, n...)
	w.disconnect()
	n[0].close()
	old.open()
	defer old.close()
	old.stop() // nothing is published by itself
	old.stop = func() {}
	old.write("other", "2")
	w = connect(old, n[1]) // fails the test if a message is refused
	await(t, func() bool { return old.OldCopy() != nil })
	w.disconnect()
}

// TestWhoKnows: a change counts as shared once another device said it has it on
// its disk, also after a restart, and not before.
func TestWhoKnows(t *testing.T) {
	n := hive(t, 2)
	if n[0].Unshared() {
		t.Fatal("a device that did nothing has changes that nobody knows")
	}
	n[0].write("f", "x")
	if !n[0].Unshared() {
		t.Fatal("a change that was told to nobody counts as shared")
	}
	f, err := n[0].Resolve("f")
	if err != nil {
		t.Fatal(err)
	}
	w := connect(n[0], n[1])
	agree(t, n...)
	await(t, func() bool { return !n[0].Unshared() })
	if k := n[0].Knowing(f.Base...); len(k) != 1 || k[0] != n[1].key.ID() {
		t.Fatalf("known to %v", k)
	}
	w.disconnect()
	n[0].restart()
	if n[0].Unshared() || !n[0].Shared(f.Base[0]) {
		t.Fatal("forgotten by a restart")
	}
	n[0].write("g", "y")
	if !n[0].Unshared() {
		t.Fatal("a new change counts as shared")
	}
}

func await(tb testing.TB, ok func() bool) {
	tb.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); <-time.After(time.Millisecond) {
		if time.Now().After(deadline) {
			tb.Fatal("does not come true")
		}
	}
}
