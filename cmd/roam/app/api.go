package app

import (
	"context"
	"errors"
	"log/slog"
	"time"
)

// The roles of a device, as they are spelt on the command line.
const (
	RoleCache   = "cache"   // bounded: gives back space, keeps what nobody else has
	RoleArchive = "archive" // keeps everything
)

// Engine makes and opens the device of a state directory. The [State] that it is
// given is locked by this process, has mode 0700 and holds a valid config.toml.
// An error that is an [Error] keeps its exit code and hint.
type Engine interface {
	// Create makes the first device of a new hive in s, which holds nothing yet
	// but its settings. Whatever it wrote is removed by the caller if it fails.
	Create(ctx context.Context, s *State, o CreateOptions) (Created, error)

	// Join makes this device in s, which holds nothing yet but its settings, a
	// member of the hive whose invite is o.Code, and returns once s holds the
	// metadata of the tree. It reports how far it is to progress, on its own
	// goroutine. Whatever it wrote is removed by the caller if it fails.
	//
	// A code that is malformed is CodeUsage; one that the other side refuses, for
	// whatever reason, is CodeFailed; an inviter that cannot be reached is
	// CodeUnreachable.
	Join(ctx context.Context, s *State, o JoinOptions, progress func(Progress)) (Created, error)

	// Recover makes this device in s, which holds nothing yet but its settings, a
	// member of the hive of a recovery sheet, by a member that can be reached, and
	// returns as Join does. Text that is no sheet is CodeUsage; that no member can be
	// reached is CodeUnreachable.
	Recover(ctx context.Context, s *State, o RecoverOptions, progress func(Progress)) (Created, error)

	// Open opens the device of s without starting anything. Damage is an error
	// of CodeDamaged that says what is damaged and has a hint at what to do.
	Open(ctx context.Context, s *State, log *slog.Logger) (Device, error)
}

// Device is the running device, as the daemon drives it and the verbs see it.
// All methods except Run and Close may be called concurrently while Run is
// running. Paths are absolute in the tree, "/" or "/a/b", of any bytes. A path
// that does not exist is reported with [io/fs.ErrNotExist].
type Device interface {
	Historian

	// Run does the work of the device (peers, copies, eviction, commits) until
	// ctx ends, waits for what it started, and returns nil; or it returns what
	// makes going on impossible. It is called once.
	Run(ctx context.Context) error

	// Close releases everything after Run has returned and every mount has
	// ended.
	Close() error

	// Status reports the state of the device. It never waits for a network.
	// Schema, PID and Mounts are filled in by the caller.
	Status(ctx context.Context) (Status, error)

	// Devices lists the members of the hive, this device included, by name.
	Devices(ctx context.Context) ([]Member, error)

	// Rename gives the member called old the name name. Errors: CodeNotFound if
	// nobody is called old, CodeUsage if name is taken or no name.
	Rename(ctx context.Context, old, name string) error

	// SetRole gives the member called name another role, which it takes at its
	// next start. Errors are those of Rename.
	SetRole(ctx context.Context, name, role string) error

	// Revoke removes a member from the hive for good. Errors: CodeNotFound if nobody
	// is called so, CodeUsage for a sheet or reason that is none, CodeRefused if that
	// puts files at risk and o.Force is not set.
	Revoke(ctx context.Context, o RevokeOptions) (Revoked, error)

	// List calls fn for each entry of the directory path in the order of their
	// names, or once for path itself if it is not a directory. It ends with the
	// first error of fn.
	List(ctx context.Context, path string, fn func(Entry) error) error

	// Whereis tells which devices hold the content of path, a file or a
	// directory with all that is below it. With verify it asks the devices that
	// can be reached now; else it answers from what they said before.
	Whereis(ctx context.Context, path string, verify bool) (Whereis, error)

	// Conflicts lists the files of which there are several versions, by path.
	Conflicts(ctx context.Context) ([]Conflict, error)

	// Resolve settles the conflict that the file at path is part of. If keep does
	// not say which version stays, that is CodeConflict.
	Resolve(ctx context.Context, path string, keep Keep) (Resolved, error)

	// Pending lists what other devices did that is held back, by device.
	Pending(ctx context.Context) ([]Pending, error)

	// Decide lets through what is held back of the device called name, or of all for
	// "all"; without accept it brings back what that takes away. If nothing is held,
	// that is CodeNotFound.
	Decide(ctx context.Context, name string, accept bool) (Decided, error)

	// Rescue copies the files that this device has and the others do not, as far as is
	// known here, into the folder dir, an absolute path, which is made if it is missing and
	// else has to be empty.
	Rescue(ctx context.Context, dir string) (Rescued, error)

	// Invite opens an invite and calls fn, never concurrently, first with its
	// code and then with what happens to it. It returns nil once a device has
	// joined and holds the metadata of the tree, [ErrExpired] when the time is
	// over, and closes the invite in any case.
	Invite(ctx context.Context, o InviteOptions, fn func(InviteEvent)) error

	// Mount shows the tree at dir, an absolute path to an empty directory that
	// the caller has checked. It returns when the mount answers. The channel is
	// closed when the mount has ended, whoever ended it.
	Mount(ctx context.Context, dir string) (ended <-chan struct{}, err error)

	// Unmount ends the mount at dir. If programs use it, it reports [ErrBusy];
	// with detach it takes the mount away from the name space all the same.
	Unmount(ctx context.Context, dir string, detach bool) error

	// Flush commits what open and closed files have written so far, makes it
	// durable, and offers it to the devices that are connected, waiting for them
	// no longer than ctx allows. It reports what no other device is known to
	// hold.
	Flush(ctx context.Context) (OnlyHere, error)
}

