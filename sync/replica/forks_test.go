package replica

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/roamfs/roamfs/sync/manifest"
	"github.com/roamfs/roamfs/sync/store"
	"github.com/roamfs/roamfs/sync/tree"
)

const forkLine = "one device has two histories"

// forked makes a hive of three in which device 0 went on twice from one state:
// device 1 has what the original did, more commits than are kept, and device 2 what
// the copy did, ours and theirs of them. Nobody is connected.
func forked(t *testing.T, ours, theirs int) (n []*node, copied *node) {
	t.Helper()
	n = sparse(t, 3)
	w := connect(n[0], n[1])
	n[0].history("before")
	agree(t, n[:2]...)
	w.disconnect()
	w = connect(n[0], n[2])
	agree(t, n...)
	w.disconnect()
	copied = n[0].twin()
	n[0].publishing("original", ours) // comes as a whole state, if it is much
	w = connect(n[0], n[1])
	agree(t, n[:2]...)
	w.disconnect()
	n[0].close()
	copied.open()
	t.Cleanup(copied.close)
	copied.publishing("copy", theirs)
	w = connect(copied, n[2])
	agree(t, copied, n[2])
	w.disconnect()
	return n, copied
}

func (d *node) publishing(prefix string, n int) {
	d.t.Helper()
	for i := range n {
		d.write(prefix+string(rune('a'+i)), "x")
		if err := d.Publish(); err != nil {
			d.t.Fatal(err)
		}
	}
}

// TestFork: two devices that know different histories of a third find out
// when they meet, whichever is ahead, say whose, and neither loses anything to the
// other. A whole state would have taken from each what only it has.
func TestFork(t *testing.T) {
	for name, c := range map[string]struct{ ours, theirs int }{
		"the copy is far behind": {20, 3},
		"the copy is far ahead":  {3, 20},
		"both did as much":       {5, 5},
	} {
		t.Run(name, func(t *testing.T) {
			n, _ := forked(t, c.ours, c.theirs)
			before := [2]string{n[1].listing(), n[2].listing()}
			w := connect(n[1], n[2])
			await(t, func() bool {
				return n[1].said.count(forkLine, "device=dev0") > 0 && n[2].said.count(forkLine, "device=dev0") > 0
			})
			for i, d := range n[1:] {
				other := n[2-i]
				if fork := d.Fork(other.key.ID()); fork == nil || fork.Device != "dev0" || d.Fork(n[0].key.ID()) != nil {
					t.Errorf("device %d says of the other one: %v", i+1, fork)
				}
			}
			// What they do on their own later is not mixed either.
			n[1].write("later1", "x")
			n[2].write("later2", "x")
			if err := errors.Join(n[1].Publish(), n[2].Publish()); err != nil {
				t.Fatal(err)
			}
			w.disconnect()
			w = connect(n[1], n[2])
			await(t, func() bool { return n[1].said.count(forkLine) > 1 && n[2].said.count(forkLine) > 1 })
			w.disconnect()
			for i, d := range n[1:] {
				got := d.listing()
				if rest := strings.ReplaceAll(got, "/later"+string(rune('1'+i))+" file 644 1 1 \"x\"\n", ""); rest != before[i] {
					t.Errorf("dev%d shows\n%swhere it showed\n%s", i+1, got, before[i])
				}
			}
			last := tree.Dot{Actor: n[0].actor, Ctr: n[1].known()[n[0].actor]}
			if slices.Contains(n[1].Knowing(last), n[2].key.ID()) {
				t.Error("a change counts as shared on the word of a device with another history")
			}
			if n[1].OldCopy() != nil || n[2].OldCopy() != nil {
				t.Error("a device that did nothing wrong is stopped")
			}
		})
	}
}

// TestForkedDeviceLearns: the copy itself does not go on once it meets a
// device that knows what the original did.
func TestForkedDeviceLearns(t *testing.T) {
	for name, c := range map[string]struct{ ours, theirs int }{
		"the copy is far behind": {20, 3},
		"the copy is far ahead":  {3, 20},
		"both did as much":       {5, 5},
	} {
		t.Run(name, func(t *testing.T) {
			n, copied := forked(t, c.ours, c.theirs)
			before := [2]string{copied.listing(), n[1].listing()}
			w := connect(copied, n[1])
			await(t, func() bool { return copied.OldCopy() != nil && n[1].said.count(forkLine, "device=dev0") > 0 })
			w.disconnect()
			if copied.listing() != before[0] || n[1].listing() != before[1] {
				t.Errorf("the copy shows\n%sand the other\n%s", copied.listing(), n[1].listing())
			}
			if n[1].OldCopy() != nil {
				t.Error("the other device is stopped")
			}
		})
	}
}

