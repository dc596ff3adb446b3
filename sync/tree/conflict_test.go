package tree

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// TestConflictTable is the table of what two concurrent operations lead to, a
// case for each row, in both roles and in both orders of joining.
func TestConflictTable(t *testing.T) {
	both := func(s *site) {}
	type step = func(s *site)
	for _, c := range []struct {
		name        string
		before      step
		a, b        step
		want        []string // whichever device is which
		alternative []string
		check       step
	}{
		{
			name:   "edit and edit of one file",
			before: func(s *site) { s.create("f.txt", "0") },
			a:      func(s *site) { s.write("f.txt", "A") }, b: func(s *site) { s.write("f.txt", "B") },
			want: []string{"f(*).txt=A", "f.txt=B"}, alternative: []string{"f(*).txt=B", "f.txt=A"},
		}, {
			name:   "the same edit twice",
			before: func(s *site) { s.create("f", "0") },
			a:      func(s *site) { s.write("f", "A") }, b: func(s *site) { s.write("f", "A") },
			want: []string{"f=A"},
		}, {
			name:   "edit and delete",
			before: func(s *site) { s.create("f", "0"); s.chmod("f", 0o600) },
			a:      func(s *site) { s.write("f", "A") }, b: func(s *site) { s.unlink("f") },
			want: []string{"f=A"},
			check: func(s *site) {
				if m := s.node("f").Mode; m != 0o600 {
					s.t.Errorf("mode %o", m)
				}
			},
		}, {
			name:   "edit and rename",
			before: func(s *site) { s.create("f", "0") },
			a:      func(s *site) { s.write("f", "A") }, b: func(s *site) { s.rename("f", "g") },
			want: []string{"g=A"},
		}, {
			name:   "edit and attributes",
			before: func(s *site) { s.create("f", "0") },
			a:      func(s *site) { s.write("f", "A") },
			b:      func(s *site) { s.chmod("f", 0o640); s.mtime("f", 77); s.xattr("f", "user.a", "v") },
			want:   []string{"f=A"},
			check: func(s *site) {
				if n := s.node("f"); n.Mode != 0o640 || n.MTime != 77 || string(n.Xattrs["user.a"]) != "v" {
					s.t.Errorf("node %+v", n)
				}
			},
		}, {
			name:   "edit and save by rename",
			before: func(s *site) { s.create("f", "0") },
			a:      func(s *site) { s.write("f", "A") },
			b:      func(s *site) { s.create("f.tmp", "B"); s.rename("f.tmp", "f") },
			want:   []string{"f(*)=B", "f=A"}, alternative: []string{"f(*)=A", "f=B"},
		}, {
			name:   "edit of b and mv a b",
			before: func(s *site) { s.create("a", "a"); s.create("b", "b") },
			a:      func(s *site) { s.write("b", "A") }, b: func(s *site) { s.rename("a", "b") },
			want: []string{"b(*)=a", "b=A"}, alternative: []string{"b(*)=A", "b=a"},
		}, {
			name:   "rename and rename of one file",
			before: func(s *site) { s.create("f", "0") },
			a:      func(s *site) { s.rename("f", "a") }, b: func(s *site) { s.rename("f", "b") },
			want: []string{"a=0"}, alternative: []string{"b=0"},
		}, {
			name:   "rename and delete of a file",
			before: func(s *site) { s.create("f", "0"); s.chmod("f", 0o640) },
			a:      func(s *site) { s.rename("f", "g") }, b: func(s *site) { s.unlink("f") },
			want: []string{"g=0"},
			check: func(s *site) {
				if m := s.node("g").Mode; m != 0o640 {
					s.t.Errorf("mode %o", m)
				}
			},
		}, {
			name:   "rename of two files to one name",
			before: func(s *site) { s.create("a", "a"); s.create("b", "b") },
			a:      func(s *site) { s.rename("a", "z") }, b: func(s *site) { s.rename("b", "z") },
			want: []string{"z(*)=b", "z=a"}, alternative: []string{"z(*)=a", "z=b"},
		}, {
			name:   "rename and create of one name",
			before: func(s *site) { s.create("a", "a") },
			a:      func(s *site) { s.rename("a", "z") }, b: func(s *site) { s.create("z", "B") },
			want: []string{"z(*)=B", "z=a"}, alternative: []string{"z(*)=a", "z=B"},
		}, {
			name: "create and create of one name", before: both,
			a: func(s *site) { s.create("f", "A") }, b: func(s *site) { s.create("f", "B") },
			want: []string{"f(*)=B", "f=A"}, alternative: []string{"f(*)=A", "f=B"},
		}, {
			name: "create and create of one name and content", before: both,
			a: func(s *site) { s.create("f", "x") }, b: func(s *site) { s.create("f", "x") },
			want: []string{"f=x"},
		}, {
			name:   "delete and delete",
			before: func(s *site) { s.create("f", "0") },
			a:      func(s *site) { s.unlink("f") }, b: func(s *site) { s.unlink("f") },
		}, {
			name:   "delete and chmod",
			before: func(s *site) { s.create("f", "0") },
			a:      func(s *site) { s.unlink("f") }, b: func(s *site) { s.chmod("f", 0o600) },
		}, {
			name:   "unlink of the two last names",
			before: func(s *site) { s.create("a", "0"); s.link("a", "b") },
			a:      func(s *site) { s.unlink("a") }, b: func(s *site) { s.unlink("b") },
			want: []string{"a=0", "b=0"},
		}, {
			name:   "link and delete",
			before: func(s *site) { s.create("a", "0") },
			a:      func(s *site) { s.link("a", "b") }, b: func(s *site) { s.unlink("a") },
			want: []string{"b=0"},
		}, {
			name: "mkdir and mkdir of one name", before: both,
			a:    func(s *site) { s.mkdir("d"); s.mkdir("d/e"); s.create("d/e/x", "A") },
			b:    func(s *site) { s.mkdir("d"); s.mkdir("d/e"); s.create("d/e/y", "B") },
			want: []string{"d/", "d/e/", "d/e/x=A", "d/e/y=B"},
		}, {
			name:   "rm -r and create inside",
			before: func(s *site) { s.mkdir("d"); s.create("d/old", "0"); s.chmod("d", 0o700) },
			a:      func(s *site) { s.rmAll("d") }, b: func(s *site) { s.create("d/new", "B") },
			want: []string{"d/", "d/new=B"},
			check: func(s *site) {
				if m := s.node("d").Mode; m != 0o700 {
					s.t.Errorf("mode %o", m)
				}
			},
		}, {
			name:   "rm -r and edit inside",
			before: func(s *site) { s.mkdir("d"); s.mkdir("d/e"); s.create("d/e/f", "0"); s.create("d/g", "0") },
			a:      func(s *site) { s.rmAll("d") }, b: func(s *site) { s.write("d/e/f", "B") },
			want: []string{"d/", "d/e/", "d/e/f=B"},
		}, {
			name:   "rm -r and move into",
			before: func(s *site) { s.mkdir("d"); s.create("f", "0") },
			a:      func(s *site) { s.rmAll("d") }, b: func(s *site) { s.rename("f", "d/f") },
			want: []string{"d/", "d/f=0"},
		}, {
			name:   "rm -r and move out",
			before: func(s *site) { s.mkdir("d"); s.create("d/f", "0"); s.create("d/g", "0") },
			a:      func(s *site) { s.rmAll("d") }, b: func(s *site) { s.rename("d/f", "f") },
			want: []string{"f=0"},
		}, {
			name:   "rm -r and rename of the directory",
			before: func(s *site) { s.mkdir("d"); s.create("d/f", "0") },
			a:      func(s *site) { s.rmAll("d") }, b: func(s *site) { s.create("d/g", "B"); s.rename("d", "e") },
			want: []string{"e/", "e/g=B"},
		}, {
			name:   "rename of a directory and changes inside",
			before: func(s *site) { s.mkdir("d"); s.create("d/f", "0"); s.create("d/g", "0") },
			a:      func(s *site) { s.rename("d", "e") },
			b:      func(s *site) { s.write("d/f", "B"); s.unlink("d/g"); s.create("d/h", "B"); s.mkdir("d/i") },
			want:   []string{"e/", "e/f=B", "e/h=B", "e/i/"},
		}, {
			name:   "rename and rename of a directory",
			before: func(s *site) { s.mkdir("d"); s.create("d/f", "0") },
			a:      func(s *site) { s.rename("d", "a") }, b: func(s *site) { s.rename("d", "b") },
			want: []string{"a/", "a/f=0"}, alternative: []string{"b/", "b/f=0"},
		}, {
			name:   "two directories into each other",
			before: func(s *site) { s.mkdir("x"); s.mkdir("y"); s.create("x/f", "0"); s.create("y/g", "0") },
			a:      func(s *site) { s.rename("x", "y/x") }, b: func(s *site) { s.rename("y", "x/y") },
			want:        []string{"x/", "x/f=0", "x/y/", "x/y/g=0"},
			alternative: []string{"y/", "y/g=0", "y/x/", "y/x/f=0"},
		}, {
			name: "directory and file of one name", before: both,
			a: func(s *site) { s.mkdir("n"); s.create("n/f", "A") }, b: func(s *site) { s.create("n", "B") },
			want: []string{"n(*)=B", "n/", "n/f=A"},
		}, {
			name: "file and symlink of one name", before: both,
			a: func(s *site) { s.create("n", "A") }, b: func(s *site) { s.symlink("n", "t") },
			want: []string{"n(*)->t", "n=A"}, alternative: []string{"n(*)=A", "n->t"},
		}, {
			name: "symlink and symlink of one name", before: both,
			a: func(s *site) { s.symlink("n", "s") }, b: func(s *site) { s.symlink("n", "t") },
			want: []string{"n(*)->t", "n->s"}, alternative: []string{"n(*)->s", "n->t"},
		}, {
			name:   "edit and replacement by a directory",
			before: func(s *site) { s.create("n", "0") },
			a:      func(s *site) { s.write("n", "A") }, b: func(s *site) { s.unlink("n"); s.mkdir("n") },
			want: []string{"n(*)=A", "n/"},
		}, {
			name:   "mode and mode, mtime and mtime",
			before: func(s *site) { s.create("f", "0") },
			a:      func(s *site) { s.chmod("f", 0o600); s.mtime("f", 1) },
			b:      func(s *site) { s.chmod("f", 0o640); s.mtime("f", 2) },
			want:   []string{"f=0"},
			check: func(s *site) {
				if n := s.node("f"); (n.Mode != 0o600 || n.MTime != 1) && (n.Mode != 0o640 || n.MTime != 2) {
					s.t.Errorf("mode %o, time %d", n.Mode, n.MTime)
				}
			},
		},
	} {
		for _, swap := range []bool{false, true} {
			for _, skew := range []int64{0, 1e15} {
				t.Run(fmt.Sprintf("%s/swap %v/skew %d", c.name, swap, skew), func(t *testing.T) {
					s1, s2, s3 := newSite(t, 1), newSite(t, 2), newSite(t, 3)
					c.before(s1)
					s2.join(s1)
					s1.now += skew
					if swap {
						c.b(s1)
						c.a(s2)
					} else {
						c.a(s1)
						c.b(s2)
					}
					s3.join(s2)
					s3.join(s1)
					s1.join(s2)
					s2.join(s1)
					for _, s := range []*site{s1, s2, s3} {
						got := s.tree()
						if !slices.Equal(got, c.want) && (c.alternative == nil || !slices.Equal(got, c.alternative)) {
							t.Errorf("device %d shows %v, want %v or %v", s.dot.Actor[0], got, c.want, c.alternative)
						}
						if c.check != nil {
							c.check(s)
						}
					}
					a, b := snapshot(s1.view), snapshot(s2.view)
					if !maps.Equal(a.paths, b.paths) || !reflect.DeepEqual(s1.mem.All(), s3.mem.All()) {
						t.Error("devices differ")
					}
				})
			}
		}
	}
}

