package mount

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"slices"
	"syscall"

	"github.com/roamfs/roamfs/fs/file"
	"github.com/roamfs/roamfs/sync/block"
	"github.com/roamfs/roamfs/sync/tree"
)

// errnos maps errors to what a program sees, in order of precedence. Errors of
// the disk are not in it: see [toErrno].
var errnos = []struct {
	err   error
	errno syscall.Errno
}{
	{block.ErrNoReplica, syscall.EIO},
	{block.ErrNoRoom, syscall.ENOSPC},
	{tree.ErrNotEmpty, syscall.ENOTEMPTY},
	{tree.ErrIsDir, syscall.EISDIR},
	{tree.ErrNotDir, syscall.ENOTDIR},
	{tree.ErrLoop, syscall.EINVAL},
	{tree.ErrName, syscall.EINVAL},
	{tree.ErrNoXattr, syscall.ENODATA},
	{tree.ErrTooManyLinks, syscall.EMLINK},
	{tree.ErrTooBig, syscall.E2BIG},
	{errStale, syscall.ESTALE},
	{fs.ErrNotExist, syscall.ENOENT},
	{fs.ErrExist, syscall.EEXIST},
	{fs.ErrPermission, syscall.EPERM},
	{fs.ErrInvalid, syscall.EINVAL},
	{fs.ErrClosed, syscall.EBADF},
	{errors.ErrUnsupported, syscall.EOPNOTSUPP},
	{file.ErrTooLarge, syscall.EFBIG},
	{file.ErrNotWritable, syscall.EBADF},
	{file.ErrClosed, syscall.EBADF},
	{io.EOF, syscall.ENXIO}, // lseek(2): no data, or no hole, from there on
	{context.Canceled, syscall.EINTR},
	{context.DeadlineExceeded, syscall.EIO},
}

// full is what the local disk says when it takes no more.
var full = []syscall.Errno{syscall.ENOSPC, syscall.EDQUOT, syscall.EFBIG}

// toErrno turns an error into an errno. Everything that has no errno of its own
// is EIO, and explain is then true: the kernel keeps no text, so somebody has to
// log it. Of what the local disk reports only a full disk is passed on: that a
// file of ours is missing or read-only does not mean that the user's is.
func toErrno(err error) (errno syscall.Errno, explain bool) {
	if err == nil {
		return 0, false
	}
	if disk, ok := errors.AsType[syscall.Errno](err); ok {
		if slices.Contains(full, disk) {
			return disk, false
		}
		return syscall.EIO, true
	}
	for _, e := range errnos {
		if errors.Is(err, e.err) {
			return e.errno, e.errno == syscall.EIO
		}
	}
	return syscall.EIO, true
}
