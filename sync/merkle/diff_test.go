package merkle

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// A network answers for the nodes of one tree and counts.
type network struct {
	tree  *Tree
	most  int // answers at once, if set
	asks  int
	nodes int
	lie   func(r Ref, b []byte) []byte // changes an answer, if set
}

func (n *network) ask(refs []Ref) ([][]byte, error) {
	n.asks++
	if len(refs) > MaxAsk {
		return nil, fmt.Errorf("%d nodes at once", len(refs))
	}
	if n.most > 0 {
		refs = refs[:min(n.most, len(refs))]
	}
	var out [][]byte
	for _, r := range refs {
		if r.Height != refs[0].Height {
			return nil, errors.New("nodes of several heights at once")
		}
		b, err := n.tree.Node(r)
		if err != nil {
			return nil, err
		}
		if n.lie != nil {
			b = n.lie(r, b)
		}
		n.nodes++
		out = append(out, b)
	}
	return out, nil
}

func collect(tree *Tree, n *network) (out []Range, err error) {
	err = tree.Diff(n.tree.Top(), n.ask, func(r Range) error {
		out = append(out, r)
		return nil
	})
	return out, err
}

// leafAt returns the hash of the leaf to which p falls.
func leafAt(leaves []part, p [24]byte) Hash {
	if len(leaves) == 0 {
		return Hash(nodeHash(0, nil))
	}
	i := 0
	for i+1 < len(leaves) && bytes.Compare(leaves[i+1].first[:], p[:]) <= 0 {
		i++
	}
	return Hash(leaves[i].hash)
}

// naiveDiff computes the ranges from the sorted entries: between any two places
// where a leaf of either tree begins, the leaves are the same or not.
func naiveDiff(ours, theirs []part) (out []Range) {
	cuts := [][24]byte{{}}
	for _, leaves := range [][]part{ours, theirs} {
		for i, p := range leaves {
			if i > 0 {
				cuts = append(cuts, p.first)
			}
		}
	}
	slices.SortFunc(cuts, func(a, b [24]byte) int { return bytes.Compare(a[:], b[:]) })
	cuts = slices.Compact(cuts)
	for i, from := range cuts {
		if leafAt(ours, from) == leafAt(theirs, from) {
			continue
		}
		r := Range{From: bound(from)}
		if i+1 < len(cuts) {
			r.To = bound(cuts[i+1])
		}
		out = append(out, r)
	}
	return out
}

func scan(tb tester, src Source, r Range) (out []Entry) {
	tb.Helper()
	err := src.Scan(r.From, r.To, func(e Entry) error {
		out = append(out, e)
		return nil
	})
	if err != nil {
		tb.Fatalf("%v", err)
	}
	return out
}

// checkDiff compares what Diff yields with the truth. Then it takes the entries of
// the ranges over, with their hashes checked, and requires the root of the other.
func checkDiff(tb tester, ours, theirs *list, lim limits, most int) {
	tb.Helper()
	var trees [2]*Tree
	for i, src := range []*list{ours, theirs} {
		var err error
		if trees[i], err = build(testKey, src, lim); err != nil {
			tb.Fatalf("%v", err)
		}
	}
	got, err := collect(trees[0], &network{tree: trees[1], most: most})
	if err != nil {
		tb.Fatalf("diff: %v", err)
	}
	sorted := slices.Clone(got)
	slices.SortFunc(sorted, func(a, b Range) int { return bytes.Compare(a.From, b.From) })
	want := naiveDiff(naive(testKey, ours.entries, lim)[0], naive(testKey, theirs.entries, lim)[0])
	same := func(a, b Range) bool {
		return bytes.Equal(a.From, b.From) && bytes.Equal(a.To, b.To) && (a.To == nil) == (b.To == nil)
	}
	if !slices.EqualFunc(sorted, want, same) {
		tb.Fatalf("ranges differ:\n got %x\nwant %x", sorted, want)
	}

	patched := newList(ours.entries...)
	var leaf []Entry
	for i, r := range got {
		for _, e := range scan(tb, ours, r) {
			patched.drop(Prefix(e.Key))
		}
		entries := scan(tb, theirs, r)
		for _, e := range entries {
			patched.put(e)
		}
		if leaf = append(leaf, entries...); i+1 < len(got) && got[i+1].Leaf == r.Leaf {
			continue
		}
		if r.Leaf.IsZero() != (len(leaf) == 0) || !r.Leaf.IsZero() && LeafHash(leaf) != r.Leaf {
			tb.Fatalf("range %x: the entries of the leaf are not %v", r, r.Leaf)
		}
		leaf = nil
	}
	if naiveRoot(testKey, patched.entries, lim) != trees[1].Top().Hash {
		tb.Fatalf("with the ranges taken over the root differs")
	}
}

