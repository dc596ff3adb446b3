package replica

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/roamfs/roamfs/peer/device"
	"github.com/roamfs/roamfs/sync/tree"
)

// reborn gives a copy of a device, which is not open, another incarnation, as
// whoever finds out that it is a copy does.
func (d *node) reborn() {
	d.t.Helper()
	d.actor = device.NewActor(d.key.ID(), [16]byte{byte(len(d.log.Records())), 99})
	if _, err := d.log.Add(d.key, d.key.ID(), "x", device.Cache, d.actor, time.Now()); err != nil {
		d.t.Fatal(err)
	}
}

// idle stops the publishing of a device, so that its batch stays open.
func (d *node) idle() {
	d.stop()
	d.stop = func() {}
}

// TestRestored: a device that is put back to an older copy of itself, and works on
// as a new incarnation before it meets anybody, loses nothing of what it did
// before, and brings back nothing that was deleted.
func TestRestored(t *testing.T) {
	n := hive(t, 3)
	w := connect(n[0], n[1])
	n[0].write("kept", "x")
	n[0].write("deleted", "x")
	n[0].write("edited", "before")
	agree(t, n[:2]...)
	copied := n[0].twin()
	n[0].rm("deleted")
	n[0].write("edited", "after the copy was made")
	n[0].publishing("later", 20)
	agree(t, n[:2]...)
	w.disconnect()
	n[0].close()

	copied.reborn()
	copied.open()
	t.Cleanup(copied.close)
	copied.write("offline", "x")
	copied.write("kept", "edited offline")
	copied.rm("edited") // without having seen the edit
	if err := copied.Publish(); err != nil {
		t.Fatal(err)
	}
	if !copied.Unshared() {
		t.Error("what the new incarnation did alone counts as shared")
	}
	w = connect(copied, n[2]) // somebody who knows neither
	agree(t, copied, n[2])
	w.disconnect()
	for _, d := range n[1:] {
		w = connect(copied, d)
		agree(t, copied, d)
		w.disconnect()
	}
	agree(t, copied, n[1], n[2])
	got := n[2].listing()
	for _, want := range []string{"/kept file 644 14 1 \"edited offline\"", "/edited file 644 23 1 \"after the copy was made\"", "/latert", "/offline"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	if strings.Contains(got, "/deleted") || strings.Contains(got, "conflict") {
		t.Errorf("the copy brought back\n%s", got)
	}
	for i, d := range []*node{copied, n[1], n[2]} {
		if twice, err := d.InUseTwice(copied.key.ID()); err != nil || twice {
			t.Errorf("device %d: in use twice: %v, %v", i, twice, err)
		}
		if d.OldCopy() != nil || d.said.count(forkLine) > 0 {
			t.Errorf("device %d takes it for a fork", i)
		}
	}
}

// TestRestoredWithOpenBatch: the copy was made in the middle of a batch, which the
// original published with more in it. Under one name one of the two would be lost.
func TestRestoredWithOpenBatch(t *testing.T) {
	n := hive(t, 2)
	n[0].write("kept", "x")
	if err := n[0].Publish(); err != nil {
		t.Fatal(err)
	}
	n[0].idle()
	n[0].write("kept", "in the batch")
	n[0].write("new", "in the batch")
	kept, err := n[0].Resolve("kept")
	if err != nil {
		t.Fatal(err)
	}
	if err := n[0].PutDraft(tree.Draft{Ino: kept.Ino, Base: kept.Base, Data: []byte("draft")}); err != nil {
		t.Fatal(err)
	}
	copied := n[0].twin()
	n[0].write("kept", "more in the batch")
	n[0].rm("new")
	n[0].write("other", "in the batch")
	w := connect(n[0], n[1])
	if err := n[0].Publish(); err != nil {
		t.Fatal(err)
	}
	agree(t, n...)
	w.disconnect()
	n[0].close()

	copied.reborn()
	copied.open()
	t.Cleanup(copied.close)
	for _, f := range []string{"kept", "new"} {
		if node, err := copied.Resolve(f); err != nil || string(node.Inline) != "in the batch" {
			t.Fatalf("%s is %q, %v", f, node.Inline, err)
		}
	}
	// The draft still replaces what it was opened on.
	drafts, err := copied.Drafts()
	if err != nil || len(drafts) != 1 {
		t.Fatalf("%d drafts, %v", len(drafts), err)
	}
	c := tree.Content{Kind: tree.File, Size: 5, Inline: []byte("draft"), Mode: 0o644, MTime: 2}
	if _, err := copied.Write(drafts[0].Ino, drafts[0].Base, c, true); err != nil {
		t.Fatal(err)
	}
	if got := copied.listing(); strings.Contains(got, "conflict") || !strings.Contains(got, "\"draft\"") {
		t.Fatalf("after the draft was committed:\n%s", got)
	}
	w = connect(copied, n[1])
	agree(t, copied, n[1])
	w.disconnect()
	got := n[1].listing()
	for _, want := range []string{"\"draft\"", "\"more in the batch\"", "/new file 644 12 1 \"in the batch\"", "/other"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %s in\n%s", want, got)
		}
	}
	if copied.OldCopy() != nil {
		t.Error(copied.OldCopy())
	}
}

// TestClone: a copy that is used beside the original converges with it, and all
// say that it is one device twice.
func TestClone(t *testing.T) {
	n := hive(t, 2)
	w := connect(n[0], n[1])
	n[0].write("kept", "x")
	agree(t, n...)
	w.disconnect()
	copied := n[0].twin()
	copied.reborn()
	copied.open()
	t.Cleanup(copied.close)
	all := []*node{n[0], copied}
	for round := range 3 {
		for i, d := range all {
			d.write("kept", fmt.Sprint(round, i))
			d.write(fmt.Sprint("of ", i, " in ", round), "x")
			w := connect(d, n[1])
			agree(t, d, n[1])
			w.disconnect()
		}
	}
	w = connect(n[0], n[1])
	agree(t, n[0], copied, n[1])
	w.disconnect()
	for i, d := range []*node{n[0], copied, n[1]} {
		if twice, err := d.InUseTwice(copied.key.ID()); err != nil || !twice {
			t.Errorf("device %d does not say that the first one is in use twice: %v", i, err)
		}
		if twice, err := d.InUseTwice(n[1].key.ID()); err != nil || twice {
			t.Errorf("device %d says so of another one: %v", i, err)
		}
	}
	for i, d := range all {
		for round := range 3 {
			if _, err := d.Resolve(fmt.Sprint("of ", 1-i, " in ", round)); err != nil {
				t.Error(err)
			}
		}
	}
}
