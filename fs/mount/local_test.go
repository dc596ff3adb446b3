package mount

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/roamfs/roamfs/sync/tree"
)

func TestNames(t *testing.T) {
	r := newRig(t)
	max := strings.Repeat("n", tree.MaxName)
	odd := "odd \x01\xff\xfe\n\t*?\"\\'"
	for _, name := range []string{max, odd, " ", "-rf", "...", "ümläut"} {
		write(t, r.path(name), name)
		wantFile(t, r.path(name), name)
	}
	list := names(t, r.dir)
	slices.Sort(list)
	want := []string{max, odd, " ", "-rf", "...", "ümläut"}
	slices.Sort(want)
	if !slices.Equal(list, want) {
		t.Errorf("listing is %q", list)
	}
	long := r.path(max + "n")
	_, err := os.Lstat(long)
	wantErrno(t, "lookup of a long name", err, unix.ENAMETOOLONG)
	wantErrno(t, "mkdir of a long name", os.Mkdir(long, 0o755), unix.ENAMETOOLONG)
	wantErrno(t, "rename to a long name", os.Rename(r.path(max), long), unix.ENAMETOOLONG)
	wantErrno(t, "link to a long name", os.Link(r.path(max), long), unix.ENAMETOOLONG)
	target := strings.Repeat("t", tree.MaxTarget)
	if err := os.Symlink(target, r.path("l")); err != nil {
		t.Fatal(err)
	}
	if got, err := os.Readlink(r.path("l")); err != nil || got != target {
		t.Errorf("link text of %d bytes, %v", len(got), err)
	}
}

func TestUnlinkedOpen(t *testing.T) {
	r := newRig(t)
	f, err := os.OpenFile(r.path("f"), os.O_CREATE|os.O_RDWR|os.O_EXCL, 0o640)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	if _, err := f.WriteString("before "); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(r.path("f")); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString("after"); err != nil {
		t.Fatal(err)
	}
	again, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), os.O_RDWR, 0)
	if err != nil {
		t.Fatal("open through /proc/self/fd:", err)
	}
	got, err := io.ReadAll(again)
	if err != nil || string(got) != "before after" {
		t.Errorf("read %q, %v", got, err)
	}
	_ = again.Close()
	if err := f.Truncate(3); err != nil {
		t.Error("truncate:", err)
	}
	if err := f.Chmod(0o600); err != nil {
		t.Error("chmod:", err)
	}
	if err := unix.Fsetxattr(int(f.Fd()), "user.a", []byte("v"), 0); err != nil {
		t.Error("setxattr:", err)
	}
	b := make([]byte, 10)
	if n, err := unix.Fgetxattr(int(f.Fd()), "user.a", b); err != nil || string(b[:n]) != "v" {
		t.Errorf("getxattr: %q, %v", b[:max(n, 0)], err)
	}
	if err := f.Sync(); err != nil {
		t.Error("fsync:", err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil || st.Nlink != 0 || st.Size != 3 || st.Mode != unix.S_IFREG|0o600 {
		t.Errorf("stat: %v: links %d, size %d, mode %o", err, st.Nlink, st.Size, st.Mode)
	}
	if got, err := io.ReadAll(io.NewSectionReader(f, 0, 100)); err != nil || string(got) != "bef" {
		t.Errorf("read %q, %v", got, err)
	}
	write(t, r.path("f"), "another")
	if got, err := io.ReadAll(io.NewSectionReader(f, 0, 100)); err != nil || string(got) != "bef" {
		t.Errorf("after a new file of the name: read %q, %v", got, err)
	}
	r.settled(t)
	_ = f.Close()
	r.settled(t)
	if got := names(t, r.dir); !slices.Equal(got, []string{"f"}) {
		t.Errorf("listing is %q", got)
	}
	wantFile(t, r.path("f"), "another")
}

func TestRemovedDraftStaysRemoved(t *testing.T) {
	r := newRig(t)
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
				// A file that goes while it is committed makes it fail.
				_ = r.files.Flush(t.Context())
			}
		}
	}()
	for i := range 500 {
		name := r.path(fmt.Sprint(i % 3))
		write(t, name, strings.Repeat("draft ", 100))
		if i%2 == 0 {
			if err := os.Remove(name); err != nil {
				t.Fatal(err)
			}
		} else {
			write(t, r.path("tmp"), strings.Repeat("other ", 100))
			if err := os.Rename(r.path("tmp"), name); err != nil {
				t.Fatal(err)
			}
			wantFile(t, name, strings.Repeat("other ", 100))
			if err := os.Remove(name); err != nil {
				t.Fatal(err)
			}
		}
		if got := names(t, r.dir); len(got) != 0 {
			t.Fatalf("listing is %q", got)
		}
	}
	close(stop)
	<-done
	r.settled(t)
	if got := names(t, r.dir); len(got) != 0 {
		t.Errorf("listing is %q", got)
	}
}

