// Package merkle computes one hash, the root, over the whole replicated tree. The
// root is a function of the set of entries alone: it does not depend on the order
// or the batches in which they came, nor on what was there before. So two devices
// have the same root exactly when they hold the same records.
//
// The package keeps hashes in memory, about 58 bytes for some 32 inodes, and
// reads entries from a [Source] when they are to be hashed. It does no I/O of its
// own and is a leaf: standard library and BLAKE3.
//
// # Format
//
// The tree is a levelled prolly tree: a B+ tree whose node boundaries are chosen
// by a hash of the key, as in Merkle search trees (Auvolat and Taïani, 2019), with
// the entries in the leaves only.
//
// Entries are sorted by key, and entries of one key by what the source sorts them
// by, which has to be a function of the entries. The group of an entry is the
// first 24 bytes of its key, which in the replicated tree are the inode, with zero
// bytes after a shorter key ([Prefix]). Entries of one group lie in one leaf.
//
// The level of a group g is z/5, rounded down, where z is the number of leading
// zero bits, at most 64, of BLAKE3-256 keyed with K over g; K is the BLAKE3 key
// derivation, context "roamfs merkle boundary v1", of the key that [Build] was
// given. So one group in 32 has level 1 or more, one in 1024 level 2 or more, and
// who does not know the key cannot choose names that make the tree lopsided.
//
// The leaves are the nodes of height 0. A leaf begins at a group of level 1 or
// more, at the first group of all, and at a group before which the leaf would hold
// 1024 groups already, or 1 MiB or more of keys and values. The nodes of height
// h > 0 have those of height h-1 as children, in order. A node of height h begins
// at a child whose first group has level h+1 or more, at the first child of all,
// and at a child before which the node would have 1024 children already. The
// first height with at most one node is the top, and its node is the root.
//
// The limits of 1024 and 1 MiB come into play only when somebody who knows the
// key crafts names (the chance of a natural run of 1024 is below 10^-14). Then
// the pieces of one such run depend on what lies in front of them in the run, and
// on nothing outside of it.
//
// So a leaf has at most 1024 groups and less than 1 MiB besides its last group,
// and a node above at most 57,346 bytes.
//
// The hash of a node is the BLAKE3 key derivation, context "roamfs merkle node
// v1", of
//
//	version  1   0x01
//	height   1
//	leaf:  for each entry  length of key uvarint, key, length of value uvarint, value
//	above: for each child  first group 24, hash 32
//
// The root of nothing is the hash of a leaf without entries.
//
// So no node is higher than [MaxHeight] unless somebody has found 2^40 groups of
// level 12, at 2^60 trials each.
//
// # Comparing
//
// [Tree.Diff] finds where two trees differ, from the top down, and asks a peer for
// the nodes above the leaves that the own tree lacks. A node is passed on as the
// bytes above that are hashed, version and height included, so its only spelling
// is what its parent names. Whoever gets one checks, in this order: that it has at
// most 2 + 56*1024 bytes; version and height, which is one less than that of the
// parent; the hash; that it has children, and if it is the top at least two; that
// the first one begins where the parent says the node does; that they ascend; that
// they come before the parent's next child; and that no child but the first has a
// level above the height of the node, since a new node would begin there.
//
// The nodes of one height share all possible groups out among them: to each fall
// those from its first group to before the first group of the next, and to the
// first node also what lies before it. So it is known to which leaf a group falls
// that is not there.
//
// # Proofs
//
// A proof ([Tree.Prove], [Verify]) says which entries have a given key under a given
// root. A leaf is hashed as a whole, so the proof has the leaf to which the key
// falls, all of it, and the nodes above:
//
//	version  1   0x01
//	height   1   of the root, at most 15
//	path:  for each height from that of the root down to 1
//	       count  2     number of children, big-endian, 1 to 1024, at the root from 2
//	       child  56*n  as in the node
//	leaf:  to the end   as in the node
//
// A proof has at most 16 MiB. It is for the root if the hash of the first node is
// the root, and that of each other node what the node before names for the child to
// which the key falls. The nodes keep the rules above, but for the levels, which
// take the key of the tree. The entries of the leaf ascend by key, lie in what falls
// to it, have lengths in their shortest spelling, and are missing only if the leaf
// is the root. So for one root and one key no two proofs say different things,
// whoever made the root.
//
// # Saved form
//
// [Tree.MarshalBinary] writes the leaves only; what is above them is computed
// again.
//
//	version   1   0x01
//	key check 16  first bytes of BLAKE3-256 keyed with K over "roamfs merkle saved"
//	flags     1   1 if a tree without leaves was touched, else 0
//	count         uvarint, number of leaves
//	leaf     57*n first group 24 ascending, hash 32, 1 if touched since it was hashed, else 0
//	check    32   BLAKE3 key derivation, context "roamfs merkle saved v1", of all before it
package merkle
