package replica

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/roamfs/roamfs/peer/device"
	"github.com/roamfs/roamfs/sync/guard"
	"github.com/roamfs/roamfs/sync/tree"
)

// met connects two members until they know the same, and parts them.
func met(t *testing.T, a, b *node) {
	t.Helper()
	w := connect(a, b)
	await(t, func() bool {
		if a.log.Hash() != b.log.Hash() {
			return false
		}
		for _, pair := range [][2]*node{{a, b}, {b, a}} {
			if here, there := pair[0].Caught(pair[1].key.ID()); !here || !there {
				return false
			}
		}
		return true
	})
	w.disconnect()
}

// told connects a with b, which was revoked as one of them knows, until both know
// it, and parts them.
func told(t *testing.T, a, b *node) {
	t.Helper()
	w := connect(a, b)
	await(t, func() bool { return a.shut(b.key.ID()) && b.Revoked() })
	w.disconnect()
}

// has returns how many commits of another device are known here.
func (d *node) has(o *node) uint64 { return d.known()[o.actor] }

// heldBack shows d what o has done, as a revoked device does when it is told, and
// returns what d says of it.
func (d *node) heldBack(o *node) uint64 {
	d.t.Helper()
	b, err := o.Newest()
	if err != nil || b == nil {
		d.t.Fatalf("newest commit: %x, %v", b, err)
	}
	if err := d.Farewell(o.key.ID(), b); err != nil {
		d.t.Fatal(err)
	}
	m, ok := d.log.WasMember(o.key.ID())
	if !ok {
		d.t.Fatal("the device was not revoked")
	}
	return d.HeldBack(m)
}

// TestRevoked: what a device did alone before it heard of its revocation stays
// with it. It stops, and can still be read.
func TestRevoked(t *testing.T) {
	n := hive(t, 3)
	lost := n[2]
	lost.publishing("before", 1)
	for _, d := range n[:2] {
		met(t, d, lost)
	}
	lost.publishing("late1", 1)
	lost.publishing("late2", 1)
	if err := n[0].Revoke(n[0].key, lost.key.ID(), device.ClassLost); !errors.Is(err, device.ErrNotOwner) {
		t.Fatalf("a device revokes another: %v", err)
	}
	if err := n[0].Revoke(n[0].owner, lost.key.ID(), device.ClassLost); err != nil {
		t.Fatal(err)
	}
	if err := n[0].Revoke(n[0].owner, lost.key.ID(), device.ClassLost); !errors.Is(err, device.ErrNotMember) {
		t.Fatalf("a device is revoked twice: %v", err)
	}
	told(t, n[0], lost)
	met(t, n[0], n[1])
	agree(t, n[:2]...)
	for i, d := range n[:2] {
		if d.has(lost) != 1 || d.heldBack(lost) != 2 {
			t.Errorf("device %d has %d commits of it and holds back %d", i, d.has(lost), d.heldBack(lost))
		}
		if d.log.Stale() || len(d.log.Secrets(d.key)) != 1 {
			t.Errorf("device %d: no new epoch", i)
		}
		if d.said.count("held back") != 1 {
			t.Error("the log does not say once that work is held back")
		}
	}
	if len(lost.log.Secrets(lost.key)) != 0 {
		t.Error("the revoked device learns the new secret")
	}
	c := lost.last()
	if _, err := n[1].adoptFrom(lost.key.ID(), c.Manifest, c.Delta); !errors.Is(err, errHeldBack) {
		t.Errorf("a late commit is taken: %v", err)
	}
	for _, restarted := range []bool{false, true} {
		if restarted {
			lost.restart()
			n[1].restart()
		}
		_, err := lost.Create(tree.Root, "more", tree.Content{Kind: tree.File, Mode: 0o644})
		if !lost.Revoked() || !errors.Is(err, ErrRevoked) || !errors.Is(err, fs.ErrPermission) {
			t.Errorf("a revoked device writes: %v", err)
		}
		if _, err := lost.Resolve("late2a"); err != nil {
			t.Errorf("what a revoked device has cannot be read: %v", err)
		}
		if m, _ := n[1].log.WasMember(lost.key.ID()); n[1].HeldBack(m) != 2 {
			t.Errorf("after a restart %d commits are held back", n[1].HeldBack(m))
		}
	}
}

// TestLeave: a device leaves by itself, and all that it did before counts.
func TestLeave(t *testing.T) {
	n := hive(t, 2)
	met(t, n[0], n[1])
	n[1].write("last", "words") // not published yet
	if err := n[1].Revoke(n[1].key, n[1].key.ID(), device.ClassRetired); err != nil {
		t.Fatal(err)
	}
	if !n[0].shut(n[1].key.ID()) {
		w := connect(n[0], n[1])
		await(t, func() bool { return n[0].shut(n[1].key.ID()) && n[0].has(n[1]) == 1 })
		w.disconnect()
	}
	if _, err := n[0].Resolve("last"); err != nil || n[0].heldBack(n[1]) != 0 {
		t.Errorf("the last change of a device that left: %v, %d held back", err, n[0].heldBack(n[1]))
	}
	if !n[0].log.Stale() {
		t.Error("a device that left knows the secret, and nobody says so")
	}
}

