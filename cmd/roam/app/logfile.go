package app

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// maxLog is the size at which the log is rotated, in bytes. The log and the one
// before it together take twice that.
const maxLog = 1 << 20

// logFile is the log of a daemon in the background. It is safe for concurrent
// use. What the process writes to its standard output and error, such as the
// report of a crash, goes there too if it was opened with adopt.
type logFile struct {
	path, old string
	limit     int64
	adopt     bool

	mu   sync.Mutex // guards what follows
	f    *os.File
	size int64
}

// openLog opens the log at path for appending, with the one before it at old.
func openLog(path, old string, limit int64, adopt bool) (*logFile, error) {
	l := &logFile{path: path, old: old, limit: limit, adopt: adopt}
	if err := l.open(); err != nil {
		return nil, err
	}
	return l, nil
}

func (l *logFile) open() error {
	f, err := os.OpenFile(l.path, os.O_WRONLY|os.O_CREATE|os.O_APPEND|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return fmt.Errorf("log: %w", err)
	}
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return errors.Join(fmt.Errorf("log: %w", err), f.Close())
	}
	if l.adopt {
		for fd := 1; fd <= 2; fd++ {
			if err := unix.Dup3(int(f.Fd()), fd, 0); err != nil {
				return errors.Join(fmt.Errorf("log: %w", err), f.Close())
			}
		}
	}
	l.f, l.size = f, size
	return nil
}

// Write appends one record, after a rotation if it does not fit. A record longer
// than the limit is cut.
func (l *logFile) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.f == nil {
		return 0, os.ErrClosed
	}
	line := p
	if int64(len(line)) > l.limit {
		line = line[:l.limit]
	}
	if l.size+int64(len(line)) > l.limit {
		if err := l.rotate(); err != nil {
			return 0, err
		}
	}
	n, err := l.f.Write(line)
	l.size += int64(n)
	if err != nil {
		return n, err
	}
	return len(p), nil
}

func (l *logFile) rotate() error {
	if err := os.Rename(l.path, l.old); err != nil {
		return fmt.Errorf("log: %w", err)
	}
	before := l.f
	if err := l.open(); err != nil {
		return err
	}
	return before.Close()
}

// Close ends the log.
func (l *logFile) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	f := l.f
	l.f = nil
	if f == nil {
		return nil
	}
	return f.Close()
}
