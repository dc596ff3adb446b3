// Package manifest holds what a device signs about the tree: the [Manifest], and
// the [Delta] that a commit brings.
//
// A manifest says: I, this device, writing as this actor, after everything in the
// frontier (and, in a commit, after adding the delta) have records with this
// root. The manifests of an actor form a chain by number and hash, so that two
// different ones in one place prove a fork ([Conflict]); and each names, by number
// and hash, the newest commit that its author had of every actor, so that nobody
// can claim to have seen what was never said, and two devices that know different
// commits under one name find out as soon as they compare.
//
// The package is pure: it reads no clock, keeps no state and does no I/O.
// It checks form and signature. Whether the device is a member, whether the named
// manifests are known, and whether the root is right, is for the caller, who has
// the membership log and the records.
//
// # Kinds
//
// A commit (FlagCommit) adds the batch Ctr of its actor. Its frontier is what the
// author had seen before it: the actor itself stands there with Ctr-1, or not at
// all if Ctr is 1. It carries length and hash of a delta, all of whose new records
// have the dot (Actor, Ctr).
//
// A checkpoint (FlagCheckpoint) states the tree without changing it. Ctr is the
// actor's last commit, or 0 if there is none, and stands in the frontier, unless
// it is 0. It has no delta.
//
// The vector of a manifest ([Manifest.Vector]) is its frontier, with the actor at
// Ctr. The state id is [StateID] of root and vector. It and not the root is what
// two devices compare: the same records under another vector behave otherwise in
// the next join.
//
// # Format of a manifest
//
// Integers are big-endian, uvarints in their shortest spelling and below 2^63.
// There is one spelling of each manifest.
//
//	version   1   0x01
//	flags     1   1 commit, 2 checkpoint
//	hive     32   device.HiveID
//	epoch     4   of the keys
//	members  32   hash of the author's membership log
//	actor     8   not zero
//	device   32   ed25519 public key
//	seq           uvarint from 1: number of the manifest in the actor's chain
//	prev     32   hash of the actor's manifest seq-1; zero exactly when seq is 1
//	ctr           uvarint
//	root     32   merkle.Hash of the records
//	state    32   state id
//	wall      8   author's clock, nanoseconds since 1970, signed; never decides anything
//	delta    32   hash of the encoded delta, commits only
//	              and its length, uvarint, 1 to 16 MiB, commits only
//	frontier      count uvarint, at most 4096, then
//	              {actor 8, ctr uvarint from 1, hash 32 not zero}, strictly ascending by actor
//	signature 64  over "roamfs manifest v1\x00" and all bytes before it
//
// The hash of a manifest is the BLAKE3 key derivation, context "roamfs manifest
// v1", of its bytes without the signature. A frontier's hash is that of the
// newest manifest the author had of that actor, and ctr the one in it.
//
// # Format of a delta
//
//	version   1   0x01
//	put           count uvarint, then records (tree.AppendRecord), strictly
//	              ascending by key, actor, counter
//	drop          count uvarint, then names of records (tree.AppendKeyDot),
//	              ascending likewise, none of which is among put
//
// A delta is at most 16 MiB: about a hundred times what a batch of small operations
// comes to, and room for the largest single one (package replica says which).
// Its hash ([Sum]) is the BLAKE3 key derivation, context
// "roamfs delta v1", of its bytes.
package manifest
