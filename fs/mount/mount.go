package mount

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"weak"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/roamfs/roamfs/fs/file"
	"github.com/roamfs/roamfs/sync/block"
	"github.com/roamfs/roamfs/sync/tree"
)

// Type is the kind of file system that the kernel lists the mount under.
const Type = "fuse.roamfs"

const (
	// forever is how long the kernel may believe what it was told.
	forever = 365 * 24 * time.Hour

	maxWrite   = 1 << 20 // bytes of one read or write request
	background = 64      // readahead requests that may be under way at once

	// How long a mount that is still in use is given to end once it is detached.
	patience = 3 * time.Second
)

var (
	// ErrNoFuse means that the kernel offers no FUSE to this process.
	ErrNoFuse = errors.New("no FUSE here: load the kernel module fuse, or let the container use /dev/fuse")

	// ErrNoHelper means that an ordinary user cannot mount because the helper
	// program is missing.
	ErrNoHelper = errors.New("fusermount3 not found: install the package fuse3")

	// ErrMounted means that a live file system of this kind is mounted there.
	ErrMounted = errors.New("already mounted")

	// ErrBusy means that programs use the mount.
	ErrBusy = errors.New("the mount is in use")
)

// Options say what is mounted and where. Dir, Tree, Files and Status are
// required.
type Options struct {
	Dir    string // an existing directory; what is in it is hidden
	Tree   Tree
	Files  *file.Table
	Status Status

	// History is what .roam/snapshots shows; nil shows none.
	History History

	// Self is the actor of this device: content that it wrote is not news to it.
	Self tree.Actor

	ReadOnly   bool
	AllowOther bool   // let other users in; the mode bits decide then
	Name       string // shown as the device of the mount; default "roam"
	Log        *slog.Logger
	Debug      bool // log every request
}

// Mount is a mounted tree. It is safe for concurrent use.
type Mount struct {
	// Constant after New.
	dir      string
	tree     Tree
	files    *file.Table
	status   Status
	history  History
	self     tree.Actor
	log      *slog.Logger
	uid, gid uint32
	server   *fuse.Server
	root     *node
	virtual  *virtual

	unsubscribe func()

	notes    queue
	times    dirTimes
	changes  atomic.Uint64 // calls of the subscription
	listings atomic.Uint64 // of directories, so far
	ended    chan struct{} // closed when the mount is gone
	detached sync.Once

	mu         sync.Mutex
	nodes      map[tree.Ino]weak.Pointer[node]
	most       int // nodes that there were since the map was made
	generation uint64
	reported   map[tree.Ino]time.Time // last log line about an inode
}

