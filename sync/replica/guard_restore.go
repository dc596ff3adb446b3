package replica

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/roamfs/roamfs/peer/device"
	"github.com/roamfs/roamfs/sync/guard"
	"github.com/roamfs/roamfs/sync/store"
	"github.com/roamfs/roamfs/sync/tree"
)

// What a reject brings back is written down before anything of the held commits
// is applied, so that a reject which was cut off ends with the next Open: values "back" n(8) ->
// a loss, and "rejecting" -> actor(8), which makes them count.
const (
	backKey      = "back"
	rejectingKey = "rejecting"
)

// Reject lets through what is held back of a device and brings back what that
// takes away, in one step for readers. What others wrote since stays. It reports [ErrNothingHeld]
// if there is nothing.
func (r *Replica) Reject(dev device.ID) error {
	aff, err := func() (aff tree.Affected, err error) {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.broken {
			return aff, ErrBroken
		}
		if r.oldCopy {
			return aff, ErrOldCopy
		}
		any, err := r.decideStateLocked(dev, verdictReject)
		if err != nil {
			return aff, err
		}
		for _, a := range r.heldActorsLocked(dev) {
			any = true
			if err := r.planLocked(r.guard.holds[a].account, a); err != nil {
				return aff, err
			}
			one, err := r.rejectLocked(a)
			aff.Entries, aff.Inodes = append(aff.Entries, one.Entries...), append(aff.Inodes, one.Inodes...)
			if err != nil {
				return aff, err
			}
		}
		if !any {
			return aff, ErrNothingHeld
		}
		return aff, nil
	}()
	r.tell(aff)
	r.tellSettings()
	r.tellRestored()
	if err != nil {
		return fmt.Errorf("reject: %w", err)
	}
	return r.Publish()
}

func (r *Replica) rejectLocked(a tree.Actor) (aff tree.Affected, err error) {
	if aff, err = r.releaseLocked(a, false); err != nil {
		return aff, err
	}
	back, err := r.restoreLocked()
	aff.Entries, aff.Inodes = append(aff.Entries, back.Entries...), append(aff.Inodes, back.Inodes...)
	return aff, err
}

// planLocked writes down what is to be brought back from what an actor took away;
// the zero actor stands for all but this device.
func (r *Replica) planLocked(a *guard.Account, by tree.Actor) error {
	if err := r.dropPlanLocked(); err != nil {
		return err
	}
	var all []guard.Loss
	a.Lost(func(_ tree.Ino, l guard.Loss) {
		if l.Kind != guard.Replaced {
			all = append(all, l)
		}
	})
	for i, l := range all {
		v, err := encodeLoss(l)
		if err != nil {
			return err
		}
		if err := r.st.Update(func(tx *store.Tx) error {
			tx.SetValue(string(binary.BigEndian.AppendUint64([]byte(backKey), uint64(i))), v)
			return nil
		}); err != nil {
			return err
		}
	}
	return r.st.Update(func(tx *store.Tx) error { tx.SetValue(rejectingKey, by[:]); return nil })
}

func (r *Replica) dropPlanLocked() error {
	var names []string
	if err := r.st.Values(backKey, func(rest string, _ []byte) error { names = append(names, backKey+rest); return nil }); err != nil {
		return err
	}
	for part := range slices.Chunk(names, partRecords) {
		if err := r.st.Update(func(tx *store.Tx) error {
			for _, n := range part {
				tx.SetValue(n, nil)
			}
			return nil
		}); err != nil {
			return err
		}
	}
	return nil
}

// finishRejectLocked completes a reject that was cut off.
func (r *Replica) finishRejectLocked() error {
	b, err := r.st.Value(rejectingKey)
	if err != nil {
		return err
	}
	if b == nil {
		return r.dropPlanLocked()
	}
	if len(b) != 8 {
		return fmt.Errorf("%w: reject", store.ErrDamaged)
	}
	if a := tree.Actor(b); a != (tree.Actor{}) {
		if _, err := r.releaseLocked(a, false); err != nil {
			return err
		}
	}
	_, err = r.restoreLocked()
	return err
}

