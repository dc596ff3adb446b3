package mount

import (
	"context"
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"os"
	"syscall"
	"testing"

	"github.com/roamfs/roamfs/fs/file"
	"github.com/roamfs/roamfs/sync/block"
	"github.com/roamfs/roamfs/sync/tree"
)

func TestErrno(t *testing.T) {
	for _, c := range []struct {
		name    string
		err     error
		want    syscall.Errno
		explain bool
	}{
		{"no error", nil, 0, false},
		{"missing", iofs.ErrNotExist, syscall.ENOENT, false},
		{"there already", iofs.ErrExist, syscall.EEXIST, false},
		{"not allowed", iofs.ErrPermission, syscall.EPERM, false},
		{"not empty", tree.ErrNotEmpty, syscall.ENOTEMPTY, false},
		{"is a directory", tree.ErrIsDir, syscall.EISDIR, false},
		{"not a directory", tree.ErrNotDir, syscall.ENOTDIR, false},
		{"into itself", tree.ErrLoop, syscall.EINVAL, false},
		{"bad name", tree.ErrName, syscall.EINVAL, false},
		{"no attribute", tree.ErrNoXattr, syscall.ENODATA, false},
		{"attribute too big", tree.ErrTooBig, syscall.E2BIG, false},
		{"too many links", tree.ErrTooManyLinks, syscall.EMLINK, false},
		{"full", block.ErrNoRoom, syscall.ENOSPC, false},
		{"interrupted", context.Canceled, syscall.EINTR, false},
		{"deadline", context.DeadlineExceeded, syscall.EIO, true},
		{"no replica", block.ErrNoReplica, syscall.EIO, true},
		{"unavailable", &block.UnavailableError{Holders: []string{"nas"}}, syscall.EIO, true},
		{"unavailable after its own deadline", &block.UnavailableError{Err: context.DeadlineExceeded}, syscall.EIO, true},
		{"damaged", block.ErrDamaged, syscall.EIO, true},
		{"too large", file.ErrTooLarge, syscall.EFBIG, false},
		{"read-only handle", file.ErrNotWritable, syscall.EBADF, false},
		{"nothing to seek", io.EOF, syscall.ENXIO, false},
		{"disk full", &os.PathError{Op: "write", Err: syscall.ENOSPC}, syscall.ENOSPC, false},
		{"quota", &os.PathError{Op: "write", Err: syscall.EDQUOT}, syscall.EDQUOT, false},
		{"draft missing", &os.PathError{Op: "open", Err: syscall.ENOENT}, syscall.EIO, true},
		{"disk broken", syscall.EIO, syscall.EIO, true},
		{"unknown", errors.New("what"), syscall.EIO, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, err := range []error{c.err, fmt.Errorf("wrapped: %w", c.err)} {
				if c.err == nil {
					err = nil
				}
				if got, explain := toErrno(err); got != c.want || explain != c.explain {
					t.Errorf("toErrno(%v) = %v, %v, want %v, %v", err, got, explain, c.want, c.explain)
				}
			}
		})
	}
}
