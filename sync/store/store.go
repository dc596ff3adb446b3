// Package store is the local database of one device: the records of the
// replicated tree with their indexes, the batch that is open, the commits kept
// for peers, the journal of drafts, what other devices said they hold, and a
// few values. It is the only package that knows Badger.
//
// Why Badger: an LSM tree takes the many small writes of a file system at
// memory speed, its write-ahead log is a memory-mapped file and so survives
// kill -9 without a system call per write, and a transaction over several keys
// is atomic. File content never goes into it (its value log does not give
// space back when asked; blocks are plain files, package cache).
//
// # Layout
//
// The first byte of a key is its table. Integers are big-endian.
//
//	r key dot             -> value             a record of the tree
//	p parent name 0 ino lid dot -> flags       index of link records by place; flags bit 0 = directory
//	d ino                 -> (empty)           inodes with a link record that has the directory flag
//	c ino                 -> (empty)           inodes that may have conflict copies ([tree.Conflicted])
//	g ino                 -> (empty)           inodes of which records are left that show nothing ([tree.Dead])
//	o seq                 -> keys and dots     what the open batch has touched, one row an operation
//	h seq piece           -> bytes             a commit kept for peers, in the order of adoption, in pieces
//	i actor ctr           -> seq size          where that commit is
//	H actor               -> manifest          newest manifest of each actor
//	j ino piece           -> bytes             the journal of a draft
//	l ino                 -> bytes             attributes that stay on this device
//	w id16 dev            -> tag               device dev said that it holds the block (holdings.go)
//	W dev                 -> cursor            how far its word was heard
//	T dev                 -> tag               it tells all anew
//	m name                -> bytes             single values: version vector, Merkle spans, identity, hashes of
//	                                           commits, where files with a draft were that others deleted
//
// dot is actor(8) ctr(8); a dev is the whole device id; id16 the first 16 bytes of a block id.
// Values above [pieceSize] are cut into pieces so that every write fits a
// transaction and Badger's value log stays unused.
//
// # Durability
//
// A transaction that returned survives kill -9. [Store.Sync] makes everything
// before it survive power loss.
package store

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"
)

// ErrDamaged means that a row cannot be what this package wrote.
var ErrDamaged = errors.New("damaged database")

// pieceSize bounds the value of one row, in bytes.
const pieceSize = 128 << 10

// memTable is the size of Badger's memory tables, in bytes. Twice as large ones
// write files no faster, but what Badger keeps ready for the next flush is four
// times that: 20,000 files later the daemon held 260 MiB for some seconds, with
// these it holds 150.
const memTable = 4 << 20

// Store is the open database. It is safe for concurrent use; its callers order
// writes that depend on each other.
type Store struct {
	db  *badger.DB
	dir string

	reads   reads      // has its own lock
	entries entries    // has its own lock
	syncMu  sync.Mutex // one Sync at a time: a second caller joins the next

	// How logs of memory tables are made durable; tests look in.
	syncFile   func(name string) error
	syncActive func() error

	watch func(synced bool) // see Watch; nil in general
}

// Open opens or creates the database in dir. log may be nil.
func Open(dir string, log *slog.Logger) (*Store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	opt := badger.DefaultOptions(dir).
		WithMemTableSize(memTable).
		WithNumMemtables(2).
		WithNumLevelZeroTables(2).
		WithNumLevelZeroTablesStall(6).
		WithBaseTableSize(2 << 20).
		WithBaseLevelSize(8 << 20).
		WithNumCompactors(2).
		WithValueLogFileSize(16 << 20).
		WithValueThreshold(pieceSize * 2).
		WithCompression(options.Snappy). // ZSTD saved no space (hashes), took a tenth more CPU time and 16 MiB
		WithBlockCacheSize(8 << 20).
		WithNumGoroutines(2).
		WithDetectConflicts(false). // writers are ordered by the replica
		WithMetricsEnabled(false).
		WithLogger(quiet{log})
	// Up to 18 tables are built at once while very much is written, each in twice its
	// size of memory.
	opt.TableSizeMultiplier = 1
	db, err := badger.Open(opt)
	if err != nil {
		return nil, fmt.Errorf("open database %s: %w", dir, err)
	}
	s := &Store{db: db, dir: dir, syncFile: syncFile, syncActive: db.Sync}
	s.reads.init(readsLimit)
	if err := s.entries.load(db); err != nil {
		return nil, errors.Join(fmt.Errorf("open database %s: %w", dir, err), db.Close())
	}
	return s, nil
}

