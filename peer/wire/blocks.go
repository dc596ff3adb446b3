package wire

import (
	"encoding/binary"
	"fmt"

	"github.com/roamfs/roamfs/sync/block"
)

const (
	wantSize   = 4 + 32 + 4
	dataHeader = 4 + 4 + 4
	endSize    = 4 + 1 + 4
)

// Want asks for a block.
type Want struct {
	Request uint32
	ID      block.ID
	Wait    uint32 // milliseconds after which the asker no longer waits
}

// Type returns TypeWant.
func (Want) Type() Type { return TypeWant }

func (m Want) append(b []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, m.Request)
	b = append(b, m.ID[:]...)
	return binary.BigEndian.AppendUint32(b, m.Wait)
}

func (d *decoder) want() Want {
	return Want{Request: d.u32(), ID: block.ID(d.take(32)), Wait: d.u32()}
}

// Cancel says that the asker no longer wants the answer.
type Cancel struct{ Request uint32 }

// Type returns TypeCancel.
func (Cancel) Type() Type               { return TypeCancel }
func (m Cancel) append(b []byte) []byte { return binary.BigEndian.AppendUint32(b, m.Request) }

// Data is a piece of a block.
type Data struct {
	Request uint32
	Total   uint32 // bytes of the sealed block: 1 to [block.MaxSealed]
	Offset  uint32
	Bytes   []byte // 1 to [MaxData], not beyond Total
}

// Type returns TypeData.
func (Data) Type() Type  { return TypeData }
func (m Data) size() int { return dataHeader + len(m.Bytes) }
func (m Data) append(b []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, m.Request)
	b = binary.BigEndian.AppendUint32(b, m.Total)
	b = binary.BigEndian.AppendUint32(b, m.Offset)
	return append(b, m.Bytes...)
}

func (d *decoder) data() Data {
	m := Data{Request: d.u32(), Total: d.u32(), Offset: d.u32(), Bytes: d.rest()}
	d.require(m.check(len(m.Bytes)))
	return m
}

// check reports whether n bytes at m.Offset lie within a possible block.
func (m *Data) check(n int) bool {
	return n >= 1 && n <= MaxData && m.Total <= block.MaxSealed && m.Offset <= m.Total && uint32(n) <= m.Total-m.Offset
}

// DataHeader reads the fields before the bytes of the DATA frame that r is at,
// whose body has n bytes, and returns how many bytes of the block follow, to be
// read from r. Bytes is left empty.
func DataHeader(r *Reader, n int) (Data, int, error) {
	var m Data
	if n <= dataHeader {
		return m, 0, fmt.Errorf("%w: %v of %d bytes", ErrMessage, TypeData, n)
	}
	head, err := r.head(dataHeader)
	if err != nil {
		return m, 0, err
	}
	m.Request = binary.BigEndian.Uint32(head)
	m.Total = binary.BigEndian.Uint32(head[4:])
	m.Offset = binary.BigEndian.Uint32(head[8:])
	n -= dataHeader
	if !m.check(n) {
		return m, 0, fmt.Errorf("%w: %v of %d bytes at %d of %d", ErrMessage, TypeData, n, m.Offset, m.Total)
	}
	return m, n, nil
}

// head reads the next n bytes of the body, which are good until the next call.
func (r *Reader) head(n int) ([]byte, error) {
	p, err := r.br.Peek(n)
	if err != nil {
		return nil, noEOF(err)
	}
	if _, err := r.br.Discard(n); err != nil {
		return nil, noEOF(err)
	}
	r.rest -= n
	return p, nil
}

// Status is how a request for a block ended.
type Status uint8

// The statuses. Their numbers are part of the format.
const (
	OK        Status = 0 // the block was sent in full
	NotHave   Status = 1 // the server has no such block
	Busy      Status = 2 // too many requests: try again later
	Late      Status = 3 // the time that the asker would wait was over
	Cancelled Status = 4
	Failed    Status = 5 // the server could not read the block
)

// String returns the status in words.
func (s Status) String() string {
	switch s {
	case OK:
		return "ok"
	case NotHave:
		return "does not have it"
	case Busy:
		return "busy"
	case Late:
		return "too late"
	case Cancelled:
		return "cancelled"
	default:
		return "could not read it"
	}
}

// End ends a request.
type End struct {
	Request uint32
	Status  Status
	Retry   uint32 // milliseconds after which to try again; zero unless Busy
}

// Type returns TypeEnd.
func (End) Type() Type { return TypeEnd }

func (m End) append(b []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, m.Request)
	b = append(b, byte(m.Status))
	return binary.BigEndian.AppendUint32(b, m.Retry)
}

func (d *decoder) end() End {
	m := End{Request: d.u32(), Status: Status(d.u8()), Retry: d.u32()}
	d.require(m.Status <= Failed && (m.Status == Busy || m.Retry == 0))
	return m
}
