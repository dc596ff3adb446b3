// Package cache keeps sealed blocks on disk within a strict bound.
//
// A [Cache] owns one directory. The allocated bytes of everything in it
// (directories and temporary files included, as du counts them), plus what
// [Options.Overhead] reports, plus every outstanding [Reservation] never exceed
// the limit at any instant: room is reserved before a byte is written, and given
// back when the file system has given it back.
//
// Blocks leave in the order of package evict, and only with a [Proof] that other
// devices hold them: there is no function that evicts without one. When nothing
// provable is left, writers wait a bounded time while proofs keep coming, and
// then get [block.ErrNoRoom]; readers get what they asked for, fetched and passed on without being
// kept. So a file larger than the cache can be read, and the
// only copy of anything stays.
//
// # Directory
//
//	state                 version, boot and whether the last session ended well
//	order                 snapshot of the order of eviction
//	ab/cdef…              one block of [PackBelow] bytes or more; its name is its ID in
//	                      lower-case hex, split after two digits
//	ab/.cdef…             the same while it is written; removed at the next start
//	packs/0000001a        smaller blocks, one after the other
//	quarantine/abcdef…    blocks that were found damaged, for salvage; the oldest go
//	                      when there are many, and all go before anything is evicted
//
// The 256 directories are made when they are first needed. Anything else in the
// directory is counted and left alone. A block file holds the sealed bytes and
// nothing else.
//
// # Pack files
//
// All numbers are little-endian. A pack is a header and entries:
//
//	header   "roamPACK", version (1) 1 byte, 7 zero bytes, nonce 16 bytes
//	entry    magic "rEnt" 4 bytes, state 1 byte, 3 zero bytes, length of the block 4 bytes,
//	         block ID 32 bytes, check 4 bytes, the sealed block, zeros up to a multiple of 16
//
// check is the CRC-32C of nonce, magic, length and ID. The nonce is random and
// never leaves the device, so that no block's content can pass for an entry. State is
// 0xB3 if the block was removed, and anything else (0x4C when written)
// if it is there: a flipped bit must not remove a block.
//
// Packs are only appended to. Where entries were removed, whole pages are punched
// out of the file, so a reader of a pack that meets bytes that are no entry looks
// for the next one at each multiple of 16, and accepts one found that way only
// if its block verifies. What follows the last entry is cut off. If a block is
// there twice, the later one counts. A pack less than half of whose allocated
// bytes are in use is copied to the end of the newest one and removed; that also
// keeps the bound where the file system cannot punch holes.
//
// # State file
//
// Three lines: "roamfs blocks 1", "boot " and the kernel's boot ID, "open" or
// "clean". Its modification time is that of the last completed [Cache.Sync]. After a
// crash of the process alone everything that was written is there. After the machine went down (the boot
// ID differs and the state is open), whatever was modified since the last Sync is verified
// before it is accepted.
//
// # Durability
//
// [Cache.Put] is atomic but not durable; [Cache.Sync] makes durable everything
// put before it was called. Only then are blocks reported as added through [Options.Changed],
// so that a device never says it holds what a power cut could take.
//
// # Locks
//
// Cache.mu guards the index, the order and all accounts; it is never held over
// I/O, Prover, Fetcher or Changed. An ID whose file is being written or removed is in
// Cache.busy, and whoever else wants to write or remove it waits. pack.tidy is held
// while entries are written, marked and punched, Cache.tail while an entry is
// appended, Cache.syncing during Sync, notifier.mu during Changed. They are taken in the order
// Cache.syncing, Cache.tail, pack.gate, pack.tidy, notifier.mu, Cache.mu.
package cache
