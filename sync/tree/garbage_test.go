package tree

import (
	"slices"
	"strings"
	"testing"
)

// script is a history whose steps are given. All clocks are right.
type script struct {
	*history
	now int64
}

// scripted makes one of three devices that all have directories and files under
// the paths given; a directory ends in a slash.
func scripted(off leftOut, paths ...string) *script {
	h := newHistory(1, off)
	for seed := uint64(2); len(h.devices) != 3 || h.moves || h.writes || h.tidy; seed++ {
		h = newHistory(seed, off)
	}
	s := &script{h, 1e18}
	for _, p := range paths {
		if dir, ok := strings.CutSuffix(p, "/"); ok {
			s.op(0, "mkdir", dir, "")
		} else {
			s.op(0, "create", p, "")
		}
	}
	s.meet()
	return s
}

// op has device i do something, in a batch of its own. Files get their path as content.
func (s *script) op(i int, kind, from, to string) { s.opAt(i, s.now, kind, from, to) }

func (s *script) opAt(i int, now int64, kind, from, to string) {
	s.now++
	d := s.devices[i]
	s.close(d)
	d.ctr++
	d.index++
	d.open = true
	s.do(d, op{kind: kind, from: from, to: to, token: from}, now)
	if !d.did {
		violate("%s %s %s does nothing", kind, from, to)
	}
}

// joins has device i take all that device j has.
func (s *script) joins(i, j int) { s.join(s.devices[i], s.devices[j]) }

// meet has all devices come to one state, and know that.
func (s *script) meet() {
	for range 2 {
		for _, d := range s.devices {
			s.joinAll(d)
		}
	}
}

// has reports whether device i has records of the directory that is first made at path.
func (s *script) has(i int, name string) bool {
	rs, err := s.devices[i].mem.Records(dirIno(Root, name))
	must(err)
	return len(rs) > 0
}

// TestLosingLink: of two moves of a file one has lost, into a directory that was
// removed. Who does not know it takes away the other one, and then it counts.
func TestLosingLink(t *testing.T) {
	play := func(off leftOut) error {
		return caught(func() {
			s := scripted(off, "/i/", "/q/", "/f")
			s.op(0, "rmdir", "/i", "")
			s.joins(2, 0)
			s.op(1, "rename", "/f", "/i/f") // has not heard of that
			s.op(2, "rename", "/f", "/q/f") // later: this one counts
			s.joins(0, 2)
			s.joins(1, 0)
			s.joins(0, 1)
			s.op(0, "create", "/x", "") // both have said that they know of the removal
			s.close(s.devices[0])
			s.op(2, "unlink", "/q/f", "")
			s.finish()
		})
	}
	if err := play(leftOut{}); err != nil {
		t.Error(err)
	}
	if err := play(leftOut{rules: rules{bare: true}}); err == nil || !strings.HasPrefix(err.Error(), "I4") {
		t.Errorf("a directory goes with something in it: %v", err)
	}
}

// TestCycleOverGarbage: a directory goes in circles, and where it was before has
// gone where nobody has heard of the circle. Whoever writes down what is shown
// keeps that place; if nobody does, the root stands for it.
func TestCycleOverGarbage(t *testing.T) {
	play := func(off leftOut, pinned bool) (s *script, err error) {
		err = caught(func() {
			s = scripted(off, "/q/", "/q/x/", "/y/", "/w/")
			s.opAt(1, 4e18, "rename", "/q/x", "/y/x") // its clock is ahead
			s.meet()
			s.op(0, "rmdir", "/q", "")
			s.meet()
			s.op(1, "rename", "/w", "/y/x/w")
			s.op(2, "rename", "/y", "/w/y")
			s.joins(2, 1)
			if _, ok := s.devices[2].shown.paths["/q/x"]; !ok {
				violate("x is not where it was:\n%v", s.devices[2].shown)
			}
			if pinned {
				s.op(2, "mkdir", "/z", "")
			}
			s.op(0, "create", "/x", "")
			s.close(s.devices[0])
			if s.has(0, "q") {
				violate("nothing is dropped")
			}
			s.finish()
		})
		return s, err
	}
	for _, pinned := range []bool{true, false} {
		s, err := play(leftOut{}, pinned)
		if err != nil {
			t.Fatalf("pinned %v: %v", pinned, err)
		}
		want := "/q/x"
		if !pinned {
			want = "/x (conflict"
		}
		for _, d := range s.devices {
			if !strings.Contains(d.shown.String(), want) {
				t.Errorf("pinned %v: no %q in\n%v", pinned, want, d.shown)
			}
		}
	}
	if _, err := play(leftOut{rules: rules{uphold: true}}, true); err == nil || !strings.HasPrefix(err.Error(), "I4") {
		t.Errorf("a deleted directory is not kept for what is put into it: %v", err)
	}
}

