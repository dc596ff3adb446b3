package app

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/roamfs/roamfs/cache"
	"github.com/roamfs/roamfs/sync/block"
	"github.com/roamfs/roamfs/sync/copies"
	"github.com/roamfs/roamfs/sync/history"
	"github.com/roamfs/roamfs/sync/replica"
	"github.com/roamfs/roamfs/sync/tree"
)

// past keeps earlier states of the tree; see package history.
type past struct {
	d *live

	making sync.Mutex    // held while a snapshot is made, or a restore refers to one
	turns  atomic.Uint64 // grows by one when that begins and when it ends
	wake   chan struct{} // cap 1: there may be a new one

	again   chan struct{} // cap 1: count again what is only here
	counted atomic.Pointer[HistoryStatus]
}

// begin is called before content is going to be named that only a reader of the
// tree or of a snapshot has seen; end, when it is named.
func (p *past) begin() (end func()) {
	p.making.Lock()
	p.turns.Add(1)
	return func() {
		p.turns.Add(1)
		p.making.Unlock()
	}
}

// errNaming means that garbage cannot be told now.
var errNaming = errors.New("a snapshot is being made, or something restored from one")

// still runs fn, which tells what is garbage, and fails if a snapshot was made or
// something restored meanwhile: what that names was looked for too early.
func (p *past) still(fn func() ([]block.ID, error)) ([]block.ID, error) {
	turn := p.turns.Load()
	if turn%2 == 1 {
		return nil, errNaming
	}
	ids, err := fn()
	if err == nil && p.turns.Load() != turn {
		return nil, errNaming
	}
	return ids, err
}

// Snapshots implements [mount.History]. One that cannot be read, of a newer
// program, is left out.
func (p *past) Snapshots() ([]history.Snapshot, error) {
	all, err := p.d.replica.Settings(history.Prefix)
	if err != nil {
		return nil, err
	}
	out := make([]history.Snapshot, 0, len(all))
	for _, x := range all {
		s, err := history.DecodeSnapshot(x.Name, x.Value)
		if err != nil {
			p.d.log.Debug("a snapshot is left out", "name", x.Name, "err", err)
			continue
		}
		s.Dot = x.Dot
		out = append(out, s)
	}
	slices.SortFunc(out, history.Snapshot.Compare)
	return out, nil
}

// Roots implements [copies.History].
func (p *past) Roots() ([]copies.Root, error) {
	all, err := p.d.replica.Settings(history.Prefix)
	out := make([]copies.Root, 0, len(all))
	for _, x := range all {
		s, err := history.DecodeSnapshot(x.Name, x.Value)
		if err != nil { // of a newer program: what it needs is not known
			return nil, fmt.Errorf("%w: snapshot %s: %w", copies.ErrUnknown, x.Name, err)
		}
		out = append(out, copies.Root{Object: s.Root, Dot: x.Dot})
	}
	return out, err
}

// Directory implements [mount.History].
func (p *past) Directory(ctx context.Context, o history.Object) ([]history.Entry, error) {
	return history.Read(o, p.d.keys, func(id block.ID) ([]byte, error) { return p.d.cache.Get(ctx, id, cache.Demand) })
}

// make keeps the present state of the tree. If that is what the newest snapshot
// has and name is empty, it returns that one.
func (p *past) make(ctx context.Context, reason history.Reason, name string) (s history.Snapshot, made bool, err error) {
	defer p.begin()()
	return p.makeLocked(ctx, reason, name)
}

