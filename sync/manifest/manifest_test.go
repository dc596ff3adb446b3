package manifest

import (
	"bytes"
	"errors"
	"maps"
	"math"
	"slices"
	"testing"

	"github.com/roamfs/roamfs/peer/device"
	"github.com/roamfs/roamfs/sync/merkle"
	"github.com/roamfs/roamfs/sync/tree"
)

func TestSignEncodeDecodeVerify(t *testing.T) {
	c := newChain(1)
	for _, m := range []*Manifest{
		c.add(t, c.next(FlagCheckpoint)), // of an empty tree
		c.add(t, c.next(FlagCommit)),
		c.add(t, c.next(FlagCheckpoint)),
		example(t),
	} {
		b := m.Encode()
		got, err := Decode(b)
		if err != nil {
			t.Fatal(err)
		}
		if err := got.Verify(); err != nil {
			t.Error(err)
		}
		if got.Hash() != m.Hash() || !bytes.Equal(got.Encode(), b) || !slices.Equal(got.Frontier, m.Frontier) {
			t.Errorf("got %+v, want %+v", got, m)
		}
	}
}

func TestVector(t *testing.T) {
	m := example(t)
	want := tree.Vector{testActor(1): 2, testActor(2): 1, testActor(3): 2}
	if got := m.Vector(); !maps.Equal(got, want) {
		t.Errorf("vector %v, want %v", got, want)
	}
	if m.StateID != StateID(m.Root, want) {
		t.Error("state id is not that of root and vector")
	}
}

func TestStateID(t *testing.T) {
	v := tree.Vector{testActor(1): 2}
	id := StateID(merkle.Hash{1}, v)
	for name, other := range map[string]Hash{
		"another root":      StateID(merkle.Hash{2}, v),
		"another count":     StateID(merkle.Hash{1}, tree.Vector{testActor(1): 3}),
		"one more actor":    StateID(merkle.Hash{1}, tree.Vector{testActor(1): 2, testActor(2): 1}),
		"nothing seen":      StateID(merkle.Hash{1}, nil),
		"a delta of a hash": Sum(make([]byte, 32)),
	} {
		if other == id {
			t.Errorf("%s: same state id", name)
		}
	}
	if StateID(merkle.Hash{1}, tree.Vector{testActor(1): 2, testActor(2): 0}) != id {
		t.Error("an actor at 0 counts")
	}
}

// Every bit of a manifest is signed.
func TestEveryBitIsSigned(t *testing.T) {
	b := example(t).Encode()
	for i := range len(b) * 8 {
		bad := bytes.Clone(b)
		bad[i/8] ^= 1 << (i % 8)
		m, err := Decode(bad)
		if err != nil {
			if !errors.Is(err, ErrManifest) {
				t.Fatalf("bit %d: %v does not wrap ErrManifest", i, err)
			}
			continue
		}
		if err := m.Verify(); !errors.Is(err, ErrSignature) {
			t.Fatalf("bit %d flipped: %v", i, err)
		}
	}
	for i := range b {
		if _, err := Decode(b[:i]); !errors.Is(err, ErrManifest) {
			t.Fatalf("cut to %d bytes: %v", i, err)
		}
	}
	if _, err := Decode(append(b, 0)); !errors.Is(err, ErrManifest) {
		t.Errorf("a byte at the end: %v", err)
	}
}

func TestOnlyTheDeviceSigns(t *testing.T) {
	c := newChain(1)
	m := c.next(FlagCommit)
	if err := m.Sign(testKey(2)); !errors.Is(err, ErrManifest) {
		t.Errorf("signed by another: %v", err)
	}
	m = c.add(t, m)
	m.Device = testKey(2).ID()
	if err := m.Verify(); !errors.Is(err, ErrSignature) {
		t.Errorf("claimed by another: %v", err)
	}
}

