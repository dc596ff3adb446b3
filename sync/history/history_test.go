package history

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/roamfs/roamfs/sync/block"
	"github.com/roamfs/roamfs/sync/tree"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// golden compares b with the file, in hexadecimal.
func golden(t *testing.T, name string, b []byte) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, []byte(hex.EncodeToString(b)+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got := hex.EncodeToString(b); got != strings.TrimSpace(string(want)) {
		t.Errorf("%s: got %s", name, got)
	}
}

func sample() []Entry {
	ref := tree.Ref{Depth: 1, Cutter: 2, ID: block.ID{1, 2, 3}}
	return []Entry{
		{Name: "a\xff", Kind: tree.File, Mode: 0o644, MTime: -1, Size: 1 << 40, Ref: ref, Author: tree.Actor{9}, Ino: tree.Ino{1, 2}},
		{Name: "b", Kind: tree.Dir, Mode: 0o1777, MTime: 1 << 60, Size: 77, Ref: tree.Ref{Cutter: 1, ID: block.ID{4}}, Ino: tree.Ino{3}},
		{Name: "empty", Kind: tree.File},
		{Name: "fifo", Kind: tree.Fifo, Mode: 0o600},
		{Name: "hole", Kind: tree.File, Size: 1 << 30},
		{Name: "inline", Kind: tree.File, Size: 2, Inline: []byte("hi"), Xattrs: map[string][]byte{"user.b": nil, "user.a": []byte("x")}},
		{Name: "link", Kind: tree.Symlink, Mode: 0o777, Size: 6, Inline: []byte("../a/b")},
	}
}

func snap() Snapshot {
	at := time.Date(2026, 3, 1, 12, 30, 5, 6, time.UTC)
	return Snapshot{
		Key: Key(at, tree.Actor{0xab, 0xcd}), Reason: Asked, Time: at, Name: "before the move",
		Root: Object{tree.Ref{Depth: 2, Cutter: 2, ID: block.ID{7}}, 12345},
	}
}

func TestFormats(t *testing.T) {
	b, err := Encode(sample())
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "directory.golden", b)
	back, err := Decode(b)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := Encode(back); err != nil || !bytes.Equal(again, b) || len(back) != len(sample()) {
		t.Errorf("read back as %v, %v", back, err)
	}
	s := snap()
	if s.Key != "snap/2026-03-01T12:30:05Z/abcd0000" || len(s.Key) < tree.MinSetting {
		t.Errorf("key %s", s.Key)
	}
	if got := s.Title(); got != "2026-03-01T123005Z-before the move" {
		t.Errorf("title %s", got)
	}
	golden(t, "snapshot.golden", s.Encode())
	if got, err := DecodeSnapshot(s.Key, s.Encode()); err != nil || got != s {
		t.Errorf("read back as %v, %v", got, err)
	}
}

