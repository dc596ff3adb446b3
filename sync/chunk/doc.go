// Package chunk decides where content is cut into blocks, and encodes where the
// pieces are. It does no I/O.
//
// # Cutters
//
// The number of the [Cutter] that cut a content is recorded with it; [Choose]
// picks one. A cut depends on the cutter, the key, the size of the content and
// the bytes from the begin of its own piece on, on nothing before: cutting may
// restart at any old boundary. Offsets and lengths are in bytes.
//
//	number  cutter      head                body                       tail
//	     1  Whole       the content is one piece, at most 512 KiB
//	     2  CDC256K     32/64/128 KiB       64 KiB/256 KiB/1 MiB       64 KiB
//	     3  CDC1M       32/64/128 KiB       256 KiB/1 MiB/4 MiB        64 KiB
//	     4  Fixed64K    every 64 KiB, counted from the begin of the content
//	     5  Fixed128K   every 128 KiB, the same
//
// Three sizes are the least, the usual and the most bytes of a content-defined
// piece. Which of them apply, and where the piece ends at the latest, is
// decided by the offset at which it begins:
//
//   - With fewer than 64 + 16 KiB to the end of the content it is the tail and
//     runs to the end. The tail holds the index of many formats, so it stays
//     small, but no piece of less than 16 KiB is cut off before it.
//   - Otherwise it ends at the latest 64 KiB before the end.
//   - At an offset below 64 KiB it is part of the head, where most formats keep
//     what a listing or a preview wants. The head is cut by its content as
//     well: cut at a fixed offset, it would move against the body with every
//     byte that is inserted.
//   - Everywhere else it is part of the body.
//
// # Where a content-defined piece ends
//
// The gear table G is 256 numbers of 64 bits: the first 2048 bytes of output of
//
//	BLAKE3-keyed(key, "roamfs chunk gear v1")
//
// read as little-endian. The key is the hive's ([block.Keys.ChunkKey]): without
// it nobody can tell from the lengths of blocks which known file they are,
// except by attacks that padding and the small number of observers make hard
// (Alexeev et al., "Breaking and Fixing Content-Defined Chunking", 2025).
//
// Over the bytes b of the piece runs the gear hash h = 2h + G[b] mod 2^64 (Xia
// et al., "FastCDC", USENIX ATC 2016), which depends on the last 64 bytes only.
// It starts with h = 0 at 64 bytes before the least size. Let h(n) be the hash
// after n bytes of the piece. The piece has the smallest length n, from the
// least size on, for which the upper bits of h(n) are zero: so many as the
// table says for n up to the turn, and for n beyond it. If there is none, it
// ends at the most or the latest size, whichever is less.
//
//	least     turn      most      bits up to the turn   bits beyond
//	 32 KiB    48 KiB   128 KiB                    17            14
//	 64 KiB   192 KiB     1 MiB                    19            16
//	256 KiB   768 KiB     4 MiB                    21            18
//
// FastCDC asks for two bits more up to the usual size and two fewer beyond it.
// To turn at three quarters of the usual size and ask for one bit more before
// comes nearer to that size (227 KiB on the mean instead of 292, of random
// bytes), and costs less after every kind of edit: in KiB to send again, on the
// mean and in nine of ten,
//
//	edit inside 96 MiB           100 B      5 kB     30 kB    100 kB    300 kB
//	turn 192 KiB, bits 19/16   252 356   274 368   352 590   455 782   429 753
//	turn 256 KiB, bits 20/16   327 448   377 502   478 825   739 1611  533 1069
//	turn 256 KiB, bits 21/15   287 336   393 548   764 2164 1626 3519  731 1921
//
// # Lists
//
// A content is a [List] of extents: pieces, each stored as a data block, and
// holes, which read as zeros and are stored nowhere. A list of one piece needs
// no list block: the content's ID is the piece's, its depth 0. No extent or one
// hole needs no block at all: depth 0 and the zero ID. Any other list is stored
// as blocks of type [block.List] with this content, version 1:
//
//	size     field
//	   1     version   1
//	   1     depth     1: the entries are extents; 2 or 3: they are list blocks of one less
//	   2     count     of entries, 1 to 4096, big-endian
//	   …     entries
//
// and each entry is
//
//	size     field
//	1…10     length    unsigned LEB128 in its shortest form of 2 × bytes of content,
//	                   plus 1 for a hole
//	  32     ID        of the data or list block; absent for a hole
//
// Lengths are at least 1; that of a data block is at most [block.MaxPlain]; no
// two holes are adjacent; list blocks have no hole of their own. The sum of all
// is at most 2^63-1.
//
// Entries are grouped into blocks by their content, so that an edit in a long
// list changes one block of each depth: up to 1024 entries are one group. Of
// more, a group ends after an entry if it has an ID whose first two bytes,
// big-endian, are a multiple of 512, and the group has at least 128 entries by
// then; or if the group has 4096. The groups become list blocks, these the
// entries of the next depth, until one group is left. Three depths are the
// most: about 400 million extents. Every list has one encoding, and decoders
// refuse any other.
package chunk
