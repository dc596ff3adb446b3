package mount

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

// pair is a directory in the mount and one on the disk to which the same is done.
type pair struct {
	mnt, disk string
	open      map[int][2]int // number -> descriptors, in the mount and on the disk
	next      int
}

// both runs fn on both sides and requires the same errno. It reports whether it worked.
func (p *pair) both(t *rapid.T, what string, fn func(root string) error) bool {
	a, b := fn(p.mnt), fn(p.disk)
	if errnoOf(a) != errnoOf(b) {
		t.Fatalf("%s: %v in the mount, %v on the disk", what, a, b)
	}
	return a == nil
}

func errnoOf(err error) syscall.Errno {
	if err == nil {
		return 0
	}
	if e, ok := errors.AsType[syscall.Errno](err); ok {
		return e
	}
	return 9999
}

// shown is what a walk sees of one entry.
type shown struct {
	mode  uint32
	size  int64
	links uint64
	mtime int64 // of what was not just changed
	group int   // number of the first path with the same inode
	data  string
}

func snapshot(root string) (map[string]shown, error) {
	all := map[string]shown{}
	inos := map[uint64]int{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		if d.Type() != fs.FileMode(0)&fs.ModeType && d.Type()&fs.ModeType != modeOf(st.Mode) {
			return fmt.Errorf("%s: the listing says %v, stat %o", path, d.Type(), st.Mode)
		}
		s := shown{mode: st.Mode, links: st.Nlink}
		if _, ok := inos[st.Ino]; !ok {
			inos[st.Ino] = len(inos)
		}
		s.group = inos[st.Ino]
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			s.data, s.size = string(b), st.Size
		case unix.S_IFLNK:
			if s.data, err = os.Readlink(path); err != nil {
				return err
			}
			s.size = st.Size
		}
		if st.Mtim.Nano() < 1e15 { // set by utimens
			s.mtime = st.Mtim.Nano()
		}
		rel, err := filepath.Rel(root, path)
		all[rel] = s
		return err
	})
	return all, err
}

func modeOf(mode uint32) fs.FileMode {
	switch mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return fs.ModeDir
	case unix.S_IFLNK:
		return fs.ModeSymlink
	case unix.S_IFIFO:
		return fs.ModeNamedPipe
	}
	return 0
}

func (p *pair) compare(t *rapid.T) {
	a, err := snapshot(p.mnt)
	if err != nil {
		t.Fatalf("in the mount: %v", err)
	}
	b, err := snapshot(p.disk)
	if err != nil {
		t.Fatalf("on the disk: %v", err)
	}
	if maps.Equal(a, b) {
		return
	}
	for _, path := range slices.Sorted(maps.Keys(b)) {
		if got, ok := a[path]; !ok {
			t.Errorf("%s is missing", path)
		} else if got != b[path] {
			g, w := got, b[path]
			g.data, w.data = brief([]byte(g.data)), brief([]byte(w.data))
			t.Errorf("%s: %+v in the mount, %+v on the disk", path, g, w)
		}
	}
	for path := range a {
		if _, ok := b[path]; !ok {
			t.Errorf("%s is too many", path)
		}
	}
	t.FailNow()
}

