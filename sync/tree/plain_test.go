package tree

import "testing"

func TestPlainName(t *testing.T) {
	free := func(string) (bool, error) { return true, nil }
	for _, name := range []string{"f", "f.txt", ".f", "a b.tar.gz", "f (1).txt", "f (conflict x) y.txt"} {
		for _, dir := range []bool{false, true} {
			made, err := conflictName(name, origin{label: "nas", wall: 1, id: [32]byte{0xab, 0xcd, 0xef}, dir: dir}, free)
			if err != nil {
				t.Fatal(err)
			}
			plain, from, _, ok := PlainName(made)
			if !ok || plain != name || from != "nas 1970-01-01 abcdef" {
				t.Errorf("%q: %q, %q, %v", made, plain, from, ok)
			}
		}
	}
	for _, name := range []string{"", "f", "f (conflict ", "f (conflict nas", "f (conflict )", " (conflict nas)", "f (conflict nas)x"} {
		if plain, _, _, ok := PlainName(name); ok {
			t.Errorf("%q: %q", name, plain)
		}
	}
}