// makeLocked is make after begin.
func (p *past) makeLocked(ctx context.Context, reason history.Reason, name string) (s history.Snapshot, made bool, err error) {
	d := p.d
	put := func(id block.ID, sealed []byte) error { // also if it is here: it may be on its way out
		if d.cache.Has(id) {
			return blocks{d}.Put(ctx, id, sealed)
		}
		err := blocks{d}.Put(ctx, id, sealed)
		d.cache.Demote(id) // nothing that the tree shows needs it
		return err
	}
	var root history.Object
	for range 3 { // so that a rename meanwhile hides nothing
		before, _, err := d.replica.State()
		if err != nil {
			return s, false, err
		}
		if root, err = history.Render(ctx, d.replica, d.keys, put); err != nil {
			return s, false, fmt.Errorf("make a snapshot: %w", err)
		}
		if after, _, err := d.replica.State(); err != nil || after == before {
			break
		}
	}
	all, err := p.Snapshots()
	if err != nil {
		return s, false, err
	}
	if n := len(all); n > 0 && name == "" && all[n-1].Root.ID == root.ID {
		s = all[n-1]
		if s.Reason == history.Automatic && reason != history.Automatic { // so that it stays as long as it should
			s.Reason, made = reason, true
			err = d.replica.PutSetting(s.Key, s.Encode())
		}
		return s, made, err
	}
	if err := d.cache.Sync(); err != nil {
		return s, false, err
	}
	s = history.Snapshot{Reason: reason, Time: time.Now().UTC(), Root: root, Name: name}
	for { // no two in one second
		s.Key = history.Key(s.Time, d.id.actor)
		if !slices.ContainsFunc(all, func(o history.Snapshot) bool { return o.Key == s.Key }) {
			break
		}
		s.Time = s.Time.Add(time.Second)
	}
	s.Dot.Actor = d.id.actor
	return s, true, d.replica.PutSetting(s.Key, s.Encode())
}

// thin removes the snapshots that are too many.
func (p *past) thin(now time.Time) error {
	all, err := p.Snapshots()
	if err != nil {
		return err
	}
	var keys []string
	for _, s := range history.Thin(all, now) {
		keys = append(keys, s.Key)
	}
	if len(keys) == 0 {
		return nil
	}
	return p.d.replica.RemoveSettings(keys...)
}

// lookup finds path in the snapshot whose root is root; found is false if it has
// no such path. seen keeps what was read.
func (p *past) lookup(ctx context.Context, root history.Object, at string, seen map[block.ID][]history.Entry) (e history.Entry, found bool, err error) {
	e, _, found, err = p.find(ctx, root, at, seen)
	return e, found, err
}

// find is lookup that also returns the directory in which the path is.
func (p *past) find(ctx context.Context, root history.Object, at string, seen map[block.ID][]history.Entry) (e history.Entry, in history.Object, found bool, err error) {
	e = history.Entry{Name: "/", Kind: tree.Dir, Mode: tree.DirMode, Ref: root.Ref, Size: root.Size}
	for name := range strings.SplitSeq(at, "/") {
		if name == "" {
			continue
		}
		if e.Kind != tree.Dir {
			return e, in, false, nil
		}
		in = e.Object()
		list, ok := seen[e.Ref.ID]
		if !ok {
			if list, err = p.Directory(ctx, in); err != nil {
				return e, in, false, err
			}
			seen[e.Ref.ID] = list
		}
		i, ok := slices.BinarySearchFunc(list, name, func(e history.Entry, name string) int { return strings.Compare(e.Name, name) })
		if !ok {
			return e, in, false, nil
		}
		e = list[i]
	}
	return e, in, true, nil
}

// present returns what is at path now, as a snapshot would have it; a directory
// without its object.
func (p *past) present(at string) (e history.Entry, found bool, err error) {
	n, err := p.d.replica.Resolve(at)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, tree.ErrNotDir) {
		return e, false, nil
	}
	if err != nil {
		return e, false, err
	}
	return history.Entry{Name: n.Name, Kind: n.Kind, Mode: n.Mode, MTime: n.MTime, Size: n.Size, Ref: n.Ref, Inline: n.Inline, Author: n.Author, Ino: n.Ino}, true, nil
}

// mostRestored bounds how many files and directories one restore brings back.
const mostRestored = 10_000_000

