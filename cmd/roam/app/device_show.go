package app

import (
	"context"
	"encoding/json"
	"errors"
	"syscall"

	"github.com/roamfs/roamfs/fs/mount"
	"github.com/roamfs/roamfs/sync/tree"
)

// SetPinned is answered with "not supported" until pins exist.
func (shown) SetPinned(tree.Ino, bool) error { return errors.ErrUnsupported }

// StatusJSON is what "roam status --json" prints, for .roam/status.json.
func (s shown) StatusJSON() []byte {
	st, err := s.d.Status(context.Background())
	if err != nil {
		s.d.log.Warn("status", "err", err)
		return []byte("{}\n")
	}
	st.Mounts = s.d.mountDirs()
	st.PID = syscall.Getpid()
	st.stamp()
	b, err := json.Marshal(st)
	if err != nil {
		s.d.log.Warn("status", "err", err)
		return []byte("{}\n")
	}
	return append(b, '\n')
}

func (d *live) mountDirs() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := make([]string, 0, len(d.mounts))
	for dir := range d.mounts {
		out = append(out, dir)
	}
	return out
}

// Room is what df shows: what can be written here before writers have to wait
// for copies, and beside it what is taken.
func (s shown) Room() mount.Room {
	u := s.d.cache.Usage()
	var disk syscall.Statfs_t
	if err := syscall.Statfs(s.d.state.Dir(), &disk); err != nil {
		s.d.log.Warn("free space", "err", err)
		return mount.Room{}
	}
	free := int64(disk.Bavail) * disk.Bsize
	r := mount.Room{Files: 1 << 32, FilesFree: 1<<32 - 1}
	if u.Limit == 0 {
		r.Total, r.Free, r.Avail = u.Used+free, free, free
		return r
	}
	_, waiting := s.d.keeper.Waiting()
	r.Total = u.Limit
	r.Free = max(min(u.Limit-u.Overhead-u.Reserved-waiting, free+u.Used), 0)
	r.Avail = r.Free
	return r
}
