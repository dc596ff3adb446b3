package mount

import (
	"context"
	"errors"
	iofs "io/fs"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/roamfs/roamfs/sync/tree"
)

// badName returns the errno for a name that the tree cannot hold or that is
// taken by the virtual directory. The kernel has refused "", "." and "..".
func (n *node) badName(name string) syscall.Errno {
	switch {
	case len(name) > tree.MaxName:
		return syscall.ENAMETOOLONG
	case n.IsRoot() && name == virtualName:
		return syscall.EPERM
	}
	return 0
}

// Lookup implements [fs.NodeLookuper].
func (n *node) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	if n.IsRoot() && name == virtualName {
		return n.m.virtual.enter(out)
	}
	if len(name) > tree.MaxName {
		return nil, syscall.ENAMETOOLONG
	}
	t, err := n.m.tree.Lookup(n.ino, name)
	if err != nil {
		if errors.Is(err, iofs.ErrNotExist) && n.GetChild(name) != nil {
			n.RmChild(name) // so that the children are what the kernel was last told
		}
		return nil, n.fail("lookup", err)
	}
	return n.show(ctx, t, out).EmbeddedInode(), 0
}

// show returns the node of an inode and fills the reply to a request for it.
func (n *node) show(ctx context.Context, t tree.Node, out *fuse.EntryOut) *node {
	c := n.m.node(ctx, n, t)
	if t.Kind == tree.File {
		t = n.m.files.Stat(t)
	}
	c.fill(&out.Attr, t)
	return c
}

// Mkdir implements [fs.NodeMkdirer].
func (n *node) Mkdir(ctx context.Context, name string, mode uint32, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	if errno := n.badName(name); errno != 0 {
		return nil, errno
	}
	gid, setgid, err := n.inherit()
	if err != nil {
		return nil, n.fail("mkdir", err)
	}
	mode &= tree.ModeMask
	if setgid {
		mode |= unix.S_ISGID
	}
	t, err := n.m.tree.Mkdir(n.ino, name, mode)
	if err != nil {
		return nil, n.fail("mkdir", err)
	}
	return inode(n.born(ctx, t, gid, setgid, out))
}

// inherit returns the group that what is made in this directory belongs to, if
// the directory says so (setgid) instead of the caller.
func (n *node) inherit() (gid uint32, setgid bool, err error) {
	is := n.shared.Load()
	if is == 0 { // the kernel asks for a directory's mode before it lets anybody write in it
		t, err := n.now()
		if err != nil {
			return 0, false, err
		}
		is = shared(t.Mode)
	}
	if is < 0 {
		return 0, false, nil
	}
	_, gid = n.m.owner(n.ino)
	return gid, true, nil
}

// shared is 1 for a mode with the setgid bit, else -1.
func shared(mode uint32) int32 {
	if mode&unix.S_ISGID != 0 {
		return 1
	}
	return -1
}

// born completes the making of an inode: its owner, the directory's time and the
// reply. gid and setgid are those of [node.inherit].
func (n *node) born(ctx context.Context, t tree.Node, gid uint32, setgid bool, out *fuse.EntryOut) (*node, syscall.Errno) {
	n.m.times.touch(n.ino)
	if caller, ok := fuse.FromContext(ctx); ok {
		group := caller.Gid
		if setgid {
			group = gid
		}
		if err := n.m.give(t.Ino, caller.Uid, group); err != nil {
			return nil, n.fail("create", err)
		}
	}
	return n.show(ctx, t, out), 0
}

// inode is what go-fuse wants of a node that may be nil.
func inode(n *node, errno syscall.Errno) (*fs.Inode, syscall.Errno) {
	if errno != 0 {
		return nil, errno
	}
	return n.EmbeddedInode(), 0
}

// make makes a file, symlink or fifo.
func (n *node) make(ctx context.Context, op, name string, c tree.Content, out *fuse.EntryOut) (*node, tree.Node, syscall.Errno) {
	if errno := n.badName(name); errno != 0 {
		return nil, tree.Node{}, errno
	}
	gid, setgid, err := n.inherit()
	if err != nil {
		return nil, tree.Node{}, n.fail(op, err)
	}
	c.MTime = time.Now().UnixNano()
	t, err := n.m.tree.Create(n.ino, name, c)
	if err != nil {
		return nil, tree.Node{}, n.fail(op, err)
	}
	child, errno := n.born(ctx, t, gid, setgid, out)
	return child, t, errno
}

// Mknod implements [fs.NodeMknoder] for regular files and fifos.
func (n *node) Mknod(ctx context.Context, name string, mode, _ uint32, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	c := tree.Content{Mode: mode & tree.ModeMask}
	switch mode & unix.S_IFMT {
	case unix.S_IFREG, 0:
		c.Kind = tree.File
	case unix.S_IFIFO:
		c.Kind = tree.Fifo
	default:
		return nil, syscall.EPERM
	}
	child, _, errno := n.make(ctx, "mknod", name, c, out)
	return inode(child, errno)
}

