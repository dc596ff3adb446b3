package app

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// sampleMounts is mountinfo of a computer with a mount of ours, a bind mount of a
// part of it, and a mount of another device.
const sampleMounts = `22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:40 / /home/u/My\040Roam rw,nosuid,nodev shared:9 - fuse.roamfs roamfs rw
31 22 0:40 /photos /srv/pictures rw - fuse.roamfs roamfs rw
32 22 0:41 / /other rw master:3 - fuse.roamfs roamfs rw
33 22 0:50 / /home/u/My\040Roam/disk rw - ext4 /dev/sdb1 rw
34 22 0:51 / /odd\134\011name rw - tmpfs tmpfs rw
broken line
`

func parseSample(t *testing.T) []mountPoint {
	t.Helper()
	list, err := parseMountInfo(strings.NewReader(sampleMounts))
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func TestParseMountInfo(t *testing.T) {
	list := parseSample(t)
	want := []mountPoint{
		{"8:1", "/", "/", "ext4"},
		{"0:40", "/", "/home/u/My Roam", "fuse.roamfs"},
		{"0:40", "/photos", "/srv/pictures", "fuse.roamfs"},
		{"0:41", "/", "/other", "fuse.roamfs"},
		{"0:50", "/", "/home/u/My Roam/disk", "ext4"},
		{"0:51", "/", "/odd\\\tname", "tmpfs"},
	}
	if !reflect.DeepEqual(list, want) {
		t.Errorf("got %+v\nwant %+v", list, want)
	}
	if list, err := mountPoints(); err != nil || len(list) == 0 {
		t.Errorf("the mounts of this computer: %v, %v", list, err)
	}
}

func FuzzParseMountInfo(f *testing.F) {
	f.Add(sampleMounts)
	f.Add("1 2 3 4\\04 \\777 6 - x")
	f.Fuzz(func(t *testing.T, s string) {
		list, err := parseMountInfo(strings.NewReader(s))
		for _, m := range list {
			if err == nil && m.fstype == "" {
				t.Fatalf("%q gave %+v", s, m)
			}
		}
	})
}

func TestStateInsideMount(t *testing.T) {
	list := parseSample(t)
	for dir, refused := range map[string]bool{
		"/home/u/.local/share/roamfs": false,
		"/home/u/My Roam":             true,
		"/home/u/My Roam/state":       true,
		"/home/u/My Roamer":           false,
		"/home/u/My Roam/disk/state":  false,
		"/srv/pictures/state":         true,
	} {
		if err := insideMount(list, dir); (err != nil) != refused {
			t.Errorf("state directory %s: %v", dir, err)
		}
	}
}

func TestPathsInsideMounts(t *testing.T) {
	list := parseSample(t)
	ours := []string{"/home/u/My Roam"}
	links := map[string]string{"/home/u/link": "/home/u/My Roam/deep"}
	follow := func(p string) string {
		if to, ok := links[p]; ok {
			return to
		}
		return p
	}
	for arg, want := range map[string]string{
		"/home/u/My Roam":         "/",
		"/home/u/My Roam/a/b c":   "/a/b c",
		"/home/u/My Roam/\xff\n":  "/\xff\n",
		"/srv/pictures":           "/photos",
		"/srv/pictures/2026/x":    "/photos/2026/x",
		"/home/u/link/x":          "/deep/x",
		"/home/u/link":            "",
		"/home/u":                 "",
		"/home/u/My Roam/disk":    "",
		"/home/u/My Roam/disk/x":  "",
		"/other/x":                "",
		"/home/u/My Roamer/thing": "",
	} {
		got, err := insideMounts(list, ours, arg, follow)
		if got != want || (err != nil) != (want == "") {
			t.Errorf("%q is %q, %v, want %q", arg, got, err, want)
		}
		if err != nil && ExitCode(err) != CodeNotFound {
			t.Errorf("%q: exit code %d", arg, ExitCode(err))
		}
	}
}

func TestWithin(t *testing.T) {
	for _, test := range []struct {
		path, dir string
		want      bool
	}{
		{"/a", "/", true}, {"/", "/", true}, {"/a", "/a", true}, {"/a/b", "/a", true}, {"/ab", "/a", false}, {"/", "/a", false},
	} {
		if got := within(test.path, test.dir); got != test.want {
			t.Errorf("within(%q, %q) = %v", test.path, test.dir, got)
		}
	}
}

func TestStateThroughLink(t *testing.T) {
	dir := resolve(t.TempDir())
	if err := os.Symlink("real", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "real"), 0o700); err != nil {
		t.Fatal(err)
	}
	got, err := statePath(filepath.Join(dir, "link", "new", "state"), os.Getenv)
	if want := filepath.Join(dir, "real", "new", "state"); err != nil || got != want {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
}
