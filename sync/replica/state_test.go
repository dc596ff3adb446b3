package replica

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/roamfs/roamfs/sync/merkle"
	"github.com/roamfs/roamfs/sync/tree"
)

// disk is room for states, of which there is an end.
type disk struct {
	mu   sync.Mutex
	free int64
	used int64
	full int // how often there was not enough
}

var errFull = errors.New("the disk is full")

func (d *disk) reserve(_ context.Context, n int64) (Room, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.used+n > d.free {
		d.full++
		return nil, errFull
	}
	d.used += n
	return &claim{d: d, n: n}, nil
}

func (d *disk) inUse() int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.used
}

func (d *disk) refused() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.full
}

func (d *disk) grow(n int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.free += n
}

type claim struct {
	d *disk
	n int64
}

func (c *claim) Shrink(n int64) {
	c.d.mu.Lock()
	defer c.d.mu.Unlock()
	n = min(n, c.n)
	c.n -= n
	c.d.used -= n
}

func (c *claim) Release() { c.Shrink(c.n) }

// sparse are n devices that keep next to no commits, so that whole states travel.
func sparse(t *testing.T, n int) []*node {
	t.Helper()
	nodes := hive(t, n)
	for _, d := range nodes {
		d.keep = 2000
		d.room = &disk{free: 1 << 40}
		d.restart()
	}
	return nodes
}

// history makes commits of which the first are no longer kept.
func (d *node) history(prefix string) {
	d.t.Helper()
	for i := range 12 {
		d.write(fmt.Sprint(prefix, i), "x")
		if err := d.Publish(); err != nil {
			d.t.Fatal(err)
		}
	}
}

// liar is a member under the command of a test, connected with a real device.
type liar struct {
	*node // whose key it has
	to    *node
	mu    sync.Mutex
	got   [][]byte // messages of the real device
	state *served  // what it shows
	asks  int      // how many questions it has answered
}

func lie(as, to *node) *liar {
	l := &liar{node: as, to: to}
	to.Connected(as.key.ID(), func(_ context.Context, m []byte) error {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.got = append(l.got, append([]byte(nil), m...))
		return nil
	})
	l.greet()
	return l
}

// greet says hello, with what the device knows whose key it has.
func (l *liar) greet() {
	l.t.Helper()
	if err := l.Publish(); err != nil {
		l.t.Fatal(err)
	}
	heads, err := l.newest()
	if err != nil {
		l.t.Fatal(err)
	}
	h := hello{hive: l.log.Hive(), members: l.log.Hash(), heads: heads}
	if err := l.send(h.encode()); err != nil {
		l.t.Fatal(err)
	}
}

// send sends a message, one of a walk under the number that the real device wanted
// last.
func (l *liar) send(msg []byte) error {
	if slices.Contains([]byte{msgWant, msgState, msgAsk, msgPieces}, msg[0]) {
		msg = ofWalk(l.wanted(), msg)
	}
	return l.to.Receive(context.Background(), l.key.ID(), msg)
}

// wanted is the number of the walk that the real device wanted last.
func (l *liar) wanted() (n uint32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, m := range l.got {
		if m[0] == msgWant {
			n = binary.BigEndian.Uint32(m[1:])
		}
	}
	return n
}

// asked tells how often the real device sent a message of a kind.
func (l *liar) asked(kind byte) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, m := range l.got {
		if m[0] == kind {
			n++
		}
	}
	return n
}

// offeredSize is what a liar offers, in bytes.
const offeredSize = 1 << 20

// begin offers a state until it is wanted, and begins it.
func (l *liar) begin(t *testing.T) {
	t.Helper()
	wanted := l.asked(msgWant)
	await(t, func() bool {
		if err := l.send(encodeOffer(offeredSize)); err != nil {
			t.Error(err)
		}
		return l.asked(msgWant) > wanted
	})
	l.begun(t)
}

// begun begins the state that is wanted.
func (l *liar) begun(t *testing.T) {
	t.Helper()
	var msg []byte
	l.state, msg = l.frozen()
	t.Cleanup(l.state.snap.Release)
	if err := l.send(msg); err != nil {
		t.Fatal(err)
	}
}