func TestSparse(t *testing.T) {
	r := newRig(t)
	f, err := os.Create(r.path("f"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	const size, at = 5 << 30, 3<<30 + 4096
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("island"), at); err != nil {
		t.Fatal(err)
	}
	check := func(when string) {
		t.Helper()
		if st := stat(t, r.path("f")); st.Size != size || st.Blocks*512 >= st.Size {
			t.Errorf("%s: size %d, %d blocks", when, st.Size, st.Blocks)
		}
		b := make([]byte, 6)
		if _, err := f.ReadAt(b, at); err != nil || string(b) != "island" {
			t.Errorf("%s: read %q, %v", when, b, err)
		}
		if _, err := f.ReadAt(b, 4<<30); err != nil || !bytes.Equal(b, make([]byte, 6)) {
			t.Errorf("%s: a hole reads %q, %v", when, b, err)
		}
		data, err := unix.Seek(int(f.Fd()), 0, unix.SEEK_DATA)
		if err != nil || data > at || data < 2<<30 {
			t.Errorf("%s: data at %d, %v", when, data, err)
		}
		hole, err := unix.Seek(int(f.Fd()), at, unix.SEEK_HOLE)
		if err != nil || hole < at+6 || hole > 4<<30 {
			t.Errorf("%s: hole at %d, %v", when, hole, err)
		}
		_, err = unix.Seek(int(f.Fd()), 4<<30, unix.SEEK_DATA)
		wantErrno(t, when+": seek for data in the last hole", err, unix.ENXIO)
	}
	check("draft")
	r.settled(t)
	check("committed")
	r.files.Stat(tree.Node{})
}

func TestOpenFlags(t *testing.T) {
	r := newRig(t)
	p := r.path("f")
	write(t, p, "0123456789")
	_, err := os.OpenFile(p, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o644)
	wantErrno(t, "O_EXCL", err, unix.EEXIST)
	_, err = os.OpenFile(r.path("none"), os.O_RDWR, 0)
	wantErrno(t, "no O_CREAT", err, unix.ENOENT)
	_, err = os.OpenFile(r.dir, os.O_RDWR, 0)
	wantErrno(t, "directory for writing", err, unix.EISDIR)

	a, err := os.OpenFile(p, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.OpenFile(p, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	for i, f := range []*os.File{a, b, a, b} {
		if _, err := fmt.Fprintf(f, "<%d>", i); err != nil {
			t.Fatal(err)
		}
	}
	_ = a.Close()
	_ = b.Close()
	wantFile(t, p, "0123456789<0><1><2><3>")

	f, err := os.OpenFile(p, os.O_TRUNC|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if st := stat(t, p); st.Size != 0 {
		t.Errorf("size after O_TRUNC is %d", st.Size)
	}
	_ = f.Close()
	wantFile(t, p, "")

	if err := os.WriteFile(p, []byte("x"), 0); err != nil {
		t.Fatal(err)
	}
	ro, err := os.Open(p)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ro.Close() }()
	_, err = ro.Write([]byte("y"))
	wantErrno(t, "write to a file open for reading", err, unix.EBADF)
}

func TestSpecialFiles(t *testing.T) {
	r := newRig(t)
	if err := unix.Mknod(r.path("f"), unix.S_IFREG|0o640, 0); err != nil {
		t.Error(err)
	}
	if err := unix.Mkfifo(r.path("p"), 0o600); err != nil {
		t.Error(err)
	}
	if st := stat(t, r.path("p")); st.Mode != unix.S_IFIFO|0o600 {
		t.Errorf("mode %o", st.Mode)
	}
	wantErrno(t, "device", unix.Mknod(r.path("n"), unix.S_IFCHR|0o600, 0x103), unix.EPERM)
	wantErrno(t, "socket", unix.Mknod(r.path("s"), unix.S_IFSOCK|0o600, 0), unix.EPERM)
	_, err := unix.Open(r.dir, unix.O_TMPFILE|unix.O_RDWR, 0o600)
	wantErrno(t, "O_TMPFILE", err, unix.EOPNOTSUPP)
	if err := os.Mkdir(r.path("d"), 0o755); err != nil {
		t.Fatal(err)
	}
	wantErrno(t, "link to a directory", os.Link(r.path("d"), r.path("e")), unix.EPERM)
}

func TestRenameFlags(t *testing.T) {
	r := newRig(t)
	write(t, r.path("a"), "a")
	if err := os.Mkdir(r.path("d"), 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, r.path("d", "b"), "b")
	rename := func(from, to string, flags uint) error {
		return unix.Renameat2(unix.AT_FDCWD, r.path(from), unix.AT_FDCWD, r.path(to), flags)
	}
	wantErrno(t, "NOREPLACE over a file", rename("a", "d/b", unix.RENAME_NOREPLACE), unix.EEXIST)
	wantErrno(t, "EXCHANGE with nothing", rename("a", "x", unix.RENAME_EXCHANGE), unix.ENOENT)
	wantErrno(t, "WHITEOUT", rename("a", "x", unix.RENAME_WHITEOUT), unix.EINVAL)
	wantErrno(t, "directory into itself", rename("d", "d/e", 0), unix.EINVAL)
	wantErrno(t, "file over a directory", rename("a", "d", 0), unix.EISDIR)
	wantErrno(t, "directory over a file", rename("d", "a", 0), unix.ENOTDIR)
	if err := rename("a", "d/b", unix.RENAME_EXCHANGE); err != nil {
		t.Fatal(err)
	}
	wantFile(t, r.path("a"), "b")
	wantFile(t, r.path("d", "b"), "a")
	if err := rename("a", "d", unix.RENAME_EXCHANGE); err != nil {
		t.Fatal(err)
	}
	wantFile(t, r.path("d"), "b")
	wantFile(t, r.path("a", "b"), "a")
	if err := os.Mkdir(r.path("full"), 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, r.path("full", "x"), "")
	wantErrno(t, "over a directory that is not empty", rename("a", "full", 0), unix.ENOTEMPTY)
	if err := rename("a", "new", unix.RENAME_NOREPLACE); err != nil {
		t.Error(err)
	}
}

func TestSaveByRename(t *testing.T) {
	r := newRig(t)
	for i := range 20 {
		want := strings.Repeat(fmt.Sprintf("version %d ", i), 50+i)
		write(t, r.path("f.tmp"), want)
		if i%3 == 0 {
			r.settled(t)
		}
		reader, err := os.Open(r.path("f"))
		if (err == nil) != (i > 0) {
			t.Fatal(err)
		}
		if err := os.Rename(r.path("f.tmp"), r.path("f")); err != nil {
			t.Fatal(err)
		}
		wantFile(t, r.path("f"), want)
		if reader != nil {
			old, err := io.ReadAll(reader)
			if prev := strings.Repeat(fmt.Sprintf("version %d ", i-1), 49+i); err != nil || string(old) != prev {
				t.Errorf("who had the old file open reads %s, %v", brief(old), err)
			}
			_ = reader.Close()
		}
		if i%2 == 0 {
			r.settled(t)
			wantFile(t, r.path("f"), want)
		}
		if got := names(t, r.dir); !slices.Equal(got, []string{"f"}) {
			t.Fatalf("listing is %q", got)
		}
	}
}

func TestRereadStaysInKernel(t *testing.T) {
	r := newRig(t)
	data := strings.Repeat("warm ", 40_000)
	write(t, r.path("f"), data)
	r.settled(t)
	wantFile(t, r.path("f"), data)
	release := r.store.withhold()
	defer release()
	for range 3 {
		wantFile(t, r.path("f"), data)
		names(t, r.dir)
	}
}

func TestDirectorySeek(t *testing.T) {
	r := newRig(t)
	const many = 1000
	for i := range many {
		if err := unix.Mkfifo(r.path(fmt.Sprintf("%04d", i)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	f, err := os.Open(r.dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	if got, err := f.Readdirnames(10); err != nil || len(got) != 10 {
		t.Fatal(got, err)
	}
	// Another reader, and a change, in between: neither listing is mixed up.
	if got := names(t, r.dir); len(got) != many {
		t.Errorf("%d names", len(got))
	}
	if err := os.Remove(r.path("0500")); err != nil {
		t.Fatal(err)
	}
	if got := names(t, r.dir); len(got) != many-1 {
		t.Errorf("%d names after a removal", len(got))
	}
	rest, err := f.Readdirnames(-1)
	if err != nil || len(rest) < many-11 {
		t.Errorf("%d more names, %v", len(rest), err)
	}
	if got := names(t, r.dir); len(got) != many-1 || slices.Contains(got, "0500") {
		t.Errorf("%d names at last", len(got))
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	if got, err := f.Readdirnames(-1); err != nil || len(got) != many-1 || !slices.IsSorted(got) {
		t.Errorf("%d names after rewind, %v", len(got), err)
	}
}

func TestReadOnly(t *testing.T) {
	r := newRig(t, func(o *Options) { o.ReadOnly = true })
	if _, err := r.Create(tree.Root, "f", r.content(t, "x")); err != nil {
		t.Fatal(err)
	}
	wantFile(t, r.path("f"), "x")
	wantErrno(t, "create", os.WriteFile(r.path("g"), nil, 0o644), unix.EROFS)
	wantErrno(t, "remove", os.Remove(r.path("f")), unix.EROFS)
	wantErrno(t, "chmod", os.Chmod(r.path("f"), 0o600), unix.EROFS)
}

func TestForget(t *testing.T) {
	r := newRig(t)
	for i := range 50 {
		write(t, r.path(fmt.Sprint(i)), fmt.Sprint(i))
	}
	r.settled(t)
	for range 3 {
		if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("2"), 0); err != nil {
			missing(t, err)
		}
		for i := range 50 {
			wantFile(t, r.path(fmt.Sprint(i)), fmt.Sprint(i))
		}
		<-time.After(time.Millisecond)
	}
	o := r.fork(t)
	for i := range 50 {
		r.replace(t, o, fmt.Sprint(i), "new")
	}
	r.pullFrom(t, o)
	for i := range 50 {
		wantFile(t, r.path(fmt.Sprint(i)), "new")
	}
}

// TestNothingIsChanged: where nothing is changed any more, a file cannot be opened to
// be written to, so that no program believes that it has written; it can be read.
func TestNothingIsChanged(t *testing.T) {
	r := newRig(t)
	name := filepath.Join(r.dir, "file")
	if err := os.WriteFile(name, []byte("text"), 0o644); err != nil {
		t.Fatal(err)
	}
	r.device.mu.Lock()
	r.device.stopped = fmt.Errorf("removed: %w", fs.ErrPermission)
	r.device.mu.Unlock()
	for what, flags := range map[string]int{"write": os.O_WRONLY, "read and write": os.O_RDWR, "append": os.O_WRONLY | os.O_APPEND, "empty": os.O_WRONLY | os.O_TRUNC, "empty for reading": os.O_RDONLY | os.O_TRUNC} {
		if f, err := os.OpenFile(name, flags, 0); !errors.Is(err, fs.ErrPermission) {
			t.Errorf("open to %s: %v", what, err)
			if err == nil {
				_ = f.Close()
			}
		}
	}
	if err := os.Truncate(name, 0); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("truncate: %v", err)
	}
	if b, err := os.ReadFile(name); err != nil || string(b) != "text" {
		t.Errorf("%q, %v", b, err)
	}
}
