package replica

import (
	"strings"
	"testing"
)

// TestConflictWithinABatch: what a user wrote, then met another version, and then
// wrote on top of that one before anything was published, is three contents, of
// which only the one that was written over may go.
func TestConflictWithinABatch(t *testing.T) {
	for _, how := range []string{"commit", "state"} {
		t.Run(how, func(t *testing.T) {
			n := hive(t, 3)
			a, b, c := n[0], n[1], n[2]
			w := connect(a, b)
			a.write("f", "first")
			agree(t, a, b)
			w.disconnect()
			if how == "state" {
				a.keep = 1 // nothing but the newest commit
				a.restart()
			}
			a.write("f", "once more")
			a.write("f", "theirs") // and so it wins
			if err := a.Publish(); err != nil {
				t.Fatal(err)
			}
			if how == "state" {
				a.publishFiles("more", 2)
			}
			b.stop() // nothing is published by itself
			b.stop = func() {}
			b.write("f", "mine")
			w = connect(a, b)
			await(t, func() bool { return strings.Contains(b.listing(), "conflict") })
			w.disconnect()
			if got := b.shows("f"); got != "theirs" {
				t.Fatalf("shows %q", got)
			}
			b.write("f", "upon that")
			a.write("f", "meanwhile")
			if err := b.Publish(); err != nil {
				t.Fatal(err)
			}
			w = connect(a, b)
			defer w.disconnect()
			x := connect(b, c)
			defer x.disconnect()
			await(t, func() bool { return b.Publish() == nil && strings.Contains(c.listing(), "meanwhile") })
			agree(t, a, b, c)
			for _, text := range []string{"mine", "upon that", "meanwhile"} {
				if !strings.Contains(c.listing(), `"`+text+`"`) {
					t.Errorf("%q is gone:\n%s", text, c.listing())
				}
			}
		})
	}
}

func (d *node) shows(path string) string {
	d.t.Helper()
	f, err := d.Resolve(path)
	if err != nil {
		d.t.Fatal(err)
	}
	return string(f.Inline)
}
