package wire

import (
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/roamfs/roamfs/peer/device"
	"github.com/roamfs/roamfs/sync/block"
)

var update = flag.Bool("update", false, "rewrite golden files")

var messages = []Message{
	Want{Request: 1, ID: block.ID{2}, Wait: 10_000},
	Cancel{Request: 1},
	Data{Request: 1, Total: 5, Offset: 2, Bytes: []byte("abc")},
	End{Request: 1, Status: OK},
	End{Request: 2, Status: Busy, Retry: 50},
	End{Request: 3, Status: Failed},
	Hello{Version: 1, Features: 2, Epoch: 3, Known: Cursor{Epoch: 4, Seq: 5, Digest: [32]byte{6}}},
	Hello{Version: 9, More: []byte("later")},
	Sync{Bytes: []byte("message")},
	Synced{Cost: 71},
	HaveQuery{Query: 7, IDs: []block.ID{{1}, {2}}},
	Have{Query: 7, Bits: []bool{true, false, true, true, false, false, false, true, true}},
	Hold{Reset: true, Cursor: Cursor{Epoch: 1}, Added: []block.ID{{1}, {2}}},
	Hold{Final: true, Cursor: Cursor{Epoch: 1, Seq: 2}, Gone: []block.ID{{3}}},
	Hold{},
	KeepQuery{Nonce: Nonce{1}, IDs: []block.ID{{9}}},
	Keep{Nonce: Nonce{1}, Bits: []bool{true}},
	Keep{},
	Addrs{},
	Addrs{Devices: []DeviceAddrs{
		{Device: device.ID{1}, Addrs: []string{"/ip4/1.2.3.4/tcp/5", "/ip6/::1/udp/6/quic-v1"}},
		{Device: device.ID{2}},
	}},
	Ping{Number: 1},
	Pong{Number: 2},
	Unknown{T: 200, Body: []byte("hint")},
}

