package replica

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/roamfs/roamfs/peer/device"
	"github.com/roamfs/roamfs/sync/tree"
)

// Dispute is a name that several versions want: the one that has it, if there is
// still one, and the conflict copies beside it.
type Dispute struct {
	Path     string // of the name
	Versions []Version
}

// Version is a file or directory of a [Dispute].
type Version struct {
	tree.Node
	Path   string
	Copy   bool
	Author device.Member // zero if it is not known any more; of a directory never known
}

// Keep says how a dispute is settled.
type Keep int

// The ways to settle a dispute. Mine and theirs need exactly one version of
// that kind.
const (
	KeepBoth   Keep = iota // all versions stay, as ordinary files of their own
	KeepMine               // the version that was made on this device stays, alone
	KeepTheirs             // the version that was made on another device stays, alone
)

var (
	// ErrNoDispute means that a path is in no conflict.
	ErrNoDispute = errors.New("there is no conflict")

	// ErrUndecided means that [KeepMine] or [KeepTheirs] does not name one version.
	ErrUndecided = errors.New("it does not say which version is kept")
)

// Disputes returns every dispute, sorted by path.
func (r *Replica) Disputes() ([]Dispute, error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.disputesLocked()
}

func (r *Replica) disputesLocked() ([]Dispute, error) {
	copies, err := r.view.Conflicts()
	if err != nil {
		return nil, err
	}
	var out []Dispute
	at := map[tree.Place]int{}
	for _, c := range copies {
		plain, _, _, ok := tree.PlainName(c.Name)
		if !ok {
			plain = c.Name
		}
		p := tree.Place{Parent: c.Parent, Name: plain}
		i, known := at[p]
		if !known {
			i = len(out)
			at[p] = i
			out = append(out, Dispute{Path: path.Join(path.Dir(c.Path), plain)})
			if plain != c.Name {
				if err := r.addVersionLocked(&out[i], c.Parent, plain, false); err != nil && !errors.Is(err, fs.ErrNotExist) {
					return nil, err
				}
			}
		}
		if err := r.addVersionLocked(&out[i], c.Parent, c.Name, true); err != nil {
			return nil, err
		}
	}
	slices.SortFunc(out, func(a, b Dispute) int { return strings.Compare(a.Path, b.Path) })
	return out, nil
}

func (r *Replica) addVersionLocked(d *Dispute, dir tree.Ino, name string, isCopy bool) error {
	n, err := r.lookupLocked(dir, name)
	if err != nil {
		return err
	}
	n.Parent, n.Name = dir, name
	v := Version{Node: n, Path: path.Join(path.Dir(d.Path), name), Copy: isCopy}
	if n.Kind != tree.Dir {
		v.Author = r.writer(n, isCopy)
	}
	d.Versions = append(d.Versions, v)
	return nil
}

// writer returns the device that wrote the content of n. A copy that was given
// its records by an operation near it has them from the device that did that;
// its name says who wrote it.
func (r *Replica) writer(n tree.Node, isCopy bool) device.Member {
	if _, origin, _, ok := tree.PlainName(n.Name); ok && isCopy {
		label, _, _ := strings.Cut(origin, " ")
		var found []device.Member // two may have joined under one name at once
		for _, m := range r.cfg.Members.Members() {
			if m.Enrolled == label {
				found = append(found, m)
			}
		}
		if len(found) == 1 {
			return found[0]
		}
	}
	m, _ := r.Author(n.Author)
	return m
}

// Settle ends the dispute to which the file at name belongs, in one step: either
// all of it happens or nothing. It returns the versions that stay, by
// their new paths, and those that were removed. Errors: [fs.ErrNotExist], [ErrNoDispute],
// [ErrUndecided], and [tree.ErrIsDir] if a directory would have to go.
func (r *Replica) Settle(name string, keep Keep) (kept, removed []Version, err error) {
	var aff tree.Affected
	err = func() error {
		r.mu.Lock()
		defer r.mu.Unlock()
		d, err := r.disputeLocked(name)
		if err != nil {
			return err
		}
		one := -1
		if keep != KeepBoth {
			if one, err = r.chosen(d, keep); err != nil {
				return err
			}
		}
		aff, err = r.editLocked(func(e *tree.Edit) (err error) {
			if kept, removed = nil, nil; one < 0 {
				kept, err = keepAll(e, d)
			} else {
				kept, removed, err = keepOne(e, d, one)
			}
			return err
		}, nil)
		return err
	}()
	if err != nil {
		return nil, nil, err
	}
	r.tell(aff)
	return kept, removed, nil
}

