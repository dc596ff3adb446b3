package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// memoryFlag is how this program runs itself as the file system in memory.
const memoryFlag = "-in-memory"

// memory is the process of the file system in memory.
type memory struct {
	dir  string
	cmd  *exec.Cmd
	hold io.Closer // it runs until this is closed
}

// startMemory makes dir and mounts the file system there.
func startMemory(ctx context.Context, dir string) (*memory, error) {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	m := &memory{dir: dir, cmd: exec.CommandContext(context.WithoutCancel(ctx), self, memoryFlag, dir)}
	m.cmd.Stderr = os.Stderr
	if m.hold, err = m.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := m.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := m.cmd.Start(); err != nil {
		return nil, err
	}
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		return nil, errors.Join(fmt.Errorf("file system in memory: %w", err), m.end())
	}
	return m, nil
}

func (m *memory) pid() int { return m.cmd.Process.Pid }

// end ends the mount and the process.
func (m *memory) end() error { return errors.Join(m.hold.Close(), m.cmd.Wait()) }

// serveMemory is the process: it mounts at dir, says so with a line, and ends
// when its standard input does.
func serveMemory(dir string) error {
	signal.Ignore(os.Interrupt, syscall.SIGTERM) // they are for the process that started it
	forever := time.Hour
	server, err := fs.Mount(dir, &memoryDir{}, &fs.Options{
		EntryTimeout: &forever, AttrTimeout: &forever, NegativeTimeout: &forever,
		UID: uint32(os.Getuid()), GID: uint32(os.Getgid()),
		MountOptions: fuse.MountOptions{
			// What roam asks for, too, and no extended attributes.
			MaxWrite: mib, MaxBackground: 64, DisableSplice: true, ExplicitDataCacheControl: true,
			ExtraCapabilities: fuse.CAP_HANDLE_KILLPRIV_V2 | fuse.CAP_ATOMIC_O_TRUNC,
			DisableXAttrs:     true,
			FsName:            "memory", Name: "roam-bench", DirectMount: true,
		},
	})
	if err != nil {
		return err
	}
	fmt.Println("ready")
	_, _ = io.Copy(io.Discard, os.Stdin) // until it is closed
	return server.Unmount()
}

// memoryDir is a directory. Names are kept by go-fuse.
type memoryDir struct{ fs.Inode }

var (
	_ fs.NodeCreater  = (*memoryDir)(nil)
	_ fs.NodeMkdirer  = (*memoryDir)(nil)
	_ fs.NodeUnlinker = (*memoryDir)(nil)
	_ fs.NodeRmdirer  = (*memoryDir)(nil)
)

func (d *memoryDir) Create(ctx context.Context, name string, _, mode uint32, out *fuse.EntryOut) (*fs.Inode, fs.FileHandle, uint32, syscall.Errno) {
	f := &memoryFile{mode: mode & 0o7777, at: uint64(time.Now().Unix())}
	n := d.NewPersistentInode(ctx, f, fs.StableAttr{Mode: syscall.S_IFREG})
	d.AddChild(name, n, true)
	f.attr(&out.Attr)
	return n, nil, fuse.FOPEN_KEEP_CACHE, 0
}

func (d *memoryDir) Mkdir(ctx context.Context, name string, _ uint32, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	n := d.NewPersistentInode(ctx, &memoryDir{}, fs.StableAttr{Mode: syscall.S_IFDIR})
	out.Mode = syscall.S_IFDIR | 0o755
	return n, 0
}

func (d *memoryDir) Rmdir(_ context.Context, name string) syscall.Errno {
	if n := d.GetChild(name); n != nil && len(n.Children()) > 0 {
		return syscall.ENOTEMPTY
	}
	return 0
}

