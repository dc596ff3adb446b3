package tree

import (
	"slices"
	"testing"
)

// TestMovedContentMeetsWrite: a content that one device moves while another,
// which knows the content, deletes it is left in the snapshot of the link alone.
// A third, which has never seen it, writes to the file: both are shown, whoever
// meets whom first, and the copy can be edited, deleted and moved.
func TestMovedContentMeetsWrite(t *testing.T) {
	begin := func(t *testing.T) (mover, deleter, writer *site) {
		t.Helper()
		mover, deleter, writer = newSite(t, 1), newSite(t, 2), newSite(t, 3)
		mover.create("f", "0")
		deleter.join(mover)
		writer.join(mover)
		mover.write("f", "moved")
		deleter.join(mover)
		mover.rename("f", "g")
		deleter.unlink("f")
		writer.write("f", "written")
		return mover, deleter, writer
	}
	shows := func(t *testing.T, s *site, want ...string) {
		t.Helper()
		if got := s.tree(); !slices.Equal(got, want) {
			t.Errorf("device %v shows %q, want %q", s.dot.Actor, got, want)
		}
		if got, want := snapshot(mustView(t, s.mem)).String(), snapshot(s.view).String(); got != want {
			t.Errorf("a view from scratch shows\n%s\nnot\n%s", got, want)
		}
	}
	for _, order := range [][3]int{{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}} {
		var sites [3]*site
		sites[0], sites[1], sites[2] = begin(t)
		for range 2 {
			for _, i := range order {
				for _, j := range order {
					if i != j {
						sites[i].join(sites[j])
					}
				}
			}
		}
		for _, s := range sites {
			shows(t, s, "g(*)=moved", "g=written")
		}
	}

	copyOf := func(t *testing.T, s *site) string {
		t.Helper()
		all, err := s.view.Conflicts()
		if err != nil || len(all) != 1 {
			t.Fatalf("conflicts %v, %v", all, err)
		}
		return all[0].Name
	}
	for name, c := range map[string]struct {
		do   func(s *site, copy string)
		want []string
	}{
		"delete the copy":      {func(s *site, c string) { s.unlink(c) }, []string{"g=written"}},
		"delete the file":      {func(s *site, _ string) { s.unlink("g") }, []string{"g(*)=moved"}},
		"write to the copy":    {func(s *site, c string) { s.write(c, "more") }, []string{"g(*)=more", "g=written"}},
		"write to the file":    {func(s *site, _ string) { s.write("g", "more") }, []string{"g(*)=moved", "g=more"}},
		"move the copy":        {func(s *site, c string) { s.rename(c, "h") }, []string{"g=written", "h=moved"}},
		"move the file":        {func(s *site, _ string) { s.rename("g", "h") }, []string{"g(*)=moved", "h=written"}},
		"the copy replaces it": {func(s *site, c string) { s.rename(c, "g") }, []string{"g=moved"}},
		"mode of the file":     {func(s *site, _ string) { s.chmod("g", 0o600) }, []string{"g(*)=moved", "g=written"}},
		"another name":         {func(s *site, _ string) { s.link("g", "h") }, []string{"g(*)=moved", "g=written", "h=written"}},
	} {
		t.Run(name, func(t *testing.T) {
			mover, deleter, writer := begin(t)
			mover.join(deleter)
			mover.join(writer)
			c.do(mover, copyOf(t, mover))
			shows(t, mover, c.want...)
			for _, s := range []*site{deleter, writer} {
				s.join(mover)
				shows(t, s, c.want...)
			}
		})
	}
}

// TestDeletedCopyStaysAway: a conflict copy that is deleted does not come back
// from the snapshot that a rename had taken of it.
func TestDeletedCopyStaysAway(t *testing.T) {
	for _, newer := range []byte{1, 2} { // whose content keeps the name
		a, b := newSite(t, newer), newSite(t, 3-newer)
		a.create("f", "0")
		b.join(a)
		a.write("f", "A")
		b.write("f", "B")
		b.rename("f", "g")
		a.join(b)
		all, err := a.view.Conflicts()
		if err != nil || len(all) != 1 {
			t.Fatalf("conflicts %v, %v", all, err)
		}
		a.unlink(all[0].Name)
		b.join(a)
		for _, s := range []*site{a, b} {
			if got := s.tree(); len(got) != 1 {
				t.Errorf("device %v shows %q", s.dot.Actor, got)
			}
		}
	}
}
