package replica

import (
	"slices"
	"testing"

	"github.com/roamfs/roamfs/sync/tree"
)

// TestDownwards: a directory comes after the one that it is in, however deep, and what
// is below itself ends the search.
func TestDownwards(t *testing.T) {
	place := func(ino, parent tree.Ino) joinedKey {
		l := tree.Link{Parent: parent, Name: "x", Rank: 1, Dir: true}
		return joinedKey{put: []tree.Record{{Key: tree.LinkKey(ino, tree.LinkID{}), Dot: tree.Dot{Ctr: 1}, Value: l.Encode()}}}
	}
	const deep = 100_000
	ino := func(n int) tree.Ino { return tree.Ino{1, byte(n >> 16), byte(n >> 8), byte(n)} }
	var all []joinedKey
	for n := deep; n > 0; n-- {
		all = append(all, place(ino(n), ino(n-1)))
	}
	one, other := tree.Ino{2}, tree.Ino{3}
	all = append(all, place(one, other), place(other, one))
	at := map[tree.Ino]int{}
	for i, d := range downwards(slices.Clone(all)) {
		at[d.put[0].Key.Ino()] = i
	}
	if len(at) != len(all) {
		t.Fatalf("%d directories of %d", len(at), len(all))
	}
	for n := 2; n <= deep; n++ {
		if at[ino(n)] < at[ino(n-1)] {
			t.Fatalf("directory %d comes before the one that it is in", n)
		}
	}
}
