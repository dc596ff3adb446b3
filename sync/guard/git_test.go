package guard_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/roamfs/roamfs/sync/block"
	"github.com/roamfs/roamfs/sync/guard"
	"github.com/roamfs/roamfs/sync/tree"
)

// clone is a git repository with a work tree of tracked files in src, and as many
// loose objects.
type clone struct {
	w                                         *world
	top, git, objects, loose, pack, heads, at tree.Ino
}

const tracked = 1500

// sized is a content of so many bytes.
func sized(what string, size int64) tree.Content {
	return tree.Content{Kind: tree.File, Size: size, Ref: tree.Ref{ID: block.Sum([]byte(what))}, Mode: 0o644}
}

func newClone(w *world, by tree.Actor, parent tree.Ino) *clone {
	w.t.Helper()
	c := &clone{w: w, top: parent}
	c.at = w.dir(by, c.top, "src")
	w.each(by, tracked, create(c.at, "main"))
	c.git = w.dir(by, c.top, ".git")
	c.objects = w.dir(by, c.git, "objects")
	c.loose, c.pack = w.dir(by, c.objects, "5f"), w.dir(by, c.objects, "pack")
	c.heads = w.dir(by, w.dir(by, c.git, "refs"), "heads")
	w.each(by, tracked, create(c.loose, "object"))
	c.add(by, c.git, "HEAD", text("ref: refs/heads/main"))
	c.add(by, c.git, "index", sized("index", tracked*80))
	return c
}

func (c *clone) add(by tree.Actor, dir tree.Ino, name string, content tree.Content) {
	c.w.t.Helper()
	c.w.commit(by, func(e *tree.Edit) error { _, err := e.Create(dir, name, content); return err })
}

// save replaces a file as git does.
func (c *clone) save(dir tree.Ino, name string, content tree.Content) {
	c.w.t.Helper()
	c.add(other, dir, name+".lock", content)
	c.w.commit(other, func(e *tree.Edit) error { return e.Rename(dir, name+".lock", dir, name, false, false) })
}

// checkout makes the work tree that of another branch: a part of the files is removed, the
// rest rewritten.
func (c *clone) checkout(removed int, index int64) {
	c.w.t.Helper()
	c.add(other, c.git, "index.lock", text(""))
	c.w.each(other, tracked, func(e *tree.Edit, i int) error {
		if err := unlink(c.at)(e, i); err != nil || i < removed {
			return err
		}
		return create(c.at, "branch")(e, i)
	})
	c.w.commit(other, func(e *tree.Edit) error {
		x, err := c.w.view.Lookup(c.git, "index.lock")
		if err != nil {
			return err
		}
		if _, err = e.Write(x.Ino, nil, sized("new index", index)); err != nil {
			return err
		}
		return e.Rename(c.git, "index.lock", c.git, "index", false, false)
	})
	c.save(c.git, "HEAD", text("ref: refs/heads/branch"))
}

func (c *clone) encrypt(dir tree.Ino, n int) {
	c.w.t.Helper()
	c.w.each(other, n, c.w.write(dir, "ransom"))
}

func (c *clone) rewrite(dir tree.Ino, name string) {
	c.w.t.Helper()
	c.w.commit(other, func(e *tree.Edit) error {
		x, err := c.w.view.Lookup(dir, name)
		if err != nil {
			return err
		}
		n, err := c.w.view.Node(x.Ino)
		if err != nil {
			return err
		}
		_, err = e.Write(n.Ino, n.Base, text("ransom"))
		return err
	})
}

