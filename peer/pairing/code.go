package pairing

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/roamfs/roamfs/peer/device"
)

// ErrCode reports text that is no code, or one that was cut or mistyped.
var ErrCode = errors.New("not an invite code")

const (
	codePrefix = "roamfs-pair:1"
	codeSum    = 4
	codeHead   = 32 + 16 + 4 + 1
	// maxCode is the length of the longest text that is looked at.
	maxCode = 4096

	maxCodeAddrs = 8
)

// Invite is what an invite code says.
type Invite struct {
	Device  device.ID // the inviter
	Secret  [16]byte
	Expires time.Time // whole minutes; by the inviter's clock
	Addrs   []string  // multiaddrs of the inviter, at most 8 of at most 255 bytes
}

// String returns the code. Addresses that do not fit are left out.
func (c Invite) String() string {
	b := append([]byte(nil), c.Device[:]...)
	b = append(b, c.Secret[:]...)
	b = binary.BigEndian.AppendUint32(b, uint32(c.Expires.Unix()/60))
	var n byte
	var addrs []byte
	for _, a := range c.Addrs {
		if len(a) > 0 && len(a) <= 255 && n < maxCodeAddrs {
			n++
			addrs = appendAddr(addrs, a)
		}
	}
	b = append(append(b, n), addrs...)
	return codePrefix + "." + base64.RawURLEncoding.EncodeToString(append(b, checksum(b)...))
}

// Parse reads what [Invite.String] writes, with space around it. Any other text
// gives [ErrCode].
func Parse(s string) (Invite, error) {
	var c Invite
	s = strings.TrimSpace(s)
	text, ok := strings.CutPrefix(s, codePrefix)
	if !ok || len(s) > maxCode || text == "" || text[0] != '.' && text[0] != '?' {
		return c, ErrCode
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(text[1:])
	if err != nil || strings.ContainsAny(text, "\r\n") {
		return c, fmt.Errorf("%w: it has characters of no code", ErrCode)
	}
	if len(b) < codeHead+codeSum {
		return c, fmt.Errorf("%w: it is cut", ErrCode)
	}
	b, sum := b[:len(b)-codeSum], b[len(b)-codeSum:]
	if string(checksum(b)) != string(sum) {
		return c, fmt.Errorf("%w: it is cut or mistyped", ErrCode)
	}
	c.Device = device.ID(b[:32])
	c.Secret = [16]byte(b[32:48])
	c.Expires = time.Unix(int64(binary.BigEndian.Uint32(b[48:]))*60, 0)
	n, b := int(b[52]), b[codeHead:]
	if n > maxCodeAddrs {
		return Invite{}, ErrCode
	}
	for range n {
		var a string
		if a, b, ok = takeAddr(b); !ok {
			return Invite{}, ErrCode
		}
		c.Addrs = append(c.Addrs, a)
	}
	if len(b) > 0 {
		return Invite{}, ErrCode
	}
	return c, nil
}

func checksum(b []byte) []byte {
	sum := sha256.Sum256(append([]byte("roamfs pair code 1"), b...))
	return sum[:codeSum]
}

// kinds of addresses.
const (
	kindText = 0
	kindTCP4 = 4
	kindUDP4 = 5
	kindTCP6 = 6
	kindUDP6 = 7
)

// appendAddr appends a in the shortest form.
func appendAddr(b []byte, a string) []byte {
	if kind, ip, port, ok := splitAddr(a); ok {
		b = append(append(b, kind), ip.AsSlice()...)
		return binary.BigEndian.AppendUint16(b, port)
	}
	return append(append(b, kindText, byte(len(a))), a...)
}

// splitAddr takes apart an address that has a short form: one that joinAddr
// spells the same.
func splitAddr(a string) (kind byte, ip netip.Addr, port uint16, ok bool) {
	parts := strings.Split(a, "/")
	if len(parts) < 5 {
		return 0, ip, 0, false
	}
	ip, err := netip.ParseAddr(parts[2])
	n, perr := strconv.ParseUint(parts[4], 10, 16)
	if err != nil || perr != nil {
		return 0, ip, 0, false
	}
	kind = kindTCP4
	if parts[1] == "ip6" {
		kind = kindTCP6
	}
	if parts[3] == "udp" {
		kind++
	}
	return kind, ip, uint16(n), (kind < kindTCP6) == ip.Is4() && joinAddr(kind, ip, uint16(n)) == a
}

func joinAddr(kind byte, ip netip.Addr, port uint16) string {
	family, transport, rest := "ip4", "tcp", ""
	if kind >= kindTCP6 {
		family = "ip6"
	}
	if kind == kindUDP4 || kind == kindUDP6 {
		transport, rest = "udp", "/quic-v1"
	}
	return fmt.Sprintf("/%s/%s/%s/%d%s", family, ip, transport, port, rest)
}

// takeAddr takes an address off the front of b.
func takeAddr(b []byte) (a string, rest []byte, ok bool) {
	if len(b) < 2 {
		return "", nil, false
	}
	kind, b := b[0], b[1:]
	size := 4
	switch kind {
	case kindText:
		n := int(b[0])
		if b = b[1:]; n == 0 || n > len(b) {
			return "", nil, false
		}
		a, b = string(b[:n]), b[n:]
		_, _, _, short := splitAddr(a)
		return a, b, !short
	case kindTCP4, kindUDP4:
	case kindTCP6, kindUDP6:
		size = 16
	default:
		return "", nil, false
	}
	if len(b) < size+2 {
		return "", nil, false
	}
	ip, _ := netip.AddrFromSlice(b[:size])
	return joinAddr(kind, ip, binary.BigEndian.Uint16(b[size:])), b[size+2:], true
}