func TestDiffModel(t *testing.T) {
	pool := groupsOfAllLevels()
	rapid.Check(t, func(t *rapid.T) {
		lim := rapid.SampledFrom([]limits{standard, {groups: 3, bytes: 300, children: 2}, {groups: 5, bytes: 40, children: 3}}).Draw(t, "limits")
		entry := rapid.Custom(func(t *rapid.T) Entry {
			return single(rapid.SampledFrom(pool).Draw(t, "group"), rapid.SampledFrom([]string{"", "x", "yyyyyyyyyyyyyyyy"}).Draw(t, "value"))
		})
		set := func(name string, n int) *list {
			l := newList()
			for _, e := range rapid.SliceOfN(entry, 0, n).Draw(t, name) {
				l.put(e)
			}
			return l
		}
		ours, theirs := set("common", 100), newList()
		theirs.entries = slices.Clone(ours.entries)
		for _, l := range []*list{ours, theirs} {
			for _, e := range set("more", 20).entries {
				l.put(e)
			}
			for range rapid.IntRange(0, 10).Draw(t, "drops") {
				l.drop(rapid.SampledFrom(pool).Draw(t, "drop"))
			}
		}
		checkDiff(t, ours, theirs, lim, rapid.IntRange(0, 3).Draw(t, "answers at once"))
	})
}

func TestDiffShapes(t *testing.T) {
	half := func(e []Entry) []Entry { return e[:len(e)/2] }
	var steep, flat, wide []Entry
	for _, g := range levelled(testKey, 3, 6) {
		steep = append(steep, single(g, "steep"))
	}
	for _, g := range levelled(testKey, 0, 2500) {
		flat = append(flat, single(g, "flat"))
	}
	for _, g := range levelled(testKey, 1, 2500) {
		wide = append(wide, single(g, "wide"))
	}
	all := synthetic(3000)
	inner := slices.Clone(all)
	inner[1500].Value = []byte("other")
	for name, c := range map[string]struct{ a, b []Entry }{
		"both empty":          {nil, nil},
		"one empty":           {nil, all},
		"one entry":           {nil, all[:1]},
		"equal":               {all, all},
		"a value differs":     {all, inner},
		"half":                {all, half(all)},
		"nothing in common":   {all, flat},
		"higher":              {half(all), slices.Concat(half(all), steep)},
		"single-child nodes":  {steep, half(steep)},
		"run without cuts":    {flat, flat[1:]},
		"run of one-leafs":    {wide, wide[1:]},
		"wide among the rest": {slices.Concat(all, wide), all},
	} {
		t.Run(name, func(t *testing.T) {
			checkDiff(t, newList(c.a...), newList(c.b...), standard, 0)
			checkDiff(t, newList(c.b...), newList(c.a...), standard, 7)
		})
	}
}

