package app

import (
	"context"
	"errors"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/roamfs/roamfs/fs/mount"
	"github.com/roamfs/roamfs/peer/device"
	"github.com/roamfs/roamfs/sync/block"
	"github.com/roamfs/roamfs/sync/copies"
	"github.com/roamfs/roamfs/sync/tree"
)

// List calls fn for the entries at name; see [Device].
func (d *live) List(ctx context.Context, name string, fn func(Entry) error) error {
	n, err := d.replica.Resolve(name)
	if err != nil {
		return err
	}
	if n.Kind != tree.Dir {
		e, err := d.entry(name, n)
		if err != nil {
			return err
		}
		return fn(e)
	}
	list, err := d.replica.List(n.Ino)
	if err != nil {
		return err
	}
	lists, cancel := context.WithTimeout(ctx, listTime)
	defer cancel()
	for _, e := range list {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := d.replica.Node(e.Ino)
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed meanwhile
		}
		if err != nil {
			return err
		}
		n.Conflict = n.Conflict || e.Conflict
		d.learnLists(lists, n)
		line, err := d.entry(path.Join("/", name, e.Name), n)
		if err != nil {
			return err
		}
		if err := fn(line); err != nil {
			return err
		}
	}
	return nil
}

// listTime bounds how long a listing waits altogether for the lists of the
// blocks of its files, without which nobody can tell who has all of them.
const listTime = 2 * time.Second

// learnLists brings the lists of a file here if another device may have them.
func (d *live) learnLists(ctx context.Context, n tree.Node) {
	if n.Ref.Depth == 0 || len(d.host.Connected()) == 0 || ctx.Err() != nil {
		return
	}
	if err := d.keeper.Learn(ctx, copies.RefOf(n)); err != nil {
		d.log.Debug("list of a file", "inode", n.Ino, "err", err)
	}
}

var kindWords = map[tree.Kind]string{tree.File: "file", tree.Dir: "dir", tree.Symlink: "symlink", tree.Fifo: "fifo"}

// entry describes an inode under a name.
func (d *live) entry(name string, n tree.Node) (Entry, error) {
	n, shown, _ := d.stat(n)
	e := Entry{
		Path: path.Join("/", name), Type: kindWords[n.Kind], Size: shown.Size,
		MTime: time.Unix(0, shown.MTime).UTC(), Conflict: n.Conflict,
	}
	st, err := d.stateOf(n)
	e.State, e.LocalBytes, e.Copies = st.State, st.LocalBytes, st.Copies
	return e, err
}

// stat returns a node as it is committed, as it is shown with what is being
// written to it, and whether the two differ.
func (d *live) stat(n tree.Node) (committed, shown tree.Node, drafted bool) {
	shown = d.files.Stat(n)
	if !slices.Equal(n.Base, shown.Base) || n.Ref != shown.Ref {
		return shown, shown, false // it was committed since n was read
	}
	return n, shown, shown.Size != n.Size || shown.MTime != n.MTime
}

// stateOf says where an inode's content is, in the words of the command line.
func (d *live) stateOf(n tree.Node) (mount.State, error) {
	n, shown, drafted := d.stat(n)
	if n.Kind == tree.Dir {
		return mount.State{State: StateHere, Copies: 1 + len(d.others(n, copies.Where{}))}, nil
	}
	w, err := d.keeper.Where(copies.RefOf(n), nil)
	if err != nil {
		return mount.State{}, err
	}
	s := mount.State{LocalBytes: w.Local}
	whole := n.Ref.ID.IsZero() || (w.Listed && w.Missing == 0)
	others := d.others(n, w)
	if drafted { // what is new is nowhere else
		s.LocalBytes = shown.Size
		if !whole {
			s.LocalBytes = min(w.Local, shown.Size)
		}
		others = nil
	}
	for _, dev := range others {
		s.Where = append(s.Where, d.name(dev))
	}
	s.Copies = len(others)
	if whole {
		s.Copies++
		s.Where = append(s.Where, d.name(d.self.ID))
	}
	slices.Sort(s.Where)
	switch {
	case n.Conflict:
		s.State = StateConflict
	case drafted, whole && len(others) == 0 && len(d.id.members.Members()) > 1:
		s.State = StateWaiting
	case whole:
		s.State = StateHere
	case !d.reachable(w):
		s.State = StateUnavailable
	case w.Local > 0:
		s.State = StatePartly
	default:
		s.State = StateElsewhere
	}
	return s, nil
}

// others returns the other devices that have all of a content, of which w tells
// where its blocks are: one that has the blocks must know the tree as well.
func (d *live) others(n tree.Node, w copies.Where) []device.ID {
	if len(n.Base) == 0 && d.replica.Unshared() {
		return nil // it may be part of what they do not know
	}
	know := d.replica.Knowing(n.Base...)
	if n.Ref.ID.IsZero() { // travels with the tree
		return know
	}
	return slices.DeleteFunc(know, func(dev device.ID) bool { return !w.Holders[dev].Complete })
}

