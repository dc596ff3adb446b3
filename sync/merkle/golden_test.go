package merkle

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func TestGolden(t *testing.T) {
	var b bytes.Buffer
	for _, n := range []int{0, 1, 33, 1000} {
		src := newList(synthetic(n)...)
		fmt.Fprintf(&b, "%d groups %v\n", n, root(t, mustBuild(t, src), src))
	}
	src := newList()
	for _, g := range levelled(testKey, 3, 4) {
		src.put(single(g, "steep"))
	}
	fmt.Fprintf(&b, "4 groups of level 3 %v\n", root(t, mustBuild(t, src), src))
	src = newList()
	for _, g := range levelled(testKey, 0, 2500) {
		src.put(single(g, "flat"))
	}
	tree := mustBuild(t, src)
	fmt.Fprintf(&b, "2500 groups of level 0 %v\n", root(t, tree, src))
	tree.Touch(numbered(1))
	saved, err := tree.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(&b, "saved %x\n", saved)

	path := filepath.Join("testdata", "roots.v1")
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
		t.Errorf("roots differ:\n got %s\nwant %s", b.Bytes(), want)
	}
}

func FuzzLoad(f *testing.F) {
	for _, n := range []int{0, 1, 200} {
		src := newList(synthetic(n)...)
		tree := mustBuild(f, src)
		for _, touch := range []bool{false, true} {
			if touch {
				tree.Touch(numbered(1))
			}
			b, err := tree.MarshalBinary()
			if err != nil {
				f.Fatal(err)
			}
			f.Add(b[:len(b)-savedCheck])
		}
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		b := append(bytes.Clone(body), sumSaved(body)...) // else nothing gets past the check
		tree, err := Load(testKey, b)
		if err != nil {
			return
		}
		again, err := tree.MarshalBinary()
		if err != nil || !bytes.Equal(again, b) {
			t.Fatalf("a saved tree with a second spelling: %v", err)
		}
		_, _ = tree.Root(newList(synthetic(20)...)) // must not panic, whatever the leaves were
	})
}
