package tree

import (
	"fmt"
	"testing"
	"time"
)

// counting counts what is read of a State.
type counting struct {
	*Mem
	reads    int // Records and Named
	children int
}

func (c *counting) Records(i Ino) ([]Record, error) {
	c.reads++
	return c.Mem.Records(i)
}

func (c *counting) Named(p Ino, n string) ([]Ino, error) {
	c.reads++
	return c.Mem.Named(p, n)
}

func (c *counting) Children(p Ino) ([]Ino, error) {
	if c.Mem.children[p] != nil {
		c.children++
	}
	return c.Mem.Children(p)
}

// wide makes a directory of n files, and a second link of the first.
func wide(tb testing.TB, n int) (*counting, *View, Ino) {
	tb.Helper()
	m, dir := NewMem(), dirIno(Root, "d")
	dot := Dot{Actor{1}, 1}
	ch := Change{Put: []Record{{LinkKey(dir, LinkID{}), dot, Link{Parent: Root, Name: "d", Rank: 1, Dir: true}.Encode()}}}
	for i := range n {
		ino := fileIno(dir, dot, uint64(i), 0)
		ch.Put = append(ch.Put,
			Record{LinkKey(ino, LinkID{}), dot, Link{Parent: dir, Name: fmt.Sprint(i), Rank: 1}.Encode()},
			Record{ContentKey(ino), dot, fileContentRank(fmt.Sprint(i), 1).Encode()})
	}
	m.Apply(ch)
	c := &counting{Mem: m}
	v, err := NewView(c)
	if err != nil {
		tb.Fatal(err)
	}
	return c, v, dir
}

// commit runs op through an Edit and follows the change.
func commit(tb testing.TB, c *counting, v *View, ctr uint64, op func(*Edit) error) {
	tb.Helper()
	e := v.Edit(Dot{Actor{1}, ctr}, 0, 1)
	if err := op(e); err != nil {
		tb.Fatal(err)
	}
	ch := e.Change()
	p, err := v.Prepare(ch)
	if err != nil {
		tb.Fatal(err)
	}
	c.Apply(ch)
	if _, err := p.Done(); err != nil {
		tb.Fatal(err)
	}
}

// TestReads: an operation in a large directory reads a few inodes and lists
// nothing, as long as nothing is in conflict.
func TestReads(t *testing.T) {
	c, v, dir := wide(t, 5000)
	if c.children > 0 {
		t.Errorf("NewView lists %d directories", c.children)
	}
	e, err := v.Lookup(dir, "7")
	if err != nil {
		t.Fatal(err)
	}
	for i, o := range []struct {
		name  string
		limit int
		op    func(*Edit) error
	}{
		{"lookup", 2, func(*Edit) error { _, err := v.Lookup(dir, "9"); return err }},
		{"missing name", 1, func(*Edit) error {
			if _, err := v.Lookup(dir, "x"); err == nil {
				t.Error("found")
			}
			return nil
		}},
		{"node", 1, func(*Edit) error { _, err := v.Node(e.Ino); return err }},
		{"path", 1, func(*Edit) error { _, err := v.Path(e.Ino); return err }},
		{"create", 6, func(e *Edit) error { _, err := e.Create(dir, "new", fileContent("")); return err }},
		{"write", 8, func(x *Edit) error { _, err := x.Write(e.Ino, []Dot{{Actor{1}, 1}}, fileContent("")); return err }},
		{"chmod", 8, func(x *Edit) error { return x.Chmod(e.Ino, 0o600) }},
		{"link", 12, func(x *Edit) error { return x.Link(e.Ino, dir, "link") }},
		{"unlink", 12, func(e *Edit) error { return e.Unlink(dir, "8") }},
		{"rename", 16, func(e *Edit) error { return e.Rename(dir, "10", Root, "10", false, false) }},
		{"rename over", 16, func(e *Edit) error { return e.Rename(dir, "11", dir, "12", false, false) }},
		{"mkdir", 8, func(e *Edit) error { _, err := e.Mkdir(dir, "sub", DirMode); return err }},
		{"rename of the directory", 16, func(e *Edit) error { return e.Rename(Root, "d", Root, "D", false, false) }},
	} {
		c.reads, c.children = 0, 0
		commit(t, c, v, uint64(i+2), o.op)
		t.Logf("%s: %d reads", o.name, c.reads)
		if c.reads > o.limit || c.children > 0 {
			t.Errorf("%s: %d reads, at most %d wanted; %d directories listed", o.name, c.reads, o.limit, c.children)
		}
	}
}

func BenchmarkCreate(b *testing.B) {
	c, v, dir := wide(b, 100_000)
	ctr := uint64(1)
	b.ReportAllocs()
	for b.Loop() {
		ctr++
		commit(b, c, v, ctr, func(e *Edit) error {
			_, err := e.Create(dir, fmt.Sprint("n", ctr), fileContent(""))
			return err
		})
	}
}

func BenchmarkLookup(b *testing.B) {
	_, v, dir := wide(b, 100_000)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := v.Lookup(dir, "77777"); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkDirs makes a view of 100,000 directories, and directories in it.
func BenchmarkDirs(b *testing.B) {
	m, inos := NewMem(), []Ino{Root}
	var ch Change
	for i := range 100_000 {
		p, name := inos[i/10], fmt.Sprint(i)
		ino := dirIno(p, name)
		inos = append(inos, ino)
		ch.Put = append(ch.Put, Record{LinkKey(ino, LinkID{}), Dot{Actor{1}, 1}, Link{Parent: p, Name: name, Rank: 1, Dir: true}.Encode()})
	}
	m.Apply(ch)
	begin := time.Now()
	c := &counting{Mem: m}
	v, err := NewView(c)
	if err != nil {
		b.Fatal(err)
	}
	ready := time.Since(begin)
	begin = time.Now()
	v.arrange()
	arranged := time.Since(begin)
	ctr := uint64(1)
	for b.Loop() {
		ctr++
		commit(b, c, v, ctr, func(e *Edit) error {
			_, err := e.Mkdir(inos[5000], fmt.Sprint("n", ctr), DirMode)
			return err
		})
	}
	b.ReportMetric(float64(ready.Milliseconds()), "ms/NewView")
	b.ReportMetric(float64(arranged.Milliseconds()), "ms/arrange")
}