// TestPinAndPin: two devices that write down the same conflict agree.
func TestPinAndPin(t *testing.T) {
	s1, s2 := newSite(t, 1), newSite(t, 2)
	s1.create("f", "0")
	s2.join(s1)
	s1.write("f", "A")
	s2.write("f", "B")
	s1.join(s2)
	s2.join(s1)
	before := s1.tree()
	s1.chmod("f", 0o600)
	s2.chmod("f", 0o600)
	s1.join(s2)
	if got := s1.tree(); !slices.Equal(got, before) {
		t.Errorf("was %v, is %v", before, got)
	}
	if cs, err := s1.view.Conflicts(); err != nil || len(cs) != 1 || cs[0].Path != "/"+cs[0].Name || !cs[0].Conflict {
		t.Errorf("conflicts: %v, %v", cs, err)
	}
}

// TestResolve: a conflict is settled by ordinary operations.
func TestResolve(t *testing.T) {
	conflict := func(t *testing.T) (*site, string) {
		t.Helper()
		s1, s2 := newSite(t, 1), newSite(t, 2)
		s1.create("f", "0")
		s2.join(s1)
		s1.write("f", "A")
		s2.now = 1000
		s2.write("f", "B")
		s1.join(s2)
		cs, err := s1.view.Conflicts()
		if err != nil || len(cs) != 1 {
			t.Fatal(cs, err)
		}
		return s1, cs[0].Name
	}
	for name, c := range map[string]struct {
		do   func(*site, string)
		want []string
	}{
		"remove the copy":   {func(s *site, n string) { s.unlink(n) }, []string{"f=B"}},
		"remove the file":   {func(s *site, n string) { s.unlink("f") }, []string{"f(*)=A"}},
		"copy over file":    {func(s *site, n string) { s.rename(n, "f") }, []string{"f=A"}},
		"rename the copy":   {func(s *site, n string) { s.rename(n, "g") }, []string{"f=B", "g=A"}},
		"write to the copy": {func(s *site, n string) { s.write(n, "C") }, []string{"f(*)=C", "f=B"}},
		"link the copy":     {func(s *site, n string) { s.link(n, "g") }, []string{"f(*)=A", "f=B", "g=A"}},
		"exchange": {func(s *site, n string) {
			s.must(func(e *Edit) error { return e.Rename(Root, n, Root, "f", false, true) })
		}, []string{"f(*)=B", "f=A"}},
		"attributes of the copy":  {func(s *site, n string) { s.chmod(n, 0o600); s.xattr(n, "user.a", "b") }, []string{"f(*)=A", "f=B"}},
		"file away, and its copy": {func(s *site, n string) { s.rename("f", "g"); s.unlink(n) }, []string{"g=B"}},
	} {
		t.Run(name, func(t *testing.T) {
			s, n := conflict(t)
			c.do(s, n)
			if got := s.tree(); !slices.Equal(got, c.want) {
				t.Errorf("shows %v, want %v", got, c.want)
			}
			if cs, err := s.view.Conflicts(); err != nil || len(cs) != strings.Count(strings.Join(c.want, " "), "(*)") && name != "exchange" {
				t.Errorf("conflicts: %v, %v", cs, err)
			}
		})
	}
}

