package device

import (
	"bytes"
	"encoding/hex"
	"errors"
	"slices"
	"strings"
	"testing"
)

// threeDevices returns a log with devices 1 to 3.
func threeDevices(tb testing.TB) *Log {
	tb.Helper()
	l := newLog(tb)
	for n := byte(2); n <= 3; n++ {
		if _, err := l.Add(testKey(1), testKey(n).ID(), "dev", Cache, testActor(n), epoch); err != nil {
			tb.Fatal(err)
		}
	}
	return l
}

func revoke(tb testing.TB, l *Log, n byte) {
	tb.Helper()
	if err := l.Revoke(testKey(0), testKey(n).ID(), ClassLost, nil, epoch); err != nil {
		tb.Fatal(err)
	}
}

// merged makes both logs the union.
func merged(tb testing.TB, a, b *Log) {
	tb.Helper()
	_, err := a.Merge(b.Encode())
	_, err2 := b.Merge(a.Encode())
	if err := errors.Join(err, err2); err != nil {
		tb.Fatal(err)
	}
}

// TestEpochAfterRevocation: every member learns the secret of the new epoch from
// the log, and the device that was revoked does not.
func TestEpochAfterRevocation(t *testing.T) {
	l := threeDevices(t)
	if n, id := l.Epoch(); n != FirstEpoch || id != (SecretID{}) || l.Stale() || l.Lacking() != nil {
		t.Fatal("a new hive is not in its first epoch")
	}
	revoke(t, l, 3)
	if !l.Stale() {
		t.Fatal("a revoked device knows the secret, and the epoch is not stale")
	}
	if err := l.Rotate(testKey(3), [32]byte{9}, epoch); !errors.Is(err, ErrNotMember) {
		t.Errorf("a revoked device begins an epoch: %v", err)
	}
	if err := l.Rotate(testKey(2), [32]byte{2}, epoch); err != nil {
		t.Fatal(err)
	}
	want := EpochSecret{Epoch: 2, Secret: [32]byte{2}}
	if n, id := l.Epoch(); n != 2 || id != want.ID() || l.Stale() || l.Lacking() != nil {
		t.Errorf("epoch %d, stale %v, lacking %v", n, l.Stale(), l.Lacking())
	}
	again := clone(t, l)
	for n := byte(1); n <= 3; n++ {
		var expect []EpochSecret
		if n < 3 {
			expect = []EpochSecret{want}
		}
		if got := again.Secrets(testKey(n)); !slices.Equal(got, expect) {
			t.Errorf("device %d learns %#v", n, got)
		}
	}
}

// TestConcurrentEpochs: two members begin the next epoch at once. Both secrets are
// kept, and all seal with the same one.
func TestConcurrentEpochs(t *testing.T) {
	a := threeDevices(t)
	revoke(t, a, 3)
	b := clone(t, a)
	one, two := EpochSecret{2, [32]byte{1}}, EpochSecret{2, [32]byte{2}}
	if err := errors.Join(a.Rotate(testKey(1), one.Secret, epoch), b.Rotate(testKey(2), two.Secret, epoch)); err != nil {
		t.Fatal(err)
	}
	merged(t, a, b)
	lower := one.ID()
	if id := two.ID(); bytes.Compare(id[:], lower[:]) < 0 {
		lower = id
	}
	for _, l := range []*Log{a, b} {
		if n, id := l.Epoch(); n != 2 || id != lower || l.Stale() {
			t.Errorf("epoch %d, stale %v", n, l.Stale())
		}
		if len(l.Secrets(testKey(1))) != 2 || len(l.Secrets(testKey(2))) != 2 {
			t.Error("a secret is lost")
		}
	}
	// Two revocations that do not know of each other's epoch leave none that both
	// devices do not know.
	c := threeDevices(t)
	if _, err := c.Add(testKey(1), testKey(4).ID(), "dev", Cache, testActor(4), epoch); err != nil {
		t.Fatal(err)
	}
	d := clone(t, c)
	revoke(t, c, 3)
	revoke(t, d, 4)
	if err := errors.Join(c.Rotate(testKey(1), [32]byte{5}, epoch), d.Rotate(testKey(2), [32]byte{6}, epoch)); err != nil {
		t.Fatal(err)
	}
	merged(t, c, d)
	if !c.Stale() {
		t.Error("each secret is known to one revoked device, and the epoch is not stale")
	}
	if err := c.Rotate(testKey(1), [32]byte{7}, epoch); err != nil {
		t.Fatal(err)
	}
	if n, _ := c.Epoch(); n != 3 || c.Stale() {
		t.Errorf("epoch %d, stale %v", n, c.Stale())
	}
}

