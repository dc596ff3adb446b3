package guard_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/roamfs/roamfs/sync/guard"
	"github.com/roamfs/roamfs/sync/manifest"
	"github.com/roamfs/roamfs/sync/tree"
)

var (
	owner = tree.Actor{1} // made the tree, long ago
	other = tree.Actor{2} // is judged
)

// world is a device's tree and its account of the other one.
type world struct {
	t       rapid.TB
	mem     *tree.Mem
	view    *tree.View
	now     time.Time
	account guard.Account
	held    bool   // some commit of the other one would have been held
	kept    [2]int // removed and rewritten, as of the last commit of the other one
}

func newWorld(t rapid.TB) *world {
	w := &world{t: t, mem: tree.NewMem(), now: time.Unix(1e9, 0)}
	w.view = must(tree.NewView(w.mem))(t)
	return w
}

func must[T any](v T, err error) func(rapid.TB) T {
	return func(t rapid.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// commit carries out operations as one commit, a second after the last.
func (w *world) commit(by tree.Actor, ops func(*tree.Edit) error) {
	w.t.Helper()
	w.now = w.now.Add(time.Second)
	wall := w.now.UnixNano()
	e := w.view.Edit(tree.Dot{Actor: by, Ctr: w.mem.Vector()[by] + 1}, 0, wall)
	if err := ops(e); err != nil {
		w.t.Fatal(err)
	}
	ch := e.Change()
	if by == other {
		w.judge(ch, wall)
	}
	p := must(w.view.Prepare(ch))(w.t)
	w.mem.Apply(ch)
	w.mem.Advance(tree.Dot{Actor: by, Ctr: w.mem.Vector()[by] + 1})
	must(p.Done())(w.t)
}

func deltaOf(ch tree.Change) manifest.Delta {
	d := manifest.Delta{Put: slices.Clone(ch.Put), Drop: slices.Clone(ch.Drop)}
	tree.SortRecords(d.Put)
	slices.SortFunc(d.Drop, tree.KeyDot.Compare)
	return d
}

func (w *world) judge(ch tree.Change, wall int64) {
	w.t.Helper()
	d := deltaOf(ch)
	w.account.Expire(wall)
	x := must(w.account.Assess(guard.Commit{Author: other, Wall: wall, Delta: d}, wall, w.mem.Records))(w.t)
	removed, rewritten := w.account.After(x)
	over := func(removed, rewritten int) bool {
		names := func(int) (int, error) { return w.names() + removed, nil }
		return must(guard.Limits{Share: guard.Share}.Over(removed, rewritten, names))(w.t)
	}
	if over(removed, rewritten) {
		after := guard.NewOverlay(w.mem)
		if err := after.Apply(d); err != nil {
			w.t.Fatal(err)
		}
		gone, changed, err := w.account.Kept(x, guard.Commit{Author: other, Wall: wall}, after)
		if err != nil {
			w.t.Fatal(err)
		}
		w.kept = [2]int{gone, changed}
		w.held = w.held || over(removed-gone, rewritten-changed)
	}
	w.account.Apply(x)
	if r, n := w.account.Count(); r != removed || n != rewritten {
		w.t.Fatalf("after the effect %d and %d, foretold %d and %d", r, n, removed, rewritten)
	}
}

func (w *world) names() (n int) {
	for _, r := range w.mem.All() {
		if r.Key.Type() == tree.TypeLink {
			n++
		}
	}
	return n
}

func text(s string) tree.Content {
	return tree.Content{Kind: tree.File, Size: int64(len(s)), Inline: []byte(s), Mode: 0o644}
}

func (w *world) dir(by tree.Actor, parent tree.Ino, name string) (ino tree.Ino) {
	w.t.Helper()
	w.commit(by, func(e *tree.Edit) (err error) { ino, err = e.Mkdir(parent, name, 0o755); return err })
	return ino
}

// each does op for 0 to n-1, many to a commit.
func (w *world) each(by tree.Actor, n int, op func(e *tree.Edit, i int) error) {
	w.t.Helper()
	const batch = 100
	for from := 0; from < n; from += batch {
		w.commit(by, func(e *tree.Edit) error {
			for i := from; i < min(n, from+batch); i++ {
				if err := op(e, i); err != nil {
					return err
				}
			}
			return nil
		})
	}
}

func create(dir tree.Ino, content string) func(*tree.Edit, int) error {
	return func(e *tree.Edit, i int) error {
		_, err := e.Create(dir, name(i), text(fmt.Sprint(content, i)))
		return err
	}
}

func unlink(dir tree.Ino) func(*tree.Edit, int) error {
	return func(e *tree.Edit, i int) error { return e.Unlink(dir, name(i)) }
}

func name(i int) string { return fmt.Sprintf("f%05d", i) }

// write gives file i new content in its place.
func (w *world) write(dir tree.Ino, content string) func(*tree.Edit, int) error {
	return func(e *tree.Edit, i int) error {
		x, err := w.view.Lookup(dir, name(i))
		if err != nil {
			return err
		}
		n, err := w.view.Node(x.Ino)
		if err != nil {
			return err
		}
		_, err = e.Write(n.Ino, n.Base, text(fmt.Sprint(content, i)))
		return err
	}
}

func TestDecisions(t *testing.T) {
	for _, test := range []struct {
		what               string
		files              int // that the owner has in one directory
		do                 func(w *world, dir tree.Ino)
		held               bool
		removed, rewritten int
	}{
		{"photo import", 100, func(w *world, _ tree.Ino) {
			w.each(other, 5000, create(w.dir(other, tree.Root, "photos"), "photo"))
		}, false, 0, 0},
		{"an import is undone", 100, func(w *world, _ tree.Ino) {
			d := w.dir(other, tree.Root, "photos")
			w.each(other, 3000, create(d, "photo"))
			w.each(other, 3000, unlink(d))
			w.commit(other, func(e *tree.Edit) error { return e.Rmdir(tree.Root, "photos") })
		}, false, 0, 0},
		{"an import is written again", 100, func(w *world, _ tree.Ino) {
			d := w.dir(other, tree.Root, "photos")
			w.each(other, 3000, create(d, "photo"))
			w.each(other, 3000, w.write(d, "better"))
		}, false, 0, 0},
		{"git checkout of a clone, back and forth", 100, func(w *world, _ tree.Ino) {
			d := w.dir(other, tree.Root, "repo")
			w.each(other, 5000, create(d, "main"))
			for _, branch := range []string{"old", "main"} {
				w.each(other, 3000, func(e *tree.Edit, i int) error {
					if err := unlink(d)(e, i); err != nil {
						return err
					}
					return create(d, branch)(e, i)
				})
			}
		}, false, 0, 0},
		{"git checkout of an old clone, back", 2000, func(w *world, d tree.Ino) {
			for _, branch := range []string{"old", "main"} {
				w.each(other, 900, func(e *tree.Edit, i int) error {
					if err := unlink(d)(e, i); err != nil {
						return err
					}
					return create(d, branch)(e, i)
				})
			}
		}, false, 0, 0},
		{"move of a folder", 1500, func(w *world, _ tree.Ino) {
			w.commit(other, func(e *tree.Edit) error { return e.Rename(tree.Root, "d", tree.Root, "elsewhere", false, false) })
		}, false, 0, 0},
		{"move of each file", 1500, func(w *world, d tree.Ino) {
			to := w.dir(other, tree.Root, "elsewhere")
			w.each(other, 1500, func(e *tree.Edit, i int) error { return e.Rename(d, name(i), to, name(i), false, false) })
		}, false, 0, 0},
		{"deletion of half of the tree", 2600, func(w *world, d tree.Ino) { w.each(other, 1300, unlink(d)) }, true, 1300, 0},
		{"encryption in place of everything", 1300, func(w *world, d tree.Ino) { w.each(other, 1300, w.write(d, "ransom")) }, true, 0, 1300},
		{"rm -rf of 15 percent", 10000, func(w *world, d tree.Ino) { w.each(other, 1500, unlink(d)) }, true, 1500, 0},
		{"rm -rf of 9 percent", 13000, func(w *world, d tree.Ino) { w.each(other, 1170, unlink(d)) }, false, 1170, 0},
		{"900 files are deleted", 1000, func(w *world, d tree.Ino) { w.each(other, 900, unlink(d)) }, false, 900, 0},
		{"slowly deleted", 3000, func(w *world, d tree.Ino) {
			w.each(other, 900, unlink(d))
			w.now = w.now.Add(guard.Window)
			w.each(other, 900, func(e *tree.Edit, i int) error { return unlink(d)(e, i+900) })
		}, false, 900, 0},
		{"ransom: rewrite and rename", 3000, func(w *world, d tree.Ino) {
			w.each(other, 3000, w.write(d, "ransom"))
			w.each(other, 3000, func(e *tree.Edit, i int) error { return e.Rename(d, name(i), d, name(i)+".enc", false, false) })
		}, true, 0, 3000},
		{"ransom: a new file for each", 1200, func(w *world, d tree.Ino) {
			w.each(other, 1200, func(e *tree.Edit, i int) error {
				if _, err := e.Create(d, name(i)+".enc", text("ransom")); err != nil {
					return err
				}
				return unlink(d)(e, i)
			})
		}, true, 1200, 0},
		{"save by rename", 2000, func(w *world, d tree.Ino) {
			w.each(other, 900, func(e *tree.Edit, i int) error {
				if _, err := e.Create(d, "tmp", text(fmt.Sprint("new", i))); err != nil {
					return err
				}
				return e.Rename(d, "tmp", d, name(i), false, false)
			})
		}, false, 0, 900},
		{"save by rename of a fifth and more", 2000, func(w *world, d tree.Ino) {
			w.each(other, 2000, func(e *tree.Edit, i int) error {
				if _, err := e.Create(d, "tmp", text(fmt.Sprint("new", i))); err != nil {
					return err
				}
				return e.Rename(d, "tmp", d, name(i), false, false)
			})
		}, true, 0, 2000},
		{"one file is written over and over", 100, func(w *world, d tree.Ino) {
			for v := range 1500 {
				w.commit(other, func(e *tree.Edit) error { return w.write(d, fmt.Sprint(v))(e, 0) })
			}
		}, false, 0, 1},
		{"removed and put back", 1500, func(w *world, d tree.Ino) {
			w.each(other, 900, unlink(d))
			w.each(other, 900, create(d, "x"))
		}, false, 0, 0},
	} {
		t.Run(test.what, func(t *testing.T) {
			w := newWorld(t)
			d := w.dir(owner, tree.Root, "d")
			content := "x"
			if test.what == "git checkout of an old clone, back" {
				content = "main"
			}
			w.each(owner, test.files, create(d, content))
			w.now = w.now.Add(24 * time.Hour)
			test.do(w, d)
			removed, rewritten := w.account.Count()
			if w.held != test.held || removed != test.removed || rewritten != test.rewritten {
				t.Fatalf("held %v with %d removed and %d rewritten, want %v, %d and %d", w.held, removed, rewritten, test.held, test.removed, test.rewritten)
			}
		})
	}
}

func TestLimits(t *testing.T) {
	for _, test := range []struct {
		share, removed, rewritten, names int
		over                             bool
	}{
		{10, 1000, 1000, 0, false},
		{10, 1001, 0, 1001, true},
		{10, 1001, 0, 10010, false},
		{10, 1002, 0, 10010, true},
		{10, 0, 1001, 5000, true},
		{10, 0, 2000, 10000, false},
		{10, 0, 2001, 10000, true},
		{0, 1 << 30, 1 << 30, 1, false},
		{100, 5000, 0, 5000, false},
	} {
		over := must(guard.Limits{Share: test.share}.Over(test.removed, test.rewritten, func(enough int) (int, error) { return min(test.names, enough), nil }))(t)
		if over != test.over {
			t.Errorf("%+v: over is %v", test, over)
		}
	}
}

// TestAccount compares the account with what is gone from a plain map, whatever
// the other one does, in commits of any size. Files that the other one made do not count.
func TestAccount(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		d := w.dir(owner, tree.Root, "d")
		const files = 6
		w.each(owner, files, create(d, "x"))
		w.now = w.now.Add(24 * time.Hour)
		was := map[string]string{}
		for i := range files {
			was[name(i)] = fmt.Sprint("x", i)
		}
		is := map[string]string{}
		for k, v := range was {
			is[k] = v
		}
		for range rapid.IntRange(1, 12).Draw(t, "commits") {
			w.commit(other, func(e *tree.Edit) error {
				touched := map[string]bool{}
				for range rapid.IntRange(1, 4).Draw(t, "operations") {
					i := rapid.IntRange(0, files-1).Draw(t, "file")
					n := name(i)
					if touched[n] {
						continue
					}
					touched[n] = true
					content := rapid.SampledFrom([]string{"x", "y", "z"}).Draw(t, "content")
					if _, ok := is[n]; !ok {
						is[n] = fmt.Sprint(content, i)
						if err := create(d, content)(e, i); err != nil {
							return err
						}
						continue
					}
					switch rapid.IntRange(0, 2).Draw(t, "operation") {
					case 0:
						delete(is, n)
						if err := unlink(d)(e, i); err != nil {
							return err
						}
					case 1:
						is[n] = fmt.Sprint(content, i)
						if err := w.write(d, content)(e, i); err != nil {
							return err
						}
					case 2: // save by rename
						is[n] = fmt.Sprint(content, i)
						if _, err := e.Create(d, "tmp", text(is[n])); err != nil {
							return err
						}
						if err := e.Rename(d, "tmp", d, n, false, false); err != nil {
							return err
						}
					}
				}
				return nil
			})
			removed, rewritten := 0, 0
			for n, old := range was {
				if now, ok := is[n]; !ok {
					removed++
				} else if now != old {
					rewritten++
				}
			}
			if r, x := w.account.Count(); r != removed || x != rewritten {
				t.Fatalf("%d removed and %d rewritten, the account has %d and %d", removed, rewritten, r, x)
			}
		}
	})
}
