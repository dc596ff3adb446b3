package p2p

import (
	"context"
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/libp2p/go-libp2p/core/connmgr"
	lcrypto "github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/network"
	lpeer "github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/core/sec"
	"github.com/libp2p/go-libp2p/p2p/host/eventbus"
	"github.com/libp2p/go-libp2p/p2p/host/peerstore/pstoremem"
	rcmgr "github.com/libp2p/go-libp2p/p2p/host/resource-manager"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	"github.com/libp2p/go-libp2p/p2p/net/upgrader"
	ltls "github.com/libp2p/go-libp2p/p2p/security/tls"
	lquic "github.com/libp2p/go-libp2p/p2p/transport/quic"
	"github.com/libp2p/go-libp2p/p2p/transport/quicreuse"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/quic-go/quic-go"

	"github.com/roamfs/roamfs/peer/device"
)

const (
	// streamWindow is how much a new stream may carry unacknowledged: at least one
	// block, so that the first one needs no extra round trips.
	streamWindow = 4 << 20

	handshakeTimeout = 10 * time.Second // of inbound connections
	dialTimeout      = 5 * time.Second  // of one address
)

// parts are a swarm and what it is made of. They are put together here, without
// libp2p's own host, which would add identify, address discovery and relaying.
type parts struct {
	self  device.ID
	key   lcrypto.PrivKey
	swarm *swarm.Swarm
	quic  *quicreuse.ConnManager
	rcmgr network.ResourceManager
	store peerstore.Peerstore
}

func defaultListen() []string {
	return []string{
		"/ip4/0.0.0.0/tcp/0", "/ip4/0.0.0.0/udp/0/quic-v1",
		"/ip6/::/tcp/0", "/ip6/::/udp/0/quic-v1",
	}
}

func newParts(key ed25519.PrivateKey, gater connmgr.ConnectionGater, limits rcmgr.ConcreteLimitConfig) (_ *parts, err error) {
	if len(key) != ed25519.PrivateKeySize {
		return nil, errors.New("not an ed25519 private key")
	}
	priv, err := lcrypto.UnmarshalEd25519PrivateKey(key)
	if err != nil {
		return nil, err
	}
	id, err := lpeer.IDFromPrivateKey(priv)
	if err != nil {
		return nil, err
	}
	p := &parts{self: device.ID(key.Public().(ed25519.PublicKey)), key: priv}
	defer func() {
		if err != nil {
			_ = p.close()
		}
	}()
	if p.store, err = pstoremem.NewPeerstore(); err != nil {
		return nil, err
	}
	if err = errors.Join(p.store.AddPrivKey(id, priv), p.store.AddPubKey(id, priv.GetPublic())); err != nil {
		return nil, err
	}
	if p.rcmgr, err = newResourceManager(limits); err != nil {
		return nil, err
	}
	p.swarm, err = swarm.NewSwarm(id, p.store, eventbus.NewBus(),
		swarm.WithConnectionGater(gater),
		swarm.WithResourceManager(p.rcmgr),
		swarm.WithDialRanker(rank),
		swarm.WithDialTimeout(dialTimeout),
		swarm.WithUDPBlackHoleSuccessCounter(nil),
		swarm.WithIPv6BlackHoleSuccessCounter(nil))
	if err != nil {
		return nil, err
	}
	if err = p.addTCP(priv, gater); err != nil {
		return nil, err
	}
	return p, p.addQUIC(priv, gater)
}

func (p *parts) addTCP(priv lcrypto.PrivKey, gater connmgr.ConnectionGater) error {
	yc := *yamux.DefaultTransport.Config()
	yc.InitialStreamWindowSize = streamWindow
	yc.EnableKeepAlive = false // the Host has its own
	muxers := []upgrader.StreamMuxer{{ID: yamux.ID, Muxer: (*yamux.Transport)(&yc)}}
	security, err := ltls.New(ltls.ID, priv, muxers)
	if err != nil {
		return err
	}
	up, err := upgrader.New([]sec.SecureTransport{security}, muxers, nil, p.rcmgr, gater,
		upgrader.WithAcceptTimeout(handshakeTimeout))
	if err != nil {
		return err
	}
	// Dialing from the port that is listened on would make two devices that dial
	// each other at once meet in one connection without a server, and a redial
	// collide with its predecessor.
	t, err := tcp.NewTCPTransport(up, p.rcmgr, nil, tcp.DisableReuseport(), tcp.WithConnectionTimeout(dialTimeout))
	if err != nil {
		return err
	}
	return p.swarm.AddTransport(t)
}

func (p *parts) addQUIC(priv lcrypto.PrivKey, gater connmgr.ConnectionGater) error {
	raw, err := priv.Raw()
	if err != nil {
		return err
	}
	var reset quic.StatelessResetKey
	var token quic.TokenGeneratorKey
	for info, key := range map[string][]byte{"roamfs quic reset 1": reset[:], "roamfs quic token 1": token[:]} {
		derived, err := hkdf.Key(sha256.New, raw, nil, info, len(key))
		if err != nil {
			return err
		}
		copy(key, derived)
	}
	p.quic, err = quicreuse.NewConnManager(reset, token,
		quicreuse.ConnContext(func(ctx context.Context, info *quic.ClientInfo) (context.Context, error) {
			addr, err := quicreuse.ToQuicMultiaddr(info.RemoteAddr, quic.Version1)
			if err != nil {
				return ctx, err
			}
			scope, err := p.rcmgr.OpenConnection(network.DirInbound, false, addr)
			if err != nil {
				return ctx, err
			}
			ctx = network.WithConnManagementScope(ctx, scope)
			context.AfterFunc(ctx, scope.Done)
			return ctx, nil
		}),
		quicreuse.VerifySourceAddress(func(addr net.Addr) bool { return p.rcmgr.VerifySourceAddress(addr) }))
	if err != nil {
		return err
	}
	t, err := lquic.NewTransport(priv, p.quic, nil, gater, p.rcmgr)
	if err != nil {
		return err
	}
	return p.swarm.AddTransport(t)
}

// listen listens on all of addrs, and fails if that is possible on none.
func (p *parts) listen(addrs []string) error {
	as := make([]ma.Multiaddr, 0, len(addrs))
	for _, s := range addrs {
		a, err := ma.NewMultiaddr(s)
		if err != nil {
			return fmt.Errorf("listen on %q: %w", s, err)
		}
		as = append(as, a)
	}
	if err := p.swarm.Listen(as...); err != nil {
		return fmt.Errorf("listen on %v: %w", addrs, err)
	}
	return nil
}

func (p *parts) close() error {
	var errs []error
	if p.swarm != nil {
		errs = append(errs, p.swarm.Close()) // closes the transports too
	}
	if p.quic != nil {
		errs = append(errs, p.quic.Close())
	}
	if p.rcmgr != nil {
		errs = append(errs, p.rcmgr.Close())
	}
	if p.store != nil {
		errs = append(errs, p.store.Close())
	}
	return errors.Join(errs...)
}
