package mount

import (
	"context"
	"fmt"
	"path"
	"slices"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// virtualName is the directory in the root that can be entered but is not
// listed, so that find and backup programs do not walk into it.
const virtualName = ".roam"

// virtual is the directory .roam and what is in it:
//
//	status.json  what roam status --json says, at the time of the open
//	conflicts/   a symbolic link to each conflict copy
//	snapshots/   earlier states of the tree, each as a directory named by its time
//
// All of it is read-only and belongs to the user of the mount.
type virtual struct {
	m    *Mount
	top  *virtualDir
	dirs map[string]*virtualDir
	file *virtualFile
}

func newVirtual(m *Mount) *virtual {
	v := &virtual{m: m, dirs: map[string]*virtualDir{}, file: &virtualFile{m: m}}
	v.top = &virtualDir{m: m, list: func(context.Context) ([]virtualEntry, error) {
		return []virtualEntry{
			{"conflicts", v.dirs["conflicts"]}, {"snapshots", v.dirs["snapshots"]}, {"status.json", v.file},
		}, nil
	}}
	v.dirs["conflicts"] = &virtualDir{m: m, list: func(context.Context) ([]virtualEntry, error) { return m.conflictLinks() }}
	v.dirs["snapshots"] = &virtualDir{m: m, list: func(context.Context) ([]virtualEntry, error) { return m.snapshotDirs() }}
	return v
}

// enter answers a lookup of .roam in the root.
func (v *virtual) enter(out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	return v.top.answer(v.m.root.EmbeddedInode(), virtualName, out), 0
}

// virtualNode is any node under .roam.
type virtualNode interface {
	fs.InodeEmbedder
	attr(*fuse.Attr)
	mode() uint32
	answer(parent *fs.Inode, path string, out *fuse.EntryOut) *fs.Inode
}

type virtualEntry struct {
	name string
	node virtualNode
}

// known returns the node's inode, made with a number from its path if it is new.
func answer(n virtualNode, parent *fs.Inode, path string, out *fuse.EntryOut) *fs.Inode {
	h := uint64(14695981039346656037)
	for _, b := range []byte(path) {
		h = (h ^ uint64(b)) * 1099511628211
	}
	h |= virtualBit
	if h == ^uint64(0) { // go-fuse's own
		h--
	}
	ch := parent.NewInode(context.Background(), n, fs.StableAttr{Mode: n.mode(), Ino: h, Gen: 1})
	n.attr(&out.Attr)
	out.SetAttrTimeout(time.Millisecond)
	out.SetEntryTimeout(time.Second)
	return ch
}

// virtualDir is a directory under .roam.
type virtualDir struct {
	fs.Inode
	m    *Mount
	list func(context.Context) ([]virtualEntry, error)
}

func (d *virtualDir) mode() uint32 { return unix.S_IFDIR }

func (d *virtualDir) attr(out *fuse.Attr) {
	d.m.virtualAttr(out, unix.S_IFDIR|0o555, dirSize)
	out.Nlink = 2
}

func (d *virtualDir) answer(parent *fs.Inode, path string, out *fuse.EntryOut) *fs.Inode {
	return answer(d, parent, path, out)
}

// Getattr implements [fs.NodeGetattrer].
func (d *virtualDir) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	d.attr(&out.Attr)
	out.SetTimeout(time.Millisecond)
	return 0
}

// Lookup implements [fs.NodeLookuper].
func (d *virtualDir) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	entries, err := d.list(ctx)
	if err != nil {
		return nil, d.m.root.fail("lookup", err)
	}
	i := slices.IndexFunc(entries, func(e virtualEntry) bool { return e.name == name })
	if i < 0 {
		out.SetEntryTimeout(time.Millisecond)
		return nil, syscall.ENOENT
	}
	return entries[i].node.answer(d.EmbeddedInode(), path.Join(d.Path(nil), name), out), 0
}

// Readdir implements [fs.NodeReaddirer].
func (d *virtualDir) Readdir(ctx context.Context) (fs.DirStream, syscall.Errno) {
	ctx, end := wait(ctx)
	defer end()
	entries, err := d.list(ctx)
	if err != nil {
		return nil, d.m.root.fail("readdir", err)
	}
	list := []fuse.DirEntry{{Name: ".", Mode: unix.S_IFDIR}, {Name: "..", Mode: unix.S_IFDIR}}
	for _, e := range entries {
		list = append(list, fuse.DirEntry{Name: e.name, Mode: e.node.mode()})
	}
	return fs.NewListDirStream(list), 0
}

// Statfs implements [fs.NodeStatfser].
func (d *virtualDir) Statfs(_ context.Context, out *fuse.StatfsOut) syscall.Errno {
	d.m.statfs(out)
	return 0
}

