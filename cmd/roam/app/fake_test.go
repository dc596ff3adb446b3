package app

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/roamfs/roamfs/peer/device"
)

// fakeEngine makes devices that have neither a network nor a real mount: what
// the verbs, the socket and the life of the daemon need. Its tree is fixed, and
// the code of an invite says what the invite is to do.
type fakeEngine struct {
	opened chan *fakeDevice // takes each device that is opened, if not nil
}

func (fakeEngine) create(s *State, name, role string) (Created, error) {
	key, err := device.Generate()
	if err != nil {
		return Created{}, err
	}
	if err := errors.Join(key.Save(s.KeyFile()), os.MkdirAll(filepath.Join(s.Database(), "deep"), 0o700)); err != nil {
		return Created{}, err
	}
	return Created{
		Device: DeviceInfo{ID: key.ID().String(), Name: name, Role: role},
		Hive:   HiveInfo{ID: "hive"},
	}, nil
}

func (e fakeEngine) Create(_ context.Context, s *State, o CreateOptions) (Created, error) {
	c, err := e.create(s, o.Name, o.Role)
	c.RecoverySheet = "the way back\n"
	return c, err
}

func (e fakeEngine) Join(ctx context.Context, s *State, o JoinOptions, progress func(Progress)) (Created, error) {
	progress(Progress{Stage: "pairing"})
	role := o.Role
	if role == "" {
		role = RoleCache
	}
	c, err := e.create(s, o.Name, role)
	if err != nil {
		return Created{}, err
	}
	switch {
	case strings.HasPrefix(o.Code, "good"):
		progress(Progress{Stage: "reading the tree", Done: 1 << 20, Total: 2 << 20})
		return c, nil
	case o.Code == "far":
		return Created{}, failure(CodeUnreachable, "", "%s cannot be reached", strings.Join(o.Addresses, " "))
	case o.Code == "wait":
		<-ctx.Done()
		return Created{}, ctx.Err()
	}
	return Created{}, errors.New("the code was refused")
}

func (e fakeEngine) Recover(_ context.Context, s *State, o RecoverOptions, progress func(Progress)) (Created, error) {
	progress(Progress{Stage: "looking"})
	switch {
	case o.Sheet != "the way back\n":
		return Created{}, usage("not a recovery sheet")
	case len(o.Addresses) == 0:
		return Created{}, failure(CodeUnreachable, "", "nobody answers")
	}
	return e.create(s, o.Name, o.Role)
}

func (e fakeEngine) Open(_ context.Context, s *State, log *slog.Logger) (Device, error) {
	if _, err := os.Stat(filepath.Join(s.Database(), "broken")); err == nil {
		return nil, failure(CodeDamaged, "put it back", "the database is damaged")
	}
	if _, err := s.Config(); err != nil {
		return nil, err
	}
	d := &fakeDevice{id: s.Key().ID().String(), log: log, mounts: map[string]chan struct{}{}}
	if e.opened != nil {
		e.opened <- d
	}
	return d, nil
}

type fakeDevice struct {
	id  string
	log *slog.Logger

	mu      sync.Mutex
	mounts  map[string]chan struct{}
	busy    bool // the mounts are in use
	flushes int
	only    OnlyHere
	status  *Status // instead of a plain one
	running bool
	closed  bool
}

var errFake = errors.New("fake misuse")

func (d *fakeDevice) Run(ctx context.Context) error {
	d.mu.Lock()
	d.running = true
	d.mu.Unlock()
	<-ctx.Done()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.running = false
	return nil
}

func (d *fakeDevice) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.running || d.closed {
		return errFake
	}
	d.closed = true
	return nil
}

func (d *fakeDevice) Status(context.Context) (Status, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.status != nil {
		return *d.status, nil
	}
	return Status{Device: DeviceInfo{ID: d.id, Name: "laptop", Role: RoleCache}, SafeToStop: true}, nil
}

