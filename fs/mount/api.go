package mount

import (
	"github.com/roamfs/roamfs/sync/replica"
	"github.com/roamfs/roamfs/sync/tree"
)

// Tree is the replicated namespace. All methods are safe for concurrent use and
// none waits for the network. Errors are those of package tree and
// [io/fs.ErrNotExist], [io/fs.ErrExist].
type Tree interface {
	// Lookup returns what dir shows under name.
	Lookup(dir tree.Ino, name string) (tree.Node, error)
	// Node returns an inode as it is shown.
	Node(ino tree.Ino) (tree.Node, error)
	// List returns a directory's entries, sorted by name.
	List(dir tree.Ino) ([]tree.Entry, error)
	// ListNodes is List with the inodes of the entries, or none if there are more
	// than most, and what Changes returned then.
	ListNodes(dir tree.Ino, most int) (entries []tree.Entry, nodes []tree.Node, changes uint64, err error)
	// Changes returns a number that grows with each change of what is shown, before
	// the change can be seen.
	Changes() uint64
	// Path returns the path of an inode's first link from the root, "/a/b".
	Path(ino tree.Ino) (string, error)
	// Conflicts returns every conflict copy, sorted by path.
	Conflicts() ([]tree.Conflict, error)

	// Writable returns why nothing is changed here any more; nil while all is well.
	Writable() error

	// Create makes a file, symlink or fifo.
	Create(parent tree.Ino, name string, c tree.Content) (tree.Node, error)
	Mkdir(parent tree.Ino, name string, mode uint32) (tree.Node, error)
	Link(ino, parent tree.Ino, name string) (tree.Node, error)
	Unlink(parent tree.Ino, name string) error
	Rmdir(parent tree.Ino, name string) error
	// Rename moves an entry; noReplace and exchange as in renameat2(2).
	Rename(op tree.Ino, on string, np tree.Ino, nn string, noReplace, exchange bool) error

	Chmod(ino tree.Ino, mode uint32) error
	SetMTime(ino tree.Ino, ns int64) error
	SetXattr(ino tree.Ino, name string, value []byte) error
	RemoveXattr(ino tree.Ino, name string) error

	// Local returns what this device alone keeps of an inode.
	Local(ino tree.Ino) Local
	SetLocal(ino tree.Ino, l Local) error

	// Sync makes every operation that has returned survive power loss.
	Sync() error
	// Subscribe registers fn for what changed other than by the methods above:
	// by another device, or by a commit that made a conflict copy. fn is called
	// after the change is visible; it does not wait. cancel ends that.
	Subscribe(fn func(tree.Affected)) (cancel func())
}

// Local is what one device alone keeps of an inode.
type Local = replica.Local

// Status answers what programs in the mount ask about the hive. Its methods are
// safe for concurrent use and none waits for the network.
type Status interface {
	// State describes one inode, for the attributes user.roam.*.
	State(ino tree.Ino) (State, error)
	// SetPinned pins or unpins an inode, and what is added below it later.
	SetPinned(ino tree.Ino, pinned bool) error
	// StatusJSON is the content of .roam/status.json.
	StatusJSON() []byte
	// Room is the hive's room for df.
	Room() Room
}

// State is what is known here about one inode. The words are those of the
// command line.
type State struct {
	State      string   // user.roam.state: "here", "partly here", "elsewhere", "waiting to copy" …
	LocalBytes int64    // user.roam.local_bytes: content bytes on this device
	Copies     int      // user.roam.copies: devices known to hold all of it
	Where      []string // user.roam.where: their names
	Pinned     bool     // user.roam.pinned
}

// Room is what df shows, in bytes and numbers of files.
type Room struct {
	Total, Free, Avail int64
	Files, FilesFree   int64
}
