package replica

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/roamfs/roamfs/peer/device"
	"github.com/roamfs/roamfs/sync/manifest"
	"github.com/roamfs/roamfs/sync/store"
	"github.com/roamfs/roamfs/sync/tree"
)

// files makes n files in one operation.
func (d *node) files(dir string, n int, text string, name func(int) string) {
	d.t.Helper()
	at, err := d.Resolve(dir)
	if err != nil {
		d.t.Fatal(err)
	}
	c := tree.Content{Kind: tree.File, Size: int64(len(text)), Inline: []byte(text), Mode: 0o644, MTime: 1}
	if err := d.edit(func(e *tree.Edit) error {
		for i := range n {
			if _, err := e.Create(at.Ino, name(i), c); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		d.t.Fatal(err)
	}
}

// conflicts brings two devices to conflicts in d, each under a name of 200 bytes.
func conflicts(n []*node, many int) {
	n[0].t.Helper()
	name := func(i int) string { return fmt.Sprintf("%0200d.txt", i) }
	for _, d := range n {
		d.mkdir("d")
		d.files("d", many, d.key.ID().Short(), name)
	}
	w := connect(n[0], n[1])
	agree(n[0].t, n...)
	w.disconnect()
}

// TestLargeOperations: the largest ordinary operations are carried out, survive
// a kill at any step, and reach another device.
func TestLargeOperations(t *testing.T) {
	const many = 1000
	for _, c := range []struct {
		name  string
		setUp func(n []*node)
		do    func(d *node) error
	}{
		{"remove a conflict copy among many", func(n []*node) { conflicts(n, many) }, func(d *node) error {
			l, err := d.Conflicts()
			if err != nil || len(l) != many {
				return fmt.Errorf("%d conflicts, %w", len(l), err)
			}
			return d.Unlink(l[7].Parent, l[7].Name)
		}},
		{"make a directory whose name looks made up", func(n []*node) { conflicts(n, many) }, func(d *node) error {
			in, err := d.Resolve("d")
			if err != nil {
				return err
			}
			_, err = d.Mkdir(in.Ino, "notes (conflict of interest)", 0o755)
			return err
		}},
		{"remove a file with many attributes", func(n []*node) { attributes(n[0], many) }, func(d *node) error {
			return d.Unlink(tree.Root, "f")
		}},
		{"rename over a file with many attributes", func(n []*node) { attributes(n[0], many); n[0].write("g", "") }, func(d *node) error {
			return d.Rename(tree.Root, "g", tree.Root, "f", false, false)
		}},
		{"rename a directory of many", func(n []*node) {
			n[0].mkdir("d")
			n[0].files("d", many, "x", func(i int) string { return fmt.Sprint("f", i) })
		}, func(d *node) error { return d.Rename(tree.Root, "d", tree.Root, "e", false, false) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := hive(t, 3)
			c.setUp(n[:2])
			for _, d := range n[:2] {
				if err := d.Publish(); err != nil {
					t.Fatal(err)
				}
			}
			n[0].write("before", "in the open batch")
			var killed, before *node
			steps := 0
			n[0].between = func() {
				if steps++; steps == 2 {
					killed, before = n[0].twin(), n[0].twin()
				}
			}
			if err := c.do(n[0]); err != nil {
				t.Fatal(err)
			}
			n[0].between = nil
			n[0].write("after", "x")
			w := connect(n[0], n[1])
			agree(t, n[:2]...)
			w.disconnect()
			if large := c.name != "rename a directory of many"; large != (steps > 1) {
				t.Fatalf("%d transactions", steps+1)
			}
			if killed == nil {
				return
			}
			killed.open()
			killed.write("after", "x")
			t.Logf("%d transactions, a delta of %d bytes", steps+1, len(n[0].largest().Delta))
			if got, want := killed.listing(), n[0].listing(); got != want {
				t.Fatalf("after a kill the device shows\n%.2000s\nwant\n%.2000s", got, want)
			}
			w = connect(killed, n[2])
			agree(t, killed, n[2])
			w.disconnect()
			killed.close()

			// The same copy as a new incarnation, beside what the original made of it.
			before.reborn()
			before.open()
			before.write("after", "x")
			if got, want := before.listing(), n[0].listing(); got != want {
				t.Fatalf("as a new incarnation the device shows\n%.2000s\nwant\n%.2000s", got, want)
			}
			w = connect(before, n[1])
			agree(t, before, n[1])
			w.disconnect()
			before.close()
		})
	}
}

func attributes(d *node, many int) {
	d.t.Helper()
	d.write("f", "x")
	f, err := d.Resolve("f")
	if err != nil {
		d.t.Fatal(err)
	}
	for batch := range many / 500 {
		if err := d.edit(func(e *tree.Edit) error {
			for i := range 500 {
				if err := e.SetXattr(f.Ino, fmt.Sprintf("user.%0240d", batch*500+i), []byte("v")); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			d.t.Fatal(err)
		}
	}
}

// largest returns the commit with the longest delta that is kept.
func (d *node) largest() (c store.Commit) {
	d.t.Helper()
	d.mu.RLock()
	defer d.mu.RUnlock()
	for _, k := range d.commits.order {
		x, err := d.st.Commit(k.Seq)
		if err != nil {
			d.t.Fatal(err)
		}
		if len(x.Delta) > len(c.Delta) {
			c = x
		}
	}
	return c
}

// attributesAtOnce gives a file n attributes of 64 KiB in one operation.
func (d *node) attributesAtOnce(ino tree.Ino, n int) error {
	return d.edit(func(e *tree.Edit) error {
		for i := range n {
			if err := e.SetXattr(ino, fmt.Sprint("user.", i), bytes.Repeat([]byte{byte(i)}, tree.MaxXattr)); err != nil {
				return err
			}
		}
		return nil
	})
}

// TestLongestDelta: a delta as long as it may be travels in pieces. One
// operation more would not fit, changes nothing, and stops nothing else.
func TestLongestDelta(t *testing.T) {
	n := hive(t, 2)
	n[0].write("f", "x")
	f, err := n[0].Resolve("f")
	if err != nil {
		t.Fatal(err)
	}
	w := connect(n[0], n[1])
	defer w.disconnect()
	agree(t, n...)
	_, before, err := n[0].State()
	if err != nil {
		t.Fatal(err)
	}
	if err := n[0].attributesAtOnce(f.Ino, 256); !errors.Is(err, ErrTooLarge) {
		t.Fatalf("an operation of more than %d bytes: %v", manifest.MaxDelta, err)
	}
	if _, after, err := n[0].State(); err != nil || after != before {
		t.Fatalf("the refused operation changed something, %v", err)
	}
	if err := n[0].attributesAtOnce(f.Ino, 255); err != nil {
		t.Fatal(err)
	}
	agree(t, n...)
	for _, d := range n {
		x, err := d.Node(f.Ino)
		if err != nil || len(x.Xattrs) != 255 || x.Xattrs["user.254"][7] != 254 {
			t.Fatalf("%d attributes, %v", len(x.Xattrs), err)
		}
	}
	if l := len(n[0].last().Delta); l < 16<<20-(80<<10) {
		t.Errorf("the delta has only %d bytes", l)
	}
	n[1].write("f", "goes on")
	agree(t, n...)
}

// TestPieces: a long delta is taken only as it was signed, and one that is cut
// off is not taken at all.
func TestPieces(t *testing.T) {
	n := hive(t, 3)
	n[0].write("f", "x")
	f, err := n[0].Resolve("f")
	if err != nil {
		t.Fatal(err)
	}
	if err := n[0].attributesAtOnce(f.Ino, 20); err != nil {
		t.Fatal(err)
	}
	if err := n[0].Publish(); err != nil {
		t.Fatal(err)
	}
	first, c := n[0].commit(1), n[0].last()
	if len(c.Delta) < 2*pieceSize {
		t.Fatalf("a delta of %d bytes is not long", len(c.Delta))
	}
	from := n[0].key.ID()
	piece := func(i, size int) []byte { return append([]byte{msgMore}, c.Delta[i*pieceSize:][:size]...) }
	whole := [][]byte{encodeCommit(c.Manifest, c.Delta[:pieceSize]), piece(1, pieceSize), piece(2, len(c.Delta)-2*pieceSize)}
	empty := encodeCommit(first.Manifest, first.Delta)
	for name, msgs := range map[string][][]byte{
		"no begin":           {piece(1, pieceSize)},
		"another in between": {whole[0], whole[1], empty},
		"a piece too short":  {whole[0], piece(1, 100)},
		"a piece too long":   {whole[0], piece(1, pieceSize+1)},
		"end left out":       {whole[0], whole[1], {msgMore}},
		"one piece too many": {whole[0], whole[1], append(slices.Clone(whole[2]), 1)},
		"more than signed":   {whole[0], whole[1], append([]byte{msgMore}, make([]byte, pieceSize)...)},
		"another piece":      {whole[0], whole[1], append([]byte{msgMore}, make([]byte, len(c.Delta)-2*pieceSize)...)},
		"first too long":     {encodeCommit(c.Manifest, c.Delta[:pieceSize+1])},
		"longer than signed": {encodeCommit(first.Manifest, make([]byte, pieceSize))},
		"a broken manifest":  {encodeCommit(c.Manifest[1:], c.Delta[:pieceSize])},
		"a broken signature": {encodeCommit(append(c.Manifest[:len(c.Manifest)-1:len(c.Manifest)-1], c.Manifest[len(c.Manifest)-1]^1), c.Delta[:pieceSize])},
	} {
		n[1].Connected(from, func(context.Context, []byte) error { return nil })
		if err := n[1].Receive(context.Background(), from, empty); err != nil {
			t.Fatal(err)
		}
		var err error
		for i, m := range msgs {
			if err = n[1].Receive(context.Background(), from, m); err != nil && i < len(msgs)-1 {
				t.Fatalf("%s: message %d: %v", name, i, err)
			}
		}
		if err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	n[1].Connected(from, func(context.Context, []byte) error { return nil })
	for _, m := range whole {
		if err := n[1].Receive(context.Background(), from, m); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := n[1].listing(), n[0].listing(); got != want {
		t.Fatalf("got\n%swant\n%s", got, want)
	}
	n[1].Disconnected(from)
}

// commit returns the device's commit ctr.
func (d *node) commit(ctr uint64) store.Commit { d.t.Helper(); return d.commitOf(d.actor, ctr) }

func (d *node) commitOf(a tree.Actor, ctr uint64) store.Commit {
	d.t.Helper()
	d.mu.RLock()
	k := d.commits.at[tree.Dot{Actor: a, Ctr: ctr}]
	d.mu.RUnlock()
	c, err := d.st.Commit(k.Seq)
	if err != nil {
		d.t.Fatal(err)
	}
	return c
}

// TestLargeOperationEndsTheBatch: what was done before it is published on its
// own, for both may not fit one delta.
func TestLargeOperationEndsTheBatch(t *testing.T) {
	d := hive(t, 1)[0]
	d.stop() // nothing is published meanwhile
	d.stop = func() {}
	d.write("f", "x")
	d.write("g", "x")
	f, g := d.resolve("f"), d.resolve("g")
	for i := range 5 {
		if err := d.SetXattr(g, fmt.Sprint("user.", i), make([]byte, 60<<10)); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.attributesAtOnce(f, 255); err != nil {
		t.Fatal(err)
	}
	if err := d.Publish(); err != nil {
		t.Fatal(err)
	}
	if n := d.Commits(); n != 2 {
		t.Errorf("%d commits", n)
	}
}

// TestPiecesOfAStranger: nothing is kept of a long commit whose author is not
// known yet, and the session goes on.
func TestPiecesOfAStranger(t *testing.T) {
	n := hive(t, 2)
	key, err := device.Generate()
	if err != nil {
		t.Fatal(err)
	}
	d := &node{t: t, dir: t.TempDir(), key: key, actor: device.NewActor(key.ID(), [16]byte{9})}
	if _, err := n[0].log.Add(n[0].key, key.ID(), "new", device.Cache, d.actor, time.Now()); err != nil {
		t.Fatal(err)
	}
	if d.log, err = device.Decode(n[0].log.Encode()); err != nil {
		t.Fatal(err)
	}
	d.open()
	defer d.close()
	d.write("f", "x")
	if err := d.attributesAtOnce(d.resolve("f"), 20); err != nil {
		t.Fatal(err)
	}
	if err := d.Publish(); err != nil {
		t.Fatal(err)
	}
	c := d.last()
	from := n[0].key.ID()
	n[1].Connected(from, func(context.Context, []byte) error { return nil })
	defer n[1].Disconnected(from)
	send := func(m []byte) {
		t.Helper()
		if err := n[1].Receive(context.Background(), from, m); err != nil {
			t.Fatal(err)
		}
	}
	send(encodeCommit(c.Manifest, c.Delta[:pieceSize]))
	for rest := c.Delta[pieceSize:]; ; rest = rest[pieceSize:] {
		if got := len(n[1].sessions.live[from].long.delta); got != 0 {
			t.Fatalf("%d bytes are kept", got)
		}
		send(append([]byte{msgMore}, rest[:min(len(rest), pieceSize)]...))
		if len(rest) < pieceSize {
			break
		}
	}
	send([]byte{msgOffer, 1})
}

func (d *node) resolve(path string) tree.Ino {
	d.t.Helper()
	x, err := d.Resolve(path)
	if err != nil {
		d.t.Fatal(err)
	}
	return x.Ino
}