func (d *fakeDevice) Devices(context.Context) ([]Member, error) {
	seen := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	return []Member{
		{DeviceInfo: DeviceInfo{"id-1", "laptop", RoleCache}, This: true, Added: seen},
		{DeviceInfo: DeviceInfo{"id-2", "nas", RoleArchive}, Connected: true, LastSeen: &seen, Added: seen},
	}, nil
}

func (d *fakeDevice) Rename(_ context.Context, old, name string) error {
	if old != "nas" {
		return failure(CodeNotFound, "", "no device is called %s", old)
	}
	if name != "nas" { // what it is called all the same
		return usage("%s is taken", name)
	}
	return nil
}

func (d *fakeDevice) SetRole(_ context.Context, name, role string) error {
	if role != RoleArchive {
		return usage("no role is called %s", role)
	}
	return nil
}

func (d *fakeDevice) Revoke(_ context.Context, o RevokeOptions) (Revoked, error) {
	switch {
	case o.Name == "laptop" && !o.Force:
		return Revoked{}, failure(CodeRefused, "add --force", "it is the last one")
	case o.Name == "laptop" && o.Reason == "retired":
		return Revoked{Device: DeviceInfo{"id-1", "laptop", RoleCache}, This: true, Reason: o.Reason}, nil
	case o.Name != "nas":
		return Revoked{}, failure(CodeNotFound, "", "no device is called %s", o.Name)
	case o.Sheet != "the way back\n":
		return Revoked{}, usage("not a recovery sheet")
	}
	return Revoked{Device: DeviceInfo{"id-2", "nas", RoleArchive}, Reason: o.Reason}, nil
}

// fakeTree is what every fake device shows.
var fakeTree = []Entry{
	{Path: "/notes.txt", Type: "file", Size: 1536, State: StateHere, LocalBytes: 1536, Copies: 2},
	{Path: "/odd\xff\n", Type: "file", Size: 3, State: StateElsewhere, Copies: 1},
	{Path: "/photos", Type: "dir", State: StateHere},
	{Path: "/photos/a <b>.jpg", Type: "file", Size: 3 << 20, State: StatePartly, LocalBytes: 1 << 20, Copies: 1},
}

func (d *fakeDevice) List(_ context.Context, p string, fn func(Entry) error) error {
	found := p == "/"
	for _, e := range fakeTree {
		e.MTime = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
		if e.Path == p && e.Type != "dir" {
			return fn(e)
		}
		found = found || e.Path == p
		if path.Dir(e.Path) == p {
			if err := fn(e); err != nil {
				return err
			}
		}
	}
	if !found {
		return fmt.Errorf("roam:%s: %w", p, fs.ErrNotExist)
	}
	return nil
}

func (d *fakeDevice) Whereis(_ context.Context, p string, verify bool) (Whereis, error) {
	at := slices.IndexFunc(fakeTree, func(e Entry) bool { return e.Path == p })
	if at < 0 {
		return Whereis{}, fmt.Errorf("roam:%s: %w", p, fs.ErrNotExist)
	}
	e := fakeTree[at]
	said := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	w := Whereis{Path: p, Size: e.Size, LocalBytes: e.LocalBytes, Copies: 1, Holders: []Holder{
		{DeviceRef: DeviceRef{"id-1", "laptop"}, This: true, Bytes: e.LocalBytes, AsOf: &said, Complete: e.LocalBytes == e.Size},
		{DeviceRef: DeviceRef{"id-2", "nas"}, Complete: true, Bytes: e.Size, AsOf: &said, Verified: verify},
	}}
	if e.LocalBytes == e.Size {
		w.Copies++
	}
	return w, nil
}

func (d *fakeDevice) Conflicts(context.Context) ([]Conflict, error) {
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	return []Conflict{{Path: "/f.txt", Versions: []Version{
		{Path: "/f.txt", Type: "file", Size: 1536, MTime: at, Device: &DeviceRef{"id-2", "nas"}},
		{Path: "/f (conflict laptop 2026-03-01 abcdef).txt", Type: "file", Size: 3, MTime: at, Device: &DeviceRef{"id-1", "laptop"}, This: true, Copy: true},
	}}, {Path: "/x\xff", Versions: []Version{{Path: "/x\xff (conflict gone 2026-03-01 abcdef)", Type: "dir", MTime: at, Copy: true}}}}, nil
}

