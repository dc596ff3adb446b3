package copies

import (
	"maps"
	"math/rand/v2"
	"testing"

	"github.com/roamfs/roamfs/sync/block"
	"github.com/roamfs/roamfs/sync/tree"
)

// TestAccountIsAMap: an account is a map from inode to what is known, and counts lists.
func TestAccountIsAMap(t *testing.T) {
	type known struct {
		suspect
		list byte // 0: none
	}
	lists := func(b byte) []block.ID {
		if b == 0 {
			return nil
		}
		return []block.ID{{b}, {9}}
	}
	for seed := range uint64(200) {
		rnd := rand.New(rand.NewPCG(seed, 0))
		a, model := newAccount(7), map[tree.Ino]known{}
		pick := func(gen uint64) (only, known) {
			o := only{bytes: rnd.Int64N(5), blocks: rnd.IntN(2) == 0}
			b := byte(rnd.IntN(3))
			o.lists = lists(b)
			return o, known{suspect{bytes: o.bytes, gen: gen, blocks: o.blocks}, b}
		}
		for i := range byte(rnd.IntN(8)) {
			for range 1 + rnd.IntN(2) {
				o, k := pick(7)
				a.add(tree.Ino{i}, o)
				model[tree.Ino{i}] = k
			}
		}
		for range 20 {
			ino := tree.Ino{byte(rnd.IntN(10))}
			if rnd.IntN(3) == 0 {
				a.drop(ino)
				delete(model, ino)
			} else {
				o, k := pick(8)
				a.set(ino, 8, o)
				model[ino] = k
			}
			got, want, count := map[tree.Ino]suspect{}, map[tree.Ino]suspect{}, map[block.ID]int{}
			for ino, k := range model {
				want[ino] = k.suspect
				if s, ok := a.get(ino); !ok || s != k.suspect {
					t.Fatalf("seed %d: %v is %+v, %v; want %+v", seed, ino, s, ok, k.suspect)
				}
				for _, id := range lists(k.list) {
					count[id]++
				}
			}
			for ino, s := range a.all {
				got[ino] = s
			}
			if !maps.Equal(got, want) || a.size() < len(want) {
				t.Fatalf("seed %d: %v, %d at most; want %v", seed, got, a.size(), want)
			}
			if !maps.Equal(a.lists, count) {
				t.Fatalf("seed %d: lists %v, want %v", seed, a.lists, count)
			}
			if _, ok := a.get(tree.Ino{77}); ok {
				t.Fatal("an inode that was never entered is there")
			}
		}
	}
}
