package integration

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// asUser is what an ordinary user does, in a mount namespace of its own in
// which /dev/fuse may be opened by everybody, as it is on a usual machine.
const asUser = `
set -eu
mknod fuse c 10 229
chmod 666 fuse
mount --bind fuse /dev/fuse
exec setpriv --reuid=65534 --regid=65534 --clear-groups --inh-caps=-all sh -eu -c '
	cd home
	export HOME=$PWD XDG_DATA_HOME=$PWD
	"$ROAM" init --name solo
	mkdir m
	"$ROAM" mount m --background
	mkdir m/d
	echo hello > m/d/f
	cp -a m/d m/e
	test "$(cat m/e/f)" = hello
	test "$(stat -c %u m/e/f)" = 65534
	"$ROAM" unmount m
	test ! -e m/d
	"$ROAM" mount m --background
	test "$(cat m/e/f)" = hello
	"$ROAM" stop
'
`

// TestOrdinaryUser mounts through fusermount3 without any privilege.
func TestOrdinaryUser(t *testing.T) {
	needMount(t)
	for _, tool := range []string{"unshare", "setpriv", "fusermount3"} {
		if _, err := exec.LookPath(tool); err != nil {
			missing(t, "needs %s: apt-get install util-linux fuse3", tool)
		}
	}
	if os.Geteuid() != 0 {
		missing(t, "only root can become somebody else; the other tests run as this user")
	}
	dir, err := os.MkdirTemp("", "roam-user-") //nolint:usetesting // only root may enter the directory of the test
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	program := filepath.Join(dir, "roam")
	if out, err := exec.CommandContext(t.Context(), "cp", roam, program).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	home := filepath.Join(dir, "home")
	if err := os.Mkdir(home, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(home, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(context.Background(), "unshare", "--mount", "sh", "-c", asUser)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "ROAM="+program)
	if out, err := cmd.CombinedOutput(); err != nil {
		log, _ := os.ReadFile(filepath.Join(home, "roamfs", "log")) // for the message only
		t.Fatalf("%v\n%s\n%s", err, out, log)
	}
}
