package replica

import (
	"errors"
	"fmt"
	"io/fs"
	"path"

	"github.com/roamfs/roamfs/sync/tree"
)

// Old is a file or directory as it once was.
type Old struct {
	Name    string
	Ino     tree.Ino     // what is not a directory and has this in common is one file with several names; zero: has one
	Content tree.Content // of a file, symlink or fifo; Kind, Mode and MTime also of a directory
	Xattrs  map[string][]byte
	Below   []Old // what is in a directory
}

// ErrInTheWay means that what is to be restored is a directory where there is
// something else now, or the other way round.
var ErrInTheWay = errors.New("something of another kind is there now")

// Restored counts what [Replica.Restore] did.
type Restored struct {
	Files, Dirs int // made, or given other content
	Same        int // files that were as they should be
}

// Restore puts olds into the directory parent as ordinary edits of this device:
// what is missing is made anew, what has other content gets the old one, and
// what is there beside it stays. Names of one file become names of one file again. It copies no data: the same blocks are referred to.
// It looks first whether something is in the way ([ErrInTheWay]), and changes
// nothing then. An error later leaves a part restored; to restore again does the
// rest.
func (r *Replica) Restore(parent tree.Ino, olds ...Old) (done Restored, err error) {
	x := reviving{r: r, names: map[tree.Ino]int{}, now: map[tree.Ino]tree.Ino{}}
	for i := range olds {
		x.count(&olds[i])
		if err := x.clear(parent, olds[i], ""); err != nil {
			return done, err
		}
	}
	for _, old := range olds {
		if err := x.restore(parent, old); err != nil {
			return x.done, err
		}
	}
	return x.done, nil
}

// reviving is one run of Restore.
type reviving struct {
	r     *Replica
	names map[tree.Ino]int      // how many names a file had
	now   map[tree.Ino]tree.Ino // what stands for a file that had several: itself, if one of them still shows it
	done  Restored
}

func (x *reviving) count(old *Old) {
	if old.Content.Kind != tree.Dir && old.Ino != (tree.Ino{}) {
		x.names[old.Ino]++
	}
	for i := range old.Below {
		x.count(&old.Below[i])
	}
}

// clear reports what is in the way of old.
func (x *reviving) clear(parent tree.Ino, old Old, at string) error {
	at = path.Join(at, old.Name)
	n, err := x.r.Lookup(parent, old.Name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case n.Kind != old.Content.Kind:
		return fmt.Errorf("%s is a %v and was a %v: %w", at, n.Kind, old.Content.Kind, ErrInTheWay)
	}
	if n.Kind != tree.Dir && n.Ino == old.Ino {
		x.now[old.Ino] = n.Ino
	}
	for _, o := range old.Below {
		if err := x.clear(n.Ino, o, at); err != nil {
			return err
		}
	}
	return nil
}

func (x *reviving) restore(parent tree.Ino, old Old) error {
	linked, err := x.link(parent, old)
	if err == nil && !linked {
		var ino tree.Ino
		if ino, err = x.one(parent, old); err == nil {
			if x.names[old.Ino] > 1 {
				x.now[old.Ino] = ino
			}
			parent = ino
		}
	}
	if err != nil {
		return fmt.Errorf("restore %s: %w", old.Name, err)
	}
	for _, o := range old.Below {
		if err := x.restore(parent, o); err != nil {
			return err
		}
	}
	return nil
}

// link makes old a name of what stands for its file, if something does and it is no
// name of that yet, and reports whether it did. What had the name loses it in the same step.
func (x *reviving) link(parent tree.Ino, old Old) (linked bool, err error) {
	r := x.r
	now, ok := x.now[old.Ino]
	if !ok || x.names[old.Ino] < 2 {
		return false, nil
	}
	var aff tree.Affected
	var lost []tree.Ino
	err = func() error {
		r.mu.Lock()
		defer r.mu.Unlock()
		if _, err := r.view.Node(now); errors.Is(err, fs.ErrNotExist) {
			return nil // removed meanwhile
		} else if err != nil {
			return err
		}
		n, err := r.lookupLocked(parent, old.Name)
		exists := err == nil
		switch {
		case err != nil && !errors.Is(err, fs.ErrNotExist):
			return err
		case exists && n.Ino == now:
			return nil
		case exists && n.Kind != old.Content.Kind:
			return ErrInTheWay
		}
		linked = true
		aff, err = r.editLocked(func(e *tree.Edit) error {
			if exists {
				if err := e.Unlink(parent, old.Name); err != nil {
					return err
				}
			}
			return e.Link(now, parent, old.Name)
		}, nil)
		if err == nil && exists {
			if _, gone := r.view.Node(n.Ino); errors.Is(gone, fs.ErrNotExist) {
				lost = append(lost, n.Ino)
			}
		}
		return err
	}()
	if err != nil || !linked {
		return false, err
	}
	r.tell(aff)
	for _, ino := range lost {
		r.wrote(ino)
	}
	x.done.Files++
	return true, nil
}

// one restores old without what is below it, in one operation.
func (x *reviving) one(parent tree.Ino, old Old) (ino tree.Ino, err error) {
	r, done := x.r, &x.done
	var aff tree.Affected
	made, dir := true, old.Content.Kind == tree.Dir
	err = func() error {
		r.mu.Lock()
		defer r.mu.Unlock()
		n, err := r.lookupLocked(parent, old.Name)
		exists := err == nil
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if exists && n.Kind != old.Content.Kind {
			return ErrInTheWay
		}
		made = !exists || !dir && !sameContent(&n, &old.Content)
		aff, err = r.editLocked(func(e *tree.Edit) (err error) {
			switch {
			case exists && made:
				ino, err = e.Write(n.Ino, n.Base, old.Content)
			case exists:
				ino = n.Ino
			case dir:
				ino, err = e.Mkdir(parent, old.Name, old.Content.Mode)
			default:
				ino, err = e.Create(parent, old.Name, old.Content)
			}
			if err == nil && exists && n.Mode != old.Content.Mode {
				err = e.Chmod(ino, old.Content.Mode)
			}
			if err == nil && (!made && n.MTime != old.Content.MTime || made && dir) {
				err = e.SetMTime(ino, old.Content.MTime)
			}
			for name, value := range old.Xattrs {
				if has, ok := n.Xattrs[name]; err == nil && (!ok || string(has) != string(value)) {
					err = e.SetXattr(ino, name, value)
				}
			}
			return err
		}, nil)
		return err
	}()
	if err != nil {
		return ino, err
	}
	r.tell(aff)
	switch {
	case dir && made:
		done.Dirs++
	case dir:
	case made:
		done.Files++
		r.wrote(ino)
	default:
		done.Same++
	}
	return ino, nil
}

// sameContent reports whether n shows the content c.
func sameContent(n *tree.Node, c *tree.Content) bool {
	return n.Size == c.Size && n.Ref.ID == c.Ref.ID && n.Ref.Depth == c.Ref.Depth && string(n.Inline) == string(c.Inline)
}
