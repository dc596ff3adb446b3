package replica

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/roamfs/roamfs/sync/tree"
)

// journal writes a draft of n as the files do.
func (d *node) journal(n tree.Node) {
	d.t.Helper()
	if err := d.PutDraft(tree.Draft{Ino: n.Ino, Base: n.Base, Data: []byte("draft")}); err != nil {
		d.t.Fatal(err)
	}
}

// drafts returns the journal and checks that nothing else is kept for ino.
func (d *node) drafts(without tree.Ino) []tree.Draft {
	d.t.Helper()
	all, err := d.Drafts()
	if err != nil {
		d.t.Fatal(err)
	}
	if b, err := d.st.Value(spotKey(without)); err != nil || b != nil {
		d.t.Fatalf("the place is still kept: %x, %v", b, err)
	}
	return all
}

func (d *node) find(path string) tree.Node {
	d.t.Helper()
	n, err := d.Resolve(path)
	if err != nil {
		d.t.Fatal(err)
	}
	return n
}

var later = tree.Content{Kind: tree.File, Size: 5, Inline: []byte("later"), Mode: 0o600}

// TestDraftOutlivesDeleteAndRestart: a file that another device deleted comes
// back with its draft, though this device was killed in between.
func TestDraftOutlivesDeleteAndRestart(t *testing.T) {
	for _, c := range []struct {
		name   string
		before bool // the draft is journaled before the delete is adopted
		many   bool // files that others delete afterwards
		dir    bool // its directory is deleted too
		want   string
	}{
		{"journaled before", true, false, false, `/e/f.txt file 640 5 1 "later"`},
		{"journaled after", false, false, false, `/e/f.txt file 640 5 1 "later"`},
		{"many deletes since", true, true, false, `/e/f.txt file 640 5 1 "later"`},
		{"directory too", true, false, true, `/f.txt file 640 5 1 "later"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := hive(t, 2)
			w := connect(n[0], n[1])
			defer w.disconnect()
			n[0].mkdir("e")
			n[0].write("e/f.txt", "first")
			f := n[0].find("e/f.txt")
			if err := n[0].Chmod(f.Ino, 0o640); err != nil {
				t.Fatal(err)
			}
			agree(t, n...)
			if c.before {
				n[0].journal(f)
			}
			n[1].rm("e/f.txt")
			if c.dir {
				if err := n[1].Rmdir(tree.Root, "e"); err != nil {
					t.Fatal(err)
				}
			}
			agree(t, n...)
			if !c.before {
				n[0].journal(f)
			}
			for i := range mostGone {
				if c.many {
					n[0].gone.add(tree.Ino{1, byte(i >> 8), byte(i)}, spot{Place: tree.Place{Name: "other"}})
				}
			}
			d := n[0].twin()
			d.open()
			defer d.close()
			if _, err := d.Node(f.Ino); !errors.Is(err, fs.ErrNotExist) {
				t.Fatalf("the deleted file: %v", err)
			}
			if _, err := d.Write(f.Ino, f.Base, later, true); err != nil {
				t.Fatal(err)
			}
			if l := d.listing(); !strings.Contains(l, c.want) {
				t.Errorf("the draft is not in\n%s", l)
			}
			if all := d.drafts(f.Ino); len(all) > 0 {
				t.Errorf("%d drafts are left", len(all))
			}
		})
	}
}

// TestDraftFollowsTheFileThatComesBack: what is journaled when a commit makes
// the file anew is journaled for the new inode.
func TestDraftFollowsTheFileThatComesBack(t *testing.T) {
	n := hive(t, 2)
	w := connect(n[0], n[1])
	n[0].write("f", "first")
	n[0].write("other", "first")
	agree(t, n...)
	f, other, name := n[0].find("f"), n[0].find("other"), "f"
	if f.Ino.Compare(other.Ino) > 0 { // the journal has the one that goes first
		f, other, name = other, f, "other"
	}
	n[0].journal(f)
	if err := n[0].PutDraft(tree.Draft{Ino: other.Ino, Data: []byte("other draft")}); err != nil {
		t.Fatal(err)
	}
	n[1].rm(name)
	agree(t, n...)
	w.disconnect()
	back, err := n[0].Write(f.Ino, f.Base, later, false)
	if err != nil {
		t.Fatal(err)
	}
	d := n[0].twin()
	d.open()
	defer d.close()
	for _, d := range []*node{n[0], d} {
		got := map[tree.Ino]string{}
		for _, x := range d.drafts(f.Ino) {
			got[x.Ino] = string(x.Data)
		}
		if len(got) != 2 || got[back.Ino] != "draft" || got[other.Ino] != "other draft" {
			t.Fatalf("journal: %v", got)
		}
		d.rm(name) // the draft is this file's in every way
		if all := d.drafts(back.Ino); len(all) != 1 {
			t.Errorf("%d drafts", len(all))
		}
	}
}

// TestDeleteHereTakesTheDraft: what the user deletes has no draft any more from
// the same moment on, and does not come back.
func TestDeleteHereTakesTheDraft(t *testing.T) {
	for _, c := range []struct {
		name   string
		others func(*node) // do before
		remove func(*node)
	}{
		{"unlink", nil, func(d *node) { d.rm("f") }},
		{"rename over it", nil, func(d *node) {
			if err := d.Rename(tree.Root, "mine", tree.Root, "f", false, false); err != nil {
				d.t.Fatal(err)
			}
		}},
		{"unlink what others moved", func(d *node) {
			if err := d.Rename(tree.Root, "f", tree.Root, "g", false, false); err != nil {
				d.t.Fatal(err)
			}
		}, func(d *node) { d.rm("g") }},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := hive(t, 2)
			w := connect(n[0], n[1])
			n[0].write("f", "first")
			n[0].write("mine", "first")
			agree(t, n...)
			f := n[0].find("f")
			n[0].journal(f)
			if c.others != nil {
				c.others(n[1])
				agree(t, n...)
			}
			w.disconnect()
			c.remove(n[0])
			d := n[0].twin()
			d.open()
			defer d.close()
			for _, d := range []*node{n[0], d} {
				if all := d.drafts(f.Ino); len(all) > 0 {
					t.Errorf("%d drafts are left", len(all))
				}
				if _, err := d.Write(f.Ino, f.Base, later, true); !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("write to what was deleted here: %v", err)
				}
			}
		})
	}
}

// TestDeleteOfOneNameLeavesTheDraft: the file has another name.
func TestDeleteOfOneNameLeavesTheDraft(t *testing.T) {
	n := hive(t, 2)
	w := connect(n[0], n[1])
	defer w.disconnect()
	n[0].write("f", "first")
	f := n[0].find("f")
	if _, err := n[0].Link(f.Ino, tree.Root, "g"); err != nil {
		t.Fatal(err)
	}
	agree(t, n...)
	n[0].journal(f)
	recs, err := n[0].st.Records(f.Ino)
	if err != nil {
		t.Fatal(err)
	}
	link := slices.IndexFunc(recs, func(r tree.Record) bool { return r.Key.Type() == tree.TypeLink })
	n[0].mu.Lock()
	got, err := n[0].deletedLocked(tree.Change{Drop: []tree.KeyDot{recs[link].ID()}})
	n[0].mu.Unlock()
	if err != nil || len(got) > 0 {
		t.Fatalf("without one link it counts as deleted: %v, %v", got, err)
	}
	n[0].rm("f")
	if all := n[0].drafts(f.Ino); len(all) != 1 {
		t.Fatalf("%d drafts", len(all))
	}
	agree(t, n...)
	n[1].rm("g") // and this one is the others'
	agree(t, n...)
	n[0].restart()
	if _, err := n[0].Write(f.Ino, f.Base, later, true); err != nil {
		t.Fatal(err)
	}
	if l := n[0].listing(); !strings.Contains(l, `/g file 644 5 1 "later"`) {
		t.Errorf("the draft is not in\n%s", l)
	}
}

// TestNothingIsKeptWithoutADraft: the place of a deleted file is in the database
// only as long as its draft.
func TestNothingIsKeptWithoutADraft(t *testing.T) {
	for _, c := range []struct {
		name string
		drop func(*node, tree.Node) error
	}{
		{"dropped", func(d *node, f tree.Node) error { return d.DropDraft(f.Ino) }},
		{"committed", func(d *node, f tree.Node) error {
			_, err := d.Write(f.Ino, f.Base, later, true)
			return err
		}},
	} {
		for _, when := range []string{"before the delete", "after it"} {
			t.Run(c.name+" "+when, func(t *testing.T) {
				n := hive(t, 2)
				w := connect(n[0], n[1])
				defer w.disconnect()
				n[0].write("f", "first")
				f := n[0].find("f")
				n[0].journal(f)
				agree(t, n...)
				drop := func() {
					if err := c.drop(n[0], f); err != nil {
						t.Fatal(err)
					}
					agree(t, n...)
				}
				if when == "before the delete" {
					drop()
				}
				n[1].rm("f")
				agree(t, n...)
				if when == "after it" {
					drop()
				}
				if all := n[0].drafts(f.Ino); len(all) > 0 {
					t.Errorf("%d drafts are left", len(all))
				}
			})
		}
	}
}

// TestDraftsWhileDeletesAreAdopted: the delete of many files takes several
// transactions, and the device is killed between two.
func TestDraftsWhileDeletesAreAdopted(t *testing.T) {
	const files = 400
	n := hive(t, 2)
	w := connect(n[0], n[1])
	for i := range files {
		n[0].write(fmt.Sprintf("f%03d", i), "first")
	}
	agree(t, n...)
	w.disconnect()
	var drafts []tree.Node
	for i := range files {
		f := n[1].find(fmt.Sprintf("f%03d", i))
		n[1].journal(f)
		drafts = append(drafts, f)
	}
	n[0].stop() // so that all of it is one commit
	n[0].stop = func() {}
	for i := range files {
		n[0].rm(fmt.Sprintf("f%03d", i))
	}
	if err := n[0].Publish(); err != nil {
		t.Fatal(err)
	}
	killed := n[1].killedAdopting(n[0])
	defer killed.close()
	if l := killed.listing(); l != "" {
		t.Fatalf("before the drafts are committed there is\n%s", l)
	}
	for _, f := range drafts {
		if _, err := killed.Write(f.Ino, f.Base, later, true); err != nil {
			t.Fatal(err)
		}
	}
	l := killed.listing()
	for i := range files {
		if !strings.Contains(l, fmt.Sprintf("/f%03d file ", i)) {
			t.Fatalf("f%03d is not back", i)
		}
	}
}

// TestJournalWhileDeleting: a file that others have moved is deleted here while
// its draft is journaled. Whichever comes first, it does not come back.
func TestJournalWhileDeleting(t *testing.T) {
	const files = 64
	n := hive(t, 2)
	w := connect(n[0], n[1])
	for i := range files {
		n[0].write(fmt.Sprint("f", i), "first")
	}
	agree(t, n...)
	for i := range files {
		if err := n[1].Rename(tree.Root, fmt.Sprint("f", i), tree.Root, fmt.Sprint("g", i), false, false); err != nil {
			t.Fatal(err)
		}
	}
	agree(t, n...)
	w.disconnect()
	for i := range files {
		f := n[0].find(fmt.Sprint("g", i))
		var (
			wg   sync.WaitGroup
			done atomic.Bool
		)
		wg.Go(func() {
			for !done.Load() {
				n[0].journal(f)
			}
		})
		n[0].rm(fmt.Sprint("g", i))
		done.Store(true)
		wg.Wait()
		n[0].drafts(f.Ino)
		if _, err := n[0].Write(f.Ino, f.Base, later, true); !errors.Is(err, fs.ErrNotExist) {
			t.Fatalf("write to what was deleted here: %v", err)
		}
	}
}

func FuzzDecodeSpot(f *testing.F) {
	for _, s := range []spot{
		{Place: tree.Place{Name: "f"}},
		{Place: tree.Place{Parent: tree.Ino{1, 2, 3}, Name: "a longer name.txt"}, mode: 0o4755},
	} {
		f.Add(s.encode())
	}
	f.Add([]byte{1, 0x80, 0x00})
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := decodeSpot(b); err == nil && !bytes.Equal(s.encode(), b) {
			t.Errorf("%x decodes to %+v, which is %x", b, s, s.encode())
		}
	})
}