// TestGhostKeepsItsMode: a directory that is brought back to life by what is in
// it keeps its attributes, though what was left of it goes elsewhere.
func TestGhostKeepsItsMode(t *testing.T) {
	var s *script
	if err := caught(func() {
		s = scripted(leftOut{}, "/i/")
		s.op(0, "chmod", "/i", "")
		s.meet()
		s.op(1, "create", "/i/a", "")
		s.joins(2, 1)
		s.op(2, "rename", "/i/a", "/b")
		s.op(0, "rmdir", "/i", "")
		s.joins(1, 0) // which shows it, as a is in it
		s.joins(2, 0)
		s.joins(0, 1)
		s.joins(0, 2)
		s.op(0, "create", "/x", "")
		s.close(s.devices[0])
		if s.has(0, "i") {
			violate("nothing is dropped")
		}
		s.op(1, "create", "/i/c", "")
		s.finish()
	}); err != nil {
		t.Fatal(err)
	}
	for _, d := range s.devices {
		if i := d.shown.paths["/i"]; i.mode != 0o600 {
			t.Errorf("mode %o in\n%v", i.mode, d.shown)
		}
	}
}

// TestAnchor: a device that was put back to an old image works in a directory
// that has gone everywhere else, as it itself once knew.
func TestAnchor(t *testing.T) {
	play := func(off leftOut) (s *script, err error) {
		err = caught(func() {
			s = scripted(off, "/i/", "/i/j/", "/i/j/f")
			s.op(0, "chmod", "/i", "")
			s.meet()
			d := s.devices[2]
			d.past = d.image()
			s.op(0, "unlink", "/i/j/f", "")
			s.op(0, "rmdir", "/i/j", "")
			s.op(0, "rmdir", "/i", "")
			s.meet()
			s.op(0, "create", "/x", "")
			s.meet()
			s.op(0, "create", "/y", "")
			s.close(s.devices[0])
			if s.has(0, "i") {
				violate("nothing is dropped")
			}
			s.restore(d)
			s.op(2, "write", "/i/j/f", "")
			s.op(2, "create", "/i/j/g", "")
			s.finish()
		})
		return s, err
	}
	s, err := play(leftOut{})
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range s.devices {
		if i, ok := d.shown.paths["/i/j/g"]; !ok || d.shown.paths["/i"].mode != 0o600 {
			t.Errorf("%v in\n%v", i, d.shown)
		}
	}
	if _, err := play(leftOut{rules: rules{anchor: true}}); err == nil || !strings.HasPrefix(err.Error(), "I4") {
		t.Errorf("an old image is not made good: %v", err)
	}
}

// TestFollowDrop: to follow a drop reads what goes and looks for what is in it, and nothing
// else, however many directories there are.
func TestFollowDrop(t *testing.T) {
	c, v, dir := wide(t, 10)
	commit(t, c, v, 2, func(e *Edit) error { _, err := e.Mkdir(dir, "sub", DirMode); return err })
	commit(t, c, v, 3, func(e *Edit) error { return e.Rmdir(dir, "sub") })
	known := Vector{Actor{1}: 3}
	v.Words(known, known, nil)
	v.Words(known, known, nil)
	inos, err := v.Garbage(10)
	if err != nil || len(inos) != 1 {
		t.Fatalf("garbage %v, %v", inos, err)
	}
	c.reads, c.children = 0, 0
	commit(t, c, v, 4, func(e *Edit) error { return e.Collect(inos) })
	if c.reads > 4 || c.children > 0 {
		t.Errorf("%d reads, %d directories listed", c.reads, c.children)
	}
	if n := len(v.garbage.all()); n > 0 {
		t.Errorf("%d inodes are still garbage", n)
	}
}