// TestRefusals: what an operation answers when it cannot be done, and that it
// then changes nothing.
func TestRefusals(t *testing.T) {
	s := newSite(t, 1)
	s.mkdir("d")
	s.mkdir("d/e")
	s.mkdir("empty")
	s.create("f", "0")
	s.create("g", "0")
	d, e, f := s.ino("d"), s.ino("d/e"), s.ino("f")
	never := Ino{7}
	for name, c := range map[string]struct {
		op   func(*Edit) error
		want error
	}{
		"create taken":          {func(x *Edit) error { _, err := x.Create(Root, "f", fileContent("")); return err }, fs.ErrExist},
		"create in nowhere":     {func(x *Edit) error { _, err := x.Create(never, "f", fileContent("")); return err }, fs.ErrNotExist},
		"create in a file":      {func(x *Edit) error { _, err := x.Create(f, "f", fileContent("")); return err }, ErrNotDir},
		"create nothing":        {func(x *Edit) error { _, err := x.Create(Root, "x", Content{}); return err }, ErrRecord},
		"create bad name":       {func(x *Edit) error { _, err := x.Create(Root, "..", fileContent("")); return err }, ErrName},
		"create in Recovered":   {func(x *Edit) error { _, err := x.Create(Recovered, "x", fileContent("")); return err }, fs.ErrPermission},
		"mkdir taken":           {func(x *Edit) error { _, err := x.Mkdir(Root, "d", 0); return err }, fs.ErrExist},
		"mkdir mode":            {func(x *Edit) error { _, err := x.Mkdir(Root, "x", 0o10000); return err }, ErrRecord},
		"write a directory":     {func(x *Edit) error { _, err := x.Write(d, nil, fileContent("")); return err }, ErrIsDir},
		"write nothing":         {func(x *Edit) error { _, err := x.Write(never, nil, fileContent("")); return err }, fs.ErrNotExist},
		"write another kind":    {func(x *Edit) error { _, err := x.Write(f, nil, Content{Kind: Fifo}); return err }, ErrRecord},
		"link a directory":      {func(x *Edit) error { return x.Link(d, Root, "x") }, fs.ErrPermission},
		"link taken":            {func(x *Edit) error { return x.Link(f, Root, "g") }, fs.ErrExist},
		"link nothing":          {func(x *Edit) error { return x.Link(never, Root, "x") }, fs.ErrNotExist},
		"unlink a directory":    {func(x *Edit) error { return x.Unlink(Root, "d") }, ErrIsDir},
		"unlink nothing":        {func(x *Edit) error { return x.Unlink(Root, "x") }, fs.ErrNotExist},
		"rmdir a file":          {func(x *Edit) error { return x.Rmdir(Root, "f") }, ErrNotDir},
		"rmdir full":            {func(x *Edit) error { return x.Rmdir(Root, "d") }, ErrNotEmpty},
		"rename into itself":    {func(x *Edit) error { return x.Rename(Root, "d", e, "x", false, false) }, ErrLoop},
		"rename onto full":      {func(x *Edit) error { return x.Rename(Root, "empty", Root, "d", false, false) }, ErrNotEmpty},
		"rename dir onto file":  {func(x *Edit) error { return x.Rename(Root, "d", Root, "f", false, false) }, ErrNotDir},
		"rename file onto dir":  {func(x *Edit) error { return x.Rename(Root, "f", Root, "empty", false, false) }, ErrIsDir},
		"rename without place":  {func(x *Edit) error { return x.Rename(Root, "f", Root, "g", true, false) }, fs.ErrExist},
		"rename nothing":        {func(x *Edit) error { return x.Rename(Root, "x", Root, "y", false, false) }, fs.ErrNotExist},
		"exchange with nothing": {func(x *Edit) error { return x.Rename(Root, "f", Root, "y", false, true) }, fs.ErrNotExist},
		"exchange with inside":  {func(x *Edit) error { return x.Rename(d, "e", Root, "d", false, true) }, ErrLoop},
		"chmod bits":            {func(x *Edit) error { return x.Chmod(f, 0o10000) }, ErrRecord},
		"chmod nothing":         {func(x *Edit) error { return x.Chmod(never, 0) }, fs.ErrNotExist},
		"xattr name":            {func(x *Edit) error { return x.SetXattr(f, "", nil) }, ErrName},
		"xattr size":            {func(x *Edit) error { return x.SetXattr(f, "user.a", make([]byte, MaxXattr+1)) }, ErrTooBig},
		"no xattr":              {func(x *Edit) error { return x.RemoveXattr(f, "user.a") }, ErrNoXattr},
	} {
		x := s.view.Edit(Dot{Actor{1}, 99}, 0, 0)
		if err := c.op(x); !errors.Is(err, c.want) || !x.Change().Empty() {
			t.Errorf("%s: %v, want %v; change %v", name, err, c.want, x.Change())
		}
	}
}

