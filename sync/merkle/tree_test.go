package merkle

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

func mustBuild(tb testing.TB, src Source) *Tree {
	tb.Helper()
	t, err := Build(testKey, src)
	if err != nil {
		tb.Fatal(err)
	}
	return t
}

func root(tb testing.TB, t *Tree, src Source) Hash {
	tb.Helper()
	h, err := t.Root(src)
	if err != nil {
		tb.Fatal(err)
	}
	return h
}

func TestBuildIsTheReference(t *testing.T) {
	for _, n := range []int{0, 1, 2, 31, 33, 1000, 5000} {
		src := newList(synthetic(n)...)
		got := root(t, mustBuild(t, src), src)
		if want := naiveRoot(testKey, src.entries, standard); got != want {
			t.Errorf("%d groups: root %v, want %v", n, got, want)
		}
	}
}

func TestRootNamesTheEntries(t *testing.T) {
	base := synthetic(100)
	want := root(t, mustBuild(t, newList(base...)), newList(base...))
	changed := slices.Clone(base)
	changed[7].Value = []byte("other")
	moved := slices.Clone(base) // a byte goes from a value to the key before it
	moved[9].Key, moved[9].Value = append(bytes.Clone(moved[9].Key), 'L'), moved[9].Value[1:]
	for name, entries := range map[string][]Entry{
		"a value differs":      changed,
		"one entry less":       base[1:],
		"one entry more":       append(slices.Clone(base), single([24]byte{1}, "")),
		"a byte changes sides": moved,
		"an entry there twice": append(slices.Clone(base), base[3]),
	} {
		src := newList(entries...)
		if got := root(t, mustBuild(t, src), src); got == want {
			t.Errorf("%s: same root", name)
		}
	}
	src := newList(base...)
	other, err := Build([32]byte{9}, src)
	if err != nil {
		t.Fatal(err)
	}
	if root(t, other, src) == want {
		t.Error("another key, same boundaries")
	}
}

// Settings have keys that are shorter than a group, and the root directory's group
// is all zeros.
func TestShortKeys(t *testing.T) {
	var entries []Entry
	for _, k := range []string{
		"", "\x00", strings.Repeat("\x00", 24) + "A", strings.Repeat("\x00", 25),
		"\xffGa", "\xffGa\x00", "\xffGa\x00\x01", "\xffGb",
		"\xffG" + strings.Repeat("x", 40), "\xffG" + strings.Repeat("x", 40) + "y", "\xff\xff",
	} {
		entries = append(entries, Entry{Key: []byte(k), Value: []byte("v" + k)})
	}
	entries = append(entries, synthetic(200)...)
	rnd := rand.New(rand.NewPCG(3, 4))
	for _, lim := range []limits{standard, {1, 1 << 20, 2}} {
		src := newList()
		tree, err := build(testKey, src, lim)
		if err != nil {
			t.Fatal(err)
		}
		rnd.Shuffle(len(entries), func(i, j int) { entries[i], entries[j] = entries[j], entries[i] })
		for _, e := range entries {
			src.put(e)
			tree.Touch(Prefix(e.Key))
			if got, want := root(t, tree, src), naiveRoot(testKey, src.entries, lim); got != want {
				t.Fatalf("after %q: root %v, want %v", e.Key, got, want)
			}
		}
	}
}

func TestOneChangeReadsOneLeaf(t *testing.T) {
	src := newList(synthetic(20000)...)
	tree := mustBuild(t, src)
	worst := 0
	for i := range uint64(200) {
		p := numbered(i * 97)
		src.put(Entry{Key: append(p[:], "M"...), Value: []byte("new")})
		src.scanned = 0
		tree.Touch(p)
		got := root(t, tree, src)
		worst = max(worst, src.scanned)
		if i%50 == 0 && got != naiveRoot(testKey, src.entries, standard) {
			t.Fatalf("wrong root after change %d", i)
		}
	}
	if worst > 2000 {
		t.Errorf("a change read %d of %d entries", worst, len(src.entries))
	}
	src.scanned = 0
	root(t, tree, src)
	if src.scanned != 0 {
		t.Errorf("nothing changed, %d entries read", src.scanned)
	}
}

