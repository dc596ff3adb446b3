package integration

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// roam is the program under test, built once.
var roam string

func TestMain(m *testing.M) {
	code, err := build(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "integration:", err)
		code = 1
	}
	os.Exit(code) //nolint:forbidigo // TestMain is the main of the tests
}

func build(m *testing.M) (code int, err error) {
	dir, err := os.MkdirTemp("", "roam-integration-")
	if err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	roam = filepath.Join(dir, "roam")
	out, err := exec.CommandContext(context.Background(), "go", "build", "-o", roam, "../cmd/roam").CombinedOutput()
	if err != nil {
		return 1, fmt.Errorf("build roam: %w\n%s", err, out)
	}
	return m.Run(), nil
}

// needMount skips a test where nothing can be mounted. CI sets
// ROAM_REQUIRE_MOUNT, which turns the skip into a failure.
func needMount(t *testing.T) {
	t.Helper()
	f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err == nil {
		_ = f.Close() // it was only tried
		if os.Geteuid() == 0 {
			return
		}
		if _, err = exec.LookPath("fusermount3"); err == nil {
			return
		}
	}
	missing(t, "no mounts here: %v", err)
}

// needNetns skips a test where no network namespaces can be made.
func needNetns(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		missing(t, "network namespaces need root")
	}
	for _, tool := range []string{"ip", "nsenter"} {
		if _, err := exec.LookPath(tool); err != nil {
			missing(t, "network namespaces need %s: apt-get install iproute2 util-linux", tool)
		}
	}
}

func missing(t *testing.T, format string, args ...any) {
	t.Helper()
	if os.Getenv("ROAM_REQUIRE_MOUNT") != "" {
		t.Fatalf(format, args...)
	}
	t.Skipf(format, args...)
}

// device is one device under test.
type device struct {
	t     *testing.T
	name  string
	state string
	mount string
	netns string // runs in this network namespace; "" for the one of the test
}

func newDevice(t *testing.T, name string) *device {
	t.Helper()
	dir := t.TempDir()
	d := &device{t: t, name: name, state: filepath.Join(dir, "state"), mount: filepath.Join(dir, "mount")}
	if err := os.Mkdir(d.mount, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		d.end()
		if t.Failed() {
			d.log()
		}
	})
	return d
}

// command returns a command line of roam on this device.
func (d *device) command(ctx context.Context, args ...string) *exec.Cmd {
	args = append([]string{"--state", d.state}, args...)
	if d.netns == "" {
		return exec.CommandContext(ctx, roam, args...)
	}
	// Not "ip netns exec", which would hide the mounts.
	return exec.CommandContext(ctx, "nsenter", append([]string{"--net=/run/netns/" + d.netns, roam}, args...)...)
}

// try runs roam on this device and returns its output and exit code.
func (d *device) try(args ...string) (stdout, stderr string, code int) {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	cmd := d.command(ctx, args...)
	var out, talk bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &talk
	err := cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return out.String(), talk.String(), exit.ExitCode()
	}
	if err != nil {
		d.t.Fatalf("%s: roam %s: %v", d.name, strings.Join(args, " "), err)
	}
	return out.String(), talk.String(), 0
}

// must runs roam on this device and fails the test if it fails.
func (d *device) must(args ...string) string {
	d.t.Helper()
	out, talk, code := d.try(args...)
	if code != 0 {
		d.t.Fatalf("%s: roam %s: exit code %d\n%s", d.name, strings.Join(args, " "), code, talk)
	}
	return out
}

// init makes the device the first of a new hive.
func (d *device) init(args ...string) {
	d.t.Helper()
	d.must(append([]string{"init", "--name", d.name}, args...)...)
}

// up starts the device with its mount.
func (d *device) up() {
	d.t.Helper()
	d.must("mount", d.mount, "--background")
}

// down stops the device.
func (d *device) down() {
	d.t.Helper()
	d.must("stop")
	d.gone()
}

// gone waits until the device's process has ended.
func (d *device) gone() {
	d.t.Helper()
	eventually(d.t, time.Minute, d.name+" has ended", func() error {
		if _, _, code := d.try("status"); code != 7 {
			return fmt.Errorf("status exits with %d", code)
		}
		return nil
	})
}

// kill ends the device with SIGKILL and takes its dead mount away, as the next
// start would.
func (d *device) kill() {
	d.t.Helper()
	pid := d.status().PID
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		d.t.Fatal(err)
	}
	eventually(d.t, time.Minute, "the killed process is gone", func() error {
		if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
			if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); err == nil && strings.Contains(string(b), ") Z ") {
				return nil // ended; somebody has yet to wait for it
			}
			return fmt.Errorf("process %d is there", pid)
		}
		return nil
	})
}

// end stops the device at the end of a test, whatever state it is in.
func (d *device) end() {
	if out, _, code := d.try("status", "--json"); code == 0 {
		var s status
		if json.Unmarshal([]byte(out), &s) == nil && s.PID > 0 {
			if _, _, code := d.try("stop"); code != 0 {
				_ = syscall.Kill(s.PID, syscall.SIGKILL) // it may have ended meanwhile
			}
		}
	}
	_ = syscall.Unmount(d.mount, syscall.MNT_DETACH) // usually not mounted any more
}

