package app

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/roamfs/roamfs/sync/replica"
	"github.com/roamfs/roamfs/sync/tree"
)

// Conflicts lists the files of which there are several versions; see [Device].
func (d *live) Conflicts(context.Context) ([]Conflict, error) {
	all, err := d.replica.Disputes()
	if err != nil {
		return nil, err
	}
	out := make([]Conflict, 0, len(all))
	for _, x := range all {
		c := Conflict{Path: x.Path}
		for _, v := range x.Versions {
			_, shown, _ := d.stat(v.Node)
			w := Version{Path: v.Path, Type: kindWords[v.Kind], Size: shown.Size, MTime: time.Unix(0, shown.MTime), Copy: v.Copy}
			if v.Author.Label != "" {
				w.Device = &DeviceRef{ID: v.Author.ID.String(), Name: v.Author.Label}
				w.This = v.Author.ID == d.self.ID
			}
			c.Versions = append(c.Versions, w)
		}
		out = append(out, c)
	}
	return out, nil
}

// Resolve settles a conflict; see [Device].
func (d *live) Resolve(ctx context.Context, path string, keep Keep) (Resolved, error) {
	// What a program is writing to a version counts as well.
	all, err := d.replica.Disputes()
	if err != nil {
		return Resolved{}, err
	}
	for _, x := range all {
		if x.Path != path && !slices.ContainsFunc(x.Versions, func(v replica.Version) bool { return v.Path == path }) {
			continue
		}
		for _, v := range x.Versions {
			if err := d.files.Commit(ctx, v.Ino); err != nil {
				return Resolved{}, err
			}
		}
	}
	kept, removed, err := d.replica.Settle(path, map[Keep]replica.Keep{
		KeepMine: replica.KeepMine, KeepTheirs: replica.KeepTheirs, KeepBoth: replica.KeepBoth,
	}[keep])
	switch {
	case errors.Is(err, replica.ErrUndecided):
		return Resolved{}, failure(CodeConflict, "see `roam conflicts`; rename or remove the versions as you like, or keep both", "%s: %w", path, err)
	case errors.Is(err, tree.ErrIsDir):
		return Resolved{}, failure(CodeConflict, "move or remove it yourself, or keep both", "%w", err)
	case errors.Is(err, replica.ErrNoDispute):
		return Resolved{}, failure(CodeNotFound, "`roam conflicts` lists those that there are", "%s: %w", path, err)
	case err != nil:
		return Resolved{}, err
	}
	var done Resolved
	for _, v := range kept {
		done.Kept = append(done.Kept, Path{Path: v.Path})
	}
	for _, v := range removed {
		done.Removed = append(done.Removed, Path{Path: v.Path})
	}
	return done, nil
}
