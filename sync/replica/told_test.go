package replica

import (
	"context"
	"testing"
	"time"

	"github.com/roamfs/roamfs/sync/tree"
)

// TestToldBesideCommits: a device that sends commits of its own says all the same
// what it knows of others. Else the other one would go on believing that what
// it did is on no other device.
func TestToldBesideCommits(t *testing.T) {
	n := hive(t, 2)
	d, peer := n[0], n[1].key.ID()
	out := make(chan []byte)
	d.Connected(peer, func(ctx context.Context, msg []byte) error {
		select {
		case out <- msg:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	defer d.Disconnected(peer)
	next := func() []byte {
		t.Helper()
		select {
		case msg := <-out:
			return msg
		case <-time.After(10 * time.Second):
			t.Fatal("no message")
			return nil
		}
	}
	receive := func(msg []byte) {
		t.Helper()
		if err := d.Receive(t.Context(), peer, msg); err != nil {
			t.Fatal(err)
		}
	}
	if msg := next(); msg[0] != msgHello {
		t.Fatalf("message %d", msg[0])
	}
	receive(hello{hive: d.cfg.Members.Hive(), members: d.cfg.Members.Hash()}.encode())

	// While the first commit is on its way, one comes and another one is made.
	d.publishing("first", 1)
	n[1].publishing("theirs", 1)
	c := n[1].last()
	receive(encodeCommit(c.Manifest, c.Delta))
	d.publishing("second", 1)
	await(t, func() bool { return d.known().Has(tree.Dot{Actor: c.Actor, Ctr: c.Ctr}) })
	for commits := 0; ; {
		switch msg := next(); msg[0] {
		case msgCommit:
			commits++
		case msgTold:
			heads, err := decodeHeads(msg[1:])
			if err != nil {
				t.Fatal(err)
			}
			if vectorOf(heads)[c.Actor] < c.Ctr {
				continue
			}
			if commits != 2 {
				t.Errorf("after %d commits", commits)
			}
			return
		}
	}
}
