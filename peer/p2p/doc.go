// Package p2p connects the devices of a hive: it finds them, keeps a connection
// to each, and gives streams between them. It is the one home of libp2p.
//
// # Who gets in
//
// Every connection is authenticated by both sides' device keys (TLS 1.3 over TCP,
// or QUIC), and a gate drops, right after the handshake and before any stream,
// every device that [Config.Allowed] does not know. A stranger learns the device
// key, which the handshake cannot hide, and nothing else: not even which
// protocols are served, for libp2p's identify protocol is not part of this host.
// The gate is asked again for every stream, and [Host.Disconnect] ends what is
// open when a device is no longer a member.
//
// A visitor is a device that is not allowed and may use one protocol
// ([Config.Visitor]): one that was a member, to be told that it is none any more,
// and whoever proves the owner key in the handshake, to bring in a new device. Its
// connections count for nothing else, and end after [visitTime].
//
// Nothing is contacted but the addresses of devices: no relays, no DHT, no
// bootstrap or STUN servers, no port mapping, no metrics.
//
// # Which connection
//
// On loopback and private networks TCP is dialed first, since there it moves
// several times the bytes of QUIC for a third of the CPU; on public addresses
// QUIC goes first, which needs fewer round trips and passes NATs better.
//
// Both ends may dial at once and so have two connections. Streams are opened on
// the better one, and after a grace of [dupGrace] the device with the lesser ID,
// and never the other one, closes the rest, so that two ends cannot close one
// each. Streams on a closed connection end with an error: users reopen.
//
// A connection counts as up once the other end has answered a PING on it: after
// a gate refused, libp2p still shows the dialer a connection for a moment. From
// then on each end pings every 2 s, and drops a connection on which nothing at
// all arrived for 6 s. A change of the network's addresses resets the backoff of
// all dials, and gives each connection 2 s to prove that it is alive.
//
// # Finding devices
//
// Addresses come from [Host.Remember] (the caller keeps them over restarts and
// passes on what peers tell) and from multicast DNS on the local network, in a
// service whose name is a hash of the hive's ID: members find each other, others
// cannot tell which hive it is.
package p2p
