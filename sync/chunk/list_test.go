package chunk_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/roamfs/roamfs/sync/block"
	"github.com/roamfs/roamfs/sync/chunk"
)

// store holds list blocks, by the hash of their content.
type store map[block.ID][]byte

func (s store) put(plain []byte) (block.ID, error) {
	if len(plain) > chunk.MaxList {
		return block.ID{}, fmt.Errorf("list block of %d bytes", len(plain))
	}
	id := block.Sum(plain)
	s[id] = slices.Clone(plain)
	return id, nil
}

var errAbsent = errors.New("absent")

func (s store) get(id block.ID) ([]byte, error) {
	if plain, ok := s[id]; ok {
		return plain, nil
	}
	return nil, errAbsent
}

func (s store) build(tb testing.TB, l chunk.List) (uint8, block.ID) {
	tb.Helper()
	depth, id, err := chunk.Build(l, s.put)
	if err != nil {
		tb.Fatal(err)
	}
	return depth, id
}

// pieceID is the ID of the i-th data block of the tests.
func pieceID(i int) block.ID { return block.Sum(binary.BigEndian.AppendUint64(nil, uint64(i))) }

func piece(i int, n int64) chunk.Extent { return chunk.Extent{Len: n, ID: pieceID(i)} }

func hole(n int64) chunk.Extent { return chunk.Extent{Len: n, Hole: true} }

// pieces returns a list of n pieces of different lengths.
func pieces(n int) chunk.List {
	l := make(chunk.List, n)
	for i := range l {
		l[i] = piece(i, 64<<10+int64(i%1000))
	}
	return l
}

func TestBuildAndLoad(t *testing.T) {
	const gb = 1e9
	for _, c := range []struct {
		name  string
		list  chunk.List
		depth uint8
		lists int // list blocks
	}{
		{"empty", nil, 0, 0},
		{"one piece", pieces(1), 0, 0},
		{"one hole", chunk.List{hole(5 * gb)}, 0, 0},
		{"two pieces", pieces(2), 1, 1},
		{"a hole of 5 GB and a piece", chunk.List{hole(5 * gb), piece(0, 1)}, 1, 1},
		{"holes between", chunk.List{piece(0, 4096), hole(5 * gb), piece(1, 100), hole(1), piece(2, block.MaxPlain)}, 1, 1},
		{"the same piece twice", chunk.List{piece(0, 1), piece(0, 1)}, 1, 1},
		{"as large as can be", chunk.List{hole(math.MaxInt64 - 1), piece(0, 1)}, 1, 1},
		{"the most in one group", pieces(1024), 1, 1},
		{"too many for one group", pieces(3000), 2, 0},
		{"100,000 pieces", pieces(100_000), 2, 0},
		{"100,000 pieces with holes between", alternating(100_000), 2, 0},
		{"pieces of which none ends a group", unending(9000), 2, 4},
		{"too many for one group, of which none ends it", unending(4000), 1, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := store{}
			depth, id := s.build(t, c.list)
			if depth != c.depth {
				t.Errorf("depth %d, want %d", depth, c.depth)
			}
			if c.lists > 0 && len(s) != c.lists {
				t.Errorf("%d list blocks, want %d", len(s), c.lists)
			}
			got, err := chunk.Load(depth, id, c.list.Size(), s.get)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(got, c.list) {
				t.Errorf("loaded %d extents, not the %d that were built", len(got), len(c.list))
			}
			checkBlocks(t, s, depth, id, c.list)
		})
	}
}

// alternating returns a list of n extents of which every second is a hole.
func alternating(n int) chunk.List {
	l := pieces(n)
	for i := 1; i < n; i += 2 {
		l[i] = hole(int64(i))
	}
	return l
}

// unending returns n pieces none of which ends a group by its ID.
func unending(n int) chunk.List {
	l := pieces(n)
	for i := range l {
		l[i].ID[0] |= 1
		l[i].ID[1] |= 1
	}
	return l
}

