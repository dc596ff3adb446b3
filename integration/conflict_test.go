package integration

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestResolve has a file edited on two devices while they are apart, and settles
// that from the command line, in each way. The mounts, which have read and cached
// all versions, show what was decided.
func TestResolve(t *testing.T) {
	nas, laptop := pair(t)
	names := []string{"mine.txt", "theirs.txt", "both.txt"}
	for _, name := range names {
		write(t, filepath.Join(nas.Mount, name), []byte("before"))
	}
	sameTree(nas, laptop)
	nas.copied()
	laptop.down()
	for _, name := range names {
		write(t, filepath.Join(nas.Mount, name), []byte("of the nas"))
	}
	nas.down()
	laptop.up()
	for _, name := range names {
		write(t, filepath.Join(laptop.Mount, name), []byte("of the laptop"))
	}
	nas.up()
	eventually(t, time.Minute, "the conflicts are seen", func() error { return oneRoot([]*device{nas, laptop}) })
	sameTree(nas, laptop)

	out, err := nas.Run(t.Context(), "conflicts", "--json")
	if err != nil || strings.Count(out, "\n") != 3 || strings.Count(out, `"name":"laptop"`) != 3 || strings.Count(out, `"name":"nas"`) != 3 {
		t.Fatalf("conflicts: %v\n%s", err, out)
	}
	for _, c := range []struct {
		name, keep string
		want       map[string]string
	}{
		{"mine.txt", "mine", map[string]string{"mine.txt": "of the nas"}},
		{"theirs.txt", "theirs", map[string]string{"theirs.txt": "of the laptop"}},
		{"both.txt", "both", map[string]string{"": "of the nas", "both.txt": "of the laptop"}},
	} {
		if out, code := nas.try("resolve", filepath.Join(nas.Mount, c.name), "--keep", c.keep); code != 0 {
			t.Fatalf("keep %s, code %d: %s", c.keep, code, out)
		}
		if out, code := nas.try("resolve", "roam:/"+c.name, "--keep", c.keep); code != 3 {
			t.Errorf("keep %s again, code %d: %s", c.keep, code, out)
		}
		sameTree(nas, laptop)
		for _, d := range []*device{nas, laptop} {
			var got []string
			list, err := os.ReadDir(d.Mount)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range list {
				if strings.HasPrefix(e.Name(), strings.TrimSuffix(c.name, ".txt")) {
					got = append(got, string(read(t, filepath.Join(d.Mount, e.Name()))))
				}
			}
			var want []string
			for _, text := range c.want {
				want = append(want, text)
			}
			slices.Sort(got)
			slices.Sort(want)
			if !slices.Equal(got, want) {
				t.Errorf("keep %s: %s shows %q, want %q", c.keep, d.Name, got, want)
			}
			if text, ok := c.want[c.name]; ok && len(c.want) == 1 && string(read(t, filepath.Join(d.Mount, c.name))) != text {
				t.Errorf("keep %s: %s on %s is another version", c.keep, c.name, d.Name)
			}
		}
	}
	if n := laptop.status().Conflicts; n != 0 {
		t.Errorf("%d conflicts are left", n)
	}
	if out, err := laptop.Run(t.Context(), "conflicts"); err != nil || strings.TrimSpace(out) != "no conflicts" {
		t.Errorf("conflicts: %v\n%s", err, out)
	}
}
