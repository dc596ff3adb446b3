// Package peertest is a network in memory for tests of packages that speak
// through a peer.Transport: with latency, limited rate, loss, cuts that are
// noticed at once, and partitions that are noticed late or not at all.
//
// It waits only on channels and timers, so that it works in the bubbles of
// testing/synctest. What it leaves out: encryption, which peer is let in, the
// limits of libp2p, and two connections to one device.
package peertest