// ErrExpired means that the time of an invite is over and nobody joined.
var ErrExpired = errors.New("nobody joined in time")

// ErrBusy means that a mount is in use: a program has a file open in it or
// stands in one of its directories.
var ErrBusy = errors.New("the mount is in use")

// CreateOptions say what the first device of a hive is to be.
type CreateOptions struct {
	Name string // 1 to 32 of a-z, 0-9 and '-'
	Role string // RoleCache or RoleArchive
}

// JoinOptions say what a new device of an existing hive asks to be.
type JoinOptions struct {
	Code      string   // as the other device printed it
	Name      string   // 1 to 32 of a-z, 0-9 and '-'; the hive appends a number if it is taken
	Role      string   // RoleCache, RoleArchive, or "" for what the invite says
	Addresses []string // multiaddresses to try besides those in the code
}

// RecoverOptions say how a new device comes into the hive of a recovery sheet.
type RecoverOptions struct {
	Sheet     string   // its text
	Name      string   // as in JoinOptions
	Role      string   // RoleCache or RoleArchive
	Addresses []string // multiaddresses of members; none: the local network is searched
}

// InviteOptions say whom an invite is for.
type InviteOptions struct {
	Role string        // what the new device is to be; "" leaves it to the new device
	TTL  time.Duration // how long the invite stays open
}

// Created is a device that was made by init or join.
type Created struct {
	Device        DeviceInfo
	Hive          HiveInfo
	RecoverySheet string // text for the owner to print; only of the first device
}

// Progress is how far long work is.
type Progress struct {
	Stage string `json:"stage"`       // a few words: "pairing", "reading the tree"
	Done  int64  `json:"done_bytes"`  // bytes of this stage
	Total int64  `json:"total_bytes"` // 0 if not known
}

// DeviceRef names a device.
type DeviceRef struct {
	ID   string `json:"id"`
	Name string `json:"name"`
}

// DeviceInfo is a device and its role.
type DeviceInfo struct {
	ID   string `json:"id"`
	Name string `json:"name"`
	Role string `json:"role"`
}

// HiveInfo names a hive.
type HiveInfo struct {
	ID string `json:"id"`
}

// Status is the object of "roam status --json".
type Status struct {
	Schema        int           `json:"schema"`
	Device        DeviceInfo    `json:"device"`
	Hive          HiveInfo      `json:"hive"`
	Root          string        `json:"root"`   // hex; equal on two devices exactly when they show the same tree and know the same history
	Mounts        []string      `json:"mounts"` // absolute directories
	Cache         CacheStatus   `json:"cache"`
	Peers         []PeerStatus  `json:"peers"` // the other devices, by name
	History       HistoryStatus `json:"history"`
	WaitingToCopy Amount        `json:"waiting_to_copy"`
	Conflicts     int           `json:"conflicts"`
	Pending       []Pending     `json:"pending"`   // what is held back until roam accept or reject, by device
	Epoch         uint32        `json:"epoch"`     // whose secret seals what is written now; a new one begins when a device is removed
	Revoked       bool          `json:"revoked"`   // this device was removed from the hive
	HeldBack      HeldBack      `json:"held_back"` // what devices did after they were removed
	SafeToStop    bool          `json:"safe_to_stop"`
	UnsafeBecause []string      `json:"unsafe_because"` // one plain sentence each, empty if safe
	Unavailable   []Unavailable `json:"unavailable"`    // reads that failed lately, the newest last; at most 16
	Addresses     []string      `json:"addresses"`      // multiaddresses at which other devices reach this one
	PID           int           `json:"pid"`
}

