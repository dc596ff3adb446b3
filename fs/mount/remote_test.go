package mount

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/roamfs/roamfs/sync/block"
	"github.com/roamfs/roamfs/sync/tree"
)

// TestRemoteChange checks that what the kernel has cached without expiry follows
// what another device does.
func TestRemoteChange(t *testing.T) {
	long := strings.Repeat("long content ", 1000)
	for _, c := range []struct {
		name   string
		before func(t *testing.T, r *rig)
		change func(t *testing.T, r *rig, o *device)
		after  func(t *testing.T, r *rig)
	}{
		{"content", func(t *testing.T, r *rig) {
			wantFile(t, r.path("f"), long)
		}, func(t *testing.T, r *rig, o *device) {
			r.replace(t, o, "f", "short")
		}, func(t *testing.T, r *rig) {
			if st := stat(t, r.path("f")); st.Size != 5 {
				t.Errorf("size is %d", st.Size)
			}
			wantFile(t, r.path("f"), "short")
		}},
		{"content of the same size", func(t *testing.T, r *rig) {
			wantFile(t, r.path("f"), long)
		}, func(t *testing.T, r *rig, o *device) {
			r.replace(t, o, "f", strings.ToUpper(long))
		}, func(t *testing.T, r *rig) {
			wantFile(t, r.path("f"), strings.ToUpper(long))
		}},
		{"new file at a name that was looked up", func(t *testing.T, r *rig) {
			if _, err := os.Lstat(r.path("new")); !os.IsNotExist(err) {
				t.Fatal(err)
			}
		}, func(t *testing.T, r *rig, o *device) {
			if _, err := o.Create(tree.Root, "new", r.content(t, "hello")); err != nil {
				t.Fatal(err)
			}
		}, func(t *testing.T, r *rig) {
			wantFile(t, r.path("new"), "hello")
			if got := names(t, r.dir); !slices.Equal(got, []string{"d", "f", "l", "new"}) {
				t.Errorf("listing is %q", got)
			}
		}},
		{"removed", func(t *testing.T, r *rig) {
			stat(t, r.path("f"))
		}, func(t *testing.T, r *rig, o *device) {
			if err := o.Unlink(tree.Root, "f"); err != nil {
				t.Fatal(err)
			}
		}, func(t *testing.T, r *rig) {
			if _, err := os.Lstat(r.path("f")); !os.IsNotExist(err) {
				t.Errorf("error %v", err)
			}
			if got := names(t, r.dir); !slices.Equal(got, []string{"d", "l"}) {
				t.Errorf("listing is %q", got)
			}
		}},
		{"renamed directory", func(t *testing.T, r *rig) {
			wantFile(t, r.path("d", "in"), "in d")
		}, func(t *testing.T, r *rig, o *device) {
			if err := o.Rename(tree.Root, "d", tree.Root, "e", false, false); err != nil {
				t.Fatal(err)
			}
		}, func(t *testing.T, r *rig) {
			wantFile(t, r.path("e", "in"), "in d")
			if _, err := os.Lstat(r.path("d", "in")); !os.IsNotExist(err) {
				t.Errorf("error %v", err)
			}
		}},
		{"two names exchanged", func(t *testing.T, r *rig) {
			stat(t, r.path("f"))
			stat(t, r.path("l"))
		}, func(t *testing.T, r *rig, o *device) {
			if err := o.Rename(tree.Root, "f", tree.Root, "l", false, true); err != nil {
				t.Fatal(err)
			}
		}, func(t *testing.T, r *rig) {
			wantFile(t, r.path("l"), long)
			if st := stat(t, r.path("f")); st.Mode&unix.S_IFMT != unix.S_IFLNK {
				t.Errorf("mode is %o", st.Mode)
			}
		}},
		{"mode and time", func(t *testing.T, r *rig) {
			stat(t, r.path("f"))
		}, func(t *testing.T, r *rig, o *device) {
			n, err := o.Lookup(tree.Root, "f")
			if err != nil {
				t.Fatal(err)
			}
			if err := o.Chmod(n.Ino, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := o.SetMTime(n.Ino, 1e18+7); err != nil {
				t.Fatal(err)
			}
		}, func(t *testing.T, r *rig) {
			st := stat(t, r.path("f"))
			if st.Mode&0o7777 != 0o600 || st.Mtim.Nano() != 1e18+7 {
				t.Errorf("mode %o, time %d", st.Mode, st.Mtim.Nano())
			}
		}},
		{"another name for a file", func(t *testing.T, r *rig) {
			if st := stat(t, r.path("f")); st.Nlink != 1 {
				t.Fatal(st.Nlink)
			}
		}, func(t *testing.T, r *rig, o *device) {
			n, err := o.Lookup(tree.Root, "f")
			if err != nil {
				t.Fatal(err)
			}
			if _, err := o.Link(n.Ino, tree.Root, "g"); err != nil {
				t.Fatal(err)
			}
		}, func(t *testing.T, r *rig) {
			f, g := stat(t, r.path("f")), stat(t, r.path("g"))
			if f.Nlink != 2 || f.Ino != g.Ino {
				t.Errorf("links %d, numbers %d and %d", f.Nlink, f.Ino, g.Ino)
			}
		}},
		{"symlink replaced", func(t *testing.T, r *rig) {
			if got, err := os.Readlink(r.path("l")); err != nil || got != "f" {
				t.Fatal(got, err)
			}
		}, func(t *testing.T, r *rig, o *device) {
			n, err := o.Lookup(tree.Root, "l")
			if err != nil {
				t.Fatal(err)
			}
			c := tree.Content{Kind: tree.Symlink, Inline: []byte("d/in"), Size: 4}
			if _, err := o.Write(n.Ino, n.Base, c, false); err != nil {
				t.Fatal(err)
			}
		}, func(t *testing.T, r *rig) {
			if got, err := os.Readlink(r.path("l")); err != nil || got != "d/in" {
				t.Error(got, err)
			}
			wantFile(t, r.path("l"), "in d")
		}},
		{"file replaced by a directory", func(t *testing.T, r *rig) {
			wantFile(t, r.path("f"), long)
		}, func(t *testing.T, r *rig, o *device) {
			if err := o.Unlink(tree.Root, "f"); err != nil {
				t.Fatal(err)
			}
			if _, err := o.Mkdir(tree.Root, "f", 0o755); err != nil {
				t.Fatal(err)
			}
		}, func(t *testing.T, r *rig) {
			if got := names(t, r.path("f")); len(got) != 0 {
				t.Errorf("listing is %q", got)
			}
		}},
		{"directory emptied and removed", func(t *testing.T, r *rig) {
			stat(t, r.path("d", "in"))
		}, func(t *testing.T, r *rig, o *device) {
			d, err := o.Lookup(tree.Root, "d")
			if err != nil {
				t.Fatal(err)
			}
			if err := o.Unlink(d.Ino, "in"); err != nil {
				t.Fatal(err)
			}
			if err := o.Rmdir(tree.Root, "d"); err != nil {
				t.Fatal(err)
			}
		}, func(t *testing.T, r *rig) {
			for _, p := range []string{"d", "d/in"} {
				if _, err := os.Lstat(r.path(p)); !os.IsNotExist(err) {
					t.Errorf("%s: error %v", p, err)
				}
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t)
			write(t, r.path("f"), long)
			if err := os.Symlink("f", r.path("l")); err != nil {
				t.Fatal(err)
			}
			if err := os.Mkdir(r.path("d"), 0o755); err != nil {
				t.Fatal(err)
			}
			write(t, r.path("d", "in"), "in d")
			r.settled(t)
			o := r.fork(t, "there")
			names(t, r.dir)
			c.before(t, r)
			was := stat(t, r.dir)
			c.change(t, r, o)
			r.pullFrom(t, o)
			c.after(t, r)
			if now := stat(t, r.dir); slices.Contains([]string{"removed", "renamed directory"}, c.name) && now.Mtim.Nano() <= was.Mtim.Nano() {
				t.Error("the time of the directory did not move")
			}
		})
	}
}

// TestRemoteReplaceWhileOpen: who has a file open keeps the version that he
// opened, whole; who opens it afterwards gets the new one.
func TestRemoteReplaceWhileOpen(t *testing.T) {
	r := newRig(t)
	old, fresh := strings.Repeat("old ", 5000), strings.Repeat("fresh content ", 3000)
	write(t, r.path("f"), old)
	if err := os.Link(r.path("f"), r.path("g")); err != nil {
		t.Fatal(err)
	}
	r.settled(t)
	o := r.fork(t, "there")

	f, err := os.Open(r.path("f"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	head := make([]byte, 100)
	if _, err := f.ReadAt(head, 0); err != nil {
		t.Fatal(err)
	}
	number := stat(t, r.path("f")).Ino
	r.replace(t, o, "f", fresh)
	r.pullFrom(t, o)

	for _, name := range []string{"f", "g"} {
		wantFile(t, r.path(name), fresh)
		if st := stat(t, r.path(name)); st.Size != int64(len(fresh)) || st.Ino != number || st.Nlink != 2 {
			t.Errorf("%s: size %d, number %d (was %d), links %d", name, st.Size, st.Ino, number, st.Nlink)
		}
	}
	got, err := io.ReadAll(io.NewSectionReader(f, 0, 1<<20))
	if err != nil || string(got) != old {
		t.Errorf("the open file reads %s (%d bytes), %v", brief(got), len(got), err)
	}
	if st, err := f.Stat(); err != nil || st.Size() != int64(len(old)) {
		t.Errorf("the open file has size %d, %v", st.Size(), err)
	}
	// And once more, with both versions open.
	f2, err := os.Open(r.path("g"))
	if err != nil {
		t.Fatal(err)
	}
	defer f2.Close()
	r.replace(t, o, "f", "third")
	r.pullFrom(t, o)
	wantFile(t, r.path("f"), "third")
	for f, want := range map[*os.File]string{f: old, f2: fresh} {
		if got, err := io.ReadAll(io.NewSectionReader(f, 0, 1<<20)); err != nil || string(got) != want {
			t.Errorf("an open file reads %s, %v, want %s", brief(got), err, brief([]byte(want)))
		}
	}
}

// TestRemoteRemoveWhileOpen: the bytes stay readable for who has the file open.
func TestRemoteRemoveWhileOpen(t *testing.T) {
	r := newRig(t)
	data := strings.Repeat("still here ", 2000)
	write(t, r.path("f"), data)
	r.settled(t)
	o := r.fork(t, "there")
	f, err := os.Open(r.path("f"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := o.Unlink(tree.Root, "f"); err != nil {
		t.Fatal(err)
	}
	r.pullFrom(t, o)
	if _, err := os.Lstat(r.path("f")); !os.IsNotExist(err) {
		t.Errorf("error %v", err)
	}
	if got, err := io.ReadAll(f); err != nil || string(got) != data {
		t.Errorf("reads %s, %v", brief(got), err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil || st.Nlink != 0 || st.Size != int64(len(data)) {
		t.Errorf("stat: %d links, size %d, %v", st.Nlink, st.Size, err)
	}
}

// TestConcurrentEdit: two versions of which neither saw the other are two files.
func TestConcurrentEdit(t *testing.T) {
	r := newRig(t)
	write(t, r.path("f.txt"), "base")
	r.settled(t)
	o := r.fork(t, "there")
	write(t, r.path("f.txt"), "mine, mine, mine")
	r.settled(t)
	names(t, r.dir)
	r.replace(t, o, "f.txt", "theirs")
	r.pullFrom(t, o)

	list := names(t, r.dir)
	if len(list) != 2 {
		t.Fatalf("listing is %q, want two files", list)
	}
	var got []string
	for _, name := range list {
		b, err := os.ReadFile(r.path(name))
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, string(b))
	}
	slices.Sort(got)
	if !slices.Equal(got, []string{"mine, mine, mine", "theirs"}) {
		t.Errorf("the files hold %q", got)
	}
	links := names(t, r.path(".roam", "conflicts"))
	if len(links) != 1 || !slices.Contains(list, links[0]) {
		t.Fatalf(".roam/conflicts lists %q", links)
	}
	direct, err := os.ReadFile(r.path(links[0]))
	if err != nil {
		t.Fatal(err)
	}
	wantFile(t, r.path(".roam", "conflicts", links[0]), string(direct))
	for _, name := range list {
		_, err := unix.Getxattr(r.path(name), "user.roam.conflict", make([]byte, 8))
		if conflict := name == links[0]; (err == nil) != conflict {
			t.Errorf("user.roam.conflict of %s: %v", name, err)
		}
	}
	// Removing the copy is all it takes.
	if err := os.Remove(r.path(links[0])); err != nil {
		t.Fatal(err)
	}
	if list := names(t, r.dir); !slices.Equal(list, []string{"f.txt"}) {
		t.Errorf("listing is %q", list)
	}
}

// TestManyRemoteNames overflows the bounds of the queue.
func TestManyRemoteNames(t *testing.T) {
	r := newRig(t)
	if err := os.Mkdir(r.path("d"), 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, r.path("d", "goes"), "x")
	r.settled(t)
	o := r.fork(t, "there")
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

// TestRemoteChangesUnderLoad lets programs look while another device changes
// everything all the time, then requires that nothing stale stays.
func TestRemoteChangesUnderLoad(t *testing.T) {
	r := newRig(t)
	o := r.fork(t, "there")
	stop := make(chan struct{})
	done := make(chan struct{})
	look := exec.Command("sh", "-c", `while :; do ls -lR "$0" >/dev/null 2>&1; cat "$0"/* >/dev/null 2>&1; stat "$0"/a "$0"/b "$0"/c "$0"/d >/dev/null 2>&1; done`, r.dir)
	if err := look.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(done)
		<-stop
		look.Process.Kill()
		look.Wait()
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

// TestUnavailable: a read that cannot be served fails with EIO and says in the
// log who has the bytes.
func TestUnavailable(t *testing.T) {
	r := newRig(t)
	o := r.fork(t, "there")
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

// TestInterrupt: a program that waits for a block can be stopped, and is not
// disturbed by signals that mean nothing.
func TestInterrupt(t *testing.T) {
	r := newRig(t)
	o := r.fork(t, "there")
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
			t.Skip(err)
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

// TestNamesNotHeldUp: a read that waits for a block delays neither names nor
// attributes of other files, nor their changes.
func TestNamesNotHeldUp(t *testing.T) {
	r := newRig(t)
	o := r.fork(t, "there")
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
