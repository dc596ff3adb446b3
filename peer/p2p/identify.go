package p2p

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"

	lcrypto "github.com/libp2p/go-libp2p/core/crypto"
	ltls "github.com/libp2p/go-libp2p/p2p/security/tls"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
	msmux "github.com/multiformats/go-multistream"

	"github.com/roamfs/roamfs/peer/device"
)

// Identify finds out which device answers at a TCP multiaddress, by a handshake
// in which both ends prove their keys, this one the key of the Guest. libp2p
// connects only to a device that is named beforehand, so this is done without it.
// That the device proves a key says no more than whose it is.
func (g *Guest) Identify(ctx context.Context, addr string) (dev device.ID, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("%w: who answers at %s: %w", ErrNotConnected, addr, err)
		}
	}()
	a, err := ma.NewMultiaddr(addr)
	if err != nil {
		return dev, err
	}
	network, host, err := manet.DialArgs(a)
	if err != nil {
		return dev, err
	}
	if network != "tcp" && network != "tcp4" && network != "tcp6" {
		return dev, errors.New("not a TCP address")
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	raw, err := (&net.Dialer{}).DialContext(ctx, network, host)
	if err != nil {
		return dev, err
	}
	defer func() { _ = raw.Close() }() // nothing was written that counts
	if err := raw.SetDeadline(time.Now().Add(dialTimeout)); err != nil {
		return dev, err
	}
	if err := msmux.SelectProtoOrFail(ltls.ID, raw); err != nil {
		return dev, err
	}
	id, err := ltls.NewIdentity(g.parts.key)
	if err != nil {
		return dev, err
	}
	cfg, keys := id.ConfigForPeer("")
	if err := tls.Client(raw, cfg).HandshakeContext(ctx); err != nil {
		return dev, err
	}
	var pub lcrypto.PubKey
	select {
	case pub = <-keys:
	default:
	}
	if pub == nil {
		return dev, errors.New("no key in the handshake")
	}
	b, err := pub.Raw()
	if err != nil || len(b) != len(dev) || pub.Type() != lcrypto.Ed25519 {
		return dev, errors.New("not the key of a device")
	}
	return device.ID(b), nil
}
