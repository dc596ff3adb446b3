package wire

import (
	"io"
	"time"
)

// Protocols of streams between devices.
const (
	ControlProtocol = "/roamfs/control/1"
	PingProtocol    = "/roamfs/ping/1"
)

// Version is the version that this package speaks, sent in HELLO.
const Version = 1

// Lane is the urgency of a block stream. A lesser lane goes before a greater one.
type Lane uint8

// The lanes, most urgent first.
const (
	Foreground Lane = iota // a program waits
	Ahead                  // a program may want it soon
	Bulk                   // copies, repair
	Lanes      = 3         // how many there are
)

// String returns "fg", "ahead" or "bulk".
func (l Lane) String() string {
	switch l {
	case Foreground:
		return "fg"
	case Ahead:
		return "ahead"
	default:
		return "bulk"
	}
}

// BlockProtocol returns the protocol of the block streams of lane l.
func BlockProtocol(l Lane) string { return "/roamfs/block/1/" + l.String() }

// Stream is an ordered, reliable, authenticated, private flow of bytes between
// two devices. One goroutine may read while another writes; everything else may
// be called at any time, from any goroutine.
type Stream interface {
	io.ReadWriteCloser

	// CloseWrite says that nothing more will be written. Reading goes on.
	CloseWrite() error

	// Reset ends both directions at once, here and at the other end, where what
	// was not yet read may be lost. Waiting calls return with an error.
	Reset() error

	// SetDeadline sets both deadlines, as those of a [net.Conn]: a zero time
	// means none.
	SetDeadline(t time.Time) error
	SetReadDeadline(t time.Time) error
	SetWriteDeadline(t time.Time) error
}