// Watch has fn called after each [Store.Update] (synced is false) and each
// [Store.Sync] that succeeded, before it returns: the moments at which a
// simulator can cut the power. To be called before the database is used.
func (s *Store) Watch(fn func(synced bool)) { s.watch = fn }

func (s *Store) watched(synced bool) {
	if s.watch != nil {
		s.watch(synced)
	}
}

// Close flushes and closes the database.
func (s *Store) Close() error {
	if err := s.db.Close(); err != nil {
		return fmt.Errorf("close database: %w", err)
	}
	return nil
}

// Sync makes every transaction that has returned survive power loss.
//
// Badger's own Sync reaches the log of the active memory table only. A table
// that has been rotated out and is still being written as a sorted table has
// its log in another .mem file. Those are synced first, so that no later write
// survives without an earlier one, and so is a table that is rotated out
// meanwhile.
func (s *Store) Sync() error {
	s.syncMu.Lock()
	defer s.syncMu.Unlock()
	before, err := s.memLogs()
	if err != nil {
		return fmt.Errorf("sync database: %w", err)
	}
	active := ""
	for i, name := range before {
		if i == len(before)-1 {
			active = name
			break
		}
		if err := s.syncFile(filepath.Join(s.dir, name)); err != nil {
			return fmt.Errorf("sync database: %w", err)
		}
	}
	if err := s.syncActive(); err != nil {
		return fmt.Errorf("sync database: %w", err)
	}
	after, err := s.memLogs()
	if err != nil {
		return fmt.Errorf("sync database: %w", err)
	}
	if active != "" && (len(after) == 0 || after[len(after)-1] != active) {
		// Another table may have been the active one by then.
		if err := s.syncFile(filepath.Join(s.dir, active)); err != nil {
			return fmt.Errorf("sync database: %w", err)
		}
	}
	s.watched(true)
	return nil
}

// memLogs returns the logs of the memory tables, the active one last.
func (s *Store) memLogs() ([]string, error) {
	list, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, err
	}
	var mem []string
	for _, e := range list {
		if strings.HasSuffix(e.Name(), ".mem") {
			mem = append(mem, e.Name())
		}
	}
	slices.SortFunc(mem, func(a, b string) int { // by number, of five digits or more
		return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b))
	})
	return mem, nil
}

// syncFile syncs one file; that it has gone meanwhile means that its content
// is in a sorted table, which Badger syncs before it removes the log.
func syncFile(name string) error {
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		_ = f.Close() // the sync error is the one that counts
		return err
	}
	return f.Close()
}

// view runs fn in a read transaction.
func (s *Store) view(fn func(*badger.Txn) error) error { return s.db.View(fn) }

// quiet passes Badger's warnings and errors on and drops its chatter.
type quiet struct{ log *slog.Logger }

func (q quiet) Errorf(f string, a ...any) {
	if q.log != nil {
		q.log.Error("database", "message", strings.TrimSpace(fmt.Sprintf(f, a...)))
	}
}

func (q quiet) Warningf(f string, a ...any) {
	if q.log != nil {
		q.log.Warn("database", "message", strings.TrimSpace(fmt.Sprintf(f, a...)))
	}
}
func (quiet) Infof(string, ...any)  {}
func (quiet) Debugf(string, ...any) {}