// CacheStatus is the use of the state directory. Sizes are bytes on the disk.
type CacheStatus struct {
	LimitBytes    int64 `json:"limit_bytes"` // 0: no bound
	UsedBytes     int64 `json:"used_bytes"`
	OnlyHereBytes int64 `json:"only_here_bytes"` // content that no other device is known to hold
	PinnedBytes   int64 `json:"pinned_bytes"`
	Blocks        int64 `json:"blocks"`
}

// PeerStatus is another device as this one sees it.
type PeerStatus struct {
	DeviceInfo
	Connected bool       `json:"connected"`
	LastSeen  *time.Time `json:"last_seen"` // nil: never
	RTT       *float64   `json:"rtt_ms"`    // nil: not known
	Path      string     `json:"path"`      // how it is reached: "lan tcp", "lan quic", …; empty if not connected
	Problem   string     `json:"problem"`   // what is wrong with it, such as why nothing of the tree is exchanged; empty if nothing is
}

// Amount is a number of files and the bytes of their content.
type Amount struct {
	Files int64 `json:"files"`
	Bytes int64 `json:"bytes"`
}

// Unavailable is a read that failed because no device that holds the bytes
// could be reached.
type Unavailable struct {
	Path    string      `json:"path"`
	Path64  []byte      `json:"path_base64,omitempty"` // filled in where Path is not valid UTF-8
	Holders []DeviceRef `json:"holders"`               // the devices that hold or should hold it
	At      time.Time   `json:"at"`
}

// Member is one line of "roam devices --json".
type Member struct {
	Schema int `json:"schema"`
	DeviceInfo
	This      bool       `json:"this"` // the device that answers
	Connected bool       `json:"connected"`
	LastSeen  *time.Time `json:"last_seen"` // nil: never, or this device
	Added     time.Time  `json:"added"`
	// Of a device that was removed from the hive:
	Revoked  *time.Time `json:"revoked,omitempty"`
	Reason   string     `json:"reason,omitempty"` // retired, lost or compromised
	HeldBack *HeldBack  `json:"held_back,omitempty"`
}

// HeldBack is work of devices that were removed from the hive, which they did
// after that and which is not part of the tree.
type HeldBack struct {
	Commits uint64 `json:"commits"`
}

// RevokeOptions say which device is removed from the hive, and on whose word.
type RevokeOptions struct {
	Name   string
	Sheet  string // text of the recovery sheet; "" if the device removes itself
	Reason string // retired, lost or compromised
	Force  bool   // also if that puts files at risk
}

// Revoked is the object of "roam devices revoke --json".
type Revoked struct {
	Schema int        `json:"schema"`
	Device DeviceInfo `json:"device"`
	This   bool       `json:"this"` // it was the device that answers
	Reason string     `json:"reason"`
	AtRisk Amount     `json:"at_risk"` // content that only it is known to hold
}

// The words for where the content of a file is. A directory has the state of
// what is in it as far as that is known without looking far: usually "here".
const (
	StateHere        = "here"
	StatePartly      = "partly here"
	StateElsewhere   = "elsewhere"
	StatePinned      = "pinned"
	StateWaiting     = "waiting to copy"
	StateConflict    = "conflict"
	StateUnavailable = "unavailable"
)

// Entry is one line of "roam ls --json".
type Entry struct {
	Schema     int       `json:"schema"`
	Path       string    `json:"path"` // absolute in the tree
	Path64     []byte    `json:"path_base64,omitempty"`
	Type       string    `json:"type"` // file, dir, symlink, fifo
	Size       int64     `json:"size"`
	MTime      time.Time `json:"mtime"`
	State      string    `json:"state"` // one of the State words
	LocalBytes int64     `json:"local_bytes"`
	Pinned     bool      `json:"pinned"`
	Copies     int       `json:"copies"` // devices that hold all of it, this one included
	Conflict   bool      `json:"conflict"`
}

// Whereis is one line of "roam whereis --json".
type Whereis struct {
	Schema     int      `json:"schema"`
	Path       string   `json:"path"`
	Path64     []byte   `json:"path_base64,omitempty"`
	Size       int64    `json:"size"`
	LocalBytes int64    `json:"local_bytes"`
	Holders    []Holder `json:"holders"` // devices that hold any of it, by name, this one included
	Copies     int      `json:"copies"`  // devices that hold all of it
}

