package chunk_test

import (
	"fmt"

	"github.com/roamfs/roamfs/sync/block"
	"github.com/roamfs/roamfs/sync/chunk"
)

// A content is cut, sealed piece by piece, and its list stored.
func Example() {
	keys, err := block.NewKeys(1, map[uint32]block.Secret{1: {1, 2, 3}})
	if err != nil {
		panic(err)
	}
	stored := map[block.ID][]byte{}
	put := func(t block.Type, plain []byte) (block.ID, error) {
		id, sealed, err := keys.Seal(t, plain)
		stored[id] = sealed
		return id, err
	}

	content := random(1, 1_000_000)
	size := int64(len(content))
	cutter := chunk.Choose(size, content[:chunk.HeadLen], false, 0)
	s, err := chunk.NewSplitter(cutter, keys.ChunkKey(), size)
	if err != nil {
		panic(err)
	}
	var list chunk.List
	for off := int64(0); off < size; {
		n := s.Next(off, content[off:off+int64(s.Max(off))])
		id, err := put(block.Data, content[off:off+int64(n)])
		if err != nil {
			panic(err)
		}
		list = append(list, chunk.Extent{Len: int64(n), ID: id})
		off += int64(n)
	}
	depth, id, err := chunk.Build(list, func(plain []byte) (block.ID, error) { return put(block.List, plain) })
	if err != nil {
		panic(err)
	}
	fmt.Println(cutter, "depth", depth)

	loaded, err := chunk.Load(depth, id, size, func(id block.ID) ([]byte, error) {
		return keys.Open(id, block.List, stored[id])
	})
	fmt.Println(len(loaded) == len(list), loaded.Size(), err)
	// Output:
	// cdc-256k depth 1
	// true 1000000 <nil>
}

func ExampleWalk() {
	blocks := store{}
	list := chunk.List{hole(1000), piece(1, 500), hole(200), piece(2, 300)}
	depth, id, err := chunk.Build(list, blocks.put)
	if err != nil {
		panic(err)
	}
	err = chunk.Walk(depth, id, list.Size(), 1400, 1600, blocks.get, func(off int64, e chunk.Extent) error {
		fmt.Println(off, e.Len, e.Hole)
		return nil
	})
	fmt.Println(err)
	// Output:
	// 1000 500 false
	// 1500 200 true
	// <nil>
}

func ExampleChoose() {
	fmt.Println(chunk.Choose(40<<10, nil, false, 0))
	fmt.Println(chunk.Choose(40<<20, nil, false, 0))
	fmt.Println(chunk.Choose(40<<20, []byte("SQLite format 3\x00"), false, 0))
	// Output:
	// whole
	// cdc-256k
	// fixed-64k
}