// question waits for what the real device asks next.
func (l *liar) question() (refs []merkle.Ref) {
	l.t.Helper()
	await(l.t, func() bool { return l.asked(msgAsk) > l.asks })
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for _, m := range l.got {
		if m[0] != msgAsk {
			continue
		}
		if n++; n > l.asks {
			l.asks = n
			refs, err := decodeAsk(m[5:])
			if err != nil {
				l.t.Fatal(err)
			}
			return refs
		}
	}
	return nil
}

// answer answers questions until there are no more or one that the test changes is
// refused.
func (l *liar) answer(change func(refs []merkle.Ref, msg []byte) []byte) error {
	for {
		refs := l.question()
		if len(refs) == 0 {
			return nil // it is done
		}
		if err := l.state.answer(refs, func(msg []byte) error {
			if msg = change(refs, msg); msg == nil {
				return nil
			}
			return l.send(msg)
		}); err != nil {
			return err
		}
	}
}

// frozen is the state of the device for who walks it, and the message that begins it.
func (d *node) frozen() (*served, []byte) {
	d.t.Helper()
	v, msg, err := d.Replica.frozen()
	if err != nil {
		d.t.Fatal(err)
	}
	return v, msg
}

// beginning returns the message that begins the state of the device.
func (d *node) beginning() []byte {
	d.t.Helper()
	v, b := d.frozen()
	v.snap.Release()
	return b
}

// part returns the i-th piece of a leaf that has no end.
func (l *liar) part(i int) []byte {
	var b []byte
	for n := uint32(0); len(b) <= partSize; n++ {
		ino := tree.Ino{1}
		binary.BigEndian.PutUint32(ino[4:], uint32(i))
		binary.BigEndian.PutUint32(ino[8:], n)
		v := tree.Xattr{Rank: 1, Value: make([]byte, 60<<10)}.Encode()
		b = tree.AppendRecord(b, tree.Record{Key: tree.XattrKey(ino, "user.x"), Dot: tree.Dot{Actor: l.actor, Ctr: 1}, Value: v})
	}
	return appendPiece([]byte{msgPieces}, b)
}

func (d *node) staging() int64 {
	d.t.Helper()
	info, err := os.Stat(filepath.Join(d.dir, "staging"))
	if errors.Is(err, fs.ErrNotExist) {
		return 0
	}
	if err != nil {
		d.t.Fatal(err)
	}
	return info.Size()
}

// TestStateWithoutEnd: a member that sends more than it offered is refused and
// named, nothing stays of it, and the tree of another one is taken.
func TestStateWithoutEnd(t *testing.T) {
	n := sparse(t, 3)
	n[0].history("a")
	n[1].write("mine", "x")
	n[2].write("bait", "x")
	before := n[1].listing()
	l := lie(n[2], n[1])
	defer n[1].Disconnected(l.key.ID())
	l.begin(t)
	var err error
	for i := 0; err == nil; i++ {
		if i > 1000 {
			t.Fatal("it is taken without end")
		}
		err = l.send(l.part(i))
		if got := n[1].staging(); got > allowance(offeredSize) {
			t.Fatalf("%d bytes are on the disk where %d were offered", got, offeredSize)
		}
	}
	if !strings.Contains(err.Error(), "dev2") {
		t.Errorf("the error does not name the device: %v", err)
	}
	if got := n[1].staging(); got != 0 {
		t.Errorf("%d bytes are left in the staging file", got)
	}
	if got := n[1].room.inUse(); got != 0 {
		t.Errorf("%d bytes are still reserved", got)
	}
	if got := n[1].listing(); got != before {
		t.Errorf("the tree changed:\n%s", got)
	}
	// It is not asked again at once, and others are.
	if err := l.send(encodeOffer(offeredSize)); err != nil {
		t.Fatal(err)
	}
	w := connect(n[0], n[1])
	defer w.disconnect()
	agree(t, n[0], n[1])
	if l.asked(msgWant) != 1 {
		t.Error("it is asked again at once")
	}
	await(t, func() bool { return n[1].room.inUse() == 0 })
}

