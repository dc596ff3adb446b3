package mount

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/roamfs/roamfs/fs/file"
	"github.com/roamfs/roamfs/sync/history"
	"github.com/roamfs/roamfs/sync/tree"
)

// History is the kept past of the tree. Its methods are safe for concurrent use.
type History interface {
	// Snapshots returns all snapshots, sorted by time. It does not wait.
	Snapshots() ([]history.Snapshot, error)
	// Directory reads a directory of one. It may have to be fetched.
	Directory(ctx context.Context, o history.Object) ([]history.Entry, error)
}

// The nodes below .roam/snapshots show what never changes: each directory reads
// its object once, and files are read as all others are, through the same table. A file's
// identity there is its content, so that all snapshots share what is kept of it.

// snapshotDirs lists .roam/snapshots: a directory for each, by its title. Two
// of one title are told apart by a number.
func (m *Mount) snapshotDirs() ([]virtualEntry, error) {
	if m.history == nil {
		return nil, nil
	}
	all, err := m.history.Snapshots()
	if err != nil {
		return nil, err
	}
	taken := map[string]bool{}
	list := make([]virtualEntry, 0, len(all))
	for _, s := range all {
		title := s.Title()
		for i := 2; taken[title]; i++ {
			title = fmt.Sprintf("%s (%d)", s.Title(), i)
		}
		taken[title] = true
		e := history.Entry{Kind: tree.Dir, Mode: 0o755, MTime: s.Time.UnixNano(), Ref: s.Root.Ref, Size: s.Root.Size}
		list = append(list, virtualEntry{title, m.pastNode(e, s.Key)})
	}
	return list, nil
}

// pastNode returns a node for e; where tells it apart from those of other snapshots.
func (m *Mount) pastNode(e history.Entry, where string) virtualNode {
	p := past{m: m, e: e, where: where}
	switch e.Kind {
	case tree.Dir:
		d := &pastDir{past: p}
		d.virtualDir = virtualDir{m: m, list: d.entries}
		return d
	case tree.Symlink:
		return &pastLink{past: p}
	default:
		return &pastFile{past: p}
	}
}

// past is what all nodes of snapshots have.
type past struct {
	m     *Mount
	e     history.Entry
	where string
}

func (p *past) mode() uint32 { return typeBits(p.e.Kind) }

func (p *past) attr(out *fuse.Attr) {
	size := uint64(p.e.Size)
	if p.e.Kind == tree.Dir {
		size = dirSize
	}
	p.m.virtualAttr(out, p.mode()|p.e.Mode, size)
	if p.e.Kind == tree.Symlink {
		out.Mode = p.mode() | 0o777
	}
	at := time.Unix(0, p.e.MTime)
	out.SetTimes(&at, &at, &at)
}

// place is what a number is made of, for a node that is shown at at.
func (p *past) place(at string) string { return p.where + "\x00" + at }

func (p *past) getxattr(name string, dest []byte) (uint32, syscall.Errno) {
	value, ok := p.e.Xattrs[name]
	if !ok {
		return 0, syscall.ENODATA
	}
	return copyAttr(dest, value)
}

func (p *past) listxattr(dest []byte) (uint32, syscall.Errno) {
	var names []byte
	for _, name := range slices.Sorted(maps.Keys(p.e.Xattrs)) {
		if strings.HasPrefix(name, userPrefix) && !strings.HasPrefix(name, roamPrefix) {
			names = append(append(names, name...), 0)
		}
	}
	return copyAttr(dest, names)
}

// pastDir is a directory of a snapshot.
type pastDir struct {
	virtualDir
	past

	mu   sync.Mutex // held while the object is read
	kept []virtualEntry
	read bool
}

func (d *pastDir) mode() uint32 { return d.past.mode() }

func (d *pastDir) attr(out *fuse.Attr) { d.past.attr(out) }

func (d *pastDir) answer(parent *fs.Inode, at string, out *fuse.EntryOut) *fs.Inode {
	return answer(d, parent, d.place(at), out)
}

func (d *pastDir) entries(ctx context.Context) ([]virtualEntry, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.read {
		return d.kept, nil
	}
	list, err := d.past.m.history.Directory(ctx, d.e.Object())
	if err != nil {
		return nil, err
	}
	kept := make([]virtualEntry, 0, len(list))
	for _, e := range list {
		kept = append(kept, virtualEntry{e.Name, d.past.m.pastNode(e, d.where)})
	}
	d.kept, d.read = kept, true
	return kept, nil
}

