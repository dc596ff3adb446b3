package manifest

import (
	"testing"

	"github.com/roamfs/roamfs/peer/device"
	"github.com/roamfs/roamfs/sync/merkle"
	"github.com/roamfs/roamfs/sync/tree"
)

func testKey(n byte) device.Key { return device.KeyFromSeed([32]byte{n, 1}) }

func testActor(n byte) tree.Actor { return device.NewActor(testKey(n).ID(), [16]byte{n}) }

var testHive = device.HiveOf(testKey(0).ID())

// chain makes the manifests of one device, one after the other.
type chain struct {
	n    byte
	last *Manifest
	seen map[tree.Actor]Head // of others, and of itself
}

func newChain(n byte) *chain { return &chain{n: n, seen: make(map[tree.Actor]Head)} }

// next makes, but does not sign, what follows.
func (c *chain) next(flags Flags) *Manifest {
	m := &Manifest{
		Flags: flags, Hive: testHive, Epoch: 1, Members: [32]byte{9}, Actor: testActor(c.n), Device: testKey(c.n).ID(),
		Seq: 1, Wall: -5, Root: merkle.Hash{c.n, 7},
	}
	if c.last != nil {
		m.Seq, m.Prev, m.Ctr = c.last.Seq+1, c.last.Hash(), c.last.Ctr
	}
	for _, h := range c.seen {
		m.Frontier = append(m.Frontier, h)
	}
	if flags == FlagCommit {
		m.Ctr++
		m.DeltaHash, m.DeltaLen = Sum([]byte("delta")), 5
	}
	m.Root[2], m.Root[3] = byte(m.Seq), byte(m.Ctr)
	m.StateID = StateID(m.Root, m.Vector())
	return m
}

// add signs m and makes it the newest.
func (c *chain) add(tb testing.TB, m *Manifest) *Manifest {
	tb.Helper()
	if err := m.Sign(testKey(c.n)); err != nil {
		tb.Fatal(err)
	}
	c.last = m
	if m.Flags&FlagCommit != 0 {
		c.seen[m.Actor] = Head{m.Actor, m.Ctr, m.Hash()}
	}
	return m
}

// see is what adopting o's newest manifest does to what c has seen.
func (c *chain) see(o *chain) {
	for a, h := range o.seen {
		if a != testActor(c.n) && h.Ctr > c.seen[a].Ctr {
			c.seen[a] = h
		}
	}
}

// example is a commit that has seen two other devices.
func example(tb testing.TB) *Manifest {
	tb.Helper()
	a, b, c := newChain(1), newChain(2), newChain(3)
	b.add(tb, b.next(FlagCommit))
	c.add(tb, c.next(FlagCommit))
	c.add(tb, c.next(FlagCommit))
	a.add(tb, a.next(FlagCommit))
	a.see(b)
	a.see(c)
	return a.add(tb, a.next(FlagCommit))
}

func testDelta() Delta {
	ino := tree.Ino{1, 2, 3}
	dot := tree.Dot{Actor: testActor(1), Ctr: 300}
	d := Delta{
		Put: []tree.Record{
			{Key: tree.AttrKey(ino), Dot: dot, Value: tree.Attr{Rank: 2, Wall: 5, Mode: 0o640}.Encode()},
			{Key: tree.MTimeKey(ino), Dot: dot, Value: tree.MTime{Rank: 1, Wall: 6, MTime: 7}.Encode()},
			{Key: tree.XattrKey(ino, "user.colour"), Dot: dot, Value: tree.Xattr{Rank: 1, Wall: 8, Value: []byte("blue")}.Encode()},
		},
		Drop: []tree.KeyDot{
			{Key: tree.AttrKey(ino), Dot: tree.Dot{Actor: testActor(1), Ctr: 2}},
			{Key: tree.AttrKey(ino), Dot: tree.Dot{Actor: testActor(2), Ctr: 1}},
			{Key: tree.MTimeKey(ino), Dot: tree.Dot{Actor: testActor(2), Ctr: 1}},
			{Key: tree.SettingKey("policy of the whole hive"), Dot: tree.Dot{Actor: testActor(2), Ctr: 9}},
		},
	}
	return sorted(d)
}
