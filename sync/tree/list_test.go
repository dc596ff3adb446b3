package tree

import (
	"fmt"
	"reflect"
	"testing"
)

// TestListNodes: a listing with its inodes says what the inodes say one by one, and
// none of a directory that is too large.
func TestListNodes(t *testing.T) {
	a, b := newSite(t, 1), newSite(t, 2)
	a.mkdir("d")
	for i := range 20 {
		a.create(fmt.Sprint("d/f", i), "a")
	}
	a.mkdir("d/sub")
	a.xattr("d/f3", "user.x", "y")
	b.join(a)
	a.write("d/f1", "edited by a")
	b.write("d/f1", "edited by b")
	b.create("d/new", "b")
	a.create("d/new", "a")
	a.join(b)
	dir := a.ino("d")
	want, err := a.view.List(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, most := range []int{0, len(want) - 1, len(want)} {
		es, nodes, err := a.view.ListNodes(dir, most)
		if err != nil || !reflect.DeepEqual(es, want) {
			t.Fatalf("entries %v, %v", es, err)
		}
		if (nodes != nil) != (most == len(want)) {
			t.Fatalf("%d inodes of %d entries where %d are wanted", len(nodes), len(es), most)
		}
		for i := range nodes {
			if n, err := a.view.Node(es[i].Ino); err != nil || !reflect.DeepEqual(n, nodes[i]) {
				t.Errorf("%s is %+v and in the listing %+v, %v", es[i].Name, n, nodes[i], err)
			}
		}
	}
}
