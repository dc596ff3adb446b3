package mount

import (
	"context"
	"math"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/roamfs/roamfs/fs/file"
	"github.com/roamfs/roamfs/sync/tree"
)

// Getattr implements [fs.NodeGetattrer].
func (n *node) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	t, err := n.now()
	if err != nil {
		return n.fail("stat", err)
	}
	n.fill(&out.Attr, t)
	return 0
}

// Setattr implements [fs.NodeSetattrer]: chown, chmod, truncate and utimens, of
// which the kernel combines some in one request.
func (n *node) Setattr(ctx context.Context, f fs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	t, err := n.now()
	if err != nil {
		return n.fail("setattr", err)
	}
	h, _ := f.(*handle)
	if err := n.chown(in, t); err != nil {
		return n.fail("chown", err)
	}
	if err := n.chmod(in); err != nil {
		return n.fail("chmod", err)
	}
	if err := n.truncate(ctx, h, in, t); err != nil {
		return n.fail("truncate", err)
	}
	if err := n.utimens(in, t); err != nil {
		return n.fail("utimens", err)
	}
	n.touch()
	if t, err = n.now(); err != nil {
		return n.fail("setattr", err)
	}
	n.fill(&out.Attr, t)
	out.Ino = n.StableAttr().Ino
	out.SetTimeout(forever) // go-fuse leaves this one to us
	return 0
}

func (n *node) chown(in *fuse.SetAttrIn, t tree.Node) error {
	uid, setUID := in.GetUID()
	gid, setGID := in.GetGID()
	if !setUID && !setGID {
		return nil
	}
	u, g := n.m.owner(t.Ino)
	if !setUID {
		uid = u
	}
	if !setGID {
		gid = g
	}
	if err := n.m.give(t.Ino, uid, gid); err != nil {
		return err
	}
	if _, set := in.GetMode(); set || t.Kind == tree.Dir {
		return nil
	}
	return n.unprivilege(t)
}

func (n *node) chmod(in *fuse.SetAttrIn) error {
	mode, ok := in.GetMode()
	if !ok {
		return nil
	}
	return n.setMode(mode & tree.ModeMask)
}

func (n *node) setMode(mode uint32) error {
	if n.alter(func(t *tree.Node) { t.Mode = mode }) {
		return nil
	}
	return n.m.tree.Chmod(n.ino, mode)
}

// unprivilege clears the bits that let a file run as its owner. The kernel
// leaves that to the server (CAP_HANDLE_KILLPRIV_V2), which spares it one
// request for each write.
func (n *node) unprivilege(t tree.Node) error {
	mode := t.Mode &^ unix.S_ISUID
	if mode&unix.S_IXGRP != 0 {
		mode &^= unix.S_ISGID
	}
	if mode == t.Mode {
		return nil
	}
	return n.setMode(mode)
}

// truncate sets the size, through the handle h if the request came with one.
func (n *node) truncate(ctx context.Context, h *handle, in *fuse.SetAttrIn, t tree.Node) error {
	size, ok := in.GetSize()
	if !ok {
		return nil
	}
	if size > tree.MaxSize {
		return file.ErrTooLarge
	}
	if err := n.m.tree.Writable(); err != nil {
		return err
	}
	ctx, end := wait(ctx)
	defer end()
	if h == nil || !h.write {
		h = n.writer()
	}
	var err error
	switch {
	case h != nil:
		err = h.f.Truncate(ctx, int64(size))
		h.wrote()
	case n.parted():
		err = file.ErrNotWritable
	default:
		err = n.m.files.Truncate(ctx, t, int64(size))
	}
	if err != nil {
		return err
	}
	if in.Valid&fuse.FATTR_KILL_SUIDGID != 0 {
		return n.unprivilege(t)
	}
	return nil
}

func (n *node) utimens(in *fuse.SetAttrIn, t tree.Node) error {
	if at, ok := in.GetATime(); ok {
		ns := nanos(at)
		n.atime.Store(&ns)
	}
	mt, ok := in.GetMTime()
	if !ok {
		return nil
	}
	ns := nanos(mt)
	if n.alter(func(t *tree.Node) { t.MTime = ns }) {
		return nil
	}
	if t.Kind == tree.File && n.m.files.SetMTime(t.Ino, ns) {
		return nil
	}
	if t.Kind == tree.Dir {
		n.m.times.forget(t.Ino)
	}
	return n.m.tree.SetMTime(t.Ino, ns)
}

// nanos is t as ns since 1970, at the nearest end of the years 1678 to 2262 if
// it lies outside.
func nanos(t time.Time) int64 {
	const most = math.MaxInt64 / int64(time.Second)
	switch s := t.Unix(); {
	case s >= most:
		return math.MaxInt64
	case s <= -most:
		return math.MinInt64
	}
	return t.UnixNano()
}

// Statfs implements [fs.NodeStatfser] with the hive's room.
func (n *node) Statfs(_ context.Context, out *fuse.StatfsOut) syscall.Errno {
	n.m.statfs(out)
	return 0
}

func (m *Mount) statfs(out *fuse.StatfsOut) {
	const unit = 4096
	r := m.status.Room()
	out.Bsize, out.Frsize, out.NameLen = unit, unit, tree.MaxName
	out.Blocks = uint64(max(r.Total, 0)) / unit
	out.Bfree = uint64(max(r.Free, 0)) / unit
	out.Bavail = uint64(max(r.Avail, 0)) / unit
	out.Files = uint64(max(r.Files, 0))
	out.Ffree = uint64(max(r.FilesFree, 0))
}
