package merkle

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func mustProve(tb tester, tree *Tree, src Source, key []byte) []byte {
	tb.Helper()
	proof, err := tree.Prove(src, key)
	if err != nil {
		tb.Fatalf("prove %x: %v", key, err)
	}
	return proof
}

// checkProof proves a key and compares what is proven with the sorted entries.
func checkProof(tb tester, tree *Tree, src *list, key []byte) {
	tb.Helper()
	var want []Entry
	for _, e := range src.entries {
		if bytes.Equal(e.Key, key) {
			want = append(want, e)
		}
	}
	proof := mustProve(tb, tree, src, key)
	got, err := Verify(tree.Top().Hash, key, proof)
	if err != nil || !slices.EqualFunc(got, want, func(a, b Entry) bool { return compareEntries(a, b) == 0 }) {
		tb.Fatalf("key %x: proven %x, want %x, %v", key, got, want, err)
	}
}

// Every record of trees of many shapes is proven, and the absence of others.
func TestProofModel(t *testing.T) {
	pool := groupsOfAllLevels()
	rapid.Check(t, func(t *rapid.T) {
		lim := rapid.SampledFrom([]limits{standard, {groups: 3, bytes: 300, children: 2}, {groups: 5, bytes: 40, children: 3}}).Draw(t, "limits")
		group, value := rapid.SampledFrom(pool), rapid.SampledFrom([]string{"", "x", "yyyyyyyyyyyyyyyy"})
		src := newList()
		for range rapid.IntRange(0, 60).Draw(t, "entries") {
			src.put(single(group.Draw(t, "group"), value.Draw(t, "value")))
		}
		tree, err := build(testKey, src, lim)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range pool {
			checkProof(t, tree, src, single(p, "").Key)
		}
		for _, key := range []string{"", "\x00", "\xff\xff", strings.Repeat("\x00", 24), strings.Repeat("\xff", 30)} {
			checkProof(t, tree, src, []byte(key))
		}
	})
}

func TestEveryRecordIsProven(t *testing.T) {
	src := newList(synthetic(3000)...)
	tree := mustBuild(t, src)
	for _, e := range src.entries {
		checkProof(t, tree, src, e.Key)
		checkProof(t, tree, src, append(bytes.Clone(e.Key), 0)) // none has it
	}
}

// Every bit of a proof, of its key and of the root counts.
func TestEveryFlippedBitIsRefused(t *testing.T) {
	src := newList(synthetic(1200)...)
	tree := mustBuild(t, src)
	e := src.entries[1001]
	proof := mustProve(t, tree, src, e.Key)
	top := tree.Top().Hash
	if tree.Top().Height < 2 {
		t.Fatal("the tree is too low for the test")
	}
	flip := func(b []byte, bit int) []byte {
		b = bytes.Clone(b)
		b[bit/8] ^= 1 << (bit % 8)
		return b
	}
	for bit := range len(proof) * 8 {
		if got, err := Verify(top, e.Key, flip(proof, bit)); !errors.Is(err, ErrProof) {
			t.Fatalf("bit %d of the proof flipped: %x, %v", bit, got, err)
		}
	}
	for bit := range len(top) * 8 {
		if got, err := Verify(Hash(flip(top[:], bit)), e.Key, proof); !errors.Is(err, ErrProof) {
			t.Fatalf("bit %d of the root flipped: %x, %v", bit, got, err)
		}
	}
	for bit := range len(e.Key) * 8 {
		// Another key lies in the same leaf, where it is not, or in another.
		key := flip(e.Key, bit)
		if got, err := Verify(top, key, proof); len(got) > 0 || err != nil && !errors.Is(err, ErrProof) {
			t.Fatalf("bit %d of the key flipped: %x, %v", bit, got, err)
		}
	}
	for n := range proof {
		if _, err := Verify(top, e.Key, proof[:n]); !errors.Is(err, ErrProof) {
			t.Fatalf("cut to %d bytes: %v", n, err)
		}
	}
	if _, err := Verify(top, e.Key, append(bytes.Clone(proof), 0)); !errors.Is(err, ErrProof) {
		t.Errorf("a byte more: %v", err)
	}
}