// Lookup implements [fs.NodeLookuper].
func (d *pastDir) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	ctx, end := wait(ctx)
	defer end()
	list, err := d.entries(ctx)
	if err != nil {
		return nil, d.past.m.root.fail("lookup", err)
	}
	i, ok := slices.BinarySearchFunc(list, name, func(e virtualEntry, name string) int { return strings.Compare(e.name, name) })
	if !ok {
		return nil, syscall.ENOENT
	}
	return list[i].node.answer(d.EmbeddedInode(), path.Join(d.Path(nil), name), out), 0
}

// Getattr implements [fs.NodeGetattrer].
func (d *pastDir) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	d.attr(&out.Attr)
	return 0
}

// Setattr implements [fs.NodeSetattrer].
func (d *pastDir) Setattr(context.Context, fs.FileHandle, *fuse.SetAttrIn, *fuse.AttrOut) syscall.Errno {
	return syscall.EROFS
}

// Getxattr implements [fs.NodeGetxattrer].
func (d *pastDir) Getxattr(_ context.Context, name string, dest []byte) (uint32, syscall.Errno) {
	return d.getxattr(name, dest)
}

// Listxattr implements [fs.NodeListxattrer].
func (d *pastDir) Listxattr(_ context.Context, dest []byte) (uint32, syscall.Errno) {
	return d.listxattr(dest)
}

// pastFile is a file or a fifo of a snapshot.
type pastFile struct {
	fs.Inode
	past
}

func (f *pastFile) answer(parent *fs.Inode, at string, out *fuse.EntryOut) *fs.Inode {
	return answer(f, parent, f.place(at), out)
}

// Getattr implements [fs.NodeGetattrer].
func (f *pastFile) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	f.attr(&out.Attr)
	return 0
}

// Setattr implements [fs.NodeSetattrer].
func (f *pastFile) Setattr(context.Context, fs.FileHandle, *fuse.SetAttrIn, *fuse.AttrOut) syscall.Errno {
	return syscall.EROFS
}

// Getxattr implements [fs.NodeGetxattrer].
func (f *pastFile) Getxattr(_ context.Context, name string, dest []byte) (uint32, syscall.Errno) {
	return f.getxattr(name, dest)
}

// Listxattr implements [fs.NodeListxattrer].
func (f *pastFile) Listxattr(_ context.Context, dest []byte) (uint32, syscall.Errno) {
	return f.listxattr(dest)
}

// Open implements [fs.NodeOpener].
func (f *pastFile) Open(_ context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	if flags&unix.O_ACCMODE != unix.O_RDONLY || flags&unix.O_TRUNC != 0 {
		return nil, 0, syscall.EROFS
	}
	h, err := f.m.files.Open(tree.Node{Ino: contentIno(&f.e), Kind: f.e.Kind, Mode: f.e.Mode, Size: f.e.Size, MTime: f.e.MTime, Ref: f.e.Ref, Inline: f.e.Inline}, false, false)
	if err != nil {
		return nil, 0, f.m.root.fail("open", err)
	}
	return &pastHandle{f.m, h}, fuse.FOPEN_KEEP_CACHE | fuse.FOPEN_NOFLUSH, 0
}

// contentIno identifies a content. No inode of the tree begins so.
func contentIno(e *history.Entry) tree.Ino {
	b := append(binary.BigEndian.AppendUint64(nil, uint64(e.Size)), e.Ref.Depth)
	sum := sha256.Sum256(append(append(b, e.Ref.ID[:]...), e.Inline...))
	ino := tree.Ino{0xff, 'H'}
	copy(ino[2:], sum[:])
	return ino
}

// pastHandle is an open file of a snapshot.
type pastHandle struct {
	m *Mount
	f *file.Handle
}

// Read implements [fs.FileReader].
func (h *pastHandle) Read(ctx context.Context, dest []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	ctx, end := wait(ctx)
	defer end()
	n, err := h.f.ReadAt(ctx, dest, off)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, h.m.root.fail("read", err)
	}
	return fuse.ReadResultData(dest[:n]), 0
}

// Release implements [fs.FileReleaser].
func (h *pastHandle) Release(context.Context) syscall.Errno {
	h.f.Release()
	return 0
}

// pastLink is a symbolic link of a snapshot.
type pastLink struct {
	fs.Inode
	past
}

func (l *pastLink) answer(parent *fs.Inode, at string, out *fuse.EntryOut) *fs.Inode {
	return answer(l, parent, l.place(at), out)
}

// Getattr implements [fs.NodeGetattrer].
func (l *pastLink) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	l.attr(&out.Attr)
	return 0
}

// Readlink implements [fs.NodeReadlinker].
func (l *pastLink) Readlink(context.Context) ([]byte, syscall.Errno) {
	return slices.Clone(l.e.Inline), 0
}
