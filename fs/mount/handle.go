package mount

import (
	"context"
	"errors"
	"io"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/roamfs/roamfs/fs/file"
	"github.com/roamfs/roamfs/sync/tree"
)

// handle is an open file.
type handle struct {
	n      *node
	f      *file.Handle
	users  *atomic.Int32 // handles that share f
	t      tree.Node     // the inode as it was opened
	write  bool
	append bool
}

// Read implements [fs.FileReader].
func (h *handle) Read(ctx context.Context, dest []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	ctx, end := wait(ctx)
	defer end()
	got, err := h.f.ReadAt(ctx, dest, off)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, h.n.fail("read", err)
	}
	return fuse.ReadResultData(dest[:got]), 0
}

// Write implements [fs.FileWriter].
func (h *handle) Write(ctx context.Context, data []byte, off int64) (uint32, syscall.Errno) {
	if err := h.unprivilege(ctx); err != nil {
		return 0, h.n.fail("write", err)
	}
	ctx, end := wait(ctx)
	defer end()
	var put int
	var err error
	if h.append && off != h.f.Size() {
		// The kernel took the position from a size that another device has
		// changed. What it now has in its pages is at the wrong place.
		put, err = h.f.Append(ctx, data)
		h.n.m.notes.pages(h.n)
	} else {
		put, err = h.f.WriteAt(ctx, data, off)
	}
	if err != nil && put == 0 {
		return 0, h.n.fail("write", err)
	}
	h.wrote()
	return uint32(put), 0
}

// wrote follows up a change of the content through h. If its node has parted
// from the tree, the kernel knows others under the name, which may show what was
// written.
func (h *handle) wrote() {
	parted := h.n.alter(func(t *tree.Node) { t.MTime = time.Now().UnixNano() })
	if !parted {
		return
	}
	if other := h.n.m.known(h.n.ino); other != nil && other != h.n {
		h.n.m.notes.pages(other)
	}
}

// unprivilege clears the suid and sgid bits when an ordinary user changes the
// content. The kernel's word for it (WRITE_KILL_SUIDGID) does not get through
// go-fuse; who may keep the bits is, as there, root.
func (h *handle) unprivilege(ctx context.Context) error {
	if caller, ok := fuse.FromContext(ctx); !ok || caller.Uid == 0 {
		return nil
	}
	if h.t.Mode&(unix.S_ISUID|unix.S_ISGID) == 0 && h.n.changed.Load() == 0 {
		return nil // had none when opened, nobody changed the mode since
	}
	t, err := h.n.now()
	if err != nil {
		return err
	}
	return h.n.unprivilege(t)
}

// Flush implements [fs.FileFlusher]: close(2). The bytes survive kill -9 from
// here on.
func (h *handle) Flush(ctx context.Context) syscall.Errno {
	if !h.write {
		return 0
	}
	if err := h.f.Flush(ctx); err != nil {
		return h.n.fail("close", err)
	}
	return 0
}

// Fsync implements [fs.FileFsyncer]. The bytes survive power loss from here on.
func (h *handle) Fsync(ctx context.Context, _ uint32) syscall.Errno {
	if err := h.f.Sync(ctx); err != nil {
		return h.n.fail("fsync", err)
	}
	return 0
}

// Release implements [fs.FileReleaser].
func (h *handle) Release(context.Context) syscall.Errno {
	h.n.closed(h)
	if h.users.Add(-1) == 0 {
		h.f.Release()
	}
	return 0
}

// Allocate implements [fs.FileAllocater].
func (h *handle) Allocate(ctx context.Context, off, size uint64, mode uint32) syscall.Errno {
	if off > tree.MaxSize || size > tree.MaxSize || off+size > tree.MaxSize {
		return syscall.EFBIG
	}
	keep := mode&unix.FALLOC_FL_KEEP_SIZE != 0
	var punch, zero bool
	switch mode &^ unix.FALLOC_FL_KEEP_SIZE {
	case 0:
	case unix.FALLOC_FL_PUNCH_HOLE:
		punch = true
	case unix.FALLOC_FL_ZERO_RANGE:
		zero = true
	default:
		return syscall.EOPNOTSUPP
	}
	if err := h.unprivilege(ctx); err != nil {
		return h.n.fail("fallocate", err)
	}
	ctx, end := wait(ctx)
	defer end()
	if err := h.f.Allocate(ctx, int64(off), int64(size), keep, punch, zero); err != nil {
		return h.n.fail("fallocate", err)
	}
	h.wrote()
	return 0
}

// Lseek implements [fs.FileLseeker] for SEEK_DATA and SEEK_HOLE; the kernel
// knows the others.
func (h *handle) Lseek(_ context.Context, off uint64, whence uint32) (uint64, syscall.Errno) {
	if off > tree.MaxSize {
		return 0, syscall.ENXIO
	}
	seek := h.f.SeekData
	switch whence {
	case unix.SEEK_DATA:
	case unix.SEEK_HOLE:
		seek = h.f.SeekHole
	default:
		return 0, syscall.EINVAL
	}
	at, err := seek(int64(off))
	if err != nil {
		return 0, h.n.fail("lseek", err)
	}
	return uint64(at), 0
}
