package p2p

import (
	"context"
	"crypto/ed25519"
	"testing"
	"time"

	"github.com/roamfs/roamfs/peer/device"
	"github.com/roamfs/roamfs/peer/wire"
)

// A connection that begins while its Host is being closed does not hold up Close.
func TestWatchWhileClosing(t *testing.T) {
	host := func() *Host {
		_, key, err := ed25519.GenerateKey(nil)
		if err != nil {
			t.Fatal(err)
		}
		h, err := New(Config{Key: key, Listen: []string{"/ip4/127.0.0.1/tcp/0"}, Allowed: func(device.ID) bool { return true }})
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	a, b := host(), host()
	pinged := make(chan struct{}, 2)
	b.Handle(wire.PingProtocol, func(ctx context.Context, dev device.ID, s Stream) {
		pinged <- struct{}{} // the protocol is named together with the first PING
		b.servePing(ctx, dev, s)
	})
	defer func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	}()
	up := make(chan struct{}, 8)
	for _, h := range []*Host{a, b} { // both: b would end a connection whose pings a does not answer
		h.OnChange(func(device.ID, bool) { up <- struct{}{} })
	}
	go func() { _ = a.Run(t.Context()) }()
	a.Remember(b.Self(), b.Addrs())
	<-up
	<-up
	a.mu.Lock()
	var c *conn
	for _, c = range a.conns {
		break
	}
	a.closed = true // as Close does first
	a.mu.Unlock()
	<-pinged // by its own watch
	done := make(chan struct{})
	go func() {
		c.watch()
		close(done)
	}()
	<-pinged
	a.cancel() // as Close does next
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Fatal("watching the connection does not end")
	}
	a.mu.Lock()
	a.closed = false
	a.mu.Unlock()
	if err := a.Close(); err != nil {
		t.Error(err)
	}
}
