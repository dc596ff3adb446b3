package mount

import (
	"errors"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/roamfs/roamfs/sync/tree"
)

func TestAttributes(t *testing.T) {
	r := newRig(t)
	p := r.path("f")
	write(t, p, strings.Repeat("x", 10_000))
	if st := stat(t, p); st.Blocks != 24 || st.Nlink != 1 || st.Mode != unix.S_IFREG|0o644 || st.Uid != 0 {
		t.Errorf("blocks %d, links %d, mode %o, uid %d", st.Blocks, st.Nlink, st.Mode, st.Uid)
	}
	if err := os.Chmod(p, 0); err != nil {
		t.Fatal(err)
	}
	if st := stat(t, p); st.Mode != unix.S_IFREG {
		t.Errorf("mode is %o, want 0", st.Mode)
	}
	for _, ns := range []int64{0, 1, -1, 1e18 + 123456789, -1e18} {
		ts := []unix.Timespec{unix.NsecToTimespec(ns + 5), unix.NsecToTimespec(ns)}
		if err := unix.UtimesNanoAt(unix.AT_FDCWD, p, ts, 0); err != nil {
			t.Fatal(err)
		}
		if st := stat(t, p); st.Mtim.Nano() != ns || st.Atim.Nano() != ns+5 {
			t.Errorf("mtime %d, atime %d, want %d, %d", st.Mtim.Nano(), st.Atim.Nano(), ns, ns+5)
		}
	}
	r.settled(t)
	if st := stat(t, p); st.Mtim.Nano() != -1e18 {
		t.Errorf("after the commit: mtime %d", st.Mtim.Nano())
	}
	if err := os.Chown(p, 1000, 1001); err != nil {
		t.Fatal(err)
	}
	if st := stat(t, p); st.Uid != 1000 || st.Gid != 1001 {
		t.Errorf("owner %d:%d", st.Uid, st.Gid)
	}
	if l := r.Local(r.ino(t, "f")); l != (Local{UID: 1000, GID: 1001, Owned: true}) {
		t.Errorf("kept locally: %+v", l)
	}
	if err := os.Chown(p, 0, 0); err != nil {
		t.Fatal(err)
	}
	if l := r.Local(r.ino(t, "f")); l != (Local{}) {
		t.Errorf("kept locally: %+v", l)
	}

	before := stat(t, p)
	if err := os.Link(p, r.path("g")); err != nil {
		t.Fatal(err)
	}
	f, g := stat(t, p), stat(t, r.path("g"))
	if f.Nlink != 2 || g.Nlink != 2 || f.Ino != g.Ino || f.Ctim.Nano() <= before.Ctim.Nano() {
		t.Errorf("links %d and %d, numbers %d and %d", f.Nlink, g.Nlink, f.Ino, g.Ino)
	}
	if err := os.Remove(p); err != nil {
		t.Fatal(err)
	}
	if st := stat(t, r.path("g")); st.Nlink != 1 {
		t.Errorf("links %d after unlink", st.Nlink)
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(r.dir, &fs); err != nil || fs.Blocks*uint64(fs.Bsize) != 1<<40 || fs.Bavail*uint64(fs.Bsize) != 1<<38 || fs.Namelen != 255 {
		t.Errorf("statfs: %+v, %v", fs, err)
	}
}

func (r *rig) ino(t *testing.T, name string) tree.Ino {
	t.Helper()
	n, err := r.Lookup(tree.Root, name)
	if err != nil {
		t.Fatal(err)
	}
	return n.Ino
}

func TestDirectoryTimesAndLinks(t *testing.T) {
	r := newRig(t)
	d := r.path("d")
	if err := os.Mkdir(d, 0o755); err != nil {
		t.Fatal(err)
	}
	last := stat(t, d)
	for _, step := range []struct {
		name  string
		do    func() error
		links uint64
	}{
		{"create", func() error { return os.WriteFile(r.path("d", "f"), nil, 0o644) }, 2},
		{"mkdir", func() error { return os.Mkdir(r.path("d", "s"), 0o755) }, 3},
		{"symlink", func() error { return os.Symlink("x", r.path("d", "l")) }, 3},
		{"link", func() error { return os.Link(r.path("d", "f"), r.path("d", "g")) }, 3},
		{"mkfifo", func() error { return unix.Mkfifo(r.path("d", "p"), 0o600) }, 3},
		{"rename", func() error { return os.Rename(r.path("d", "g"), r.path("d", "h")) }, 3},
		{"rename out", func() error { return os.Rename(r.path("d", "s"), r.path("s")) }, 2},
		{"rename in", func() error { return os.Rename(r.path("s"), r.path("d", "s")) }, 3},
		{"unlink", func() error { return os.Remove(r.path("d", "h")) }, 3},
		{"rmdir", func() error { return os.Remove(r.path("d", "s")) }, 2},
	} {
		if err := step.do(); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		st := stat(t, d)
		if st.Mtim.Nano() <= last.Mtim.Nano() || st.Ctim.Nano() < st.Mtim.Nano() {
			t.Errorf("%s: mtime %d, ctime %d, before %d", step.name, st.Mtim.Nano(), st.Ctim.Nano(), last.Mtim.Nano())
		}
		if st.Nlink != step.links {
			t.Errorf("%s: %d links, want %d", step.name, st.Nlink, step.links)
		}
		last = st
	}
	ts := []unix.Timespec{unix.NsecToTimespec(5e17), unix.NsecToTimespec(6e17)}
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, d, ts, 0); err != nil {
		t.Fatal(err)
	}
	if st := stat(t, d); st.Mtim.Nano() != 6e17 {
		t.Errorf("mtime %d after utimens", st.Mtim.Nano())
	}
}