func TestGrowAndShrink(t *testing.T) {
	all := synthetic(3000)
	src := newList()
	tree := mustBuild(t, src)
	empty := root(t, tree, src)
	for i := 0; i < len(all); i += 500 {
		for _, e := range all[i : i+500] {
			src.put(e)
			tree.Touch(Prefix(e.Key))
		}
		if got, want := root(t, tree, src), naiveRoot(testKey, src.entries, standard); got != want {
			t.Fatalf("%d entries: root %v, want %v", len(src.entries), got, want)
		}
	}
	high := len(tree.layers)
	for i := range 3000 {
		p := numbered(uint64(i))
		src.drop(p)
		tree.Touch(p)
		if i%300 == 299 || i > 2990 {
			if got, want := root(t, tree, src), naiveRoot(testKey, src.entries, standard); got != want {
				t.Fatalf("%d entries left: root %v, want %v", len(src.entries), got, want)
			}
		}
	}
	if got := root(t, tree, src); got != empty || len(tree.layers) != 1 || high < 3 {
		t.Errorf("at the end: root %v, %d layers (%d before)", got, len(tree.layers), high)
	}
}

// tester is what testing.T and rapid.T have in common.
type tester interface {
	Helper()
	Fatalf(format string, args ...any)
}

// checkShape compares every layer with the reference and the bounds.
func checkShape(tb tester, tree *Tree, entries []Entry, lim limits) {
	tb.Helper()
	want := naive(testKey, entries, lim)
	if len(tree.layers) != len(want) {
		tb.Fatalf("%d layers, want %d", len(tree.layers), len(want))
	}
	for h, parts := range want {
		nodes := tree.layers[h].nodes
		if len(nodes) != len(parts) {
			tb.Fatalf("%d nodes at height %d, want %d", len(nodes), h, len(parts))
		}
		for i, p := range parts {
			if nodes[i].first != p.first || !bytes.Equal(nodes[i].hash[:], p.hash) || nodes[i].dirty {
				tb.Fatalf("node %d at height %d differs", i, h)
			}
			if h == 0 && p.items > lim.groups || h > 0 && (p.items > lim.children || p.size > 2+lim.children*56) {
				tb.Fatalf("node %d at height %d has %d items, %d bytes", i, h, p.items, p.size)
			}
		}
	}
}

// Names made by somebody who knows the key do not make a node too large, and
// changes among them are still followed.
func TestCraftedNames(t *testing.T) {
	flat := levelled(testKey, 0, 5000) // no boundary anywhere
	wide := levelled(testKey, 1, 2500) // every group a leaf, no boundary above
	steep := levelled(testKey, 3, 6)   // single-child nodes up to height 2
	fat := levelled(testKey, 0, 40)    // 40 groups of 100 kB
	for name, groups := range map[string][][24]byte{
		"flat": flat, "wide": wide, "steep": steep, "fat": fat,
		"mixed": slices.Concat(flat[:2000], wide[:1500], steep),
	} {
		value := name
		if name == "fat" {
			value = strings.Repeat("x", 100_000)
		}
		var entries []Entry
		for _, g := range groups {
			entries = append(entries, single(g, value))
		}
		src := newList(entries...)
		tree := mustBuild(t, src)
		checkShape(t, tree, src.entries, standard)
		rnd := rand.New(rand.NewPCG(5, 6))
		for step := range 10 {
			g := groups[rnd.IntN(len(groups))]
			switch step % 2 {
			case 0:
				src.drop(g)
			default:
				src.put(single(g, "again"))
			}
			tree.Touch(g)
			root(t, tree, src)
			checkShape(t, tree, src.entries, standard)
		}
		for h, parts := range naive(testKey, src.entries, standard) {
			for _, p := range parts {
				if h == 0 && p.size > 1<<20+100_100+p.items*40 {
					t.Errorf("%s: a leaf of %d bytes", name, p.size)
				}
			}
		}
	}
}

func TestSourceErrors(t *testing.T) {
	good := newList(synthetic(500)...)
	tree := mustBuild(t, good)
	want := root(t, tree, good)

	tree.Touch(numbered(3))
	tree.Touch(numbered(300))
	boom := errors.New("disk on fire")
	bad := &list{entries: good.entries, err: boom}
	if _, err := tree.Root(bad); !errors.Is(err, boom) {
		t.Errorf("got %v, want the source's error", err)
	}
	// What was touched is still to be done.
	good.put(Entry{Key: append(bytes.Clone(numberedSlice(300)), 'X'), Value: []byte("new")})
	if got := root(t, tree, good); got == want || got != naiveRoot(testKey, good.entries, standard) {
		t.Error("a change was lost over an error")
	}

	shuffled := &list{entries: slices.Clone(good.entries)}
	slices.Reverse(shuffled.entries)
	if _, err := Build(testKey, shuffled); !errors.Is(err, ErrOrder) {
		t.Errorf("reversed: %v, want ErrOrder", err)
	}
	if _, err := Build(testKey, bad); !errors.Is(err, boom) {
		t.Errorf("Build: %v", err)
	}
	tree.Touch(numbered(7))
	if _, err := tree.Root(everything{good}); !errors.Is(err, ErrOrder) {
		t.Errorf("a source that ignores the range: %v, want ErrOrder", err)
	}
}

