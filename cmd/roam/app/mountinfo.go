package app

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// fsType is the type under which the kernel lists our mounts.
const fsType = "fuse.roamfs"

// mountPoint is one line of /proc/self/mountinfo; see proc_pid_mountinfo(5).
type mountPoint struct {
	device string // "major:minor"; the same for all bind mounts of one file system
	root   string // what of the file system is shown here; "/" unless it is a bind mount
	dir    string // where it is shown
	fstype string
}

// mountPoints reads the mounts of this process in the order in which they were
// made.
func mountPoints() ([]mountPoint, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("list mounts: %w", err)
	}
	defer discard(f)
	list, err := parseMountInfo(f)
	if err != nil {
		return nil, fmt.Errorf("list mounts: %w", err)
	}
	return list, nil
}

// parseMountInfo reads the format of /proc/self/mountinfo and leaves out lines
// that do not follow it.
func parseMountInfo(r io.Reader) ([]mountPoint, error) {
	var list []mountPoint
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		before, after, ok := strings.Cut(lines.Text(), " - ")
		fields, rest := strings.Fields(before), strings.Fields(after)
		if !ok || len(fields) < 6 || len(rest) < 1 {
			continue
		}
		list = append(list, mountPoint{
			device: fields[2],
			root:   unescapeMount(fields[3]),
			dir:    unescapeMount(fields[4]),
			fstype: rest[0],
		})
	}
	return list, lines.Err()
}

// unescapeMount replaces the octal escapes (\040 for a space) that the kernel
// writes in names.
func unescapeMount(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, ok := octal(s[i+1 : i+4]); ok {
				b.WriteByte(n)
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

func octal(digits string) (byte, bool) {
	n := 0
	for _, d := range []byte(digits) {
		if d < '0' || d > '7' {
			return 0, false
		}
		n = n*8 + int(d-'0')
	}
	return byte(n), n < 256
}

// mountOf returns the mount that shows path, which is absolute and free of
// symbolic links: the innermost, and of several at one place the newest.
func mountOf(list []mountPoint, path string) (mountPoint, bool) {
	var best mountPoint
	found := false
	for _, m := range list {
		if within(path, m.dir) && (!found || len(m.dir) >= len(best.dir)) {
			best, found = m, true
		}
	}
	return best, found
}

// within tells whether path is dir or lies below it.
func within(path, dir string) bool {
	if dir == "/" || path == dir {
		return true
	}
	return strings.HasPrefix(path, strings.TrimSuffix(dir, string(filepath.Separator))+string(filepath.Separator))
}
