package app

import (
	"context"
	"time"
)

// Historian is the part of a [Device] that keeps earlier states of the tree.
type Historian interface {
	// Snapshots lists the kept states of the tree, the newest first.
	Snapshots(ctx context.Context) ([]SnapshotInfo, error)

	// Snapshot keeps the present state of the tree, under a name unless that is
	// empty. It returns the newest snapshot that there is if the tree did not
	// change since and name is empty. Errors: CodeUsage if name cannot be one.
	Snapshot(ctx context.Context, name string) (SnapshotInfo, error)

	// Versions lists the distinct versions of path, the newest first: as it is
	// now, if it is, and as the snapshots have it.
	Versions(ctx context.Context, path string) ([]PastVersion, error)

	// Restore brings path back as it was when when says: the name or the title of
	// a snapshot, a time, or an age; if when is empty, as it was in the newest
	// snapshot that has another version than there is now. It is put at to, or where
	// it was if to is empty. What is there now is kept in a snapshot before.
	Restore(ctx context.Context, path, when, to string) (Restored, error)
}

// SnapshotInfo is one line of "roam snapshots --json".
type SnapshotInfo struct {
	Schema   int        `json:"schema"`
	Time     time.Time  `json:"time"`
	Name     string     `json:"name"`     // as the user called it, or empty
	Snapshot string     `json:"snapshot"` // its directory under .roam/snapshots
	Reason   string     `json:"reason"`   // automatic, asked for, before a restore
	Device   *DeviceRef `json:"device"`   // that made it; nil: not known
}

// PastVersion is one line of "roam versions --json".
type PastVersion struct {
	Schema   int        `json:"schema"`
	Path     string     `json:"path"`
	Path64   []byte     `json:"path_base64,omitempty"`
	Current  bool       `json:"current"`            // it is what is there now
	Snapshot string     `json:"snapshot,omitempty"` // the newest that has it
	Name     string     `json:"name,omitempty"`     // of that snapshot
	Time     *time.Time `json:"time"`               // of that snapshot; nil if none has it
	Type     string     `json:"type"`
	Size     int64      `json:"size"`
	MTime    time.Time  `json:"mtime"`
	Device   *DeviceRef `json:"device"` // that wrote it; nil: not known

	// Of a file, where its content is: as in "roam ls --json", but that an old version
	// is never waiting to copy. Empty and 0 for anything else.
	State      string `json:"state,omitempty"`
	LocalBytes int64  `json:"local_bytes"`
	Copies     int    `json:"copies"`
}

// Restored is the object of "roam restore --json".
type Restored struct {
	Schema   int       `json:"schema"`
	Path     string    `json:"path"` // where it is now
	Path64   []byte    `json:"path_base64,omitempty"`
	Snapshot string    `json:"snapshot"` // that it is from
	Time     time.Time `json:"time"`     // of that snapshot
	Files    int       `json:"files"`    // made anew or given their old content
	Dirs     int       `json:"dirs"`     // made anew
	Same     int       `json:"same"`     // files that were as they should be
}

func (s *SnapshotInfo) stamp() { s.Schema = Schema }
func (v *PastVersion) stamp()  { v.Schema = Schema }
func (r *Restored) stamp()     { r.Schema = Schema }

func (v *PastVersion) eachPath(fn func(*string, *[]byte)) { fn(&v.Path, &v.Path64) }
func (r *Restored) eachPath(fn func(*string, *[]byte))    { fn(&r.Path, &r.Path64) }