// Frames are what they were: devices with programs of different age understand
// each other.
func TestGolden(t *testing.T) {
	const name = "testdata/frames1.txt"
	var got strings.Builder
	for _, m := range messages {
		fmt.Fprintf(&got, "%v %s\n", m.Type(), hex.EncodeToString(Append(nil, m)))
	}
	if *update {
		if err := os.WriteFile(name, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if got.String() != string(want) {
		t.Errorf("got\n%swant\n%s", got.String(), want)
	}
}

// all admits every type.
func all(t Type) (int, bool) {
	for _, limits := range []Limits{ControlLimits, WantLimits, DataLimits, PingLimits} {
		if n, ok := limits(t); ok {
			return n, true
		}
	}
	return 0, false
}

func TestRoundTrip(t *testing.T) {
	var b []byte
	for _, m := range messages {
		b = Append(b, m)
	}
	for name, in := range map[string]io.Reader{
		"at once":   bytes.NewReader(b),
		"in halves": iotest.HalfReader(bytes.NewReader(b)),
		"by bytes":  iotest.OneByteReader(bytes.NewReader(b)),
	} {
		r := NewReader(in, all, 0)
		for _, want := range messages {
			got, err := r.Message()
			if err != nil {
				t.Fatalf("%s: %v: %v", name, want.Type(), err)
			}
			if u, ok := got.(Hello); ok && len(u.More) == 0 {
				u.More = nil
				got = u
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("%s: got %+v, want %+v", name, got, want)
			}
		}
		if _, err := r.Message(); !errors.Is(err, io.EOF) {
			t.Errorf("%s: at the end %v, want io.EOF", name, err)
		}
	}
}

// Every prefix of a stream but those that end with a frame ends unexpectedly.
func TestCutFrames(t *testing.T) {
	for _, m := range messages {
		b := Append(nil, m)
		for n := 1; n < len(b); n++ {
			_, err := NewReader(bytes.NewReader(b[:n]), all, 0).Message()
			if !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("%v: %d of %d bytes: %v", m.Type(), n, len(b), err)
			}
		}
	}
}

// Bodies that are too short, too long, or have another spelling of what they say.
func TestMalformed(t *testing.T) {
	id := strings.Repeat("ab", 32)
	for name, c := range map[string]struct {
		t    Type
		body string // hex
	}{
		"want, short":             {TypeWant, "00000001" + id},
		"want, long":              {TypeWant, "00000001" + id + "0000000000"},
		"data, no bytes":          {TypeData, "00000001" + "00000001" + "00000000"},
		"data, past its end":      {TypeData, "00000001" + "00000002" + "00000001" + "aabb"},
		"data, offset past end":   {TypeData, "00000001" + "00000002" + "00000003" + "aa"},
		"data, offset overflows":  {TypeData, "00000001" + "00000002" + "ffffffff" + "aabbcc"},
		"data, of a huge block":   {TypeData, "00000001" + "10000000" + "00000000" + "aa"},
		"end, unknown status":     {TypeEnd, "00000001" + "06" + "00000000"},
		"end, retry when ok":      {TypeEnd, "00000001" + "00" + "00000001"},
		"hello, version 0":        {TypeHello, "0000" + strings.Repeat("00", 64)},
		"hello, short":            {TypeHello, "0001" + strings.Repeat("00", 63)},
		"hello, too much more":    {TypeHello, "0001" + strings.Repeat("00", 64+MaxMore+1)},
		"sync, empty":             {TypeSync, ""},
		"have?, none":             {TypeHaveQuery, "00000001"},
		"have?, odd":              {TypeHaveQuery, "00000001" + id + "00"},
		"have, bits past the end": {TypeHave, "00000001" + "0003" + "08"},
		"have, a byte too many":   {TypeHave, "00000001" + "0008" + "0000"},
		"have, a byte too few":    {TypeHave, "00000001" + "0009" + "00"},
		"have, too many":          {TypeHave, "00000001" + "03e9" + strings.Repeat("00", 126)},
		"hold, unknown flag":      {TypeHold, "04" + strings.Repeat("00", 48) + "00000000"},
		"hold, ids missing":       {TypeHold, "00" + strings.Repeat("00", 48) + "00010001" + id},
		"hold, ids left":          {TypeHold, "00" + strings.Repeat("00", 48) + "00000001" + id + id},
		"hold, too many":          {TypeHold, "00" + strings.Repeat("00", 48) + "10000001" + strings.Repeat("00", 32*4097)},
		"keep?, none":             {TypeKeepQuery, strings.Repeat("00", 16)},
		"addrs, too many devices": {TypeAddrs, "41" + strings.Repeat("00", 33*65)},
		"addrs, devices missing":  {TypeAddrs, "02" + id + "00"},
		"addrs, empty address":    {TypeAddrs, "01" + id + "0100"},
		"addrs, cut address":      {TypeAddrs, "01" + id + "01" + "02" + "61"},
		"addrs, too many":         {TypeAddrs, "01" + id + "11" + strings.Repeat("0161", 17)},
		"addrs, more":             {TypeAddrs, "01" + id + "00" + "00"},
		"ping, short":             {TypePing, "00"},
		"no such type":            {77, ""},
		"huge hint":               {200, strings.Repeat("00", maxHint+1)},
	} {
		body, err := hex.DecodeString(c.body)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if m, err := Decode(c.t, body); !errors.Is(err, ErrMessage) {
			t.Errorf("%s: %+v, %v", name, m, err)
		}
	}
}

func TestBadFrames(t *testing.T) {
	for name, c := range map[string]struct {
		b      []byte
		limits Limits
	}{
		"length zero":            {[]byte{0, byte(TypePing)}, all},
		"length not shortest":    {[]byte{0x81, 0, byte(TypePing)}, all},
		"length of five bytes":   {[]byte{0xff, 0xff, 0xff, 0xff, 0x7f, byte(TypePing)}, all},
		"type of another stream": {Append(nil, Ping{}), ControlLimits},
		"too long for its type":  {AppendFrame(nil, TypePing, make([]byte, 9)), PingLimits},
		"huge":                   {[]byte{0xff, 0xff, 0xff, 0x7f, byte(TypeSync)}, ControlLimits},
		"unknown below 128":      {AppendFrame(nil, 99, nil), ControlLimits},
		"hint on a block stream": {AppendFrame(nil, 200, nil), DataLimits},
	} {
		if _, _, err := NewReader(bytes.NewReader(c.b), c.limits, 0).Next(); !errors.Is(err, ErrFrame) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Memory is not taken for what a length says, but for what has come.
func TestMemoryFollowsBytes(t *testing.T) {
	b := []byte{0x81, 0x80, 0x80, 0x02, byte(TypeSync)} // 4 MiB are announced
	r := NewReader(bytes.NewReader(append(b, make([]byte, 1000)...)), ControlLimits, 0)
	if _, err := r.Message(); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Fatal(err)
	}
	if cap(r.body) > 2*growStep {
		t.Errorf("%d bytes were taken for 1000", cap(r.body))
	}
}

// What was not read of a body is skipped, also when it is read in part.
func TestSkip(t *testing.T) {
	b := Append(nil, Sync{Bytes: bytes.Repeat([]byte("x"), 100_000)})
	b = Append(b, Data{Request: 1, Total: 3, Bytes: []byte("abc")})
	b = Append(b, Ping{Number: 7})
	r := NewReader(bytes.NewReader(b), all, 0)
	if _, n, err := r.Next(); n != 100_000 || err != nil {
		t.Fatal(n, err)
	}
	if _, err := io.ReadFull(r, make([]byte, 70_000)); err != nil {
		t.Fatal(err)
	}
	typ, n, err := r.Next()
	if typ != TypeData || err != nil {
		t.Fatal(typ, err)
	}
	h, n, err := DataHeader(r, n)
	if err != nil || n != 3 || h.Request != 1 || h.Total != 3 {
		t.Fatalf("%+v %d %v", h, n, err)
	}
	if got, err := io.ReadAll(r); string(got) != "abc" || err != nil {
		t.Fatalf("%q %v", got, err)
	}
	if m, err := r.Message(); m != (Ping{Number: 7}) || err != nil {
		t.Fatal(m, err)
	}
}

// slow records deadlines.
type slow struct {
	io.Reader
	set []bool
}

func (s *slow) SetReadDeadline(t time.Time) error {
	s.set = append(s.set, !t.IsZero())
	return nil
}

// A deadline stands while a frame is read that did not come in one piece, never
// between frames.
func TestDeadlines(t *testing.T) {
	frame := Append(nil, Ping{Number: 1})
	whole := &slow{Reader: bytes.NewReader(frame)}
	r := NewReader(whole, PingLimits, time.Second)
	if _, err := r.Message(); err != nil || len(whole.set) != 0 {
		t.Errorf("in one piece: %v, %v", whole.set, err)
	}
	pieces := &slow{Reader: iotest.OneByteReader(bytes.NewReader(append(frame, frame...)))}
	r = NewReader(pieces, PingLimits, time.Second)
	for range 2 {
		if _, err := r.Message(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := r.Message(); !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	if want := []bool{true, false, true, false}; !reflect.DeepEqual(pieces.set, want) {
		t.Errorf("in pieces: %v, want %v", pieces.set, want)
	}
}

func TestCursorBytes(t *testing.T) {
	c := Cursor{Epoch: 1, Seq: 2, Digest: [32]byte{3}}
	b, err := c.MarshalBinary()
	if err != nil || len(b) != 48 {
		t.Fatalf("%d bytes, %v", len(b), err)
	}
	var got Cursor
	if err := got.UnmarshalBinary(b); err != nil || got != c {
		t.Errorf("%+v, %v", got, err)
	}
	if err := got.UnmarshalBinary(b[1:]); !errors.Is(err, ErrMessage) {
		t.Errorf("47 bytes: %v", err)
	}
}

// FuzzDecode: what decodes has one spelling, and takes little more memory than it
// has bytes.
func FuzzDecode(f *testing.F) {
	for _, m := range messages {
		f.Add(byte(m.Type()), m.append(nil))
	}
	f.Fuzz(func(t *testing.T, typ byte, body []byte) {
		m, err := Decode(Type(typ), body)
		if err != nil {
			return
		}
		if got := m.append(nil); !bytes.Equal(got, body) || m.Type() != Type(typ) {
			t.Errorf("type %d: %x is spelled %x", typ, body, got)
		}
		if n, ok := all(m.Type()); ok && len(body) > n {
			t.Errorf("%v of %d bytes decodes, but is not admitted", m.Type(), len(body))
		}
	})
}

// FuzzReader: no stream of bytes does harm, and what is read is what was there.
func FuzzReader(f *testing.F) {
	var b []byte
	for _, m := range messages {
		b = Append(b, m)
		f.Add(Append(nil, m))
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		r := NewReader(bytes.NewReader(b), all, 0)
		var back []byte
		for {
			m, err := r.Message()
			if err != nil {
				break
			}
			back = Append(back, m)
		}
		if !bytes.HasPrefix(b, back) {
			t.Errorf("read %x of %x", back, b)
		}
	})
}

func BenchmarkData(b *testing.B) {
	data := make([]byte, MaxData)
	var buf []byte
	out := make([]byte, MaxData)
	b.SetBytes(MaxData)
	for b.Loop() {
		buf = Append(buf[:0], Data{Total: MaxData, Bytes: data})
		r := NewReader(bytes.NewReader(buf), DataLimits, 0)
		_, n, err := r.Next()
		if err != nil {
			b.Fatal(err)
		}
		if _, n, err = DataHeader(r, n); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(r, out[:n]); err != nil {
			b.Fatal(err)
		}
	}
}
