package tree

import (
	"slices"
	"strings"
	"testing"
)

// site is a device of the conflict table: operations by path, none of which may
// fail.
type site struct {
	t    *testing.T
	mem  *Mem
	view *View
	dot  Dot
	now  int64
}

func newSite(t *testing.T, n byte) *site {
	t.Helper()
	s := &site{t: t, mem: NewMem(), dot: Dot{Actor: Actor{n}}, now: int64(n)}
	s.view = mustView(t, s.mem)
	return s
}

func mustView(t *testing.T, m *Mem) *View {
	t.Helper()
	v, err := NewView(m, Labels(label))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// path resolves all but the last element.
func (s *site) path(p string) (Ino, string) {
	s.t.Helper()
	dir := Root
	for {
		name, rest, more := strings.Cut(p, "/")
		if !more {
			return dir, name
		}
		e, err := s.view.Lookup(dir, name)
		if err != nil {
			s.t.Fatalf("path %q: %v", p, err)
		}
		dir, p = e.Ino, rest
	}
}

func (s *site) ino(p string) Ino {
	s.t.Helper()
	dir, name := s.path(p)
	e, err := s.view.Lookup(dir, name)
	if err != nil {
		s.t.Fatalf("path %q: %v", p, err)
	}
	return e.Ino
}

func (s *site) node(p string) Node {
	s.t.Helper()
	n, err := s.view.Node(s.ino(p))
	if err != nil {
		s.t.Fatalf("path %q: %v", p, err)
	}
	return n
}

// edit runs one operation and applies it.
func (s *site) edit(f func(*Edit) error) error {
	s.t.Helper()
	s.dot.Ctr++
	s.now += 10
	e := s.view.Edit(s.dot, 0, s.now)
	err := f(e)
	s.apply(e.Change())
	s.mem.Advance(s.dot)
	return err
}

func (s *site) apply(ch Change) Affected {
	s.t.Helper()
	p, err := s.view.Prepare(ch)
	if err != nil {
		s.t.Fatal(err)
	}
	s.mem.Apply(ch)
	a, err := p.Done()
	if err != nil {
		s.t.Fatal(err)
	}
	return a
}

func (s *site) must(f func(*Edit) error) {
	s.t.Helper()
	if err := s.edit(f); err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) create(p, token string) {
	s.t.Helper()
	dir, name := s.path(p)
	s.must(func(e *Edit) error { _, err := e.Create(dir, name, fileContent(token)); return err })
}

func (s *site) symlink(p, target string) {
	s.t.Helper()
	dir, name := s.path(p)
	c := Content{Kind: Symlink, Size: int64(len(target)), Inline: []byte(target), Mode: 0o777}
	s.must(func(e *Edit) error { _, err := e.Create(dir, name, c); return err })
}

func (s *site) mkdir(p string) {
	s.t.Helper()
	dir, name := s.path(p)
	s.must(func(e *Edit) error { _, err := e.Mkdir(dir, name, DirMode); return err })
}

func (s *site) write(p, token string) {
	s.t.Helper()
	n := s.node(p)
	s.must(func(e *Edit) error { _, err := e.Write(n.Ino, n.Base, fileContent(token)); return err })
}

func (s *site) unlink(p string) {
	s.t.Helper()
	dir, name := s.path(p)
	s.must(func(e *Edit) error { return e.Unlink(dir, name) })
}

func (s *site) rmdir(p string) {
	s.t.Helper()
	dir, name := s.path(p)
	s.must(func(e *Edit) error { return e.Rmdir(dir, name) })
}

func (s *site) rename(from, to string) {
	s.t.Helper()
	d1, n1 := s.path(from)
	d2, n2 := s.path(to)
	s.must(func(e *Edit) error { return e.Rename(d1, n1, d2, n2, false, false) })
}

func (s *site) link(from, to string) {
	s.t.Helper()
	ino := s.ino(from)
	dir, name := s.path(to)
	s.must(func(e *Edit) error { return e.Link(ino, dir, name) })
}

func (s *site) chmod(p string, mode uint32) {
	s.t.Helper()
	ino := s.ino(p)
	s.must(func(e *Edit) error { return e.Chmod(ino, mode) })
}

func (s *site) mtime(p string, at int64) {
	s.t.Helper()
	ino := s.ino(p)
	s.must(func(e *Edit) error { return e.SetMTime(ino, at) })
}

func (s *site) xattr(p, name, value string) {
	s.t.Helper()
	ino := s.ino(p)
	s.must(func(e *Edit) error { return e.SetXattr(ino, name, []byte(value)) })
}

// rmAll is rm -r.
func (s *site) rmAll(p string) {
	s.t.Helper()
	es, err := s.view.List(s.ino(p))
	if err != nil {
		s.t.Fatal(err)
	}
	for _, e := range es {
		if e.Kind == Dir {
			s.rmAll(p + "/" + e.Name)
		} else {
			s.unlink(p + "/" + e.Name)
		}
	}
	s.rmdir(p)
}

func (s *site) join(o *site) {
	s.t.Helper()
	ch, _ := s.mem.Diff(o.mem)
	p, err := s.view.Prepare(ch)
	if err != nil {
		s.t.Fatal(err)
	}
	s.mem.Join(o.mem)
	if _, err := p.Done(); err != nil {
		s.t.Fatal(err)
	}
}

// tree lists what is shown: files as path=content, directories as path/. The
// mark of a made-up name is shortened to "(*)".
func (s *site) tree() []string {
	var out []string
	for p, i := range snapshot(s.view).paths {
		p = strings.TrimPrefix(p, "/")
		for {
			i := strings.Index(p, mark)
			if i < 0 {
				break
			}
			j := strings.IndexByte(p[i:], ')')
			p = p[:i] + "(*)" + p[i+j+1:]
		}
		switch i.kind {
		case Dir:
			p += "/"
		case Symlink:
			p += "->" + i.token[1:]
		default:
			p += "=" + i.token[1:]
		}
		out = append(out, p)
	}
	slices.Sort(out)
	return out
}
