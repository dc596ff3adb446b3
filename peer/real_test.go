package peer_test

import (
	"bytes"
	"context"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/roamfs/roamfs/peer"
	"github.com/roamfs/roamfs/sync/block"
)

// await waits until cond holds, on the real network.
func await(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for over := time.Now().Add(20 * time.Second); !cond(); runtime.Gosched() {
		if time.Now().After(over) {
			t.Fatalf("%s: not in time", what)
		}
	}
}

func realFetch(t *testing.T, r *real, id block.ID, prio peer.Priority, want []byte) {
	t.Helper()
	got, err := r.Fetch(t.Context(), id, prio)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("fetch: %d bytes, %v", len(got), err)
	}
}

// Blocks, holdings and messages between three devices over libp2p.
func TestReal(t *testing.T) {
	rs := []*real{newReal(t, 1), newReal(t, 2), newReal(t, 3)}
	var ids []block.ID
	for i := range 300 {
		ids = append(ids, rs[i%3].blocks.Add(sample(i, 10+i*i)))
	}
	meet(t, rs[0], rs[1].id, rs[1].host.Addrs())
	meet(t, rs[2], rs[1].id, rs[1].host.Addrs())
	// The third pair finds each other by what the second device tells.
	await(t, "full mesh", func() bool { return len(rs[0].host.Connected()) == 2 && len(rs[2].host.Connected()) == 2 })
	for _, r := range rs {
		await(t, "holdings", func() bool {
			n := 0
			for _, o := range rs {
				n += r.held.Held(o.id)
			}
			return n == 200
		})
	}
	var wg sync.WaitGroup
	for _, r := range rs {
		for i, id := range ids {
			if r.blocks.Has(id) {
				continue
			}
			wg.Go(func() { realFetch(t, r, id, peer.Priority(i/3%3), sample(i, 10+i*i)) })
		}
	}
	wg.Wait()
	for i := range 100 {
		rs[1].Broadcast(fmt.Append(nil, i))
	}
	for _, r := range []*real{rs[0], rs[2]} {
		await(t, "messages", func() bool {
			log := r.sync.log()
			return len(log) > 0 && log[len(log)-1] == "got 99"
		})
		var got []string
		for _, e := range r.sync.log() {
			if strings.HasPrefix(e, "got") {
				got = append(got, e)
			}
		}
		if len(got) != 100 || !slices.IsSortedFunc(got, func(a, b string) int { return len(a) - len(b) }) {
			t.Errorf("messages %v", got)
		}
	}
	p := rs[0].Peers()
	if len(p) != 3 || !p[0].Connected || !p[1].Connected || p[2].Connected || p[0].Path != "lan tcp" || p[0].RTT <= 0 {
		t.Errorf("peers %+v", p)
	}
}

// Connections that break, and pairs of them that both ends open at once, cost
// time but no read.
func TestRealReconnects(t *testing.T) {
	a, b := newReal(t, 1), newReal(t, 2)
	const size = 300 << 10
	var ids []block.ID
	for i := range 16 {
		ids = append(ids, b.blocks.Add(sample(i, size)))
	}
	var wg sync.WaitGroup
	wg.Go(func() { a.host.Remember(b.id, b.host.Addrs()) })
	wg.Go(func() { b.host.Remember(a.id, a.host.Addrs()) })
	wg.Wait()
	meet(t, a, b.id, nil)
	await(t, "holdings", func() bool { return a.held.Held(b.id) == len(ids) })
	ctx, cancel := context.WithTimeout(t.Context(), 6*time.Second)
	defer cancel()
	for n := range 4 {
		wg.Go(func() {
			for i := n; ctx.Err() == nil; i++ {
				realFetch(t, a, ids[i%len(ids)], peer.Demand, sample(i%len(ids), size))
			}
		})
	}
	for i := range 4 {
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
		if i%2 == 0 {
			a.host.Disconnect(b.id)
		} else {
			b.host.Disconnect(a.id)
		}
	}
	wg.Wait()
	// In the end the session is there, too.
	await(t, "session", func() bool { return a.Send(t.Context(), b.id, []byte("after all")) == nil })
	await(t, "message", func() bool { return slices.Contains(b.sync.log(), "got after all") })
	if log := b.sync.log(); log[0] != "connected "+fmt.Sprint(int(a.id[0])-1) {
		t.Errorf("log %v", log)
	}
}

// After Run and Close nothing of these packages runs on.
func TestRealLeavesNothing(t *testing.T) {
	a, b := newReal(t, 1), newReal(t, 2)
	id := b.blocks.Add(sample(1, 1000))
	meet(t, a, b.id, b.host.Addrs())
	realFetch(t, a, id, peer.Demand, sample(1, 1000))
	waiting := make(chan error, 1)
	go func() {
		_, err := a.Fetch(context.Background(), block.ID{1}, peer.Background)
		waiting <- err
	}()
	a.stop()
	b.stop()
	if err := <-waiting; err == nil {
		t.Error("a block of nobody was fetched")
	}
	if _, err := a.Fetch(t.Context(), id, peer.Demand); err == nil {
		t.Error("fetched after the end")
	}
	if err := a.Send(t.Context(), b.id, []byte("x")); err == nil {
		t.Error("sent after the end")
	}
	buf := make([]byte, 1<<20)
	for _, g := range strings.Split(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
		if strings.Contains(g, "peer.(*") || strings.Contains(g, "p2p.(*") {
			t.Errorf("still running:\n%s", g)
		}
	}
}