// Symlink implements [fs.NodeSymlinker].
func (n *node) Symlink(ctx context.Context, target, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	if len(target) > tree.MaxTarget {
		return nil, syscall.ENAMETOOLONG
	}
	c := tree.Content{Kind: tree.Symlink, Size: int64(len(target)), Inline: []byte(target), Mode: 0o777}
	child, _, errno := n.make(ctx, "symlink", name, c, out)
	return inode(child, errno)
}

// Readlink implements [fs.NodeReadlinker].
func (n *node) Readlink(context.Context) ([]byte, syscall.Errno) {
	t, err := n.now()
	if err != nil {
		return nil, n.fail("readlink", err)
	}
	return append([]byte(nil), t.Inline...), 0
}

// Link implements [fs.NodeLinker].
func (n *node) Link(_ context.Context, target fs.InodeEmbedder, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	of, ok := target.(*node)
	if !ok {
		return nil, syscall.EPERM
	}
	if errno := n.badName(name); errno != 0 {
		return nil, errno
	}
	if of.kind == tree.Dir {
		return nil, syscall.EPERM
	}
	t, err := n.m.tree.Link(of.ino, n.ino, name)
	if err != nil {
		return nil, n.fail("link", err)
	}
	n.m.times.touch(n.ino)
	of.touch()
	of.fill(&out.Attr, n.m.files.Stat(t))
	return of.EmbeddedInode(), 0
}

// Unlink implements [fs.NodeUnlinker].
func (n *node) Unlink(_ context.Context, name string) syscall.Errno {
	return n.remove("unlink", name, n.m.tree.Unlink)
}

// Rmdir implements [fs.NodeRmdirer].
func (n *node) Rmdir(_ context.Context, name string) syscall.Errno {
	return n.remove("rmdir", name, n.m.tree.Rmdir)
}

func (n *node) remove(op, name string, do func(tree.Ino, string) error) syscall.Errno {
	if errno := n.badName(name); errno != 0 {
		return errno
	}
	t, err := n.m.tree.Lookup(n.ino, name)
	if err != nil {
		return n.fail(op, err)
	}
	if err := do(n.ino, name); err != nil {
		return n.fail(op, err)
	}
	n.m.times.touch(n.ino)
	if err := n.m.unlinked(t); err != nil {
		return n.fail(op, err)
	}
	return 0
}

// unlinked follows up the loss of a name; t is the inode as it was before.
func (m *Mount) unlinked(t tree.Node) error {
	c := m.known(t.Ino)
	if t.Kind != tree.Dir && t.NLink > 1 {
		if _, err := m.tree.Node(t.Ino); !errors.Is(err, iofs.ErrNotExist) {
			if c != nil {
				c.touch()
			}
			return err
		}
	}
	if c != nil {
		t := m.files.Stat(t)
		t.NLink = 0
		m.part(c, t)
		c.touch()
	}
	if t.Kind == tree.Dir {
		m.times.forget(t.Ino)
		return nil
	}
	m.files.Removed(t.Ino)
	return nil
}

// Rename implements [fs.NodeRenamer].
func (n *node) Rename(_ context.Context, name string, newParent fs.InodeEmbedder, newName string, flags uint32) syscall.Errno {
	to, ok := newParent.(*node)
	if !ok {
		return syscall.EROFS
	}
	if flags&^uint32(unix.RENAME_NOREPLACE|unix.RENAME_EXCHANGE) != 0 {
		return syscall.EINVAL
	}
	if errno := n.badName(name); errno != 0 {
		return errno
	}
	if errno := to.badName(newName); errno != 0 {
		return errno
	}
	src, err := n.m.tree.Lookup(n.ino, name)
	if err != nil {
		return n.fail("rename", err)
	}
	dst, err := n.m.tree.Lookup(to.ino, newName)
	if err != nil && !errors.Is(err, iofs.ErrNotExist) {
		return n.fail("rename", err)
	}
	replaces := err == nil
	exchange := flags&unix.RENAME_EXCHANGE != 0
	if err := n.m.tree.Rename(n.ino, name, to.ino, newName, flags&unix.RENAME_NOREPLACE != 0, exchange); err != nil {
		return n.fail("rename", err)
	}
	n.m.times.touch(n.ino)
	n.m.times.touch(to.ino)
	switch {
	case exchange:
		if err := n.m.moved(dst, n != to); err != nil {
			return n.fail("rename", err)
		}
	case replaces && dst.Ino != src.Ino:
		if err := n.m.unlinked(dst); err != nil {
			return n.fail("rename", err)
		}
	}
	if err := n.m.moved(src, n != to); err != nil {
		return n.fail("rename", err)
	}
	return 0
}

// moved follows up the rename of an inode, to another directory if away is set;
// t is how it was before.
func (m *Mount) moved(t tree.Node, away bool) error {
	if c := m.known(t.Ino); c != nil {
		c.touch()
	}
	if t.Kind != tree.Dir {
		return nil
	}
	if away {
		m.notes.inode(t.Ino) // its cached listing names another ".."
	}
	// The tree takes the move for a change of the directory; programs that
	// compare times do not.
	if now, err := m.tree.Node(t.Ino); err != nil || now.MTime == t.MTime {
		return err
	}
	return m.tree.SetMTime(t.Ino, t.MTime)
}
