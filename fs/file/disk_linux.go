package file

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// datasync makes the bytes and the size of a file durable.
func datasync(f *os.File) error {
	return control(f, func(fd int) error { return unix.Fdatasync(fd) })
}

// punch gives the space of off..end-1 back.
func punch(f *os.File, off, end int64) error {
	return control(f, func(fd int) error {
		return unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, end-off)
	})
}

// nextData returns the next range of a file, at or after off, that is allocated;
// off == end if there is none. Where the file system cannot tell, all of it is.
func nextData(f *os.File, off int64) (from, to int64, err error) {
	from, err = f.Seek(off, unix.SEEK_DATA)
	if errors.Is(err, unix.ENXIO) {
		return off, off, nil
	}
	if err != nil {
		return 0, 0, err
	}
	to, err = f.Seek(from, unix.SEEK_HOLE)
	return from, to, err
}

func control(f *os.File, fn func(fd int) error) error {
	c, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	if err := c.Control(func(fd uintptr) {
		for {
			if inner = fn(int(fd)); !errors.Is(inner, unix.EINTR) {
				return
			}
		}
	}); err != nil {
		return err
	}
	return inner
}
