package peer_test

import (
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/roamfs/roamfs/peer"
	"github.com/roamfs/roamfs/peer/device"
	"github.com/roamfs/roamfs/peer/peertest"
	"github.com/roamfs/roamfs/peer/wire"
	"github.com/roamfs/roamfs/sync/block"
)

// intruder is a member that does not keep to the protocol.
func intruder(t *testing.T, h *hive) *peertest.Host {
	t.Helper()
	host := h.net.Host(device.ID{200})
	h.members = append(h.members, device.Member{ID: device.ID{200}, Label: "bad", Role: device.Cache})
	t.Cleanup(func() { _ = host.Close() })
	return host
}

// Servers that answer nonsense cost their stream, and the block comes from another
// device.
func TestHostileServer(t *testing.T) {
	data := random(100 << 10)
	id := block.Sum(data)
	part := data[:wire.MaxData]
	total := uint32(len(data))
	for name, answer := range map[string]func(s wire.Stream, w wire.Want){
		"data of no request": func(s wire.Stream, w wire.Want) {
			send(s, wire.Data{Request: w.Request + 1, Total: total, Bytes: part})
		},
		"end of no request": func(s wire.Stream, w wire.Want) { send(s, wire.End{Request: w.Request + 1}) },
		"ok without data":   func(s wire.Stream, w wire.Want) { send(s, wire.End{Request: w.Request}) },
		"ok after a part": func(s wire.Stream, w wire.Want) {
			send(s, wire.Data{Request: w.Request, Total: total, Bytes: part}, wire.End{Request: w.Request})
		},
		"begins in the middle": func(s wire.Stream, w wire.Want) {
			send(s, wire.Data{Request: w.Request, Total: total, Offset: 1, Bytes: part})
		},
		"a gap": func(s wire.Stream, w wire.Want) {
			send(s, wire.Data{Request: w.Request, Total: total, Bytes: part[:10]},
				wire.Data{Request: w.Request, Total: total, Offset: 11, Bytes: part[:10]})
		},
		"twice the same": func(s wire.Stream, w wire.Want) {
			send(s, wire.Data{Request: w.Request, Total: total, Bytes: part[:10]},
				wire.Data{Request: w.Request, Total: total, Bytes: part[:10]})
		},
		"another size": func(s wire.Stream, w wire.Want) {
			send(s, wire.Data{Request: w.Request, Total: total, Bytes: part[:10]},
				wire.Data{Request: w.Request, Total: total + 1, Offset: 10, Bytes: part[:10]})
		},
		"more than a block": func(s wire.Stream, w wire.Want) {
			_, _ = s.Write(wire.AppendFrame(nil, wire.TypeData, append([]byte{
				0, 0, 0, byte(w.Request), 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0,
			}, part...)))
		},
		"a huge frame": func(s wire.Stream, _ wire.Want) { _, _ = s.Write([]byte{0xff, 0xff, 0xff, 0x7f, 3, 0}) },
		"a frame too long": func(s wire.Stream, _ wire.Want) {
			_, _ = s.Write(wire.AppendFrame(nil, wire.TypeData, make([]byte, 1<<16)))
		},
		"another stream's": func(s wire.Stream, _ wire.Want) { send(s, wire.Sync{Bytes: []byte("x")}) },
		"a frame by drops": func(s wire.Stream, w wire.Want) {
			for _, c := range wire.Append(nil, wire.Data{Request: w.Request, Total: total, Bytes: part}) {
				if _, err := s.Write([]byte{c}); err != nil {
					return
				}
				pause(time.Second)
			}
		},
		"nothing":        func(wire.Stream, wire.Want) {},
		"a reset":        func(s wire.Stream, _ wire.Want) { _ = s.Reset() },
		"an end":         func(s wire.Stream, _ wire.Want) { _ = s.Close() },
		"busy for ever":  func(s wire.Stream, w wire.Want) { send(s, wire.End{Request: w.Request, Status: wire.Busy, Retry: 1}) },
		"that it failed": func(s wire.Stream, w wire.Want) { send(s, wire.End{Request: w.Request, Status: wire.Failed}) },
		"reset in a part": func(s wire.Stream, w wire.Want) {
			send(s, wire.Data{Request: w.Request, Total: total, Bytes: part})
			pause(time.Millisecond)
			_ = s.Reset()
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHive(t, 2)
				bad := intruder(t, h)
				bad.Handle(wire.BlockProtocol(wire.Foreground), func(_ context.Context, _ device.ID, s wire.Stream) {
					r := wire.NewReader(s, wire.WantLimits, 0)
					for {
						m, err := r.Message()
						if err != nil {
							_ = s.Reset()
							return
						}
						if w, ok := m.(wire.Want); ok {
							answer(s, w)
						}
					}
				})
				if err := h.devs[0].held.Hold(device.ID{200}, []block.ID{id}, nil, nil); err != nil {
					t.Fatal(err)
				}
				h.net.SetLink(h.devs[0].id, h.devs[1].id, peertest.Link{Latency: 10 * time.Millisecond})
				h.net.ConnectAll()
				settle()
				// With nobody else it fails, in time.
				began := time.Now()
				if _, err := h.devs[0].Fetch(t.Context(), id, peer.Demand); !errors.Is(err, block.ErrNoReplica) {
					t.Errorf("got %v", err)
				}
				if d := time.Since(began); d > 70*time.Second {
					t.Errorf("failed after %v", d)
				}
				h.devs[1].blocks.Add(data)
				settle()
				began = time.Now()
				fetch(t, h.devs[0], id, peer.Demand, data)
				if d := time.Since(began); d > 2*time.Second {
					t.Errorf("took %v with another holder", d)
				}
			})
		})
	}
}

