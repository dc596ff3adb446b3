package peer_test

import (
	"bufio"
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/roamfs/roamfs/peer"
	"github.com/roamfs/roamfs/peer/device"
	"github.com/roamfs/roamfs/peer/p2p"
	"github.com/roamfs/roamfs/peer/peertest"
	"github.com/roamfs/roamfs/sync/block"
)

// real is a device on the real network, over loopback.
type real struct {
	*peer.Exchange
	id     device.ID
	host   *p2p.Host
	blocks *peertest.Blocks
	held   *peertest.Holdings
	sync   *syncer
	up     chan device.ID
	stop   func()
}

func keyOf(n byte) (ed25519.PrivateKey, device.ID) {
	key := ed25519.NewKeyFromSeed(append(make([]byte, 31), n))
	return key, device.ID(key.Public().(ed25519.PublicKey))
}

// newReal starts the device with key number n of a hive of those with 1 to 4.
func newReal(tb testing.TB, n byte) *real {
	tb.Helper()
	key, id := keyOf(n)
	var members []device.Member
	for i := byte(1); i <= 4; i++ {
		_, dev := keyOf(i)
		members = append(members, device.Member{ID: dev, Label: fmt.Sprintf("r%d", i), Role: device.Cache})
	}
	host, err := p2p.New(p2p.Config{
		Key: key, Listen: []string{"/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/0/quic-v1"},
		Allowed: func(dev device.ID) bool {
			for _, m := range members {
				if m.ID == dev {
					return true
				}
			}
			return false
		},
	})
	if err != nil {
		tb.Fatal(err)
	}
	r := &real{id: id, host: host, blocks: &peertest.Blocks{}, held: &peertest.Holdings{}, sync: newSyncer(), up: make(chan device.ID, 100)}
	host.OnChange(func(dev device.ID, up bool) {
		if up {
			r.up <- dev
		}
	})
	cfg := peer.Config{
		Host: host, Blocks: r.blocks, Holdings: r.held, Self: id, Sync: r.sync,
		Members: func() []device.Member { return members },
	}
	if os.Getenv("ROAM_TEST_LOG") != "" {
		cfg.Log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	r.Exchange = peer.New(cfg)
	r.blocks.Changed = r.Announce
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = host.Run(ctx) })
	wg.Go(func() { _ = r.Run(ctx) })
	var once sync.Once
	r.stop = func() {
		once.Do(func() {
			cancel()
			wg.Wait()
			if err := host.Close(); err != nil {
				tb.Error(err)
			}
		})
	}
	tb.Cleanup(r.stop)
	return r
}

// meet has a connect to b.
func meet(tb testing.TB, a *real, dev device.ID, addrs []string) {
	tb.Helper()
	a.host.Remember(dev, addrs)
	for {
		select {
		case got := <-a.up:
			if got == dev {
				return
			}
		case <-time.After(20 * time.Second):
			tb.Fatal("not connected")
		}
	}
}

// sample is the n-th of some blocks that every process can make.
func sample(n, size int) []byte {
	b := make([]byte, size)
	rng := rand.NewChaCha8([32]byte{byte(n), byte(n >> 8)})
	_, _ = rng.Read(b)
	return b
}

const benchBlocks = 256

// TestMain serves as the other process of benchmarks.
func TestMain(m *testing.M) {
	if os.Getenv("ROAM_TEST_SERVE") == "" {
		os.Exit(m.Run()) //nolint:forbidigo // as the package testing wants it
	}
	var size int
	_, _ = fmt.Sscan(os.Getenv("ROAM_TEST_SERVE"), &size)
	testing.Init()
	tb := &fakeTB{}
	r := newReal(tb, 2)
	for i := range benchBlocks {
		r.blocks.Add(sample(i, size))
	}
	verifyReads(r.blocks)
	fmt.Println(strings.Join(r.host.Addrs(), " ")) //nolint:forbidigo // to the parent
	_, _ = bufio.NewReader(os.Stdin).ReadByte()    // until the parent ends
	r.stop()
}