// Equal subtrees are not asked for.
func TestDiffAsksLittle(t *testing.T) {
	theirs := newList(synthetic(50_000)...)
	remote := mustBuild(t, theirs)
	ours := newList(theirs.entries...)
	tree := mustBuild(t, ours)
	if got, err := collect(tree, &network{tree: remote}); err != nil || len(got) != 0 {
		t.Errorf("equal trees: %d ranges, %v", len(got), err)
	}
	p := numbered(777)
	ours.put(Entry{Key: append(p[:], "M"...), Value: []byte("new")})
	tree.Touch(p)
	root(t, tree, ours)
	n := &network{tree: remote}
	got, err := collect(tree, n)
	if err != nil || len(got) != 1 || n.nodes != remote.Top().Height || n.asks != n.nodes {
		t.Errorf("one change: %d ranges, %d nodes in %d asks, height %d, %v", len(got), n.nodes, n.asks, remote.Top().Height, err)
	}

	// A height is asked for in as few goes as may be.
	lim := limits{groups: 3, bytes: 1 << 20, children: 2}
	tree, err = build(testKey, newList(), lim)
	if err != nil {
		t.Fatal(err)
	}
	if remote, err = build(testKey, newList(synthetic(5000)...), lim); err != nil {
		t.Fatal(err)
	}
	n = &network{tree: remote}
	if _, err := collect(tree, n); err != nil {
		t.Fatal(err)
	}
	least := 0
	for _, l := range remote.layers[1:] {
		least += (len(l.nodes) + MaxAsk - 1) / MaxAsk
	}
	if n.asks > least+len(remote.layers) || len(remote.layers[1].nodes) < 3*MaxAsk {
		t.Errorf("bootstrap of %d nodes in %d asks, want about %d", n.nodes, n.asks, least)
	}
}

func TestNodeIsGone(t *testing.T) {
	src := newList(synthetic(3000)...)
	tree := mustBuild(t, src)
	top, old := tree.Top(), tree.Clone()
	src.put(single(numbered(9999), "new"))
	tree.Touch(numbered(9999))
	if _, err := tree.Node(top); err != nil {
		t.Errorf("touched, but no Root since: %v", err)
	}
	root(t, tree, src)
	leaf := tree.layers[0].nodes[0]
	for name, r := range map[string]Ref{
		"changed":    top,
		"a leaf":     {0, leaf.first, leaf.hash},
		"too high":   {top.Height + 1, top.First, top.Hash},
		"below zero": {-1, top.First, top.Hash},
		"elsewhere":  {1, numbered(3), tree.layers[1].nodes[0].hash},
	} {
		if _, err := tree.Node(r); !errors.Is(err, ErrGone) {
			t.Errorf("%s: %v, want ErrGone", name, err)
		}
	}
	if b, err := old.Node(top); err != nil || old.h.sum(top.Height, b[nodeHead:]) != top.Hash {
		t.Errorf("the clone: %v", err)
	}
}

// A clone is compared while the tree goes on.
func TestCloneStandsAlone(t *testing.T) {
	src := newList(synthetic(2000)...)
	tree := mustBuild(t, src)
	remote := mustBuild(t, newList(synthetic(5000)...))
	want, err := collect(tree, &network{tree: remote})
	if err != nil {
		t.Fatal(err)
	}
	clone, done := tree.Clone(), make(chan struct{})
	go func() {
		defer close(done)
		got, err := collect(clone, &network{tree: remote})
		if err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%d ranges, want %d, %v", len(got), len(want), err)
		}
	}()
	for i := range uint64(200) {
		src.drop(numbered(i))
		tree.Touch(numbered(i))
		root(t, tree, src)
	}
	<-done
}

func ExampleTree_Diff() {
	ours, theirs := newList(synthetic(1000)...), newList(synthetic(1000)...)
	theirs.put(single(numbered(5000), "a new file"))
	local, _ := Build([32]byte{1}, ours)
	peer, _ := Build([32]byte{1}, theirs) // on another device

	ask := func(refs []Ref) (answers [][]byte, err error) {
		for _, r := range refs { // one message, in truth
			b, err := peer.Node(r)
			if err != nil {
				return nil, err
			}
			answers = append(answers, b)
		}
		return answers, nil
	}
	err := local.Diff(peer.Top(), ask, func(r Range) error {
		var entries []Entry
		err := theirs.Scan(r.From, r.To, func(e Entry) error {
			entries = append(entries, e)
			return nil
		})
		fmt.Println(len(entries), "of", len(theirs.entries), "entries, as the root names them:", LeafHash(entries) == r.Leaf)
		return err
	})
	if err != nil {
		fmt.Println(err)
	}
	// Output: 43 of 2001 entries, as the root names them: true
}

func encode(height int, c ...Ref) (Ref, []byte) {
	b := []byte{nodeVersion, byte(height)}
	for _, r := range c {
		b = append(append(b, r.First[:]...), r.Hash[:]...)
	}
	r := Ref{Height: height, Hash: newNodeHasher().sum(height, b[nodeHead:])}
	if len(c) > 0 {
		r.First = c[0].First
	}
	return r, b
}