// TestShare: a device that was admitted by one that did not know of the epoch is
// handed the secret by one that has it.
func TestShare(t *testing.T) {
	a := threeDevices(t)
	b := clone(t, a)
	revoke(t, a, 3)
	secret := EpochSecret{2, [32]byte{1}}
	if err := a.Rotate(testKey(1), secret.Secret, epoch); err != nil {
		t.Fatal(err)
	}
	mustAdd(t, b, testKey(2), 4, "unaware")
	merged(t, a, b)
	mustAdd(t, b, testKey(2), 5, "paired")
	if got := b.Lacking(); !slices.Equal(got, []ID{testKey(4).ID()}) {
		t.Fatalf("lacking %v", got)
	}
	if err := b.Share(testKey(2), EpochSecret{2, [32]byte{8}}, epoch); !errors.Is(err, ErrNoShare) {
		t.Errorf("another secret is handed out: %v", err)
	}
	if err := b.Share(testKey(2), secret, epoch); err != nil {
		t.Fatal(err)
	}
	if got := b.Secrets(testKey(4)); !slices.Equal(got, []EpochSecret{secret}) || b.Lacking() != nil {
		t.Errorf("learns %#v, lacking %v", got, b.Lacking())
	}
	if n, id := b.Epoch(); n != 2 || id != secret.ID() || b.Stale() {
		t.Error("handing out a secret changes the epoch")
	}
	if n := len(b.Records()); b.Share(testKey(2), secret, epoch) != nil || len(b.Records()) != n {
		t.Error("a secret is handed out twice")
	}
	// A hand-out after a later revocation does not make the epoch fresh.
	mustAdd(t, a, testKey(1), 6, "late") // knows the epoch, and so was given it
	revoke(t, b, 4)
	if !b.Stale() {
		t.Error("not stale")
	}
}

