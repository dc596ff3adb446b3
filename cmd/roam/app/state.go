package app

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/roamfs/roamfs/peer/device"
)

// State is the state directory of one device; the package comment lists what
// lies in it. Its methods do not change after creation and are safe for
// concurrent use, except Close.
type State struct {
	dir  string // absolute, symbolic links resolved as far as it exists
	lock *os.File
	key  device.Key // zero while the directory is being made
}

// The names in a state directory.
const (
	configName     = "config.toml"
	keyName        = "identity.key"
	sheetName      = "recovery-sheet.txt"
	lockName       = "lock"
	socketName     = "api.sock"
	databaseName   = "db"
	blocksName     = "blocks"
	draftsName     = "drafts"
	logName        = "log"
	oldLogName     = "log.old"
	stagingName    = "staging" // a tree that is being received
	keptName       = "kept"    // what makes the next start fast
	unfinishedName = "unfinished"

	incarnationName = "incarnation"
)

// Dir returns the absolute path of the directory.
func (s *State) Dir() string { return s.dir }

func (s *State) path(name string) string { return filepath.Join(s.dir, name) }

// ConfigFile returns the path of config.toml.
func (s *State) ConfigFile() string { return s.path(configName) }

// KeyFile returns the path of the device key.
func (s *State) KeyFile() string { return s.path(keyName) }

// RecoverySheet returns the path of the recovery sheet, which only the first
// device of a hive has.
func (s *State) RecoverySheet() string { return s.path(sheetName) }

// LockFile returns the path of the lock.
func (s *State) LockFile() string { return s.path(lockName) }

// Socket returns the path of the daemon's socket.
func (s *State) Socket() string { return s.path(socketName) }

// Database returns the directory of the local database.
func (s *State) Database() string { return s.path(databaseName) }

// Blocks returns the directory of the block cache.
func (s *State) Blocks() string { return s.path(blocksName) }

// Drafts returns the directory of the drafts.
func (s *State) Drafts() string { return s.path(draftsName) }

// LogFile returns the path of the log of a daemon in the background.
func (s *State) LogFile() string { return s.path(logName) }

// Config reads the settings of the device.
func (s *State) Config() (Config, error) { return readConfig(s.ConfigFile()) }

// statePath returns the state directory that a command line means: flag if it
// is not empty, else $ROAM_STATE, else roamfs in the user's data directory.
func statePath(flag string, getenv func(string) string) (string, error) {
	dir := flag
	if dir == "" {
		dir = getenv("ROAM_STATE")
	}
	if dir == "" {
		data := getenv("XDG_DATA_HOME")
		if !filepath.IsAbs(data) { // the specification says to ignore relative ones
			home := getenv("HOME")
			if home == "" {
				return "", failure(CodeUsage, "say where the device lies with --state DIR", "neither $XDG_DATA_HOME nor $HOME is set")
			}
			data = filepath.Join(home, ".local", "share")
		}
		dir = filepath.Join(data, "roamfs")
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("state directory %s: %w", dir, err)
	}
	return resolve(abs), nil
}

// resolve follows the symbolic links in the part of path that exists.
func resolve(path string) string {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		return real
	}
	parent := filepath.Dir(path)
	if parent == path {
		return path
	}
	return filepath.Join(resolve(parent), filepath.Base(path))
}

// presence is what a state directory looks like from outside.
type presence int

const (
	absent     presence = iota // no such directory, or nothing in it but settings
	unfinished                 // init or join is at work, or was interrupted
	present                    // a device lies here
	foreign                    // something else lies here
)

// look tells what lies in dir. It looks at names only.
func look(dir string) (presence, error) {
	list, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return absent, nil
	}
	if err != nil {
		return absent, fmt.Errorf("state directory: %w", err)
	}
	names := map[string]bool{}
	for _, e := range list {
		names[e.Name()] = true
	}
	if names[unfinishedName] {
		return unfinished, nil
	}
	for _, known := range []string{keyName, databaseName, blocksName, sheetName} {
		if names[known] {
			return present, nil
		}
	}
	delete(names, configName)
	delete(names, lockName) // left by an attempt that was undone
	if len(names) > 0 {
		return foreign, nil
	}
	return absent, nil
}

