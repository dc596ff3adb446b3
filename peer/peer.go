package peer

import (
	"context"
	"log/slog"
	"time"

	"github.com/roamfs/roamfs/peer/device"
	"github.com/roamfs/roamfs/peer/wire"
	"github.com/roamfs/roamfs/sync/block"
)

// Stream is a stream between two devices.
type Stream = wire.Stream

// Transport gives streams between connected devices, which it has authenticated.
// Package p2p has the real one, package peertest one in memory.
type Transport interface {
	// Handle sets what is done with streams that peers open for a protocol. It is
	// called before any peer can be connected.
	Handle(proto string, f func(ctx context.Context, dev device.ID, s Stream))
	// Open opens a stream to a connected device. It does not connect.
	Open(ctx context.Context, dev device.ID, proto string) (Stream, error)
	// Connected returns the devices that are connected now.
	Connected() []device.ID
	// OnChange has f called, one call at a time, after a device got connected and
	// after its last connection ended.
	OnChange(f func(dev device.ID, up bool))
	// RTT is the round-trip time to a device, zero if not known.
	RTT(dev device.ID) time.Duration
	// Path says in words how a device is connected.
	Path(dev device.ID) string
	// Addrs are the addresses of this device now; KnownAddrs those that are
	// remembered of another; Remember adds to them.
	Addrs() []string
	KnownAddrs(dev device.ID) []string
	Remember(dev device.ID, addrs []string)
}

// Blocks are the resident blocks of this device. cache.Cache is one.
type Blocks interface {
	// Read returns the sealed bytes of a resident block after verifying them. The
	// Exchange does not change them.
	Read(id block.ID) ([]byte, error)
	// Has reports whether the block is resident.
	Has(id block.ID) bool
	// Durable reports whether the block is resident and survives a power cut.
	Durable(id block.ID) bool
	// Each calls fn for each resident block.
	Each(fn func(id block.ID, size int64))
}

// Holdings remember, over restarts, which device said that it holds which
// blocks. store.Store is one. Cursors are opaque, at most 64 bytes.
type Holdings interface {
	// Hold records that dev holds added and no longer holds gone and, unless it is
	// nil, keeps cursor with that: never the cursor without what came before it.
	Hold(dev device.ID, added, gone []block.ID, cursor []byte) error
	// Retell says that from now on dev tells, with Hold, all that it holds. Its
	// cursor is forgotten; what it said before stays until Retold.
	Retell(dev device.ID) error
	// Retold says that dev has told all: what it has not named since Retell is
	// forgotten, and then cursor is kept.
	Retold(dev device.ID, cursor []byte) error
	// Holders returns the devices that said they hold the block, in no order.
	Holders(id block.ID) ([]device.ID, error)
	// Affirmed returns those of Holders whose word stands: without the devices that
	// tell all anew and have not named the block since they began.
	Affirmed(id block.ID) ([]device.ID, error)
	// Cursor returns the cursor last kept of dev, nil if there is none.
	Cursor(dev device.ID) ([]byte, error)
}

// SyncHandler is the layer above, which exchanges opaque messages with peers. For
// one device, calls of Connected, Receive and Disconnected come one after the
// other, in this order, with any number of Receives; for several devices they
// come side by side.
type SyncHandler interface {
	// Connected says that messages can be exchanged with dev from now on. With send
	// they are sent, 1 byte to 4 MiB each, in the order of the calls; it waits until
	// there is room in the queue, and fails when the session has ended, after which
	// another one may begin. That send returned does not mean that msg has arrived.
	// The message belongs to send afterwards.
	Connected(dev device.ID, send func(ctx context.Context, msg []byte) error)
	// Receive takes a message, which belongs to it. After an error the session
	// ends and begins anew. While Receive takes its time, the sender waits.
	Receive(ctx context.Context, dev device.ID, msg []byte) error
	// Disconnected says that the session has ended.
	Disconnected(dev device.ID)
}

// Priority is how urgent a fetch is.
type Priority uint8

// The priorities, most urgent first.
const (
	Demand     Priority = iota // a program waits
	ReadAhead                  // a program may want it soon
	Background                 // copies, repair
)

func (p Priority) lane() wire.Lane { return wire.Lane(min(p, Background)) }

// Config says what an Exchange works with. All but Sync, Heard, ReadTimeout,
// Copies and Log is needed.
type Config struct {
	Host     Transport
	Blocks   Blocks
	Holdings Holdings
	// Members returns the devices of the hive, this one included.
	Members func() []device.Member
	Self    device.ID
	Sync    SyncHandler // nil: messages are not exchanged

	// Heard, if not nil, is called after dev said what it holds. It must not wait.
	Heard func(dev device.ID)

	// ReadTimeout is how long a Demand fetch goes on without progress before it
	// fails. Zero: 10 s.
	ReadTimeout time.Duration

	// Copies is how many other devices must hold a block before this one drops it:
	// [Exchange.Prove] asks no more when the word of that many archives is known.
	// Zero: 1.
	Copies int

	Log *slog.Logger // nil: nothing is logged
}

// Kept says that a block will be held by others if this device drops it.
type Kept struct {
	ID      block.ID
	Devices []device.ID // distinct, not this one; at least one
	AsOf    time.Time   // the oldest word that it rests on

	// Until is when it lapses, if it rests on an answer to a question; the block
	// must be gone by then or stay. Zero: it rests on archives alone.
	Until time.Time
}

// PeerInfo is what is known of another device of the hive.
type PeerInfo struct { //nolint:revive // an Info alone would not say of what
	ID        device.ID
	Label     string
	Role      device.Role
	Connected bool
	LastSeen  time.Time     // zero: not since this Exchange began
	RTT       time.Duration // zero: not known
	Path      string        // as [Transport.Path]
	Rate      float64       // bytes per second of blocks from it, smoothed; 0: not known
	Fault     string        // why it is not asked for blocks now; "": it is
}

// Unavailable is a block that could not be fetched.
type Unavailable struct {
	ID      block.ID
	Holders []string // names of devices, as in [block.UnavailableError]
	At      time.Time
	Times   int // in a row
}