// log prints the log of the device.
func (d *device) log() {
	b, err := os.ReadFile(filepath.Join(d.state, "log"))
	if err == nil && len(b) > 0 {
		d.t.Logf("log of %s:\n%s", d.name, b[max(0, len(b)-6000):])
	}
}

// join makes d a member of the hive of by, which is running.
func (d *device) join(by *device, args ...string) {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	invite := by.command(ctx, "invite", "--json")
	var talk bytes.Buffer
	invite.Stderr = &talk
	out, err := invite.StdoutPipe()
	if err != nil {
		d.t.Fatal(err)
	}
	if err := invite.Start(); err != nil {
		d.t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadBytes('\n')
	var event struct{ Code string }
	if err == nil {
		err = json.Unmarshal(line, &event)
	}
	if err != nil {
		cancel()
		_ = invite.Wait() // it was cancelled
		d.t.Fatalf("%s: invite: %v\n%s", by.name, err, talk.String())
	}
	d.must(append([]string{"join", event.Code, "--name", d.name}, args...)...)
	_, _ = io.Copy(io.Discard, out) // until it ends
	if err := invite.Wait(); err != nil {
		d.t.Fatalf("%s: invite: %v\n%s", by.name, err, talk.String())
	}
}

// pair starts a hive of an archive called nas and a cache called laptop, both
// mounted and connected.
func pair(t *testing.T, laptopArgs ...string) (nas, laptop *device) {
	t.Helper()
	needMount(t)
	nas, laptop = newDevice(t, "nas"), newDevice(t, "laptop")
	nas.init("--role", "archive")
	nas.up()
	laptop.join(nas, laptopArgs...)
	laptop.up()
	connected(nas, laptop)
	return nas, laptop
}

// status is what the tests look at of "roam status --json".
type status struct {
	Root  string
	PID   int
	Cache struct {
		Limit    int64 `json:"limit_bytes"`
		Used     int64 `json:"used_bytes"`
		OnlyHere int64 `json:"only_here_bytes"`
		Blocks   int64
	}
	Peers []struct {
		Name      string
		Connected bool
	}
	Waiting struct {
		Files, Bytes int64
	} `json:"waiting_to_copy"`
	Conflicts   int
	Safe        bool `json:"safe_to_stop"`
	Unavailable []struct {
		Path    string
		Holders []struct{ Name string }
	}
}

func (d *device) status() (s status) {
	d.t.Helper()
	if err := json.Unmarshal([]byte(d.must("status", "--json")), &s); err != nil {
		d.t.Fatal(err)
	}
	return s
}

// connected waits until each of the devices sees each other one.
func connected(devices ...*device) {
	t := devices[0].t
	t.Helper()
	for _, d := range devices {
		eventually(t, time.Minute, d.name+" is connected", func() error {
			n := 0
			for _, p := range d.status().Peers {
				if p.Connected {
					n++
				}
			}
			if n < len(devices)-1 {
				return fmt.Errorf("%d peers", n)
			}
			return nil
		})
	}
}

// sameTree waits until the devices have one root and their mounts show the
// same, entry by entry with content. A file that was just closed is part of the
// root only a moment later, so both have to be true at once.
func sameTree(devices ...*device) {
	t := devices[0].t
	t.Helper()
	eventually(t, time.Minute, "same tree", func() error {
		root, shown := devices[0].status().Root, listing(t, devices[0].mount)
		for _, d := range devices[1:] {
			if got := d.status().Root; got != root {
				return fmt.Errorf("root of %s %.12s, of %s %.12s", devices[0].name, root, d.name, got)
			}
			if got := listing(t, d.mount); got != shown {
				return fmt.Errorf("%s shows\n%s\n%s shows\n%s", devices[0].name, shown, d.name, got)
			}
		}
		return nil
	})
}

// copied waits until nothing is on the device alone.
func (d *device) copied() {
	d.t.Helper()
	eventually(d.t, 2*time.Minute, "everything of "+d.name+" is copied away", func() error {
		if s := d.status(); s.Waiting.Files > 0 {
			return fmt.Errorf("%d files wait", s.Waiting.Files)
		}
		return nil
	})
}

// listing describes everything below dir: type, mode, size, link text, content.
func listing(t *testing.T, dir string) string {
	t.Helper()
	var out strings.Builder
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil || rel == "." {
			return err
		}
		info, err := os.Lstat(path)
		if err != nil {
			return err
		}
		fmt.Fprintf(&out, "%v %q", info.Mode(), rel)
		switch {
		case info.Mode()&fs.ModeSymlink != 0:
			to, err := os.Readlink(path)
			if err != nil {
				return err
			}
			fmt.Fprintf(&out, " -> %q", to)
		case info.Mode().IsRegular():
			sum, err := digest(path)
			if err != nil {
				return err
			}
			fmt.Fprintf(&out, " %d %d %s", info.Size(), info.ModTime().UnixNano(), sum)
		}
		out.WriteByte('\n')
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// eventually tries until try returns nil, and fails the test with its last
// error after the limit.
func eventually(t *testing.T, limit time.Duration, what string, try func() error) {
	t.Helper()
	deadline := time.Now().Add(limit)
	for {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s: %v", limit, what, err)
		}
		pause(10 * time.Millisecond)
	}
}

// pause lets other processes work between two looks at them.
func pause(d time.Duration) { <-time.After(d) }
