package replica

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/roamfs/roamfs/sync/merkle"
)

// meter counts the bytes of a walk on the wire.
type meter struct{ n atomic.Int64 }

func (m *meter) tap(_ *node, msg []byte) error {
	if slices.Contains([]byte{msgState, msgAsk, msgPieces}, msg[0]) {
		m.n.Add(int64(len(msg)))
	}
	return nil
}

// crowd makes so many files in one directory.
func (d *node) crowd(count int) {
	d.t.Helper()
	d.mkdir("d")
	for i := range count {
		d.write(fmt.Sprintf("d/file%06d", i), "content")
	}
	if err := d.Publish(); err != nil {
		d.t.Fatal(err)
	}
}

// rewrite changes files until the first of the changes are no longer kept.
func (d *node) rewrite(files int) {
	d.t.Helper()
	for i := range max(12, files) {
		d.write(fmt.Sprintf("d/file%06d", i%files), fmt.Sprint("change ", i))
		if err := d.Publish(); err != nil {
			d.t.Fatal(err)
		}
	}
}

func (d *node) size() int64 {
	d.t.Helper()
	n, err := d.sessions.stateSize(nil)
	if err != nil {
		d.t.Fatal(err)
	}
	return int64(n)
}

// TestWalkTakesWhatDiffers: what a long partition costs is in proportion to what
// has changed.
func TestWalkTakesWhatDiffers(t *testing.T) {
	n := sparse(t, 2)
	n[0].crowd(20_000)
	w := connect(n[0], n[1])
	agree(t, n...)
	w.disconnect()
	n[0].rewrite(4)
	n[0].rm("d/file000777")
	n[1].write("d/mine", "stays")
	var m meter
	w = tapped(n[0], n[1], m.tap)
	defer w.disconnect()
	agree(t, n...)
	got, whole := m.n.Load(), n[0].size()
	t.Logf("%d bytes of a state of %d", got, whole)
	if got == 0 || got > whole/20 {
		t.Errorf("%d bytes on the wire for 6 changes in a state of %d", got, whole)
	}
	if l := n[0].listing(); !strings.Contains(l, "/d/mine ") || strings.Contains(l, "/d/file000777 ") {
		t.Error("a change is lost")
	}
	await(t, func() bool { return n[0].sessions.frozenFor() == 0 && n[1].staging() == 0 && n[1].room.inUse() == 0 })
}

func (s *sessions) frozenFor() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.serving
}

// TestWalkGoesOn: after a break the leaves that came are not asked for again, and
// nothing shows before all are there.
func TestWalkGoesOn(t *testing.T) {
	n := sparse(t, 2)
	n[0].crowd(20_000)
	n[1].write("mine", "x")
	before, whole := n[1].listing(), n[0].size()
	var m meter
	w := tapped(n[0], n[1], func(from *node, msg []byte) error {
		if n[1].staging() > whole/3 {
			return errors.New("cut")
		}
		return m.tap(from, msg)
	})
	await(t, func() bool { return n[1].staging() > whole/3 })
	w.disconnect()
	await(t, func() bool { return n[1].room.inUse() == 0 })
	if n[1].listing() != before {
		t.Error("half of a tree shows")
	}
	m.n.Store(0)
	w = tapped(n[0], n[1], m.tap)
	defer w.disconnect()
	agree(t, n...)
	t.Logf("%d bytes of a state of %d", m.n.Load(), whole)
	if got := m.n.Load(); got > whole*7/8 {
		t.Errorf("%d bytes on the wire for the rest of a state of %d", got, whole)
	}
	await(t, func() bool { return n[1].staging() == 0 })
}