// A manifest whose fields contradict each other is neither signed nor read.
func TestContradictions(t *testing.T) {
	resign := func(m *Manifest) { m.StateID = StateID(m.Root, m.Vector()) }
	own := func(m *Manifest) int {
		return slices.IndexFunc(m.Frontier, func(h Head) bool { return h.Actor == m.Actor })
	}
	for name, change := range map[string]func(*Manifest){
		"no flags":                    func(m *Manifest) { m.Flags = 0 },
		"both flags":                  func(m *Manifest) { m.Flags = 3 },
		"an unknown flag":             func(m *Manifest) { m.Flags |= 8 },
		"no actor":                    func(m *Manifest) { m.Actor = tree.Actor{}; resign(m) },
		"no device":                   func(m *Manifest) { m.Device = device.ID{} },
		"number 0":                    func(m *Manifest) { m.Seq = 0 },
		"number out of range":         func(m *Manifest) { m.Seq = 1 << 63 },
		"the first follows another":   func(m *Manifest) { m.Seq = 1 },
		"a later one follows none":    func(m *Manifest) { m.Prev = Hash{} },
		"commit 0":                    func(m *Manifest) { m.Ctr = 0; resign(m) },
		"commit out of range":         func(m *Manifest) { m.Ctr = math.MaxInt64 + 1; resign(m) },
		"a commit left out":           func(m *Manifest) { m.Ctr++; resign(m) },
		"a commit repeated":           func(m *Manifest) { m.Ctr--; resign(m) },
		"own past forgotten":          func(m *Manifest) { m.Frontier = slices.Delete(m.Frontier, own(m), own(m)+1); resign(m) },
		"no delta":                    func(m *Manifest) { m.DeltaLen = 0 },
		"a huge delta":                func(m *Manifest) { m.DeltaLen = MaxDelta + 1 },
		"a head at commit 0":          func(m *Manifest) { m.Frontier[0].Ctr = 0; resign(m) },
		"a head far out":              func(m *Manifest) { m.Frontier[0].Ctr = 1 << 63; resign(m) },
		"a head without hash":         func(m *Manifest) { m.Frontier[0].Hash = Hash{} },
		"a head twice":                func(m *Manifest) { m.Frontier = append(m.Frontier, m.Frontier[0]) },
		"another state":               func(m *Manifest) { m.StateID[3] ^= 1 },
		"another root":                func(m *Manifest) { m.Root[3] ^= 1 },
		"a checkpoint with a delta":   func(m *Manifest) { m.Flags, m.Frontier[own(m)].Ctr = FlagCheckpoint, m.Ctr; resign(m) },
		"a checkpoint of other count": func(m *Manifest) { m.Flags, m.DeltaLen, m.DeltaHash = FlagCheckpoint, 0, Hash{} },
	} {
		m := example(t)
		key := testKey(1)
		change(m)
		// Whoever has the key can sign anything; nobody takes it.
		m.Sig = [64]byte(key.Sign(append([]byte(signDomain), m.body()...)))
		if err := m.Verify(); !errors.Is(err, ErrManifest) {
			t.Errorf("%s: Verify gives %v", name, err)
		}
		// (The bytes of a checkpoint have no place for a delta.)
		if _, err := Decode(m.Encode()); !errors.Is(err, ErrManifest) && name != "a checkpoint with a delta" {
			t.Errorf("%s: Decode gives %v", name, err)
		}
		if err := m.Sign(key); !errors.Is(err, ErrManifest) {
			t.Errorf("%s: Sign gives %v", name, err)
		}
	}
	unsorted := example(t)
	slices.Reverse(unsorted.Frontier)
	unsorted.Sig = [64]byte(testKey(1).Sign(append([]byte(signDomain), unsorted.body()...)))
	if err := unsorted.Verify(); !errors.Is(err, ErrManifest) {
		t.Errorf("a frontier out of order: %v", err)
	}
	if err := unsorted.Sign(testKey(1)); err != nil || unsorted.Hash() != example(t).Hash() {
		t.Errorf("signing does not sort: %v", err)
	}
}

func TestFrontierBound(t *testing.T) {
	m := newChain(1).next(FlagCommit)
	for i := range MaxHeads {
		m.Frontier = append(m.Frontier, Head{tree.Actor{1, byte(i), byte(i >> 8)}, math.MaxInt64, Hash{1}})
	}
	m.Seq, m.Prev = math.MaxInt64, Hash{1}
	m.StateID = StateID(m.Root, m.Vector())
	if err := m.Sign(testKey(1)); err != nil {
		t.Fatal(err)
	}
	b := m.Encode()
	if len(b) > MaxSize {
		t.Errorf("%d bytes, more than MaxSize %d", len(b), MaxSize)
	}
	if _, err := Decode(b); err != nil {
		t.Error(err)
	}
	m.Frontier = append(m.Frontier, Head{tree.Actor{2}, 1, Hash{1}})
	m.StateID = StateID(m.Root, m.Vector())
	if err := m.Sign(testKey(1)); !errors.Is(err, ErrManifest) {
		t.Errorf("one head more: %v", err)
	}
}

// A change among 32 devices has to fit into a small message.
func TestSize(t *testing.T) {
	m := newChain(1).next(FlagCommit)
	for i := range byte(31) {
		m.Frontier = append(m.Frontier, Head{testActor(100 + i), 100_000, Hash{1}})
	}
	m.StateID = StateID(m.Root, m.Vector())
	if err := m.Sign(testKey(1)); err != nil {
		t.Fatal(err)
	}
	if n := len(m.Encode()); n > 1800 {
		t.Errorf("%d bytes for 32 devices", n)
	}
}
