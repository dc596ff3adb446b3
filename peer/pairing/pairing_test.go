package pairing

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/roamfs/roamfs/peer/device"
	"github.com/roamfs/roamfs/peer/p2p"
)

const patience = 20 * time.Second

func newKey(t *testing.T) (ed25519.PrivateKey, device.ID) {
	t.Helper()
	pub, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	return key, device.ID(pub)
}

// host is an inviter under test.
type host struct {
	*Inviter
	mu       sync.Mutex
	welcomed []device.ID
	requests []Request
	refused  []string
	deny     error
}

var secretWelcome = []byte("the keys of the hive")

func open(t *testing.T, edit ...func(*OpenConfig)) *host {
	t.Helper()
	key, _ := newKey(t)
	h := &host{}
	cfg := OpenConfig{
		Key: key, Listen: []string{"/ip4/127.0.0.1/tcp/0"},
		Welcome: func(dev device.ID, req Request) ([]byte, error) {
			h.mu.Lock()
			defer h.mu.Unlock()
			if h.deny != nil {
				return nil, h.deny
			}
			h.welcomed = append(h.welcomed, dev)
			h.requests = append(h.requests, req)
			return secretWelcome, nil
		},
		Refused: func(why string) {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.refused = append(h.refused, why)
		},
	}
	for _, f := range edit {
		f(&cfg)
	}
	v, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	h.Inviter = v
	t.Cleanup(func() {
		if err := v.Close(); err != nil {
			t.Error(err)
		}
	})
	return h
}

func tryJoin(t *testing.T, key ed25519.PrivateKey, inv Invite) ([]byte, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	return Join(ctx, JoinConfig{Key: key, Invite: inv, Request: Request{Label: "laptop", Role: device.Cache, Extra: []byte("x")}})
}

func TestJoin(t *testing.T) {
	h := open(t)
	inv, err := Parse(h.Code())
	if err != nil {
		t.Fatal(err)
	}
	key, id := newKey(t)
	got, err := tryJoin(t, key, inv)
	if err != nil || !bytes.Equal(got, secretWelcome) {
		t.Fatalf("got %q, %v", got, err)
	}
	if err := h.Wait(t.Context()); err != nil {
		t.Errorf("Wait: %v", err)
	}
	if len(h.welcomed) != 1 || h.welcomed[0] != id || h.requests[0].Label != "laptop" ||
		h.requests[0].Role != device.Cache || string(h.requests[0].Extra) != "x" {
		t.Errorf("welcomed %v %+v", h.welcomed, h.requests)
	}
}

func TestRefusals(t *testing.T) {
	for name, c := range map[string]struct {
		edit func(*OpenConfig)
		use  func(t *testing.T, h *host, inv *Invite)
		want error
	}{
		"wrong secret": {
			use: func(_ *testing.T, _ *host, inv *Invite) { inv.Secret[15] ^= 1 },
		},
		"used by another": {
			use: func(t *testing.T, _ *host, inv *Invite) {
				key, _ := newKey(t)
				if _, err := tryJoin(t, key, *inv); err != nil {
					t.Fatal(err)
				}
			},
		},
		"expired": {
			edit: func(c *OpenConfig) { c.Expires = time.Now().Add(time.Millisecond) },
			use: func(t *testing.T, h *host, _ *Invite) {
				if err := h.Wait(t.Context()); !errors.Is(err, ErrExpired) {
					t.Errorf("Wait: %v", err)
				}
			},
		},
		"tried wrongly too often": {
			use: func(t *testing.T, h *host, inv *Invite) {
				for range maxFailures {
					wrong := *inv
					wrong.Secret[0] ^= 1
					key, _ := newKey(t)
					if _, err := tryJoin(t, key, wrong); !errors.Is(err, ErrRefused) {
						t.Errorf("wrong code: %v", err)
					}
				}
				if err := h.Wait(t.Context()); !errors.Is(err, ErrFailures) {
					t.Errorf("Wait: %v", err)
				}
			},
		},
		"another device's ID in the code": {
			use:  func(t *testing.T, _ *host, inv *Invite) { _, inv.Device = newKey(t) },
			want: ErrUnreachable,
		},
		"nobody there": {
			use:  func(_ *testing.T, _ *host, inv *Invite) { inv.Addrs = []string{"/ip4/127.0.0.1/tcp/1"} },
			want: ErrUnreachable,
		},
		"no address": {
			use:  func(_ *testing.T, _ *host, inv *Invite) { inv.Addrs = nil },
			want: ErrUnreachable,
		},
	} {
		t.Run(name, func(t *testing.T) {
			edit := c.edit
			if edit == nil {
				edit = func(*OpenConfig) {}
			}
			h := open(t, edit)
			inv := h.Invite()
			c.use(t, h, &inv)
			h.mu.Lock()
			before := len(h.welcomed)
			h.mu.Unlock()
			key, _ := newKey(t)
			want := c.want
			if want == nil {
				want = ErrRefused
			}
			if got, err := tryJoin(t, key, inv); !errors.Is(err, want) || got != nil {
				t.Errorf("got %q, %v, want %v", got, err, want)
			}
			h.mu.Lock()
			defer h.mu.Unlock()
			if len(h.welcomed) != before {
				t.Error("it was welcomed")
			}
			if errors.Is(want, ErrRefused) && len(h.refused) == 0 {
				t.Error("nobody was told why")
			}
		})
	}
}

