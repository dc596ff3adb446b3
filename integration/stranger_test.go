package integration

import (
	"context"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	lcrypto "github.com/libp2p/go-libp2p/core/crypto"
	lpeer "github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/multiformats/go-multiaddr"

	rdevice "github.com/roamfs/roamfs/peer/device"
)

// TestStrangerGetsNothing dials a device with a libp2p host that is not a
// member, over each of its addresses, and asks for everything.
func TestStrangerGetsNothing(t *testing.T) {
	nas, laptop := pair(t)
	write(t, nas.Mount+"/secret", []byte("not for strangers"))
	sameTree(nas, laptop)

	st := nas.status()
	key, err := rdevice.ParseID(st.Device.ID)
	if err != nil {
		t.Fatal(err)
	}
	public, err := lcrypto.UnmarshalEd25519PublicKey(key[:])
	if err != nil {
		t.Fatal(err)
	}
	id, err := lpeer.IDFromPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	host, err := libp2p.New(libp2p.NoListenAddrs)
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	tried := 0
	for _, text := range st.Addresses {
		addr, err := multiaddr.NewMultiaddr(text)
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		tried++
		host.Peerstore().ClearAddrs(id)
		host.Peerstore().AddAddr(id, addr, peerstore.TempAddrTTL)
		for _, proto := range []protocol.ID{"/ipfs/id/1.0.0", "/ipfs/ping/1.0.0", "/roamfs/block/1/fg", "/roamfs/control/1", "/roamfs/ping/1", "/roamfs/pair/1"} {
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			s, err := host.NewStream(ctx, id, proto)
			if err == nil {
				// Over QUIC the refusal may come only with the first byte.
				_ = s.SetDeadline(time.Now().Add(5 * time.Second))
				_, werr := s.Write([]byte{1, 0})
				var b [1]byte
				n, rerr := s.Read(b[:])
				if werr == nil && rerr == nil && n > 0 {
					t.Errorf("%s over %s: a stranger got an answer", proto, text)
				}
			}
			cancel()
			_ = host.Network().ClosePeer(id) // it should be closed already
		}
	}
	if tried == 0 {
		t.Fatal("the device says no address")
	}
}