func send(s wire.Stream, ms ...wire.Message) {
	var b []byte
	for _, m := range ms {
		b = wire.Append(b, m)
	}
	_, _ = s.Write(b)
}

// Askers that do not keep to the limits are told so, or lose their stream; what
// others ask for comes meanwhile.
func TestHostileAsker(t *testing.T) {
	const lane = wire.Bulk
	synctest.Test(t, func(t *testing.T) {
		h := newHive(t, 2)
		bad := intruder(t, h)
		data := random(block.MaxSealed)
		id := h.devs[0].blocks.Add(data)
		h.net.ConnectAll()
		settle()
		open := func() (wire.Stream, *wire.Reader) {
			s, err := bad.Open(t.Context(), h.devs[0].id, wire.BlockProtocol(lane))
			if err != nil {
				t.Fatal(err)
			}
			return s, wire.NewReader(s, wire.DataLimits, 0)
		}
		end := func(r *wire.Reader) (err error) {
			for err == nil {
				_, err = r.Message()
			}
			return err
		}

		// More than it holds: busy, for those that are too many.
		s, r := open()
		var b []byte
		for i := range uint32(400) {
			b = wire.Append(b, wire.Want{Request: i, ID: id, Wait: 60_000})
		}
		go func() { _, _ = s.Write(b) }()
		pause(time.Second)
		fetch(t, h.devs[1], id, peer.Demand, data)
		busy := 0
		for busy < 100 {
			m, err := r.Message()
			if err != nil {
				t.Fatalf("after %d times busy: %v", busy, err)
			}
			if e, ok := m.(wire.End); ok && e.Status == wire.Busy {
				busy++
			}
		}
		// Who does not read at all: the stream ends.
		pause(5 * time.Minute)
		if err := end(r); errors.Is(err, io.EOF) {
			t.Errorf("a stream that nobody read ended with %v", err)
		}

		for name, b := range map[string][]byte{
			"a request twice": wire.Append(wire.Append(nil, wire.Want{Request: 1, ID: id, Wait: 60_000}), wire.Want{Request: 1, ID: id, Wait: 60_000}),
			"a huge frame":    {0xff, 0xff, 0xff, 0x7f, 1},
			"half a frame":    wire.Append(nil, wire.Want{})[:20],
			"an answer":       wire.Append(nil, wire.End{}),
		} {
			s, r := open()
			if _, err := s.Write(b); err != nil {
				t.Fatal(err)
			}
			done := make(chan error, 1)
			go func() { done <- end(r) }()
			select {
			case err := <-done:
				if err == nil {
					t.Errorf("%s: no error", name)
				}
			case <-time.After(2 * time.Minute):
				t.Errorf("%s: the stream goes on", name)
			}
			_ = s.Reset()
		}

		// Cancelled requests end, each once.
		s, r = open()
		b = nil
		for i := range uint32(10) {
			b = wire.Append(b, wire.Want{Request: i, ID: id, Wait: 60_000})
		}
		for i := range uint32(12) {
			b = wire.Append(b, wire.Cancel{Request: i})
			b = wire.Append(b, wire.Cancel{Request: i})
		}
		go func() { _, _ = s.Write(b) }()
		ended := map[uint32]wire.Status{}
		for len(ended) < 10 {
			m, err := r.Message()
			if err != nil {
				t.Fatal(err)
			}
			if e, ok := m.(wire.End); ok {
				if _, twice := ended[e.Request]; twice {
					t.Errorf("request %d ended twice", e.Request)
				}
				ended[e.Request] = e.Status
			}
		}
		if ended[9] != wire.Cancelled {
			t.Errorf("the last one ended with %v", ended[9])
		}
		// Late ones are not read from the disk.
		send(s, wire.Want{Request: 77, ID: id, Wait: 0})
		pause(time.Second)
		if m, err := r.Message(); err != nil || m.(wire.End).Status != wire.Late {
			t.Errorf("late: %v, %v", m, err)
		}
		_ = s.Reset()
	})
}