// After failures that are not three the right code still works.
func TestTwoFailures(t *testing.T) {
	h := open(t)
	key, _ := newKey(t)
	for range maxFailures - 1 {
		wrong := h.Invite()
		wrong.Secret[0] ^= 1
		if _, err := tryJoin(t, key, wrong); !errors.Is(err, ErrRefused) {
			t.Errorf("wrong code: %v", err)
		}
	}
	if _, err := tryJoin(t, key, h.Invite()); err != nil {
		t.Error(err)
	}
}

// A device that is denied learns why, and may try again.
func TestDenied(t *testing.T) {
	h := open(t)
	h.deny = errors.New("the hive is full")
	key, _ := newKey(t)
	if _, err := tryJoin(t, key, h.Invite()); !errors.Is(err, ErrDenied) || !strings.Contains(err.Error(), "the hive is full") {
		t.Errorf("got %v", err)
	}
	h.mu.Lock()
	h.deny = nil
	h.mu.Unlock()
	if _, err := tryJoin(t, key, h.Invite()); err != nil {
		t.Errorf("again: %v", err)
	}
}

// converse runs the protocol by hand, up to message 4, and returns what was sent
// and the status.
func converse(t *testing.T, key ed25519.PrivateKey, inv Invite, message3 func(nb, na nonce) []byte) (status int) {
	t.Helper()
	g, err := p2p.NewGuest(p2p.GuestConfig{Key: key})
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	s, err := g.Open(t.Context(), inv.Device, inv.Addrs, Protocol)
	if err != nil {
		t.Fatal(err)
	}
	_ = s.SetDeadline(time.Now().Add(patience))
	nb := nonce{1}
	if err := writeHello(s, nb); err != nil {
		t.Fatal(err)
	}
	na, err := readHello(s)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Write(message3(nb, na)); err != nil {
		t.Fatal(err)
	}
	var b [1]byte
	if _, err := io.ReadFull(s, b[:]); err != nil {
		return -1
	}
	return int(b[0])
}