// New mounts the tree and returns when the mount answers. A dead mount that a
// killed process left in the same place is removed first. The caller ends it
// with [Mount.Unmount].
func New(o Options) (*Mount, error) {
	if o.Tree == nil || o.Files == nil || o.Status == nil {
		return nil, errors.New("mount: Tree, Files and Status are required")
	}
	dir, err := place(o.Dir)
	if err != nil {
		return nil, fmt.Errorf("mount on %s: %w", o.Dir, err)
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	m := &Mount{
		dir: dir, tree: o.Tree, files: o.Files, status: o.Status, history: o.History, self: o.Self, log: o.Log,
		uid: uint32(os.Geteuid()), gid: uint32(os.Getegid()),
		ended: make(chan struct{}),
		nodes: map[tree.Ino]weak.Pointer[node]{}, reported: map[tree.Ino]time.Time{},
	}
	m.root = &node{m: m, ino: tree.Root, kind: tree.Dir}
	m.virtual = newVirtual(m)
	if m.server, err = fs.Mount(dir, m.root, m.options(o)); err != nil {
		return nil, fmt.Errorf("mount on %s: %w", dir, explain(err, o))
	}
	m.notes.start(m)
	m.unsubscribe = o.Tree.Subscribe(m.notes.affected)
	go func() {
		m.server.Wait()
		m.end()
	}()
	return m, nil
}

// place checks the mount point and returns it absolute and without symbolic
// links.
func place(dir string) (string, error) {
	if err := CleanStale(dir); err != nil {
		return "", err
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		return "", err
	}
	st, err := os.Stat(dir)
	if err != nil {
		return "", err
	}
	if !st.IsDir() {
		return "", tree.ErrNotDir
	}
	if t, err := mountType(dir); err != nil || t == Type {
		return "", errors.Join(err, ErrMounted)
	}
	if _, err := os.Stat("/dev/fuse"); err != nil {
		return "", ErrNoFuse
	}
	return dir, nil
}

func (m *Mount) options(o Options) *fs.Options {
	timeout := forever
	name := o.Name
	if name == "" {
		name = "roam"
	}
	mo := fuse.MountOptions{
		AllowOther:               o.AllowOther,
		Options:                  []string{"default_permissions"},
		MaxBackground:            background,
		MaxWrite:                 maxWrite,
		FsName:                   name,
		Name:                     "roamfs",
		DisableSplice:            true, // replies are in memory
		EnableSymlinkCaching:     true,
		ExplicitDataCacheControl: true, // our own writes move the time; that must not drop pages
		ExtraCapabilities: fuse.CAP_HANDLE_KILLPRIV_V2 | fuse.CAP_ATOMIC_O_TRUNC |
			fuse.CAP_READDIRPLUS_AUTO | fuse.CAP_DIRECT_IO_ALLOW_MMAP,
		DisabledCapabilities: fuse.CAP_PASSTHROUGH,
		Logger:               slog.NewLogLogger(o.Log.Handler(), slog.LevelWarn),
		Debug:                o.Debug,
	}
	flags := uintptr(unix.MS_NOSUID | unix.MS_NODEV)
	if o.ReadOnly {
		flags |= unix.MS_RDONLY
		if os.Geteuid() != 0 {
			mo.Options = append(mo.Options, "ro")
		}
	}
	mo.DirectMountStrict = os.Geteuid() == 0
	mo.DirectMountFlags = flags
	return &fs.Options{
		MountOptions:    mo,
		EntryTimeout:    &timeout,
		AttrTimeout:     &timeout,
		NegativeTimeout: &timeout,
		NullPermissions: true, // mode 0 means 0
		RootStableAttr:  &fs.StableAttr{Ino: number(tree.Root), Gen: 1},
		Logger:          slog.NewLogLogger(o.Log.Handler(), slog.LevelDebug),
	}
}

// explain says what to do about a mount that failed.
func explain(err error, o Options) error {
	switch {
	case errors.Is(err, exec.ErrNotFound):
		return fmt.Errorf("%w: %w", ErrNoHelper, err)
	case errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		return fmt.Errorf("%w: %w", ErrNoFuse, err)
	case o.AllowOther && os.Geteuid() != 0:
		return fmt.Errorf("%w (to let other users in, /etc/fuse.conf must say user_allow_other)", err)
	}
	return err
}

// end is called once the server has stopped or is given up.
func (m *Mount) end() {
	m.detached.Do(func() {
		m.unsubscribe()
		m.notes.close()
		close(m.ended)
	})
}

// Wait returns when the mount is gone: unmounted from here or with umount(8).
func (m *Mount) Wait() { <-m.ended }

// Unmount ends the mount. If programs have files open in it or stand in it, it
// stays and Unmount reports [ErrBusy]; see [Mount.Detach].
func (m *Mount) Unmount() error {
	select {
	case <-m.ended:
		return nil
	default:
	}
	err := m.server.Unmount()
	if err == nil {
		m.Wait()
		return nil
	}
	if t, typeErr := mountType(m.dir); typeErr == nil && t != Type {
		m.Wait() // somebody else was faster
		return nil
	}
	return fmt.Errorf("unmount %s: %w: %w", m.dir, ErrBusy, err)
}

// Detach ends the mount even while programs use it: it vanishes from the tree of
// directories at once, those programs are served for a few seconds more and get
// ENOTCONN once this process ends. Nothing that was flushed is lost. The caller
// commits drafts ([file.Table.Flush]) afterwards.
func (m *Mount) Detach() error {
	err := m.Unmount()
	if !errors.Is(err, ErrBusy) {
		return err
	}
	m.log.Warn("mount is in use: detached", "dir", m.dir, "err", err)
	if err := detach(m.dir); err != nil {
		return fmt.Errorf("unmount %s: %w", m.dir, err)
	}
	select {
	case <-m.ended:
	case <-time.After(patience):
		go m.end()
		select {
		case <-m.ended:
		case <-time.After(patience):
			return fmt.Errorf("unmount %s: programs still use it: %w", m.dir, syscall.EBUSY)
		}
	}
	return nil
}

// report logs an error that programs see as EIO, at most once in ten seconds
// for an inode: a program that reads on tries every page.
func (m *Mount) report(op string, n *node, err error) {
	now := time.Now()
	m.mu.Lock()
	last, ok := m.reported[n.ino]
	if ok && now.Sub(last) < 10*time.Second {
		m.mu.Unlock()
		return
	}
	if len(m.reported) > 1024 {
		clear(m.reported)
	}
	m.reported[n.ino] = now
	m.mu.Unlock()

	path, pathErr := m.tree.Path(n.ino)
	if pathErr != nil {
		path = n.ino.String()
	}
	if gone, ok := errors.AsType[*block.UnavailableError](err); ok {
		m.log.Warn("unavailable", "op", op, "path", path, "held by", gone.Holders, "err", err)
		return
	}
	m.log.Error("input/output error", "op", op, "path", path, "err", err)
}