// TestSameNames: renaming one name of a file to another leaves both.
func TestSameNames(t *testing.T) {
	s := newSite(t, 1)
	s.create("a", "0")
	s.link("a", "b")
	s.rename("a", "b")
	s.rename("a", "a")
	if got := s.tree(); !slices.Equal(got, []string{"a=0", "b=0"}) {
		t.Errorf("shows %v", got)
	}
	if n := s.node("a"); n.NLink != 2 {
		t.Errorf("%d links", n.NLink)
	}
}

// TestManyInOneEdit: later operations of an Edit see the earlier ones.
func TestManyInOneEdit(t *testing.T) {
	s := newSite(t, 1)
	s.must(func(e *Edit) error {
		d, err := e.Mkdir(Root, "d", 0o700)
		if err != nil {
			return err
		}
		f, err := e.Create(d, "f", fileContent("1"))
		if err != nil {
			return err
		}
		if _, err = e.Create(d, "g", fileContent("2")); err != nil {
			return err
		}
		return errors.Join(e.Link(f, Root, "l"), e.Unlink(d, "f"), e.Rename(d, "g", d, "h", false, false),
			e.Chmod(d, 0o750), e.SetXattr(f, "user.a", nil), e.RemoveXattr(f, "user.a"))
	})
	if got := s.tree(); !slices.Equal(got, []string{"d/", "d/h=2", "l=1"}) {
		t.Errorf("shows %v", got)
	}
	if m := s.node("d").Mode; m != 0o750 {
		t.Errorf("mode %o", m)
	}
	if err := caught(func() { sameMemory(s.view, mustView(t, s.mem), "view after a batch") }); err != nil {
		t.Error(err)
	}
}

