// Package block seals content into blocks: immutable bytes that anyone can
// verify by name and only a holder of the hive's secrets can read.
//
// The bytes on disk, on the wire and in a vault are the same sealed bytes, and
// a block's name is the hash of exactly those bytes: storing, serving and
// checking a block needs no key. Sealing is deterministic, so equal content
// sealed in one epoch is one block on every device.
//
// # Sealed block, version 1
//
// Integers are big-endian.
//
//	offset  size  field
//	     0     1  version    1
//	     1     1  type       1 data, 2 list, 3 node; all others are reserved
//	     2     4  epoch      whose secret seals this block
//	     6    32  tag        s, see below
//	    38     …  body       encrypted
//
// The body, once decrypted:
//
//	offset  size  field
//	     0     1  encoding   0 raw, 1 zstd
//	     1     4  plain      bytes of content, at most 4 MiB
//	     5     4  payload    bytes of payload: for raw equal to plain, for zstd fewer
//	     9     p  payload    the content, or one zstd frame (RFC 8878) of it
//	   9+p     …  padding    zeros, up to Padmé(p) bytes of payload and padding
//
// A sealed block is therefore 47 + Padmé(p) bytes long, no more and no less.
// Padmé (Nikitin et al., "Reducing Metadata Leakage from Encrypted Files and
// Communication with PURBs", PoPETs 2019) rounds a length L up so that only its
// upper ⌊log2 ⌊log2 L⌋⌋+1 bits below the leading one can be set; it costs at
// most 12 %, about 3 % on the mean, and nothing for a power of two. Content of
// a power of two that does not compress, such as a fixed 64 KiB of a disk
// image, so has no padding.
//
// # Keys
//
// From the secret of each epoch three keys are made with HKDF-SHA-256, without
// salt, 32 bytes each, with the info strings
//
//	roamfs block siv v1     the tag key
//	roamfs block enc v1     the encryption key
//	roamfs hive  X   v1     any other purpose X, see [Keys.Derive]
//
// (one space between the words of each). Then, in the manner of SIV (Rogaway
// and Shrimpton, "Deterministic Authenticated-Encryption", EUROCRYPT 2006),
//
//	s    = BLAKE3-keyed(tag key, version ‖ type ‖ epoch ‖ 32 zero bytes ‖ decrypted body)
//	k    = BLAKE3-keyed(encryption key, s)
//	body = AES-256-CTR(k, initial counter 0, decrypted body)
//	ID   = BLAKE3(sealed block)
//
// Every k is used for one body only, because it is a pseudorandom function of a
// tag that covers the whole body: the encoding, both lengths, the payload and
// the padding. Two encoders that compress the same content differently give two
// different blocks, each sound; they only fail to deduplicate. The tag commits
// to the content, the ID commits to the sealed bytes.
//
// [Keys.Open] accepts only what [Keys.Seal] could have written, up to the
// choice of the zstd frame: the ID and the tag are checked before any field of
// the body is looked at, padding must be zero, lengths must agree to the byte,
// and a frame decodes into a buffer of the stated length that does not grow.
//
// # Encoding
//
// Content is stored as one zstd frame at level 1 without checksum, unless that
// saves less than one byte in sixteen: then raw. For content of 32 KiB and more
// a probe comes first, so that compressed media is sealed at the speed of the
// ciphers. It looks at three pieces of 4 KiB, at the begin, in the middle and
// at the end: if the squares of the 256 frequencies of their bytes add up to
// more than 1/184, the content is compressed; otherwise the pieces are,
// together, and the content is stored raw if that saves less than 1/32. The
// choice depends on the content alone, never on load or time. It is no part of
// what a reader checks.
//
// # What an observer of sealed blocks learns
//
// The type, the epoch, the padded size, and equality within an epoch: nothing
// that lets somebody outside the hive test a guess about content. A former
// member can test guesses for the epochs it had.
package block
