package replica

import (
	"cmp"
	"slices"

	"github.com/roamfs/roamfs/sync/tree"
)

// joinedKey is what a join changes about one key.
type joinedKey struct {
	put  []tree.Record
	drop []tree.KeyDot
}

// downwards sorts what says where directories are so that each comes after the one that
// it is in, unless that is below it.
func downwards(all []joinedKey) []joinedKey {
	parent := map[tree.Ino]tree.Ino{}
	for _, d := range all {
		for _, rec := range d.put {
			if l, err := tree.DecodeLink(rec.Value); err == nil {
				parent[rec.Key.Ino()] = l.Parent
			}
		}
	}
	depth := map[tree.Ino]int{}
	of := func(ino tree.Ino) { // without recursion: whoever sent it may have made it very deep
		var path []tree.Ino
		for {
			up, placed := parent[ino]
			if _, known := depth[ino]; known || !placed {
				break
			}
			depth[ino] = 0 // should it be below itself
			path = append(path, ino)
			ino = up
		}
		d := depth[ino]
		for _, ino := range slices.Backward(path) {
			d++
			depth[ino] = d
		}
	}
	inoOf := func(d joinedKey) (ino tree.Ino) {
		switch {
		case len(d.put) > 0:
			ino = d.put[0].Key.Ino()
		case len(d.drop) > 0:
			ino = d.drop[0].Key.Ino()
		}
		return ino
	}
	for _, d := range all {
		of(inoOf(d))
	}
	slices.SortStableFunc(all, func(a, b joinedKey) int { return cmp.Compare(depth[inoOf(a)], depth[inoOf(b)]) })
	return all
}
