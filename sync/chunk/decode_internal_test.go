package chunk

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"slices"
	"testing"

	"github.com/roamfs/roamfs/sync/block"
)

// entries returns n entries of different blocks, none of which ends a group.
func entries(n int) []Extent {
	l := make([]Extent, n)
	for i := range l {
		l[i] = Extent{Len: int64(i + 1), ID: block.ID{1, 1}}
		binary.BigEndian.PutUint32(l[i].ID[2:], uint32(i))
	}
	return l
}

// ending returns e with an ID that ends a group.
func ending(e Extent) Extent {
	e.ID[0], e.ID[1] = 2, 0
	return e
}

// raw appends list blocks as they are, with a count of their own.
func raw(ver, depth byte, count uint16, entries ...[]byte) []byte {
	b := []byte{ver, depth, byte(count >> 8), byte(count)}
	return append(b, slices.Concat(entries...)...)
}

func TestChildrenRefuses(t *testing.T) {
	id := bytes.Repeat([]byte{7}, 32)
	one := append([]byte{2}, id...) // a piece of one byte
	gap := []byte{3}                // a hole of one byte
	long := entries(2000)
	long[500] = ending(long[500])
	huge := Extent{Len: math.MaxInt64, ID: block.ID{7}}
	for _, c := range []struct {
		name  string
		depth uint8
		plain []byte
	}{
		{"nothing", 1, nil},
		{"a header cut short", 1, []byte{1, 1, 0}},
		{"a later version", 1, raw(2, 1, 1, one)},
		{"of another depth", 1, raw(1, 2, 1, one)},
		{"of depth 0", 0, raw(1, 0, 1, one)},
		{"of depth 4", 4, raw(1, 4, 1, one)},
		{"no entry", 1, raw(1, 1, 0)},
		{"more entries than may be", 1, raw(1, 1, MaxEntries+1, bytes.Repeat(one, MaxEntries+1))},
		{"65535 entries claimed in a few bytes", 1, raw(1, 1, 65535, one)},
		{"fewer entries than claimed", 1, raw(1, 1, 2, one)},
		{"more entries than claimed", 1, raw(1, 1, 1, one, one)},
		{"an ID cut short", 1, raw(1, 1, 1, one[:32])},
		{"a length cut short", 1, raw(1, 1, 1, []byte{0x80})},
		{"a length with a second spelling", 1, raw(1, 1, 1, []byte{0x82, 0x00}, id)},
		{"a length of more than 64 bits", 1, raw(1, 1, 1, bytes.Repeat([]byte{0xff}, 10), id)},
		{"no bytes", 1, raw(1, 1, 1, []byte{0}, id)},
		{"a hole of no bytes", 1, raw(1, 1, 1, []byte{1})},
		{"a zero ID", 1, raw(1, 1, 1, []byte{2}, make([]byte, 32))},
		{"a piece larger than a block", 1, appendList(nil, 1, []Extent{{Len: block.MaxPlain + 1, ID: block.ID{7}}})},
		{"a hole among list blocks", 2, raw(1, 2, 2, one, gap)},
		{"adjacent holes", 1, raw(1, 1, 2, gap, gap)},
		{"more bytes than an int64", 2, appendList(nil, 2, []Extent{huge, huge})},
		{"a group that should have ended", 1, appendList(nil, 1, long)},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got, err := Children(c.depth, c.plain); !errors.Is(err, ErrList) {
				t.Errorf("%d entries, error %v, want ErrList", len(got), err)
			}
		})
	}
}

// forest holds list blocks that Build would not have written.
type forest map[block.ID][]byte

func (f forest) add(depth uint8, list []Extent) Extent {
	plain := appendList(nil, depth, list)
	id := block.Sum(plain)
	f[id] = plain
	return Extent{Len: List(list).Size(), ID: id}
}

func (f forest) get(id block.ID) ([]byte, error) { return f[id], nil }

