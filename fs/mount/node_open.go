package mount

import (
	"context"
	"slices"
	"sync/atomic"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/roamfs/roamfs/fs/file"
	"github.com/roamfs/roamfs/sync/tree"
)

// Create implements [fs.NodeCreater].
func (n *node) Create(ctx context.Context, name string, flags, mode uint32, out *fuse.EntryOut) (*fs.Inode, fs.FileHandle, uint32, syscall.Errno) {
	child, t, errno := n.make(ctx, "create", name, tree.Content{Kind: tree.File, Mode: mode & tree.ModeMask}, out)
	if errno == syscall.EEXIST && flags&unix.O_EXCL == 0 {
		// Another device was faster than the kernel knew.
		if c, e := n.Lookup(ctx, name, out); e == 0 {
			if c, ok := c.Operations().(*node); ok && c.kind == tree.File {
				h, fuseFlags, e := c.Open(ctx, flags)
				return c.EmbeddedInode(), h, fuseFlags, e
			}
		}
	}
	if errno != 0 {
		return nil, nil, 0, errno
	}
	h, fuseFlags, errno := child.openAs(ctx, t, flags&^unix.O_TRUNC)
	if errno != 0 {
		return nil, nil, 0, errno
	}
	return child.EmbeddedInode(), h, fuseFlags, 0
}

// Open implements [fs.NodeOpener].
func (n *node) Open(ctx context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	for {
		seen := n.m.changes.Load()
		t, err := n.now()
		if err != nil {
			return nil, 0, n.fail("open", err)
		}
		h, fuseFlags, errno := n.openAs(ctx, t, flags)
		if errno != 0 || n.m.changes.Load() == seen {
			return h, fuseFlags, errno
		}
		// Something changed elsewhere. If it was this file, and its notification
		// was sent before the handle was there, the handle would fill the cache
		// with the version before.
		_ = h.Release(ctx)
	}
}

// openAs opens the inode as t.
func (n *node) openAs(ctx context.Context, t tree.Node, flags uint32) (*handle, uint32, syscall.Errno) {
	truncate := flags&unix.O_TRUNC != 0
	h := &handle{
		n: n, t: t,
		write:  flags&unix.O_ACCMODE != unix.O_RDONLY || truncate,
		append: flags&unix.O_APPEND != 0,
	}
	if h.write { // else what is written would fail as late as the flush, which many programs do not look at
		if err := n.m.tree.Writable(); err != nil {
			return nil, 0, n.fail("open", err)
		}
	}
	fuseFlags, err := n.attach(h)
	if err != nil {
		return nil, 0, n.fail("open", err)
	}
	if truncate {
		if err := h.begin(ctx); err != nil {
			_ = h.Release(ctx)
			return nil, 0, n.fail("open", err)
		}
	}
	if !h.write {
		fuseFlags |= fuse.FOPEN_NOFLUSH // nothing to do on close
	}
	return h, fuseFlags, 0
}

// begin empties a file that is opened with O_TRUNC.
func (h *handle) begin(ctx context.Context) error {
	if err := h.unprivilege(ctx); err != nil {
		return err
	}
	ctx, end := wait(ctx)
	defer end()
	return h.f.Truncate(ctx, 0)
}

// attach opens the file for a handle, counts it as open and says how the kernel
// is to use its pages.
func (n *node) attach(h *handle) (fuseFlags uint32, err error) {
	if !n.parted() {
		f, err := n.m.files.Open(h.t, h.write, false)
		if err != nil {
			return 0, err
		}
		if fuseFlags, ok := n.register(h, f); ok {
			return fuseFlags, nil
		}
		f.Release() // it parted meanwhile
	}
	return n.share(h)
}

// register enters a handle on f; false if the node has parted from the tree.
func (n *node) register(h *handle, f *file.Handle) (fuseFlags uint32, ok bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.was != nil {
		return 0, false
	}
	h.f, h.users = f, new(atomic.Int32)
	h.users.Add(1)
	ours := n.m.ours(h.t)
	if ours || slices.Equal(n.shown, h.t.Base) {
		fuseFlags = fuse.FOPEN_KEEP_CACHE
	}
	if !ours {
		for o := range n.handles {
			if !slices.Equal(o.t.Base, h.t.Base) && !n.m.ours(o.t) {
				// The pages belong to the version that o reads, until the
				// notification of the new one is dealt with.
				fuseFlags = fuse.FOPEN_DIRECT_IO
			}
		}
	}
	n.shown = h.t.Base
	if n.handles == nil {
		n.handles = map[*handle]bool{}
	}
	n.handles[h] = true
	return fuseFlags, true
}

// share opens a node that has parted from the tree, to which /proc/self/fd
// leads. Its bytes are to be had only through what is open already.
func (n *node) share(h *handle) (fuseFlags uint32, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for o := range n.handles {
		if o.write || !h.write {
			h.f, h.users = o.f, o.users
			h.users.Add(1)
			n.handles[h] = true
			return fuse.FOPEN_KEEP_CACHE, nil
		}
	}
	return 0, errStale
}