func TestGit(t *testing.T) {
	made := newWorld(t)
	made.each(owner, 1200, create(made.dir(owner, tree.Root, "d"), "x"))
	repo := newClone(made, owner, made.dir(owner, tree.Root, "repo"))
	made.each(owner, 400, create(repo.heads, "branch"))
	made.now = made.now.Add(24 * time.Hour)
	for _, test := range []struct {
		what string
		do   func(c *clone)
		held bool
	}{
		{"checkout of an old clone", func(c *clone) { c.checkout(200, tracked*80) }, false},
		{"checkout of a branch with nothing in it", func(c *clone) { c.checkout(tracked, 100) }, false},
		{"checkout after a status that wrote the index", func(c *clone) {
			c.save(c.git, "index", sized("fresh", tracked*80))
			c.checkout(tracked, 100)
		}, false},
		{"checkout in a clone that was moved", func(c *clone) {
			c.w.commit(other, func(e *tree.Edit) error { return e.Rename(tree.Root, "repo", tree.Root, "moved", false, false) })
			c.checkout(200, tracked*80)
		}, false},
		{"checkout, then all branches are packed", func(c *clone) {
			c.checkout(200, tracked*80)
			c.save(c.git, "packed-refs", text("all of them"))
			c.w.each(other, 400, unlink(c.heads))
		}, false},
		{"checkout, then hundreds of branches are deleted", func(c *clone) {
			c.checkout(200, tracked*80)
			c.w.each(other, 400, unlink(c.heads))
		}, true},
		{"git gc", func(c *clone) {
			c.add(other, c.pack, "pack-1.pack", sized("pack", 1<<20))
			c.add(other, c.pack, "pack-1.idx", sized("idx", 1072+28*tracked))
			c.w.each(other, tracked, unlink(c.loose))
			c.w.commit(other, func(e *tree.Edit) error { return e.Rmdir(c.objects, "5f") })
		}, false},
		{"git gc in the middle of a checkout", func(c *clone) {
			c.add(other, c.pack, "pack-1.pack", sized("pack", 1<<20))
			c.add(other, c.pack, "pack-1.idx", sized("idx", 1072+28*tracked))
			c.w.each(other, tracked, unlink(c.loose))
			c.checkout(200, tracked*80)
		}, false},
		{"git gc, then the new pack is encrypted in its place", func(c *clone) {
			c.add(other, c.pack, "pack-1.pack", sized("pack", 1<<20))
			c.add(other, c.pack, "pack-1.idx", sized("idx", 1072+28*tracked))
			c.w.each(other, tracked, unlink(c.loose))
			c.w.now = c.w.now.Add(2 * time.Minute)
			c.rewrite(c.pack, "pack-1.pack")
		}, true},
		{"git gc, then the new pack is removed", func(c *clone) {
			c.add(other, c.pack, "pack-1.idx", sized("idx", 1072+28*tracked))
			c.w.each(other, tracked, unlink(c.loose))
			c.w.commit(other, func(e *tree.Edit) error { return e.Unlink(c.pack, "pack-1.idx") })
			c.w.each(other, 1, unlink(c.at))
		}, true},
		{"objects are removed and an old pack is copied over itself", func(c *clone) {
			idx := sized("idx", 1072+28*tracked)
			c.add(owner, c.pack, "pack-0.idx", idx)
			c.w.now = c.w.now.Add(24 * time.Hour)
			c.save(c.pack, "pack-0.idx", idx)
			c.w.each(other, tracked, unlink(c.loose))
		}, true},
		{"objects are removed and an old pack is copied over itself, all at once", func(c *clone) {
			idx := sized("idx", 1072+28*tracked)
			c.add(owner, c.pack, "pack-0.idx", idx)
			c.w.now = c.w.now.Add(24 * time.Hour)
			c.w.commit(other, func(e *tree.Edit) error {
				if _, err := e.Create(c.pack, "lock", idx); err != nil {
					return err
				}
				if err := e.Rename(c.pack, "lock", c.pack, "pack-0.idx", false, false); err != nil {
					return err
				}
				for i := range tracked {
					if err := unlink(c.loose)(e, i); err != nil {
						return err
					}
				}
				return nil
			})
		}, true},
		{"objects are removed and a small pack is added", func(c *clone) {
			c.add(other, c.pack, "pack-1.idx", sized("idx", 1072+28*100))
			c.w.each(other, tracked, unlink(c.loose))
		}, true},
		{"objects are removed", func(c *clone) { c.w.each(other, tracked, unlink(c.loose)) }, true},
		{"checkout, then objects are removed", func(c *clone) {
			c.checkout(200, tracked*80)
			c.w.each(other, 10, unlink(c.loose))
		}, true},
		{"rm -rf of the work tree", func(c *clone) { c.w.each(other, tracked, unlink(c.at)) }, true},
		{"rm -rf of the clone after a commit", func(c *clone) {
			c.save(c.git, "index", sized("fresh", tracked*80))
			c.w.each(other, tracked, unlink(c.loose))
			c.w.each(other, tracked, unlink(c.at))
		}, true},
		{"rm -rf elsewhere after a commit", func(c *clone) {
			c.save(c.git, "index", sized("fresh", tracked*80))
			x, err := c.w.view.Lookup(tree.Root, "d")
			if err != nil {
				c.w.t.Fatal(err)
			}
			c.w.each(other, 1200, unlink(x.Ino))
		}, true},
		{"encryption in place, the index first", func(c *clone) {
			c.rewrite(c.git, "index")
			c.encrypt(c.at, tracked)
			c.encrypt(c.loose, tracked)
		}, true},
		{"encryption in place of the work tree and the index, the objects resist", func(c *clone) {
			c.rewrite(c.git, "index")
			c.encrypt(c.at, tracked)
		}, true},
		{"encryption in place of everything after a commit", func(c *clone) {
			c.save(c.git, "index", sized("fresh", tracked*80))
			c.encrypt(c.at, tracked)
			c.encrypt(c.loose, 1)
		}, true},
		{"encryption of the work tree by rename of each file, and of a pack", func(c *clone) {
			c.save(c.git, "index", sized("fresh", tracked*80))
			for i := range 1200 {
				c.save(c.at, name(i), text("ransom"))
			}
			c.save(c.loose, name(1), text("ransom"))
		}, true},
		{"encryption in place of the work tree and HEAD after a commit", func(c *clone) {
			c.save(c.git, "index", sized("fresh", tracked*80))
			c.encrypt(c.at, tracked)
			c.rewrite(c.git, "HEAD")
		}, true},
		{"the objects are moved away after a checkout", func(c *clone) {
			c.checkout(200, tracked*80)
			c.w.commit(other, func(e *tree.Edit) error { return e.Rename(c.git, "objects", tree.Root, "elsewhere", false, false) })
			c.w.each(other, 10, func(e *tree.Edit, i int) error { return unlink(c.at)(e, tracked-1-i) })
		}, true},
		{"the repository is removed after a checkout", func(c *clone) {
			c.checkout(200, tracked*80)
			c.w.commit(other, func(e *tree.Edit) error { return e.Rename(c.top, ".git", tree.Root, "elsewhere", false, false) })
			c.w.each(other, 10, func(e *tree.Edit, i int) error { return unlink(c.at)(e, tracked-1-i) })
		}, true},
		{"git init, add and removal within the hour", func(c *clone) {
			c.w.commit(other, func(e *tree.Edit) error { return e.Rename(c.top, ".git", c.top, "old", false, false) })
			git := c.w.dir(other, c.top, ".git")
			c.add(other, git, "index", sized("fresh", tracked*80))
			c.w.each(other, tracked, unlink(c.at))
		}, true},
		{"rm -rf of the files of a repository within, after a commit to the outer one", func(c *clone) {
			c.w.dir(owner, c.at, ".git")
			c.w.now = c.w.now.Add(24 * time.Hour)
			c.save(c.git, "index", sized("fresh", tracked*80))
			c.w.each(other, tracked, unlink(c.at))
		}, true},
		{"a linked work tree", func(c *clone) {
			c.add(other, c.at, ".git", text("gitdir: elsewhere"))
			c.checkout(200, tracked*80)
		}, true},
	} {
		t.Run(test.what, func(t *testing.T) {
			t.Parallel()
			w := &world{t: t, mem: made.mem.Clone(), now: made.now}
			w.view = must(tree.NewView(w.mem))(t)
			c := *repo
			c.w = w
			test.do(&c)
			if w.held != test.held {
				removed, rewritten := w.account.Count()
				t.Fatalf("held %v with %d removed and %d rewritten, of which %v are kept", w.held, removed, rewritten, w.kept)
			}
		})
	}
}