// Control streams that do not keep to the protocol end, and cost nobody else's.
func TestHostileSession(t *testing.T) {
	hello := wire.Append(nil, wire.Hello{Version: 1, Epoch: 1})
	big := func(n int) []byte { return wire.Append(nil, wire.Sync{Bytes: make([]byte, n)}) }
	for name, b := range map[string][]byte{
		"no hello":            wire.Append(nil, wire.Sync{Bytes: []byte("x")}),
		"two hellos":          append(append([]byte(nil), hello...), hello...),
		"half a hello":        hello[:10],
		"nothing":             nil,
		"a huge frame":        append(append([]byte(nil), hello...), 0xff, 0xff, 0xff, 0x7f, 17),
		"credit from nowhere": wire.Append(append([]byte(nil), hello...), wire.Synced{Cost: 1}),
		"sync without credit": append(append(append(append([]byte(nil), hello...), big(4<<20)...), big(4<<20)...), big(4<<20)...),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHive(t, 2)
				h.devs[0].sync.receive = func(ctx context.Context, dev device.ID, _ []byte) error {
					if dev == (device.ID{200}) {
						<-ctx.Done()
					}
					return nil
				}
				bad := intruder(t, h)
				ended := make(chan struct{}, 100)
				bad.Handle(wire.ControlProtocol, func(_ context.Context, _ device.ID, s wire.Stream) {
					go func() { _, _ = s.Write(b) }()
					_, _ = io.Copy(io.Discard, s)
					_ = s.Reset()
					ended <- struct{}{}
				})
				h.net.ConnectAll()
				select {
				case <-ended:
				case <-time.After(time.Minute):
					t.Error("the stream goes on")
				}
				settle()
				for _, e := range h.devs[0].sync.log() {
					if e == "disconnected 1" {
						t.Error("another session ended")
					}
				}
				if has, err := h.devs[0].Ask(t.Context(), h.devs[1].id, []block.ID{{1}}); err != nil || has[0] {
					t.Errorf("Ask: %v, %v", has, err)
				}
			})
		})
	}
}

// Only one of two devices opens the control stream; the other one's is refused.
func TestWrongOpener(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHive(t, 1)
		bad := intruder(t, h) // with the greater ID
		h.net.ConnectAll()
		settle()
		s, err := bad.Open(t.Context(), h.devs[0].id, wire.ControlProtocol)
		if err != nil {
			t.Fatal(err)
		}
		send(s, wire.Hello{Version: 1, Epoch: 1})
		if _, err := s.Read(make([]byte, 1)); err == nil {
			t.Error("it was answered")
		}
	})
}
