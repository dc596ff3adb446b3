package tree

// State is where the records live: [Mem] here, the local database elsewhere.
// What it returns is read-only and stays as it is. It may be read from several
// goroutines at once while nothing is applied to it.
type State interface {
	// Records returns all records whose key begins with ino, in
	// [KeyDot.Compare] order.
	Records(ino Ino) ([]Record, error)
	// Named returns the inodes with any L record placed exactly there, those
	// with the deleted flag and losing siblings too, each once.
	Named(parent Ino, name string) ([]Ino, error)
	// Children returns the inodes with any L record placed in parent, each once.
	Children(parent Ino) ([]Ino, error)
	// Dirs calls fn for each inode with any L record that has the dir flag.
	Dirs(fn func(Ino) error) error
	// Conflicted calls fn for each inode of whose records [Conflicted] is true.
	Conflicted(fn func(Ino) error) error
	// Dead calls fn for each inode of whose records [Dead] is true.
	Dead(fn func(Ino) error) error
}

// Surveyor is a [State] that also knows its places without reading records.
// With it [NewView] is quick, and finds links whose parent has no record at
// all; without it NewView lists every directory, and [Recovered] shows such
// links only once they change.
type Surveyor interface {
	// Survey calls fn once for each inode P that any L record is placed in,
	// with the names in P for which [Notable] is true or which more than one
	// inode is placed at.
	Survey(fn func(parent Ino, names []string) error) error
}

// Gatherer is a [State] that reads many inodes faster than one by one.
type Gatherer interface {
	// Gather calls fn with what Records returns for each of inos, in any order.
	Gather(inos []Ino, fn func(Ino, []Record)) error
}

// Change is a step from one state to the next. A Put replaces the record with
// the same key and dot; a Drop of an absent record is nothing. No record is in
// both.
type Change struct {
	Put  []Record
	Drop []KeyDot
	// Born are inodes of Put of which the State before has no record, as their
	// names are new. It spares the search for what is not there, and may be empty.
	Born []Ino
}

// Empty reports whether the change changes nothing.
func (c Change) Empty() bool { return len(c.Put) == 0 && len(c.Drop) == 0 }

// Draft is the journal entry of local bytes that are not yet content of the
// tree. It is declared here for those who store drafts and those who make them.
type Draft struct {
	Ino  Ino
	Base []Dot  // what [Edit.Write] will supersede
	Data []byte // opaque here, at most 1 MiB
}
