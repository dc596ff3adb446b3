package app

import (
	"bytes"
	"slices"
	"testing"
	"time"

	"github.com/roamfs/roamfs/peer/device"
)

func newWelcome(tb testing.TB) *welcome {
	tb.Helper()
	owner, err := device.Generate()
	if err != nil {
		tb.Fatal(err)
	}
	key, err := device.Generate()
	if err != nil {
		tb.Fatal(err)
	}
	members, err := device.NewHive(owner.Private(), key.ID(), "laptop", device.Cache, [8]byte{1}, time.Unix(1, 0))
	if err != nil {
		tb.Fatal(err)
	}
	return &welcome{actor: [8]byte{2}, secrets: []device.EpochSecret{{Epoch: 1, Secret: [32]byte{4}}, {Epoch: 3, Secret: [32]byte{5}}}, members: members, addresses: []string{"/ip4/192.0.2.1/tcp/1", ""}}
}

func TestWelcome(t *testing.T) {
	want := newWelcome(t)
	got, err := decodeWelcome(want.encode())
	if err != nil {
		t.Fatal(err)
	}
	if got.actor != want.actor || !slices.Equal(got.secrets, want.secrets) || got.members.Hash() != want.members.Hash() || !slices.Equal(got.addresses, want.addresses) {
		t.Fatalf("got %+v, want %+v", got, want)
	}
	b := want.encode()
	for i := range b {
		if _, err := decodeWelcome(b[:i]); err == nil {
			t.Fatalf("%d of %d bytes were taken", i, len(b))
		}
	}
	if _, err := decodeWelcome(append(slices.Clone(b), 0)); err == nil {
		t.Fatal("a byte too many was taken")
	}
}

// TestIdentityVersions: what an earlier version wrote can be read.
func TestIdentityVersions(t *testing.T) {
	secret := bytes.Repeat([]byte{7}, 32)
	for name, b := range map[string][]byte{
		"version 1": slices.Concat([]byte{1}, []byte("actoract"), []byte{0, 0, 0, 1}, secret),
		"version 2": slices.Concat([]byte{2}, []byte("actoract"), []byte{1, 0, 0, 0, 1}, secret),
	} {
		actor, secrets, err := decodeIdentity(b)
		if err != nil || string(actor[:]) != "actoract" || !slices.Equal(secrets, []device.EpochSecret{{Epoch: 1, Secret: [32]byte(secret)}}) {
			t.Errorf("%s: %v, %v, %v", name, actor, secrets, err)
		}
		for i := range b {
			if _, _, err := decodeIdentity(b[:i]); err == nil {
				t.Errorf("%s: %d of %d bytes were taken", name, i, len(b))
			}
		}
		if _, _, err := decodeIdentity(append(b, 0)); err == nil {
			t.Errorf("%s: a byte too many was taken", name)
		}
	}
}

func FuzzDecodeWelcome(f *testing.F) {
	f.Add(newWelcome(f).encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		w, err := decodeWelcome(b)
		if err == nil && !bytes.Equal(w.encode(), b) {
			t.Fatalf("%x is another spelling of %x", b, w.encode())
		}
	})
}

func FuzzReadAddresses(f *testing.F) {
	f.Add(appendAddresses(nil, []string{"/ip4/192.0.2.1/tcp/1", ""}))
	f.Add([]byte{0x80, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		addrs, err := readAddresses(b)
		if err != nil {
			return
		}
		if len(addrs) > maxAddresses {
			t.Fatalf("%d addresses", len(addrs))
		}
		if !bytes.Equal(appendAddresses(nil, addrs), b) {
			t.Fatalf("%x is another spelling", b)
		}
	})
}
