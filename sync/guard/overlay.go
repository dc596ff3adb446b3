package guard

import (
	"slices"

	"github.com/roamfs/roamfs/sync/manifest"
	"github.com/roamfs/roamfs/sync/tree"
)

// Overlay is a tree with commits that it does not have. It is a [Tree], and not safe
// for concurrent use. Its memory grows with what the commits change.
type Overlay struct {
	base  Tree
	after map[tree.Ino][]tree.Record
	names map[tree.Ino]map[string][]tree.Ino // that the commits add
}

// NewOverlay returns base without any commit.
func NewOverlay(base Tree) *Overlay {
	return &Overlay{base: base, after: map[tree.Ino][]tree.Record{}, names: map[tree.Ino]map[string][]tree.Ino{}}
}

// Apply adds a commit.
func (o *Overlay) Apply(d manifest.Delta) error {
	touched := map[tree.Ino]struct{}{}
	for i := range d.Put {
		touched[d.Put[i].Key.Ino()] = struct{}{}
		o.place(&d.Put[i])
	}
	for i := range d.Drop {
		touched[d.Drop[i].Key.Ino()] = struct{}{}
	}
	for ino := range touched {
		recs, err := o.Records(ino)
		if err != nil {
			return err
		}
		o.after[ino] = after(ino, recs, d)
	}
	return nil
}

func (o *Overlay) place(r *tree.Record) {
	if r.Key.Type() != tree.TypeLink {
		return
	}
	l, err := tree.DecodeLink(r.Value)
	if err != nil {
		return // nobody takes such a commit
	}
	names := o.names[l.Parent]
	if names == nil {
		names = map[string][]tree.Ino{}
		o.names[l.Parent] = names
	}
	if ino := r.Key.Ino(); !slices.Contains(names[l.Name], ino) {
		names[l.Name] = append(names[l.Name], ino)
	}
}

// Records returns the records of an inode as the commits leave them.
func (o *Overlay) Records(ino tree.Ino) ([]tree.Record, error) {
	if recs, ok := o.after[ino]; ok {
		return recs, nil
	}
	return o.base.Records(ino)
}

// Named implements [Tree].
func (o *Overlay) Named(parent tree.Ino, name string) ([]tree.Ino, error) {
	inos, err := o.base.Named(parent, name)
	return append(slices.Clip(inos), o.names[parent][name]...), err
}

// Children implements [Tree]. An inode may come twice.
func (o *Overlay) Children(parent tree.Ino) ([]tree.Ino, error) {
	inos, err := o.base.Children(parent)
	inos = slices.Clip(inos)
	for _, more := range o.names[parent] {
		inos = append(inos, more...)
	}
	slices.SortFunc(inos, tree.Ino.Compare)
	return slices.Compact(inos), err
}