func numberedSlice(n uint64) []byte { p := numbered(n); return p[:] }

type everything struct{ *list }

func (e everything) Scan(_, _ []byte, fn func(Entry) error) error { return e.list.Scan(nil, nil, fn) }

func TestStaleSourceIsNoticed(t *testing.T) {
	src := newList(synthetic(2000)...)
	tree := mustBuild(t, src)
	first := tree.layers[0].nodes[5].first
	src.drop(first) // without Touch
	inLeaf := first
	inLeaf[23]++
	tree.Touch(inLeaf)
	if _, err := tree.Root(src); !errors.Is(err, ErrStale) {
		t.Errorf("got %v, want ErrStale", err)
	}
	tree.Touch(first) // the notice comes late
	if got := root(t, tree, src); got != naiveRoot(testKey, src.entries, standard) {
		t.Error("wrong root after the late notice")
	}
}

func TestSaved(t *testing.T) {
	src := newList(synthetic(3000)...)
	tree := mustBuild(t, src)
	src.drop(numbered(17))
	src.put(single(numbered(9999), "x"))
	tree.Touch(numbered(17))
	tree.Touch(numbered(9999))
	b, err := tree.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	again, err := Load(testKey, b)
	if err != nil {
		t.Fatal(err)
	}
	if c, err := again.MarshalBinary(); err != nil || !bytes.Equal(b, c) {
		t.Errorf("saved again it differs: %v", err)
	}
	src.scanned = 0
	if got, want := root(t, again, src), naiveRoot(testKey, src.entries, standard); got != want {
		t.Errorf("root %v, want %v", got, want)
	}
	if src.scanned > 1000 {
		t.Errorf("%d entries read after a restart", src.scanned)
	}
	checkShape(t, again, src.entries, standard)

	for i := range b {
		if i > 200 && i%331 != 0 && i < len(b)-40 {
			continue
		}
		bad := bytes.Clone(b)
		bad[i] ^= 1
		if _, err := Load(testKey, bad); !errors.Is(err, ErrSaved) {
			t.Fatalf("byte %d flipped: %v", i, err)
		}
	}
	for _, n := range []int{0, 1, 20, len(b) - 1} {
		if _, err := Load(testKey, b[:n]); !errors.Is(err, ErrSaved) {
			t.Errorf("cut to %d bytes: %v", n, err)
		}
	}
	if _, err := Load([32]byte{7}, b); !errors.Is(err, ErrSaved) {
		t.Errorf("another key: %v", err)
	}
}

func TestSavedEmpty(t *testing.T) {
	src := newList()
	for _, touch := range []bool{false, true} {
		tree := mustBuild(t, src)
		if touch {
			tree.Touch(numbered(1))
		}
		b, err := tree.MarshalBinary()
		if err != nil {
			t.Fatal(err)
		}
		again, err := Load(testKey, b)
		if err != nil {
			t.Fatal(err)
		}
		full := newList(single(numbered(1), "x"))
		got := root(t, again, full)
		if touched := got == naiveRoot(testKey, full.entries, standard); touched != touch {
			t.Errorf("touched %v before saving, %v after", touch, touched)
		}
	}
}

func ExampleTree() {
	src := newList(synthetic(1000)...)
	tree, err := Build([32]byte{1}, src)
	if err != nil {
		fmt.Println(err)
		return
	}
	before, _ := tree.Root(src)

	e := single(numbered(5000), "a new file")
	src.put(e)
	tree.Touch(Prefix(e.Key))
	after, _ := tree.Root(src)

	src.drop(Prefix(e.Key))
	tree.Touch(Prefix(e.Key))
	again, _ := tree.Root(src)
	fmt.Println(before == after, before == again)
	// Output: false true
}