// TestBatch: edits that share a dot replace each other's records.
func TestBatch(t *testing.T) {
	s := newSite(t, 1)
	dot := Dot{Actor{1}, 1}
	for i, op := range []func(*Edit) error{
		func(e *Edit) error { _, err := e.Create(Root, "a", fileContent("1")); return err },
		func(e *Edit) error { _, err := e.Write(s.ino("a"), s.node("a").Base, fileContent("2")); return err },
		func(e *Edit) error { return e.Rename(Root, "a", Root, "b", false, false) },
		func(e *Edit) error { return e.Unlink(Root, "b") },
	} {
		e := s.view.Edit(dot, uint64(i), 5)
		if err := op(e); err != nil {
			t.Fatal(err)
		}
		s.apply(e.Change())
	}
	if rs := s.mem.All(); len(rs) != 0 {
		t.Errorf("left over: %v", rs)
	}
}

// TestWriteKeepsOthers: a write removes the files that are hidden behind the one
// written, but not the conflict copies of those, though they may have been
// written by the same device, after what is written over.
func TestWriteKeepsOthers(t *testing.T) {
	a, b := newSite(t, 1), newSite(t, 2)
	a.create("f", "f")
	a.create("g", "g")
	b.join(a)
	b.now = 1000 // its content of g is the younger one
	b.rename("g", "f")
	b.write("f", "same")
	a.write("f", "same")
	a.write("g", "kept")
	a.join(b)
	if got, want := a.tree(), []string{"f(*)=kept", "f=same"}; !slices.Equal(got, want) {
		t.Fatalf("shows %v, want %v", got, want)
	}
	a.write("f", "new")
	if got, want := a.tree(), []string{"f(*)=kept", "f=new"}; !slices.Equal(got, want) {
		t.Errorf("after the write: shows %v, want %v", got, want)
	}
}

