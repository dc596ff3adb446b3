package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// ErrMessage reports a body that is not the one spelling of a message.
var ErrMessage = errors.New("malformed message")

// Type is the type of a frame.
type Type uint8

// The types. Their numbers are part of the format.
const (
	TypeWant   Type = 1
	TypeCancel Type = 2
	TypeData   Type = 3
	TypeEnd    Type = 4

	TypeHello     Type = 16
	TypeSync      Type = 17
	TypeSynced    Type = 18
	TypeHaveQuery Type = 19
	TypeHave      Type = 20
	TypeHold      Type = 21
	TypeKeepQuery Type = 22
	TypeKeep      Type = 23
	TypeAddrs     Type = 24

	TypePing Type = 32
	TypePong Type = 33

	// firstHint is the least type that a receiver may skip.
	firstHint Type = 128
)

// Bounds of messages.
const (
	MaxSync    = 4 << 20     // bytes of one SYNC
	SyncWindow = 3 * MaxSync // credit for SYNC
	MaxQuery   = 1000        // ids in one HAVE? or KEEP?
	MaxHold    = 4096        // ids in one HOLD
	MaxDevices = 64          // devices in one ADDRS
	MaxAddrs   = 16          // addresses of one device
	MaxAddr    = 255         // bytes of one address
	MaxMore    = 256         // unknown bytes at the end of HELLO
	maxHint    = 4 << 10

	// MaxData is how many bytes of a block one DATA frame carries: with its
	// header it fits in one message of the multiplexer, which is the unit in
	// which streams take turns.
	MaxData = 64<<10 - dataHeader - maxHeader

	// MaxWants is how many requests a server holds for one stream.
	MaxWants = 256
)

// String returns the name of t in the package comment.
func (t Type) String() string {
	switch t {
	case TypeWant:
		return "WANT"
	case TypeCancel:
		return "CANCEL"
	case TypeData:
		return "DATA"
	case TypeEnd:
		return "END"
	case TypeHello:
		return "HELLO"
	case TypeSync:
		return "SYNC"
	case TypeSynced:
		return "SYNCED"
	case TypeHaveQuery:
		return "HAVE?"
	case TypeHave:
		return "HAVE"
	case TypeHold:
		return "HOLD"
	case TypeKeepQuery:
		return "KEEP?"
	case TypeKeep:
		return "KEEP"
	case TypeAddrs:
		return "ADDRS"
	case TypePing:
		return "PING"
	case TypePong:
		return "PONG"
	default:
		return fmt.Sprintf("type %d", uint8(t))
	}
}

// Message is one of the messages of this package: [Want], [Cancel], [Data],
// [End], [Hello], [Sync], [Synced], [HaveQuery], [Have], [Hold], [KeepQuery],
// [Keep], [Addrs], [Ping], [Pong], [Unknown].
type Message interface {
	Type() Type
	append(b []byte) []byte
}

// ControlLimits are the limits of control streams.
func ControlLimits(t Type) (int, bool) {
	switch t {
	case TypeHello:
		return helloSize + MaxMore, true
	case TypeSync:
		return MaxSync, true
	case TypeSynced:
		return 4, true
	case TypeHaveQuery:
		return 4 + 32*MaxQuery, true
	case TypeHave:
		return 4 + 2 + (MaxQuery+7)/8, true
	case TypeHold:
		return holdSize + 32*MaxHold, true
	case TypeKeepQuery:
		return 16 + 32*MaxQuery, true
	case TypeKeep:
		return 16 + 2 + (MaxQuery+7)/8, true
	case TypeAddrs:
		return 1 + MaxDevices*(33+MaxAddrs*(1+MaxAddr)), true
	default:
		return maxHint, t >= firstHint
	}
}

// WantLimits are the limits of the asker's side of a block stream.
func WantLimits(t Type) (int, bool) {
	switch t {
	case TypeWant:
		return wantSize, true
	case TypeCancel:
		return 4, true
	default:
		return 0, false
	}
}

// DataLimits are the limits of the server's side of a block stream.
func DataLimits(t Type) (int, bool) {
	switch t {
	case TypeData:
		return dataHeader + MaxData, true
	case TypeEnd:
		return endSize, true
	default:
		return 0, false
	}
}

// PingLimits are the limits of ping streams.
func PingLimits(t Type) (int, bool) { return 8, t == TypePing || t == TypePong }

// Unknown is a hint that this version does not know. Receivers skip it.
type Unknown struct {
	T    Type // 128 or above
	Body []byte
}

// Type returns u.T.
func (u Unknown) Type() Type             { return u.T }
func (u Unknown) append(b []byte) []byte { return append(b, u.Body...) }

// Ping asks for a [Pong] with the same number.
type Ping struct{ Number uint64 }

// Type returns TypePing.
func (Ping) Type() Type               { return TypePing }
func (p Ping) append(b []byte) []byte { return binary.BigEndian.AppendUint64(b, p.Number) }

// Pong answers a [Ping].
type Pong struct{ Number uint64 }

// Type returns TypePong.
func (Pong) Type() Type               { return TypePong }
func (p Pong) append(b []byte) []byte { return binary.BigEndian.AppendUint64(b, p.Number) }

// Decode decodes the body of a frame of type t. Slices of bytes in the message
// are parts of body. The error wraps [ErrMessage].
func Decode(t Type, body []byte) (Message, error) {
	d := decoder{b: body}
	var m Message
	switch t {
	case TypeWant:
		m = d.want()
	case TypeCancel:
		m = Cancel{Request: d.u32()}
	case TypeData:
		m = d.data()
	case TypeEnd:
		m = d.end()
	case TypeHello:
		m = d.hello()
	case TypeSync:
		m = d.sync()
	case TypeSynced:
		m = Synced{Cost: d.u32()}
	case TypeHaveQuery:
		m = HaveQuery{Query: d.u32(), IDs: d.query()}
	case TypeHave:
		m = Have{Query: d.u32(), Bits: d.bits()}
	case TypeHold:
		m = d.hold()
	case TypeKeepQuery:
		m = KeepQuery{Nonce: Nonce(d.take(16)), IDs: d.query()}
	case TypeKeep:
		m = Keep{Nonce: Nonce(d.take(16)), Bits: d.bits()}
	case TypeAddrs:
		m = d.addrs()
	case TypePing:
		m = Ping{Number: d.u64()}
	case TypePong:
		m = Pong{Number: d.u64()}
	default:
		if t < firstHint || len(body) > maxHint {
			return nil, fmt.Errorf("%w: %v", ErrMessage, t)
		}
		return Unknown{T: t, Body: body}, nil
	}
	if d.bad || len(d.b) > 0 {
		return nil, fmt.Errorf("%w: %v of %d bytes", ErrMessage, t, len(body))
	}
	return m, nil
}