// TestEpochAuthority: what an epoch record must not say.
func TestEpochAuthority(t *testing.T) {
	l := threeDevices(t)
	revoke(t, l, 3)
	share := func(n byte) Share { return Share{Device: testKey(n).ID()} }
	for name, c := range map[string]struct {
		rec  Record
		by   byte
		want error
	}{
		"a number left out":              {Record{Epoch: 3, Shares: []Share{share(1)}}, 1, ErrRecord},
		"the number of the first":        {Record{Epoch: 1, Shares: []Share{share(1)}}, 1, ErrRecord},
		"no shares":                      {Record{Epoch: 2}, 1, ErrRecord},
		"a share for a revoked device":   {Record{Epoch: 2, Shares: []Share{share(3)}}, 1, ErrNotMember},
		"a share for a stranger":         {Record{Epoch: 2, Shares: []Share{share(9)}}, 1, ErrNotMember},
		"the word of a stranger":         {Record{Epoch: 2, Shares: []Share{share(1)}}, 9, ErrNotMember},
		"the word of the revoked device": {Record{Epoch: 2, Shares: []Share{share(1)}}, 3, ErrNotMember},
		"two shares for one device":      {Record{Epoch: 2, Shares: []Share{share(1), share(1)}}, 1, ErrRecord},
	} {
		c.rec.Kind = KindEpoch
		if err := say(l, testKey(c.by), c.rec); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := say(l, testKey(1), Record{Kind: KindEpoch, Epoch: 2, Shares: []Share{share(1)}}); err != nil {
		t.Fatal(err)
	}
	if got := l.Secrets(testKey(1)); got != nil {
		t.Errorf("a share of zeros opens to %#v", got)
	}
}

// TestRevokeCutoffs: of several revocations by the owner the farthest cutoff
// counts, whatever the device says itself, or another one that leaves.
func TestRevokeCutoffs(t *testing.T) {
	a := threeDevices(t)
	second := NewActor(testKey(3).ID(), [16]byte{33})
	if _, err := a.Add(testKey(1), testKey(3).ID(), "dev", Cache, second, epoch); err != nil {
		t.Fatal(err)
	}
	b := clone(t, a)
	thief := clone(t, a)
	cut := func(l *Log, by, dev byte, one, two uint64) {
		cutoffs := []Cutoff{{Actor: testActor(3), Ctr: one}, {Actor: second, Ctr: two}}
		if err := l.Revoke(testKey(by), testKey(dev).ID(), ClassLost, cutoffs, epoch); err != nil {
			t.Fatal(err)
		}
	}
	cut(thief, 2, 2, 80, 80) // of another device
	if got := thief.Cutoff(testActor(3)).Ctr; got != 0 {
		t.Errorf("a device that leaves says that %d commits of another count", got)
	}
	cut(thief, 3, 3, 90, 90)
	if got := thief.Cutoff(testActor(3)).Ctr; got != 90 {
		t.Errorf("%d commits of a device that left count", got)
	}
	cut(a, 0, 3, 5, 7)
	cut(b, 0, 3, 7, 5)
	merged(t, a, thief)
	merged(t, a, b)
	for _, l := range []*Log{a, b} {
		if one, two := l.Cutoff(testActor(3)).Ctr, l.Cutoff(second).Ctr; one != 7 || two != 7 {
			t.Errorf("%d and %d commits count, want 7", one, two)
		}
	}
	if l := threeDevices(t); l.Cutoff(testActor(3)).Ctr != 0 {
		t.Error("a member has a cutoff")
	}
	a = threeDevices(t)
	if err := a.Revoke(testKey(1), testKey(2).ID(), ClassLost, nil, epoch); !errors.Is(err, ErrNotOwner) {
		t.Errorf("a device revokes another: %v", err)
	}
	if err := a.Revoke(testKey(7), testKey(2).ID(), ClassLost, nil, epoch); !errors.Is(err, ErrNotMember) {
		t.Errorf("a stranger revokes: %v", err)
	}
}

// TestNotice: a device is told that it was revoked, and nothing that came after.
func TestNotice(t *testing.T) {
	l := threeDevices(t)
	old := clone(t, l)
	revoke(t, l, 3)
	mustAdd(t, l, testKey(1), 4, "secret-name")
	if err := l.Rotate(testKey(1), [32]byte{1}, epoch); err != nil {
		t.Fatal(err)
	}
	notice := l.Notice(testKey(3).ID())
	if bytes.Contains(notice, []byte("secret-name")) || l.Notice(testKey(1).ID()) != nil || l.Notice(testKey(9).ID()) != nil {
		t.Error("the notice says too much, or is for somebody else")
	}
	if _, err := old.Merge(notice); err != nil {
		t.Fatal(err)
	}
	if _, in := old.Member(testKey(3).ID()); in {
		t.Error("the notice does not tell")
	}
	// One that only a revoked device admitted is told as well.
	thief := threeDevices(t)
	mustAdd(t, thief, testKey(3), 5, "guest")
	if _, err := l.Merge(thief.Encode()); err != nil {
		t.Fatal(err)
	}
	if m, ok := l.WasMember(testKey(5).ID()); !ok || !m.Revoked {
		t.Fatal("a device that a revoked one admitted is not known")
	}
	if m, ok := l.ByActor(testActor(5)); !ok || m.ID != testKey(5).ID() {
		t.Error("its actor has no owner")
	}
	if _, err := thief.Merge(l.Notice(testKey(5).ID())); err != nil {
		t.Fatal(err)
	}
	if _, in := thief.Member(testKey(5).ID()); in {
		t.Error("the notice does not tell the guest")
	}
}

// epochLog returns a log with an epoch record, whose sealed secrets are fixed.
func epochLog(tb testing.TB) *Log {
	tb.Helper()
	l := threeDevices(tb)
	revoke(tb, l, 3)
	r := Record{Kind: KindEpoch, Epoch: 2, Secret: EpochSecret{2, [32]byte{1, 2, 3}}.ID()}
	for n := byte(1); n <= 2; n++ {
		s := Share{Device: testKey(n).ID()}
		for i := range s.Sealed {
			s.Sealed[i] = n + byte(i)
		}
		r.Shares = append(r.Shares, s)
	}
	slices.SortFunc(r.Shares, func(a, b Share) int { return a.Device.Compare(b.Device) })
	if err := say(l, testKey(1), r); err != nil {
		tb.Fatal(err)
	}
	return l
}

func TestGoldenEpoch(t *testing.T) {
	l := epochLog(t)
	golden(t, "epoch.v1", hex.EncodeToString(l.Encode())+"\n")
}

// TestGoldenShare opens a secret that was sealed once, and compares the key of a device on
// the curve of the sealing with the public half of the private one.
func TestGoldenShare(t *testing.T) {
	hive := HiveOf(testKey(0).ID())
	secret := EpochSecret{2, [32]byte{1, 2, 3}}
	if *update {
		s, err := sealShare(hive, secret, testKey(1).ID())
		if err != nil {
			t.Fatal(err)
		}
		id := secret.ID()
		golden(t, "share.v1", hex.EncodeToString(s.Sealed[:])+"\n"+hex.EncodeToString(id[:])+"\n")
	}
	lines := strings.Fields(read(t, "share.v1"))
	var s Share
	var id SecretID
	for i, dst := range [][]byte{s.Sealed[:], id[:]} {
		if n, err := hex.Decode(dst, []byte(lines[i])); err != nil || n != len(dst) {
			t.Fatal(n, err)
		}
	}
	if got, err := s.open(testKey(1), hive, 2, id); err != nil || got != secret {
		t.Errorf("opens to %#v, %v", got, err)
	}
	for name, open := range map[string]func() (EpochSecret, error){
		"another device": func() (EpochSecret, error) { return s.open(testKey(2), hive, 2, id) },
		"another epoch":  func() (EpochSecret, error) { return s.open(testKey(1), hive, 3, id) },
		"another hive":   func() (EpochSecret, error) { return s.open(testKey(1), HiveID{}, 2, id) },
		"another name":   func() (EpochSecret, error) { return s.open(testKey(1), hive, 2, SecretID{}) },
	} {
		if _, err := open(); err == nil {
			t.Errorf("it opens for %s", name)
		}
	}
	for n := byte(0); n < 50; n++ {
		pub, err := x25519Public(testKey(n).ID())
		priv, err2 := x25519Private(testKey(n))
		if err := errors.Join(err, err2); err != nil || !pub.Equal(priv.PublicKey()) {
			t.Fatalf("key %d: the halves do not fit: %v", n, err)
		}
	}
	if _, err := x25519Public(ID{1}); !errors.Is(err, ErrID) { // y = 1
		t.Errorf("the neutral point: %v", err)
	}
}