// restoreLocked brings back what is written down, if something is.
func (r *Replica) restoreLocked() (aff tree.Affected, err error) {
	b, err := r.st.Value(rejectingKey)
	if err != nil || b == nil {
		return aff, err
	}
	if len(b) != 8 {
		return aff, fmt.Errorf("%w: reject", store.ErrDamaged)
	}
	x := restore{r: r, by: tree.Actor(b), dirs: map[tree.Ino]former{}, made: map[tree.Ino]tree.Ino{}, aff: &aff}
	var files []former
	if err := r.st.Values(backKey, func(_ string, v []byte) error {
		l, err := decodeLoss(v)
		if err != nil {
			return err
		}
		o := formerOf(l.Before)
		if o.dir {
			x.dirs[o.ino] = o
		} else if o.known && len(o.links) > 0 {
			files = append(files, o)
		}
		return nil
	}); err != nil {
		return aff, err
	}
	for ino := range x.dirs {
		if _, err := x.directory(ino); err != nil {
			return aff, fmt.Errorf("bring back a directory: %w", err)
		}
	}
	for i := range files {
		if err := x.file(&files[i]); err != nil {
			return aff, fmt.Errorf("bring back %s: %w", files[i].links[0].Name, err)
		}
	}
	if err := r.st.Update(func(tx *store.Tx) error { tx.SetValue(rejectingKey, nil); return nil }); err != nil {
		return aff, err
	}
	r.wake()
	return aff, r.dropPlanLocked()
}

// Spare calls fn with every content that the tree has lost and that a reject would
// bring back, or is about to.
func (r *Replica) Spare(fn func(c tree.Content) error) error {
	for _, key := range []string{lossKey, backKey} {
		if err := r.st.Values(key, func(_ string, v []byte) error {
			l, err := decodeLoss(v)
			if err != nil {
				return err
			}
			if o := formerOf(l.Before); o.known {
				return fn(o.content)
			}
			return nil
		}); err != nil {
			return err
		}
	}
	return nil
}

// tellRestored tells who wants to know what this device writes of what it
// brought back.
func (r *Replica) tellRestored() {
	r.mu.Lock()
	inos := r.guard.restored
	r.guard.restored = nil
	r.mu.Unlock()
	for _, ino := range inos {
		r.wrote(ino)
	}
}

// former is an inode as it was.
type former struct {
	ino     tree.Ino
	dir     bool
	known   bool // there is a content
	links   []tree.Link
	content tree.Content
	mode    *uint32
	mtime   *int64
	xattrs  map[string][]byte
}

// formerOf reads the winners of an inode's records.
func formerOf(recs []tree.Record) (o former) {
	recs = slices.Clone(recs)
	tree.SortRecords(recs) // registers by key
	o.xattrs = map[string][]byte{}
	type best struct {
		rank uint64
		wall int64
	}
	won := map[tree.Key]best{}
	wins := func(k tree.Key, rank uint64, wall int64) bool {
		old, ok := won[k]
		if ok && cmp.Or(cmp.Compare(rank, old.rank), cmp.Compare(wall, old.wall)) < 0 {
			return false
		}
		won[k] = best{rank, wall}
		return true
	}
	links := map[tree.Key]tree.Link{}
	var order []tree.Key
	for i := range recs {
		rec := &recs[i]
		o.ino = rec.Key.Ino()
		switch rec.Key.Type() {
		case tree.TypeLink:
			if l, err := tree.DecodeLink(rec.Value); err == nil && wins(rec.Key, l.Rank, l.LocTime) {
				if _, ok := links[rec.Key]; !ok {
					order = append(order, rec.Key)
				}
				links[rec.Key] = l
				o.dir = o.dir || l.Dir
				if l.Snap != nil && !o.known {
					o.content, o.known = *l.Snap, true
				}
			}
		case tree.TypeContent:
			if c, err := tree.DecodeContent(rec.Value); err == nil && wins(rec.Key, c.Rank, c.Wall) {
				o.content, o.known = c, true
			}
		case tree.TypeAttr:
			if a, err := tree.DecodeAttr(rec.Value); err == nil && wins(rec.Key, a.Rank, a.Wall) {
				o.mode = &a.Mode
			}
		case tree.TypeMTime:
			if t, err := tree.DecodeMTime(rec.Value); err == nil && wins(rec.Key, t.Rank, t.Wall) {
				o.mtime = &t.MTime
			}
		case tree.TypeXattr:
			if x, err := tree.DecodeXattr(rec.Value); err == nil && wins(rec.Key, x.Rank, x.Wall) {
				o.xattrs[rec.Key.Sub()] = x.Value
			}
		}
	}
	for _, k := range order {
		o.links = append(o.links, links[k])
	}
	return o
}

// restore is one run of restoreLocked.
type restore struct {
	r    *Replica
	by   tree.Actor
	dirs map[tree.Ino]former   // directories that were removed
	made map[tree.Ino]tree.Ino // what stands for them now
	aff  *tree.Affected
}

func (x *restore) edit(fn func(*tree.Edit) error) error {
	aff, err := x.r.editLocked(fn, nil)
	x.r.guard.restored = append(x.r.guard.restored, aff.Inodes...)
	x.aff.Entries, x.aff.Inodes = append(x.aff.Entries, aff.Entries...), append(x.aff.Inodes, aff.Inodes...)
	return err
}

