package mount

import (
	"errors"
	iofs "io/fs"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/roamfs/roamfs/sync/tree"
)

// node is an inode as the kernel knows it.
type node struct {
	fs.Inode
	m    *Mount
	ino  tree.Ino
	kind tree.Kind

	atime   atomic.Pointer[int64] // as set by utimens, ns; nil: the modification time
	shared  atomic.Int32          // of a directory: what fill saw of its setgid bit; 0: nothing yet
	changed atomic.Int64          // last change of an attribute here, ns; see the package comment

	mu      sync.Mutex
	was     *tree.Node        // not nil: parted, the tree shows the inode no more or another version of it
	handles map[*handle]bool  // open files
	shown   []tree.Dot        // the version that was last opened, whose pages the kernel may have
	xattrs  map[string][]byte // if changed since it parted
}

// now returns the inode as it is now, with what local writers have not committed
// yet. One that has parted from the tree is as it was then, since its open files
// live on.
func (n *node) now() (tree.Node, error) {
	n.mu.Lock()
	if n.was != nil {
		defer n.mu.Unlock()
		return n.last(*n.was), nil
	}
	n.mu.Unlock()
	t, err := n.m.tree.Node(n.ino)
	if err == nil {
		return n.m.files.Stat(t), nil
	}
	if errors.Is(err, iofs.ErrNotExist) { // another device has removed it
		n.mu.Lock()
		defer n.mu.Unlock()
		for h := range n.handles {
			t = h.t
			t.NLink = 0
			return n.last(t), nil
		}
		if n.kind != tree.Dir {
			return t, errStale
		}
	}
	return t, err
}

// errStale is the answer for a file that another device has removed while the
// kernel still knows its name. The kernel then looks the name up again, and
// goes on with what is there now: a save by rename replaces a file by another
// one, and whoever opens it meanwhile must not be told that there is none.
var errStale = errors.New("the name shows another file")

// last returns t with the size that the open files of n have; the caller holds mu.
func (n *node) last(t tree.Node) tree.Node {
	for h := range n.handles {
		t.Size = h.f.Size()
		break
	}
	return t
}

// alter changes what a node that has parted from the tree remembers; false if it
// has not.
func (n *node) alter(fn func(*tree.Node)) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.was == nil {
		return false
	}
	t := *n.was
	fn(&t)
	n.was = &t
	return true
}

// touch notes a change of attributes.
func (n *node) touch() { n.changed.Store(time.Now().UnixNano()) }

// closed ends a handle of the node.
func (n *node) closed(h *handle) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.handles, h)
}

// parted tells whether n has parted from the tree.
func (n *node) parted() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.was != nil
}

// writer returns an open file of a parted node that can be written to, or nil.
// Only its open files still lead to the bytes of such a node.
func (n *node) writer() *handle {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.was != nil {
		for h := range n.handles {
			if h.write {
				return h
			}
		}
	}
	return nil
}

// child returns the node that the kernel was last told for a name, or nil.
func (n *node) child(name string) *node {
	if c := n.GetChild(name); c != nil {
		if c, ok := c.Operations().(*node); ok {
			return c
		}
	}
	return nil
}

// fill writes an inode's attributes.
func (n *node) fill(out *fuse.Attr, t tree.Node) {
	mtime := t.MTime
	if t.Kind == tree.Dir {
		if at, ok := n.m.times.get(t.Ino); ok {
			mtime = max(mtime, at)
		}
	}
	atime := mtime
	if at := n.atime.Load(); at != nil {
		atime = *at
	}
	setTime(&out.Mtime, &out.Mtimensec, mtime)
	setTime(&out.Atime, &out.Atimensec, atime)
	ctime := mtime
	if at := n.changed.Load(); at != 0 {
		ctime = max(ctime, at)
	}
	setTime(&out.Ctime, &out.Ctimensec, ctime)

	out.Ino = number(t.Ino)
	out.Mode = typeBits(t.Kind) | t.Mode&tree.ModeMask
	out.Nlink = uint32(max(t.NLink, 0))
	out.Uid, out.Gid = n.m.owner(t.Ino)
	switch t.Kind {
	case tree.Dir:
		n.shared.Store(shared(t.Mode))
		out.Size, out.Blocks, out.Nlink = dirSize, dirSize/512, uint32(max(t.NLink, 1))
	case tree.Symlink:
		out.Mode = typeBits(t.Kind) | 0o777
		out.Size = uint64(len(t.Inline))
	default:
		out.Size = uint64(t.Size)
		out.Blocks = blocks(t)
	}
	out.Blksize = ioSize
}

const (
	dirSize = 4096
	// ioSize is st_blksize, by which programs choose the size of their buffers.
	// A request costs about as much as copying 64 KiB.
	ioSize = 64 << 10
	// largeFile is the size up to which a file is one chunk, without holes.
	largeFile = 512 << 10
)

// blocks is st_blocks, in units of 512 bytes. How much of a large file is holes is
// known only to its list of chunks or its draft. Such a file shows one unit less
// than it could have, at which cp and tar take the trouble to look for holes.
func blocks(t tree.Node) uint64 {
	if t.Size > largeFile {
		return uint64(t.Size-1) / 512
	}
	return (uint64(t.Size) + 4095) / 4096 * 8
}

// setTime splits ns since 1970, which may be negative.
func setTime(sec *uint64, nsec *uint32, ns int64) {
	s, rest := ns/1e9, ns%1e9
	if rest < 0 {
		s, rest = s-1, rest+1e9
	}
	*sec, *nsec = uint64(s), uint32(rest)
}

// owner returns who owns an inode on this device.
func (m *Mount) owner(ino tree.Ino) (uid, gid uint32) {
	if l := m.tree.Local(ino); l.Owned {
		return l.UID, l.GID
	}
	return m.uid, m.gid
}

// give makes uid and gid the owners of an inode on this device.
func (m *Mount) give(ino tree.Ino, uid, gid uint32) error {
	if u, g := m.owner(ino); u == uid && g == gid {
		return nil
	}
	if uid == m.uid && gid == m.gid {
		return m.tree.SetLocal(ino, Local{})
	}
	return m.tree.SetLocal(ino, Local{UID: uid, GID: gid, Owned: true})
}

// fail turns the error of an operation on n into an errno and logs what a
// program cannot be told.
func (n *node) fail(op string, err error) syscall.Errno {
	errno, explain := toErrno(err)
	if explain {
		n.m.report(op, n, err)
	}
	return errno
}