func TestXattrs(t *testing.T) {
	r := newRig(t)
	p := r.path("f")
	write(t, p, "x")
	get := func(name string) (string, error) {
		b := make([]byte, 70_000)
		n, err := unix.Getxattr(p, name, b)
		return string(b[:max(n, 0)]), err
	}
	for name, value := range map[string]string{"user.a": "one", "user.empty": "", "user.big": strings.Repeat("v", 60_000), "user.bytes": "\x00\xff"} {
		if err := unix.Setxattr(p, name, []byte(value), unix.XATTR_CREATE); err != nil {
			t.Fatal(err)
		}
		if got, err := get(name); err != nil || got != value {
			t.Errorf("%s is %s, %v", name, brief([]byte(got)), err)
		}
	}
	wantErrno(t, "create again", unix.Setxattr(p, "user.a", nil, unix.XATTR_CREATE), unix.EEXIST)
	wantErrno(t, "replace nothing", unix.Setxattr(p, "user.z", nil, unix.XATTR_REPLACE), unix.ENODATA)
	for _, name := range []string{"trusted.a", "security.a", "system.posix_acl_access"} {
		wantErrno(t, name, unix.Setxattr(p, name, []byte{2, 0, 0, 0}, 0), unix.EOPNOTSUPP)
	}
	_, err := get("user.none")
	wantErrno(t, "get nothing", err, unix.ENODATA)
	_, err = unix.Getxattr(p, "user.a", make([]byte, 1))
	wantErrno(t, "short buffer", err, unix.ERANGE)
	list := func() []string {
		b := make([]byte, 4096)
		n, err := unix.Listxattr(p, b)
		if err != nil {
			t.Fatal(err)
		}
		got := strings.Split(strings.TrimRight(string(b[:n]), "\x00"), "\x00")
		slices.Sort(got)
		return got
	}
	want := []string{"user.a", "user.big", "user.bytes", "user.empty"}
	if got := list(); !slices.Equal(got, want) {
		t.Errorf("list is %q", got)
	}
	if err := unix.Removexattr(p, "user.a"); err != nil {
		t.Error(err)
	}
	wantErrno(t, "remove again", unix.Removexattr(p, "user.a"), unix.ENODATA)

	// The virtual ones.
	for name, value := range map[string]string{"state": "here", "local_bytes": "12", "copies": "2", "where": "laptop,nas"} {
		if got, err := get("user.roam." + name); err != nil || got != value {
			t.Errorf("user.roam.%s is %q, %v", name, got, err)
		}
		wantErrno(t, "set user.roam."+name, unix.Setxattr(p, "user.roam."+name, []byte("1"), 0), unix.EPERM)
	}
	_, err = get("user.roam.pinned")
	wantErrno(t, "not pinned", err, unix.ENODATA)
	if err := unix.Setxattr(p, "user.roam.pinned", []byte("1"), 0); err != nil {
		t.Fatal(err)
	}
	if got, err := get("user.roam.pinned"); err != nil || got != "1" {
		t.Errorf("pinned is %q, %v", got, err)
	}
	if got := list(); !slices.Equal(got, want[1:]) {
		t.Errorf("list with virtual attributes is %q", got)
	}
	if err := unix.Removexattr(p, "user.roam.pinned"); err != nil {
		t.Error(err)
	}
	_, err = get("user.roam.pinned")
	wantErrno(t, "unpinned", err, unix.ENODATA)
}

