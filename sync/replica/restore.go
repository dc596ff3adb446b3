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

// Restore puts old into the directory parent as ordinary edits of this device:
// what is missing is made anew, what has other content gets the old one, and
// what is there beside it stays. It copies no data: the same blocks are referred to.
// It looks first whether something is in the way ([ErrInTheWay]), and changes
// nothing then. An error later leaves a part restored; to restore again does the
// rest.
func (r *Replica) Restore(parent tree.Ino, old Old) (done Restored, err error) {
	if err := r.clear(parent, old, ""); err != nil {
		return done, err
	}
	return done, r.restore(parent, old, &done)
}

// clear reports what is in the way of old.
func (r *Replica) clear(parent tree.Ino, old Old, at string) error {
	at = path.Join(at, old.Name)
	n, err := r.Lookup(parent, old.Name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case n.Kind != old.Content.Kind:
		return fmt.Errorf("%s is a %v and was a %v: %w", at, n.Kind, old.Content.Kind, ErrInTheWay)
	}
	for _, o := range old.Below {
		if err := r.clear(n.Ino, o, at); err != nil {
			return err
		}
	}
	return nil
}

func (r *Replica) restore(parent tree.Ino, old Old, done *Restored) error {
	ino, err := r.restoreOne(parent, old, done)
	if err != nil {
		return fmt.Errorf("restore %s: %w", old.Name, err)
	}
	for _, o := range old.Below {
		if err := r.restore(ino, o, done); err != nil {
			return err
		}
	}
	return nil
}

// restoreOne restores old without what is below it, in one operation.
func (r *Replica) restoreOne(parent tree.Ino, old Old, done *Restored) (ino tree.Ino, err error) {
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