// disputeLocked finds the dispute of which one version is at name.
func (r *Replica) disputeLocked(name string) (Dispute, error) {
	all, err := r.disputesLocked()
	if err != nil {
		return Dispute{}, err
	}
	name = path.Join("/", name)
	for _, d := range all {
		if d.Path == name || slices.ContainsFunc(d.Versions, func(v Version) bool { return v.Path == name }) {
			return d, nil
		}
	}
	if _, err := r.resolveLocked(name); err != nil {
		return Dispute{}, err
	}
	return Dispute{}, ErrNoDispute
}

// chosen returns which version keep means.
func (r *Replica) chosen(d Dispute, keep Keep) (int, error) {
	one, n := -1, 0
	for i, v := range d.Versions {
		if v.Kind == tree.Dir {
			return -1, fmt.Errorf("%s: %w", v.Path, tree.ErrIsDir)
		}
		if mine := v.Author.ID == r.cfg.Key.ID(); mine == (keep == KeepMine) {
			one = i
			n++
		}
	}
	if n != 1 {
		return -1, fmt.Errorf("%w: it could be any of %d", ErrUndecided, n)
	}
	return one, nil
}

// keepOne removes every version but one, which gets the plain name.
func keepOne(e *tree.Edit, d Dispute, one int) (kept, removed []Version, err error) {
	stays := d.Versions[one]
	for i, v := range d.Versions {
		if i == one {
			continue
		}
		if v.Copy || !stays.Copy {
			if err := e.Unlink(v.Parent, v.Name); err != nil {
				return nil, nil, err
			}
		} // else the rename replaces it
		removed = append(removed, v)
	}
	if plain := path.Base(d.Path); stays.Name != plain {
		if err := e.Rename(stays.Parent, stays.Name, stays.Parent, plain, false, false); err != nil {
			return nil, nil, err
		}
		stays.Name, stays.Path, stays.Copy = plain, d.Path, false
	}
	return []Version{stays}, removed, nil
}

// keepAll gives each copy an ordinary name: the plain one if nobody has it, else
// one that says where the copy is from, without the word that makes it a conflict.
func keepAll(e *tree.Edit, d Dispute) (kept []Version, err error) {
	taken := len(d.Versions) > 0 && !d.Versions[0].Copy
	for _, v := range d.Versions {
		if !v.Copy {
			kept = append(kept, v)
			continue
		}
		names := ordinaryNames(v.Name)
		if !taken {
			names = append([]string{path.Base(d.Path)}, names...)
		}
		err := fs.ErrExist
		for _, name := range names {
			if err = e.Rename(v.Parent, v.Name, v.Parent, name, true, false); !errors.Is(err, fs.ErrExist) {
				v.Path, v.Name, v.Copy = path.Join(path.Dir(d.Path), name), name, false
				break
			}
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", v.Path, err)
		}
		taken = true
		kept = append(kept, v)
	}
	return kept, nil
}

// ordinaryNames returns names for a conflict copy that is to be an ordinary file,
// the best first.
func ordinaryNames(name string) []string {
	plain, origin, ext, ok := tree.PlainName(name)
	if !ok {
		plain, origin = name, "copy"
	}
	stem := strings.TrimSuffix(plain, ext)
	short := origin
	if i := strings.LastIndexByte(origin, ' '); i > 0 {
		short = origin[:i] // without the digits
	}
	names := []string{stem + " (" + short + ")" + ext, stem + " (" + origin + ")" + ext}
	for n := 2; n < 100; n++ {
		names = append(names, fmt.Sprintf("%s (%s %d)%s", stem, origin, n, ext))
	}
	return slices.DeleteFunc(names, func(s string) bool { return tree.CheckName(s) != nil })
}
