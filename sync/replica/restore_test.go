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

// TestRestoreHardLinks: names of one file are names of one file again, whatever became
// of them; what is linked to by another name outside stays what it is there.
func TestRestoreHardLinks(t *testing.T) {
	for _, c := range []struct {
		name   string
		spoil  func(d *node)
		same   bool // the file is still the one that it was
		files  int  // that are restored
		nlink  int
		beside string // what d/beside has, if it is there
	}{
		{"nothing", func(*node) {}, true, 0, 3, ""},
		{"the folder is gone", func(d *node) { d.rm("d/a"); d.rm("d/s/b"); d.rm("d/z") }, false, 3, 3, ""},
		{"one name is gone", func(d *node) { d.rm("d/a") }, true, 1, 3, ""},
		{"one name is another file with the same content", func(d *node) { d.rm("d/s/b"); d.write("d/s/b", "text") }, true, 1, 3, ""},
		{"the first name was saved by rename", func(d *node) {
			d.write("tmp", "new")
			if err := d.Rename(tree.Root, "tmp", d.at("d").Ino, "a", false, false); err != nil {
				d.t.Fatal(err)
			}
		}, true, 1, 3, ""},
		{"the content is another", func(d *node) { d.write("d/a", "new") }, true, 1, 3, ""},
		{"a name that was not restored stays", func(d *node) {
			if _, err := d.Link(d.at("d/a").Ino, d.at("d").Ino, "beside"); err != nil {
				d.t.Fatal(err)
			}
			d.rm("d/a")
			d.rm("d/s/b")
			d.rm("d/z")
		}, false, 3, 3, "text"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := hive(t, 2)
			a, b := h[0], h[1]
			connect(a, b)
			a.mkdir("d")
			a.mkdir("d/s")
			a.write("d/a", "text")
			f := a.at("d/a")
			for dir, name := range map[string]string{"d/s": "b", "d": "z"} {
				if _, err := a.Link(f.Ino, a.at(dir).Ino, name); err != nil {
					t.Fatal(err)
				}
			}
			f = a.at("d/a")
			file := func(name string) Old {
				return Old{Name: name, Ino: f.Ino, Content: tree.Content{Kind: tree.File, Mode: f.Mode, MTime: f.MTime, Size: f.Size, Inline: f.Inline}}
			}
			dir := func(name string, below ...Old) Old {
				return Old{Name: name, Ino: a.at("d").Ino, Content: tree.Content{Kind: tree.Dir, Mode: 0o755}, Below: below}
			}
			old := dir("d", file("a"), dir("s", file("b")), file("z"))
			agree(t, a, b)
			c.spoil(a)
			done, err := a.Restore(tree.Root, old)
			if err != nil || done.Files != c.files || done.Files+done.Same != 3 {
				t.Fatalf("%+v, %v", done, err)
			}
			agree(t, a, b)
			first := b.at("d/a")
			for _, name := range []string{"d/a", "d/s/b", "d/z"} {
				if n := b.at(name); n.Ino != first.Ino || string(n.Inline) != "text" || n.NLink != c.nlink {
					t.Errorf("%s is %v with %d names and %q; d/a is %v", name, n.Ino, n.NLink, n.Inline, first.Ino)
				}
			}
			if same := first.Ino == f.Ino; same != c.same {
				t.Errorf("it is the file that it was: %v", same)
			}
			if c.beside != "" && string(b.at("d/beside").Inline) != c.beside {
				t.Errorf("d/beside has %q", b.at("d/beside").Inline)
			}
			was := a.listing()
			if done, err = a.Restore(tree.Root, old); err != nil || done.Files+done.Dirs != 0 || a.listing() != was {
				t.Errorf("restored again: %+v, %v", done, err)
			}
		})
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
