package mount

import (
	"context"
	"errors"
	iofs "io/fs"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/roamfs/roamfs/sync/tree"
)

// dirHandle is an open directory. It lists what the directory held when the
// reader was last at its begin; names that come and go meanwhile are or are not
// among them, as POSIX allows. go-fuse calls one method at a time.
//
// A position is the number of the listing, unique in the mount, in the upper
// bits and of the next entry in the lower 32. The kernel puts its own cache
// together from what several readers get and goes by positions only, so two
// listings must have none in common.
type dirHandle struct {
	n       *node
	list    []fuse.DirEntry // nil: not read yet
	next    int
	nodes   []tree.Node // what the entries after "." and ".." were, if they are few
	changes uint64      // they are still that as long as the tree has had so many changes
}

// mostNodes bounds the inodes that an open directory keeps, some 250 bytes each.
const mostNodes = 4096

// OpendirHandle implements [fs.NodeOpendirHandler].
func (n *node) OpendirHandle(context.Context, uint32) (fs.FileHandle, uint32, syscall.Errno) {
	return &dirHandle{n: n}, fuse.FOPEN_CACHE_DIR | fuse.FOPEN_KEEP_CACHE, 0
}

func (d *dirHandle) load() syscall.Errno {
	t, err := d.n.now()
	if err != nil {
		return d.n.fail("readdir", err)
	}
	entries, nodes, changes, err := d.n.m.tree.ListNodes(t.Ino, mostNodes)
	if err != nil && !errors.Is(err, iofs.ErrNotExist) { // removed while open: empty
		return d.n.fail("readdir", err)
	}
	pos := d.n.m.listings.Add(1) << 32
	d.list = make([]fuse.DirEntry, 0, len(entries)+2)
	d.nodes, d.changes = nil, changes
	add := func(name string, ino uint64, mode uint32) {
		pos++
		d.list = append(d.list, fuse.DirEntry{Name: name, Ino: ino, Mode: mode, Off: pos})
	}
	add(".", number(t.Ino), unix.S_IFDIR)
	add("..", number(t.Parent), unix.S_IFDIR)
	for i, e := range entries {
		hidden := d.n.IsRoot() && e.Name == virtualName
		if mode := typeBits(e.Kind); mode != 0 && !hidden {
			add(e.Name, number(e.Ino), mode)
			if nodes != nil {
				d.nodes = append(d.nodes, nodes[i])
			}
		}
	}
	return 0
}

// Readdirent implements [fs.FileReaddirenter].
func (d *dirHandle) Readdirent(context.Context) (*fuse.DirEntry, syscall.Errno) {
	if d.list == nil {
		if errno := d.load(); errno != 0 {
			return nil, errno
		}
	}
	if d.next >= len(d.list) {
		return nil, 0
	}
	e := d.list[d.next]
	d.next++
	return &e, 0
}

// Lookup implements [fs.FileLookuper] for readdirplus. It asks the tree anew if
// that has changed since the listing: the kernel takes the answer for the name's
// current one. Otherwise the listing has it already.
func (d *dirHandle) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	if i := d.next - 3; i >= 0 && i < len(d.nodes) && d.list[d.next-1].Name == name && d.n.m.tree.Changes() == d.changes {
		return d.n.show(ctx, d.nodes[i], out).EmbeddedInode(), 0
	}
	t, err := d.n.m.tree.Lookup(d.n.ino, name)
	if err != nil {
		return nil, d.n.fail("lookup", err)
	}
	return d.n.show(ctx, t, out).EmbeddedInode(), 0
}

// Seekdir implements [fs.FileSeekdirer]. The begin is a new listing.
func (d *dirHandle) Seekdir(_ context.Context, off uint64) syscall.Errno {
	if off == 0 || d.list == nil {
		if errno := d.load(); errno != 0 {
			return errno
		}
	}
	d.next = min(int(off&(1<<32-1)), len(d.list))
	return 0
}

// Releasedir implements [fs.FileReleasedirer].
func (d *dirHandle) Releasedir(context.Context, uint32) { d.list, d.nodes = nil, nil }

// Fsyncdir implements [fs.FileFsyncdirer].
func (d *dirHandle) Fsyncdir(context.Context, uint32) syscall.Errno {
	if err := d.n.m.tree.Sync(); err != nil {
		return d.n.fail("fsync", err)
	}
	return 0
}
