package app

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// notice is a writer that tells when a text has been written.
type notice struct {
	mu   sync.Mutex
	buf  bytes.Buffer
	want string
	seen chan struct{}
}

func (n *notice) Write(p []byte) (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	before := strings.Contains(n.buf.String(), n.want)
	n.buf.Write(p)
	if !before && strings.Contains(n.buf.String(), n.want) {
		close(n.seen)
	}
	return len(p), nil
}

func (n *notice) String() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.buf.String()
}

// running is a daemon in this process.
type running struct {
	dir    string // state directory
	device *fakeDevice
	talk   *notice
	cancel context.CancelFunc
	done   chan error
}

// start makes a state directory and runs a daemon on it with args.
func start(t *testing.T, args ...string) *running {
	t.Helper()
	r := &running{dir: filepath.Join(t.TempDir(), "state"), done: make(chan error, 1)}
	r.talk = &notice{want: " ends it.", seen: make(chan struct{})}
	e := fakeEngine{opened: make(chan *fakeDevice, 1)}
	s := streams{strings.NewReader(""), io.Discard, r.talk}
	if err := run(t.Context(), []string{"init", "--state", r.dir}, s, e); err != nil {
		t.Fatal(err)
	}
	var ctx context.Context
	ctx, r.cancel = context.WithCancel(t.Context())
	go func() { r.done <- run(ctx, append(args, "--state", r.dir), s, e) }()
	r.device = <-e.opened
	select {
	case <-r.talk.seen:
	case err := <-r.done:
		t.Fatalf("the daemon ended: %v\n%s", err, r.talk)
	}
	return r
}

// wait waits for the daemon and checks what must hold after every end.
func (r *running) wait(t *testing.T) {
	t.Helper()
	if err := <-r.done; err != nil {
		t.Errorf("the daemon ended with %v", err)
	}
	if !r.device.closed || r.device.running || r.device.flushes == 0 {
		t.Errorf("device left behind: closed %v, running %v, %d flushes", r.device.closed, r.device.running, r.device.flushes)
	}
	if pid := lockHolder(r.dir); pid != 0 {
		t.Errorf("the lock is still held by %d", pid)
	}
	if _, err := os.Lstat(filepath.Join(r.dir, socketName)); err == nil {
		t.Error("the socket is still there")
	}
}

// ask runs a command against the daemon.
func (r *running) ask(t *testing.T, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	var out, err bytes.Buffer
	e := run(t.Context(), append(args, "--state", r.dir), streams{strings.NewReader(""), &out, &err}, fakeEngine{})
	return out.String(), err.String(), ExitCode(e)
}

func TestDaemonEndsBySignal(t *testing.T) {
	m := filepath.Join(t.TempDir(), "m")
	r := start(t, "mount", m)
	r.device.mu.Lock()
	r.device.only = OnlyHere{Amount: Amount{Files: 12, Bytes: 2048}, Paths: []string{"/a", "/b\n"}}
	r.device.busy = true // what uses the mount must not keep the process
	r.device.mu.Unlock()
	r.cancel()
	r.wait(t)
	for _, want := range []string{"12 files (2 KiB) exist only here:\n  /a\n  \"/b\\n\"\n  and 10 more\n", "mount was in use"} {
		if !strings.Contains(r.talk.String(), want) {
			t.Errorf("the daemon said\n%s\nwithout %q", r.talk, want)
		}
	}
}

func TestDaemonEndsWithItsMount(t *testing.T) {
	m := resolve(t.TempDir())
	r := start(t, "mount", m)
	r.device.vanish(m) // fusermount3 -u
	r.wait(t)
}

func TestServeOutlivesItsMounts(t *testing.T) {
	m := resolve(t.TempDir())
	r := start(t, "serve")
	if _, stderr, code := r.ask(t, "mount", m); code != 0 || !strings.Contains(stderr, m) {
		t.Errorf("mount: %d, %s", code, stderr)
	}
	if _, stderr, code := r.ask(t, "mount", r.dir); code != 1 || !strings.Contains(stderr, "in use by process") {
		t.Errorf("second mount: %d, %s", code, stderr)
	}
	r.device.vanish(m)
	for range 1000 {
		if out, _, _ := r.ask(t, "status", "--json"); strings.Contains(out, `"mounts":[]`) {
			break
		}
	}
	if _, stderr, code := r.ask(t, "mount", r.dir); code != 1 || !strings.Contains(stderr, "inside the state directory") {
		t.Errorf("mount on the state directory: %d, %s", code, stderr)
	}
	if _, _, code := r.ask(t, "stop"); code != 0 {
		t.Error("stop failed")
	}
	r.wait(t)
}

