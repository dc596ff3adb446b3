package mount

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/roamfs/roamfs/sync/block"
	"github.com/roamfs/roamfs/sync/tree"
)

func TestManyRemoteNames(t *testing.T) {
	r := newRig(t)
	if err := os.Mkdir(r.path("d"), 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, r.path("d", "goes"), "x")
	r.settled(t)
	o := r.fork(t)
	d, err := o.Lookup(tree.Root, "d")
	if err != nil {
		t.Fatal(err)
	}
	const many = mostNamesDir + 500
	for i := 0; i < many; i += 100 { // names that the kernel knows not to exist
		if _, err := os.Lstat(r.path("d", fmt.Sprint(i))); !os.IsNotExist(err) {
			t.Fatal(err)
		}
	}
	stat(t, r.path("d", "goes"))
	for i := range many {
		if _, err := o.Create(d.Ino, fmt.Sprint(i), tree.Content{Kind: tree.Fifo, Mode: 0o644}); err != nil {
			t.Fatal(err)
		}
	}
	if err := o.Unlink(d.Ino, "goes"); err != nil {
		t.Fatal(err)
	}
	r.pullFrom(t, o)
	for i := 0; i < many; i += 100 {
		stat(t, r.path("d", fmt.Sprint(i)))
	}
	if _, err := os.Lstat(r.path("d", "goes")); !os.IsNotExist(err) {
		t.Errorf("error %v", err)
	}
	if got := len(names(t, r.path("d"))); got != many {
		t.Errorf("%d names, want %d", got, many)
	}
}

