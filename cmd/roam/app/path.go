package app

import (
	"context"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// treePrefix begins a PATH that names a file without a mount.
const treePrefix = "roam:"

// resolver turns PATH arguments into paths in the tree.
type resolver struct {
	client *client
	status *Status      // of the device, once asked for
	mounts []mountPoint // of this computer, once read
}

// resolve returns the path in the tree that arg names: roam:/a/b, or a path
// inside a mount of the device, relative ones too. The last element is not
// followed if it is a symbolic link, since the link itself is what lies in the
// tree.
func (r *resolver) resolve(ctx context.Context, arg string) (string, error) {
	if rest, ok := strings.CutPrefix(arg, treePrefix); ok {
		if !strings.HasPrefix(rest, "/") {
			return "", usage("%q: a path in the tree is written roam:/a/b", clip(arg))
		}
		return path.Clean(rest), nil
	}
	if arg == "" {
		return "", usage("the path is empty")
	}
	abs, err := filepath.Abs(arg)
	if err != nil {
		return "", err
	}
	if r.status == nil {
		s, err := r.client.status(ctx)
		if err != nil {
			return "", err
		}
		if r.mounts, err = mountPoints(); err != nil {
			return "", err
		}
		r.status = &s
	}
	return insideMounts(r.mounts, r.status.Mounts, abs, resolve)
}

// insideMounts returns the path in the tree of the file abs, which must lie in
// one of the file systems mounted at ours. A bind mount of a part of one counts
// as well. follow resolves the symbolic links of a path.
func insideMounts(list []mountPoint, ours []string, abs string, follow func(string) string) (string, error) {
	at := abs
	if m, ok := mountOf(list, abs); !ok || m.dir != abs { // the mount itself is no link
		at = filepath.Join(follow(filepath.Dir(abs)), filepath.Base(abs))
	}
	m, ok := mountOf(list, at)
	if !ok || m.fstype != fsType {
		return "", failure(CodeNotFound, "name a file inside the mount, or write roam:/a/b", "%s is not inside a roamfs mount", abs)
	}
	known := slices.ContainsFunc(list, func(o mountPoint) bool {
		return o.device == m.device && o.fstype == fsType && slices.Contains(ours, o.dir)
	})
	if !known {
		return "", failure(CodeNotFound, "name that device with --state DIR", "%s is inside the mount of another device", abs)
	}
	inside, err := filepath.Rel(m.dir, at)
	if err != nil {
		return "", fmt.Errorf("%s: %w", abs, err)
	}
	return path.Join("/", m.root, inside), nil
}

// hereOrRoot returns the PATH that a verb means without one: the current
// directory if it lies in a mount of the device, else the root of the tree.
func (r *resolver) hereOrRoot(ctx context.Context) (string, error) {
	if wd, err := os.Getwd(); err == nil {
		p, err := r.resolve(ctx, wd)
		if err == nil || ExitCode(err) != CodeNotFound {
			return p, err
		}
	}
	return "/", nil
}
