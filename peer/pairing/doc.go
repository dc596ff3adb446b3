// Package pairing brings a new device into a hive: a member opens an invite
// ([Open]) and shows its code, the new device joins with it ([Join]).
//
// # The code
//
// A code is "roamfs-pair:1." and base64url, without padding, of
//
//	32  device ID of the inviter
//	16  secret, drawn at random for this code
//	 4  u32: when it is over, in minutes since 1970
//	 1  number of addresses, at most 8
//	 …  each address: u8 kind and
//	      4: IPv4/TCP: 4 bytes, u16 port      6: IPv6/TCP: 16 bytes, u16 port
//	      5: IPv4/QUIC: the same as 4         7: IPv6/QUIC: the same as 6
//	      0: u8 length, a multiaddr as text
//	 4  first bytes of SHA-256 over "roamfs pair code 1" and all of the above
//
// Integers are big-endian. The text has no character that a shell takes for
// something else, and is what a QR code shows. The checksum is against typing and
// cutting only. The form with '?' in the place of '.' is read as well.
//
// # The protocol
//
// While the invite is open the inviter A listens on a host of its own, with its
// device key, that serves only this protocol (p2p.Guest): the gate of the hive
// stays shut. The joiner B connects with the key that it will have as a device. Both
// ends of the connection have proven their keys, and it is encrypted. On one
// stream for "/roamfs/pair/1":
//
//	1  B→A  u8 version = 1, 32 nonce
//	2  A→B  u8 version = 1, 32 nonce
//	3  B→A  32 proof, u32 length ≤ 8 KiB, sealed request
//	4  A→B  u8 status, 32 proof, u32 length ≤ 1 MiB, sealed welcome
//	5  B→A  32 receipt
//
// after which A closes the stream, for B to see that the receipt was read,
// with, where | is concatenation and S the secret of the code,
//
//	T        = SHA-256("roamfs pair 1" | ID of A | ID of B | nonce of B | nonce of A)
//	key(use) = HKDF-SHA-256(S, salt "roamfs pair 1", info use | T), 32 bytes
//	proof 3  = HMAC-SHA-256(key("joiner proves"), T | SHA-256(sealed request))
//	proof 4  = HMAC-SHA-256(key("inviter proves"), u8 status | T | proof 3 | SHA-256(sealed welcome))
//	receipt  = HMAC-SHA-256(key("joiner proves"), "received" | T | proof 4)
//	sealed   = AES-256-GCM under key("joiner seals") or key("inviter seals"), nonce 0: each seals once
//
// The request is {u8 version = 1, u8 length, label, u8 role, u8 whether the role
// was chosen, u16 length, extra};
// the welcome is opaque here. Status 0 brings the welcome, status 2 the reason, as
// text, why A would not admit B after all. Status 1 is a refusal: its proof
// is random and it seals nothing.
//
// # Why it holds
//
// The secret has 128 bits and is used as a key only, so that nothing on the line
// can be tested against guesses. Who does not know it cannot make proof 3, nor 4;
// B proves first, and A sends nothing secret before. T names both
// devices as each end sees them on its own connection: someone in between who passes
// messages on has, with his own keys, other IDs at least on one side, so T differs
// and the proofs fail, even if he changed the inviter's ID in the code. B
// connects to the ID in the code and to no other. The nonces make each run
// different: nothing can be replayed.
//
// A wrong proof counts as a failure, and three end the invite. A code admits one
// device: the first that proves it. Only that same device, by its key, may run
// the protocol again, until it has sent the receipt or the time is over, so that
// a lost connection costs nothing; it gets the same welcome. The time is the
// inviter's. For a code that is wrong, used by another device or over, A does the same
// work as for a good one (with a random secret where it must not use the real one) and
// gives the same answer.
package pairing