// TestWriteOnOldBase: a write on what was opened long before supersedes what the
// same device has written since.
func TestWriteOnOldBase(t *testing.T) {
	s := newSite(t, 1)
	s.create("f", "1")
	opened := s.node("f")
	s.write("f", "2")
	s.must(func(e *Edit) error { _, err := e.Write(opened.Ino, opened.Base, fileContent("3")); return err })
	if got, want := s.tree(), []string{"f=3"}; !slices.Equal(got, want) {
		t.Errorf("shows %v, want %v", got, want)
	}
}

// TestPinKeepsSnapshot: a pin that writes a link again takes over the snapshot
// of the other link that it supersedes with it.
func TestPinKeepsSnapshot(t *testing.T) {
	a, b, c := newSite(t, 1), newSite(t, 2), newSite(t, 3)
	a.create("f", "f")
	a.create("g", "g")
	b.join(a)
	b.write("f", "kept")
	c.join(b)
	c.unlink("f") // has not seen that it moves
	b.rename("f", "h")
	b.write("g", "g of b")
	a.now = 1000 // its move is the younger one
	a.rename("f", "g")
	a.join(b)
	a.write("g", "new") // pins the name of the other at g
	a.join(c)
	if got, want := a.tree(), []string{"g(*)=kept", "g=new"}; !slices.Equal(got, want) {
		t.Errorf("shows %v, want %v", got, want)
	}
}