// TestForkInACommit: what a third device did upon another history is not
// adopted, also when it is passed on by one that could not know.
func TestForkInACommit(t *testing.T) {
	n, _ := forked(t, 20, 3)
	n[2].write("upon the copy", "x")
	if err := n[2].Publish(); err != nil {
		t.Fatal(err)
	}
	before := n[1].listing()
	c := n[2].last()
	_, err := n[1].adopt(c.Manifest, c.Delta)
	fork, ok := errors.AsType[*ForkedError](err)
	if !ok || fork.Device != "dev0" || fork.Told != "dev2" {
		t.Fatalf("adopted, or refused with %v", err)
	}
	// And the commits of the copy itself.
	m, err := manifest.Decode(c.Manifest)
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range m.Frontier {
		if h.Actor == n[0].actor {
			c = n[2].commitOf(n[0].actor, h.Ctr)
		}
	}
	if _, err := n[1].adopt(c.Manifest, c.Delta); err == nil || n[1].listing() != before {
		t.Fatalf("a commit of the copy: %v", err)
	}
	l := lie(n[2], n[1])
	defer n[1].Disconnected(n[2].key.ID())
	if err := l.send(encodeCommit(c.Manifest, c.Delta)); err != nil {
		t.Fatalf("the connection suffers: %v", err)
	}
	await(t, func() bool { return l.asked(msgFork) == 1 })
}

// TestForkOfAState: a whole state upon another history is refused before any of
// it is taken.
func TestForkOfAState(t *testing.T) {
	n, _ := forked(t, 20, 3)
	before := n[1].listing()
	in, err := n[1].announced(n[2].beginning()[1:], n[2].key.ID())
	if err != nil {
		t.Fatal(err)
	}
	n[1].mu.Lock()
	err = n[1].joinableLocked(in)
	n[1].mu.Unlock()
	if fork, ok := errors.AsType[*ForkedError](err); !ok || fork.Device != "dev0" {
		t.Fatalf("to be joined, or refused with %v", err)
	}
	if n[1].listing() != before {
		t.Error("the tree changed")
	}
}

// TestFalseAccusation: a member that claims another history ends its own
// exchange, and nothing else; once it says something else, it goes on.
func TestFalseAccusation(t *testing.T) {
	n := hive(t, 3)
	w := connect(n[0], n[1])
	n[0].write("f", "x")
	agree(t, n[:2]...)
	l := lie(n[2], n[1])
	defer n[1].Disconnected(n[2].key.ID())
	if err := n[1].Publish(); err != nil {
		t.Fatal(err)
	}
	heads, err := n[1].newest()
	if err != nil {
		t.Fatal(err)
	}
	heads[0].Hash[5] ^= 1
	if err := l.send(appendHeads([]byte{msgTold}, heads)); err != nil {
		t.Fatal(err)
	}
	await(t, func() bool { return l.asked(msgFork) == 1 })
	if slices.Contains(n[1].Knowing(tree.Dot{Actor: heads[0].Actor, Ctr: heads[0].Ctr}), n[2].key.ID()) {
		t.Error("it counts as one that knows the change")
	}
	n[0].write("g", "x")
	agree(t, n[:2]...)
	if n[1].OldCopy() != nil || n[0].OldCopy() != nil {
		t.Error("somebody else is stopped")
	}
	l.greet()
	await(t, func() bool { return l.asked(msgCommit) > 0 })
	w.disconnect()
	// A manifest that agrees with what is known accuses nobody.
	c := n[0].last()
	if err := l.send(append([]byte{msgFork}, c.Manifest...)); err != nil || n[1].said.count(forkLine) != 1 {
		t.Errorf("%d accusations, %v", n[1].said.count(forkLine), err)
	}
}

// TestHashesAreKept: the hash of each commit, not only of the newest, also after a
// restart, and not for ever.
func TestHashesAreKept(t *testing.T) {
	n := sparse(t, 2)
	w := connect(n[0], n[1])
	n[0].history("f")
	agree(t, n...)
	w.disconnect()
	n[1].restart()
	for _, d := range n {
		for ctr := range n[0].vector[n[0].actor] {
			d.mu.RLock()
			h, err := d.hashLocked(tree.Dot{Actor: n[0].actor, Ctr: ctr + 1})
			d.mu.RUnlock()
			if err != nil || h.IsZero() {
				t.Errorf("hash of commit %d: %v", ctr+1, err)
			}
		}
	}
	d := tree.Dot{Actor: n[0].actor, Ctr: 1}
	if err := n[0].st.Update(func(tx *store.Tx) error {
		keepHash(tx, tree.Dot{Actor: d.Actor, Ctr: 1 + mostHashes}, manifest.Hash{1})
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if b, err := n[0].st.Value(hashKey(d)); err != nil || b != nil {
		t.Errorf("an old hash is kept: %x, %v", b, err)
	}
}
