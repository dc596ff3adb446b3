package sim

import (
	"fmt"
	"slices"
	"strings"

	"github.com/roamfs/roamfs/sync/tree"
)

// shower is what shows a tree: a replica, or a view made from its records.
type shower interface {
	List(tree.Ino) ([]tree.Entry, error)
	Node(tree.Ino) (tree.Node, error)
}

// item is what one path shows.
type item struct {
	ino      tree.Ino
	kind     tree.Kind
	token    string
	mode     uint32
	mtime    int64
	nlink    int
	xattr    string
	conflict bool
}

// listing is all that a device shows.
type listing struct {
	paths    map[string]item
	sorted   []string
	contents map[string]bool
	entries  map[tree.Place]tree.Ino
	nodes    map[tree.Ino]string
	text     string
}

// list walks the whole tree and checks on the way that it is one (I4): legal
// unique names, each directory once, nothing without a directory unless lost is set.
func list(s shower, lost bool) *listing {
	l := &listing{paths: map[string]item{}, contents: map[string]bool{}, entries: map[tree.Place]tree.Ino{}, nodes: map[tree.Ino]string{}}
	var out strings.Builder
	seen := map[tree.Ino]bool{}
	var walk func(dir tree.Ino, path string)
	walk = func(dir tree.Ino, path string) {
		if seen[dir] {
			violate("I4: directory %q is shown twice", path)
		}
		seen[dir] = true
		es, err := s.List(dir)
		check(err)
		for i, e := range es {
			p := path + "/" + e.Name
			if tree.CheckName(e.Name) != nil || i > 0 && es[i-1].Name >= e.Name || e.Parent != dir {
				violate("I4: entries %v of %q", es, path)
			}
			if e.Ino == tree.Recovered && !lost || len(p) > 4000 {
				violate("I4: %q is shown: something has lost its directory", p)
			}
			n, err := s.Node(e.Ino)
			if err != nil || n.Kind != e.Kind {
				violate("I4: %q has node %v, %v", p, n, err)
			}
			it := item{ino: e.Ino, kind: n.Kind, mode: n.Mode, mtime: n.MTime, nlink: n.NLink, conflict: e.Conflict}
			if x, ok := n.Xattrs["user.x"]; ok {
				it.xattr = "=" + string(x)
			}
			if n.Kind != tree.Dir {
				it.token = n.Kind.String()[:1] + string(n.Inline)
				l.contents[it.token] = true
			}
			l.paths[p], l.entries[tree.Place{Parent: dir, Name: e.Name}] = it, e.Ino
			l.sorted = append(l.sorted, p)
			l.nodes[e.Ino] = fmt.Sprintf("%v %o %d %d %q %x %v", n.Kind, n.Mode, n.Size, n.MTime, n.Inline, it.xattr, n.Base)
			fmt.Fprintf(&out, "%s %v %o %d %d %q %s %v %x\n", p, n.Kind, n.Mode, n.MTime, n.NLink, it.token, it.xattr, e.Conflict, e.Ino[20:])
			if e.Kind == tree.Dir {
				walk(e.Ino, p)
			}
		}
	}
	walk(tree.Root, "")
	slices.Sort(l.sorted)
	l.text = out.String()
	return l
}

// under reports whether path is top or lies below it.
func under(path, top string) bool { return path == top || strings.HasPrefix(path, top+"/") }