func TestUnmountOfABusyMount(t *testing.T) {
	m := resolve(t.TempDir())
	r := start(t, "mount", m)
	r.device.mu.Lock()
	r.device.busy = true
	r.device.only = OnlyHere{Amount: Amount{Files: 1, Bytes: 1}, Paths: []string{"/a\xff"}}
	r.device.mu.Unlock()
	if _, stderr, code := r.ask(t, "unmount", m); code != 1 || !strings.Contains(stderr, "the mount is in use\nhint: close") {
		t.Errorf("unmount: %d, %s", code, stderr)
	}
	out, _, code := r.ask(t, "stop", "--json")
	if want := `"only_here":{"files":1,"bytes":1},"only_here_paths":[{"path":"/a` + "\\ufffd" + `","path_base64":"L2H/"}],"stopping":true,"detached":["` + m + `"]`; code != 0 || !strings.Contains(out, want) {
		t.Errorf("stop: %d, %s\nwant %s", code, out, want)
	}
	r.wait(t)
}

// TestStopEndsWhatWaits checks that neither a watched status nor an open invite
// keeps a daemon from ending.
func TestStopEndsWhatWaits(t *testing.T) {
	r := start(t, "serve")
	var ended sync.WaitGroup
	begun := make(chan struct{}, 2)
	for _, args := range [][]string{{"status", "--watch"}, {"invite", "--ttl", "1h"}} {
		ended.Go(func() {
			out := writerFunc(func(p []byte) { begun <- struct{}{} })
			err := run(t.Context(), append(args, "--state", r.dir), streams{strings.NewReader(""), out, io.Discard}, fakeEngine{})
			if err == nil {
				t.Errorf("%v ended without an error", args)
			}
		})
		<-begun
	}
	if _, stderr, code := r.ask(t, "stop"); code != 0 {
		t.Errorf("stop: %d, %s", code, stderr)
	}
	r.wait(t)
	ended.Wait()
}

// TestInviteTakesNoMounts checks that a device which runs only for as long as an
// invite is open does not take a mount that would end with it.
func TestInviteTakesNoMounts(t *testing.T) {
	r := start(t, "serve")
	r.cancel()
	r.wait(t)
	ctx, stop := context.WithCancel(t.Context())
	begun, done := make(chan struct{}, 1), make(chan error, 1)
	go func() {
		out := writerFunc(func([]byte) { begun <- struct{}{} })
		done <- run(ctx, []string{"invite", "--state", r.dir}, streams{strings.NewReader(""), out, io.Discard}, fakeEngine{})
	}()
	<-begun
	if _, stderr, code := r.ask(t, "mount", t.TempDir()); code != 1 || !strings.Contains(stderr, "which waits for a new device") {
		t.Errorf("mount: %d, %s", code, stderr)
	}
	stop()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("invite ended with %v", err)
	}
}

func TestNotify(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "notify")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer discard(l)
	t.Setenv("NOTIFY_SOCKET", socket)
	m := resolve(t.TempDir())
	r := start(t, "mount", m)
	r.cancel()
	r.wait(t)
	buf := make([]byte, 1000)
	for _, want := range []string{"READY=1\nSTATUS=files at " + m, "STOPPING=1"} {
		if n, err := l.Read(buf); err != nil || string(buf[:n]) != want {
			t.Errorf("told %q, %v, want %q", buf[:n], err, want)
		}
	}
}

type writerFunc func([]byte)

func (f writerFunc) Write(p []byte) (int, error) {
	f(p)
	return len(p), nil
}

func TestLock(t *testing.T) {
	dir := t.TempDir()
	if lockHolder(dir) != 0 {
		t.Error("a directory without a lock has a holder")
	}
	f, err := takeLock(dir)
	if err != nil {
		t.Fatal(err)
	}
	if pid := lockHolder(dir); pid != os.Getpid() {
		t.Errorf("held by %d", pid)
	}
	_, err = takeLock(dir)
	if held, ok := errors.AsType[*heldError](err); !ok || held.pid != os.Getpid() || ExitCode(err) != CodeFailed {
		t.Errorf("second lock: %v", err)
	}
	if err := releaseLock(f); err != nil {
		t.Fatal(err)
	}
	if lockHolder(dir) != 0 {
		t.Error("a released lock has a holder")
	}
	// The content of the file is for people; nonsense in it does no harm.
	if err := os.WriteFile(filepath.Join(dir, lockName), []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	if f, err = takeLock(dir); err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(0); err != nil {
		t.Fatal(err)
	}
	if pid := lockHolder(dir); pid != -1 {
		t.Errorf("a holder without a pid is %d", pid)
	}
	if err := releaseLock(f); err != nil {
		t.Fatal(err)
	}
}
