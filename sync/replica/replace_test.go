package replica

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/roamfs/roamfs/sync/tree"
)

// TestRenameWaitsForContent: a batch in which a file replaces another waits for
// the content of that file, until it is there or can no longer come.
func TestRenameWaitsForContent(t *testing.T) {
	empty := func(d *node) { d.write("tmp", "") }
	drafted := func(d *node) { d.write("tmp", ""); d.journal(d.find("tmp")) }
	rename := func(from, to string, exchange bool) func(*node) {
		return func(d *node) {
			if err := d.Rename(tree.Root, from, tree.Root, to, false, exchange); err != nil {
				d.t.Fatal(err)
			}
		}
	}
	commit := func(d *node, name string) {
		f := d.find(name)
		if _, err := d.Write(f.Ino, f.Base, later, true); err != nil {
			d.t.Fatal(err)
		}
	}
	type answer struct{ content, drafts bool }
	for name, c := range map[string]struct {
		before, rename func(*node)
		want           answer
		end            func(*node)
	}{
		"committed":                  {drafted, rename("tmp", "f", false), answer{true, true}, func(d *node) { commit(d, "f") }},
		"committed under a new name": {drafted, rename("tmp", "f", false), answer{true, true}, func(d *node) { rename("f", "g", false)(d); commit(d, "g") }},
		"exchanged":                  {drafted, rename("tmp", "f", true), answer{true, true}, func(d *node) { commit(d, "f") }},
		"exchanged the other way":    {drafted, rename("f", "tmp", true), answer{true, true}, func(d *node) { commit(d, "f") }},
		"empty as yet":               {empty, rename("tmp", "f", false), answer{true, false}, func(d *node) { commit(d, "f") }},
		"deleted":                    {drafted, rename("tmp", "f", false), answer{true, true}, func(d *node) { d.rm("f") }},
		"draft dropped": {drafted, rename("tmp", "f", false), answer{true, true}, func(d *node) {
			if err := d.DropDraft(d.find("f").Ino); err != nil {
				d.t.Fatal(err)
			}
		}},
		"with its content":  {func(d *node) { d.write("tmp", "new") }, rename("tmp", "f", false), answer{}, nil},
		"replacing nothing": {drafted, rename("tmp", "g", false), answer{}, nil},
		"a symlink":         {func(d *node) { d.steps("", "symlink t tmp") }, rename("tmp", "f", false), answer{}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			d := hive(t, 1)[0]
			d.stop() // nothing is published while the test looks
			d.stop = func() {}
			d.write("f", "old")
			c.before(d)
			c.rename(d)
			content, drafts := d.owes()
			if (answer{content, drafts}) != c.want {
				t.Errorf("waits for %v", answer{content, drafts})
			}
			if c.end != nil {
				c.end(d)
			}
			if content, _ := d.owes(); content {
				t.Error("still waits at the end")
			}
			settles(t, d, 10*time.Millisecond)
		})
	}
}

// settles checks how long the batch of d waits.
func settles(t *testing.T, d *node, want time.Duration) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		d.settle(t.Context())
		if took := time.Since(begin); took != want {
			t.Errorf("the batch waits %v, want %v", took, want)
		}
	})
}

// TestContentThatDoesNotCome: a batch does not wait for ever, and once only.
func TestContentThatDoesNotCome(t *testing.T) {
	for _, drafted := range []bool{false, true} {
		d := hive(t, 1)[0]
		d.stop()
		d.stop = func() {}
		d.write("f", "old")
		d.write("tmp", "")
		want := burst
		if drafted {
			d.journal(d.find("tmp"))
			want = draftsWait
		}
		d.steps("", "mv tmp f")
		settles(t, d, want)
		settles(t, d, 10*time.Millisecond)
	}
}
