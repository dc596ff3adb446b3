package wire

import (
	"encoding/binary"

	"github.com/roamfs/roamfs/peer/device"
	"github.com/roamfs/roamfs/sync/block"
)

const (
	cursorSize = 8 + 8 + 32
	helloSize  = 2 + 8 + 8 + cursorSize
	holdSize   = 1 + cursorSize + 2 + 2
)

// Cursor is a point in the sequence in which a device announces what it holds.
type Cursor struct {
	Epoch  uint64 // names one run of the sequence; zero: no point at all
	Seq    uint64
	Digest [32]byte // XOR of the ids held at that point
}

func (c *Cursor) append(b []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, c.Epoch)
	b = binary.BigEndian.AppendUint64(b, c.Seq)
	return append(b, c.Digest[:]...)
}

func (d *decoder) cursor() Cursor {
	return Cursor{Epoch: d.u64(), Seq: d.u64(), Digest: [32]byte(d.take(32))}
}

// MarshalBinary returns the 48 bytes of c. It never fails.
func (c Cursor) MarshalBinary() ([]byte, error) { return c.append(nil), nil }

// UnmarshalBinary is the inverse of MarshalBinary.
func (c *Cursor) UnmarshalBinary(b []byte) error {
	d := decoder{b: b}
	got := d.cursor()
	if d.bad || len(d.b) > 0 {
		return ErrMessage
	}
	*c = got
	return nil
}

// Hello is the first message of each side.
type Hello struct {
	Version  uint16
	Features uint64 // none are defined yet
	Epoch    uint64 // of the sender's own sequence
	Known    Cursor // how far the sender knows the receiver's sequence
	More     []byte // of a later version; at most [MaxMore] bytes
}

// Type returns TypeHello.
func (Hello) Type() Type { return TypeHello }

func (m Hello) append(b []byte) []byte {
	b = binary.BigEndian.AppendUint16(b, m.Version)
	b = binary.BigEndian.AppendUint64(b, m.Features)
	b = binary.BigEndian.AppendUint64(b, m.Epoch)
	b = m.Known.append(b)
	return append(b, m.More...)
}

func (d *decoder) hello() Hello {
	m := Hello{Version: d.u16(), Features: d.u64(), Epoch: d.u64(), Known: d.cursor(), More: d.rest()}
	d.require(m.Version > 0 && len(m.More) <= MaxMore)
	return m
}

// Sync carries a message of the layer above.
type Sync struct{ Bytes []byte } // 1 to [MaxSync]

// Type returns TypeSync.
func (Sync) Type() Type               { return TypeSync }
func (m Sync) size() int              { return len(m.Bytes) }
func (m Sync) append(b []byte) []byte { return append(b, m.Bytes...) }

func (d *decoder) sync() Sync {
	m := Sync{Bytes: d.rest()}
	d.require(len(m.Bytes) >= 1 && len(m.Bytes) <= MaxSync)
	return m
}

// SyncCost is what a SYNC of n bytes takes of the credit.
func SyncCost(n int) int { return n + 64 }

// Synced gives back credit for SYNC.
type Synced struct{ Cost uint32 }

// Type returns TypeSynced.
func (Synced) Type() Type               { return TypeSynced }
func (m Synced) append(b []byte) []byte { return binary.BigEndian.AppendUint32(b, m.Cost) }

// HaveQuery asks which of the blocks the receiver has.
type HaveQuery struct {
	Query uint32
	IDs   []block.ID // 1 to [MaxQuery]
}

// Type returns TypeHaveQuery.
func (HaveQuery) Type() Type { return TypeHaveQuery }

func (m HaveQuery) append(b []byte) []byte {
	return appendIDs(binary.BigEndian.AppendUint32(b, m.Query), m.IDs)
}

// Have answers a [HaveQuery]: one bit for each of its ids.
type Have struct {
	Query uint32
	Bits  []bool
}

// Type returns TypeHave.
func (Have) Type() Type { return TypeHave }

