package integration

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	lpeer "github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/multiformats/go-multiaddr"
)

// TestStrangerGetsNothing dials a device with a libp2p host that is not a
// member, over each of its addresses, and asks for everything.
func TestStrangerGetsNothing(t *testing.T) {
	nas, laptop := pair(t)
	write(t, nas.mount+"/secret", []byte("not for strangers"))
	sameTree(nas, laptop)

	var paths struct{ Listening []string }
	if err := json.Unmarshal([]byte(nas.must("paths", "--json")), &paths); err != nil {
		t.Fatal(err)
	}
	if len(paths.Listening) == 0 {
		t.Fatal("roam paths names no address of the running device")
	}
	host, err := libp2p.New(libp2p.NoListenAddrs)
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	tried := 0
	for _, text := range paths.Listening {
		full, err := multiaddr.NewMultiaddr(text)
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		info, err := lpeer.AddrInfoFromP2pAddr(full)
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		if !strings.Contains(text, "127.0.0.1") {
			continue
		}
		tried++
		host.Peerstore().ClearAddrs(info.ID)
		host.Peerstore().AddAddrs(info.ID, info.Addrs, peerstore.TempAddrTTL)
		for _, proto := range []protocol.ID{"/ipfs/id/1.0.0", "/ipfs/ping/1.0.0", "/roamfs/block/1.0.0", "/roamfs/control/1.0.0", "/roamfs/pair/1"} {
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			s, err := host.NewStream(ctx, info.ID, proto)
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
			_ = host.Network().ClosePeer(info.ID) // it should be closed already
		}
	}
	if tried == 0 {
		t.Fatalf("no loopback address among %q", paths.Listening)
	}
}