func TestVirtualDirectory(t *testing.T) {
	r := newRig(t)
	write(t, r.path("f"), "x")
	if got := names(t, r.dir); !slices.Equal(got, []string{"f"}) {
		t.Errorf("listing of the root is %q", got)
	}
	if got := names(t, r.path(".roam")); !slices.Equal(got, []string{"conflicts", "snapshots", "status.json"}) {
		t.Errorf("listing is %q", got)
	}
	wantFile(t, r.path(".roam", "status.json"), "{\"schema\":1}\n")
	if st := stat(t, r.path(".roam", "status.json")); st.Size != 13 || st.Mode != unix.S_IFREG|0o444 {
		t.Errorf("size %d, mode %o", st.Size, st.Mode)
	}
	for _, d := range []string{"conflicts", "snapshots"} {
		if got := names(t, r.path(".roam", d)); len(got) != 0 {
			t.Errorf("%s lists %q", d, got)
		}
	}
	for what, err := range map[string]error{
		"create":      os.WriteFile(r.path(".roam", "x"), nil, 0o644),
		"mkdir":       os.Mkdir(r.path(".roam", "x"), 0o755),
		"remove":      os.Remove(r.path(".roam", "status.json")),
		"rmdir":       os.Remove(r.path(".roam", "snapshots")),
		"write":       os.WriteFile(r.path(".roam", "status.json"), nil, 0),
		"rename away": os.Rename(r.path(".roam"), r.path("roam")),
		"rename over": os.Rename(r.path("f"), r.path(".roam", "f")),
		"remove all":  unix.Rmdir(r.path(".roam")),
	} {
		if err == nil {
			t.Errorf("%s was allowed", what)
		}
	}
	if _, err := os.Lstat(r.path(".roam", "none")); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	// Only in the root is the name special.
	if err := os.MkdirAll(r.path("d", ".roam"), 0o755); err != nil {
		t.Error(err)
	}
}

func TestStableNumbers(t *testing.T) {
	r := newRig(t)
	write(t, r.path("f"), "x")
	if err := os.Mkdir(r.path("d"), 0o755); err != nil {
		t.Fatal(err)
	}
	r.settled(t)
	f, err := os.Open(r.dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	buf := make([]byte, 4096)
	n, err := syscall.Getdents(int(f.Fd()), buf)
	if err != nil {
		t.Fatal(err)
	}
	for buf = buf[:n]; len(buf) > 0; buf = buf[buf[16]:] {
		ino := uint64(0)
		for i := range 8 {
			ino |= uint64(buf[i]) << (8 * i)
		}
		name, _, _ := strings.Cut(string(buf[19:]), "\x00")
		if name == ".." {
			continue
		}
		if st := stat(t, r.path(name)); st.Ino != ino || buf[18] != byte(st.Mode>>12) {
			t.Errorf("%s: number %d, type %d in the listing, number %d, mode %o in stat", name, ino, buf[18], st.Ino, st.Mode)
		}
	}
	if a, b := stat(t, r.path("f")).Ino, number(r.ino(t, "f")); a != b {
		t.Errorf("number %d, want %d", a, b)
	}
}
