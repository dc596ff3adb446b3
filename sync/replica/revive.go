package replica

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"

	"github.com/roamfs/roamfs/sync/store"
	"github.com/roamfs/roamfs/sync/tree"
)

// gone remembers where files were that other devices deleted. A program here
// may be writing to one: its content is committed a moment after the delete was
// adopted, or after the next start, and must not be lost.
//
// A spot is noted when another device takes a link away. It counts while the
// tree does not show the file. If the journal has a draft of the file, the spot
// is in the database too, from the transaction that takes the link (or the later
// one that journals the draft) to the one that drops the draft. Otherwise it is
// in memory alone, where the latest mostGone are.
//
// A file that is deleted here loses its spot and its draft in the transaction
// that deletes it. So whatever happens after that, it does not come back.
type gone struct {
	mu     sync.Mutex // taken inside Replica.mu
	at     map[tree.Ino]spot
	order  []tree.Ino
	drafts map[tree.Ino]spot // inodes in the journal, with what the database has; zero: nothing
}

const mostGone = 4096

// spot is the last that the tree had of a deleted file.
type spot struct {
	tree.Place
	mode uint32 // permission bits; 0 if they are not known
}

// spotKey names the value that holds the spot of a file with a draft.
func spotKey(ino tree.Ino) string { return "gone " + string(ino[:]) }

// encode returns version 1 (1) ‖ mode (2, big-endian) ‖ parent (24) ‖ name.
func (s spot) encode() []byte {
	b := binary.BigEndian.AppendUint16([]byte{1}, uint16(s.mode))
	b = append(b, s.Parent[:]...)
	return append(b, s.Name...)
}

func decodeSpot(b []byte) (s spot, err error) {
	const fixed = 1 + 2 + len(s.Parent)
	if len(b) <= fixed || b[0] != 1 {
		return s, fmt.Errorf("%w: place of a deleted file", store.ErrDamaged)
	}
	s.mode = uint32(binary.BigEndian.Uint16(b[1:]))
	s.Parent, s.Name = tree.Ino(b[3:fixed]), string(b[fixed:])
	if s.mode > 0o7777 || tree.CheckName(s.Name) != nil {
		return s, fmt.Errorf("%w: place of a deleted file", store.ErrDamaged)
	}
	return s, nil
}

// loadGone reads which files have drafts, and the spots of those that are gone.
func (r *Replica) loadGone() error {
	g := &r.gone
	g.at, g.drafts = map[tree.Ino]spot{}, map[tree.Ino]spot{}
	drafts, err := r.st.Drafts()
	if err != nil {
		return err
	}
	for _, d := range drafts {
		b, err := r.st.Value(spotKey(d.Ino))
		if err != nil {
			return err
		}
		var s spot
		if b != nil {
			if s, err = decodeSpot(b); err != nil {
				return err
			}
		}
		g.drafts[d.Ino] = s
	}
	return nil
}

// of returns the spot of a file, if one is noted.
func (g *gone) of(ino tree.Ino) (s spot, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if s = g.drafts[ino]; s.Name != "" {
		return s, true
	}
	s, ok = g.at[ino]
	return s, ok
}

func (g *gone) add(ino tree.Ino, s spot) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if _, ok := g.drafts[ino]; ok {
		g.drafts[ino] = s
	}
	if _, ok := g.at[ino]; !ok {
		g.order = append(g.order, ino)
	}
	g.at[ino] = s
	if len(g.order) > mostGone {
		delete(g.at, g.order[0])
		g.order = g.order[1:]
	}
}

// draft reports whether the journal has a draft of the inode, and what spot
// the database has then; the zero spot if none.
func (g *gone) draft(ino tree.Ino) (s spot, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	s, ok = g.drafts[ino]
	return s, ok
}

func (g *gone) putDraft(ino tree.Ino, s spot) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.drafts[ino] = s
}

func (g *gone) dropDraft(ino tree.Ino) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.drafts, ino)
}

// forget is for a file that is deleted here.
func (g *gone) forget(ino tree.Ino) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.drafts, ino)
	delete(g.at, ino)
}

