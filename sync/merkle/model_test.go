package merkle

import (
	"testing"

	"pgregory.net/rapid"
)

// Whatever happens to the entries, in whatever batches, and through saves and
// loads: the tree equals the one built from the sorted list and the reference.
// Small limits make every rule of the format take part.
func TestModel(t *testing.T) {
	pool := groupsOfAllLevels()
	rapid.Check(t, func(t *rapid.T) {
		lim := rapid.SampledFrom([]limits{standard, {groups: 3, bytes: 300, children: 2}, {groups: 5, bytes: 40, children: 3}}).Draw(t, "limits")
		src := newList()
		tree, err := build(testKey, src, lim)
		if err != nil {
			t.Fatal(err)
		}
		group := rapid.SampledFrom(pool)
		put := func(t *rapid.T) {
			p := group.Draw(t, "group")
			e := Entry{Value: []byte(rapid.StringN(0, 3, 30).Draw(t, "value"))}
			if p[0] == 0xff { // a setting
				e.Key = append(bound(p), rapid.SampledFrom([]string{"", "\x00"}).Draw(t, "sub")...)
			} else {
				e.Key = append(p[:], rapid.SampledFrom([]string{"C", "L"}).Draw(t, "type")...)
			}
			src.put(e)
			tree.Touch(Prefix(e.Key))
		}
		drop := func(t *rapid.T) {
			p := group.Draw(t, "group")
			src.drop(p)
			tree.Touch(p)
		}
		check := func(t *rapid.T) {
			got, err := tree.Root(src)
			if err != nil {
				t.Fatal(err)
			}
			fresh, err := build(testKey, src, lim)
			if err != nil {
				t.Fatal(err)
			}
			if want, err := fresh.Root(src); err != nil || got != want {
				t.Fatalf("root %v, built %v (%v)", got, want, err)
			}
			if want := naiveRoot(testKey, src.entries, lim); got != want {
				t.Fatalf("root %v, reference %v", got, want)
			}
			checkShape(t, tree, src.entries, lim)
		}
		t.Repeat(map[string]func(*rapid.T){
			"put":  put,
			"put2": put,
			"drop": drop,
			"many": func(t *rapid.T) {
				for range rapid.IntRange(1, 40).Draw(t, "n") {
					put(t)
				}
			},
			"purge": func(t *rapid.T) {
				for range rapid.IntRange(1, 40).Draw(t, "n") {
					drop(t)
				}
			},
			"touch": func(t *rapid.T) { tree.Touch(group.Draw(t, "group")) },
			"root":  check,
			"save": func(t *rapid.T) {
				b, err := tree.MarshalBinary()
				if err != nil {
					t.Fatal(err)
				}
				if tree, err = load(testKey, b, lim); err != nil {
					t.Fatal(err)
				}
			},
		})
		check(t)
	})
}