// The welcome is not lost when the joiner is cut off before it has it: the same
// device, and no other, may come again. The invite counts as used when it is over.
func TestCutBeforeReceipt(t *testing.T) {
	h := open(t)
	key, id := newKey(t)
	inv := h.Invite()
	message3 := func(nb, na nonce) []byte {
		r, err := newRun(inv.Secret, inv.Device, id, nb, na)
		if err != nil {
			t.Fatal(err)
		}
		sealed, err := seal(r.joinerKey, (&Request{Label: "laptop", Role: device.Cache}).encode())
		if err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		if err := writeSealed(&b, nil, r.request(sealed), sealed); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	if status := converse(t, key, inv, message3); status != statusWelcome {
		t.Fatalf("status %d", status)
	}
	select {
	case <-h.done:
		t.Error("the invite is over without a receipt")
	default:
	}
	other, _ := newKey(t)
	if _, err := tryJoin(t, other, inv); !errors.Is(err, ErrRefused) {
		t.Errorf("another device: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := h.Wait(ctx); err != nil {
		t.Errorf("Wait, when a device was admitted: %v", err)
	}
	if got, err := tryJoin(t, key, inv); err != nil || !bytes.Equal(got, secretWelcome) {
		t.Errorf("again: %q, %v", got, err)
	}
	if len(h.welcomed) != 1 {
		t.Errorf("welcomed %d times", len(h.welcomed))
	}
}

// What was sent in one run is worth nothing in another one, not even with the
// same key.
func TestReplay(t *testing.T) {
	h := open(t)
	key, id := newKey(t)
	inv := h.Invite()
	var old []byte
	h.deny = errors.New("not now")
	first := func(nb, na nonce) []byte {
		r, err := newRun(inv.Secret, inv.Device, id, nb, na)
		if err != nil {
			t.Fatal(err)
		}
		sealed, _ := seal(r.joinerKey, (&Request{Label: "laptop", Role: device.Cache}).encode())
		var b bytes.Buffer
		_ = writeSealed(&b, nil, r.request(sealed), sealed)
		old = b.Bytes()
		return old
	}
	if status := converse(t, key, inv, first); status != statusDenied {
		t.Fatalf("status %d", status)
	}
	h.mu.Lock()
	h.deny = nil
	h.mu.Unlock()
	if status := converse(t, key, inv, func(_, _ nonce) []byte { return old }); status != statusRefused {
		t.Errorf("status %d of a replay", status)
	}
	if len(h.welcomed) != 0 {
		t.Error("it was welcomed")
	}
}

// relay is someone in between, with a key of his own, who passes on every message.
func relay(t *testing.T, inv Invite) (addrs []string, id device.ID) {
	t.Helper()
	key, id := newKey(t)
	g, err := p2p.NewGuest(p2p.GuestConfig{Key: key, Listen: []string{"/ip4/127.0.0.1/tcp/0"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = g.Close() })
	g.Handle(Protocol, func(ctx context.Context, _ device.ID, in p2p.Stream) {
		out, err := g.Open(ctx, inv.Device, inv.Addrs, Protocol)
		if err != nil {
			t.Error(err)
			return
		}
		var wg sync.WaitGroup
		wg.Go(func() { _, _ = io.Copy(out, in); _ = out.CloseWrite() })
		wg.Go(func() { _, _ = io.Copy(in, out); _ = in.CloseWrite() })
		wg.Wait()
	})
	return g.Addrs(), id
}

// Someone in between who changed the code to lead to himself gets nothing, and
// nor does the joiner.
func TestManInTheMiddle(t *testing.T) {
	h := open(t)
	altered := h.Invite()
	altered.Addrs, altered.Device = relay(t, altered)
	key, _ := newKey(t)
	if got, err := tryJoin(t, key, altered); !errors.Is(err, ErrRefused) || got != nil {
		t.Errorf("got %q, %v", got, err)
	}
	if len(h.welcomed) != 0 || len(h.refused) != 1 || h.refused[0] != "the code was wrong" {
		t.Errorf("welcomed %v, refused %v", h.welcomed, h.refused)
	}
}

// Malformed messages end the run, cost no memory and do not count as failures;
// who says nothing holds one place, and not the last.
func TestNonsense(t *testing.T) {
	h := open(t)
	key, _ := newKey(t)
	for name, b := range map[string][]byte{
		"huge length": append(make([]byte, 32), 0xff, 0xff, 0xff, 0xff),
		"too long":    append(make([]byte, 32), 0, 0, 0x20, 1),
	} {
		if status := converse(t, key, h.Invite(), func(_, _ nonce) []byte { return b }); status != -1 {
			t.Errorf("%s: status %d", name, status)
		}
	}
	for range 4 { // silent ones
		k, _ := newKey(t)
		g, err := p2p.NewGuest(p2p.GuestConfig{Key: k})
		if err != nil {
			t.Fatal(err)
		}
		defer g.Close()
		s, err := g.Open(t.Context(), h.Invite().Device, h.Invite().Addrs, Protocol)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Write([]byte{version}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := tryJoin(t, key, h.Invite()); err != nil {
		t.Error(err)
	}
}

// Two devices that use the code at the same time: one joins.
func TestTwoAtOnce(t *testing.T) {
	for range 5 {
		h := open(t)
		errs := make(chan error, 2)
		for range 2 {
			key, _ := newKey(t)
			go func() {
				_, err := Join(t.Context(), JoinConfig{Key: key, Invite: h.Invite(), Request: Request{Label: "x", Role: device.Cache}})
				errs <- err
			}()
		}
		a, b := <-errs, <-errs
		if (a == nil) == (b == nil) || !errors.Is(errors.Join(a, b), ErrRefused) {
			t.Errorf("got %v and %v", a, b)
		}
		if len(h.welcomed) != 1 {
			t.Errorf("welcomed %v", h.welcomed)
		}
	}
}

// Proofs and seals depend on everything that they should.
func TestRunDepends(t *testing.T) {
	base, err := newRun([16]byte{1}, device.ID{2}, device.ID{3}, nonce{4}, nonce{5})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		secret [16]byte
		a, b   device.ID
		nb, na nonce
	}{
		"secret":  {[16]byte{9}, device.ID{2}, device.ID{3}, nonce{4}, nonce{5}},
		"inviter": {[16]byte{1}, device.ID{9}, device.ID{3}, nonce{4}, nonce{5}},
		"joiner":  {[16]byte{1}, device.ID{2}, device.ID{9}, nonce{4}, nonce{5}},
		"nonce b": {[16]byte{1}, device.ID{2}, device.ID{3}, nonce{9}, nonce{5}},
		"nonce a": {[16]byte{1}, device.ID{2}, device.ID{3}, nonce{4}, nonce{9}},
		"swapped": {[16]byte{1}, device.ID{3}, device.ID{2}, nonce{4}, nonce{5}},
	} {
		r, err := newRun(c.secret, c.a, c.b, c.nb, c.na)
		if err != nil {
			t.Fatal(err)
		}
		if r.request(nil) == base.request(nil) || r.welcome(0, proof{}, nil) == base.welcome(0, proof{}, nil) ||
			bytes.Equal(r.joinerKey, base.joinerKey) || bytes.Equal(r.inviterKey, base.inviterKey) {
			t.Errorf("the %s makes no difference", name)
		}
	}
	if base.welcome(0, proof{}, nil) == base.welcome(2, proof{}, nil) || base.request([]byte{1}) == base.request([]byte{2}) {
		t.Error("status or content makes no difference")
	}
}
