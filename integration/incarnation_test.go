package integration

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestRestoredState puts the state directory of a device back to an older copy and
// works with it before it meets the other device: nothing that either did is lost,
// nothing that was deleted comes back, and nobody is asked anything.
func TestRestoredState(t *testing.T) {
	nas, laptop := pair(t)
	write(t, laptop.path("kept"), []byte("kept"))
	write(t, laptop.path("deleted"), []byte("x"))
	write(t, laptop.path("edited"), []byte("before"))
	sameRoot(nas, laptop)
	laptop.down()
	backup := laptop.State + ".backup"
	laptop.clone(backup, laptop.State)

	laptop.up()
	if err := os.Remove(laptop.path("deleted")); err != nil {
		t.Fatal(err)
	}
	write(t, laptop.path("edited"), []byte("after the backup"))
	write(t, laptop.path("later"), []byte("after the backup"))
	connected(nas, laptop)
	sameRoot(nas, laptop)
	laptop.copied()
	laptop.down()
	nas.down()
	if err := os.RemoveAll(laptop.State); err != nil {
		t.Fatal(err)
	}
	laptop.clone(laptop.State, backup)

	laptop.up() // alone
	write(t, laptop.path("offline"), []byte("after the restore"))
	write(t, laptop.path("kept"), []byte("edited after the restore"))
	nas.up()
	connected(nas, laptop)
	sameRoot(nas, laptop)
	for _, d := range []*device{nas, laptop} {
		d.reads("kept", []byte("edited after the restore"))
		d.reads("edited", []byte("after the backup"))
		d.reads("later", []byte("after the backup"))
		d.reads("offline", []byte("after the restore"))
		list, err := os.ReadDir(d.Mount)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, e := range list {
			names = append(names, e.Name())
		}
		if got := strings.Join(names, " "); got != "edited kept later offline" {
			t.Errorf("%s shows %s", d.Name, got)
		}
	}
	if log := laptop.logged(); !strings.Contains(log, "new incarnation") {
		t.Error("the log does not say what happened")
	}
	for _, d := range []*device{nas, laptop} {
		if out, err := d.Run(t.Context(), "status", "--json"); err != nil || !strings.Contains(out, `"problem":""`) {
			t.Errorf("status of %s: %v\n%s", d.Name, err, out)
		}
	}
	// Once is enough.
	laptop.down()
	laptop.up()
	if log := laptop.logged(); strings.Count(log, "new incarnation") != 1 {
		t.Error("it became another incarnation again")
	}
}

// path is where the device shows a file.
func (d *device) path(name string) string { return filepath.Join(d.Mount, name) }

// clone copies a state directory with all that is known of its files.
func (d *device) clone(to, from string) {
	d.t.Helper()
	if out, err := exec.CommandContext(d.t.Context(), "cp", "-a", from, to).CombinedOutput(); err != nil {
		d.t.Fatalf("cp: %v\n%s", err, out)
	}
}
