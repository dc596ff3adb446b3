package mount

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/posixtest"
	"golang.org/x/sys/unix"

	"github.com/roamfs/roamfs/fs/file"
	"github.com/roamfs/roamfs/sync/block"
	"github.com/roamfs/roamfs/sync/chunk"
	"github.com/roamfs/roamfs/sync/tree"
)

func TestMain(m *testing.M) {
	if run := os.Getenv("MOUNT_TEST_CHILD"); run != "" {
		children[run]()
		return
	}
	syscall.Umask(0)
	os.Exit(m.Run()) //nolint:forbidigo // as TestMain must
}

// children are programs that a test runs in a process of their own, by name:
// what would deadlock or kill the process that serves the mount.
var children = map[string]func(){}

// child runs this test binary as one of children.
func child(t *testing.T, name string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), "MOUNT_TEST_CHILD="+name)
	return cmd
}

// rig is a mounted device.
type rig struct {
	*device
	dir   string
	store *store
	files *file.Table
	mount *Mount
	keys  *block.Keys
	log   *lockedBuffer
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// newRig mounts an empty tree. It is unmounted, whatever happens, when the test ends.
func newRig(tb testing.TB, change ...func(*Options)) *rig {
	tb.Helper()
	needsFuse(tb)
	r := &rig{device: newDevice(tb, "here", tree.NewMem()), dir: filepath.Join(tb.TempDir(), "mnt"), store: newStore(), log: &lockedBuffer{}}
	r.keys = testKeys(tb)
	var sink io.Writer = r.log
	if os.Getenv("MOUNT_TEST_DEBUG") != "" {
		sink = io.MultiWriter(r.log, os.Stderr)
	}
	log := slog.New(slog.NewTextHandler(sink, nil))
	var err error
	r.files, err = file.New(file.Options{Dir: filepath.Join(tb.TempDir(), "drafts"), Tree: r.device, Blocks: r.store, Keys: r.keys, Log: log})
	if err != nil {
		tb.Fatal(err)
	}
	if err := r.files.Recover(tb.Context()); err != nil {
		tb.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := r.files.Run(ctx); err != nil && !errors.Is(err, context.Canceled) {
			tb.Errorf("file table: %v", err)
		}
	})
	tb.Cleanup(func() { stop(); wg.Wait() })
	if err := os.Mkdir(r.dir, 0o755); err != nil {
		tb.Fatal(err)
	}
	o := Options{
		Dir: r.dir, Tree: r.device, Files: r.files, Status: &status{pinned: map[tree.Ino]bool{}},
		Self: r.device.actor, Log: log, Debug: os.Getenv("MOUNT_TEST_DEBUG") != "",
	}
	for _, fn := range change {
		fn(&o)
	}
	undertaker(tb, r.dir)
	if r.mount, err = New(o); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := r.mount.Detach(); err != nil {
			tb.Errorf("unmount: %v", err)
		}
		if tb.Failed() || o.Debug {
			tb.Logf("log of the mount:\n%s", r.log)
		}
	})
	return r
}

func needsFuse(tb testing.TB) {
	tb.Helper()
	f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		missing(tb, fmt.Errorf("no FUSE here: %w", err))
	}
	_ = f.Close()
}

// undertaker removes the mount from dir even if this process is killed.
func undertaker(tb testing.TB, dir string) {
	tb.Helper()
	cmd := exec.CommandContext(context.Background(), "sh", "-c", `read _; umount -l "$0" 2>/dev/null; true`, dir)
	alive, err := cmd.StdinPipe()
	if err != nil {
		tb.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		_ = alive.Close()
		_ = cmd.Wait()
	})
}

func testKeys(tb testing.TB) *block.Keys {
	tb.Helper()
	keys, err := block.NewKeys(1, map[uint32]block.Secret{1: {1, 2, 3}})
	if err != nil {
		tb.Fatal(err)
	}
	return keys
}

func (r *rig) path(elem ...string) string { return filepath.Join(append([]string{r.dir}, elem...)...) }