// A proof that hashes to the root, but that no tree has.
func TestHostileProofs(t *testing.T) {
	g := slices.SortedFunc(slices.Values(levelled(testKey, 1, 1100)), func(a, b [24]byte) int { return bytes.Compare(a[:], b[:]) })
	leaf := func(entries ...Entry) []byte {
		var b []byte
		for _, e := range entries {
			b = append(binary.AppendUvarint(b, uint64(len(e.Key))), e.Key...)
			b = append(binary.AppendUvarint(b, uint64(len(e.Value))), e.Value...)
		}
		return b
	}
	at := func(i int, body []byte) Ref { return Ref{First: g[i], Hash: Hash(nodeHash(0, body))} }
	x, y, z := single(g[5], "x"), single(g[7], "y"), single(g[9], "z")
	one := leaf(x, y)
	proof := func(body []byte, path ...[]Ref) (Hash, []byte) {
		root, b := Hash(nodeHash(0, body)), []byte{proofVersion, byte(len(path))}
		for i, c := range path {
			r, enc := encode(len(path)-i, c...)
			if i == 0 {
				root = r.Hash
			}
			b = append(binary.BigEndian.AppendUint16(b, uint16(len(c))), enc[nodeHead:]...)
		}
		return root, append(b, body...)
	}
	under := func(c ...Ref) Ref { r, _ := encode(1, c...); return r }
	many := []Ref{at(5, one)}
	for i := 10; len(many) < 1025; i++ {
		many = append(many, Ref{First: g[i], Hash: Hash{1}})
	}
	for name, c := range map[string]struct {
		body []byte
		path [][]Ref
		want string // in the error; none if the proof is good
	}{
		"alone":           {one, nil, ""},
		"good":            {one, [][]Ref{{at(5, one), at(9, nil)}}, ""},
		"as many as may":  {one, [][]Ref{many[:1024]}, ""},
		"too many":        {one, [][]Ref{many}, "1025 children"},
		"no children":     {one, [][]Ref{{}}, "0 children"},
		"one at the top":  {one, [][]Ref{{at(5, one)}}, "one child"},
		"nodes unordered": {one, [][]Ref{{at(5, one), at(20, nil), at(12, nil)}}, "after"},
		"into the next":   {leaf(x, z), [][]Ref{{at(5, leaf(x, z)), at(9, nil)}}, "another leaf"},
		"before the leaf": {leaf(x, z), [][]Ref{{at(4, nil), at(6, leaf(x, z))}}, "another leaf"},
		"unordered":       {leaf(y, x), nil, "after"},
		"empty leaf":      {nil, [][]Ref{{at(5, nil), at(9, nil)}}, "empty leaf"},
		"node not in place": {one, [][]Ref{
			{Ref{First: g[4], Hash: under(at(5, one), at(8, nil)).Hash}, at(9, nil)},
			{at(5, one), at(8, nil)},
		}, "begins"},
		"node into the next": {one, [][]Ref{
			{under(at(5, one), at(9, nil)), at(8, nil)},
			{at(5, one), at(9, nil)},
		}, "behind"},
		"length too long":    {[]byte{1}, nil, "length"},
		"length in two":      {append([]byte{byte(len(x.Key)) | 0x80, 0}, leaf(x)[1:]...), nil, "length"},
		"length without end": {bytes.Repeat([]byte{0xff}, 12), nil, "length"},
	} {
		top, b := proof(c.body, c.path...)
		key := y.Key
		got, err := Verify(top, key, b)
		switch {
		case c.want == "" && (err != nil || len(got) != 1 || string(got[0].Value) != "y"):
			t.Errorf("%s: %x, %v", name, got, err)
		case c.want != "" && (!errors.Is(err, ErrProof) || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: %v, want an ErrProof with %q", name, err, c.want)
		}
	}

	path := [][]Ref{{at(5, one), at(9, nil)}}
	for len(path) < 17 {
		top, b := proof(one, path...)
		if _, err := Verify(top, y.Key, b); (len(path) > MaxHeight) != errors.Is(err, ErrProof) {
			t.Errorf("height %d: %v", len(path), err)
		}
		path = slices.Insert(path, 0, []Ref{{First: g[5], Hash: top}, at(9+len(path), nil)})
	}
	// Two bytes of proof, 30 of key and lengths, the rest value.
	for size, good := range map[int]bool{MaxProof - 32: true, MaxProof - 31: false} {
		body := leaf(single(g[5], strings.Repeat("x", size)))
		top, b := proof(body)
		if _, err := Verify(top, y.Key, b); good != (err == nil) {
			t.Errorf("%d bytes: %v", len(b), err)
		}
	}
}

func TestProveErrors(t *testing.T) {
	src := newList(synthetic(2000)...)
	tree := mustBuild(t, src)
	key := src.entries[70].Key
	boom := errors.New("disk on fire")
	if _, err := tree.Prove(&list{entries: src.entries, err: boom}, key); !errors.Is(err, boom) {
		t.Errorf("got %v, want the source's error", err)
	}
	src.entries[70].Value = []byte("changed without Touch")
	if _, err := tree.Prove(src, key); !errors.Is(err, ErrStale) {
		t.Errorf("got %v, want ErrStale", err)
	}
	tree.Touch(Prefix(key)) // Prove sees to what was touched
	before := tree.Top().Hash
	proof := mustProve(t, tree, src, key)
	if tree.Top().Hash == before {
		t.Error("Prove did not bring the tree up to date")
	}
	if got, err := Verify(tree.Top().Hash, key, proof); err != nil || len(got) != 1 || string(got[0].Value) != "changed without Touch" {
		t.Errorf("proven %x, %v", got, err)
	}
	huge := newList(single(numbered(1), strings.Repeat("x", MaxProof)))
	if _, err := mustBuild(t, huge).Prove(huge, huge.entries[0].Key); err == nil {
		t.Error("a proof longer than any may be")
	}
}

func TestGoldenProofs(t *testing.T) {
	var b bytes.Buffer
	add := func(name string, entries []Entry, keys ...[]byte) {
		src := newList(entries...)
		tree := mustBuild(t, src)
		for _, key := range keys {
			root, proof := tree.Top().Hash, mustProve(t, tree, src, key)
			got, err := Verify(root, key, proof)
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(&b, "%s: %d entries\nroot %v\nkey %x\nproof %x\n", name, len(got), root, key, proof)
		}
	}
	add("of nothing", nil, []byte("\xffG"))
	add("one group", synthetic(1), synthetic(1)[0].Key, numberedSlice(7))
	add("33 groups", synthetic(33), synthetic(33)[20].Key, numberedSlice(40))
	add("200 groups", synthetic(200), synthetic(200)[0].Key, numberedSlice(300))
	var steep []Entry
	for _, g := range levelled(testKey, 3, 4) {
		steep = append(steep, single(g, "steep"))
	}
	add("4 groups of level 3", steep, steep[2].Key)

	path := filepath.Join("testdata", "proofs.v1")
	if *update {
		if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(b.Bytes(), want) {
		t.Errorf("proofs differ:\n got %s\nwant %s", b.Bytes(), want)
	}
}

func ExampleVerify() {
	src := newList(synthetic(1000)...)
	e := single(numbered(5000), "a new file")
	src.put(e)
	tree, _ := Build([32]byte{1}, src)
	root, _ := tree.Root(src)
	proof, _ := tree.Prove(src, e.Key)

	// Who has the root and nothing else:
	entries, err := Verify(root, e.Key, proof)
	fmt.Printf("%q %v\n", entries[0].Value, err)
	// Output: "a new file" <nil>
}

// appendProof is the inverse of parseProof.
func appendProof(path []children, leaf []byte) []byte {
	b := []byte{proofVersion, byte(len(path))}
	for _, c := range path {
		b = append(binary.BigEndian.AppendUint16(b, uint16(c.len())), c...)
	}
	return append(b, leaf...)
}

func FuzzVerify(f *testing.F) {
	for _, n := range []int{0, 1, 33, 400} {
		src := newList(synthetic(n)...)
		tree := mustBuild(f, src)
		for _, key := range [][]byte{numberedSlice(0), numberedSlice(99), append(numberedSlice(7), 'C')} {
			f.Add(mustProve(f, tree, src, key), key)
		}
	}
	f.Fuzz(func(t *testing.T, b, key []byte) {
		b = bytes.Clone(b)
		path, leaf, err := parseProof(b)
		if err != nil {
			return
		}
		if !bytes.Equal(appendProof(path, leaf), b) {
			t.Fatal("a proof with a second spelling")
		}
		// Make the hashes right, else nothing gets past them.
		root := Hash(nodeHash(0, leaf))
		for i := len(path) - 1; i >= 0; i-- {
			c := path[i]
			at := c.find(Prefix(key))
			copy(c[at*childLen+prefixLen:], root[:])
			root = Hash(nodeHash(len(path)-i, c))
		}
		got, err := Verify(root, key, b)
		if err != nil && !errors.Is(err, ErrProof) {
			t.Fatal(err)
		}
		for _, e := range got {
			if !bytes.Equal(e.Key, key) || !bytes.Contains(leaf, e.Value) {
				t.Fatalf("proven %x", e)
			}
		}
	})
}