// TestHostileAnswers gives answers that hash to what was asked for, or not, and
// break the format.
func TestHostileAnswers(t *testing.T) {
	g := levelled(testKey, 1, 1100)
	slices.SortFunc(g, func(a, b [24]byte) int { return bytes.Compare(a[:], b[:]) })
	leaf := func(i int) Ref { return Ref{First: g[i], Hash: Hash{1, byte(i)}} }
	var many []Ref
	for i := range g {
		many = append(many, leaf(i))
	}
	high := Ref{First: levelled(testKey, 2, 1)[0], Hash: Hash{2}}
	good, goodBytes := encode(1, leaf(0), leaf(1))
	below, belowBytes := encode(1, leaf(4), leaf(9))
	above, aboveBytes := encode(2, below, Ref{First: g[7], Hash: Hash{3}})
	moved, movedBytes := encode(2, Ref{First: g[3], Hash: below.Hash}, Ref{First: g[20], Hash: Hash{3}})
	one := func(b []byte) [][]byte { return [][]byte{b} }
	of := func(height int, c ...Ref) func() (Ref, [][]byte) {
		return func() (Ref, [][]byte) { r, b := encode(height, c...); return r, one(b) }
	}
	for name, c := range map[string]struct {
		makes func() (Ref, [][]byte)
		want  string // in the error; none if the answer is good
	}{
		"good":            {of(1, leaf(0), leaf(1)), ""},
		"wrong hash":      {func() (Ref, [][]byte) { r := good; r.Hash[9] ^= 1; return r, one(goodBytes) }, "named: hash"},
		"wrong version":   {func() (Ref, [][]byte) { b := bytes.Clone(goodBytes); b[0] = 2; return good, one(b) }, "version 2"},
		"wrong height":    {func() (Ref, [][]byte) { b := bytes.Clone(goodBytes); b[1] = 9; return good, one(b) }, "height 9"},
		"begins earlier":  {func() (Ref, [][]byte) { r := good; r.First = g[1]; return r, one(goodBytes) }, "begins"},
		"empty":           {func() (Ref, [][]byte) { return good, one(nil) }, "0 bytes"},
		"no children":     {of(1), "0 bytes of children"},
		"one at the top":  {of(1, leaf(0)), "one child"},
		"unordered":       {of(1, leaf(0), leaf(3), leaf(2)), "after"},
		"twice":           {of(1, leaf(0), leaf(0)), "after"},
		"as many as may":  {of(1, many[:1024]...), ""},
		"too many":        {of(1, many[:1025]...), "bytes, limit"},
		"too high a name": {of(1, Ref{Hash: Hash{1}}, high), "level 2"},
		"half a child": {func() (Ref, [][]byte) {
			b := goodBytes[:len(goodBytes)-1]
			return Ref{1, good.First, newNodeHasher().sum(1, b[nodeHead:])}, one(b)
		}, "bytes of children"},
		"into the next":  {func() (Ref, [][]byte) { return above, [][]byte{aboveBytes, belowBytes} }, "behind"},
		"not in place":   {func() (Ref, [][]byte) { return moved, [][]byte{movedBytes, belowBytes} }, "begins"},
		"endless depth":  {func() (Ref, [][]byte) { r := good; r.Height = 16; return r, one(goodBytes) }, "limit 15"},
		"below the leaf": {func() (Ref, [][]byte) { r := good; r.Height = -1; return r, one(goodBytes) }, "limit 15"},
		"no answer":      {func() (Ref, [][]byte) { return good, nil }, "0 answers"},
	} {
		top, answers := c.makes()
		next := 0
		err := mustBuild(t, newList(synthetic(100)...)).Diff(top, func([]Ref) ([][]byte, error) {
			if next == len(answers) {
				return nil, nil
			}
			next++
			return answers[next-1 : next], nil
		}, func(Range) error { return nil })
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case c.want != "" && (!errors.Is(err, ErrNode) || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: %v, want an ErrNode with %q", name, err, c.want)
		}
	}

	err := mustBuild(t, newList()).Diff(good, func(r []Ref) ([][]byte, error) { return [][]byte{goodBytes, goodBytes}, nil }, nil)
	if !errors.Is(err, ErrNode) {
		t.Errorf("more answers than questions: %v", err)
	}
	stop := errors.New("enough")
	if err := mustBuild(t, newList()).Diff(good, func([]Ref) ([][]byte, error) { return nil, stop }, nil); !errors.Is(err, stop) {
		t.Errorf("ask fails: %v", err)
	}
	err = mustBuild(t, newList()).Diff(good, func([]Ref) ([][]byte, error) { return [][]byte{goodBytes}, nil }, func(Range) error { return stop })
	if !errors.Is(err, stop) {
		t.Errorf("fn fails: %v", err)
	}
}