// TestGitKeepsNoMoreThanTheIndex: what is not seen is bounded.
func TestGitKeepsNoMoreThanTheIndex(t *testing.T) {
	w := newWorld(t)
	c := newClone(w, owner, w.dir(owner, tree.Root, "repo"))
	w.now = w.now.Add(24 * time.Hour)
	c.checkout(tracked, 640)
	if want := [2]int{tracked, 0}; w.kept != want {
		t.Fatalf("kept are %v, want %v", w.kept, want)
	}
	small := newWorld(t)
	c = newClone(small, owner, small.dir(owner, tree.Root, "repo"))
	c.add(owner, c.top, "more", text("x"))
	small.commit(owner, func(e *tree.Edit) error { return e.Unlink(c.git, "index") })
	c.add(owner, c.git, "index", sized("index", 64*100))
	small.now = small.now.Add(24 * time.Hour)
	c.checkout(1200, 64*50)
	if want := [2]int{100, 0}; small.kept != want || !small.held {
		t.Fatalf("kept are %v, want %v; held %v", small.kept, want, small.held)
	}
}

// hiding is a tree that has forgotten a directory which was removed.
type hiding struct {
	guard.Tree
	dir tree.Ino
}

func (h hiding) Records(ino tree.Ino) ([]tree.Record, error) {
	if ino == h.dir {
		return nil, nil
	}
	return h.Tree.Records(ino)
}