// Lists of which every block is well-formed, but not the whole.
func TestLoadRefuses(t *testing.T) {
	full := entries(600) // a whole group, the last by its ID
	full[599] = ending(full[599])
	open := entries(700)
	holed := slices.Clone(open)
	holed[0] = Extent{Len: 1, Hole: true}
	fullHoled := slices.Concat(entries(MaxEntries-1), []Extent{{Len: 1, Hole: true}})
	inner := slices.Clone(full)
	inner[300] = ending(inner[300])
	for _, c := range []struct {
		name string
		make func(f forest) (depth uint8, e Extent)
		ok   bool
	}{
		{"well-formed, two groups", func(f forest) (uint8, Extent) {
			return 2, f.add(2, []Extent{f.add(1, full), f.add(1, open)})
		}, true},
		{"a list of one piece", func(f forest) (uint8, Extent) { return 1, f.add(1, entries(1)) }, false},
		{"a list of one hole", func(f forest) (uint8, Extent) { return 1, f.add(1, []Extent{{Len: 5, Hole: true}}) }, false},
		{"a list of one list", func(f forest) (uint8, Extent) { return 2, f.add(2, []Extent{f.add(1, full)}) }, false},
		{"a group that ends early", func(f forest) (uint8, Extent) {
			return 2, f.add(2, []Extent{f.add(1, open), f.add(1, full)})
		}, false},
		{"a group that ends late", func(f forest) (uint8, Extent) {
			return 2, f.add(2, []Extent{f.add(1, inner), f.add(1, open)})
		}, false},
		{"two depths for what one holds", func(f forest) (uint8, Extent) {
			return 2, f.add(2, []Extent{f.add(1, full), f.add(1, entries(424))})
		}, false},
		{"three depths for what two hold", func(f forest) (uint8, Extent) {
			a, b := f.add(2, []Extent{f.add(1, full), f.add(1, full)}), f.add(2, []Extent{f.add(1, full), f.add(1, open)})
			return 3, f.add(3, []Extent{a, b})
		}, false},
		{"a list block of the wrong depth", func(f forest) (uint8, Extent) {
			return 3, f.add(3, []Extent{f.add(1, full), f.add(1, open)})
		}, false},
		{"a size that a list block does not have", func(f forest) (uint8, Extent) {
			a, b := f.add(1, full), f.add(1, open)
			a.Len, b.Len = a.Len+1, b.Len-1
			return 2, f.add(2, []Extent{a, b})
		}, false},
		{"adjacent holes in two groups", func(f forest) (uint8, Extent) {
			return 2, f.add(2, []Extent{f.add(1, fullHoled), f.add(1, holed)})
		}, false},
		{"a hole and then a piece in two groups", func(f forest) (uint8, Extent) {
			return 2, f.add(2, []Extent{f.add(1, fullHoled), f.add(1, open)})
		}, true},
		{"an absent block", func(f forest) (uint8, Extent) {
			return 2, f.add(2, []Extent{f.add(1, full), {Len: 1, ID: block.ID{9}}})
		}, false},
		{"depth 4", func(f forest) (uint8, Extent) { return 4, f.add(1, entries(2)) }, false},
		{"depth 1 without a block", func(forest) (uint8, Extent) { return 1, Extent{Len: 5} }, false},
		{"a piece larger than a block", func(forest) (uint8, Extent) {
			return 0, Extent{Len: block.MaxPlain + 1, ID: block.ID{9}}
		}, false},
		{"a piece of no bytes", func(forest) (uint8, Extent) { return 0, Extent{ID: block.ID{9}} }, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := forest{}
			depth, e := c.make(f)
			_, err := Load(depth, e.ID, e.Len, f.get)
			if c.ok && err != nil {
				t.Errorf("refused: %v", err)
			}
			if !c.ok && !errors.Is(err, ErrList) {
				t.Errorf("error %v, want ErrList", err)
			}
		})
	}
}

func FuzzChildren(f *testing.F) {
	f.Add(uint8(1), appendList(nil, 1, entries(3)))
	f.Add(uint8(2), appendList(nil, 2, entries(3)))
	f.Add(uint8(1), appendList(nil, 1, []Extent{{Len: 1 << 40, Hole: true}, {Len: 5, ID: block.ID{7}}}))
	f.Add(uint8(1), raw(1, 1, 65535))
	f.Fuzz(func(t *testing.T, depth uint8, plain []byte) {
		list, err := Children(depth, plain)
		if err != nil {
			if !errors.Is(err, ErrList) {
				t.Fatalf("error %v, want ErrList", err)
			}
			return
		}
		if got := appendList(nil, depth, list); !bytes.Equal(got, plain) {
			t.Fatalf("a second spelling: %x for %x", plain, got)
		}
		if List(list).Size() < int64(len(list)) {
			t.Fatalf("%d entries of %d bytes", len(list), List(list).Size())
		}
	})
}

// FuzzLoad loads lists of one block, and of two under a root made to fit them.
func FuzzLoad(f *testing.F) {
	full := entries(600)
	full[599] = ending(full[599])
	f.Add(uint8(1), appendList(nil, 1, entries(3)), []byte(nil), int64(6))
	f.Add(uint8(2), appendList(nil, 1, full), appendList(nil, 1, entries(700)), int64(0))
	f.Fuzz(func(t *testing.T, depth uint8, a, b []byte, size int64) {
		blocks := forest{block.Sum(a): a, block.Sum(b): b}
		id := block.Sum(a)
		if depth == 2 {
			first, _ := Children(1, a)
			second, _ := Children(1, b)
			root := appendList(nil, 2, []Extent{
				{Len: List(first).Size(), ID: block.Sum(a)}, {Len: List(second).Size(), ID: block.Sum(b)},
			})
			id, size = block.Sum(root), List(first).Size()+List(second).Size()
			blocks[id] = root
		}
		list, err := Load(depth, id, size, blocks.get)
		if err != nil {
			if !errors.Is(err, ErrList) {
				t.Fatalf("error %v, want ErrList", err)
			}
			return
		}
		if list.Size() != size {
			t.Fatalf("list of %d bytes for %d", list.Size(), size)
		}
		gotDepth, gotID, err := Build(list, func(plain []byte) (block.ID, error) { return block.Sum(plain), nil })
		if err != nil || gotDepth != depth || gotID != id {
			t.Fatalf("a second spelling: depth %d, block %v (%v), want %d, %v", gotDepth, gotID, err, depth, id)
		}
	})
}
