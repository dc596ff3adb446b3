package peertest_test

import (
	"context"
	"errors"
	"io"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/roamfs/roamfs/peer/device"
	"github.com/roamfs/roamfs/peer/peertest"
	"github.com/roamfs/roamfs/peer/wire"
)

func TestContract(t *testing.T) {
	peertest.Run(t, func(t *testing.T) (a, b peertest.End, connect, cut func()) {
		n, x, y := two(t)
		return peertest.End{Transport: x, ID: device.ID{1}}, peertest.End{Transport: y, ID: device.ID{2}},
			func() { n.Connect(device.ID{1}, device.ID{2}) }, func() { n.Cut(device.ID{1}, device.ID{2}) }
	})
}

func two(t *testing.T) (n *peertest.Network, a, b *peertest.Host) {
	t.Helper()
	n = peertest.New(1)
	a, b = n.Host(device.ID{1}), n.Host(device.ID{2})
	t.Cleanup(func() { _, _ = a.Close(), b.Close() })
	return n, a, b
}

// Latency and rate are what was asked for; a partition stops all that travels,
// silently, until it heals or is noticed.
func TestLinks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, a, b := two(t)
		n.SetLink(device.ID{1}, device.ID{2}, peertest.Link{Latency: 50 * time.Millisecond, Rate: 1e6})
		b.Handle("/p", func(_ context.Context, _ device.ID, s wire.Stream) {
			_, _ = io.Copy(s, s)
			_ = s.Close()
		})
		n.Connect(device.ID{1}, device.ID{2})
		s, err := a.Open(t.Context(), device.ID{2}, "/p")
		if err != nil {
			t.Fatal(err)
		}
		trip := func(size int) time.Duration {
			began := time.Now()
			if _, err := s.Write(make([]byte, size)); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(s, make([]byte, size)); err != nil {
				t.Fatal(err)
			}
			return time.Since(began)
		}
		if d := trip(1); d < 100*time.Millisecond || d > 101*time.Millisecond {
			t.Errorf("one byte took %v", d)
		}
		// There it takes a second, and back what is left when the last part is there.
		if d := trip(1_000_000); d < 1100*time.Millisecond || d > 1300*time.Millisecond {
			t.Errorf("a million bytes took %v", d)
		}
		n.Partition(device.ID{1}, device.ID{2})
		time.AfterFunc(3*time.Second, func() { n.Connect(device.ID{1}, device.ID{2}) })
		if d := trip(1); d < 3*time.Second || d > 3200*time.Millisecond {
			t.Errorf("over a partition of 3 s it took %v", d)
		}
		n.Partition(device.ID{1}, device.ID{2})
		if len(a.Connected()) != 1 {
			t.Error("a partition was noticed at once")
		}
		_ = s.SetReadDeadline(time.Now().Add(time.Second))
		if _, err := s.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("in a partition: %v", err)
		}
		_ = s.SetReadDeadline(time.Time{})
		began := time.Now()
		if _, err := s.Read(make([]byte, 1)); !errors.Is(err, peertest.ErrReset) || time.Since(began) != 5*time.Second {
			t.Errorf("after a partition was noticed: %v, %v later", err, time.Since(began))
		}
		if len(a.Connected()) != 0 {
			t.Error("a partition was not noticed")
		}
	})
}
