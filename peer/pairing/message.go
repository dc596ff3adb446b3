package pairing

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"

	"github.com/roamfs/roamfs/peer/device"
)

// Protocol is the protocol of pairing.
const Protocol = "/roamfs/pair/1"

const (
	version = 1

	statusWelcome = 0
	statusRefused = 1
	statusDenied  = 2

	maxRequest = 8 << 10
	maxWelcome = 1 << 20 // sealed
	sealCost   = 16
)

// Bounds, in bytes, of the welcome and of what a joiner says.
const (
	MaxWelcome = maxWelcome - sealCost
	MaxLabel   = 64
	MaxExtra   = 4 << 10
)

// ErrProtocol reports a peer that does not keep to the protocol.
var ErrProtocol = errors.New("pairing: protocol violated")

// Request is what a joiner asks for.
type Request struct {
	Label     string      // as it wants to be called: 1 to 64 bytes of UTF-8
	Role      device.Role // as it wants to be
	RoleGiven bool        // the role was chosen, and is not just the usual one
	Extra     []byte      // for the layer above; at most 4 KiB
}

func (q *Request) check() error {
	if len(q.Label) == 0 || len(q.Label) > MaxLabel || !utf8.ValidString(q.Label) || len(q.Extra) > MaxExtra {
		return fmt.Errorf("%w: name of %d bytes, extra of %d", ErrProtocol, len(q.Label), len(q.Extra))
	}
	return nil
}

func (q *Request) encode() []byte {
	b := append([]byte{version, byte(len(q.Label))}, q.Label...)
	var given byte
	if q.RoleGiven {
		given = 1
	}
	b = append(b, byte(q.Role), given)
	b = binary.BigEndian.AppendUint16(b, uint16(len(q.Extra)))
	return append(b, q.Extra...)
}

func decodeRequest(b []byte) (Request, error) {
	bad := fmt.Errorf("%w: request of %d bytes", ErrProtocol, len(b))
	if len(b) < 2 || b[0] != version {
		return Request{}, bad
	}
	n, b := int(b[1]), b[2:]
	if len(b) < n+4 || b[n+1] > 1 {
		return Request{}, bad
	}
	q := Request{Label: string(b[:n]), Role: device.Role(b[n]), RoleGiven: b[n+1] == 1}
	k, b := int(binary.BigEndian.Uint16(b[n+2:])), b[n+4:]
	if len(b) != k {
		return Request{}, bad
	}
	if k > 0 {
		q.Extra = append([]byte(nil), b...)
	}
	return q, q.check()
}

// writeHello and readHello exchange messages 1 and 2.
func writeHello(w io.Writer, n nonce) error {
	_, err := w.Write(append([]byte{version}, n[:]...))
	return err
}

func readHello(r io.Reader) (n nonce, err error) {
	var b [1 + len(n)]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return n, err
	}
	if b[0] != version {
		return n, fmt.Errorf("%w: version %d", ErrProtocol, b[0])
	}
	return nonce(b[1:]), nil
}

// writeSealed and readSealed exchange what follows the status of message 4, and
// message 3.
func writeSealed(w io.Writer, head []byte, p proof, sealed []byte) error {
	b := append(head, p[:]...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(sealed)))
	_, err := w.Write(append(b, sealed...))
	return err
}

func readSealed(r io.Reader, limit int) (p proof, sealed []byte, err error) {
	var b [len(p) + 4]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return p, nil, err
	}
	n := binary.BigEndian.Uint32(b[len(p):])
	if int64(n) > int64(limit) {
		return p, nil, fmt.Errorf("%w: message of %d bytes", ErrProtocol, n)
	}
	sealed = make([]byte, n)
	if _, err := io.ReadFull(r, sealed); err != nil {
		return p, nil, err
	}
	return proof(b[:len(p)]), sealed, nil
}
