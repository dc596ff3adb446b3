package p2p_test

import (
	"context"
	"crypto/ed25519"
	"errors"
	"io"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/roamfs/roamfs/peer/device"
	"github.com/roamfs/roamfs/peer/p2p"
)

const patience = 20 * time.Second

// node is a host under test.
type node struct {
	*p2p.Host
	key    ed25519.PrivateKey
	id     device.ID
	events chan event
	stop   func()
}

type event struct {
	dev device.ID
	up  bool
}

func newKey(tb testing.TB) (ed25519.PrivateKey, device.ID) {
	tb.Helper()
	pub, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		tb.Fatal(err)
	}
	return key, device.ID(pub)
}

var loopback = []string{"/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/0/quic-v1"}

// start makes a host run with a key, which echoes what is sent to it for "/echo".
func start(tb testing.TB, key ed25519.PrivateKey, edit ...func(*p2p.Config)) *node {
	tb.Helper()
	cfg := p2p.Config{Key: key, Listen: loopback, Allowed: func(device.ID) bool { return true }}
	for _, f := range edit {
		f(&cfg)
	}
	h, err := p2p.New(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	n := &node{Host: h, key: key, id: device.ID(key.Public().(ed25519.PublicKey)), events: make(chan event, 100)}
	h.OnChange(func(dev device.ID, up bool) { n.events <- event{dev, up} })
	h.Handle("/echo", func(_ context.Context, _ device.ID, s p2p.Stream) {
		_, _ = io.Copy(s, s)
		_ = s.Close()
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx) }()
	var once sync.Once
	n.stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; !errors.Is(err, context.Canceled) {
				tb.Errorf("Run: %v", err)
			}
			if err := h.Close(); err != nil {
				tb.Errorf("Close: %v", err)
			}
		})
	}
	tb.Cleanup(n.stop)
	return n
}

func newNode(tb testing.TB, edit ...func(*p2p.Config)) *node {
	tb.Helper()
	key, _ := newKey(tb)
	return start(tb, key, edit...)
}

// await waits for a device to come or go.
func (n *node) await(tb testing.TB, dev device.ID, up bool) {
	tb.Helper()
	over := time.After(patience)
	for {
		select {
		case e := <-n.events:
			if e == (event{dev, up}) {
				return
			}
		case <-over:
			tb.Fatalf("no event %v %v", dev.Short(), up)
		}
	}
}

// echo opens a stream and has msg sent back.
func echo(tb testing.TB, from, to *node, msg string) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), patience)
	defer cancel()
	s, err := from.Open(ctx, to.id, "/echo")
	if err != nil {
		tb.Fatal(err)
	}
	defer s.Close()
	if err := s.SetDeadline(time.Now().Add(patience)); err != nil {
		tb.Fatal(err)
	}
	written := make(chan error, 1)
	go func() { written <- errors.Join(second(io.WriteString(s, msg)), s.CloseWrite()) }()
	got, err := io.ReadAll(s)
	if err = errors.Join(err, <-written); err != nil || string(got) != msg {
		tb.Fatalf("echo of %d bytes: %d bytes, %v", len(msg), len(got), err)
	}
}

func second(_ int, err error) error { return err }

func TestConnectAndStream(t *testing.T) {
	for name, c := range map[string]struct{ listen, path string }{
		"tcp":  {"/ip4/127.0.0.1/tcp/0", "lan tcp"},
		"quic": {"/ip4/127.0.0.1/udp/0/quic-v1", "lan quic"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newNode(t, func(c2 *p2p.Config) { c2.Listen = []string{c.listen} })
			a := newNode(t)
			if _, err := a.Open(t.Context(), b.id, "/echo"); !errors.Is(err, p2p.ErrNotConnected) {
				t.Errorf("before: %v", err)
			}
			a.Remember(b.id, b.Addrs())
			a.await(t, b.id, true)
			b.await(t, a.id, true)
			for range 3 {
				echo(t, a, b, strings.Repeat("x", 3<<20))
				echo(t, b, a, "y")
			}
			if !slices.Equal(a.Connected(), []device.ID{b.id}) || a.RTT(b.id) <= 0 || a.Path(b.id) != c.path {
				t.Errorf("connected %v, rtt %v, path %q", a.Connected(), a.RTT(b.id), a.Path(b.id))
			}
			s, err := a.Open(t.Context(), b.id, "/unknown")
			if err == nil {
				_, err = s.Read(make([]byte, 1))
				_ = s.Reset()
			}
			if err == nil {
				t.Error("a protocol that nobody serves was served")
			}
		})
	}
}

