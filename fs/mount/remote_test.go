package mount

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/roamfs/roamfs/sync/tree"
)

func TestRemoteChange(t *testing.T) {
	long := strings.Repeat("long content ", 1000)
	for _, c := range []struct {
		name   string
		before func(t *testing.T, r *rig)
		change func(t *testing.T, r *rig, o *device)
		after  func(t *testing.T, r *rig)
	}{
		{"content", func(t *testing.T, r *rig) {
			wantFile(t, r.path("f"), long)
		}, func(t *testing.T, r *rig, o *device) {
			r.replace(t, o, "f", "short")
		}, func(t *testing.T, r *rig) {
			if st := stat(t, r.path("f")); st.Size != 5 {
				t.Errorf("size is %d", st.Size)
			}
			wantFile(t, r.path("f"), "short")
		}},
		{"content of the same size", func(t *testing.T, r *rig) {
			wantFile(t, r.path("f"), long)
		}, func(t *testing.T, r *rig, o *device) {
			r.replace(t, o, "f", strings.ToUpper(long))
		}, func(t *testing.T, r *rig) {
			wantFile(t, r.path("f"), strings.ToUpper(long))
		}},
		{"new file at a name that was looked up", func(t *testing.T, r *rig) {
			if _, err := os.Lstat(r.path("new")); !os.IsNotExist(err) {
				t.Fatal(err)
			}
		}, func(t *testing.T, r *rig, o *device) {
			if _, err := o.Create(tree.Root, "new", r.content(t, "hello")); err != nil {
				t.Fatal(err)
			}
		}, func(t *testing.T, r *rig) {
			wantFile(t, r.path("new"), "hello")
			if got := names(t, r.dir); !slices.Equal(got, []string{"d", "f", "l", "new"}) {
				t.Errorf("listing is %q", got)
			}
		}},
		{"removed", func(t *testing.T, r *rig) {
			stat(t, r.path("f"))
		}, func(t *testing.T, r *rig, o *device) {
			if err := o.Unlink(tree.Root, "f"); err != nil {
				t.Fatal(err)
			}
		}, func(t *testing.T, r *rig) {
			if _, err := os.Lstat(r.path("f")); !os.IsNotExist(err) {
				t.Errorf("error %v", err)
			}
			if got := names(t, r.dir); !slices.Equal(got, []string{"d", "l"}) {
				t.Errorf("listing is %q", got)
			}
		}},
		{"renamed directory", func(t *testing.T, r *rig) {
			wantFile(t, r.path("d", "in"), "in d")
		}, func(t *testing.T, r *rig, o *device) {
			if err := o.Rename(tree.Root, "d", tree.Root, "e", false, false); err != nil {
				t.Fatal(err)
			}
		}, func(t *testing.T, r *rig) {
			wantFile(t, r.path("e", "in"), "in d")
			if _, err := os.Lstat(r.path("d", "in")); !os.IsNotExist(err) {
				t.Errorf("error %v", err)
			}
		}},
		{"two names exchanged", func(t *testing.T, r *rig) {
			stat(t, r.path("f"))
			stat(t, r.path("l"))
		}, func(t *testing.T, r *rig, o *device) {
			if err := o.Rename(tree.Root, "f", tree.Root, "l", false, true); err != nil {
				t.Fatal(err)
			}
		}, func(t *testing.T, r *rig) {
			wantFile(t, r.path("l"), long)
			if st := stat(t, r.path("f")); st.Mode&unix.S_IFMT != unix.S_IFLNK {
				t.Errorf("mode is %o", st.Mode)
			}
		}},
		{"mode and time", func(t *testing.T, r *rig) {
			stat(t, r.path("f"))
		}, func(t *testing.T, r *rig, o *device) {
			n, err := o.Lookup(tree.Root, "f")
			if err != nil {
				t.Fatal(err)
			}
			if err := o.Chmod(n.Ino, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := o.SetMTime(n.Ino, 1e18+7); err != nil {
				t.Fatal(err)
			}
		}, func(t *testing.T, r *rig) {
			st := stat(t, r.path("f"))
			if st.Mode&0o7777 != 0o600 || st.Mtim.Nano() != 1e18+7 {
				t.Errorf("mode %o, time %d", st.Mode, st.Mtim.Nano())
			}
		}},
		{"another name for a file", func(t *testing.T, r *rig) {
			if st := stat(t, r.path("f")); st.Nlink != 1 {
				t.Fatal(st.Nlink)
			}
		}, func(t *testing.T, r *rig, o *device) {
			n, err := o.Lookup(tree.Root, "f")
			if err != nil {
				t.Fatal(err)
			}
			if _, err := o.Link(n.Ino, tree.Root, "g"); err != nil {
				t.Fatal(err)
			}
		}, func(t *testing.T, r *rig) {
			f, g := stat(t, r.path("f")), stat(t, r.path("g"))
			if f.Nlink != 2 || f.Ino != g.Ino {
				t.Errorf("links %d, numbers %d and %d", f.Nlink, f.Ino, g.Ino)
			}
		}},
		{"symlink replaced", func(t *testing.T, r *rig) {
			if got, err := os.Readlink(r.path("l")); err != nil || got != "f" {
				t.Fatal(got, err)
			}
		}, func(t *testing.T, r *rig, o *device) {
			n, err := o.Lookup(tree.Root, "l")
			if err != nil {
				t.Fatal(err)
			}
			c := tree.Content{Kind: tree.Symlink, Inline: []byte("d/in"), Size: 4}
			if _, err := o.Write(n.Ino, n.Base, c, false); err != nil {
				t.Fatal(err)
			}
		}, func(t *testing.T, r *rig) {
			if got, err := os.Readlink(r.path("l")); err != nil || got != "d/in" {
				t.Error(got, err)
			}
			wantFile(t, r.path("l"), "in d")
		}},
		{"file replaced by a directory", func(t *testing.T, r *rig) {
			wantFile(t, r.path("f"), long)
		}, func(t *testing.T, r *rig, o *device) {
			if err := o.Unlink(tree.Root, "f"); err != nil {
				t.Fatal(err)
			}
			if _, err := o.Mkdir(tree.Root, "f", 0o755); err != nil {
				t.Fatal(err)
			}
		}, func(t *testing.T, r *rig) {
			if got := names(t, r.path("f")); len(got) != 0 {
				t.Errorf("listing is %q", got)
			}
		}},
		{"directory emptied and removed", func(t *testing.T, r *rig) {
			stat(t, r.path("d", "in"))
		}, func(t *testing.T, r *rig, o *device) {
			d, err := o.Lookup(tree.Root, "d")
			if err != nil {
				t.Fatal(err)
			}
			if err := o.Unlink(d.Ino, "in"); err != nil {
				t.Fatal(err)
			}
			if err := o.Rmdir(tree.Root, "d"); err != nil {
				t.Fatal(err)
			}
		}, func(t *testing.T, r *rig) {
			for _, p := range []string{"d", "d/in"} {
				if _, err := os.Lstat(r.path(p)); !os.IsNotExist(err) {
					t.Errorf("%s: error %v", p, err)
				}
			}
		}},
	} {
		for _, listed := range []bool{true, false} { // what changed, or only that all may have
			t.Run(fmt.Sprintf("%s, listed: %v", c.name, listed), func(t *testing.T) {
				r := newRig(t)
				r.unlisted = !listed
				write(t, r.path("f"), long)
				if err := os.Symlink("f", r.path("l")); err != nil {
					t.Fatal(err)
				}
				if err := os.Mkdir(r.path("d"), 0o755); err != nil {
					t.Fatal(err)
				}
				write(t, r.path("d", "in"), "in d")
				r.settled(t)
				o := r.fork(t)
				names(t, r.dir)
				c.before(t, r)
				was := stat(t, r.dir)
				c.change(t, r, o)
				r.pullFrom(t, o)
				c.after(t, r)
				if now := stat(t, r.dir); listed && slices.Contains([]string{"removed", "renamed directory"}, c.name) && now.Mtim.Nano() <= was.Mtim.Nano() {
					t.Error("the time of the directory did not move")
				}
			})
		}
	}
}

func TestRemoteReplaceWhileOpen(t *testing.T) {
	r := newRig(t)
	old, fresh := strings.Repeat("old ", 5000), strings.Repeat("fresh content ", 3000)
	write(t, r.path("f"), old)
	if err := os.Link(r.path("f"), r.path("g")); err != nil {
		t.Fatal(err)
	}
	r.settled(t)
	o := r.fork(t)

	f, err := os.Open(r.path("f"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	head := make([]byte, 100)
	if _, err := f.ReadAt(head, 0); err != nil {
		t.Fatal(err)
	}
	number := stat(t, r.path("f")).Ino
	r.replace(t, o, "f", fresh)
	r.pullFrom(t, o)

	for _, name := range []string{"f", "g"} {
		wantFile(t, r.path(name), fresh)
		if st := stat(t, r.path(name)); st.Size != int64(len(fresh)) || st.Ino != number || st.Nlink != 2 {
			t.Errorf("%s: size %d, number %d (was %d), links %d", name, st.Size, st.Ino, number, st.Nlink)
		}
	}
	got, err := io.ReadAll(io.NewSectionReader(f, 0, 1<<20))
	if err != nil || string(got) != old {
		t.Errorf("the open file reads %s (%d bytes), %v", brief(got), len(got), err)
	}
	if st, err := f.Stat(); err != nil || st.Size() != int64(len(old)) {
		t.Errorf("the open file has size %d, %v", st.Size(), err)
	}
	// And once more, with both versions open.
	f2, err := os.Open(r.path("g"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f2.Close() }()
	r.replace(t, o, "f", "third")
	r.pullFrom(t, o)
	wantFile(t, r.path("f"), "third")
	for f, want := range map[*os.File]string{f: old, f2: fresh} {
		if got, err := io.ReadAll(io.NewSectionReader(f, 0, 1<<20)); err != nil || string(got) != want {
			t.Errorf("an open file reads %s, %v, want %s", brief(got), err, brief([]byte(want)))
		}
	}
}

func TestRemoteRemoveWhileOpen(t *testing.T) {
	r := newRig(t)
	data := strings.Repeat("still here ", 2000)
	write(t, r.path("f"), data)
	r.settled(t)
	o := r.fork(t)
	f, err := os.Open(r.path("f"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	if err := o.Unlink(tree.Root, "f"); err != nil {
		t.Fatal(err)
	}
	r.pullFrom(t, o)
	if _, err := os.Lstat(r.path("f")); !os.IsNotExist(err) {
		t.Errorf("error %v", err)
	}
	if got, err := io.ReadAll(f); err != nil || string(got) != data {
		t.Errorf("reads %s, %v", brief(got), err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil || st.Nlink != 0 || st.Size != int64(len(data)) {
		t.Errorf("stat: %d links, size %d, %v", st.Nlink, st.Size, err)
	}
}

func TestConcurrentEdit(t *testing.T) {
	r := newRig(t)
	write(t, r.path("f.txt"), "base")
	r.settled(t)
	o := r.fork(t)
	write(t, r.path("f.txt"), "mine, mine, mine")
	r.settled(t)
	names(t, r.dir)
	r.replace(t, o, "f.txt", "theirs")
	r.pullFrom(t, o)

	list := names(t, r.dir)
	if len(list) != 2 {
		t.Fatalf("listing is %q, want two files", list)
	}
	var got []string
	for _, name := range list {
		b, err := os.ReadFile(r.path(name))
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, string(b))
	}
	slices.Sort(got)
	if !slices.Equal(got, []string{"mine, mine, mine", "theirs"}) {
		t.Errorf("the files hold %q", got)
	}
	links := names(t, r.path(".roam", "conflicts"))
	if len(links) != 1 || !slices.Contains(list, links[0]) {
		t.Fatalf(".roam/conflicts lists %q", links)
	}
	direct, err := os.ReadFile(r.path(links[0]))
	if err != nil {
		t.Fatal(err)
	}
	wantFile(t, r.path(".roam", "conflicts", links[0]), string(direct))
	for _, name := range list {
		_, err := unix.Getxattr(r.path(name), "user.roam.conflict", make([]byte, 8))
		if conflict := name == links[0]; (err == nil) != conflict {
			t.Errorf("user.roam.conflict of %s: %v", name, err)
		}
	}
	// Removing the copy is all it takes.
	if err := os.Remove(r.path(links[0])); err != nil {
		t.Fatal(err)
	}
	if list := names(t, r.dir); !slices.Equal(list, []string{"f.txt"}) {
		t.Errorf("listing is %q", list)
	}
}

func TestWriteToReplacedVersion(t *testing.T) {
	r := newRig(t)
	base := strings.Repeat("base ", 1000)
	write(t, r.path("f.txt"), base)
	r.settled(t)
	o := r.fork(t)
	f, err := os.OpenFile(r.path("f.txt"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	r.replace(t, o, "f.txt", "theirs")
	r.pullFrom(t, o)
	wantFile(t, r.path("f.txt"), "theirs")
	for range 3 {
		if _, err := f.WriteAt([]byte("mine!"), 0); err != nil {
			t.Fatal(err)
		}
		mine := "mine!" + base[5:]
		if got, err := io.ReadAll(io.NewSectionReader(f, 0, 1<<20)); err != nil || string(got) != mine {
			t.Errorf("the writer reads %s, %v", brief(got), err)
		}
		r.settled(t)
		list := names(t, r.dir)
		if len(list) != 2 {
			t.Fatalf("listing is %q, want two files", list)
		}
		var got []string
		for _, name := range list {
			b, err := os.ReadFile(r.path(name))
			if err != nil {
				t.Fatal(err)
			}
			if st := stat(t, r.path(name)); st.Size != int64(len(b)) {
				t.Errorf("%s has size %d and %d bytes", name, st.Size, len(b))
			}
			got = append(got, string(b))
		}
		slices.Sort(got)
		if !slices.Equal(got, []string{mine, "theirs"}) {
			t.Errorf("the files hold %s and %s", brief([]byte(got[0])), brief([]byte(got[1])))
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestReplacedBeforeTheKernelKnows: a program that opens a name, or asks for it,
// finds the file that another device has put there, also while the kernel still
// takes the name for the old one.
func TestReplacedBeforeTheKernelKnows(t *testing.T) {
	for name, use := range map[string]func(path string) error{
		"open": func(path string) error {
			b, err := os.ReadFile(path)
			if err == nil && string(b) != "new" {
				err = errors.New(string(b))
			}
			return err
		},
		"open for writing": func(path string) error { return os.WriteFile(path, []byte("newer"), 0o644) },
		"stat": func(path string) error {
			return unix.Statx(unix.AT_FDCWD, path, unix.AT_STATX_FORCE_SYNC, unix.STATX_ALL, &unix.Statx_t{})
		},
		"chmod":        func(path string) error { return os.Chmod(path, 0o600) },
		"truncate":     func(path string) error { return os.Truncate(path, 1) },
		"set an xattr": func(path string) error { return unix.Setxattr(path, "user.x", []byte("v"), 0) },
		"get an xattr": func(path string) error {
			if _, err := unix.Getxattr(path, "user.x", nil); !errors.Is(err, unix.ENODATA) {
				return err
			}
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			write(t, r.path("f"), "old")
			r.settled(t)
			o := r.fork(t)
			stat(t, r.path("f"))
			if _, err := o.Create(tree.Root, "tmp", r.content(t, "new")); err != nil {
				t.Fatal(err)
			}
			if err := o.Rename(tree.Root, "tmp", tree.Root, "f", false, false); err != nil {
				t.Fatal(err)
			}
			r.pullQuietly(t, o)
			if err := use(r.path("f")); err != nil {
				t.Error(err)
			}
		})
	}
}

// pullQuietly lets the device know what another did, of which the kernel is told
// nothing.
func (r *rig) pullQuietly(t *testing.T, other *device) {
	t.Helper()
	r.subMu.Lock()
	subs := r.subs
	r.subs = nil
	r.subMu.Unlock()
	r.pull(t, other)
	r.subMu.Lock()
	r.subs = subs
	r.subMu.Unlock()
}

// TestRemovedBeforeTheKernelKnows: there is no such file then.
func TestRemovedBeforeTheKernelKnows(t *testing.T) {
	r := newRig(t)
	write(t, r.path("f"), "old")
	r.settled(t)
	o := r.fork(t)
	stat(t, r.path("f"))
	if err := o.Unlink(tree.Root, "f"); err != nil {
		t.Fatal(err)
	}
	r.pullQuietly(t, o)
	if _, err := os.ReadFile(r.path("f")); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

// TestRemoteChangeWhileListing: what readdirplus says of an entry is how it is
// then, and not how it was when the listing began.
func TestRemoteChangeWhileListing(t *testing.T) {
	r := newRig(t)
	o := r.fork(t)
	dir, err := o.Mkdir(tree.Root, "many", 0o755)
	if err != nil {
		t.Fatal(err)
	}
	const many = 500 // far more than the kernel asks for at once
	name := func(i int) string { return fmt.Sprintf("%04d %s", i, strings.Repeat("x", 50)) }
	for i := range many {
		if _, err := o.Create(dir.Ino, name(i), r.content(t, "before")); err != nil {
			t.Fatal(err)
		}
	}
	r.pullFrom(t, o)
	f, err := os.Open(r.path("many"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	if l, err := f.ReadDir(1); err != nil || l[0].Name() != name(0) {
		t.Fatal(l, err)
	}
	stat(t, r.path("many", name(0))) // so that the kernel goes on asking for attributes
	changed := func(i int) bool { return i%2 == 0 }
	for i := range many {
		if !changed(i) {
			err = o.Unlink(dir.Ino, name(i))
		} else if n, e := o.Lookup(dir.Ino, name(i)); e == nil {
			_, err = o.Write(n.Ino, n.Base, r.content(t, "and after"), false)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	r.pullFrom(t, o)
	if l, err := f.ReadDir(-1); err != nil || len(l) < many/2 {
		t.Fatalf("%d entries, %v", len(l), err)
	}
	for i := range many {
		st, err := os.Lstat(r.path("many", name(i)))
		switch {
		case !changed(i) && !os.IsNotExist(err):
			t.Errorf("entry %d, which was removed: %v", i, err)
		case changed(i) && (err != nil || st.Size() != int64(len("and after"))):
			t.Errorf("entry %d, which was changed: %v, %v", i, st, err)
		}
	}
}
