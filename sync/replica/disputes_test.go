package replica

import (
	"errors"
	"io/fs"
	"slices"
	"strings"
	"testing"

	"github.com/roamfs/roamfs/sync/tree"
)

// TestDisputes: what each way to settle a conflict leaves, on the device that
// settles it and on the others.
func TestDisputes(t *testing.T) {
	root := tree.Ino{}
	write := func(d *node, name, text string) {
		t.Helper()
		n, err := d.Lookup(root, name)
		if errors.Is(err, fs.ErrNotExist) {
			_, err = d.Create(root, name, tree.Content{Kind: tree.File, Mode: 0o644, Size: int64(len(text)), Inline: []byte(text)})
		} else if err == nil {
			_, err = d.Write(n.Ino, n.Base, tree.Content{Kind: tree.File, Size: int64(len(text)), Inline: []byte(text)}, false)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	// shown lists what d shows as name=text; the part of a name that is different in each run is left out.
	shown := func(d *node) (out []string) {
		t.Helper()
		list, err := d.List(root)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range list {
			n, err := d.Node(e.Ino)
			if err != nil {
				t.Fatal(err)
			}
			name := e.Name
			if i, j := strings.Index(name, "("), strings.Index(name, ")"); i > 0 && j > i { // who, when and what digits
				name = name[:i+1] + name[j:]
			}
			out = append(out, name+"="+string(n.Inline))
		}
		slices.Sort(out)
		return out
	}
	for name, c := range map[string]struct {
		apart func(n []*node) // while the devices do not know of each other's edits
		after func(n []*node)
		keep  Keep
		path  string // default f.txt
		want  []string
		err   error
	}{
		"mine":              {keep: KeepMine, want: []string{"f.txt=1"}},
		"theirs":            {keep: KeepTheirs, want: []string{"f.txt=0"}},
		"both":              {keep: KeepBoth, want: []string{"f ().txt=0", "f.txt=1"}},
		"by the copy":       {keep: KeepMine, path: "copy", want: []string{"f.txt=1"}},
		"no such path":      {keep: KeepMine, path: "g", err: fs.ErrNotExist},
		"not in a conflict": {after: func(n []*node) { write(n[1], "g", "x") }, keep: KeepMine, path: "g", err: ErrNoDispute},
		"the name went":     {after: func(n []*node) { must(t, n[1].Unlink(root, "f.txt")) }, keep: KeepBoth, path: "copy", want: []string{"f.txt=0"}},
		"two of theirs":     {apart: func(n []*node) { write(n[2], "f.txt", "2") }, keep: KeepTheirs, err: ErrUndecided},
		"none of mine":      {after: func(n []*node) { must(t, n[1].Unlink(root, "f.txt")) }, keep: KeepMine, path: "copy", err: ErrUndecided},
		"a directory": {apart: func(n []*node) {
			must(t, n[2].Unlink(root, "f.txt"))
			_, err := n[2].Mkdir(root, "f.txt", 0o755)
			must(t, err)
		}, keep: KeepMine, err: tree.ErrIsDir},
		"a directory, both": {apart: func(n []*node) {
			must(t, n[2].Unlink(root, "f.txt"))
			_, err := n[2].Mkdir(root, "f.txt", 0o755)
			must(t, err)
		}, keep: KeepBoth, want: []string{"f ().txt=0", "f ().txt=1", "f.txt="}},
	} {
		t.Run(name, func(t *testing.T) {
			n := hive(t, 3)
			write(n[0], "f.txt", "")
			together(t, n...)
			write(n[0], "f.txt", "0")
			write(n[1], "f.txt", "1") // later, so it wins
			if c.apart != nil {
				c.apart(n)
			}
			together(t, n...)
			if c.after != nil {
				c.after(n)
			}
			told := 0
			n[1].Subscribe(func(tree.Affected) { told++ })
			ds, err := n[1].Disputes()
			must(t, err)
			if len(ds) != 1 || ds[0].Path != "/f.txt" {
				t.Fatalf("disputes: %+v", ds)
			}
			path := c.path
			switch path {
			case "":
				path = "/f.txt"
			case "copy":
				path = ds[0].Versions[len(ds[0].Versions)-1].Path
			}
			before := shown(n[1])
			kept, removed, err := n[1].Settle(path, c.keep)
			if c.err != nil {
				if !errors.Is(err, c.err) || told > 0 || !slices.Equal(shown(n[1]), before) {
					t.Errorf("settled with %v, told %d times, shows %v", err, told, shown(n[1]))
				}
				return
			}
			must(t, err)
			if len(kept) != len(c.want) || len(kept)+len(removed) != len(before) || told != 1 {
				t.Errorf("kept %d, removed %d, told %d times", len(kept), len(removed), told)
			}
			for _, v := range kept {
				if at, err := n[1].Resolve(v.Path); err != nil || !slices.Equal(at.Inline, v.Inline) {
					t.Errorf("%s: %v, %v", v.Path, at, err)
				}
			}
			together(t, n...)
			for i, d := range n {
				ds, err := d.Disputes()
				if got := shown(d); err != nil || len(ds) > 0 || !slices.Equal(got, c.want) {
					t.Errorf("device %d shows %q, want %q; disputes %v, %v", i, got, c.want, ds, err)
				}
			}
		})
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// together connects the nodes until all have the same state.
func together(t *testing.T, nodes ...*node) {
	t.Helper()
	var ws []*wire
	for i, a := range nodes {
		for _, b := range nodes[:i] {
			ws = append(ws, connect(a, b))
		}
	}
	agree(t, nodes...)
	for _, w := range ws {
		w.disconnect()
	}
}
