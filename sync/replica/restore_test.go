package replica

import (
	"errors"
	"testing"

	"github.com/roamfs/roamfs/sync/tree"
)

// TestRestore: a folder comes back as it was, beside what is new in it, as an
// ordinary edit that reaches the other devices; where something of another kind
// is in the way nothing is changed.
func TestRestore(t *testing.T) {
	h := hive(t, 2)
	a, b := h[0], h[1]
	connect(a, b)
	file := func(name, text string) Old {
		return Old{Name: name, Content: tree.Content{Kind: tree.File, Mode: 0o640, MTime: 77, Size: int64(len(text)), Inline: []byte(text)}, Xattrs: map[string][]byte{"user.x": []byte(name)}}
	}
	dir := func(name string, below ...Old) Old {
		return Old{Name: name, Content: tree.Content{Kind: tree.Dir, Mode: 0o750, MTime: 88}, Below: below}
	}
	a.mkdir("d")
	a.write("d/changed", "new")
	a.write("d/added", "stays")
	a.write("d/same", "same")
	a.mkdir("d/in the way")
	before := a.listing()

	old := dir("d", file("changed", "old"), file("gone", "back"), file("same", "same"), dir("sub", file("deep", "deep")))
	blocked := old
	blocked.Below = append([]Old{}, append(old.Below, file("in the way", "x"))...)
	if _, err := a.Restore(tree.Root, blocked); !errors.Is(err, ErrInTheWay) || a.listing() != before {
		t.Fatalf("%v; the tree is\n%s", err, a.listing())
	}
	done, err := a.Restore(tree.Root, old)
	if err != nil || done != (Restored{Files: 3, Dirs: 1, Same: 1}) {
		t.Fatalf("%+v, %v", done, err)
	}
	agree(t, a, b)
	for path, text := range map[string]string{"d/changed": "old", "d/gone": "back", "d/added": "stays", "d/same": "same", "d/sub/deep": "deep"} {
		n, err := b.Resolve(path)
		if err != nil || string(n.Inline) != text {
			t.Errorf("%s is %q, %v", path, n.Inline, err)
			continue
		}
		if path != "d/added" && (n.Mode != 0o640 || n.MTime != 77 || string(n.Xattrs["user.x"]) != n.Name) {
			t.Errorf("%s has mode %o, time %d, attributes %q", path, n.Mode, n.MTime, n.Xattrs)
		}
	}
	if n, err := b.Resolve("d/sub"); err != nil || n.Mode != 0o750 || n.MTime != 88 {
		t.Errorf("the folder has mode %o, time %d, %v", n.Mode, n.MTime, err)
	}
	was := a.listing()
	if done, err = a.Restore(tree.Root, old); err != nil || done != (Restored{Same: 4}) || a.listing() != was {
		t.Errorf("restored again: %+v, %v", done, err)
	}
}

// TestRestoreAgainstEdit: a restore on one device and an edit on another that did
// not see each other are two versions afterwards.
func TestRestoreAgainstEdit(t *testing.T) {
	h := hive(t, 2)
	a, b := h[0], h[1]
	a.write("f", "first")
	w := connect(a, b)
	agree(t, a, b)
	w.disconnect()
	old := Old{Name: "f", Content: tree.Content{Kind: tree.File, Size: 3, Inline: []byte("old"), Mode: 0o644}}
	if _, err := a.Restore(tree.Root, old); err != nil {
		t.Fatal(err)
	}
	b.write("f", "edited")
	connect(a, b)
	agree(t, a, b)
	texts := map[string]bool{}
	list, err := a.List(tree.Root)
	must(t, err)
	for _, e := range list {
		n, err := a.Node(e.Ino)
		must(t, err)
		texts[string(n.Inline)] = true
	}
	if len(texts) != 2 || !texts["old"] || !texts["edited"] {
		t.Errorf("the versions are %v", texts)
	}
}