// What would change something is refused; go-fuse's own answer to some of it is
// success.

// Unlink implements [fs.NodeUnlinker].
func (d *virtualDir) Unlink(context.Context, string) syscall.Errno { return syscall.EROFS }

// Rmdir implements [fs.NodeRmdirer].
func (d *virtualDir) Rmdir(context.Context, string) syscall.Errno { return syscall.EROFS }

// Rename implements [fs.NodeRenamer].
func (d *virtualDir) Rename(context.Context, string, fs.InodeEmbedder, string, uint32) syscall.Errno {
	return syscall.EROFS
}

// Mkdir implements [fs.NodeMkdirer].
func (d *virtualDir) Mkdir(context.Context, string, uint32, *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	return nil, syscall.EROFS
}

// Create implements [fs.NodeCreater].
func (d *virtualDir) Create(context.Context, string, uint32, uint32, *fuse.EntryOut) (*fs.Inode, fs.FileHandle, uint32, syscall.Errno) {
	return nil, nil, 0, syscall.EROFS
}

// Symlink implements [fs.NodeSymlinker].
func (d *virtualDir) Symlink(context.Context, string, string, *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	return nil, syscall.EROFS
}

// Link implements [fs.NodeLinker].
func (d *virtualDir) Link(context.Context, fs.InodeEmbedder, string, *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	return nil, syscall.EROFS
}

// Mknod implements [fs.NodeMknoder].
func (d *virtualDir) Mknod(context.Context, string, uint32, uint32, *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	return nil, syscall.EROFS
}

// virtualFile is status.json. Its content is made for each open.
type virtualFile struct {
	fs.Inode
	m *Mount
}

func (f *virtualFile) mode() uint32 { return unix.S_IFREG }

func (f *virtualFile) attr(out *fuse.Attr) {
	f.m.virtualAttr(out, unix.S_IFREG|0o444, uint64(len(f.m.status.StatusJSON())))
}

func (f *virtualFile) answer(parent *fs.Inode, path string, out *fuse.EntryOut) *fs.Inode {
	return answer(f, parent, path, out)
}

// Getattr implements [fs.NodeGetattrer].
func (f *virtualFile) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	f.attr(&out.Attr)
	out.SetTimeout(time.Millisecond)
	return 0
}

// Open implements [fs.NodeOpener].
func (f *virtualFile) Open(_ context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	if flags&unix.O_ACCMODE != unix.O_RDONLY {
		return nil, 0, syscall.EROFS
	}
	return virtualContent(f.m.status.StatusJSON()), fuse.FOPEN_DIRECT_IO, 0
}

// virtualContent is an open virtual file.
type virtualContent []byte

// Read implements [fs.FileReader].
func (c virtualContent) Read(_ context.Context, _ []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	return fuse.ReadResultData(c[min(max(off, 0), int64(len(c))):]), 0
}

// virtualLink is a symbolic link under .roam/conflicts.
type virtualLink struct {
	fs.Inode
	m      *Mount
	target string
}

func (l *virtualLink) mode() uint32 { return unix.S_IFLNK }

func (l *virtualLink) attr(out *fuse.Attr) {
	l.m.virtualAttr(out, unix.S_IFLNK|0o777, uint64(len(l.target)))
}

func (l *virtualLink) answer(parent *fs.Inode, path string, out *fuse.EntryOut) *fs.Inode {
	return answer(l, parent, path+"\x00"+l.target, out)
}

// Getattr implements [fs.NodeGetattrer].
func (l *virtualLink) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	l.attr(&out.Attr)
	return 0
}

// Readlink implements [fs.NodeReadlinker].
func (l *virtualLink) Readlink(context.Context) ([]byte, syscall.Errno) { return []byte(l.target), 0 }

// conflictLinks lists .roam/conflicts: for each copy a link with the name of
// the copy, numbered where two copies in different directories share one.
func (m *Mount) conflictLinks() ([]virtualEntry, error) {
	copies, err := m.tree.Conflicts()
	if err != nil {
		return nil, err
	}
	taken := map[string]bool{}
	var list []virtualEntry
	for _, c := range copies {
		name := c.Name
		for i := 2; taken[name]; i++ {
			name = fmt.Sprintf("%d %s", i, c.Name)
		}
		taken[name] = true
		list = append(list, virtualEntry{name, &virtualLink{m: m, target: path.Join("../..", c.Path)}})
	}
	return list, nil
}

func (m *Mount) virtualAttr(out *fuse.Attr, mode uint32, size uint64) {
	now := time.Now()
	out.Mode, out.Size, out.Nlink = mode, size, 1
	out.Blocks, out.Blksize = (size+511)/512, ioSize
	out.Uid, out.Gid = m.uid, m.gid
	out.SetTimes(&now, &now, &now)
}
