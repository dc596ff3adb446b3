// Package history is how earlier states of the tree are kept.
//
// A [Snapshot] is the tree as it was shown at one time, rendered into objects,
// not into records: each directory is one object that lists its entries by name,
// with the reference to the content of each file and to the object of each
// directory below it. That is the shape of a tree of git. An object is stored as
// content like that of a file (see [Put]), so that it consists of ordinary sealed
// blocks: a directory that did not change is the same block in the next
// snapshot and on every device that made one, a large directory is cut where its
// content says and shares all pieces but those that changed, and blocks travel,
// are verified and are evicted as all others are. The root object names the
// whole; the snapshot itself is one replicated setting of the hive, [Key].
//
// # Directory object
//
//	version  1 byte, 1
//	entries  in the order of their names as bytes, each name once
//
// and each entry is
//
//	name    bytes, 1 to 255, as in the tree
//	kind    1 byte: 1 file, 2 directory, 3 symlink, 4 fifo
//	mode    number, permission bits
//	mtime   8 bytes, big-endian, ns since 1970
//	size    number: bytes of a file, of a symlink's target, of a directory's object
//	form    1 byte: 0 no content (empty, or one hole), 1 reference, 2 inline
//	        1: depth 1 byte, cutter 1 byte, block 32 bytes
//	        2: bytes, as many as size says
//	author  8 bytes: the actor that wrote the content; zeros for a directory
//	inode   24 bytes
//	xattrs  number of them, then for each, sorted by name: name bytes, value bytes
//
// A number is a minimal unsigned varint, and bytes stand after their number. A
// directory has always form 1. There is one spelling of each object.
//
// # Setting
//
// The key is "snap/", the time of the snapshot in UTC to the second as RFC 3339
// has it, "/", and the first 8 hexadecimal digits of the actor that made it. The
// value is
//
//	version  1 byte, 1
//	reason   1 byte: 1 automatic, 2 asked for, 3 before a restore
//	time     8 bytes, big-endian, ns since 1970
//	depth, cutter, block  1, 1 and 32 bytes: the object of the root
//	size     number: bytes of that object
//	name     bytes, 0 to 100
//
// Ideas: Merkle snapshots as in Venti (Quinlan and Dorward, 2002) and git;
// thinning as restic forget has it.
package history