// TestGarbageRecords: no more goes than asked for, what is in a directory before it, and
// what nobody wants to go does not keep the rest.
func TestGarbageRecords(t *testing.T) {
	m := NewMem()
	var ch Change
	skeleton := func(parent Ino, name string) Ino {
		ino := dirIno(parent, name)
		ch.Put = append(ch.Put, Record{LinkKey(ino, LinkID{}), Dot{Actor{1}, 1}, Link{Parent: parent, Name: name, Rank: 1, Dir: true, Deleted: true}.Encode()})
		return ino
	}
	a := skeleton(Root, "a")
	b := skeleton(a, "b")
	d := skeleton(b, "d")
	big := skeleton(Root, "big")
	for _, name := range []string{"user.1", "user.2", "user.3", "user.4"} {
		ch.Put = append(ch.Put, Record{XattrKey(big, name), Dot{Actor{1}, 1}, Xattr{Rank: 1}.Encode()})
	}
	m.Apply(ch)
	v, err := NewView(m)
	if err != nil {
		t.Fatal(err)
	}
	v.Words(m.Vector(), m.Vector(), nil)
	v.Words(m.Vector(), m.Vector(), nil)
	for _, want := range [][]Ino{{d, b}, {d, b}} { // the first time it is not carried out
		got, err := v.Garbage(2)
		if err != nil || !slices.Equal(got, want) {
			t.Fatalf("garbage %v, %v, want %v", got, err, want)
		}
	}
	e := v.Edit(Dot{Actor{1}, 2}, 0, 1)
	if err := e.Collect([]Ino{d, b}); err != nil {
		t.Fatal(err)
	}
	p, err := v.Prepare(e.Change())
	if err != nil {
		t.Fatal(err)
	}
	m.Apply(e.Change())
	if _, err := p.Done(); err != nil {
		t.Fatal(err)
	}
	if got, err := v.Garbage(4); err != nil || !slices.Equal(got, []Ino{a}) {
		t.Errorf("garbage %v, %v, want %v", got, err, a)
	}
}

// FuzzDead: what Dead says of records is what the view makes of them.
func FuzzDead(f *testing.F) {
	f.Add([]byte{0, 1, 2, 3})
	f.Add([]byte{4, 9, 17, 130})
	f.Fuzz(func(t *testing.T, b []byte) {
		ino := Ino{5}
		snap := fileContent("s")
		var rs []Record
		for i, x := range b[:min(len(b), 8)] {
			r := Record{Dot: Dot{Actor{1}, uint64(i + 1)}}
			l := Link{Parent: Root, Name: "n", Rank: uint64(x>>5) + 1, Dir: x&8 > 0, Deleted: x&16 > 0 && x&8 > 0}
			switch x & 7 {
			case 0:
				r.Key, r.Value = ContentKey(ino), fileContentRank("c", 1).Encode()
			case 1:
				r.Key, r.Value = AttrKey(ino), Attr{Rank: 1}.Encode()
			case 2:
				r.Key, r.Value = ContentKey(ino), []byte("no content")
			case 3:
				r.Key, r.Value = LinkKey(ino, LinkID{}), []byte("no link")
			case 4:
				l.Snap = &snap
				fallthrough
			case 5:
				r.Key, r.Value = LinkKey(ino, LinkID{1}), l.Encode()
			default:
				r.Key, r.Value = LinkKey(ino, LinkID{}), l.Encode()
			}
			rs = append(rs, r)
		}
		SortRecords(rs)
		if got, want := Dead(ino, rs), sortOut(ino, rs).dead(); got != want {
			t.Errorf("dead %v, want %v: %v", got, want, rs)
		}
	})
}