// TestRevocationOrders: of four devices the last is revoked by the first while
// the second had more of its work, the third nothing, and itself still more. In
// whatever order they meet, the three come to one tree, with what one of them had.
func TestRevocationOrders(t *testing.T) {
	links := [][2]int{{0, 1}, {1, 2}, {0, 3}, {2, 3}}
	for _, whole := range []bool{false, true} {
		permute(links, func(order [][2]int) {
			order = slices.Clone(order)
			if order[0] == [2]int{2, 3} {
				return // nobody has told either of the two: that is more work taken over, see the model
			}
			t.Run(fmt.Sprintf("%v whole=%v", order, whole), func(t *testing.T) {
				t.Parallel()
				n := hive(t, 4)
				if whole {
					for _, d := range n {
						d.keep, d.room = 1, &disk{free: 1 << 40}
						d.restart()
					}
				}
				lost := n[3]
				lost.publishing("one", 1)
				met(t, n[0], lost)
				lost.publishing("two", 1)
				met(t, n[1], lost)
				lost.publishing("three", 1)
				n[1].publishing("other", 1)
				if err := n[0].Revoke(n[0].owner, lost.key.ID(), device.ClassLost); err != nil {
					t.Fatal(err)
				}
				for _, l := range order {
					a, b := n[l[0]], n[l[1]]
					if b != lost {
						met(t, a, b)
					} else if a.shut(lost.key.ID()) || lost.Revoked() {
						told(t, a, b)
					} else {
						return // as above
					}
				}
				met(t, n[0], n[1])
				met(t, n[1], n[2])
				met(t, n[0], n[1])
				agree(t, n[:3]...)
				if got := n[2].has(lost); got != 2 {
					t.Errorf("%d commits of the revoked device count, want 2", got)
				}
				if got := n[2].heldBack(lost); got != 1 {
					t.Errorf("%d commits are held back, want 1", got)
				}
			})
		})
	}
}

func permute[T any](s []T, fn func([]T)) {
	var walk func(int)
	walk = func(k int) {
		if k == len(s) {
			fn(s)
			return
		}
		for i := k; i < len(s); i++ {
			s[k], s[i] = s[i], s[k]
			walk(k + 1)
			s[k], s[i] = s[i], s[k]
		}
	}
	walk(0)
}

// TestRevocationModel: devices write, meet and revoke one of them in random
// order. No member takes over from the revoked device more than the cutoff after
// either of them has heard of it; all come to one tree, with the most that any member had.
func TestRevocationModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		n := hive(t, 4)
		defer func() {
			for _, d := range n {
				d.close()
			}
		}()
		if rapid.Bool().Draw(rt, "whole") {
			for _, d := range n {
				d.keep, d.room = 1, &disk{free: 1 << 40}
				d.restart()
			}
		}
		lost, files := n[3], 0
		lost.publishing("something", 1)
		var cut uint64
		revoke := func(by *node) {
			cut = by.has(lost)
			if err := by.Revoke(by.owner, lost.key.ID(), device.ClassLost); err != nil {
				rt.Fatal(err)
			}
		}
		for range rapid.IntRange(4, 12).Draw(rt, "steps") {
			a, b := n[rapid.IntRange(0, 2).Draw(rt, "a")], n[rapid.IntRange(0, 3).Draw(rt, "b")]
			switch what := rapid.IntRange(0, 9).Draw(rt, "what"); {
			case what == 0 && !n[0].shut(lost.key.ID()) && !n[1].shut(lost.key.ID()) && !n[2].shut(lost.key.ID()):
				revoke(a)
			case what < 4 && !b.Revoked():
				files++
				b.publishing(fmt.Sprint("f", files), 1)
			case a == b:
			case b == lost && (a.shut(lost.key.ID()) || lost.Revoked()):
				before := a.has(lost)
				told(t, a, lost)
				if got := a.has(lost); got > max(before, cut) {
					rt.Fatalf("a member took over commit %d of a revoked device, which counts up to %d; it had %d", got, cut, before)
				}
			default:
				met(t, a, b)
			}
		}
		if !n[0].shut(lost.key.ID()) && !n[1].shut(lost.key.ID()) && !n[2].shut(lost.key.ID()) {
			revoke(n[0])
		}
		want := max(n[0].has(lost), n[1].has(lost), n[2].has(lost))
		for _, l := range rapid.Permutation([][2]int{{0, 1}, {1, 2}, {0, 2}}).Draw(rt, "links") {
			met(t, n[l[0]], n[l[1]])
		}
		met(t, n[0], n[1])
		met(t, n[1], n[2])
		agree(t, n[:3]...)
		for _, d := range n[:3] {
			if got := d.has(lost); got != want {
				rt.Fatalf("%d commits of the revoked device count, want %d", got, want)
			}
			if got, all := d.heldBack(lost), lost.has(lost); got != all-want {
				rt.Fatalf("%d commits are held back, want %d", got, all-want)
			}
		}
	})
}