func (d *fakeDevice) Resolve(_ context.Context, p string, keep Keep) (Resolved, error) {
	switch {
	case p != "/f.txt":
		return Resolved{}, failure(CodeNotFound, "", "%s: there is no conflict", p)
	case keep == KeepTheirs:
		return Resolved{}, failure(CodeConflict, "keep both", "it could be any")
	case keep == KeepBoth:
		return Resolved{Kept: []Path{{Path: p}, {Path: "/other"}}}, nil
	}
	return Resolved{Kept: []Path{{Path: p}}, Removed: []Path{{Path: "/f (conflict laptop 2026-03-01 abcdef).txt"}}}, nil
}

func (d *fakeDevice) Pending(context.Context) ([]Pending, error) {
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	return []Pending{
		{Device: DeviceRef{"id-2", "nas"}, Removes: 1500, Since: at, Paths: []Path{{Path: "/photos/1.jpg"}, {Path: "/x\xff"}}},
		{Device: DeviceRef{"id-3", "desktop"}, Rewrites: 2001, Since: at, WholeTree: true},
		{Device: DeviceRef{"id-4", "phone"}, Since: at, Late: 1},
	}, nil
}

func (d *fakeDevice) Decide(_ context.Context, name string, accept bool) (Decided, error) {
	switch {
	case name == "all" && accept:
		return Decided{Devices: []DeviceRef{{"id-3", "desktop"}, {"id-2", "nas"}}}, nil
	case name == "nas":
		return Decided{Devices: []DeviceRef{{"id-2", "nas"}}}, nil
	}
	return Decided{}, failure(CodeNotFound, "`roam pending` lists what is held back", "nothing of %s is held back", name)
}

func (d *fakeDevice) Rescue(_ context.Context, dir string) (Rescued, error) {
	switch filepath.Base(dir) {
	case "nothing":
		return Rescued{Dir: dir}, nil
	case "full":
		return Rescued{}, failure(CodeFailed, "name a new or empty folder", "the folder %s is not empty", dir)
	case "part":
		return Rescued{Dir: dir, Files: 1, Bytes: 2048, Lacking: 1, Missing: []Path{{Path: "/films/\xff.mkv"}}}, nil
	}
	return Rescued{Dir: dir, Files: 2, Bytes: 2048}, nil
}

func (d *fakeDevice) Invite(ctx context.Context, o InviteOptions, fn func(InviteEvent)) error {
	until := time.Date(2026, 3, 1, 12, 10, 0, 0, time.UTC)
	fn(InviteEvent{Code: "roamfs-pair:1?a=b&c", Expires: &until})
	if o.Role == RoleArchive {
		fn(InviteEvent{Refused: "wrong code"})
		fn(InviteEvent{Joined: &DeviceRef{"id-3", "desktop"}})
		return nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, o.TTL, ErrExpired)
	defer cancel()
	<-ctx.Done()
	return context.Cause(ctx)
}

func (d *fakeDevice) Mount(_ context.Context, dir string) (<-chan struct{}, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.mounts[dir] != nil {
		return nil, errFake
	}
	d.log.Info("mounted", "mount", dir)
	d.mounts[dir] = make(chan struct{})
	return d.mounts[dir], nil
}

func (d *fakeDevice) Unmount(_ context.Context, dir string, detach bool) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	ended := d.mounts[dir]
	switch {
	case ended == nil:
		return errFake
	case d.busy && !detach:
		return ErrBusy
	}
	delete(d.mounts, dir)
	if !detach {
		close(ended)
	}
	return nil
}

// vanish ends a mount as fusermount3 -u does.
func (d *fakeDevice) vanish(dir string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	close(d.mounts[dir])
	delete(d.mounts, dir)
}

func (d *fakeDevice) Flush(context.Context) (OnlyHere, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.flushes++
	return d.only, nil
}