// Each byte of each answer counts.
func TestEveryFlippedAnswerIsRefused(t *testing.T) {
	remote := mustBuild(t, newList(synthetic(2000)...))
	tree := mustBuild(t, newList())
	rnd := rand.New(rand.NewPCG(7, 8))
	for range 300 {
		at, flipped := rnd.IntN(20), false
		n := &network{tree: remote, most: 1}
		n.lie = func(_ Ref, b []byte) []byte {
			if n.nodes == at {
				flipped = true
				b[rnd.IntN(len(b))] ^= 1 << rnd.IntN(8)
			}
			return b
		}
		if _, err := collect(tree, n); flipped != errors.Is(err, ErrNode) {
			t.Fatalf("flipped %v: %v", flipped, err)
		}
	}
}

// A peer that makes up a tree as large as it likes does not make Diff remember
// all of it. To save the test from building such a tree bottom up, a node gets the
// hash of its answer when it is asked for, which no peer could do.
func TestHugeTreeInBoundedMemory(t *testing.T) {
	const limit, wide, height, enough = 200, 32, 10, 5000
	tree, err := build(testKey, newList(), limits{groups: 1024, bytes: 1 << 20, children: wide})
	if err != nil {
		t.Fatal(err)
	}
	stop := errors.New("enough")
	d := differ{t: tree, top: Ref{Height: height, Hash: Hash{9}}, fn: func(Range) error { return nil }, limit: limit}
	asked, most := 0, 0
	d.ask = func(refs []Ref) (out [][]byte, err error) {
		if asked += len(refs); asked > enough {
			return nil, stop
		}
		most = max(most, d.size)
		for i, r := range refs {
			var c []Ref
			from := binary.BigEndian.Uint64(r.First[:8])
			for k := range uint64(wide) {
				child := Ref{Height: r.Height - 1, Hash: Hash{9}}
				binary.BigEndian.PutUint64(child.First[:8], from+k<<(5*child.Height))
				if k == 0 || int(tree.h.level(child.First)) <= r.Height {
					c = append(c, child)
				}
			}
			got, b := encode(r.Height, c...)
			d.wait[r.Height][i].Hash = got.Hash
			out = append(out, b)
		}
		return out, nil
	}
	if err := d.run(); !errors.Is(err, stop) {
		t.Fatalf("got %v", err)
	}
	if most < limit/2 || most > limit+height*wide {
		t.Errorf("%d nodes remembered, limit %d and %d more", most, limit, height*wide)
	}
}

func FuzzNode(f *testing.F) {
	remote := mustBuild(f, newList(synthetic(2000)...))
	for h := 1; h < len(remote.layers); h++ {
		n := remote.layers[h].nodes[0]
		b, err := remote.Node(Ref{h, n.first, n.hash})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte{1, 1})
	tree := mustBuild(f, newList(synthetic(300)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < nodeHead {
			return
		}
		top := Ref{Height: int(b[1]), Hash: newNodeHasher().sum(int(b[1]), b[nodeHead:])}
		copy(top.First[:], b[nodeHead:])
		asks := 0
		covered := []byte{} // the ranges of one node come in order
		_ = tree.Diff(top, func([]Ref) ([][]byte, error) {
			if asks++; asks > 1 {
				return nil, ErrGone
			}
			return [][]byte{b}, nil
		}, func(r Range) error {
			if top.Height == 1 && bytes.Compare(r.From, covered) < 0 || r.To != nil && bytes.Compare(r.From, r.To) >= 0 {
				t.Fatalf("range %x after %x", r, covered)
			}
			covered = r.To
			return nil
		})
	})
}