// TCP is taken where both are to be had on a local network.
func TestPrefersTCP(t *testing.T) {
	a, b := newNode(t), newNode(t)
	a.Remember(b.id, b.Addrs())
	a.await(t, b.id, true)
	if p := a.Path(b.id); p != "lan tcp" {
		t.Errorf("path %q", p)
	}
}

// A device that is restarted, at another address, is back soon: the one that has
// an address of the other that still holds finds it.
func TestReconnectsAfterRestart(t *testing.T) {
	var learned sync.Map
	a := newNode(t, func(c *p2p.Config) { c.Learned = func(dev device.ID, addrs []string) { learned.Store(dev, addrs) } })
	b := newNode(t)
	a.Remember(b.id, b.Addrs())
	a.await(t, b.id, true)
	b.Remember(a.id, a.Addrs())
	b.stop()
	a.await(t, b.id, false)
	b2 := start(t, b.key) // new ports
	b2.Remember(a.id, a.Addrs())
	a.await(t, b.id, true)
	b2.await(t, a.id, true)
	echo(t, a, b2, "hello")
	if addrs, ok := learned.Load(b.id); !ok || len(addrs.([]string)) == 0 {
		t.Error("no address was handed out to be kept")
	}
}

// Many connections that both ends make at the same time end in one that works.
func TestBothDial(t *testing.T) {
	for range 5 {
		a, b := newNode(t), newNode(t)
		var wg sync.WaitGroup
		wg.Go(func() { a.Remember(b.id, b.Addrs()) })
		wg.Go(func() { b.Remember(a.id, a.Addrs()) })
		wg.Wait()
		a.await(t, b.id, true)
		b.await(t, a.id, true)
		echo(t, a, b, "one")
		echo(t, b, a, "two")
		a.stop()
		b.stop()
	}
}

// Disconnect ends streams at once; a device that is no longer a member cannot
// come back, nor be reached.
func TestRevoked(t *testing.T) {
	var mu sync.Mutex
	revoked := map[device.ID]bool{}
	a := newNode(t, func(c *p2p.Config) {
		c.Allowed = func(dev device.ID) bool {
			mu.Lock()
			defer mu.Unlock()
			return !revoked[dev]
		}
	})
	b := newNode(t)
	a.Remember(b.id, b.Addrs())
	b.Remember(a.id, a.Addrs())
	a.await(t, b.id, true)
	b.await(t, a.id, true)
	s, err := b.Open(t.Context(), a.id, "/echo")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	revoked[b.id] = true
	mu.Unlock()
	a.Disconnect(b.id)
	a.await(t, b.id, false)
	b.await(t, a.id, false)
	_ = s.SetDeadline(time.Now().Add(patience))
	if _, err := io.ReadAll(s); err == nil {
		t.Error("the stream goes on")
	}
	if _, err := a.Open(t.Context(), b.id, "/echo"); !errors.Is(err, p2p.ErrNotAllowed) {
		t.Errorf("open to it: %v", err)
	}
	// b dials on, and is refused each time before it counts as connected.
	select {
	case e := <-b.events:
		t.Errorf("event %v after revocation", e)
	case <-time.After(2 * time.Second):
	}
	if len(a.Connected())+len(b.Connected()) > 0 {
		t.Error("still connected")
	}
}

