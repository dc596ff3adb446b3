package app

import (
	"context"
	"time"
)

var pastTime = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func (d *fakeDevice) Snapshots(context.Context) ([]SnapshotInfo, error) {
	return []SnapshotInfo{
		{Time: pastTime.Add(time.Hour), Snapshot: "2026-03-01T130000Z-before the move", Name: "before the move", Reason: "asked for", Device: &DeviceRef{"id-1", "laptop"}},
		{Time: pastTime, Snapshot: "2026-03-01T120000Z", Reason: "automatic"},
	}, nil
}

func (d *fakeDevice) Snapshot(_ context.Context, name string) (SnapshotInfo, error) {
	if name == "2h" {
		return SnapshotInfo{}, usage("name %q is a time", name)
	}
	return SnapshotInfo{Time: pastTime, Name: name, Snapshot: "2026-03-01T120000Z-" + name, Reason: "asked for"}, nil
}

func (d *fakeDevice) Versions(_ context.Context, path string) ([]PastVersion, error) {
	if path != "/f.txt" {
		return nil, nothingThere(path)
	}
	return []PastVersion{
		{Path: path, Current: true, Type: "file", Size: 1536, MTime: pastTime.Add(time.Hour), Device: &DeviceRef{"id-2", "nas"}, State: StateHere, LocalBytes: 1536, Copies: 2},
		{Path: path, Snapshot: "2026-03-01T120000Z", Time: &pastTime, Type: "file", Size: 3, MTime: pastTime, State: StateElsewhere, Copies: 1},
		{Path: path, Snapshot: "2026-02-01T120000Z", Time: &pastTime, Type: "dir", MTime: pastTime},
	}, nil
}

func (d *fakeDevice) Restore(_ context.Context, path, when, to string) (Restored, error) {
	switch {
	case when != "":
		return Restored{}, usage("when is part of the path")
	case path == "/f.txt@yesterday" && to == "":
		return Restored{Path: "/f.txt", Snapshot: "2026-03-01T120000Z", Time: pastTime, Files: 1}, nil
	case path == "/d" && to == "/e":
		return Restored{Path: to, Snapshot: "2026-03-01T120000Z", Time: pastTime, Same: 2}, nil
	}
	return Restored{}, nothingThere(path)
}
