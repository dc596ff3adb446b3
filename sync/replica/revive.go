package replica

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/roamfs/roamfs/sync/store"
	"github.com/roamfs/roamfs/sync/tree"
)

// gone remembers where files were that other devices deleted, the latest
// mostGone of them. A program here may be writing to one: its content is
// committed a moment after the delete was adopted, and must not be lost.
type gone struct {
	at    map[tree.Ino]tree.Place
	order []tree.Ino
}

const mostGone = 4096

func (g *gone) add(ino tree.Ino, p tree.Place) {
	if g.at == nil {
		g.at = map[tree.Ino]tree.Place{}
	}
	if _, ok := g.at[ino]; !ok {
		g.order = append(g.order, ino)
	}
	g.at[ino] = p
	if len(g.order) > mostGone {
		delete(g.at, g.order[0])
		g.order = g.order[1:]
	}
}

// noteGoneLocked remembers the places of the links that a remote change is
// about to drop.
func (r *Replica) noteGoneLocked(drop []tree.KeyDot) error {
	for _, kd := range drop {
		if kd.Key.Type() != 'L' {
			continue
		}
		recs, err := r.st.Records(kd.Key.Ino())
		if err != nil {
			return err
		}
		for _, rec := range recs {
			if rec.ID() != kd {
				continue
			}
			l, err := tree.DecodeLink(rec.Value)
			if err != nil {
				return fmt.Errorf("%w: link record: %w", store.ErrDamaged, err)
			}
			if !l.Dir {
				r.gone.add(kd.Key.Ino(), tree.Place{Parent: l.Parent, Name: l.Name})
			}
		}
	}
	return nil
}

// reviveLocked makes a deleted file anew with the content c: where it was, or
// in the root if its directory is gone too, and under a similar name if the name
// has been taken.
func (r *Replica) reviveLocked(old tree.Ino, p tree.Place, c tree.Content, dropDraft bool) (ino tree.Ino, err error) {
	if n, err := r.view.Node(p.Parent); err != nil || n.Kind != tree.Dir {
		p.Parent = tree.Root
	}
	also := func(tx *store.Tx) error {
		if dropDraft {
			return tx.DropDraft(old)
		}
		return nil
	}
	name := p.Name
	for i := 1; ; i++ {
		_, err := r.editLocked(func(e *tree.Edit) (err error) {
			ino, err = e.Create(p.Parent, name, c)
			return err
		}, also)
		if !errors.Is(err, fs.ErrExist) || i == 100 {
			if err == nil {
				r.log.Info("a file that another device deleted was still being written here: it is back", "name", name)
			}
			return ino, err
		}
		name = similar(p.Name, i)
	}
}

// similar returns a name like name for a file that was recovered.
func similar(name string, i int) string {
	stem, ext := name, ""
	if at := strings.LastIndexByte(name, '.'); at > 0 && len(name)-at <= 16 {
		stem, ext = name[:at], name[at:]
	}
	suffix := fmt.Sprintf(" (recovered %d)%s", i, ext)
	for len(stem)+len(suffix) > 255 {
		stem = strings.ToValidUTF8(stem[:len(stem)-1], "")
	}
	return stem + suffix
}