// TestFormerIsNotHeard: a revoked device cannot fill the log of a member, nor have
// it take a tree.
func TestFormerIsNotHeard(t *testing.T) {
	n := hive(t, 2)
	lost := n[1]
	guest, err := device.Generate()
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(
		lost.Add(guest.ID(), "guest", device.Cache, [8]byte{9}),
		n[0].Revoke(n[0].owner, lost.key.ID(), device.ClassLost),
	); err != nil {
		t.Fatal(err)
	}
	n[0].Connected(lost.key.ID(), func(context.Context, []byte) error { return nil })
	defer n[0].Disconnected(lost.key.ID())
	before := n[0].log.Hash()
	for name, msg := range map[string][]byte{
		"log":   append([]byte{msgMembers}, lost.log.Encode()...),
		"offer": encodeOffer(1000),
	} {
		if err := n[0].Receive(t.Context(), lost.key.ID(), msg); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	s := &n[0].sessions
	s.mu.Lock()
	defer s.mu.Unlock()
	if n[0].log.Hash() != before || s.joining != nil {
		t.Error("a revoked device is heard")
	}
}

// TestLacking: a device tells what of its own work the others lack, also after it was
// revoked and can publish no more.
func TestLacking(t *testing.T) {
	n := hive(t, 2)
	lost := n[1]
	lacking := func() string {
		t.Helper()
		var out []string
		if err := lost.Lacking(func(ino tree.Ino, c tree.Content) error {
			p, err := lost.Path(ino)
			out = append(out, p+" "+string(c.Inline))
			return err
		}); err != nil {
			t.Fatal(err)
		}
		slices.Sort(out)
		return fmt.Sprint(out)
	}
	n[0].write("theirs", "x")
	lost.write("early", "a")
	lost.write("both", "a")
	if got := lacking(); got != "[/both a /early a]" {
		t.Errorf("before they met: %s", got)
	}
	w := connect(n[0], lost)
	agree(t, n...)
	await(t, func() bool { return !lost.Unshared() })
	w.disconnect()
	if got := lacking(); got != "[]" {
		t.Errorf("after they met: %s", got)
	}
	lost.write("both", "b")
	lost.write("late", "c")
	if err := lost.Chmod(lost.at("early").Ino, 0o600); err != nil {
		t.Fatal(err)
	}
	lost.write("theirs", "y")
	if err := lost.Publish(); err != nil {
		t.Fatal(err)
	}
	lost.write("later", "d") // in the next commit, which it never publishes
	if err := n[0].Revoke(n[0].owner, lost.key.ID(), device.ClassLost); err != nil {
		t.Fatal(err)
	}
	told(t, n[0], lost)
	want := "[/both b /late c /later d /theirs y]"
	if got := lacking(); got != want {
		t.Errorf("after it was revoked: %s, want %s", got, want)
	}
	lost.restart()
	if got := lacking(); got != want {
		t.Errorf("after a restart: %s, want %s", got, want)
	}
	if err := lost.Writable(); !errors.Is(err, ErrRevoked) || n[0].Writable() != nil {
		t.Errorf("writable: %v; the other one: %v", err, n[0].Writable())
	}
}

// TestRevokedWhileHeld: what is held back for its extent is refused when it is
// accepted, if its author was removed meanwhile without it.
func TestRevokedWhileHeld(t *testing.T) {
	n, end := guarded(t)
	defer end()
	n[0].removeAllBut(-1)
	await(t, n[1].holds)
	if err := n[1].Revoke(n[0].owner, n[0].key.ID(), device.ClassLost); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- n[1].Accept(n[0].key.ID()) }()
	var err error
	await(t, func() bool {
		select {
		case err = <-done:
			return true
		default:
			return false
		}
	})
	if err != nil || len(n[1].Pending()) > 0 {
		t.Errorf("%v, and pending: %v", err, n[1].Pending())
	}
	m, ok := n[1].log.WasMember(n[0].key.ID())
	if !ok || n[1].HeldBack(m) == 0 {
		t.Errorf("%d commits are held back, removed: %v", n[1].HeldBack(m), ok)
	}
	if got := strings.Count(n[1].listing(), "file"); got < files-guard.Floor {
		t.Errorf("%d files are left", got)
	}
	n[1].write("mine", "x")
}