// TestRefusedStates: whatever is wrong with a state, nothing of it stays, its
// sender is named, and it is asked again after a while.
func TestRefusedStates(t *testing.T) {
	for name, send := range map[string]func(*testing.T, *liar) error{
		"not asked for": func(_ *testing.T, l *liar) error { return l.send(l.part(0)) },
		"not asked for yet": func(t *testing.T, l *liar) error {
			l.begin(t)
			l.question()
			if err := l.send([]byte{msgPieces, 1}); err == nil {
				t.Error("a broken part is taken")
			}
			s := &l.to.sessions
			s.mu.Lock()
			p := s.live[l.key.ID()]
			s.mu.Unlock()
			await(t, func() bool { return s.join(p) }) // and there is no room so far
			return l.send(l.beginning())
		},
		"an empty leaf": func(t *testing.T, l *liar) error {
			l.begin(t)
			l.question()
			return l.send([]byte{msgPieces, 0})
		},
		"a piece too long": func(t *testing.T, l *liar) error {
			l.begin(t)
			l.question()
			return l.send(appendPiece([]byte{msgPieces}, make([]byte, maxPart+1)))
		},
		"a message too long": func(t *testing.T, l *liar) error {
			l.begin(t)
			l.question()
			return l.send(append(l.part(0), 0))
		},
		"out of order": func(t *testing.T, l *liar) error {
			l.begin(t)
			l.question()
			if err := l.send(l.part(1)); err != nil {
				return err
			}
			return l.send(l.part(0))
		},
		"another leaf": func(t *testing.T, l *liar) error {
			l.begin(t)
			l.question()
			if err := l.send(l.part(1)); err != nil {
				return err
			}
			return l.send([]byte{msgPieces, 0})
		},
		"begins within another": func(t *testing.T, l *liar) error {
			l.begin(t)
			return l.send(l.beginning())
		},
	} {
		t.Run(name, func(t *testing.T) {
			n := sparse(t, 3)
			n[1].write("mine", "x")
			n[2].write("bait", "x")
			before := n[1].listing()
			n[1].sessions.rest = 50 * time.Millisecond
			l := lie(n[2], n[1])
			defer n[1].Disconnected(l.key.ID())
			err := send(t, l)
			if err == nil || !strings.Contains(err.Error(), "dev2") {
				t.Fatalf("error %v", err)
			}
			if n[1].staging() != 0 || n[1].room.inUse() != 0 || n[1].listing() != before {
				t.Errorf("left: %d bytes in the staging file, %d reserved, and\n%s", n[1].staging(), n[1].room.inUse(), n[1].listing())
			}
			l.begin(t)
		})
	}
}

// TestNoRoomForState: a tree for which there is no room is not even asked for, and is
// once there is room.
func TestNoRoomForState(t *testing.T) {
	n := sparse(t, 2)
	n[0].history("a")
	n[1].room.free = 1000
	n[1].sessions.rest = 20 * time.Millisecond
	l := lie(n[0], n[1])
	if err := l.send(encodeOffer(1 << 40)); err != nil {
		t.Fatal(err)
	}
	hellos := l.asked(msgHello)
	await(t, func() bool { return l.asked(msgHello) > hellos+1 })
	if l.asked(msgWant) != 0 || n[1].staging() != 0 || n[1].room.inUse() != 0 {
		t.Fatal("a tree was asked for that there is no room for")
	}
	w := connect(n[0], n[1])
	defer w.disconnect()
	await(t, func() bool { return n[1].room.refused() > 2 })
	n[1].room.grow(1 << 30)
	agree(t, n...)
}

// TestRoomIsGivenBack: also when the sender stops in the middle, or goes.
func TestRoomIsGivenBack(t *testing.T) {
	for name, stop := range map[string]func(*liar){
		"it stops": func(*liar) {},
		"it goes":  func(l *liar) { l.to.Disconnected(l.key.ID()) },
		"we go":    func(l *liar) { l.to.sessions.closeAll() },
	} {
		t.Run(name, func(t *testing.T) {
			n := sparse(t, 2)
			n[0].write("bait", "x")
			n[1].sessions.stall = time.Second
			l := lie(n[0], n[1])
			l.begin(t)
			if n[1].room.inUse() == 0 {
				t.Fatal("nothing is reserved")
			}
			stop(l)
			await(t, func() bool { return n[1].room.inUse() == 0 })
		})
	}
}
