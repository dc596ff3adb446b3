package mount

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Stale tells whether dir is a mount whose process is dead: what is not cached
// fails with "transport endpoint is not connected".
func Stale(dir string) bool {
	var st unix.Statfs_t // the kernel has no answer of its own to this one
	err := unix.Statfs(dir, &st)
	return errors.Is(err, unix.ENOTCONN) || errors.Is(err, unix.ECONNABORTED)
}

// CleanStale removes a dead mount of this file system from dir, and does
// nothing if there is none. A dead mount of another kind is left alone and is
// an error.
func CleanStale(dir string) error {
	// There may be several on top of each other, one for each crash.
	for range 16 {
		if !Stale(dir) {
			return nil
		}
		t, err := mountType(dir)
		if err != nil {
			return err
		}
		if t != Type {
			return fmt.Errorf("a dead mount of type %q is there: %w", t, unix.ENOTCONN)
		}
		if err := detach(dir); err != nil {
			return fmt.Errorf("remove dead mount: %w", err)
		}
	}
	return fmt.Errorf("too many dead mounts: %w", unix.ENOTCONN)
}

// detach takes a mount out of the tree of directories without waiting for its
// users.
func detach(dir string) error {
	if os.Geteuid() == 0 {
		return unix.Unmount(dir, unix.MNT_DETACH)
	}
	helper, err := exec.LookPath("fusermount3")
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNoHelper, err)
	}
	out, err := exec.Command(helper, "-u", "-z", "--", dir).CombinedOutput() //nolint:noctx // lazy: does not wait
	if err != nil {
		return fmt.Errorf("%w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}

// mountType returns the type of the uppermost file system that is mounted
// exactly on dir, "" if none is. dir need not be accessible.
func mountType(dir string) (string, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	// A dead mount cannot be resolved, but what it lies in can.
	if parent, err := filepath.EvalSymlinks(filepath.Dir(abs)); err == nil {
		abs = filepath.Join(parent, filepath.Base(abs))
	}
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return "", fmt.Errorf("list mounts: %w", err)
	}
	defer func() { _ = f.Close() }()
	found := ""
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if at, fstype, ok := parseMount(lines.Text()); ok && at == abs {
			found = fstype // later lines lie on top
		}
	}
	return found, lines.Err()
}

// parseMount reads a line of /proc/self/mountinfo, see proc_pid_mountinfo(5).
func parseMount(line string) (at, fstype string, ok bool) {
	before, after, ok := strings.Cut(line, " - ")
	fields, rest := strings.Fields(before), strings.Fields(after)
	if !ok || len(fields) < 5 || len(rest) < 1 {
		return "", "", false
	}
	return unescape(fields[4]), rest[0], true
}

// unescape replaces the octal escapes (\040 for a space) of the kernel.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if c, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(c))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