// openState opens and locks the directory of a device that exists, and checks
// what can be checked without opening its database. The caller closes it.
func openState(dir string) (*State, error) {
	if err := refuseInsideMount(dir); err != nil {
		return nil, err
	}
	switch p, err := look(dir); {
	case err != nil:
		return nil, err
	case p == absent:
		return nil, noDevice(dir)
	case p == foreign:
		return nil, notState(dir)
	case p == unfinished:
		if holder := lockHolder(dir); holder != 0 {
			return nil, held(dir, holder)
		}
		return nil, failure(CodeFailed, "run it again; it starts over by itself", "init or join was interrupted in %s", dir)
	}
	// A group or world permission was given by a person or by a copy; nothing
	// of ours needs it.
	if err := os.Chmod(dir, 0o700); err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	lock, err := takeLock(dir)
	if err != nil {
		return nil, err
	}
	s := &State{dir: dir, lock: lock}
	if err := s.inspect(); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// inspect reads the device key and reports what is missing from the directory or
// damaged, as far as that can be told without opening the database.
func (s *State) inspect() error {
	const again = "put it back from a backup of this directory, or move the directory away and let the device join again; keep what was moved away until then, since some files may exist only in it"
	damaged := func(what, path string, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			err = errors.New("missing")
		}
		return failure(CodeDamaged, again, "the state directory is damaged: %s %s: %w", what, path, err)
	}
	key, err := device.Load(s.KeyFile())
	switch {
	case errors.Is(err, device.ErrKeyMode):
		return failure(CodeFailed, "if nobody has copied it: chmod 600 "+s.KeyFile(), "other users can read the device key: %w", err)
	case errors.Is(err, fs.ErrPermission):
		return failure(CodeFailed, "run it as the user who owns the device", "%w", err)
	case err != nil:
		return damaged("device key", s.KeyFile(), err)
	}
	if info, err := os.Stat(s.Database()); err != nil {
		return damaged("database", s.Database(), err)
	} else if !info.IsDir() {
		return damaged("database", s.Database(), errors.New("not a directory"))
	}
	s.key = key
	return nil
}

// Key returns the device key of a state directory that was opened.
func (s *State) Key() device.Key { return s.key }

// Close unlocks the directory.
func (s *State) Close() error {
	if s.lock == nil {
		return nil
	}
	lock := s.lock
	s.lock = nil
	return releaseLock(lock)
}

func noDevice(dir string) error {
	return failure(CodeFailed, "begin with `roam init`, or with `roam join CODE` if you have a hive already", "there is no device in %s", dir)
}

func notState(dir string) error {
	return failure(CodeFailed, "name an empty or new directory with --state", "%s holds other files and no device", dir)
}

// newState is a state directory that init or join is making. Until Commit, a
// crash leaves a directory that says it is unfinished, and Rollback leaves
// nothing.
type newState struct {
	*State
	madeDirs  []string // directories that did not exist, the outermost first
	hadConfig bool     // config.toml was there before us
}

