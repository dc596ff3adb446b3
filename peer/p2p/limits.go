package p2p

import (
	"github.com/libp2p/go-libp2p/core/network"
	rcmgr "github.com/libp2p/go-libp2p/p2p/host/resource-manager"
)

const (
	// perPeerStreams bounds the streams of one member: four of each side for
	// control and blocks, a ping stream a connection, and as many again while a
	// connection is replaced.
	perPeerStreams = 64
	// perIP bounds the connections, handshakes included, with one IP address
	// that is not loopback.
	perIP = 32
)

// memberLimits are the limits of a Host. Strangers are in the transient scope,
// which is small.
func memberLimits() rcmgr.ConcreteLimitConfig {
	stream := rcmgr.ResourceLimits{
		Streams: 8192, StreamsInbound: 4096, StreamsOutbound: 4096, Memory: 1 << 30,
		Conns: rcmgr.Unlimited, ConnsInbound: rcmgr.Unlimited, ConnsOutbound: rcmgr.Unlimited, FD: rcmgr.Unlimited,
	}
	streamPeer := stream
	streamPeer.Streams, streamPeer.StreamsInbound, streamPeer.StreamsOutbound = 2*perPeerStreams, perPeerStreams, perPeerStreams
	streamPeer.Memory = 256 << 20
	peer := streamPeer
	peer.Conns, peer.ConnsInbound, peer.ConnsOutbound, peer.FD = 16, 8, 8, 16
	system := stream
	system.Conns, system.ConnsInbound, system.ConnsOutbound, system.FD = 512, 384, 256, 512
	transient := rcmgr.ResourceLimits{
		Conns: 64, ConnsInbound: 32, ConnsOutbound: 48, FD: 64,
		Streams: 512, StreamsInbound: 256, StreamsOutbound: 256, Memory: 32 << 20,
	}
	return partial(system, transient, peer, streamPeer, stream)
}

// guestLimits are the limits of a [Guest], which strangers may use.
func guestLimits() rcmgr.ConcreteLimitConfig {
	stream := rcmgr.ResourceLimits{
		Streams: 32, StreamsInbound: 16, StreamsOutbound: 16, Memory: 32 << 20,
		Conns: rcmgr.Unlimited, ConnsInbound: rcmgr.Unlimited, ConnsOutbound: rcmgr.Unlimited, FD: rcmgr.Unlimited,
	}
	streamPeer := stream
	streamPeer.Streams, streamPeer.StreamsInbound, streamPeer.StreamsOutbound = 16, 8, 8
	streamPeer.Memory = 16 << 20
	peer := streamPeer
	peer.Conns, peer.ConnsInbound, peer.ConnsOutbound, peer.FD = 8, 4, 8, 8
	system := stream
	system.Conns, system.ConnsInbound, system.ConnsOutbound, system.FD = 24, 16, 16, 24
	return partial(system, system, peer, streamPeer, stream)
}

func partial(system, transient, peer, streamPeer, stream rcmgr.ResourceLimits) rcmgr.ConcreteLimitConfig {
	conn := rcmgr.ResourceLimits{
		Conns: 1, ConnsInbound: 1, ConnsOutbound: 1, FD: 1, Memory: 256 << 20,
		Streams: rcmgr.Unlimited, StreamsInbound: rcmgr.Unlimited, StreamsOutbound: rcmgr.Unlimited,
	}
	one := rcmgr.ResourceLimits{
		Streams: 1, StreamsInbound: 1, StreamsOutbound: 1, Memory: 32 << 20,
		Conns: rcmgr.Unlimited, ConnsInbound: rcmgr.Unlimited, ConnsOutbound: rcmgr.Unlimited, FD: rcmgr.Unlimited,
	}
	cfg := rcmgr.PartialLimitConfig{
		System: system, Transient: transient,
		AllowlistedSystem: system, AllowlistedTransient: transient, // no list is set
		ServiceDefault: stream, ServicePeerDefault: streamPeer,
		ProtocolDefault: stream, ProtocolPeerDefault: streamPeer,
		PeerDefault: peer, Conn: conn, Stream: one,
	}
	return cfg.Build(rcmgr.InfiniteLimits)
}

func newResourceManager(limits rcmgr.ConcreteLimitConfig) (network.ResourceManager, error) {
	return rcmgr.NewResourceManager(rcmgr.NewFixedLimiter(limits),
		rcmgr.WithMetricsDisabled(),
		rcmgr.WithLimitPerSubnet(
			[]rcmgr.ConnLimitPerSubnet{{PrefixLength: 32, ConnCount: perIP}},
			[]rcmgr.ConnLimitPerSubnet{{PrefixLength: 64, ConnCount: perIP}}))
}
