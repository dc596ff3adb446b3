package history

import (
	"cmp"
	"slices"

	"github.com/roamfs/roamfs/sync/block"
	"github.com/roamfs/roamfs/sync/tree"
)

// Replaced calls fn with every file below old that is not at the same place with
// the same content below now. It reads only directories that differ. What read
// cannot tell is left out.
func Replaced(old, now Object, read func(Object) ([]Entry, error), fn func(Entry)) {
	d := differ{read: read, fn: fn, seen: map[[2]block.ID]struct{}{}}
	d.directories(old, now, 0)
}

type differ struct {
	read func(Object) ([]Entry, error)
	fn   func(Entry)
	seen map[[2]block.ID]struct{} // pairs of objects: the same may lie in many places
}

func (d *differ) directories(old, now Object, depth int) {
	pair := [2]block.ID{old.ID, now.ID}
	if _, seen := d.seen[pair]; seen || old.ID == now.ID || depth > MaxDepth {
		return
	}
	d.seen[pair] = struct{}{}
	was, err := d.read(old)
	if err != nil {
		return
	}
	var is []Entry
	if !now.ID.IsZero() {
		if is, err = d.read(now); err != nil {
			return
		}
	}
	for _, e := range was {
		var same Entry
		if i, ok := slices.BinarySearchFunc(is, e.Name, func(e Entry, name string) int { return cmp.Compare(e.Name, name) }); ok {
			same = is[i]
		}
		switch {
		case e.Kind == tree.Dir && same.Kind == tree.Dir:
			d.directories(e.Object(), same.Object(), depth+1)
		case e.Kind == tree.Dir:
			d.directories(e.Object(), Object{}, depth+1)
		case e.Kind == tree.File && !e.SameContent(&same):
			d.fn(e)
		}
	}
}
