// Package file is the bytes of files: committed content read from blocks, and
// drafts, the local bytes that lie over it until they are committed as new blocks.
//
// # Content
//
// An open file is, from below: base, a committed content, that is a list of blocks
// and holes; frozen, a layer that is being committed; top, the layer that writes go
// to. A layer has bytes of its own, and hides parts of what is below it, where
// zeros are; everything else shows through, up to the size of what is below. So a write to a file whose blocks are elsewhere
// fetches nothing. Bytes of a layer within the first 32 KiB are kept in memory as
// long as there are no others; otherwise they are at the same offsets of a sparse
// file, the draft file.
//
// All handles that were opened on one version share its layers. A handle keeps
// the version that it was opened on when another device replaces the content; a
// write through it makes a new version of that one, which the tree shows as a
// conflict. Two handles on different versions do not both get a draft: the second to write joins the
// first.
//
// # Journal record, version 1
//
// The journal of drafts, kept by the tree, has at most one record for an inode. It names
// the versions that the draft supersedes (tree.Draft.Base), and its Data is
//
//	size     field
//	   1     version   1
//	   1     form      1 or 2: layers; plus 4: a commit is being written, see S6
//	   …     base      the content below the layers
//	   …     next      with 4: what it is about to become
//	   …     layers    the uppermost first
//
// a content is
//
//	1…10     size      uvarint
//	   1     inline    bytes of inline data, at most 64; and these
//	   1     depth     of the reference; 255 if there is no block, and then no more
//	   1     cutter
//	  32     ID
//
// and a layer is
//
//	   1     flags     1: the user set the time; 2: the bytes are in a draft file
//	1…10     number    of the draft file, which is called INO-NUMBER (hexadecimal), where
//	                   INO is what the inode was when the layer was made
//	1…10     lower     size of what is below
//	1…10     size
//	   8     mtime     ns since 1970, big-endian
//	   …     written   spans within size
//	   …     hidden    spans within lower, of what is below and does not show
//	   …     bytes     without flag 2: of what is written, within the first 32 KiB
//
// and spans are
//
//	1…10     count     of both sets together at most 32 Ki and 4
//	   …     each      bytes since the end of the last one; bytes of this one
//
// All numbers are uvarints in their shortest form. Spans are not empty and do
// not touch. Everything from size on is hidden. The size of a layer is the lower of the one
// above it, that of the base and that of next are the lower of theirs. A record is at
// most 1 MiB. Decoders refuse anything else.
//
// A close writes the record, if it is not right already; an fsync before
// that syncs the draft file (and its name), and after it the tree. Bytes always reach the draft file
// before a record or a reader learns of them.
//
// # What a crash leaves
//
// The states of an inode, and what [Table.Recover] makes of each:
//
//	     record          draft files     after a crash
//	S0   none            none            the base
//	S1   none            top             the base; the file is deleted. Nothing was flushed.
//	S2   top             top             top over base. What was overwritten in place since the
//	                                     flush may be there or not, as POSIX has it
//	S3   frozen          frozen, (top)   frozen over base: a commit has begun, and nothing in
//	     (the same record as S2)         the journal changes by that. Blocks put so far are garbage
//	S4   top over frozen both            both layers: a flush during the commit
//	S5   none            frozen          the new base: the commit dropped the record in the
//	                                     transaction that wrote the content; the file is deleted
//	S6   top over frozen both            the commit cannot drop the record, which tells of top too. So
//	     with next                       before it writes the content, it adds what that will be: if
//	                                     the tree has that, frozen is done, else both layers stand
//	S7   top             frozen, top     top over the new base, whose record replaced the last
//
// A commit goes S2 → S3 → S5 → S0, or S4 → S6 → S7 → S2. If it fails it stays
// where it is, and is tried again, after 250 ms and up to a minute.
//
// A power loss may also lose what was not synced, of each part alone. Blocks are
// synced before the tree names them, and the tree before a draft file goes, once for all commits that
// are ready at the time. A page that a record tells of and that never reached
// the disk is a hole in the draft file; there, what is below shows again. Only within a
// page of which something else did reach the disk, bytes that were not synced may be zeros.
//
// # Files that are deleted
//
// When this device's user removes the last link of a file, the same transaction
// of the tree drops the record: its draft is gone for good, and a crash leaves S0 or S1.
//
// When another device removes it, the record stays, for a write beats a delete that has
// not seen it. The draft goes through the same states, the base being the
// content that the file had. The commit makes a new inode where the tree last had the file, and
// the record, if it cannot be dropped (S6), becomes that of the new inode in the same
// transaction, so that a crash finds its next content there.
//
// # When drafts are committed
//
// At once when the last writer has closed the file, but not within a second of
// the last commit. While it is open for writing: when it was quiet for a second, or
// 5 s after the first change, or when the draft has 1 GiB. When there is no
// room for more: all drafts. A commit cuts anew from the begin of the piece before each
// change until the old boundaries are met again.
//
// # Room
//
// A draft holds room for itself and for the blocks that it becomes, so that a
// commit does not lack any. A writer without room commits everything, which frees the first half, and
// waits for the second while the other devices take blocks; so a file larger than the
// cache can be written.
package file
