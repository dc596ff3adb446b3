package integration

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/roamfs/roamfs/integration/cli"
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

// device is one device under test. Its methods fail the test where those of
// [cli.Device] return an error.
type device struct {
	*cli.Device
	t *testing.T
}

func newDevice(t *testing.T, name string) *device {
	t.Helper()
	made, err := cli.New(roam, t.TempDir(), name)
	if err != nil {
		t.Fatal(err)
	}
	d := &device{made, t}
	t.Cleanup(func() {
		d.end()
		if t.Failed() {
			d.log()
		}
	})
	return d
}

// check fails the test with what went wrong on a device.
func (d *device) check(err error) {
	d.t.Helper()
	if err != nil {
		d.t.Fatal(err)
	}
}

// try runs roam on this device and returns what it says on stderr and its exit
// code.
func (d *device) try(args ...string) (talk string, code int) {
	d.t.Helper()
	_, err := d.Run(d.t.Context(), args...)
	if exit, ok := errors.AsType[*cli.ExitError](err); ok {
		return exit.Talk, exit.Code
	}
	d.check(err)
	return "", 0
}

// init makes the device the first of a new hive.
func (d *device) init(args ...string) {
	d.t.Helper()
	d.check(d.Init(d.t.Context(), args...))
}

// join makes d a member of the hive of by, which is running.
func (d *device) join(by *device, args ...string) {
	d.t.Helper()
	d.check(d.Join(d.t.Context(), by.Device, args...))
}

// up starts the device with its mount.
func (d *device) up() {
	d.t.Helper()
	d.check(d.Start(d.t.Context()))
}

// down stops the device, which runs.
func (d *device) down() {
	d.t.Helper()
	if talk, code := d.try("stop"); code != 0 {
		d.t.Fatalf("%s: stop exits with %d\n%s", d.Name, code, talk)
	}
	if _, code := d.try("status"); code != 7 {
		d.t.Fatalf("%s: status of a stopped device exits with %d", d.Name, code)
	}
}

// kill ends the device with SIGKILL. Its dead mount stays until the next start.
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
	ctx := context.Background() // that of the test has ended
	if s, err := d.Status(ctx); err == nil && d.Stop(ctx) != nil {
		_ = syscall.Kill(s.PID, syscall.SIGKILL) // it may have ended meanwhile
	}
	_ = syscall.Unmount(d.Mount, syscall.MNT_DETACH) // usually not mounted any more
}

// logged returns the log of the device.
func (d *device) logged() string {
	b, err := os.ReadFile(filepath.Join(d.State, "log"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		d.t.Error(err)
	}
	return string(b)
}

// log prints the log of the device.
func (d *device) log() {
	if b := d.logged(); b != "" {
		d.t.Logf("log of %s:\n%s", d.Name, b[max(0, len(b)-6000):])
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

func (d *device) status() cli.Status {
	d.t.Helper()
	s, err := d.Status(d.t.Context())
	d.check(err)
	return s
}

// connected waits until each of the devices sees each other one.
func connected(devices ...*device) {
	t := devices[0].t
	t.Helper()
	for _, d := range devices {
		eventually(t, time.Minute, d.Name+" is connected", func() error {
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

// sameRoot waits until the devices have one root.
func sameRoot(devices ...*device) {
	t := devices[0].t
	t.Helper()
	eventually(t, time.Minute, "same root", func() error { return oneRoot(devices) })
}

// oneRoot returns an error if the devices do not have one root now.
func oneRoot(devices []*device) error {
	var all []*cli.Device
	for _, d := range devices {
		all = append(all, d.Device)
	}
	_, err := cli.SameRoot(devices[0].t.Context(), all...)
	return err
}

// sameTree waits until the devices have one root and their mounts show the
// same, entry by entry with content. A file that was just closed is part of the
// root only a moment later, so both have to be true at once.
func sameTree(devices ...*device) {
	t := devices[0].t
	t.Helper()
	eventually(t, time.Minute, "same tree", func() error {
		if err := oneRoot(devices); err != nil {
			return err
		}
		shown, err := listing(devices[0].Mount)
		for _, d := range devices[1:] {
			got, err2 := listing(d.Mount)
			if err := errors.Join(err, err2); err != nil {
				return err
			}
			if got != shown {
				return fmt.Errorf("%s shows\n%s\n%s shows\n%s", devices[0].Name, shown, d.Name, got)
			}
		}
		return nil
	})
}

// copied waits until nothing is on the device alone.
func (d *device) copied() {
	d.t.Helper()
	eventually(d.t, 2*time.Minute, "everything of "+d.Name+" is copied away", func() error {
		if s := d.status(); s.Waiting.Files > 0 {
			return fmt.Errorf("%d files wait", s.Waiting.Files)
		}
		return nil
	})
}

// listing describes everything below dir: type, mode, size, link text, content.
func listing(dir string) (string, error) {
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
	return out.String(), err
}

// eventually tries until try returns nil, and fails the test with its last
// error after the limit.
func eventually(t *testing.T, limit time.Duration, what string, try func() error) {
	t.Helper()
	if err := cli.Await(t.Context(), limit, what, try); err != nil {
		t.Fatal(err)
	}
}
