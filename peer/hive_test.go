package peer_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/roamfs/roamfs/peer"
	"github.com/roamfs/roamfs/peer/device"
	"github.com/roamfs/roamfs/peer/p2p"
	"github.com/roamfs/roamfs/peer/peertest"
	"github.com/roamfs/roamfs/sync/block"
)

var (
	_ peer.Transport = (*p2p.Host)(nil)
	_ peer.Transport = (*peertest.Host)(nil)
)

// hive is some devices on a network in memory.
type hive struct {
	net     *peertest.Network
	members []device.Member
	devs    []*dev
}

// dev is one device.
type dev struct {
	id     device.ID
	label  string
	host   *peertest.Host
	blocks *peertest.Blocks
	held   *peertest.Holdings
	sync   *syncer
	*peer.Exchange
	stop func()
}

// newHive makes n devices, called d0, d1, … and, while the bubble of the test
// lasts, ends them with it.
func newHive(t *testing.T, n int, edit ...func(i int, c *peer.Config)) *hive {
	t.Helper()
	h := &hive{net: peertest.New(1)}
	for i := range n {
		id := device.ID{byte(i + 1)}
		h.members = append(h.members, device.Member{ID: id, Label: fmt.Sprintf("d%d", i), Role: device.Cache})
		h.devs = append(h.devs, &dev{
			id: id, label: h.members[i].Label,
			blocks: &peertest.Blocks{}, held: &peertest.Holdings{}, sync: newSyncer(),
		})
	}
	for i, d := range h.devs {
		h.start(t, i, d, edit...)
	}
	return h
}

// start makes device i run, as after a start of its program.
func (h *hive) start(t *testing.T, i int, d *dev, edit ...func(i int, c *peer.Config)) {
	t.Helper()
	d.host = h.net.Host(d.id)
	cfg := peer.Config{
		Host: d.host, Blocks: d.blocks, Holdings: d.held, Self: d.id, Sync: d.sync,
		Members: func() []device.Member { return h.members },
	}
	for _, f := range edit {
		f(i, &cfg)
	}
	e := peer.New(cfg)
	d.Exchange = e
	d.blocks.Changed = e.Announce
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	var once sync.Once
	d.stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; !errors.Is(err, context.Canceled) {
				t.Errorf("Run returned %v", err)
			}
			if err := d.host.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	t.Cleanup(d.stop)
}

// archive makes device i an archive. Before any is used.
func (h *hive) archive(i int) { h.members[i].Role = device.Archive }

// syncer is a SyncHandler that notes what happens.
type syncer struct {
	mu      sync.Mutex
	events  []string
	send    map[device.ID]func(context.Context, []byte) error
	receive func(ctx context.Context, dev device.ID, msg []byte) error
}

func newSyncer() *syncer {
	return &syncer{send: make(map[device.ID]func(context.Context, []byte) error)}
}

func (s *syncer) note(f string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events = append(s.events, fmt.Sprintf(f, args...))
}

func (s *syncer) Connected(dev device.ID, send func(context.Context, []byte) error) {
	s.note("connected %d", dev[0]-1)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.send[dev] = send
}

func (s *syncer) Receive(ctx context.Context, dev device.ID, msg []byte) error {
	if s.receive != nil {
		return s.receive(ctx, dev, msg)
	}
	s.note("got %s", msg)
	return nil
}

func (s *syncer) Disconnected(dev device.ID) { s.note("disconnected %d", dev[0]-1) }

func (s *syncer) log() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.events...)
}

func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b)
	return b
}

// fetch fetches and compares.
func fetch(t *testing.T, d *dev, id block.ID, prio peer.Priority, want []byte) {
	t.Helper()
	got, err := d.Fetch(t.Context(), id, prio)
	if err != nil {
		t.Fatalf("fetch by %s: %v", d.label, err)
	}
	if !bytes.Equal(got, want) {
		t.Fatalf("fetch by %s: %d bytes, not the %d of the block", d.label, len(got), len(want))
	}
}

// settle lets announcements arrive. Only in a bubble.
func settle() {
	pause(500 * time.Millisecond)
	synctest.Wait()
}

// pause lets time pass, which in a bubble takes none.
func pause(d time.Duration) { <-time.After(d) }