// settled commits all drafts and waits until the kernel has been told everything.
func (r *rig) settled(t *testing.T) {
	t.Helper()
	if err := r.files.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.mount.notes.idle()
}

// pullFrom lets the device know what another did, and waits for the kernel to.
func (r *rig) pullFrom(t *testing.T, other *device) {
	t.Helper()
	r.pull(t, other)
	r.mount.notes.idle()
}

// content makes the content of a file of one block, stored in r.
func (r *rig) content(t *testing.T, data string) tree.Content {
	t.Helper()
	c := tree.Content{Kind: tree.File, Size: int64(len(data)), Mode: 0o644, MTime: time.Now().UnixNano()}
	if len(data) <= tree.MaxInline {
		c.Inline = []byte(data)
		return c
	}
	id, sealed, err := r.keys.Seal(block.Data, []byte(data))
	if err != nil {
		t.Fatal(err)
	}
	if err := r.store.Put(t.Context(), id, sealed); err != nil {
		t.Fatal(err)
	}
	c.Ref = tree.Ref{ID: id, Cutter: uint8(chunk.Whole)}
	return c
}

// replace is another device's new version of the file at a name in the root.
func (r *rig) replace(t *testing.T, other *device, name, data string) {
	t.Helper()
	n, err := other.Lookup(tree.Root, name)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.Write(n.Ino, n.Base, r.content(t, data), false); err != nil {
		t.Fatal(err)
	}
}

func write(tb testing.TB, path, data string) {
	tb.Helper()
	if err := os.WriteFile(path, []byte(data), 0o644); err != nil {
		tb.Fatal(err)
	}
}

func wantFile(tb testing.TB, path, want string) {
	tb.Helper()
	got, err := os.ReadFile(path)
	if err != nil {
		tb.Fatal(err)
	}
	if string(got) != want {
		tb.Fatalf("%s holds %s, want %s", path, brief(got), brief([]byte(want)))
	}
}

func brief(b []byte) string {
	if len(b) > 60 {
		return strings.ToValidUTF8(string(b[:60]), "?") + "…"
	}
	return string(b)
}

func wantErrno(tb testing.TB, what string, err error, want syscall.Errno) {
	tb.Helper()
	if !errors.Is(err, want) {
		tb.Errorf("%s: error %v, want %v", what, err, want)
	}
}

func stat(tb testing.TB, path string) unix.Stat_t {
	tb.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		tb.Fatalf("lstat %s: %v", path, err)
	}
	return st
}

func names(tb testing.TB, dir string) []string {
	tb.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		tb.Fatal(err)
	}
	var list []string
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return list
}

// TestPosix runs go-fuse's suite, each test in a directory of one mount.
func TestPosix(t *testing.T) {
	r := newRig(t)
	for name, fn := range posixtest.All {
		t.Run(name, func(t *testing.T) {
			if name == "FcntlFlockLocksFile" {
				t.Skip("wants POSIX locks of one process to conflict with each other; fails on every Linux file system")
			}
			dir := r.path(name)
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			fn(t, dir)
		})
	}
}

// missing skips a test for want of something on this machine. CI sets
// ROAM_REQUIRE_MOUNT, which turns that into a failure.
func missing(tb testing.TB, err error) {
	tb.Helper()
	if os.Getenv("ROAM_REQUIRE_MOUNT") != "" {
		tb.Fatal(err)
	}
	tb.Skip(err)
}

// TestUnmountEndsSubscription: a device may mount and unmount many times.
func TestUnmountEndsSubscription(t *testing.T) {
	r := newRig(t)
	subscribers := func() int {
		r.subMu.Lock()
		defer r.subMu.Unlock()
		return len(r.subs)
	}
	if n := subscribers(); n != 1 {
		t.Fatalf("%d subscribers while it is mounted", n)
	}
	if err := r.mount.Unmount(); err != nil {
		t.Fatal(err)
	}
	if n := subscribers(); n != 0 {
		t.Errorf("%d subscribers are left", n)
	}
}
