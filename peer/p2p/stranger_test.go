package p2p_test

import (
	"context"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	lpeer "github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/core/protocol"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/roamfs/roamfs/peer/device"
	"github.com/roamfs/roamfs/peer/p2p"
	"github.com/roamfs/roamfs/peer/wire"
)

// protocols are all that this program serves anywhere, and what libp2p's own
// hosts do.
var protocols = []protocol.ID{
	"/echo", wire.ControlProtocol, wire.PingProtocol, "/roamfs/pair/1",
	protocol.ID(wire.BlockProtocol(wire.Foreground)), protocol.ID(wire.BlockProtocol(wire.Ahead)), protocol.ID(wire.BlockProtocol(wire.Bulk)),
	"/ipfs/id/1.0.0", "/ipfs/id/push/1.0.0", "/ipfs/ping/1.0.0", "/libp2p/circuit/relay/0.2.0/hop",
	"/libp2p/autonat/1.0.0", "/libp2p/dcutr", "/multistream/1.0.0", "ls",
}

// outsider is a stock libp2p host with a key of its own.
func outsider(t *testing.T) host.Host {
	t.Helper()
	h, err := libp2p.New(libp2p.NoListenAddrs, libp2p.DisableMetrics())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.Close() })
	return h
}

func peerID(t *testing.T, dev device.ID) lpeer.ID {
	t.Helper()
	pub, err := crypto.UnmarshalEd25519PublicKey(dev[:])
	if err != nil {
		t.Fatal(err)
	}
	id, err := lpeer.IDFromPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// answers tries a protocol at an address, and reports whether anything at all
// came back on the stream.
func answers(t *testing.T, h host.Host, id lpeer.ID, addr string, proto protocol.ID) bool {
	t.Helper()
	a, err := ma.NewMultiaddr(addr)
	if err != nil {
		t.Fatal(err)
	}
	_ = h.Network().ClosePeer(id)
	h.Peerstore().ClearAddrs(id)
	h.Peerstore().AddAddr(id, a, peerstore.TempAddrTTL)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	nc, err := h.Network().DialPeer(ctx, id)
	if err != nil {
		return false
	}
	s, err := nc.NewStream(ctx)
	if err != nil {
		return false
	}
	_ = s.SetDeadline(time.Now().Add(2 * time.Second))
	msg := append([]byte("\x13/multistream/1.0.0\n"), byte(len(proto)+1))
	_, _ = s.Write(append(append(msg, proto...), '\n'))
	n, _ := s.Read(make([]byte, 1))
	return n > 0
}

// A stranger, who can do all that libp2p can, gets not one byte over any protocol,
// not even which ones there are; and the host does not come to believe in him.
func TestStrangerGetsNothing(t *testing.T) {
	member, memberID := newKey(t)
	n := newNode(t, func(c *p2p.Config) { c.Allowed = func(dev device.ID) bool { return dev == memberID } })
	h := outsider(t)
	id := peerID(t, n.id)
	for _, addr := range n.Addrs() {
		for _, proto := range protocols {
			if answers(t, h, id, addr, proto) {
				t.Errorf("a stranger got an answer for %s at %s", proto, addr)
			}
		}
	}
	if protos, _ := h.Peerstore().GetProtocols(id); len(protos) > 0 {
		t.Errorf("a stranger learnt of protocols %v", protos)
	}
	if v, err := h.Peerstore().Get(id, "AgentVersion"); err == nil {
		t.Errorf("a stranger learnt of the program %v", v)
	}
	if len(n.Connected()) > 0 || len(n.events) > 0 {
		t.Error("the stranger counts as connected")
	}
	// The test can tell: a member gets through the same gate.
	m := start(t, member)
	m.Remember(n.id, n.Addrs())
	m.await(t, n.id, true)
	echo(t, m, n, "hello")
}

// The host for newcomers answers its one protocol and nothing else, and tells
// nothing of itself.
func TestGuestServesOneProtocol(t *testing.T) {
	key, dev := newKey(t)
	g, err := p2p.NewGuest(p2p.GuestConfig{Key: key, Listen: loopback})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = g.Close() })
	asked := make(chan struct{}, 100)
	g.Handle("/roamfs/pair/1", func(_ context.Context, _ device.ID, s p2p.Stream) {
		asked <- struct{}{}
		_ = s.Close()
	})
	h := outsider(t)
	id := peerID(t, dev)
	for _, addr := range g.Addrs() {
		for _, proto := range protocols {
			answered := answers(t, h, id, addr, proto)
			// What the negotiation itself says: the protocol of it, and then no.
			if known := proto == "/roamfs/pair/1"; known {
				if !answered {
					t.Errorf("no answer for %s at %s", proto, addr)
				}
				select {
				case <-asked:
				case <-time.After(patience):
					t.Errorf("%s at %s never reached its handler", proto, addr)
				}
			}
		}
	}
	select {
	case <-asked:
		t.Error("the handler was called for another protocol")
	default:
	}
	if protos, _ := h.Peerstore().GetProtocols(id); len(protos) > 0 {
		t.Errorf("a stranger learnt of protocols %v", protos)
	}
}

// Strangers that keep connecting do not keep members out.
func TestStrangersDoNotBlock(t *testing.T) {
	key, memberID := newKey(t)
	n := newNode(t, func(c *p2p.Config) { c.Allowed = func(dev device.ID) bool { return dev == memberID } })
	id := peerID(t, n.id)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan struct{})
	for range 3 {
		h := outsider(t)
		go func() {
			defer func() { done <- struct{}{} }()
			a, _ := ma.NewMultiaddr(n.Addrs()[0])
			for ctx.Err() == nil {
				h.Peerstore().AddAddr(id, a, peerstore.TempAddrTTL)
				_, _ = h.Network().DialPeer(ctx, id)
				_ = h.Network().ClosePeer(id)
			}
		}()
	}
	m := start(t, key)
	m.Remember(n.id, n.Addrs())
	m.await(t, n.id, true)
	echo(t, m, n, "hello")
	cancel()
	for range 3 {
		<-done
	}
}
