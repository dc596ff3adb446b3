package tree

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
)

// snap is all that a view shows.
type snap struct {
	view    *View
	paths   map[string]item
	entries map[Place]Ino
	nodes   map[Ino]Node
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
	for _, p := range slices.Sorted(maps.Keys(s.paths)) {
		i := s.paths[p]
		fmt.Fprintf(&b, "%s %v %q %o %v\n", p, i.kind, i.token, i.mode, i.ino)
	}
	return b.String()
}

func contents(s *snap) map[string]bool {
	m := map[string]bool{}
	for _, i := range s.paths {
		if i.kind != Dir {
			m[i.token] = true
		}
	}
	return m
}

func token(n Node) string {
	if n.Kind == Dir {
		return ""
	}
	return n.Kind.String()[:1] + string(n.Inline)
}

// snapshot walks the whole view and checks I4 on the way: every directory once,
// legal unique names, and List, Lookup, Node and Path of one mind.
func snapshot(v *View) *snap {
	s := &snap{v, map[string]item{}, map[Place]Ino{}, map[Ino]Node{}}
	seen := map[Ino]bool{}
	var walk func(dir Ino, path string)
	walk = func(dir Ino, path string) {
		if seen[dir] {
			violate("I4: directory %v is shown twice", dir)
		}
		seen[dir] = true
		n, err := v.Node(dir)
		must(err)
		s.nodes[dir] = n
		es, err := v.List(dir)
		must(err)
		for i, e := range es {
			if CheckName(e.Name) != nil || i > 0 && es[i-1].Name >= e.Name || e.Parent != dir {
				violate("I4: entries %v of %q", es, path)
			}
			if got, err := v.Lookup(dir, e.Name); err != nil || got != e {
				violate("I4: %q is listed as %v and looked up as %v, %v", path+"/"+e.Name, e, got, err)
			}
			n, err := v.Node(e.Ino)
			if err != nil || n.Kind != e.Kind || n.Ino != e.Ino {
				violate("I4: %q has node %v, %v", path+"/"+e.Name, n, err)
			}
			s.entries[Place{dir, e.Name}], s.nodes[e.Ino] = e.Ino, n
			it := item{e.Ino, n.Kind, token(n), n.Mode, n.MTime, "", e.Conflict}
			if x, ok := n.Xattrs["user.x"]; ok {
				it.xattr = "=" + string(x)
			}
			s.paths[path+"/"+e.Name] = it
			if e.Kind == Dir {
				walk(e.Ino, path+"/"+e.Name)
			}
		}
	}
	walk(Root, "")
	for ino := range s.nodes {
		p, err := v.Path(ino)
		if it, ok := s.paths[p]; err != nil || ino != Root && (!ok || it.ino != ino && it.token != token(s.nodes[ino])) {
			violate("I4: path of %v is %q, %v", ino, p, err)
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
			o.Parent, o.Name = n.Parent, n.Name
			if ok && !reflect.DeepEqual(n, o) && !slices.Contains(aff.Inodes, ino) {
				violate("inode %v changed and was not reported:\n%+v\n%+v", ino, n, o)
			}
		}
	}
}
