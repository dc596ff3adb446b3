package history

import (
	"fmt"

	"github.com/roamfs/roamfs/sync/block"
	"github.com/roamfs/roamfs/sync/chunk"
	"github.com/roamfs/roamfs/sync/tree"
)

// Put stores the encoding of a directory object as content: cut, sealed under
// keys, and each block given to put, lists too. The same bytes make the same
// blocks under the same keys.
func Put(data []byte, keys *block.Keys, put func(id block.ID, sealed []byte) error) (Object, error) {
	size := int64(len(data))
	cutter := chunk.Whole
	if size > chunk.MaxWhole {
		cutter = chunk.CDC256K
	}
	split, err := chunk.NewSplitter(cutter, keys.ChunkKey(), size)
	if err != nil {
		return Object{}, err
	}
	store := func(t block.Type, plain []byte) (block.ID, error) {
		id, sealed, err := keys.Seal(t, plain)
		if err != nil {
			return id, err
		}
		return id, put(id, sealed)
	}
	var list chunk.List
	for off := int64(0); off < size; {
		n := split.Next(off, data[off:])
		id, err := store(block.Data, data[off:off+int64(n)])
		if err != nil {
			return Object{}, err
		}
		list = append(list, chunk.Extent{Len: int64(n), ID: id})
		off += int64(n)
	}
	o := Object{Ref: tree.Ref{Cutter: uint8(cutter)}, Size: size}
	o.Depth, o.ID, err = chunk.Build(list, func(plain []byte) (block.ID, error) { return store(block.List, plain) })
	return o, err
}

// Read reads the directory object o, whose sealed blocks get returns.
func Read(o Object, keys *block.Keys, get func(id block.ID) ([]byte, error)) ([]Entry, error) {
	if o.Size < 1 || o.Size > MaxObject {
		return nil, malformed("directory of %d bytes", o.Size)
	}
	open := func(t block.Type) func(block.ID) ([]byte, error) {
		return func(id block.ID) ([]byte, error) {
			sealed, err := get(id)
			if err != nil {
				return nil, err
			}
			return keys.Open(id, t, sealed)
		}
	}
	var data []byte
	err := chunk.Walk(o.Depth, o.ID, o.Size, 0, o.Size, open(block.List), func(_ int64, e chunk.Extent) error {
		if e.Hole {
			return malformed("directory with a hole")
		}
		piece, err := open(block.Data)(e.ID)
		if err != nil {
			return err
		}
		if int64(len(piece)) != e.Len {
			return malformed("piece of %d bytes, not %d", len(piece), e.Len)
		}
		data = append(data, piece...)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("directory of a snapshot: %w", err)
	}
	return Decode(data)
}
