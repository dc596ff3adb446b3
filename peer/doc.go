// Package peer exchanges blocks, and the messages of the layer above, with the
// other devices of the hive. It knows who said that it holds what, whom to ask
// for a block, and which copies may be counted on; it stores nothing itself and
// trusts no peer: every block is checked against its name before it is returned.
//
// # Fetching
//
// [Exchange.Fetch] asks the connected device that is likely to deliver first, of
// those that said they hold the block. A read for which a program waits is hedged:
// if nothing came within the time that 95 of 100 first bytes of that device took,
// and at least 30 ms, a second device is asked too, while what was asked twice stays below
// a twentieth of all. Without regard to that budget the next device is asked when one refuses,
// when its first byte does not come within 1 s, or when it stands still for 5 s.
// When all that are known to hold the block failed, the other peers are asked
// whether they have it. Whoever sends bytes that are not the block is asked no
// more for ten minutes, and is named. A device that fails three times in a row is
// asked last for 30 s.
//
// If nobody can deliver, the error is a [block.UnavailableError] that names the
// devices which do hold the block, or else are expected to. A read waits up to
// [Config.ReadTimeout] for a device to come back if none is connected, if one that
// holds the block was lost just now, or if a connection broke or a device failed
// while it was asked; readahead and copying do not wait.
//
// # Priorities
//
// Each priority has a stream of its own to each peer, so that a queue of large
// blocks never stands before a small one. The asking side lets copies wait while
// more urgent requests are under way; the serving side lets replies of a lower
// priority wait frame by frame. The lower ones keep a twentieth, so that nothing
// starves, and all of the line while the higher ones stand still.
//
// # Holdings
//
// Each device announces to all connected ones which blocks came and went, once
// they are durable, as a numbered sequence (package wire). A device that was away
// gets what it missed, or all from the start. What a device said counts until it
// says otherwise, or says that it does not have a block it was asked for. While it
// tells all from the start, what it said before still shows where blocks are, and is
// replaced when all was told.
//
// # Dropping a copy
//
// Two devices that hold the last two copies must not both drop theirs, each
// trusting the other. Whoever wants to drop a block first declares an intent,
// which is local, then asks others KEEP?, and counts only answers to that
// question. A device with an intent for a block answers no. Suppose all
// copies were dropped that way, and let D be the device that declared its intent
// last: it had a yes from some device that then had no intent and a copy; that device
// dropped its own later than that, and so declared its intent after D's, against
// what was supposed. An archive never drops: its word counts without a question
// while it is not older than 30 days, and if it asks KEEP? the answer is no. The
// word of an archive that tells all anew covers only what it has named since it
// began: it may do so because it has lost something.
//
// A block that no file refers to goes without proof that others hold it
// ([Exchange.Discard]), under an intent like any other. But a file of which this
// device has not heard may refer to it. So KEEP? is asked only of devices which
// said that they know every file that the asker knows: whatever it needs the
// block for, who says yes knows that, and does not take the block for garbage
// until it hears that it is needed no more. In the argument above, the device
// that is left knows each file that D knew when it asked. A yes also binds for as
// long as an intent, whatever is known, so that what the asker is just about to
// write has time to arrive.
//
// An intent lasts until the proof that came of it has lapsed, and as long again.
package peer
