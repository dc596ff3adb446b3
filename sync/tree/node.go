package tree

// Entry is one name in a directory, as shown.
type Entry struct {
	Name     string
	Ino      Ino
	Parent   Ino
	Kind     Kind
	Conflict bool // a conflict copy: the name was made up by the view or a pin
}

// Node is an inode, as shown.
type Node struct {
	Ino      Ino
	Kind     Kind
	Mode     uint32 // permission bits
	Size     int64  // bytes; 0 for a directory
	MTime    int64  // ns
	Ref      Ref
	Inline   []byte // symlink target or data of a small file; read-only
	NLink    int    // names of a file; of a directory, 2 + its subdirectories
	Xattrs   map[string][]byte
	Base     []Dot // the C dots that are shown: what a write on this supersedes
	Author   Actor // of the content that is shown
	Conflict bool  // a conflict copy
	Parent   Ino   // of the primary name
	Name     string
}

// Affected is what may be shown differently after a change, for whoever caches it.
type Affected struct {
	Entries []Place // names whose target may differ now, sorted
	Inodes  []Ino   // inodes whose content or attributes may differ, sorted
}

// Option changes a [View].
type Option func(*View)

// Labels makes conflict names use label(actor) for the device that wrote the
// content: 1 to 32 bytes without '/', NUL and parentheses, else, and without
// this option, the first digits of the actor. The answer for an actor must be
// the same on every device; if it changes, make a new View.
func Labels(label func(Actor) string) Option { return func(v *View) { v.label = label } }
