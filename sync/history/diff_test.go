package history

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/roamfs/roamfs/sync/block"
	"github.com/roamfs/roamfs/sync/tree"
)

// TestReplaced: files that were changed, removed, or replaced by something else
// are told of, each once; what did not change is not read.
func TestReplaced(t *testing.T) {
	keys, store := testKeys(t), blocks{}
	file := func(n byte) tree.Node {
		return tree.Node{Kind: tree.File, Size: int64(n), Ref: tree.Ref{Cutter: 1, ID: block.ID{n}}}
	}
	render := func(f *fake) Object {
		o, err := Render(context.Background(), f, keys, store.put)
		if err != nil {
			t.Fatal(err)
		}
		return o
	}
	f := newFake()
	f.add(tree.Root, "changed", file(1))
	f.add(tree.Root, "removed", file(2))
	f.add(tree.Root, "same", file(3))
	f.add(tree.Root, "touched", file(4))
	gone := f.add(tree.Root, "gone", tree.Node{Kind: tree.Dir})
	f.add(gone, "in", file(5))
	still := f.add(tree.Root, "still", tree.Node{Kind: tree.Dir})
	f.add(still, "in", file(6))
	f.add(still, "now a directory", file(7))
	quiet := f.add(tree.Root, "quiet", tree.Node{Kind: tree.Dir})
	f.add(quiet, "in", file(8))
	old := render(f)

	f.add(tree.Root, "changed", file(11))
	delete(f.names[tree.Root], "removed")
	delete(f.names[tree.Root], "gone")
	touched := f.nodes[f.names[tree.Root]["touched"]]
	touched.MTime++
	f.nodes[touched.Ino] = touched
	f.add(still, "now a directory", tree.Node{Kind: tree.Dir})
	f.add(tree.Root, "new", file(12))
	now := render(f)

	var got []string
	note := func(e Entry) { got = append(got, e.Name) }
	reads := 0
	Replaced(old, now, func(o Object) ([]Entry, error) { reads++; return Read(o, keys, store.get) }, note)
	slices.Sort(got)
	if s := strings.Join(got, ", "); s != "changed, in, now a directory, removed" {
		t.Errorf("told of %s", s)
	}
	if reads != 5 { // both roots, both of "still", "gone"
		t.Errorf("%d directories were read", reads)
	}
	got = nil
	Replaced(old, now, func(Object) ([]Entry, error) { return nil, errors.New("far") }, note)
	Replaced(old, old, func(o Object) ([]Entry, error) { return Read(o, keys, store.get) }, note)
	if len(got) > 0 {
		t.Errorf("told of %v", got)
	}
}