// old returns e with all that is below it; left is how much that may be.
func (p *past) old(ctx context.Context, e history.Entry, depth int, left *int) (replica.Old, error) {
	o := replica.Old{Name: e.Name, Ino: e.Ino, Content: e.Content(), Xattrs: e.Xattrs}
	if *left--; *left < 0 || depth > history.MaxDepth {
		return o, fmt.Errorf("%s: too much, or too deep, for one restore", e.Name)
	}
	if e.Kind != tree.Dir {
		return o, nil
	}
	o.Content = tree.Content{Kind: tree.Dir, Mode: e.Mode, MTime: e.MTime}
	list, err := p.Directory(ctx, e.Object())
	for _, x := range list {
		if x.Ino == tree.Recovered {
			continue
		}
		below, err := p.old(ctx, x, depth+1, left)
		if err != nil {
			return o, err
		}
		o.Below = append(o.Below, below)
	}
	return o, err
}

var reasonWords = map[history.Reason]string{
	history.Automatic: "automatic", history.Asked: "asked for", history.BeforeRestore: "before a restore",
}

func (p *past) info(s history.Snapshot) SnapshotInfo {
	return SnapshotInfo{Time: s.Time, Name: s.Name, Snapshot: s.Title(), Reason: reasonWords[s.Reason], Device: p.author(s.Dot.Actor)}
}

func (p *past) author(a tree.Actor) *DeviceRef {
	if m, ok := p.d.replica.Author(a); ok {
		return &DeviceRef{ID: m.ID.String(), Name: m.Label}
	}
	return nil
}

// Snapshots lists the kept states of the tree; see [Historian].
func (d *live) Snapshots(context.Context) ([]SnapshotInfo, error) {
	all, err := d.past.Snapshots()
	if err != nil {
		return nil, err
	}
	out := make([]SnapshotInfo, 0, len(all))
	for _, s := range slices.Backward(all) {
		out = append(out, d.past.info(s))
	}
	return out, nil
}

// Snapshot keeps the present state of the tree; see [Historian].
func (d *live) Snapshot(ctx context.Context, name string) (SnapshotInfo, error) {
	if name != "" {
		if err := history.CheckName(name); err != nil {
			return SnapshotInfo{}, usage("%w", err)
		}
	}
	if err := d.files.Flush(ctx); err != nil { // what programs have written so far is part of it
		return SnapshotInfo{}, err
	}
	s, _, err := d.past.make(ctx, history.Asked, name)
	if err != nil {
		return SnapshotInfo{}, err
	}
	return d.past.info(s), nil
}