// TestModel does random operations in the mount and in a directory on the disk
// and requires the same results and errors.
func TestModel(t *testing.T) {
	r := newRig(t)
	disk := t.TempDir()
	run := 0
	rapid.Check(t, func(rt *rapid.T) {
		run++
		p := &pair{mnt: r.path(fmt.Sprint(run)), disk: filepath.Join(disk, fmt.Sprint(run)), open: map[int][2]int{}}
		p.both(rt, "mkdir", func(root string) error { return os.Mkdir(root, 0o755) })
		defer p.end(rt)

		component := rapid.SampledFrom([]string{"a", "b", "c", "d"})
		path := rapid.Custom(func(t *rapid.T) string {
			return filepath.Join(rapid.SliceOfN(component, 1, 3).Draw(t, "path")...)
		})
		size := rapid.SampledFrom([]int64{0, 1, 63, 64, 65, 4095, 4096, 5000, 70_000, 600_000})
		data := rapid.Custom(func(t *rapid.T) []byte {
			n := rapid.SampledFrom([]int{1, 10, 64, 100, 4096, 10_000}).Draw(t, "length")
			return bytes.Repeat([]byte{byte(rapid.IntRange('a', 'z').Draw(t, "letter"))}, n)
		})
		someFD := func(t *rapid.T) (n int, fds [2]int) {
			if len(p.open) == 0 {
				t.Skip("nothing open")
			}
			n = rapid.SampledFrom(slices.Sorted(maps.Keys(p.open))).Draw(t, "file")
			return n, p.open[n]
		}
		twice := func(t *rapid.T, what string, fds [2]int, fn func(fd int) error) {
			a, b := fn(fds[0]), fn(fds[1])
			if errnoOf(a) != errnoOf(b) {
				t.Fatalf("%s: %v in the mount, %v on the disk", what, a, b)
			}
		}
		rt.Repeat(map[string]func(*rapid.T){
			"": p.compare,
			"mkdir": func(t *rapid.T) {
				at, mode := path.Draw(t, "at"), rapid.SampledFrom([]uint32{0o755, 0o700, 0o1777}).Draw(t, "mode")
				p.both(t, "mkdir", func(root string) error { return unix.Mkdir(filepath.Join(root, at), mode) })
			},
			"rmdir": func(t *rapid.T) {
				at := path.Draw(t, "at")
				p.both(t, "rmdir", func(root string) error { return unix.Rmdir(filepath.Join(root, at)) })
			},
			"unlink": func(t *rapid.T) {
				at := path.Draw(t, "at")
				p.both(t, "unlink", func(root string) error { return unix.Unlink(filepath.Join(root, at)) })
			},
			"rename": func(t *rapid.T) {
				from, to := path.Draw(t, "from"), path.Draw(t, "to")
				flags := rapid.SampledFrom([]uint{0, 0, 0, unix.RENAME_NOREPLACE, unix.RENAME_EXCHANGE}).Draw(t, "flags")
				p.both(t, "rename", func(root string) error {
					return unix.Renameat2(unix.AT_FDCWD, filepath.Join(root, from), unix.AT_FDCWD, filepath.Join(root, to), flags)
				})
			},
			"link": func(t *rapid.T) {
				from, to := path.Draw(t, "from"), path.Draw(t, "to")
				p.both(t, "link", func(root string) error { return unix.Link(filepath.Join(root, from), filepath.Join(root, to)) })
			},
			"symlink": func(t *rapid.T) {
				target, at := path.Draw(t, "target"), path.Draw(t, "at")
				p.both(t, "symlink", func(root string) error { return unix.Symlink(target, filepath.Join(root, at)) })
			},
			"mkfifo": func(t *rapid.T) {
				at := path.Draw(t, "at")
				p.both(t, "mkfifo", func(root string) error { return unix.Mkfifo(filepath.Join(root, at), 0o600) })
			},
			"chmod": func(t *rapid.T) {
				at, mode := path.Draw(t, "at"), rapid.SampledFrom([]uint32{0o777, 0o640, 0, 0o4755, 0o2750}).Draw(t, "mode")
				p.both(t, "chmod", func(root string) error { return unix.Chmod(filepath.Join(root, at), mode) })
			},
			"utimens": func(t *rapid.T) {
				at, ns := path.Draw(t, "at"), rapid.Int64Range(-1e12, 1e12).Draw(t, "ns")
				ts := []unix.Timespec{unix.NsecToTimespec(1), unix.NsecToTimespec(ns)}
				p.both(t, "utimens", func(root string) error {
					return unix.UtimesNanoAt(unix.AT_FDCWD, filepath.Join(root, at), ts, unix.AT_SYMLINK_NOFOLLOW)
				})
			},
			"truncate": func(t *rapid.T) {
				at, n := path.Draw(t, "at"), size.Draw(t, "size")
				if st, err := os.Stat(filepath.Join(p.disk, at)); err == nil && st.Mode()&fs.ModeNamedPipe != 0 {
					t.Skip("fifo")
				}
				p.both(t, "truncate", func(root string) error { return unix.Truncate(filepath.Join(root, at), n) })
			},
			"setxattr": func(t *rapid.T) {
				at, name := path.Draw(t, "at"), rapid.SampledFrom([]string{"user.a", "user.b"}).Draw(t, "name")
				flags := rapid.SampledFrom([]int{0, unix.XATTR_CREATE, unix.XATTR_REPLACE}).Draw(t, "flags")
				p.both(t, "setxattr", func(root string) error { return unix.Lsetxattr(filepath.Join(root, at), name, []byte("v"), flags) })
			},
			"removexattr": func(t *rapid.T) {
				at := path.Draw(t, "at")
				p.both(t, "removexattr", func(root string) error { return unix.Lremovexattr(filepath.Join(root, at), "user.a") })
			},
			"open": func(t *rapid.T) {
				at := path.Draw(t, "at")
				if st, err := os.Stat(filepath.Join(p.disk, at)); err == nil && !st.Mode().IsRegular() && !st.IsDir() {
					t.Skip("opening a fifo waits")
				}
				flags := rapid.SampledFrom([]int{unix.O_RDONLY, unix.O_WRONLY, unix.O_RDWR}).Draw(t, "access")
				for _, f := range []int{unix.O_CREAT, unix.O_EXCL, unix.O_TRUNC, unix.O_APPEND, unix.O_NOFOLLOW} {
					if rapid.Bool().Draw(t, "flag") {
						flags |= f
					}
				}
				if flags&unix.O_CREAT == 0 {
					flags &^= unix.O_EXCL
				}
				if flags&unix.O_ACCMODE == unix.O_RDONLY {
					flags &^= unix.O_TRUNC
				}
				var fds []int
				if p.both(t, "open", func(root string) error {
					fd, err := unix.Open(filepath.Join(root, at), flags|unix.O_CLOEXEC, 0o644)
					if err == nil {
						fds = append(fds, fd)
					}
					return err
				}) {
					p.next++
					p.open[p.next] = [2]int(fds)
				}
			},
			"close": func(t *rapid.T) {
				n, fds := someFD(t)
				delete(p.open, n)
				twice(t, "close", fds, unix.Close)
			},
			"write": func(t *rapid.T) {
				_, fds := someFD(t)
				b, off := data.Draw(t, "data"), size.Draw(t, "offset")
				twice(t, "write", fds, func(fd int) error {
					n, err := unix.Pwrite(fd, b, off)
					if err == nil && n != len(b) {
						return fmt.Errorf("wrote %d of %d bytes", n, len(b))
					}
					return err
				})
			},
			"read": func(t *rapid.T) {
				_, fds := someFD(t)
				off := size.Draw(t, "offset")
				var got []string
				twice(t, "read", fds, func(fd int) error {
					b := make([]byte, 5000)
					n, err := unix.Pread(fd, b, off)
					got = append(got, string(b[:max(n, 0)]))
					return err
				})
				if got[0] != got[1] {
					t.Fatalf("read %s in the mount, %s on the disk", brief([]byte(got[0])), brief([]byte(got[1])))
				}
			},
			"fstat": func(t *rapid.T) {
				_, fds := someFD(t)
				var got []unix.Stat_t
				twice(t, "fstat", fds, func(fd int) error {
					var st unix.Stat_t
					err := unix.Fstat(fd, &st)
					got = append(got, st)
					return err
				})
				if a, b := got[0], got[1]; a.Nlink != b.Nlink || a.Mode != b.Mode || a.Mode&unix.S_IFMT == unix.S_IFREG && a.Size != b.Size {
					t.Fatalf("fstat: links %d, mode %o, size %d in the mount, %d, %o, %d on the disk", a.Nlink, a.Mode, a.Size, b.Nlink, b.Mode, b.Size)
				}
			},
			"ftruncate": func(t *rapid.T) {
				_, fds := someFD(t)
				n := size.Draw(t, "size")
				twice(t, "ftruncate", fds, func(fd int) error { return unix.Ftruncate(fd, n) })
			},
			"fallocate": func(t *rapid.T) {
				_, fds := someFD(t)
				off, n := size.Draw(t, "offset"), size.Draw(t, "size")
				mode := rapid.SampledFrom([]uint32{0, unix.FALLOC_FL_KEEP_SIZE, unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE, unix.FALLOC_FL_ZERO_RANGE}).Draw(t, "mode")
				twice(t, "fallocate", fds, func(fd int) error {
					if err := unix.Fallocate(fd, mode, off, n); err != nil {
						return err
					}
					// Whether the time moves if nothing else does is up to the file system.
					return unix.Futimes(fd, []unix.Timeval{{}, {Sec: 5}})
				})
			},
			"fsync": func(t *rapid.T) {
				_, fds := someFD(t)
				twice(t, "fsync", fds, unix.Fsync)
			},
			"commit": func(t *rapid.T) {
				if err := r.files.Flush(context.Background()); err != nil {
					t.Fatal(err)
				}
			},
		})
	})
}

func (p *pair) end(t *rapid.T) {
	for _, fds := range p.open {
		_ = unix.Close(fds[0])
		_ = unix.Close(fds[1])
	}
	if err := os.RemoveAll(p.mnt); err != nil {
		t.Error(err)
	}
	_ = os.RemoveAll(p.disk)
}