// TestGitRemovesDirectories: what was in a directory that is gone was in its repository.
func TestGitRemovesDirectories(t *testing.T) {
	w := newWorld(t)
	c := newClone(w, owner, w.dir(owner, tree.Root, "repo"))
	w.now = w.now.Add(24 * time.Hour)
	c.add(other, c.git, "index.lock", text(""))
	w.each(other, tracked, unlink(c.at))
	w.commit(other, func(e *tree.Edit) error { return e.Rmdir(c.top, "src") })
	removed, _, err := w.account.Clone().Kept(guard.Effect{}, guard.Commit{Author: other, Wall: w.now.UnixNano()}, hiding{w.mem, c.at})
	if err != nil || removed != tracked+1 || w.held {
		t.Fatalf("%d are kept, %v; held %v", removed, err, w.held)
	}
}

// TestOverlay: the overlay of commits shows what the tree with them shows.
func TestOverlay(t *testing.T) {
	w := newWorld(t)
	d := w.dir(owner, tree.Root, "d")
	w.each(owner, 20, create(d, "x"))
	o := guard.NewOverlay(w.mem.Clone())
	apply := func(ops func(*tree.Edit) error) {
		e := w.view.Edit(tree.Dot{Actor: other, Ctr: w.mem.Vector()[other] + 1}, 0, w.now.UnixNano())
		if err := ops(e); err != nil {
			t.Fatal(err)
		}
		ch := e.Change()
		if err := o.Apply(deltaOf(ch)); err != nil {
			t.Fatal(err)
		}
		p := must(w.view.Prepare(ch))(t)
		w.mem.Apply(ch)
		must(p.Done())(t)
	}
	for i := range 10 {
		apply(func(e *tree.Edit) error {
			if err := unlink(d)(e, i); err != nil {
				return err
			}
			if err := create(d, "new")(e, i+20); err != nil {
				return err
			}
			return e.Rename(d, name(i+10), d, fmt.Sprint("moved", i), false, false)
		})
	}
	for _, n := range []string{name(0), name(10), name(20), "moved3"} {
		want := must(w.mem.Named(d, n))(t)
		var got []tree.Ino
		for _, ino := range must(o.Named(d, n))(t) {
			for _, r := range must(o.Records(ino))(t) {
				if l, err := tree.DecodeLink(r.Value); r.Key.Type() == tree.TypeLink && err == nil && l.Name == n {
					got = append(got, ino)
				}
			}
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: %v, want %v", n, got, want)
		}
	}
	all := map[tree.Ino]bool{}
	for _, ino := range must(o.Children(d))(t) {
		all[ino] = true
	}
	for _, ino := range must(w.mem.Children(d))(t) {
		if !all[ino] {
			t.Errorf("%v is missing", ino)
		}
		if got, want := must(o.Records(ino))(t), must(w.mem.Records(ino))(t); len(got) != len(want) {
			t.Errorf("%v has %d records, want %d", ino, len(got), len(want))
		}
	}
}