// Versions lists the distinct versions of a path; see [Historian].
func (d *live) Versions(ctx context.Context, at string) ([]PastVersion, error) {
	if n, err := d.replica.Resolve(at); err == nil && n.Kind == tree.File { // what a program has written so far counts
		if err := d.files.Commit(ctx, n.Ino); err != nil {
			return nil, err
		}
	}
	all, err := d.past.Snapshots()
	if err != nil {
		return nil, err
	}
	lists, cancel := context.WithTimeout(ctx, listTime)
	defer cancel()
	var out []PastVersion
	var last history.Entry
	from := map[int]origin{} // by the index in out
	add := func(e history.Entry) *PastVersion {
		v := PastVersion{Path: at, Type: kindWords[e.Kind], Size: e.Size, MTime: time.Unix(0, e.MTime).UTC(), Device: d.past.author(e.Author)}
		if e.Kind == tree.Dir {
			v.Size = 0
		}
		out, last = append(out, v), e
		return &out[len(out)-1]
	}
	if e, found, err := d.past.present(at); err != nil {
		return nil, err
	} else if found {
		v := add(e)
		v.Current = true
		if e.Kind == tree.File {
			if n, err := d.replica.Node(e.Ino); err == nil { // else it was removed meanwhile
				d.learnLists(lists, n)
				st, err := d.stateOf(n)
				if err != nil {
					return nil, err
				}
				v.State, v.LocalBytes, v.Copies = st.State, st.LocalBytes, st.Copies
			}
		}
	}
	seen := map[block.ID][]history.Entry{}
	for _, s := range slices.Backward(all) {
		e, in, found, err := d.past.find(ctx, s.Root, at, seen)
		if err != nil {
			return out, fmt.Errorf("snapshot %s: %w", s.Title(), err)
		}
		if !found {
			last = history.Entry{}
			continue
		}
		n := len(out)
		same := n > 0 && e.SameContent(&last)
		if e.Kind == tree.Dir && n == 1 && out[0].Current && last.Kind == tree.Dir && last.Ref.ID.IsZero() {
			same, last = true, e // nothing tells whether a directory is as it was when the newest snapshot was made
		}
		v := (*PastVersion)(nil)
		if same {
			v = &out[n-1]
		} else {
			v = add(e)
		}
		if v.Time == nil {
			t := s.Time
			v.Time, v.Snapshot, v.Name = &t, s.Title(), s.Name
		}
		if e.Kind == tree.File && !v.Current {
			from[len(out)-1] = origin{e, in, s.Dot} // of the oldest that has it: most devices know that
		}
	}
	if len(out) == 0 {
		return nil, nothingThere(at)
	}
	for i, o := range from {
		if err := d.past.where(lists, &out[i], o); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// origin is a file of a snapshot, the directory it is in, and the commit that the
// snapshot came with.
type origin struct {
	file history.Entry
	in   history.Object
	dot  tree.Dot
}

// where says in v where the content of an old version is. Another device has a copy
// if it holds all of it and knows the snapshot.
func (p *past) where(ctx context.Context, v *PastVersion, o origin) error {
	d := p.d
	n := tree.Node{Ino: o.file.Ino, Kind: o.file.Kind, Size: o.file.Size, Ref: o.file.Ref, Base: []tree.Dot{o.dot}}
	inline := n.Ref.ID.IsZero()
	if inline { // then its directory has it
		n.Ref, n.Size = o.in.Ref, o.in.Size
	}
	d.learnLists(ctx, n)
	w, err := d.keeper.Where(copies.RefOf(n), nil)
	if err != nil {
		return err
	}
	whole := w.Listed && w.Missing == 0
	v.LocalBytes, v.Copies = w.Local, len(d.others(n, w))
	if inline {
		v.LocalBytes = 0
	}
	switch {
	case whole:
		v.State, v.LocalBytes, v.Copies = StateHere, o.file.Size, v.Copies+1
	case !d.reachable(w):
		v.State = StateUnavailable
	case v.LocalBytes > 0:
		v.State = StatePartly
	default:
		v.State = StateElsewhere
	}
	return nil
}

func nothingThere(at string) error {
	return failure(CodeNotFound, "`roam snapshots` lists the states that are kept", "%s: neither there now nor in any snapshot", at)
}

// choose finds the version of at that when means.
func (p *past) choose(ctx context.Context, at, when string) (s history.Snapshot, e history.Entry, err error) {
	all, err := p.Snapshots()
	if err != nil {
		return s, e, err
	}
	seen := map[block.ID][]history.Entry{}
	if when != "" {
		s, found, _ := history.Find(all, when, time.Now())
		if !found {
			return s, e, failure(CodeNotFound, "`roam snapshots` lists those that there are", "no snapshot is as old as %s, or called so", clip(when))
		}
		e, found, err := p.lookup(ctx, s.Root, at, seen)
		if err == nil && !found {
			err = failure(CodeNotFound, "`roam versions` lists the versions that there are", "%s: not in the snapshot %s", at, s.Title())
		}
		return s, e, err
	}
	now, exists, err := p.present(at)
	if err != nil {
		return s, e, err
	}
	for _, s := range slices.Backward(all) {
		e, found, err := p.lookup(ctx, s.Root, at, seen)
		if err != nil {
			return s, e, err
		}
		if found && (!exists || e.Kind == tree.Dir || !e.SameContent(&now)) {
			return s, e, nil
		}
	}
	return s, e, failure(CodeNotFound, "`roam versions` lists the versions that there are", "%s: no snapshot has another version", at)
}

// Restore brings a path back as it was; see [Historian].
func (d *live) Restore(ctx context.Context, at, when, to string) (Restored, error) {
	if when == "" { // a name may have an @ in it
		at, when = d.past.split(at)
	}
	if to == "" {
		to = at
	}
	if err := d.files.Flush(ctx); err != nil {
		return Restored{}, err
	}
	defer d.past.begin()() // what is chosen stays, whoever removes its snapshot
	s, e, err := d.past.choose(ctx, at, when)
	if err != nil {
		return Restored{}, err
	}
	left := mostRestored
	old, err := d.past.old(ctx, e, 0, &left)
	if err != nil {
		return Restored{}, err
	}
	// What is there now stays to be had.
	if _, _, err := d.past.makeLocked(ctx, history.BeforeRestore, ""); err != nil {
		return Restored{}, err
	}
	done, err := d.past.put(ctx, s, old, to)
	if errors.Is(err, replica.ErrInTheWay) {
		return Restored{}, failure(CodeFailed, "put it somewhere else with --to PATH", "%w", err)
	}
	if err != nil {
		return Restored{}, err
	}
	return Restored{Path: to, Snapshot: s.Title(), Time: s.Time, Files: done.Files, Dirs: done.Dirs, Same: done.Same}, nil
}

// split takes PATH@WHEN apart. What follows the last @ is a part of the name if
// it means no time and no snapshot, or if there is something with that name.
func (p *past) split(at string) (file, when string) {
	i := strings.LastIndexByte(at, '@')
	if i < 0 || strings.IndexByte(at[i:], '/') >= 0 {
		return at, ""
	}
	all, err := p.Snapshots()
	if err != nil {
		return at, ""
	}
	file = path.Clean(at[:i])
	if _, _, understood := history.Find(all, at[i+1:], time.Now()); !understood {
		return at, ""
	}
	if _, exists, err := p.present(at); err == nil && exists {
		if _, err := p.d.replica.Resolve(file); err != nil {
			return at, ""
		}
	}
	return file, at[i+1:]
}

// put puts old, which is from s, at the path to. Directories that lead there
// and are missing are made, as they were in s if it has them.
func (p *past) put(ctx context.Context, s history.Snapshot, old replica.Old, to string) (replica.Restored, error) {
	r := p.d.replica
	if to == "/" {
		if old.Content.Kind != tree.Dir {
			return replica.Restored{}, failure(CodeUsage, "name the file that it is to be", "only a folder can be restored to the root")
		}
		return r.Restore(tree.Root, old.Below...)
	}
	dir, name := path.Split(to)
	if tree.CheckName(name) != nil {
		return replica.Restored{}, usage("%q cannot be a name", clip(name))
	}
	old.Name = name
	seen := map[block.ID][]history.Entry{}
	for {
		dir = path.Clean(dir)
		n, err := r.Resolve(dir)
		if err == nil && n.Kind != tree.Dir {
			err = tree.ErrNotDir
		}
		if err == nil {
			return r.Restore(n.Ino, old)
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return replica.Restored{}, err
		}
		up := replica.Old{Name: path.Base(dir), Content: tree.Content{Kind: tree.Dir, Mode: tree.DirMode, MTime: s.Time.UnixNano()}, Below: []replica.Old{old}}
		if e, found, err := p.lookup(ctx, s.Root, dir, seen); err == nil && found && e.Kind == tree.Dir {
			up.Content.Mode, up.Content.MTime, up.Xattrs = e.Mode, e.MTime, e.Xattrs
		}
		old, dir = up, path.Dir(dir)
	}
}