// theirs reports whether all of base was written by the device that is rejected.
func (x *restore) theirs(base []tree.Dot) bool {
	for _, d := range base {
		if d.Actor != x.by && (x.by != tree.Actor{} || d.Actor == x.r.cfg.Actor) {
			return false
		}
	}
	return true
}

// directory returns the directory that stands for ino, and makes it again if
// it was removed; the root if there is nothing to go by.
func (x *restore) directory(ino tree.Ino) (tree.Ino, error) {
	if ino == tree.Root {
		return ino, nil
	}
	if now, ok := x.made[ino]; ok {
		return now, nil
	}
	if n, err := x.r.view.Node(ino); err == nil && n.Kind == tree.Dir {
		return ino, nil
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return ino, err
	}
	o, ok := x.dirs[ino]
	if !ok || len(o.links) == 0 {
		return tree.Root, nil
	}
	x.made[ino] = tree.Root // if they go in circles
	parent, err := x.directory(o.links[0].Parent)
	if err != nil {
		return ino, err
	}
	mode := uint32(tree.DirMode)
	if o.mode != nil {
		mode = *o.mode
	}
	var now tree.Ino
	name := o.links[0].Name
	for i := 1; ; i++ {
		n, err := x.r.lookupLocked(parent, name)
		if err == nil && n.Kind == tree.Dir {
			now = n.Ino
			break
		}
		if err == nil && i < 100 {
			name = similar(o.links[0].Name, i)
			continue
		}
		if err := x.edit(func(e *tree.Edit) (err error) { now, err = e.Mkdir(parent, name, mode); return err }); err != nil {
			return ino, err
		}
		break
	}
	x.made[ino] = now
	return now, x.attributes(now, &o)
}

// file brings back one file: the content of one that is still there, and its
// place if that is free; else a new file at its place, or the content of the
// one that has taken it.
func (x *restore) file(o *former) error {
	n, err := x.r.view.Node(o.ino)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	parent, perr := x.directory(o.links[0].Parent)
	if perr != nil {
		return perr
	}
	name := o.links[0].Name
	at, aerr := x.r.lookupLocked(parent, name)
	if aerr != nil && !errors.Is(aerr, fs.ErrNotExist) {
		return aerr
	}
	switch {
	case err == nil: // it is there
		if err := x.content(n, o); err != nil {
			return err
		}
		if aerr != nil && (n.Parent != parent || n.Name != name) {
			return x.edit(func(e *tree.Edit) error { return e.Rename(n.Parent, n.Name, parent, name, true, false) })
		}
		return nil
	case aerr == nil && at.Kind == o.content.Kind && (shows(&at, &o.content) || x.theirs(at.Base)):
		return x.content(at, o)
	}
	var ino tree.Ino
	c := o.content
	if o.mode != nil {
		c.Mode = *o.mode
	}
	taken := aerr == nil
	for i := 1; taken && i < 100; i++ {
		name = similar(o.links[0].Name, i)
		m, err := x.r.lookupLocked(parent, name)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err == nil && m.Kind == c.Kind && shows(&m, &c) {
			return nil // of a run that was cut off
		}
		taken = err == nil
	}
	if err := x.edit(func(e *tree.Edit) (err error) { ino, err = e.Create(parent, name, c); return err }); err != nil {
		return err
	}
	for i := range o.links[1:] {
		l := &o.links[1+i]
		p, err := x.directory(l.Parent)
		if err != nil {
			return err
		}
		if err := x.edit(func(e *tree.Edit) error { return e.Link(ino, p, l.Name) }); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return x.attributes(ino, o)
}

// content gives a file the content that was lost, unless it has it, or somebody
// else wrote to it since.
func (x *restore) content(n tree.Node, o *former) error {
	if shows(&n, &o.content) || n.Kind != o.content.Kind || !x.theirs(n.Base) {
		return nil
	}
	return x.edit(func(e *tree.Edit) error { _, err := e.Write(n.Ino, n.Base, o.content); return err })
}

func shows(n *tree.Node, c *tree.Content) bool {
	return n.Kind == c.Kind && n.Size == c.Size && n.Ref.ID == c.Ref.ID && n.Ref.Depth == c.Ref.Depth && string(n.Inline) == string(c.Inline)
}

func (x *restore) attributes(ino tree.Ino, o *former) error {
	for name, v := range o.xattrs {
		if err := x.edit(func(e *tree.Edit) error { return e.SetXattr(ino, name, v) }); err != nil {
			return err
		}
	}
	if o.mtime == nil {
		return nil
	}
	return x.edit(func(e *tree.Edit) error { return e.SetMTime(ino, *o.mtime) })
}
