package tree

import (
	"bytes"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// snap is all that a view shows.
type snap struct {
	view     *View
	paths    map[string]item
	sorted   []string // paths
	contents map[string]bool
	entries  map[Place]Ino
	nodes    map[Ino]*Node
}

// item is what one path shows.
type item struct {
	ino      Ino
	kind     Kind
	token    string
	mode     uint32
	mtime    int64
	xattr    string
	conflict bool
}

func (s *snap) String() string {
	var b strings.Builder
	for _, p := range s.sorted {
		i := s.paths[p]
		fmt.Fprintf(&b, "%s %v %q %o %v\n", p, i.kind, i.token, i.mode, i.ino)
	}
	return b.String()
}

func token(n *Node) string {
	if n.Kind == Dir {
		return ""
	}
	return n.Kind.String()[:1] + string(n.Inline)
}

// snapshot walks the whole view and checks I4 on the way: every directory once,
// legal unique names, and List, Lookup, Node and Path of one mind.
func snapshot(v *View) *snap {
	s := &snap{view: v, paths: map[string]item{}, contents: map[string]bool{}, entries: map[Place]Ino{}, nodes: map[Ino]*Node{}}
	seen := map[Ino]bool{}
	s.walk(Root, "", seen)
	slices.Sort(s.sorted)
	for ino, n := range s.nodes {
		if ino == Root {
			continue
		}
		p := v.path(n.Parent, n.Name) // all that Path does when it has the node
		if it, ok := s.paths[p]; !ok || it.ino != ino && it.token != token(n) {
			violate("I4: path of %v is %q", ino, p)
		}
	}
	v.dirs.each(func(i Ino, n dirNode) {
		if n.visible() && !seen[i] {
			violate("I4: directory %v cannot be reached", i)
		}
	})
	cs, err := v.Conflicts()
	must(err)
	listed := map[string]bool{}
	for _, c := range cs {
		listed[c.Path] = true
	}
	for p, i := range s.paths {
		if listed[p] != i.conflict {
			violate("I4: %q: conflict %v, in Conflicts %v", p, i.conflict, listed[p])
		}
	}
	return s
}

// walk adds dir, whose path is given, and all below it. seen are the directories
// so far.
func (s *snap) walk(dir Ino, path string, seen map[Ino]bool) {
	if seen[dir] {
		violate("I4: directory %v is shown twice", dir)
	}
	seen[dir] = true
	v := s.view
	if dir == Root {
		n, err := v.Node(dir)
		must(err)
		s.nodes[dir] = &n
	}
	es, err := v.List(dir)
	must(err)
	for i, e := range es {
		p := path + "/" + e.Name
		if CheckName(e.Name) != nil || i > 0 && es[i-1].Name >= e.Name || e.Parent != dir {
			violate("I4: entries %v of %q", es, path)
		}
		if got, err := v.Lookup(dir, e.Name); err != nil || got != e {
			violate("I4: %q is listed as %v and looked up as %v, %v", p, e, got, err)
		}
		n, err := v.Node(e.Ino)
		if err != nil || n.Kind != e.Kind || n.Ino != e.Ino {
			violate("I4: %q has node %v, %v", p, n, err)
		}
		it := item{e.Ino, n.Kind, token(&n), n.Mode, n.MTime, "", e.Conflict}
		if x, ok := n.Xattrs["user.x"]; ok {
			it.xattr = "=" + string(x)
		}
		s.entries[Place{dir, e.Name}], s.nodes[e.Ino], s.paths[p] = e.Ino, &n, it
		s.sorted = append(s.sorted, p)
		if e.Kind == Dir {
			s.walk(e.Ino, p, seen)
		} else {
			s.contents[it.token] = true
		}
	}
}

func sameNode(a, b *Node) bool {
	return a.Ino == b.Ino && a.Kind == b.Kind && a.Mode == b.Mode && a.Size == b.Size && a.MTime == b.MTime && a.Ref == b.Ref &&
		bytes.Equal(a.Inline, b.Inline) && a.NLink == b.NLink && maps.EqualFunc(a.Xattrs, b.Xattrs, bytes.Equal) &&
		slices.Equal(a.Base, b.Base) && a.Author == b.Author && a.Conflict == b.Conflict && a.Parent == b.Parent && a.Name == b.Name
}

// TestSameNode: no field is forgotten when nodes are compared.
func TestSameNode(t *testing.T) {
	a := Node{Xattrs: map[string][]byte{}}
	for i := range reflect.TypeFor[Node]().NumField() {
		b := a
		switch f := reflect.ValueOf(&b).Elem().Field(i); f.Kind() {
		case reflect.Map:
			f.Set(reflect.ValueOf(map[string][]byte{"x": nil}))
		case reflect.Slice:
			f.Set(reflect.MakeSlice(f.Type(), 1, 1))
		case reflect.Array:
			f.Index(0).SetUint(1)
		case reflect.Struct:
			b.Ref.Depth = 1
		case reflect.String:
			f.SetString("x")
		case reflect.Bool:
			f.SetBool(true)
		case reflect.Int, reflect.Int64:
			f.SetInt(1)
		default:
			f.SetUint(1)
		}
		if !sameNode(&a, &a) || sameNode(&a, &b) {
			t.Errorf("field %s is not compared", reflect.TypeFor[Node]().Field(i).Name)
		}
	}
}

func sameShown(got, want *snap, what string) {
	if !maps.Equal(got.paths, want.paths) || !maps.EqualFunc(got.nodes, want.nodes, sameNode) {
		violate("%s:\n%v\n%v", what, got, want)
	}
}

// sameMemory: two views keep the same in memory.
func sameMemory(got, want *View, what string) {
	sameDir := func(a, b dirNode) bool { return a.sameLink(&b) && a.live == b.live && a.kids == b.kids }
	sameNoted := func(a, b *noted) bool {
		return maps.Equal(a.places, b.places) && maps.Equal(a.derived, b.derived) && maps.Equal(a.names, b.names)
	}
	sameLayer(got.dirs, want.dirs, sameDir, what+": dirs")
	sameLayer(got.displaced, want.displaced, equal, what+": displaced")
	sameLayer(got.lost, want.lost, equal, what+": lost")
	sameLayer(got.noted, want.noted, sameNoted, what+": noted")
	sameLayer(got.virtual, want.virtual, equal, what+": virtual")
	if got.garbage != nil {
		g, w := got.garbage.all(), want.garbage.all()
		if !maps.Equal(g, w) {
			violate("%s: garbage %v, want %v", what, g, w)
		}
	}
}

func (g *garbage) all() map[Ino]struct{} {
	all := maps.Clone(g.young)
	maps.Copy(all, g.aged)
	maps.Copy(all, g.ripe)
	return all
}

func equal[V comparable](a, b V) bool { return a == b }

func sameLayer[K comparable, V any](got, want *layer[K, V], same func(V, V) bool, what string) {
	n, m := 0, 0
	want.each(func(K, V) { m++ })
	got.each(func(k K, v V) {
		n++
		if w, ok := want.get(k); !ok || !same(v, w) {
			violate("%s: %v: got %+v, want %+v (%v)", what, k, v, w, ok)
		}
	})
	if n != m || n != got.len() || n != want.len() {
		violate("%s: %d entries, counted as %d, want %d, counted as %d", what, n, got.len(), m, want.len())
	}
}

// checkAffected: whatever differs was reported.
func checkAffected(before, after *snap, aff Affected) {
	for _, pair := range [][2]*snap{{before, after}, {after, before}} {
		for p, ino := range pair[0].entries {
			if other, ok := pair[1].entries[p]; (!ok || other != ino) && !slices.Contains(aff.Entries, p) {
				violate("name %q in %v changed and was not reported", p.Name, p.Parent)
			}
		}
		for ino, n := range pair[0].nodes {
			o, ok := pair[1].nodes[ino]
			if !ok || sameNode(n, o) {
				continue
			}
			moved := *o
			moved.Parent, moved.Name = n.Parent, n.Name
			if !sameNode(n, &moved) && !slices.Contains(aff.Inodes, ino) {
				violate("inode %v changed and was not reported:\n%+v\n%+v", ino, n, o)
			}
		}
	}
}
