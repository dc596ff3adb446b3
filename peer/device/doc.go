// Package device names the machines of a hive, keeps their keys, and holds the
// membership log that says which of them belong.
//
// It is a leaf: it imports only the standard library and BLAKE3, does no
// network, and reads no clock.
//
// # Names
//
// A device is named by its ed25519 public key ([ID]). A hive is named by a hash
// of its owner's public key ([HiveOf]), so a hive id alone is enough to check
// that a membership log is the right one. An owner key is made for one hive, is
// kept on the recovery sheet ([Sheet]) and not on any device, and is the arbiter
// of last resort. An actor ([NewActor]) is the eight-byte name under which one
// incarnation of a device writes to the replicated tree.
//
// # Membership log
//
// The log is a set of signed records that form a hash DAG: each record names
// the records that its signer knew to be newest (its parents), and so, through
// them, everything in its past. Two logs of one hive are joined by taking the
// union of their records. The union is commutative, associative and idempotent,
// since whether a record is acceptable depends on the record and its past only,
// and what the log says ([Log.Members]) is a function of the set of records.
//
// A record is acceptable when
//   - its signature is that of its signer, over its bytes, for its hive;
//   - every parent is present;
//   - its signer has authority in its past. For [KindGenesis] the signer is the owner
//     key, by which the hive is named, and there are no parents. For [KindAdd],
//     [KindRole] and [KindRename] it is the owner key or a device which the past
//     admits and does not revoke; so it is for [KindEpoch]. For [KindRevoke] it is the owner key, or the
//     device that leaves;
//   - the device that a [KindRevoke], [KindRole] or [KindRename] speaks of is admitted by
//     its past.
//
// A hive begins with one genesis record, which also admits the first device.
// The owner can begin again from the recovery sheet after the loss of every
// device: that is another genesis of the same hive, and joins like any record.
//
// # What the records say
//
// Records are read in the order (height, hash), where the height is one more
// than the greatest height of the parents. So a record comes after its past, and
// every device reads the same order.
//
// A revoked device is no member, for good: to return it needs a new key. A
// record signed by a device that is revoked has no effect when the revocation
// does not have it in its past (a stolen device cannot go on admitting others),
// and neither has what rests on such a record. It stays in the log.
//
// The first record that admits a device gives its label, its role and the time;
// later ones for the same device each add an actor, that is an incarnation. The
// last role and the last rename win. An actor belongs to the device that
// claims it first. Of several devices that want one label the first keeps it and
// the others get "-2", "-3" and so on, after all plain labels are given out.
//
// What a revoked device wrote counts up to the cutoffs of its revocation: the
// newest commit of each of its incarnations that whoever revoked it knew of. Of
// several revocations the farthest counts, and those of the owner before one of
// the device itself. What lies beyond is for package sync/replica to judge.
//
// # Epochs
//
// The secret that seals blocks belongs to an epoch. The first epoch is number 1; its
// secret is given to each device when it is paired and stands on the recovery
// sheet. An epoch record names a later epoch by its number and a hash of its
// secret ([SecretID]) and carries the secret, sealed for each member (share.go).
// Its number is one more than the greatest in its past; or else number and
// secret are those of a record in its past, and it hands that secret to members
// that did not have it. A share is for a device that the past admits and does
// not revoke.
//
// Of the records with an effect the greatest number is the epoch in which members
// seal, and of several secrets with that number the one with the lowest hash. Every
// secret that a device can open serves for reading, whoever made it. An epoch is
// stale unless each of its records has every revocation in its past; then a
// revoked device may know its secret, and some member begins another one.
//
// # Format of a record
//
// Integers are big-endian. There is one spelling of each record: decoders refuse
// any other.
//
//	version   1   0x01
//	kind      1   1 genesis, 2 add, 3 revoke, 4 role, 5 rename, 6 epoch
//	hive     32
//	signer   32   ed25519 public key
//	wall      8   signer's clock, milliseconds since 1970, at most 2^53; never decides anything
//	parents   1   count, 0 to 64 (genesis 0, others at least 1)
//	        32*n  record hashes, strictly ascending
//	body          by kind
//	signature 64  over "roamfs membership record v1\x00" and all bytes before it
//
// Bodies:
//
//	genesis, add   device 32, role 1, actor 8 (not zero), label
//	revoke         device 32, class 1, count 1 (0 to 64), count times
//	               {actor 8 strictly ascending, ctr 8, commit hash 32}
//	role           device 32, role 1
//	rename         device 32, label
//	epoch          number 4 (at least 2), secret id 32, count 1 (1 to 128), count
//	               times {device 32 strictly ascending, sealed secret 80}
//	label          length 1 (1 to 32), bytes of a-z 0-9 '-', the first not '-'
//	role           1 cache, 2 archive
//	class          1 retired, 2 lost, 3 compromised
//
// The hash of a record is BLAKE3-256 of all its bytes with the signature.
//
// # Format of a log
//
//	version   1   0x01
//	hive     32
//	count         uvarint, 1 to 1024
//	count times   length uvarint, record
//
// A log is at most 1 MiB. [Log.Encode] writes records in their order of reading,
// so equal logs have equal bytes; [Decode] and [Log.Merge] take them in any
// order. [Log.Hash] is the BLAKE3 key derivation, context "roamfs membership log
// v1", of the hive id and the record hashes in ascending order.
package device
