// Package wire is how two devices of a hive speak: the messages, their bytes and
// their limits. It does no I/O but to read and write frames, keeps no state, and
// trusts nothing that it decodes: every length is checked before memory is taken
// for it, and no message has a second spelling (what decodes encodes to the same
// bytes).
//
// # Frames
//
// A stream carries frames:
//
//	uvarint  n       bytes that follow, 1 ≤ n ≤ 1 + the limit of the type; shortest form
//	u8       type
//	n-1      body
//
// Integers in bodies are big-endian. Each kind of stream admits only some types,
// each up to its own size (see [Limits]); a frame of another type or size ends
// the stream. Types of 128 and above are reserved for hints that a receiver may
// skip: a control stream admits them up to 4 KiB, and [Decode] gives [Unknown].
//
// # Block streams
//
// A device that wants blocks opens one long-lived stream a lane to each peer,
// with the protocols [BlockProtocol]: fg, for which a program waits, ahead, which
// a program may want soon, and bulk, copies for safety. The opener sends WANT and
// CANCEL, the other side DATA and END; answers may come in any order, interleaved
// frame by frame.
//
//	WANT    u32 request, 32 id, u32 milliseconds that the asker will wait
//	CANCEL  u32 request
//	DATA    u32 request, u32 total, u32 offset, bytes (1 to [MaxData])
//	END     u32 request, u8 status, u32 milliseconds after which to try again (busy only)
//
// Numbers of requests are the asker's; each is in use from its WANT to its END,
// which comes exactly once, whether or not a CANCEL was sent. DATA of a request
// come in order and without gaps from offset 0, total is the size of the sealed
// block and the same in each, at most [block.MaxSealed], and a status of ok
// follows exactly total bytes.
//
// Credit is counted in bytes by the asker, who keeps what is under way on a
// stream within a window, so that a queue forms where priorities are known. The
// server holds at most [MaxWants] requests a stream: it answers END busy to more.
//
// # Control stream
//
// Of two devices the one with the lesser device ID opens one stream of
// [ControlProtocol] as soon as they are connected and again whenever it broke.
// Both sides send HELLO first, then the other messages in any order.
//
//	HELLO    u16 version, u64 features, u64 epoch, 48 cursor, 0 to 256 more bytes
//	SYNC     1 to 4 MiB, opaque here, in order, each delivered once
//	SYNCED   u32 cost of the SYNC that the receiver has done with: gives back credit
//	HAVE?    u32 query, 1 to 1000 ids
//	HAVE     u32 query, bitmap
//	HOLD     u8 flags, 48 cursor, u16 added, u16 gone, ids; together at most 4096 ids
//	KEEP?    16 nonce, 1 to 1000 ids
//	KEEP     16 nonce, bitmap
//	ADDRS    u8 devices (at most 64), each: 32 id, u8 addresses (at most 16), each: u8 length, text
//
// A cursor is {u64 epoch, u64 seq, 32 digest}: a point in the sequence in which a
// device announces what it holds. The epoch names one run of that device's
// sequence and is drawn at random; the digest is the XOR of all ids held at that
// point, so a device can tell that a peer's knowledge from an earlier run is
// still exact. The epoch in HELLO is the sender's own, its cursor says how far it
// knows the receiver's sequence (zeros: nothing). HOLD carries the cursor that is
// reached with it. Flag 1, reset, says that the receiver's knowledge of the
// sender begins anew with this message; flag 2, final, that knowledge is exact
// after it and the cursor may be kept.
//
// A bitmap is {u16 n, ⌈n/8⌉ bytes}, bit i of byte i/8 counted from the least
// significant one; bits from n on are zero.
//
// Credit for SYNC: each counts [SyncCost] of its length, and at most [SyncWindow]
// may be outstanding, that is sent and not given back by SYNCED.
//
// # Ping stream
//
// Each end of a connection opens one stream of [PingProtocol] and sends
//
//	PING  u64 number
//	PONG  u64 number
//
// every few seconds and at once after a change of network; the other end answers
// each PING with PONG. A connection that brought nothing at all for a while is dead.
//
// # Versions
//
// The protocols carry the major version. An incompatible change is a new major
// version served beside the old one; everything else is a bit in HELLO's
// features or a type of 128 and above.
package wire