// TestWalkIsOvertaken: a commit that is adopted while a state is on its way, in a
// place where the two trees were alike, and that the state has superseded.
func TestWalkIsOvertaken(t *testing.T) {
	n := sparse(t, 3)
	a, b, c := n[0], n[1], n[2]
	a.crowd(2000)
	for _, d := range n[1:] {
		w := connect(a, d)
		agree(t, a, d)
		w.disconnect()
	}
	c.write("d/short-lived", "x")
	if err := c.Publish(); err != nil {
		t.Fatal(err)
	}
	late := c.last()
	w := connect(a, c)
	agree(t, a, c)
	w.disconnect()
	a.rm("d/short-lived")
	a.rewrite(1)
	adopted := false
	w = tapped(a, b, func(from *node, msg []byte) error {
		if from == a && msg[0] == msgPieces && !adopted {
			adopted = true
			if _, err := b.adopt(late.Manifest, late.Delta); err != nil {
				t.Error(err)
			}
		}
		return nil
	})
	defer w.disconnect()
	agree(t, a, b)
	if !adopted {
		t.Fatal("no state was walked")
	}
	if strings.Contains(b.listing(), "short-lived") {
		t.Error("what was deleted is back")
	}
}

// TestLiesInAWalk: an answer that is not what was asked for is refused with its
// sender named, and the tree of another device is taken.
func TestLiesInAWalk(t *testing.T) {
	leaves := func(refs []merkle.Ref) bool { return refs[0].Height == 0 }
	for name, change := range map[string]func([]merkle.Ref, []byte) []byte{
		"a node is another": func(refs []merkle.Ref, msg []byte) []byte {
			if !leaves(refs) {
				msg[len(msg)-1] ^= 1
			}
			return msg
		},
		"a record is another": func(refs []merkle.Ref, msg []byte) []byte {
			if leaves(refs) {
				msg[len(msg)/2] ^= 1
			}
			return msg
		},
		"another order": func(refs []merkle.Ref, msg []byte) []byte {
			pieces, err := decodePieces(msg[1:])
			if err != nil || !leaves(refs) || len(pieces) < 2 {
				return msg
			}
			out := []byte{msgPieces}
			for _, p := range slices.Backward(pieces) {
				out = appendPiece(out, p)
			}
			return out
		},
		"a leaf where a node was asked for": func(_ []merkle.Ref, _ []byte) []byte { return []byte{msgPieces, 0} },
		"a record too few": func(refs []merkle.Ref, msg []byte) []byte {
			if !leaves(refs) {
				return msg
			}
			return appendPiece([]byte{msgPieces}, nil)
		},
	} {
		t.Run(name, func(t *testing.T) {
			n := sparse(t, 3)
			n[2].crowd(400)
			n[0].history("a")
			n[1].write("mine", "x")
			before := n[1].listing()
			l := lie(n[2], n[1])
			defer n[1].Disconnected(l.key.ID())
			l.begin(t)
			err := l.answer(change)
			if err == nil || !strings.Contains(err.Error(), "dev2") {
				t.Fatalf("error %v", err)
			}
			if n[1].staging() != 0 || n[1].room.inUse() != 0 || n[1].listing() != before {
				t.Errorf("left: %d bytes in the staging file, %d reserved, and\n%s", n[1].staging(), n[1].room.inUse(), n[1].listing())
			}
			w := connect(n[0], n[1])
			defer w.disconnect()
			agree(t, n[0], n[1])
		})
	}
}

// TestFrozenStatesAreLetGo: a state is not kept for a peer that does not go on with
// its walk, and that can begin again.
func TestFrozenStatesAreLetGo(t *testing.T) {
	n := sparse(t, 2)
	n[0].crowd(100)
	n[0].sessions.idle = 20 * time.Millisecond
	l := lie(n[1], n[0])
	defer n[0].Disconnected(l.key.ID())
	if err := l.send([]byte{msgWant}); err != nil {
		t.Fatal(err)
	}
	await(t, func() bool { return l.asked(msgState) == 1 })
	await(t, func() bool { return n[0].sessions.frozenFor() == 0 })
	if err := l.send(encodeAsk(someRefs)); err != nil {
		t.Fatal(err)
	}
	await(t, func() bool { return l.asked(msgPieces) == 1 })
	if err := l.send([]byte{msgWant}); err != nil {
		t.Fatal(err)
	}
	await(t, func() bool { return l.asked(msgState) == 2 })
}