// Holder is a device that holds some of a file.
type Holder struct {
	DeviceRef
	This     bool       `json:"this"`
	Complete bool       `json:"complete"`
	Bytes    int64      `json:"bytes"`
	AsOf     *time.Time `json:"as_of"`    // when it said so; a Device may leave it nil for itself, which means now
	Verified bool       `json:"verified"` // it said so in answer to this question
}

// Conflict is one line of "roam conflicts --json".
type Conflict struct {
	Schema   int       `json:"schema"`
	Path     string    `json:"path"` // that all versions want
	Path64   []byte    `json:"path_base64,omitempty"`
	Versions []Version `json:"versions"` // first the one that has the path, if there is one
}

// Version is one of the files in conflict.
type Version struct {
	Path   string     `json:"path"`
	Path64 []byte     `json:"path_base64,omitempty"`
	Type   string     `json:"type"`
	Size   int64      `json:"size"`
	MTime  time.Time  `json:"mtime"`
	Device *DeviceRef `json:"device"` // that wrote it; nil: not known
	This   bool       `json:"this"`   // this device did
	Copy   bool       `json:"copy"`   // its name was made up
}

// Keep says which versions of a file in conflict stay.
type Keep string

// What Keep can be.
const (
	KeepMine   Keep = "mine"   // that of this device
	KeepTheirs Keep = "theirs" // that of another device
	KeepBoth   Keep = "both"   // all, under names of their own
)

// Resolved is the object of "roam resolve --json".
type Resolved struct {
	Schema  int    `json:"schema"`
	Kept    []Path `json:"kept"`
	Removed []Path `json:"removed"` // where they were
}

// Pending is one line of "roam pending --json": what one device did that takes away
// much of the tree, and is held back here until it is accepted or rejected; or, if Late is
// not 0, what a device did after it was removed, which is only shown.
type Pending struct {
	Schema    int       `json:"schema,omitempty"`
	Device    DeviceRef `json:"device"`
	Removes   int       `json:"removes"`  // files and directories
	Rewrites  int       `json:"rewrites"` // files
	Since     time.Time `json:"since"`
	WholeTree bool      `json:"whole_tree"`     // all that the device knows is held, as it comes as one
	Paths     []Path    `json:"paths"`          // some of what would be lost, at most 10
	Late      uint64    `json:"late,omitempty"` // changes made after Since, when the device was removed
}

// Decided is the object of "roam accept --json" and "roam reject --json".
type Decided struct {
	Schema  int         `json:"schema"`
	Devices []DeviceRef `json:"devices"` // of which something was held back
}

// Rescued is the object of "roam rescue --json".
type Rescued struct {
	Schema  int    `json:"schema"`
	Dir     string `json:"dir"`
	Files   int64  `json:"files"`
	Bytes   int64  `json:"bytes"`
	Lacking int64  `json:"lacking"` // files of which this device lacks a part, and which were not copied
	Missing []Path `json:"missing"` // some of these, at most 100
}

// InviteEvent is one line of "roam invite --json". Exactly one of Code, Joined
// and Refused is set.
type InviteEvent struct {
	Schema  int        `json:"schema"`
	Code    string     `json:"code,omitempty"`
	Expires *time.Time `json:"expires,omitempty"` // with Code
	Joined  *DeviceRef `json:"joined,omitempty"`
	Refused string     `json:"refused,omitempty"` // why an attempt to join was refused, in plain words
}

// OnlyHere is what would be lost with this device.
type OnlyHere struct {
	Amount
	Paths []string `json:"-"` // some of them, at most 10
}

// Mounted is the answer to a request to mount.
type Mounted struct {
	Schema int    `json:"schema"`
	Dir    string `json:"mount"`
	PID    int    `json:"pid"`
}

// Ended is the answer to a request to unmount or stop, and the object that
// these verbs print with --json.
type Ended struct {
	Schema   int      `json:"schema"`
	Mount    string   `json:"mount,omitempty"` // the mount that was ended; empty for stop
	OnlyHere Amount   `json:"only_here"`
	Paths    []Path   `json:"only_here_paths"` // some of them
	Stopping bool     `json:"stopping"`        // the process ends too
	Detached []string `json:"detached"`        // mounts taken away while programs used them
	PID      int      `json:"pid"`
}

// Path is a path in the tree within an answer.
type Path struct {
	Path   string `json:"path"`
	Path64 []byte `json:"path_base64,omitempty"`
}