// Unlink drops the content with the name: nobody here reads a removed file. The
// memory of a large one goes back to the system before Unlink returns, so that no
// measurement pays for the one before.
func (d *memoryDir) Unlink(_ context.Context, name string) syscall.Errno {
	n := d.GetChild(name)
	if n == nil {
		return syscall.ENOENT
	}
	if f, ok := n.Operations().(*memoryFile); ok && f.resize(0) > 64*mib {
		debug.FreeOSMemory()
	}
	return 0
}

// memoryFile is a file: pieces of 1 MiB, so that it grows without being copied.
type memoryFile struct {
	fs.Inode
	mode uint32
	at   uint64 // when it was made

	mu     sync.Mutex // guards the fields below
	pieces [][]byte   // each may be shorter than its part of the file, which is zero from there
	size   int64
}

var (
	_ fs.NodeGetattrer = (*memoryFile)(nil)
	_ fs.NodeSetattrer = (*memoryFile)(nil)
	_ fs.NodeOpener    = (*memoryFile)(nil)
	_ fs.NodeReader    = (*memoryFile)(nil)
	_ fs.NodeWriter    = (*memoryFile)(nil)
	_ fs.NodeFsyncer   = (*memoryFile)(nil)
)

func (f *memoryFile) attr(a *fuse.Attr) {
	f.mu.Lock()
	defer f.mu.Unlock()
	a.Mode, a.Nlink, a.Size, a.Mtime, a.Ctime = syscall.S_IFREG|f.mode, 1, uint64(f.size), f.at, f.at
}

// resize sets the size and returns the one before.
func (f *memoryFile) resize(size int64) (before int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	before, f.size = f.size, size
	whole, rest := int(size/mib), int(size%mib)
	if whole < len(f.pieces) {
		last := f.pieces[whole]
		f.pieces = append(f.pieces[:whole:whole], last[:min(rest, len(last))])
	}
	return before
}

// Getattr tells mode, size and times.
func (f *memoryFile) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	f.attr(&out.Attr)
	return 0
}

// Setattr sets the size and ignores everything else.
func (f *memoryFile) Setattr(_ context.Context, _ fs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	if size, ok := in.GetSize(); ok {
		f.resize(int64(size))
	}
	f.attr(&out.Attr)
	return 0
}

// Open keeps what the kernel has cached.
func (f *memoryFile) Open(_ context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	if flags&syscall.O_TRUNC != 0 {
		f.resize(0)
	}
	return nil, fuse.FOPEN_KEEP_CACHE, 0
}

// Read copies nothing where one piece has all.
func (f *memoryFile) Read(_ context.Context, _ fs.FileHandle, dest []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := int(max(0, min(int64(len(dest)), f.size-off)))
	i, at := int(off/mib), int(off%mib)
	if i < len(f.pieces) && at+n <= len(f.pieces[i]) {
		return fuse.ReadResultData(f.pieces[i][at : at+n]), 0
	}
	dest = dest[:n]
	clear(dest)
	for done := 0; done < n; i, at = i+1, 0 {
		if i < len(f.pieces) && at < len(f.pieces[i]) {
			copy(dest[done:], f.pieces[i][at:])
		}
		done += mib - at
	}
	return fuse.ReadResultData(dest), 0
}

func (f *memoryFile) Write(_ context.Context, _ fs.FileHandle, data []byte, off int64) (uint32, syscall.Errno) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.size = max(f.size, off+int64(len(data)))
	for rest := data; len(rest) > 0; {
		i, at := int(off/mib), int(off%mib)
		for len(f.pieces) <= i {
			f.pieces = append(f.pieces, nil)
		}
		p := &f.pieces[i]
		if at > len(*p) {
			*p = append(*p, make([]byte, at-len(*p))...)
		}
		n := min(len(rest), mib-at)
		over := copy((*p)[at:], rest[:n])
		*p = append(*p, rest[over:n]...)
		rest, off = rest[n:], off+int64(n)
	}
	return uint32(len(data)), 0
}

// Fsync has nothing to do.
func (f *memoryFile) Fsync(context.Context, fs.FileHandle, uint32) syscall.Errno { return 0 }