// createState makes and locks a new state directory with the given settings in
// it. A config.toml that is there already is kept, and change is applied to what
// it says, to find out whether the two agree.
func createState(dir string, change func(*Config) error) (*newState, Config, error) {
	fail := func(err error) (*newState, Config, error) { return nil, Config{}, err }
	if err := refuseInsideMount(dir); err != nil {
		return fail(err)
	}
	switch p, err := look(dir); {
	case err != nil:
		return fail(err)
	case p == present:
		return fail(failure(CodeFailed, "use it, or name another directory with --state DIR", "there is a device in %s already", dir))
	case p == foreign:
		return fail(notState(dir))
	}
	n := &newState{State: &State{dir: dir}}
	for d := dir; ; d = filepath.Dir(d) {
		if _, err := os.Lstat(d); !errors.Is(err, fs.ErrNotExist) {
			break
		}
		n.madeDirs = append([]string{d}, n.madeDirs...)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fail(fmt.Errorf("state directory: %w", err))
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return fail(fmt.Errorf("state directory: %w", err))
	}
	lock, err := takeLock(dir)
	if err != nil {
		return fail(err)
	}
	n.lock = lock
	c, err := n.prepare(change)
	if err != nil {
		return fail(errors.Join(err, n.Rollback()))
	}
	return n, c, nil
}

// prepare clears what an interrupted attempt left, marks the directory as
// unfinished and settles the configuration.
func (n *newState) prepare(change func(*Config) error) (Config, error) {
	// Nobody else can have put a device here since look: we hold the lock.
	p, err := look(n.dir)
	if err != nil {
		return Config{}, err
	}
	if p == present {
		return Config{}, failure(CodeFailed, "", "another init or join has just finished in %s", n.dir)
	}
	c := DefaultConfig()
	if p != unfinished {
		if _, err := os.Lstat(n.ConfigFile()); err == nil {
			n.hadConfig = true
			if c, err = n.Config(); err != nil {
				return Config{}, err
			}
		}
	}
	if p == unfinished {
		if err := n.clear(); err != nil {
			return Config{}, err
		}
	}
	before := c
	if err := change(&c); err != nil {
		return Config{}, err
	}
	if n.hadConfig && before.CacheSize != c.CacheSize {
		return Config{}, failure(CodeUsage, "leave the flag away or change the file", "--cache-size %v contradicts cache_size in %s", c.CacheSize, n.ConfigFile())
	}
	if err := writeFile(n.path(unfinishedName), nil); err != nil {
		return Config{}, err
	}
	if !n.hadConfig {
		if err := writeFile(n.ConfigFile(), configText(c)); err != nil {
			return Config{}, err
		}
	}
	return c, nil
}

// Commit makes the directory a device, durably.
func (n *newState) Commit() error {
	if err := syncDir(n.dir); err != nil {
		return err
	}
	if err := os.Remove(n.path(unfinishedName)); err != nil {
		return fmt.Errorf("state directory: %w", err)
	}
	if err := syncDir(n.dir); err != nil {
		return err
	}
	if len(n.madeDirs) > 0 {
		return syncDir(filepath.Dir(n.madeDirs[0]))
	}
	return nil
}

// Rollback removes everything that was made and unlocks.
func (n *newState) Rollback() error {
	err := n.clear()
	if err == nil && len(n.madeDirs) == 0 {
		err = os.Remove(n.LockFile())
	}
	if err == nil && len(n.madeDirs) > 0 {
		err = os.Remove(n.LockFile())
		for i := len(n.madeDirs) - 1; i >= 0 && err == nil; i-- {
			err = os.Remove(n.madeDirs[i])
		}
	}
	return errors.Join(err, n.Close())
}

// clear removes everything that init or join may have made except the lock, the
// mark of an unfinished directory last.
func (n *newState) clear() error {
	list, err := os.ReadDir(n.dir)
	if err != nil {
		return fmt.Errorf("state directory: %w", err)
	}
	for _, e := range list {
		name := e.Name()
		if name == lockName || name == unfinishedName || name == configName && n.hadConfig {
			continue
		}
		if err := os.RemoveAll(filepath.Join(n.dir, name)); err != nil {
			return fmt.Errorf("state directory: %w", err)
		}
	}
	err = os.Remove(n.path(unfinishedName))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("state directory: %w", err)
	}
	return nil
}

// writeFile makes a new file of mode 0600 and makes its content durable.
func writeFile(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// syncDir makes the names in dir durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