func TestEncodeRefuses(t *testing.T) {
	for what, entries := range map[string][]Entry{
		"names out of order":      {{Name: "b", Kind: tree.File}, {Name: "a", Kind: tree.File}},
		"a name twice":            {{Name: "a", Kind: tree.File}, {Name: "a", Kind: tree.File}},
		"a name with a slash":     {{Name: "a/b", Kind: tree.File}},
		"dot-dot":                 {{Name: "..", Kind: tree.File}},
		"no kind":                 {{Name: "a"}},
		"a directory of no block": {{Name: "a", Kind: tree.Dir}},
		"a symlink of nothing":    {{Name: "a", Kind: tree.Symlink}},
		"a size that is not so":   {{Name: "a", Kind: tree.File, Size: 3, Inline: []byte("x")}},
	} {
		if _, err := Encode(entries); !errors.Is(err, ErrObject) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	b, err := Encode(sample())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte{1})
	empty, err := Encode([]Entry{{Name: "e", Kind: tree.File}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(slices.Concat(empty[:14], []byte{formInline, 0}, empty[15:])) // another spelling of it
	f.Fuzz(func(t *testing.T, b []byte) {
		entries, err := Decode(b)
		if err != nil {
			return
		}
		if again, err := Encode(entries); err != nil || !bytes.Equal(again, b) {
			t.Errorf("%x is read and written as %x, %v", b, again, err)
		}
	})
}

func FuzzDecodeSnapshot(f *testing.F) {
	s := snap()
	f.Add(s.Encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := DecodeSnapshot("k", b); err == nil && !bytes.Equal(s.Encode(), b) {
			t.Errorf("%x is read and written as %x", b, s.Encode())
		}
	})
}

func testKeys(tb testing.TB) *block.Keys {
	tb.Helper()
	keys, err := block.NewKeys(1, map[uint32]block.Secret{1: {1}})
	if err != nil {
		tb.Fatal(err)
	}
	return keys
}

// blocks is a store of sealed blocks in memory.
type blocks map[block.ID][]byte

func (s blocks) put(id block.ID, sealed []byte) error { s[id] = slices.Clone(sealed); return nil }

func (s blocks) get(id block.ID) ([]byte, error) {
	if b := s[id]; b != nil {
		return b, nil
	}
	return nil, block.ErrNoReplica
}

// fake is a tree in memory.
type fake struct {
	nodes map[tree.Ino]tree.Node
	names map[tree.Ino]map[string]tree.Ino
}

func newFake() *fake {
	return &fake{map[tree.Ino]tree.Node{tree.Root: {Kind: tree.Dir}}, map[tree.Ino]map[string]tree.Ino{}}
}

func (f *fake) add(dir tree.Ino, name string, n tree.Node) tree.Ino {
	i := len(f.nodes)
	n.Ino = tree.Ino{1, byte(i >> 16), byte(i >> 8), byte(i)}
	f.nodes[n.Ino] = n
	if f.names[dir] == nil {
		f.names[dir] = map[string]tree.Ino{}
	}
	f.names[dir][name] = n.Ino
	return n.Ino
}

func (f *fake) Node(ino tree.Ino) (tree.Node, error) {
	if n, ok := f.nodes[ino]; ok {
		return n, nil
	}
	return tree.Node{}, fs.ErrNotExist
}

func (f *fake) ListNodes(dir tree.Ino, _ int) (out []tree.Entry, nodes []tree.Node, _ uint64, err error) {
	for _, name := range slices.Sorted(maps.Keys(f.names[dir])) {
		ino := f.names[dir][name]
		out, nodes = append(out, tree.Entry{Name: name, Ino: ino, Parent: dir}), append(nodes, f.nodes[ino])
	}
	if len(out)%2 == 1 {
		nodes = nil // as if they were too many
	}
	return out, nodes, 0, nil
}

// large makes a tree of n files, 100 to a directory.
func large(n int) (f *fake, some tree.Ino) {
	f = newFake()
	for i := range n {
		if i%100 == 0 {
			some = f.add(tree.Root, fmt.Sprintf("directory %06d", i), tree.Node{Kind: tree.Dir, Mode: 0o755})
		}
		f.add(some, fmt.Sprintf("file %06d.txt", i), tree.Node{Kind: tree.File, Mode: 0o644, Size: int64(i) + 100, MTime: int64(i) * 1e9, Ref: tree.Ref{Cutter: 1, ID: block.Sum(fmt.Append(nil, i))}})
	}
	return f, some
}

// TestRender: the tree comes back as it was; the same tree makes the same
// blocks, and of one that changed a little nearly all are shared.
func TestRender(t *testing.T) {
	keys, store := testKeys(t), blocks{}
	f, some := large(20_000)
	flat := f.add(tree.Root, "flat", tree.Node{Kind: tree.Dir})
	for i := range 20_000 { // an object of more than one piece
		f.add(flat, fmt.Sprintf("%05d", i), tree.Node{Kind: tree.File, Size: 5, Inline: []byte("hello")})
	}
	o, err := Render(context.Background(), f, keys, store.put)
	if err != nil {
		t.Fatal(err)
	}
	root, err := Read(o, keys, store.get)
	if err != nil || len(root) != 201 {
		t.Fatalf("%d entries, %v", len(root), err)
	}
	i, _ := slices.BinarySearchFunc(root, "flat", func(e Entry, n string) int { return strings.Compare(e.Name, n) })
	all, err := Read(root[i].Object(), keys, store.get)
	if err != nil || len(all) != 20_000 || all[12345].Name != "12345" || string(all[12345].Inline) != "hello" {
		t.Fatalf("%d entries, %v", len(all), err)
	}
	if root[i].Ref.Depth == 0 {
		t.Error("the large directory is one piece")
	}
	was := len(store)
	again := blocks{}
	if p, err := Render(context.Background(), f, keys, again.put); err != nil || p != o || len(again) != was {
		t.Errorf("rendered again it is %v, not %v", p, o)
	}
	f.add(some, "new", tree.Node{Kind: tree.File})
	f.add(flat, "10000a", tree.Node{Kind: tree.File})
	if _, err := Render(context.Background(), f, keys, store.put); err != nil {
		t.Fatal(err)
	}
	if n := len(store) - was; n > 6 { // two directories, in one of them a piece or two and the list, and the root
		t.Errorf("%d blocks are new", n)
	}
	delete(store, o.ID)
	if _, err := Read(o, keys, store.get); !errors.Is(err, block.ErrNoReplica) {
		t.Errorf("without its block: %v", err)
	}
}

func BenchmarkRender(b *testing.B) {
	keys := testKeys(b)
	f, _ := large(100_000)
	bytes := 0
	for b.Loop() {
		bytes = 0
		if _, err := Render(context.Background(), f, keys, func(_ block.ID, sealed []byte) error { bytes += len(sealed); return nil }); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(bytes), "sealed-bytes")
}
