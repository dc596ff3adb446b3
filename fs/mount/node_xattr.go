package mount

import (
	"context"
	"maps"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	userPrefix = "user."
	roamPrefix = "user.roam."
)

// Getxattr implements [fs.NodeGetxattrer].
func (n *node) Getxattr(_ context.Context, name string, dest []byte) (uint32, syscall.Errno) {
	var value []byte
	switch {
	case strings.HasPrefix(name, roamPrefix):
		v, errno := n.roamAttr(name[len(roamPrefix):])
		if errno != 0 {
			return 0, errno
		}
		value = v
	case strings.HasPrefix(name, userPrefix):
		attrs, err := n.attrs()
		if err != nil {
			return 0, n.fail("getxattr", err)
		}
		v, ok := attrs[name]
		if !ok {
			return 0, syscall.ENODATA
		}
		value = v
	default:
		return 0, syscall.EOPNOTSUPP
	}
	return copyAttr(dest, value)
}

// copyAttr answers a request for an attribute, or only for its size.
func copyAttr(dest, value []byte) (uint32, syscall.Errno) {
	if len(dest) < len(value) {
		return uint32(len(value)), syscall.ERANGE
	}
	return uint32(copy(dest, value)), 0
}

// Listxattr implements [fs.NodeListxattrer]. The virtual attributes are left
// out, lest cp -a and rsync -X copy them.
func (n *node) Listxattr(_ context.Context, dest []byte) (uint32, syscall.Errno) {
	attrs, err := n.attrs()
	if err != nil {
		return 0, n.fail("listxattr", err)
	}
	var names []byte
	for _, name := range slices.Sorted(maps.Keys(attrs)) {
		if strings.HasPrefix(name, userPrefix) && !strings.HasPrefix(name, roamPrefix) {
			names = append(append(names, name...), 0)
		}
	}
	return copyAttr(dest, names)
}

// attrs returns the stored attributes by name; read-only.
func (n *node) attrs() (map[string][]byte, error) {
	n.mu.Lock()
	was, own := n.was, n.xattrs
	n.mu.Unlock()
	if was != nil && own != nil {
		return own, nil
	}
	t, err := n.now()
	return t.Xattrs, err
}

// Setxattr implements [fs.NodeSetxattrer].
func (n *node) Setxattr(_ context.Context, name string, data []byte, flags uint32) syscall.Errno {
	if attr, ok := strings.CutPrefix(name, roamPrefix); ok {
		if attr != "pinned" {
			return syscall.EPERM
		}
		return n.pin(!slices.Contains([]string{"0", "no", "false"}, string(data)))
	}
	if !strings.HasPrefix(name, userPrefix) {
		return syscall.EOPNOTSUPP
	}
	attrs, err := n.attrs()
	if err != nil {
		return n.fail("setxattr", err)
	}
	switch _, exists := attrs[name]; {
	case exists && flags&unix.XATTR_CREATE != 0:
		return syscall.EEXIST
	case !exists && flags&unix.XATTR_REPLACE != 0:
		return syscall.ENODATA
	}
	value := append([]byte{}, data...) // go-fuse takes data back
	if n.alterAttrs(attrs, func(a map[string][]byte) { a[name] = value }) {
		return 0
	}
	if err := n.m.tree.SetXattr(n.ino, name, value); err != nil {
		return n.fail("setxattr", err)
	}
	n.touch()
	return 0
}

// Removexattr implements [fs.NodeRemovexattrer].
func (n *node) Removexattr(_ context.Context, name string) syscall.Errno {
	if attr, ok := strings.CutPrefix(name, roamPrefix); ok {
		if attr != "pinned" {
			return syscall.EPERM
		}
		return n.pin(false)
	}
	if !strings.HasPrefix(name, userPrefix) {
		return syscall.EOPNOTSUPP
	}
	attrs, err := n.attrs()
	if err != nil {
		return n.fail("removexattr", err)
	}
	if _, ok := attrs[name]; !ok {
		return syscall.ENODATA
	}
	if n.alterAttrs(attrs, func(a map[string][]byte) { delete(a, name) }) {
		return 0
	}
	if err := n.m.tree.RemoveXattr(n.ino, name); err != nil {
		return n.fail("removexattr", err)
	}
	n.touch()
	return 0
}

// alterAttrs changes the attributes of a file without a name; false if it has one.
func (n *node) alterAttrs(now map[string][]byte, fn func(map[string][]byte)) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.was == nil {
		return false
	}
	attrs := map[string][]byte{}
	maps.Copy(attrs, now)
	fn(attrs)
	n.xattrs = attrs
	return true
}

func (n *node) pin(pinned bool) syscall.Errno {
	if err := n.m.status.SetPinned(n.ino, pinned); err != nil {
		return n.fail("pin", err)
	}
	return 0
}

// roamAttr returns a virtual attribute, ENODATA if there is none of that name
// or if it is not so (not pinned, no conflict).
func (n *node) roamAttr(name string) ([]byte, syscall.Errno) {
	if name == "conflict" {
		t, err := n.now()
		if err != nil {
			return nil, n.fail("getxattr", err)
		}
		if !t.Conflict {
			return nil, syscall.ENODATA
		}
		return []byte("1"), 0
	}
	var show func(State) string
	switch name {
	case "state":
		show = func(s State) string { return s.State }
	case "local_bytes":
		show = func(s State) string { return strconv.FormatInt(s.LocalBytes, 10) }
	case "copies":
		show = func(s State) string { return strconv.Itoa(s.Copies) }
	case "where":
		show = func(s State) string { return strings.Join(s.Where, ",") }
	case "pinned":
		show = func(s State) string {
			if !s.Pinned {
				return ""
			}
			return "1"
		}
	default:
		return nil, syscall.ENODATA
	}
	s, err := n.m.status.State(n.ino)
	if err != nil {
		return nil, n.fail("getxattr", err)
	}
	v := show(s)
	if name == "pinned" && v == "" {
		return nil, syscall.ENODATA
	}
	return []byte(v), 0
}
