package history

import (
	"cmp"
	"slices"

	"github.com/roamfs/roamfs/sync/tree"
)

// Replaced calls fn with every file below old that is not at the same place with
// the same content below now. It reads only directories that differ. What read
// cannot tell is left out.
func Replaced(old, now Object, read func(Object) ([]Entry, error), fn func(Entry)) {
	if old.ID == now.ID || old.ID.IsZero() {
		return
	}
	was, err := read(old)
	if err != nil {
		return
	}
	var is []Entry
	if !now.ID.IsZero() {
		if is, err = read(now); err != nil {
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
			Replaced(e.Object(), same.Object(), read, fn)
		case e.Kind == tree.Dir:
			Replaced(e.Object(), Object{}, read, fn)
		case e.Kind == tree.File && !e.SameContent(&same):
			fn(e)
		}
	}
}
