package p2p_test

import (
	"context"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/roamfs/roamfs/peer/device"
	"github.com/roamfs/roamfs/peer/p2p"
)

// TestVisitor: a device that is no member may use the one protocol for it, and
// nothing else; it is not connected. It learns that it was turned away.
func TestVisitor(t *testing.T) {
	key, visitor := newKey(t)
	host := newNode(t, func(c *p2p.Config) {
		c.Allowed = func(device.ID) bool { return false }
		c.Visitor = func(dev device.ID) string {
			if dev == visitor {
				return "/visit"
			}
			return ""
		}
	})
	for _, proto := range []string{"/visit", "/other"} {
		host.Receive(proto, func(_ context.Context, dev device.ID, s p2p.Stream) {
			if dev != visitor {
				t.Errorf("%s visits", dev.Short())
			}
			_, _ = io.Copy(s, s)
			_ = s.Close()
		})
	}
	turned := make(chan map[string]bool, 100)
	away := func(_ context.Context, _ device.ID, open func(string) (p2p.Stream, error)) {
		served := map[string]bool{}
		for _, proto := range []string{"/visit", "/other", "/echo"} {
			served[proto] = echoes(open, proto)
		}
		turned <- served
	}
	guest := start(t, key, func(c *p2p.Config) { c.TurnedAway = away })
	guest.Remember(host.id, host.Addrs())
	select {
	case served := <-turned:
		if !served["/visit"] || served["/other"] || served["/echo"] {
			t.Errorf("served: %v", served)
		}
	case <-time.After(patience):
		t.Fatal("a visitor does not hear of it")
	}
	if n := len(host.Connected()) + len(guest.Connected()); n != 0 {
		t.Errorf("%d connections count", n)
	}
}

// echoes reports whether what is sent for proto comes back.
func echoes(open func(string) (p2p.Stream, error), proto string) bool {
	s, err := open(proto)
	if err != nil {
		return false
	}
	defer func() { _ = s.Reset() }()
	if _, err := s.Write([]byte("hello")); err != nil {
		return false
	}
	got := make([]byte, 5)
	_, err = io.ReadFull(s, got)
	return err == nil && string(got) == "hello"
}

// TestIdentify: a guest that has only an address finds out whose it is, and can
// then use the protocol for it.
func TestIdentify(t *testing.T) {
	key, visitor := newKey(t)
	host := newNode(t, func(c *p2p.Config) {
		c.Allowed = func(device.ID) bool { return false }
		c.Visitor = func(dev device.ID) string {
			if dev == visitor {
				return "/visit"
			}
			return ""
		}
	})
	host.Receive("/visit", func(_ context.Context, _ device.ID, s p2p.Stream) {
		_, _ = io.Copy(s, s)
		_ = s.Close()
	})
	g, err := p2p.NewGuest(p2p.GuestConfig{Key: key})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := g.Close(); err != nil {
			t.Error(err)
		}
	}()
	found := false
	for _, addr := range host.Addrs() {
		dev, err := g.Identify(t.Context(), addr)
		if strings.Contains(addr, "/quic") {
			if err == nil {
				t.Errorf("%s: no error", addr)
			}
			continue
		}
		if err != nil || dev != host.id {
			t.Fatalf("%s is %v, %v; want %v", addr, dev, err, host.id)
		}
		found = true
		if !echoes(func(proto string) (p2p.Stream, error) {
			return g.Open(t.Context(), dev, []string{addr}, proto)
		}, "/visit") {
			t.Errorf("%s: the protocol for visitors is not served", addr)
		}
	}
	if !found {
		t.Errorf("no TCP address among %q", host.Addrs())
	}
	if _, err := g.Identify(t.Context(), "/ip4/127.0.0.1/tcp/1"); err == nil {
		t.Error("nobody was identified")
	}
}
