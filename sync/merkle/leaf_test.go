package merkle

import (
	"errors"
	"testing"
)

// TestLeaf: the range of a leaf has the entries that hash to it, whichever of its
// groups is named.
func TestLeaf(t *testing.T) {
	src := newList(synthetic(1000)...)
	tree, h := mustBuild(t, src), NewLeafHasher()
	n := 0
	err := mustBuild(t, newList()).Diff(tree.Top(), func(refs []Ref) ([][]byte, error) {
		out := make([][]byte, len(refs))
		for i, r := range refs {
			var err error
			if out[i], err = tree.Node(r); err != nil {
				return nil, err
			}
		}
		return out, nil
	}, func(g Range) error {
		n++
		from, to, err := tree.Leaf(Ref{First: Prefix(g.From), Hash: g.Leaf})
		if err != nil {
			return err
		}
		if string(from) != string(g.From) || string(to) != string(g.To) {
			t.Errorf("leaf from %x to %x, want %x and %x", from, to, g.From, g.To)
		}
		var last [24]byte
		if err := src.Scan(from, to, func(e Entry) error { h.Add(e); last = Prefix(e.Key); return nil }); err != nil {
			return err
		}
		if h.Sum() != g.Leaf {
			t.Errorf("the range from %x has other entries", from)
		}
		if again, _, err := tree.Leaf(Ref{First: last, Hash: g.Leaf}); err != nil || string(again) != string(from) {
			t.Errorf("by its last group: %x, %v", again, err)
		}
		for _, r := range []Ref{{First: last}, {Height: 1, First: last, Hash: g.Leaf}} {
			if _, _, err := tree.Leaf(r); !errors.Is(err, ErrGone) {
				t.Errorf("%v: %v", r, err)
			}
		}
		return nil
	})
	if err != nil || n < 10 {
		t.Fatalf("%d leaves, %v", n, err)
	}
	if _, _, err := mustBuild(t, newList()).Leaf(Ref{}); !errors.Is(err, ErrGone) {
		t.Errorf("leaf of nothing: %v", err)
	}
}