// reachable tells whether a device that holds, or should hold, what is missing
// here is connected.
func (d *live) reachable(w copies.Where) bool {
	for _, dev := range d.host.Connected() {
		if _, ok := w.Holders[dev]; ok {
			return true
		}
		if m, ok := d.id.members.Member(dev); ok && m.Role == device.Archive {
			return true
		}
	}
	return false
}

// verifyTime bounds how long a device is given to answer what it holds.
const verifyTime = 5 * time.Second

// Whereis tells which devices hold name; see [Device].
func (d *live) Whereis(ctx context.Context, name string, verify bool) (Whereis, error) {
	top, err := d.replica.Resolve(name)
	if err != nil {
		return Whereis{}, err
	}
	out := Whereis{Path: path.Join("/", name)}
	sums := map[device.ID]*Holder{d.self.ID: {DeviceRef: d.ref(d.self.ID), This: true}}
	files, asks := 0, 0
	complete := map[device.ID]int{}
	some := map[device.ID]bool{} // has a part, of whatever size
	answers := map[device.ID]int{}
	lists, cancel := context.WithTimeout(ctx, verifyTime) // for all of them
	defer cancel()
	add := func(n tree.Node) error {
		n, shown, drafted := d.stat(n)
		files++
		out.Size += shown.Size
		if n.Ref.ID.IsZero() {
			out.LocalBytes += shown.Size
			sums[d.self.ID].Bytes += shown.Size
			complete[d.self.ID]++
			if drafted {
				return nil // what is being written is nowhere else
			}
			for _, dev := range d.others(n, copies.Where{}) {
				holderOf(sums, d, dev).Bytes += n.Size
				complete[dev]++
			}
			return nil
		}
		d.learnLists(lists, n)
		var ask func([]block.ID) map[device.ID][]bool
		if verify {
			ask = func(ids []block.ID) map[device.ID][]bool {
				ans := d.ask(ctx, ids)
				asks++
				for dev := range ans {
					answers[dev]++
				}
				return ans
			}
		}
		w, err := d.keeper.Where(copies.RefOf(n), ask)
		if err != nil {
			return err
		}
		out.LocalBytes += w.Local
		sums[d.self.ID].Bytes += w.Local
		if w.Listed && w.Missing == 0 {
			complete[d.self.ID]++
		}
		for dev, held := range w.Holders {
			holderOf(sums, d, dev).Bytes += held.Bytes
			some[dev] = true
		}
		if drafted {
			return nil
		}
		for _, dev := range d.others(n, w) {
			complete[dev]++
		}
		return nil
	}
	if err := d.walk(ctx, top, add); err != nil {
		return out, err
	}
	heard := map[device.ID]time.Time{}
	for _, p := range d.exchange.Peers() {
		heard[p.ID] = p.LastSeen
	}
	for dev, h := range sums {
		h.Complete = complete[dev] == files
		if h.Bytes == 0 && !h.Complete && !some[dev] {
			continue
		}
		if h.Complete && files > 0 {
			out.Copies++
		}
		if dev != d.self.ID {
			h.Verified = asks > 0 && answers[dev] == asks
			if t := heard[dev]; !t.IsZero() {
				h.AsOf = new(t.UTC())
			}
		}
		out.Holders = append(out.Holders, *h)
	}
	slices.SortFunc(out.Holders, func(a, b Holder) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

func holderOf(sums map[device.ID]*Holder, d *live, dev device.ID) *Holder {
	h := sums[dev]
	if h == nil {
		h = &Holder{DeviceRef: d.ref(dev), This: dev == d.self.ID}
		sums[dev] = h
	}
	return h
}

// walk calls fn for each regular file at or below n, each once.
func (d *live) walk(ctx context.Context, n tree.Node, fn func(tree.Node) error) error {
	if n.Kind == tree.File {
		return fn(n)
	}
	if n.Kind != tree.Dir {
		return nil
	}
	list, err := d.replica.List(n.Ino)
	if err != nil {
		return err
	}
	for _, e := range list {
		if err := ctx.Err(); err != nil {
			return err
		}
		c, err := d.replica.Node(e.Ino)
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed meanwhile
		}
		if err != nil {
			return err
		}
		if err := d.walk(ctx, c, fn); err != nil {
			return err
		}
	}
	return nil
}

// ask asks every connected device which of ids it holds now.
func (d *live) ask(ctx context.Context, ids []block.ID) map[device.ID][]bool {
	ctx, cancel := context.WithTimeout(ctx, verifyTime)
	defer cancel()
	out := map[device.ID][]bool{}
	for _, dev := range d.host.Connected() {
		has, err := d.exchange.Ask(ctx, dev, ids)
		if err != nil {
			d.log.Info("device did not answer what it holds", "device", d.name(dev), "err", err)
			continue
		}
		out[dev] = has
	}
	return out
}

// shown answers what programs in a mount ask.
type shown struct{ d *live }

var _ mount.Status = shown{}

func (s shown) State(ino tree.Ino) (mount.State, error) {
	n, err := s.d.replica.Node(ino)
	if err != nil {
		return mount.State{}, err
	}
	return s.d.stateOf(n)
}