func TestRemoteChangesUnderLoad(t *testing.T) {
	r := newRig(t)
	o := r.fork(t)
	stop := make(chan struct{})
	done := make(chan struct{})
	look := exec.CommandContext(t.Context(), "sh", "-c", `while :; do ls -lR "$0" >/dev/null 2>&1; cat "$0"/* >/dev/null 2>&1; stat "$0"/a "$0"/b "$0"/c "$0"/d >/dev/null 2>&1; done`, r.dir)
	if err := look.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(done)
		<-stop
		_ = look.Process.Kill()
		_ = look.Wait()
	}()
	sets := []string{"a", "b", "c", "d"}
	for i := range 300 {
		name, other := sets[i%4], sets[(i/4+i)%4]
		switch n, err := o.Lookup(tree.Root, name); {
		case err != nil:
			if _, err := o.Create(tree.Root, name, r.content(t, strings.Repeat(fmt.Sprint(i), 100))); err != nil {
				t.Fatal(err)
			}
		case i%5 == 0:
			if err := o.Unlink(tree.Root, name); err != nil {
				t.Fatal(err)
			}
		case i%3 == 0 && name != other:
			if err := o.Rename(tree.Root, name, tree.Root, other, false, false); err != nil {
				t.Fatal(err)
			}
		default:
			if _, err := o.Write(n.Ino, n.Base, r.content(t, strings.Repeat(fmt.Sprint(i), 100+i)), false); err != nil {
				t.Fatal(err)
			}
		}
		r.pull(t, o)
	}
	r.mount.notes.idle()
	close(stop)
	<-done
	r.mount.notes.idle()
	entries, err := o.List(tree.Root)
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, e := range entries {
		want = append(want, e.Name)
		n, err := o.Node(e.Ino)
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(r.path(e.Name))
		if err != nil {
			t.Fatal(err)
		}
		if int64(len(got)) != n.Size || stat(t, r.path(e.Name)).Size != n.Size {
			t.Errorf("%s: %d bytes, size %d, want %d", e.Name, len(got), stat(t, r.path(e.Name)).Size, n.Size)
		}
		if len(got) > 0 && len(bytes.Trim(got, "0123456789")) > 0 {
			t.Errorf("%s holds %s", e.Name, brief(got))
		}
	}
	if got := names(t, r.dir); !slices.Equal(got, want) {
		t.Errorf("listing is %q, want %q", got, want)
	}
	for _, name := range sets {
		if _, err := os.Lstat(r.path(name)); (err == nil) != slices.Contains(want, name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestUnavailable(t *testing.T) {
	r := newRig(t)
	o := r.fork(t)
	if _, err := o.Create(tree.Root, "f", r.content(t, strings.Repeat("x", 1000))); err != nil {
		t.Fatal(err)
	}
	r.pullFrom(t, o)
	r.store.set(&block.UnavailableError{Holders: []string{"usb-red"}})
	_, err := os.ReadFile(r.path("f"))
	wantErrno(t, "read", err, syscall.EIO)
	if log := r.log.String(); !strings.Contains(log, "usb-red") || !strings.Contains(log, "/f") {
		t.Errorf("the log names neither device nor file:\n%s", log)
	}
	if st := stat(t, r.path("f")); st.Size != 1000 {
		t.Errorf("size is %d", st.Size)
	}
	r.store.set(nil)
	wantFile(t, r.path("f"), strings.Repeat("x", 1000))
}

func TestInterrupt(t *testing.T) {
	r := newRig(t)
	o := r.fork(t)
	for _, name := range []string{"f", "g"} {
		if _, err := o.Create(tree.Root, name, r.content(t, strings.Repeat(name, 1000))); err != nil {
			t.Fatal(err)
		}
	}
	r.pullFrom(t, o)
	release := r.store.withhold()
	defer release()

	start := func(name string) (*exec.Cmd, *strings.Builder) {
		// O_DIRECT, since it is only then that the kernel passes an interrupt
		// on: otherwise the program waits for the page, which is its own matter.
		cmd := exec.CommandContext(t.Context(), "python3", "-c", `import signal,sys,os
signal.signal(signal.SIGURG, lambda *a: None)
signal.siginterrupt(signal.SIGURG, True)
fd = os.open(sys.argv[1], os.O_RDONLY|os.O_DIRECT)
print(len(os.read(fd, 4096)))`, r.path(name))
		out := &strings.Builder{}
		cmd.Stdout, cmd.Stderr = out, out
		if err := cmd.Start(); err != nil {
			missing(t, err)
		}
		<-r.store.waiting
		return cmd, out
	}
	stopped, out := start("f")
	if err := stopped.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if err := stopped.Wait(); err == nil || !strings.Contains(out.String(), "KeyboardInterrupt") {
		t.Errorf("ended with %v, want an interrupt: %s", err, out)
	}

	undisturbed, out := start("g")
	for range 5 {
		if err := undisturbed.Process.Signal(syscall.SIGURG); err != nil {
			t.Fatal(err)
		}
		<-time.After(recheck / 2)
	}
	release()
	if err := undisturbed.Wait(); err != nil || out.String() != "1000\n" {
		t.Errorf("ended with %v: %s", err, out)
	}
}

func TestNamesNotHeldUp(t *testing.T) {
	r := newRig(t)
	o := r.fork(t)
	for _, name := range []string{"slow", "f"} {
		if _, err := o.Create(tree.Root, name, r.content(t, strings.Repeat(name, 1000))); err != nil {
			t.Fatal(err)
		}
	}
	r.pullFrom(t, o)
	stat(t, r.path("f"))
	release := r.store.withhold()
	cat := exec.CommandContext(t.Context(), "cat", r.path("slow"))
	if err := cat.Start(); err != nil {
		t.Fatal(err)
	}
	<-r.store.waiting
	// The slow file itself is replaced, too: its page cannot be dropped yet.
	r.replace(t, o, "slow", "now short")
	r.replace(t, o, "f", "new")
	if err := o.Rename(tree.Root, "f", tree.Root, "g", false, false); err != nil {
		t.Fatal(err)
	}
	r.pull(t, o)
	deadline := time.Now().Add(10 * time.Second)
	for {
		st, err := os.Lstat(r.path("g"))
		if err == nil && st.Size() == 3 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the change does not show: %v", err)
		}
		<-time.After(time.Millisecond)
	}
	release()
	if err := cat.Wait(); err != nil {
		t.Error(err)
	}
	r.mount.notes.idle()
	wantFile(t, r.path("slow"), "now short")
	wantFile(t, r.path("g"), "new")
}