func (m Have) append(b []byte) []byte {
	return appendBits(binary.BigEndian.AppendUint32(b, m.Query), m.Bits)
}

// Hold announces what the sender holds since, and no longer.
type Hold struct {
	Reset  bool // what was known of the sender no longer counts
	Final  bool // knowledge is exact after this message
	Cursor Cursor
	Added  []block.ID // with Gone at most [MaxHold]
	Gone   []block.ID
}

// Type returns TypeHold.
func (Hold) Type() Type { return TypeHold }

func (m Hold) append(b []byte) []byte {
	var flags byte
	if m.Reset {
		flags |= 1
	}
	if m.Final {
		flags |= 2
	}
	b = m.Cursor.append(append(b, flags))
	b = binary.BigEndian.AppendUint16(b, uint16(len(m.Added)))
	b = binary.BigEndian.AppendUint16(b, uint16(len(m.Gone)))
	return appendIDs(appendIDs(b, m.Added), m.Gone)
}

func (d *decoder) hold() Hold {
	flags := d.u8()
	m := Hold{Reset: flags&1 != 0, Final: flags&2 != 0, Cursor: d.cursor()}
	added, gone := int(d.u16()), int(d.u16())
	d.require(flags <= 3 && added+gone <= MaxHold && len(d.b) == 32*(added+gone))
	m.Added, m.Gone = d.ids(added), d.ids(gone)
	return m
}

// Nonce ties an answer to one question.
type Nonce [16]byte

// KeepQuery asks whether the receiver keeps the blocks, now that the sender
// intends to drop its own.
type KeepQuery struct {
	Nonce Nonce
	IDs   []block.ID // 1 to [MaxQuery]
}

// Type returns TypeKeepQuery.
func (KeepQuery) Type() Type               { return TypeKeepQuery }
func (m KeepQuery) append(b []byte) []byte { return appendIDs(append(b, m.Nonce[:]...), m.IDs) }

// Keep answers a [KeepQuery]: one bit for each of its ids, set if the sender
// holds the block durably, verified, and has no intent to drop it.
type Keep struct {
	Nonce Nonce
	Bits  []bool
}

// Type returns TypeKeep.
func (Keep) Type() Type               { return TypeKeep }
func (m Keep) append(b []byte) []byte { return appendBits(append(b, m.Nonce[:]...), m.Bits) }

// Addrs tells where devices can be reached, the sender among them.
type Addrs struct{ Devices []DeviceAddrs } // at most [MaxDevices]

// DeviceAddrs are the addresses of one device, best first.
type DeviceAddrs struct {
	Device device.ID
	Addrs  []string // at most [MaxAddrs] of 1 to [MaxAddr] bytes
}

// Type returns TypeAddrs.
func (Addrs) Type() Type { return TypeAddrs }

func (m Addrs) append(b []byte) []byte {
	b = append(b, byte(len(m.Devices)))
	for _, dev := range m.Devices {
		b = append(b, dev.Device[:]...)
		b = append(b, byte(len(dev.Addrs)))
		for _, a := range dev.Addrs {
			b = append(append(b, byte(len(a))), a...)
		}
	}
	return b
}

func (d *decoder) addrs() Addrs {
	n := int(d.u8())
	d.require(n <= MaxDevices && len(d.b) >= n*33)
	if d.bad || n == 0 {
		return Addrs{}
	}
	m := Addrs{Devices: make([]DeviceAddrs, n)}
	for i := range m.Devices {
		dev := &m.Devices[i]
		dev.Device = device.ID(d.take(32))
		k := int(d.u8())
		d.require(k <= MaxAddrs)
		for range k {
			if d.bad {
				return m
			}
			size := int(d.u8())
			d.require(size > 0 && size <= len(d.b))
			if d.bad {
				return m
			}
			dev.Addrs = append(dev.Addrs, string(d.b[:size]))
			d.b = d.b[size:]
		}
	}
	return m
}