// spotsLocked returns the spots of the files that a remote change is about to take a
// link or all content from.
func (r *Replica) spotsLocked(ch tree.Change) (map[tree.Ino]spot, error) {
	written, taken := map[tree.Ino]bool{}, map[tree.KeyDot]bool{}
	for i := range ch.Put {
		if k := ch.Put[i].Key; k.Type() == tree.TypeContent {
			written[k.Ino()] = true
		}
	}
	for _, kd := range ch.Drop {
		taken[kd] = true
	}
	spots := map[tree.Ino]spot{}
	for _, kd := range ch.Drop {
		ino, content := kd.Key.Ino(), kd.Key.Type() == tree.TypeContent
		if content && written[ino] || !content && kd.Key.Type() != tree.TypeLink {
			continue
		}
		recs, err := r.st.Records(ino)
		if err != nil {
			return nil, err
		}
		if content && slices.ContainsFunc(recs, func(rec tree.Record) bool {
			return rec.Key.Type() == tree.TypeContent && !taken[rec.ID()]
		}) {
			continue
		}
		for _, rec := range recs {
			// Without content a name shows nothing: one that was made meanwhile is the spot then.
			if rec.Key.Type() != tree.TypeLink || !content && rec.ID() != kd {
				continue
			}
			l, err := tree.DecodeLink(rec.Value)
			if err != nil {
				return nil, fmt.Errorf("%w: link record: %w", store.ErrDamaged, err)
			}
			if l.Dir {
				continue
			}
			s := spot{Place: tree.Place{Parent: l.Parent, Name: l.Name}}
			if n, err := r.view.Node(ino); err == nil {
				s.mode = n.Mode
			} else if !errors.Is(err, fs.ErrNotExist) {
				return nil, err
			}
			spots[ino] = s
		}
	}
	return spots, nil
}

// keepSpots writes the spots of files that have drafts and lose something by drop.
func (r *Replica) keepSpots(tx *store.Tx, spots map[tree.Ino]spot, drop []tree.KeyDot) {
	for _, kd := range drop {
		s, ok := spots[kd.Key.Ino()]
		if !ok {
			continue
		}
		if _, ok := r.gone.draft(kd.Key.Ino()); ok {
			tx.SetValue(spotKey(kd.Key.Ino()), s.encode())
		}
	}
}

// deletedLocked returns the inodes that a change made here deletes, of those
// that have a draft or a spot.
func (r *Replica) deletedLocked(ch tree.Change) (out []tree.Ino, err error) {
	for _, kd := range ch.Drop {
		ino := kd.Key.Ino()
		if kd.Key.Type() != tree.TypeLink || slices.Contains(out, ino) {
			continue
		}
		_, noted := r.gone.of(ino)
		if _, ok := r.gone.draft(ino); !ok && !noted {
			continue
		}
		recs, err := r.st.Records(ino)
		if err != nil {
			return nil, err
		}
		stays := func(rec tree.Record) bool {
			return rec.Key.Ino() == ino && rec.Key.Type() == tree.TypeLink && !slices.Contains(ch.Drop, rec.ID())
		}
		if !slices.ContainsFunc(recs, stays) && !slices.ContainsFunc(ch.Put, stays) {
			out = append(out, ino)
		}
	}
	return out, nil
}

// dropDraft removes a draft, and the spot that is kept for it. The caller tells
// gone, once the transaction is through.
func (r *Replica) dropDraft(tx *store.Tx, ino tree.Ino) error {
	if s, _ := r.gone.draft(ino); s.Name != "" {
		tx.SetValue(spotKey(ino), nil)
	}
	return tx.DropDraft(ino)
}

// reviveLocked makes a deleted file anew with the content c: where it was, or
// in the root if its directory is gone too, and under a similar name if the name
// has been taken. The draft in the journal, unless it is dropped, becomes one of the new inode.
func (r *Replica) reviveLocked(old tree.Ino, s spot, c tree.Content, dropDraft bool) (ino tree.Ino, err error) {
	p := s.Place
	if n, err := r.view.Node(p.Parent); err != nil || n.Kind != tree.Dir {
		p.Parent = tree.Root
	}
	if s.mode != 0 {
		c.Mode = s.mode
	}
	var moves []tree.Draft
	if _, ok := r.gone.draft(old); ok && !dropDraft { // it was flushed again during the commit
		if moves, err = r.st.Drafts(); err != nil {
			return ino, err
		}
		moves = slices.DeleteFunc(moves, func(d tree.Draft) bool { return d.Ino != old })
	}
	also := func(tx *store.Tx) error {
		for _, d := range moves {
			d.Ino = ino
			if err := tx.PutDraft(d); err != nil {
				return err
			}
		}
		return r.dropDraft(tx, old)
	}
	name := p.Name
	for i := 1; ; i++ {
		_, err := r.editLocked(func(e *tree.Edit) (err error) {
			ino, err = e.Create(p.Parent, name, c)
			return err
		}, also)
		if !errors.Is(err, fs.ErrExist) || i == 100 {
			if err == nil {
				r.gone.dropDraft(old)
				for range moves {
					r.gone.putDraft(ino, spot{})
				}
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