// checkBlocks checks that Blocks reports every list block once and every piece.
func checkBlocks(t *testing.T, s store, depth uint8, id block.ID, l chunk.List) {
	t.Helper()
	var data []block.ID
	lists := map[block.ID]int{}
	err := chunk.Blocks(depth, id, l.Size(), s.get, func(id block.ID, typ block.Type) error {
		if typ == block.List {
			lists[id]++
		} else {
			data = append(data, id)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	var want []block.ID
	for _, e := range l {
		if !e.Hole {
			want = append(want, e.ID)
		}
	}
	if !slices.Equal(data, want) {
		t.Errorf("%d data blocks, want %d", len(data), len(want))
	}
	for id := range s {
		if lists[id] != 1 {
			t.Errorf("list block %v reported %d times", id, lists[id])
		}
	}
	if len(lists) != len(s) {
		t.Errorf("%d list blocks reported of %d", len(lists), len(s))
	}
}

func TestBuildMergesHoles(t *testing.T) {
	l := chunk.List{hole(1), hole(2), piece(0, 5), hole(3), hole(4), hole(5)}
	kept := slices.Clone(l)
	s := store{}
	depth, id := s.build(t, l)
	got, err := chunk.Load(depth, id, 20, s.get)
	if want := (chunk.List{hole(3), piece(0, 5), hole(12)}); err != nil || !slices.Equal(got, want) {
		t.Errorf("loaded %v, %v, want %v", got, err, want)
	}
	if !slices.Equal(l, kept) {
		t.Error("Build changed its argument")
	}
	if depth, id := s.build(t, chunk.List{hole(1), hole(2)}); depth != 0 || !id.IsZero() {
		t.Errorf("holes only: depth %d, block %v", depth, id)
	}
}

// An edit in a long list stores little anew.
func TestEditOfLongListStoresLittle(t *testing.T) {
	before := pieces(100_000)
	for _, c := range []struct {
		name  string
		after chunk.List
	}{
		{"a piece replaced", slices.Replace(slices.Clone(before), 50_000, 50_001, piece(-1, 70_000))},
		{"a piece inserted", slices.Insert(slices.Clone(before), 50_000, piece(-1, 70_000))},
		{"a piece removed", slices.Delete(slices.Clone(before), 50_000, 50_001)},
		{"a piece appended", append(slices.Clone(before), piece(-1, 70_000))},
	} {
		s := store{}
		s.build(t, before)
		anew := 0
		_, _, err := chunk.Build(c.after, func(plain []byte) (block.ID, error) {
			if _, ok := s[block.Sum(plain)]; !ok {
				anew += len(plain)
			}
			return block.Sum(plain), nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if anew > 128<<10 {
			t.Errorf("%s: %d bytes of list blocks anew", c.name, anew)
		}
	}
}

// drawList draws a list that Build stores as it is.
func drawList(t *rapid.T) chunk.List {
	n := rapid.OneOf(rapid.IntRange(0, 40), rapid.IntRange(1000, 6000)).Draw(t, "extents")
	holes := rapid.IntRange(0, 3).Draw(t, "holes in 4")
	ending := rapid.Bool().Draw(t, "many that end groups")
	seed := rapid.Uint64().Draw(t, "seed")
	var l chunk.List
	for i := range n {
		h := block.Sum(binary.BigEndian.AppendUint64(nil, seed+uint64(i)))
		length := 1 + int64(binary.BigEndian.Uint32(h[4:])%block.MaxPlain)
		if int(h[8]%4) < holes && (len(l) == 0 || !l[len(l)-1].Hole) {
			l = append(l, hole(length<<(h[9]%20)))
			continue
		}
		if ending && h[10]%16 == 0 {
			h[0], h[1] = 2, 0
		}
		l = append(l, chunk.Extent{Len: length, ID: h})
	}
	return l
}

func TestListsRandomly(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := drawList(t)
		s := store{}
		depth, id, err := chunk.Build(l, s.put)
		if err != nil {
			t.Fatal(err)
		}
		size := l.Size()
		got, err := chunk.Load(depth, id, size, s.get)
		if err != nil || !slices.Equal(got, l) {
			t.Fatalf("loaded %d extents of %d: %v", len(got), len(l), err)
		}
		for _, wrong := range []int64{size - 1, size + 1, -1} {
			if depth > 0 || wrong < 0 {
				if _, err := chunk.Load(depth, id, wrong, s.get); !errors.Is(err, chunk.ErrList) {
					t.Fatalf("loaded as %d bytes of %d: %v", wrong, size, err)
				}
			}
		}
		from := rapid.Int64Range(-1, size+1).Draw(t, "from")
		to := rapid.Int64Range(-1, size+1).Draw(t, "to")
		checkWalk(t, s, depth, id, l, from, to)
	})
}

// checkWalk compares Walk with a walk over the list itself.
func checkWalk(t *rapid.T, s store, depth uint8, id block.ID, l chunk.List, from, to int64) {
	type found struct {
		off int64
		e   chunk.Extent
	}
	var got, want []found
	fetched := 0
	err := chunk.Walk(depth, id, l.Size(), from, to, func(id block.ID) ([]byte, error) {
		fetched++
		return s.get(id)
	}, func(off int64, e chunk.Extent) error {
		got = append(got, found{off, e})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	var off int64
	for _, e := range l {
		if off < to && off+e.Len > from && from < to {
			want = append(want, found{off, e})
		}
		off += e.Len
	}
	if !slices.Equal(got, want) {
		t.Fatalf("walk from %d to %d of %d: %d extents, want %d", from, to, l.Size(), len(got), len(want))
	}
	if len(want) <= 1 && fetched > 3 {
		t.Fatalf("%d list blocks fetched for %d extents", fetched, len(want))
	}
}

func TestErrorsPassThrough(t *testing.T) {
	l := pieces(3000)
	s := store{}
	depth, id := s.build(t, l)
	boom := errors.New("boom")
	calls := 0
	if _, _, err := chunk.Build(l, func([]byte) (block.ID, error) { calls++; return block.ID{}, boom }); !errors.Is(err, boom) || calls != 1 {
		t.Errorf("Build: %v after %d calls, want the error of put after 1", err, calls)
	}
	if _, err := chunk.Load(depth, id, l.Size(), store{}.get); !errors.Is(err, errAbsent) {
		t.Errorf("Load: %v, want the error of get", err)
	}
	calls = 0
	err := chunk.Walk(depth, id, l.Size(), 0, l.Size(), s.get, func(int64, chunk.Extent) error { calls++; return boom })
	if !errors.Is(err, boom) || calls != 1 {
		t.Errorf("Walk: %v after %d calls, want the error of fn after 1", err, calls)
	}
	for _, stop := range []block.Type{block.List, block.Data} {
		err = chunk.Blocks(depth, id, l.Size(), s.get, func(_ block.ID, typ block.Type) error {
			if typ == stop {
				return boom
			}
			return nil
		})
		if !errors.Is(err, boom) {
			t.Errorf("Blocks: %v, want the error of fn for a %v block", err, stop)
		}
	}
}

func TestBuildRefuses(t *testing.T) {
	for _, c := range []struct {
		name string
		list chunk.List
	}{
		{"an empty piece", chunk.List{piece(0, 1), piece(1, 0)}},
		{"a negative hole", chunk.List{hole(-1)}},
		{"a piece that no block holds", chunk.List{piece(0, block.MaxPlain+1)}},
		{"a piece without a block", chunk.List{{Len: 1}}},
		{"a hole with a block", chunk.List{{Len: 1, Hole: true, ID: pieceID(1)}}},
		{"more than 2^63-1 bytes", chunk.List{hole(math.MaxInt64), piece(0, 1)}},
	} {
		if _, _, err := chunk.Build(c.list, store{}.put); !errors.Is(err, chunk.ErrList) {
			t.Errorf("%s: %v, want ErrList", c.name, err)
		}
	}
}