// Close waits for all that was started: nothing of this package runs on.
func TestCloseLeavesNothing(t *testing.T) {
	a, b := newNode(t, func(c *p2p.Config) { c.MDNS = true }), newNode(t)
	hang := make(chan struct{})
	b.Handle("/hang", func(ctx context.Context, _ device.ID, s p2p.Stream) {
		close(hang)
		_, _ = s.Read(make([]byte, 1)) // ends with the connection
		<-ctx.Done()
	})
	a.Remember(b.id, append(b.Addrs(), "/ip4/192.0.2.255/tcp/9"))
	a.await(t, b.id, true)
	s, err := a.Open(t.Context(), b.id, "/hang")
	if err == nil {
		_, err = s.Write([]byte("x"))
	}
	if err != nil {
		t.Fatal(err)
	}
	<-hang
	b.stop()
	a.stop()
	if err := a.Run(t.Context()); !errors.Is(err, p2p.ErrClosed) {
		t.Errorf("Run after Close: %v", err)
	}
	a.Remember(b.id, loopback)
	buf := make([]byte, 1<<20)
	over := time.Now().Add(patience)
	for {
		stacks := string(buf[:runtime.Stack(buf, true)])
		var left []string
		for _, g := range strings.Split(stacks, "\n\n") {
			if strings.Contains(g, "roamfs/peer/p2p.(") || strings.Contains(g, "go-libp2p/p2p/net/swarm") || strings.Contains(g, "go-yamux") {
				left = append(left, g)
			}
		}
		if len(left) == 0 {
			return
		}
		if strings.Contains(strings.Join(left, ""), "roamfs/peer/p2p.(") || time.Now().After(over) {
			t.Fatalf("still running:\n%s", strings.Join(left, "\n\n"))
		}
		runtime.Gosched()
	}
}

func TestConfigErrors(t *testing.T) {
	key, _ := newKey(t)
	yes := func(device.ID) bool { return true }
	for name, cfg := range map[string]p2p.Config{
		"no gate":      {Key: key},
		"no key":       {Allowed: yes},
		"bad address":  {Key: key, Allowed: yes, Listen: []string{"localhost:1"}},
		"not this one": {Key: key, Allowed: yes, Listen: []string{"/ip4/192.0.2.77/tcp/0"}},
	} {
		if h, err := p2p.New(cfg); err == nil {
			t.Errorf("%s: no error", name)
			_ = h.Close()
		}
	}
}

// proxy is a TCP connection in the middle that can stop to pass on bytes.
type proxy struct {
	l    net.Listener
	mu   sync.Mutex
	gate chan struct{} // closed: bytes pass
	wg   sync.WaitGroup
}

func newProxy(t *testing.T, target string) *proxy {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{l: l, gate: make(chan struct{})}
	close(p.gate)
	over := make(chan struct{})
	p.wg.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := new(net.Dialer).DialContext(t.Context(), "tcp", target)
			if err != nil {
				_ = in.Close()
				continue
			}
			for _, d := range [][2]net.Conn{{in, out}, {out, in}} {
				p.wg.Go(func() { p.pass(d[0], d[1], over) })
			}
			p.wg.Go(func() { <-over; _ = in.Close(); _ = out.Close() })
		}
	})
	t.Cleanup(func() { close(over); _ = l.Close(); p.wg.Wait() })
	return p
}

func (p *proxy) pass(from, to net.Conn, over chan struct{}) {
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		p.mu.Lock()
		gate := p.gate
		p.mu.Unlock()
		select {
		case <-gate:
		case <-over:
			return
		}
		if err == nil {
			_, err = to.Write(buf[:n])
		}
		if err != nil {
			_ = to.Close()
			return
		}
	}
}

func (p *proxy) shut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.gate = make(chan struct{})
}

// A line that silently stops is noticed by both ends within seconds, and readers
// on it get an error then.
func TestSilentLineIsNoticed(t *testing.T) {
	a := newNode(t)
	b := newNode(t, func(c *p2p.Config) { c.Listen = []string{"/ip4/127.0.0.1/tcp/0"} })
	port := b.Addrs()[0][strings.LastIndex(b.Addrs()[0], "/")+1:]
	p := newProxy(t, "127.0.0.1:"+port)
	_, pport, _ := net.SplitHostPort(p.l.Addr().String())
	a.Remember(b.id, []string{"/ip4/127.0.0.1/tcp/" + pport})
	a.await(t, b.id, true)
	b.await(t, a.id, true)
	s, err := a.Open(t.Context(), b.id, "/echo")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(s, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	p.shut()
	read := make(chan error, 1)
	go func() { _, err := s.Read(make([]byte, 1)); read <- err }()
	a.await(t, b.id, false)
	if err := <-read; err == nil {
		t.Error("a read from it succeeded")
	}
	b.await(t, a.id, false)
	if d := time.Since(began); d > 12*time.Second {
		t.Errorf("noticed after %v", d)
	}
}
