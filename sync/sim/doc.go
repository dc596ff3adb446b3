// Package sim simulates whole devices: real replicas over real databases, with
// signed manifests and a membership log, on a network, disks and clocks that a seed
// commands. It is tests alone.
//
// A run is a bubble of testing/synctest, so that all timers are virtual. One
// goroutine decides what happens next and waits each time until all that the
// devices do has come to rest; what they send goes into queues from which it takes.
// So a seed makes one run, message by message (TestOneSeedOneRun), and a failure
// prints its seed and the steps that are needed.
//
// # What happens
//
//   - users create, write, rename, exchange, link, remove, and set modes, times and
//     attributes under three names; write to what they opened long before; fill
//     directories and remove whole trees
//   - connections begin at one end and then at the other, break with what is under
//     way, and end at each end in its own time; the network falls apart and is whole again
//   - machines are turned off, killed, and lose power: at any write to the
//     database or any sync of it. What is left is the disk of that moment, or of
//     the last sync
//   - old images of disks are put back, and cloned to other machines, which run at the
//     same time; clocks are wrong and jump by 10 years
//   - devices are added on both sides of a partition, renamed, and get other roles
//   - in some runs the network changes bits, cuts messages short, plays old ones
//     again and withholds others
//
// In the end all is healed: every machine is on and connected, in a mesh or in a row.
// Then users do a little more, and what nobody needs goes with that.
//
// # What is checked
//
// The numbers are those of sync.md, section 1.8.
//
//	I2, I3   in the end all have one state id and show the same
//	I4       after every step: a tree with legal unique names, nothing without a directory
//	         unless some device is in use twice
//	I5       after every step: what a device showed and nobody gave up, it shows; in the end all do
//	I6       nothing is shown that nobody wrote
//	I7, I8   an operation does what it says, and changes only what it names
//	I9       in the end no message for three minutes, in some runs for an hour, and no commit
//	I10, I11 the commits of an actor, as they are sent, are one chain, and see ever more
//	I12      no message tells of a commit that is not on the disk of its sender; nobody knows
//	         a commit of a device that it does not know itself after a crash
//	I13, I16 root and tree follow from the records alone
//	I14      devices that keep few commits take whole states from others, and come to the same
//	I15      after a crash or a restart a device shows just what it showed, or, if the power
//	         went off in the middle of something, at least all that was synced
//
// Besides: whatever another device changes is reported to subscribers, honest
// devices refuse nothing of each other, and a message that is refused names the device
// that it came from.
//
// Left out are drafts and blocks, disks that are full or fail, the damage in the middle
// between two syncs that a power cut can do to a file (package store trusts
// Badger there), and devices that lie with a valid key.
//
// # Running
//
//	go test ./sync/sim -run TestSimulation -sims 100000 -sim-seed 1 -timeout 24h
//	go test ./sync/sim -run TestSimulation -sims 1 -sim-seed 2028 -sim-log -v
//
// The disks are in /dev/shm where that is to be had.
package sim
