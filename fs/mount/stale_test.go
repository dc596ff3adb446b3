package mount

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/roamfs/roamfs/fs/file"
	"github.com/roamfs/roamfs/sync/block"
	"github.com/roamfs/roamfs/sync/tree"
)

func init() {
	// serve mounts on a directory, with another for drafts, until it is killed, or
	// until its input ends.
	children["serve"] = func() {
		d := &device{mem: tree.NewMem(), locals: map[tree.Ino]Local{}, drafts: map[tree.Ino]tree.Draft{}}
		var err error
		d.view, err = tree.NewView(d.mem)
		check(err)
		keys, err := block.NewKeys(1, map[uint32]block.Secret{1: {1}})
		check(err)
		files, err := file.New(file.Options{Dir: os.Args[2], Tree: d, Blocks: newStore(), Keys: keys})
		check(err)
		m, err := New(Options{Dir: os.Args[1], Tree: d, Files: files, Status: &status{}})
		check(err)
		fmt.Fprintln(os.Stdout, "ready")
		_, err = io.Copy(io.Discard, os.Stdin)
		check(err)
		check(m.Unmount())
		fmt.Fprintln(os.Stdout, "done")
	}
}

func TestStaleMount(t *testing.T) {
	needsFuse(t)
	dir := filepath.Join(t.TempDir(), "a mount \\ with spaces")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if Stale(dir) {
		t.Error("an ordinary directory is stale")
	}
	if err := CleanStale(dir); err != nil {
		t.Error(err)
	}
	undertaker(t, dir)
	serve := func() *exec.Cmd {
		cmd := child(t, "serve", dir, t.TempDir())
		cmd.Stderr = os.Stderr
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = in.Close() })
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
			t.Fatalf("cannot mount: %v", err)
		}
		return cmd
	}
	cmd := serve()
	if Stale(dir) {
		t.Error("a live mount is stale")
	}
	_, err := New(Options{Dir: dir, Tree: newDevice(t, "x", tree.NewMem()), Files: &file.Table{}, Status: &status{}})
	if !errors.Is(err, ErrMounted) {
		t.Errorf("a second mount: %v", err)
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	if !Stale(dir) {
		t.Fatal("the mount of a dead process is not stale")
	}
	cmd = serve() // cleans up by itself
	if err := os.WriteFile(filepath.Join(dir, "f"), nil, 0o644); err != nil {
		t.Error(err)
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	if err := CleanStale(dir); err != nil {
		t.Fatal(err)
	}
	if typ, err := mountType(dir); err != nil || typ != "" {
		t.Errorf("a mount of type %q is left, %v", typ, err)
	}
}

// TestUnmountInUse: a mount that is in use is detached; who uses it is served
// for a while.
func TestUnmountInUse(t *testing.T) {
	r := newRig(t)
	write(t, r.path("f"), "still to be read")
	f, err := os.Open(r.path("f"))
	if err != nil {
		t.Fatal(err)
	}
	if err := r.mount.Unmount(); !errors.Is(err, ErrBusy) {
		t.Fatalf("unmount: %v", err)
	}
	wantFile(t, r.path("f"), "still to be read") // nothing has changed
	done := make(chan error)
	go func() { done <- r.mount.Detach() }()
	deadline := time.Now().Add(10 * time.Second)
	for {
		if typ, err := mountType(r.dir); err != nil || typ == "" {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("still mounted")
		}
		<-time.After(5 * time.Millisecond)
	}
	b := make([]byte, 5)
	if _, err := f.ReadAt(b, 0); err != nil || string(b) != "still" {
		t.Errorf("read %q, %v", b, err)
	}
	_ = f.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if !strings.Contains(r.log.String(), "in use") {
		t.Errorf("the log says nothing: %s", r.log)
	}
	if err := r.mount.Unmount(); err != nil {
		t.Errorf("unmounting again: %v", err)
	}
	if err := r.mount.Detach(); err != nil {
		t.Errorf("detaching again: %v", err)
	}
}

func TestUnmountFromOutside(t *testing.T) {
	r := newRig(t)
	write(t, r.path("f"), "x")
	if err := unix.Unmount(r.dir, 0); err != nil {
		t.Fatal(err)
	}
	r.mount.Wait()
	if err := r.mount.Unmount(); err != nil {
		t.Error(err)
	}
	r.tell(tree.Affected{Entries: []tree.Place{{Name: "f"}}, Inodes: []tree.Ino{{1}}}) // to nobody
}

func TestMountErrors(t *testing.T) {
	needsFuse(t)
	o := Options{Tree: newDevice(t, "x", tree.NewMem()), Files: &file.Table{}, Status: &status{}}
	o.Dir = filepath.Join(t.TempDir(), "none")
	if _, err := New(o); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing directory: %v", err)
	}
	o.Dir = filepath.Join(t.TempDir(), "f")
	write(t, o.Dir, "")
	if _, err := New(o); !errors.Is(err, tree.ErrNotDir) {
		t.Errorf("mount on a file: %v", err)
	}
	if _, err := New(Options{Dir: o.Dir}); err == nil {
		t.Error("mounted nothing")
	}
	if err := explain(&exec.Error{Name: "fusermount", Err: exec.ErrNotFound}, o); !strings.Contains(err.Error(), "package fuse3") {
		t.Errorf("missing helper: %v", err)
	}
}

// TestOrdinaryUser mounts through fusermount3 as a user without privileges, in a
// mount namespace where that user may open /dev/fuse.
func TestOrdinaryUser(t *testing.T) {
	needsFuse(t)
	if os.Geteuid() != 0 {
		missing(t, errors.New("needs root to become an ordinary user"))
	}
	if _, err := exec.LookPath("fusermount3"); err != nil {
		missing(t, err)
	}
	dir := t.TempDir()
	for d := dir; d != "/" && d != os.TempDir(); d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	self := filepath.Join(dir, "self")
	if out, err := exec.CommandContext(t.Context(), "cp", exe, self).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	script := `set -eu
		mknod fuse c 10 229; chmod 666 fuse; mount --bind fuse /dev/fuse; mkdir home; chown 1000:1000 home; mkdir home/mnt; chown 1000:1000 home/mnt
		cat >run <<-'X'
			set -eu; umask 022; cd home; mkdir drafts
			mkfifo in; (MOUNT_TEST_CHILD=serve ../self mnt drafts <in >out 2>err; echo ended >>out) &
			exec 3>in
			i=0; until grep -q ready out 2>/dev/null || [ $((i=i+1)) -gt 200 ]; do sleep 0.05; done
			cat err >&2; grep -q ready out
			echo hello >mnt/f; cat mnt/f; stat -c '%u %a' mnt/f; df mnt >/dev/null
			grep -o 'fuse.roamfs.*' /proc/self/mountinfo
			exec 3>&-
			i=0; until grep -q ended out || [ $((i=i+1)) -gt 200 ]; do sleep 0.05; done
			cat out err; ls mnt
		X
		setpriv --reuid 1000 --regid 1000 --clear-groups sh run`
	cmd := exec.CommandContext(t.Context(), "unshare", "-m", "--propagation", "private", "sh", "-c", script)
	cmd.Dir = dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, err := cmd.CombinedOutput()
	if err != nil {
		if strings.Contains(string(out), "unshare failed") || strings.Contains(string(out), "mknod") {
			missing(t, fmt.Errorf("%w: %s", err, out))
		}
		t.Fatalf("%v: %s", err, out)
	}
	got := string(out)
	for _, want := range []string{"hello\n1000 644\n", "user_id=1000", "default_permissions", "ready\ndone\nended\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("output lacks %q:\n%s", want, got)
		}
	}
}