// fakeTB stands in for a test in the other process.
type fakeTB struct{ testing.TB }

func (*fakeTB) Helper()        {}
func (*fakeTB) Cleanup(func()) {}
func (*fakeTB) Fatal(a ...any) { panic(fmt.Sprint(a...)) }
func (*fakeTB) Error(a ...any) { panic(fmt.Sprint(a...)) }

// verifyReads makes reads verify what they return, as those of the cache do.
func verifyReads(b *peertest.Blocks) {
	b.OnRead = func(id block.ID, data []byte) ([]byte, error) { return data, block.Verify(id, data) }
}

// child starts the other process.
func child(tb testing.TB, size int) []string {
	tb.Helper()
	cmd := exec.CommandContext(context.Background(), os.Args[0])
	cmd.Env = append(os.Environ(), fmt.Sprintf("ROAM_TEST_SERVE=%d", size))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		tb.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		tb.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = in.Close(); _ = cmd.Wait() })
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		tb.Fatal(err)
	}
	return strings.Fields(line)
}

// BenchmarkFetch fetches from another process over loopback, with TLS, verified
// on both sides.
func BenchmarkFetch(b *testing.B) {
	for _, c := range []struct {
		name     string
		size     int
		parallel int
		only     string // transport
	}{
		{"tcp/256KiB/1", 256 << 10, 1, "/tcp/"},
		{"tcp/256KiB/4", 256 << 10, 4, "/tcp/"},
		{"tcp/256KiB/16", 256 << 10, 16, "/tcp/"},
		{"tcp/256KiB/64", 256 << 10, 64, "/tcp/"},
		{"tcp/4KiB/64", 4 << 10, 64, "/tcp/"},
		{"tcp/1MiB/16", 1 << 20, 16, "/tcp/"},
		{"quic/256KiB/16", 256 << 10, 16, "/quic"},
	} {
		b.Run(c.name, func(b *testing.B) {
			var addrs []string
			for _, a := range child(b, c.size) {
				if strings.Contains(a, c.only) {
					addrs = append(addrs, a)
				}
			}
			r := newReal(b, 1)
			_, dev := keyOf(2)
			meet(b, r, dev, addrs)
			var ids []block.ID
			for i := range benchBlocks {
				ids = append(ids, block.Sum(sample(i, c.size)))
			}
			b.SetBytes(int64(c.size))
			next, done := make(chan block.ID), make(chan error, c.parallel)
			b.ResetTimer()
			for range c.parallel {
				go func() {
					for id := range next {
						if _, err := r.Fetch(b.Context(), id, peer.Demand); err != nil {
							done <- err
							return
						}
					}
					done <- nil
				}()
			}
			for i := range b.N {
				next <- ids[i%len(ids)]
			}
			close(next)
			for range c.parallel {
				if err := <-done; err != nil {
					b.Error(err)
				}
			}
		})
	}
}

// BenchmarkLatency is the time of one small message from one device to the other
// and back.
func BenchmarkLatency(b *testing.B) {
	x, y := newReal(b, 1), newReal(b, 2)
	got := make(chan struct{}, 1)
	x.sync.receive = func(context.Context, device.ID, []byte) error { got <- struct{}{}; return nil }
	y.sync.receive = func(_ context.Context, dev device.ID, msg []byte) error {
		return y.Send(context.Background(), dev, msg)
	}
	meet(b, x, y.id, y.host.Addrs())
	for x.Send(b.Context(), y.id, []byte("first")) != nil || y.Send(b.Context(), x.id, []byte("first")) != nil {
		pause(time.Millisecond) // until the session has begun
	}
	<-got
	<-got
	for b.Loop() {
		if err := x.Send(b.Context(), y.id, []byte(hex.EncodeToString(make([]byte, 100)))); err != nil {
			b.Fatal(err)
		}
		<-got
	}
}
