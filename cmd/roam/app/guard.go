package app

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/roamfs/roamfs/fs/mount"
)

// refuseInsideMount refuses a state directory that lies in a mount of ours: the
// device would wait for itself.
func refuseInsideMount(dir string) error {
	list, err := mountPoints()
	if err != nil {
		return err
	}
	return insideMount(list, dir)
}

func insideMount(list []mountPoint, dir string) error {
	if m, ok := mountOf(list, dir); ok && m.fstype == fsType {
		return failure(CodeFailed, "put it on a disk of this computer with --state DIR",
			"the state directory %s lies inside the roamfs mount %s", dir, m.dir)
	}
	return nil
}

// mountDir returns the absolute path of the directory that DIR on the command
// line means. It does not enter DIR itself, which may be a mount whose daemon
// is dead.
func mountDir(arg string) (string, error) {
	abs, err := filepath.Abs(arg)
	if err != nil {
		return "", err
	}
	if abs == "/" {
		return abs, nil
	}
	if info, err := os.Lstat(abs); err == nil && info.Mode()&fs.ModeSymlink != 0 {
		return resolve(abs), nil
	}
	return filepath.Join(resolve(filepath.Dir(abs)), filepath.Base(abs)), nil
}

// prepareMountPoint makes dir, an absolute path, ready to be a mount point of
// the device in stateDir: a missing directory is made, what a killed daemon
// left there is unmounted, and what cannot be a mount point is refused.
func prepareMountPoint(stateDir, dir string) error {
	switch {
	case within(dir, stateDir):
		return failure(CodeFailed, "mount somewhere else", "%s lies inside the state directory %s", dir, stateDir)
	case within(stateDir, dir):
		return failure(CodeFailed, "mount somewhere else", "a mount at %s would hide the state directory %s", dir, stateDir)
	}
	list, err := mountPoints()
	if err != nil {
		return err
	}
	if m, ok := mountOf(list, filepath.Dir(dir)); ok && m.fstype == fsType {
		return failure(CodeFailed, "mount outside of it", "%s lies inside the roamfs mount %s", dir, m.dir)
	}
	if m, ok := mountOf(list, dir); ok && m.dir == dir && m.fstype == fsType {
		if !mount.Stale(dir) {
			return failure(CodeFailed, "end that mount first with `roam unmount`", "%s is a roamfs mount already", dir)
		}
		if err := mount.CleanStale(dir); err != nil {
			return fmt.Errorf("unmount what a killed device left at %s: %w", dir, err)
		}
	}
	return emptyDir(dir)
}

// emptyDir makes sure that dir is an empty directory. It makes it if it is
// missing, but not its parents.
func emptyDir(dir string) error {
	err := os.Mkdir(dir, 0o755)
	if err == nil {
		return nil
	}
	if !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("mount point: %w", err)
	}
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("mount point: %w", err)
	}
	defer discard(d)
	_, err = d.Readdirnames(1)
	switch {
	case errors.Is(err, io.EOF):
		return nil
	case errors.Is(err, syscall.ENOTDIR):
		return failure(CodeFailed, "name a directory", "the mount point %s is not a directory", dir)
	case err != nil:
		return fmt.Errorf("mount point: %w", err)
	}
	return failure(CodeFailed, "name an empty directory; to bring its files into the hive, copy them into the mount",
		"the mount point %s is not empty: its files would be hidden", dir)
}
