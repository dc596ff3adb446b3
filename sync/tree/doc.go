// Package tree is the replicated namespace: records, the one join that merges
// them, the view that makes a tree of them, and the edits that make records of
// user operations. It is pure: no input or output, no clock, no locks, no
// goroutines. The same records give the same tree on every device.
//
// # Model
//
// A state is a set of records and a version [Vector]. A [Record] says value of
// key, and carries a [Dot], the name of the commit batch that wrote it: an
// [Actor] (one incarnation of a device) and its counter. All records of a batch
// carry its dot; for one key and dot there is one record. A record is never
// changed: a writer removes those that it has seen and adds its own. Two records
// of one key are two writers that have not seen each other.
//
// Two states join by one rule for all types ([JoinKey]): a record stays if both
// have it, or if the side that lacks it has not seen its dot; the vectors join
// by maximum. The join is commutative, associative and idempotent for any input.
// It never makes a record, resolves nothing and cannot fail. Whatever must be
// resolved is resolved by [View], a total function of the records; what it
// decides is written down only by the next user operation that would disturb it.
//
// A file or directory is an inode ([Ino]) with records of these keys,
// inode ‖ type ‖ sub:
//
//	L link   Link     parent, name; one per name of the inode; sub is its LinkID
//	C        Content  what a file, symlink or fifo holds
//	A        Attr     permission bits
//	M        MTime    modification time, if set after the last write
//	X name   Xattr    one extended attribute
//
// and "\xffG" ‖ name is a [Setting] of the hive, which the view ignores. The
// siblings of a key are ordered: alive before deleted, then rank, wall, actor,
// counter, highest first. The first is the winner. A rank is one above the
// highest that the writer saw, so who saw more wins whatever the clocks say; the
// wall (for a link: the time it changed place) only decides between concurrent
// writers. Inodes survive rename: a rename writes one link.
//
// # Inodes
//
// An inode is tag(8) ‖ unique(16). The tag is a hash of the parent at birth. The
// unique half of a file hashes dot and a running number; that of a directory
// hashes parent and name, if the inode that gives is not in use, so that a
// directory made twice at one place is one directory; that of a conflict copy
// hashes its origin and the dot of the content (of the link, if a snapshot has
// the content), so that it is the same before and after it becomes real, everywhere. Hashes are BLAKE3-256 of "roamfs/tree "
// ‖ domain ‖ each part after its uvarint length. A first byte of 0xff becomes
// 0x7f. [Root] is zero.
//
// # View
//
//  1. Each link register has a winner. An inode whose link 0 is a directory is
//     one, and nothing else of it counts but A, M and X.
//  2. The winners of link 0 make each directory point to its parent. A parent
//     that is no directory known here stands for [Recovered].
//  3. While there is a cycle, the youngest move in it (time, dot, inode) is put
//     back to where the directory was before (Prev), the second time, or if that
//     has gone, to the root.
//  4. A file shows the winner of C; without any, the best snapshot in its links
//     (by rank, wall, dot); without any, nothing. Every other content that
//     differs is a conflict copy beside the primary name, which is the one with
//     the lowest LinkID. Siblings that say the same are one. A snapshot of the
//     highest rank that anything of the inode has is such a content as well: a
//     write outranks what it is written over, so nobody has written over this.
//  5. A directory is shown if it is not deleted, or if it has something to show.
//  6. All that want one name in one directory are a group, ordered: directories,
//     then links before conflict copies, then older first, then by inode and
//     LinkID. The first keeps the name. Files that show the same as an earlier
//     one hide behind it. The others get "stem (conflict DEVICE DATE hex).ext",
//     with as many digits of a hash of link key, or content key and dot, or first
//     link key and dot of a snapshot, as make it free; plain names go before made-up ones, and those go by plain name.
//
// # Edit
//
// An edit supersedes what its author saw and nothing else. What it does beyond
// the plain meaning of each operation:
//
//   - touch: a write writes the links again, so that a delete which has not
//     seen the write takes the old links only. Links keep their place and time.
//   - snap: a renamed or new link carries a snapshot, so that a delete which has
//     not seen it does not take the content away. So does the link that is
//     touched when another name of the inode goes, and when an xattr changes.
//     When a conflict copy goes or becomes real, so do the snapshots that say the
//     same, or it would come back from them.
//   - skeleton: a removed directory leaves its link, marked deleted, and its A,
//     M and X records. If others have put something into it, it is shown again.
//   - uphold: whoever places something in a directory that is marked deleted
//     writes its link again in the same batch, alive if it is shown, and its A, M
//     and X records with it.
//   - anchor: a device that was put back to an old image does the same with all
//     directories above, also if they are not deleted, until it has written them
//     itself ([Edit.Anchor]).
//   - pin: before an operation, in the same batch, whatever it could disturb is
//     written down as it is shown: made-up names in the groups involved,
//     conflict copies of the inodes involved (an inode of their own), deleted
//     directories above that are shown (alive again), and when directories
//     change, all that are not where their links say. Pins say the same on
//     every device, so concurrent ones collapse.
//   - hidden files follow the one they hide behind: unlink and rename take them
//     along, attributes are set on all, and a write removes them.
//
// # Garbage
//
// Skeletons, and what a delete has left of a file of which it had not seen all,
// go when nobody can need them any more: every member of the hive has said that
// it knows of the removal, and what each did before it said so is here
// ([View.Words], [View.Garbage]). They go with what a user does anyway
// ([Edit.Collect]), never with a join. The rule and its proof stand at the type
// garbage. An inode that shows something is never garbage, and to drop one that
// is changes nothing that is shown. Of what comes later this holds:
//
//   - of devices that do not forget what they said they know, and of those that
//     do and go on as another actor: all that is said below
//   - of a device that was put back to an old state and does not notice, and of
//     two copies of one device that are in use at once: all but the last line of
//     I4. What these put into a directory that has gone everywhere else is shown
//     in [Recovered], on all devices alike, and can be moved from there.
//
// # Invariants
//
// They hold in every history of honest devices, I1 and I4 for any records:
//
//	I1  the join is commutative, associative and idempotent
//	I2  equal vectors mean equal records
//	I3  equal records show the same on every device
//	I4  what is shown is a tree: each directory once, reached from the root,
//	    names legal and unique; nothing with a name and content is left out, and
//	    nothing of an honest device is in Recovered
//	I5  a content is shown until someone writes over it, or removes it knowing
//	    all that was done to keep it
//	I6  nothing is shown that nobody wrote
//	I7  an operation changes only the names and inodes it is for
//	I8  an operation has done what it says
//	I9  to join what was seen whole, or one's own past, changes nothing
//
// TestHistories plays random histories of 2 to 4 devices: three names, clocks
// that are years apart, joins of any two, writes on what was opened long before,
// devices restored from old images, words that come without the work that they
// are about, garbage that goes when a batch ends. After every step it checks all
// this, and that the view which followed the change is like one made from
// scratch. Before garbage went, a history took 0.7 ms of a core, two free cores
// (AMD EPYC) played about 180000 a minute, and the first 1000000 held. Now one
// takes some 12 % longer, and 150000 hold that were played since:
//
//	go test ./sync/tree -run TestHistories -history-seed 5000001 -histories 150000 -timeout 1h
//
// One gap is known that no history has met: ranks say only that a snapshot of
// the highest rank is not written over. One of a lower rank counts as written
// over, also if all that outranks it comes from a device that wrote several
// times without seeing it.
//
// TestRulesAreNeeded leaves out one rule of Edit after the other, and the new
// actor of a restored device; each time some history breaks an invariant.
//
// # Encoding
//
// Numbers are minimal uvarints, except times and other signed ones: 8 bytes big
// endian, two's complement. Strings follow their uvarint length. There are no
// optional spellings: decoders refuse what they would not encode.
//
//	record   string(key) actor(8) uvarint(ctr) string(value)
//	vector   uvarint(n) n × (actor(8) uvarint(ctr)), by actor, no zeros
//	content  1 kind(1) form(1) rank wall(8) size mtime(8) mode depth(1)
//	         cutter(1) [form&1: block ID(32)] [form&2: string(inline)]
//	link     1 flags(1) rank time(8) parent(24) string(name)
//	         [flags&8: prev parent(24) string(prev name)]
//	         [flags&16: string(content)]; flags 1 directory, 2 deleted, 4 copy
//	attr     1 rank wall(8) mode flags
//	mtime    1 rank wall(8) mtime(8)
//	xattr    1 rank wall(8) string(value)
//	setting  as xattr
//
// The leading 1 is the version of the value. kind is 1 file, 3 symlink, 4 fifo.
package tree
