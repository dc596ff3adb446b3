package app

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// wholeFile is a lock of the given kind on a file of any length.
func wholeFile(kind int16) *unix.Flock_t {
	return &unix.Flock_t{Type: kind, Whence: io.SeekStart}
}

// A process that was just killed may hold the lock for a moment after it answers no
// more: that long is tried.
const (
	dyingTries = 20
	dyingPause = 25 * time.Millisecond
)

// takeLock makes this process the one that runs the device in dir. The lock is
// an open file description lock (fcntl(2), F_OFD_SETLK): like flock(2) it ends
// with the process however that ends, and unlike it, it can be asked about
// without being taken. The pid in the file is only for people. The file is
// created if needed.
func takeLock(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the state directory: %w", err)
	}
	for range dyingTries {
		if err = unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, wholeFile(unix.F_WRLCK)); err == nil {
			break
		}
		<-time.After(dyingPause)
	}
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
		pid := readPID(f)
		discard(f)
		return nil, held(dir, pid)
	}
	if err == nil {
		err = f.Truncate(0)
	}
	if err == nil {
		_, err = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	if err != nil {
		discard(f)
		return nil, fmt.Errorf("lock the state directory: %w", err)
	}
	return f, nil
}

// releaseLock ends the lock. The file stays: removing it would let two
// processes lock two files of one name.
func releaseLock(f *os.File) error {
	return errors.Join(f.Truncate(0), f.Close())
}

// heldError is the refusal to use a state directory that another process uses.
type heldError struct {
	dir string
	pid int // 0 if the file does not say
}

func (e *heldError) Error() string {
	who := "another process"
	if e.pid != 0 {
		who = "process " + strconv.Itoa(e.pid)
	}
	return fmt.Sprintf("the device in %s is in use by %s", e.dir, who)
}

func held(dir string, pid int) error {
	return &Error{
		Code: CodeFailed,
		Hint: "see `roam status`, or end it with `roam stop`",
		Err:  &heldError{dir: dir, pid: pid},
	}
}

// lockHolder returns the pid of the process that holds the lock of dir, 0 if
// nobody does. A holder that has not written its pid yet is -1.
func lockHolder(dir string) int {
	f, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return 0
	}
	defer discard(f)
	ask := wholeFile(unix.F_WRLCK)
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, ask); err != nil || ask.Type == unix.F_UNLCK {
		return 0
	}
	if pid := readPID(f); pid != 0 {
		return pid
	}
	return -1
}

func readPID(f *os.File) int {
	buf := make([]byte, 20)
	n, err := f.ReadAt(buf, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(buf[:n])))
	if err != nil || pid < 0 {
		return 0
	}
	return pid
}
