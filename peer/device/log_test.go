package device

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

func mustAdd(tb testing.TB, l *Log, by Key, n byte, label string) Record {
	tb.Helper()
	r, err := l.Add(by, testKey(n).ID(), label, Cache, testActor(n), epoch)
	if err != nil {
		tb.Fatal(err)
	}
	return r
}

func labels(l *Log) []string {
	var out []string
	for _, m := range l.Members() {
		out = append(out, m.Label)
	}
	return out
}

func TestNewHive(t *testing.T) {
	l := newLog(t)
	want := []Member{{
		ID: testKey(1).ID(), Label: "laptop", Enrolled: "laptop", Role: Cache,
		Actors: [][8]byte{testActor(1)}, Added: epoch,
	}}
	if got := l.Members(); !reflect.DeepEqual(got, want) {
		t.Errorf("members = %+v, want %+v", got, want)
	}
	if l.Hive() != HiveOf(testKey(0).ID()) {
		t.Errorf("hive %v is not named by its owner", l.Hive())
	}
	if _, ok := l.Member(testKey(0).ID()); ok {
		t.Error("the owner key counts as a device")
	}
	if m, ok := l.ByActor(testActor(1)); !ok || m.ID != testKey(1).ID() {
		t.Errorf("device of actor = %v, %v", m, ok)
	}
}

func TestNewHiveRefuses(t *testing.T) {
	good := testKey(1).ID()
	for name, try := range map[string]func() (*Log, error){
		"no owner":  func() (*Log, error) { return NewHive(nil, good, "a", Cache, testActor(1), epoch) },
		"no device": func() (*Log, error) { return NewHive(testKey(0).Private(), ID{}, "a", Cache, testActor(1), epoch) },
		"no label":  func() (*Log, error) { return NewHive(testKey(0).Private(), good, "", Cache, testActor(1), epoch) },
		"a vault": func() (*Log, error) {
			return NewHive(testKey(0).Private(), good, "a", Vault, testActor(1), epoch)
		},
		"no actor": func() (*Log, error) { return NewHive(testKey(0).Private(), good, "a", Cache, [8]byte{}, epoch) },
		"no time": func() (*Log, error) {
			return NewHive(testKey(0).Private(), good, "a", Cache, testActor(1), time.Time{})
		},
	} {
		if l, err := try(); err == nil || l != nil {
			t.Errorf("%s: a hive was made", name)
		}
	}
}

func TestAddLabels(t *testing.T) {
	l := newLog(t)
	long := strings.Repeat("x", MaxLabel)
	for n, c := range []struct{ ask, get string }{
		{"laptop", "laptop-2"},
		{"LapTop", "laptop-3"},
		{"nas", "nas"},
		{"laptop-2", "laptop-2-2"},
		{long, long},
		{long, long[:MaxLabel-2] + "-2"},
	} {
		r := mustAdd(t, l, testKey(1), byte(n+2), c.ask)
		if r.Label != c.get {
			t.Errorf("asked for %q, got %q, want %q", c.ask, r.Label, c.get)
		}
		if m, ok := l.Member(r.Device); !ok || m.Label != c.get {
			t.Errorf("member is called %q, want %q", m.Label, c.get)
		}
	}
	for _, bad := range []string{"", "-x", "a b", "grün", "a/b", long + "x"} {
		_, err := l.Add(testKey(1), testKey(99).ID(), bad, Cache, testActor(99), epoch)
		if !errors.Is(err, ErrLabel) {
			t.Errorf("label %q: %v, want ErrLabel", bad, err)
		}
	}
}

func TestAddRefuses(t *testing.T) {
	l := newLog(t)
	dev, actor := testKey(2).ID(), testActor(2)
	for name, c := range map[string]struct {
		try  func() (Record, error)
		want error
	}{
		"a stranger's word": {func() (Record, error) { return l.Add(testKey(3), dev, "x", Cache, actor, epoch) }, ErrNotMember},
		"a device's own word": {
			func() (Record, error) { return l.Add(testKey(2), dev, "x", Cache, actor, epoch) }, ErrNotMember,
		},
		"no key":         {func() (Record, error) { return l.Add(Key{}, dev, "x", Cache, actor, epoch) }, ErrNotMember},
		"a known actor":  {func() (Record, error) { return l.Add(testKey(1), dev, "x", Cache, testActor(1), epoch) }, ErrEnrolled},
		"a vault":        {func() (Record, error) { return l.Add(testKey(1), dev, "x", Vault, actor, epoch) }, ErrRole},
		"no device":      {func() (Record, error) { return l.Add(testKey(1), ID{}, "x", Cache, actor, epoch) }, ErrRecord},
		"the zero actor": {func() (Record, error) { return l.Add(testKey(1), dev, "x", Cache, [8]byte{}, epoch) }, ErrRecord},
	} {
		before := l.Encode()
		if _, err := c.try(); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
		if !bytes.Equal(l.Encode(), before) {
			t.Errorf("%s: the log changed", name)
		}
	}
}

func TestNewIncarnation(t *testing.T) {
	l := newLog(t)
	again := NewActor(testKey(1).ID(), [16]byte{1, 1})
	if _, err := l.Add(testKey(1), testKey(1).ID(), "other", Archive, again, epoch.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	m, _ := l.Member(testKey(1).ID())
	if m.Label != "laptop" || m.Role != Cache || !m.Added.Equal(epoch) {
		t.Errorf("a new incarnation changed the device: %+v", m)
	}
	if want := [][8]byte{testActor(1), again}; !slices.Equal(m.Actors, want) {
		t.Errorf("actors %x, want %x", m.Actors, want)
	}
	if got := len(l.Members()); got != 1 {
		t.Errorf("%d members, want 1", got)
	}
}

func TestOwnerAdds(t *testing.T) {
	l := newLog(t)
	mustAdd(t, l, testKey(0), 2, "nas")
	if got, want := labels(l), []string{"laptop", "nas"}; !slices.Equal(got, want) {
		t.Errorf("members %q, want %q", got, want)
	}
}

// The owner begins the hive again from paper; then an old device turns up.
func TestSecondGenesisJoins(t *testing.T) {
	old := newLog(t)
	mustAdd(t, old, testKey(1), 2, "nas")
	fresh, err := NewHive(testKey(0).Private(), testKey(3).ID(), "nas", Cache, testActor(3), epoch.Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	if changed, err := fresh.Merge(old.Encode()); err != nil || !changed {
		t.Fatal(changed, err)
	}
	if got := labels(fresh); len(got) != 3 || !slices.Contains(got, "laptop") ||
		!slices.Contains(got, "nas") || !slices.Contains(got, "nas-2") {
		t.Errorf("members %q", got)
	}
}

func TestMergeRefuses(t *testing.T) {
	l := newLog(t)
	mustAdd(t, l, testKey(1), 2, "nas")
	recs := l.Records()
	stranger := testKey(9)

	signed := func(by Key, change func(*Record)) []byte {
		r := Record{
			Kind: KindAdd, Hive: l.Hive(), Wall: epoch.UnixMilli(), Parents: l.current().heads(by.ID()),
			Device: testKey(5).ID(), Label: "new", Role: Cache, Actor: testActor(5),
		}
		change(&r)
		r.sign(by)
		return encode(l.Hive(), []Record{r})
	}
	forged := recs[1]
	forged.Sig[10] ^= 1
	swapped := recs[1]
	swapped.Label = "evil"
	otherOwner, err := NewHive(stranger.Private(), stranger.ID(), "x", Cache, testActor(9), epoch)
	if err != nil {
		t.Fatal(err)
	}
	orphan := mustAdd(t, clone(t, l), testKey(1), 6, "orphan") // its parent is known,
	child := orphan
	child.Device, child.Actor, child.Parents = testKey(7).ID(), testActor(7), []Hash{orphan.Hash()}
	child.sign(testKey(1)) // its child's is not

	for name, c := range map[string]struct {
		b    []byte
		want error
	}{
		"nothing":             {nil, ErrLog},
		"another version":     {append([]byte{2}, l.Encode()[1:]...), ErrLog},
		"no records":          {encode(l.Hive(), nil), ErrLog},
		"cut short":           {l.Encode()[:len(l.Encode())-1], ErrLog},
		"bytes at the end":    {append(l.Encode(), 0), ErrLog},
		"too long":            {make([]byte, MaxLog+1), ErrLog},
		"a huge count":        {append(append([]byte{1}, make([]byte, 32)...), 0xff, 0xff, 0xff, 0xff, 0x0f), ErrLog},
		"a forged signature":  {encode(l.Hive(), []Record{forged}), ErrSignature},
		"a changed record":    {encode(l.Hive(), []Record{swapped}), ErrSignature},
		"a stranger's word":   {signed(stranger, func(*Record) {}), ErrNotMember},
		"a non-owner genesis": {signed(stranger, func(r *Record) { r.Kind, r.Parents = KindGenesis, nil }), ErrRecord},
		"another hive":        {otherOwner.Encode(), ErrHive},
		"another hive's record": {
			encode(l.Hive(), otherOwner.Records()), ErrHive,
		},
		"a record for another hive": {
			signed(testKey(1), func(r *Record) { r.Hive = otherOwner.Hive() }), ErrHive,
		},
		"an unknown past": {encode(l.Hive(), []Record{child}), ErrParent},
		"a word before admission": {
			signed(testKey(2), func(r *Record) { r.Parents = []Hash{recs[0].Hash()} }), ErrNotMember,
		},
		"a member revoking another": {
			signed(testKey(1), func(r *Record) {
				*r = Record{Kind: KindRevoke, Hive: r.Hive, Wall: r.Wall, Parents: r.Parents, Device: testKey(2).ID(), Class: ClassLost}
			}), ErrSignature,
		},
		"a rename of a stranger": {
			signed(testKey(1), func(r *Record) {
				*r = Record{Kind: KindRename, Hive: r.Hive, Wall: r.Wall, Parents: r.Parents, Device: stranger.ID(), Label: "x"}
			}), ErrNotMember,
		},
		"an unknown kind": {signed(testKey(1), func(r *Record) { r.Kind = 9 }), ErrRecord},
		"one bad among good": {
			encode(l.Hive(), []Record{orphan, forged}), ErrSignature,
		},
	} {
		before, hash := l.Encode(), l.Hash()
		changed, err := l.Merge(c.b)
		if changed || !errors.Is(err, c.want) {
			t.Errorf("%s: changed %v, error %v, want %v", name, changed, err, c.want)
		}
		if !bytes.Equal(l.Encode(), before) || l.Hash() != hash {
			t.Errorf("%s: the log changed", name)
		}
	}
	// The control: the same record, rightly made, is taken.
	if changed, err := l.Merge(signed(testKey(1), func(*Record) {})); err != nil || !changed {
		t.Errorf("right record: changed %v, error %v", changed, err)
	}
}

func clone(tb testing.TB, l *Log) *Log {
	tb.Helper()
	c, err := Decode(l.Encode())
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

func TestMergeTakesAnyOrder(t *testing.T) {
	l := newLog(t)
	for n := byte(2); n < 12; n++ { // a chain: each admits the next
		mustAdd(t, l, testKey(n-1), n, "d")
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 20 {
		recs := l.Records()
		rnd.Shuffle(len(recs), func(i, j int) { recs[i], recs[j] = recs[j], recs[i] })
		recs = append(recs, recs[0]) // and one of them twice
		got, err := Decode(encode(l.Hive(), recs))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got.Encode(), l.Encode()) || got.Hash() != l.Hash() {
			t.Fatal("the order of the records matters")
		}
	}
}

func TestConcurrentAddsOfOneLabel(t *testing.T) {
	a := newLog(t)
	mustAdd(t, a, testKey(1), 2, "nas")
	b := clone(t, a)
	mustAdd(t, a, testKey(1), 3, "phone")
	mustAdd(t, b, testKey(2), 4, "phone")
	mustAdd(t, b, testKey(2), 5, "phone-2") // a real name that the number must not take
	ab, ba := clone(t, a), clone(t, b)
	if _, err := ab.Merge(b.Encode()); err != nil {
		t.Fatal(err)
	}
	if _, err := ba.Merge(a.Encode()); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(ab.Members(), ba.Members()) || ab.Hash() != ba.Hash() {
		t.Fatalf("two orders, two lists:\n%+v\n%+v", ab.Members(), ba.Members())
	}
	got := labels(ab)
	slices.Sort(got)
	if want := []string{"laptop", "nas", "phone", "phone-2", "phone-3"}; !slices.Equal(got, want) {
		t.Errorf("labels %q, want %q", got, want)
	}
	if m, _ := ab.Member(testKey(5).ID()); m.Label != "phone-2" {
		t.Errorf("the device admitted as phone-2 is called %q", m.Label)
	}
	if changed, err := ab.Merge(b.Encode()); changed || err != nil {
		t.Errorf("merging again: changed %v, error %v", changed, err)
	}
}

func TestActorBelongsToFirst(t *testing.T) {
	l := newLog(t)
	if err := say(l, testKey(1), Record{Kind: KindAdd, Device: testKey(2).ID(), Label: "thief", Role: Cache, Actor: testActor(1)}); err != nil {
		t.Fatal(err)
	}
	if m, _ := l.ByActor(testActor(1)); m.ID != testKey(1).ID() {
		t.Errorf("the actor went to %q", m.Label)
	}
	if m, ok := l.Member(testKey(2).ID()); !ok || len(m.Actors) != 0 {
		t.Errorf("thief = %+v, %v; want a member without actors", m, ok)
	}
}

func TestRoleAndRename(t *testing.T) {
	l := newLog(t)
	mustAdd(t, l, testKey(1), 2, "nas")
	for _, err := range []error{
		say(l, testKey(1), Record{Kind: KindRole, Device: testKey(2).ID(), Role: Archive}),
		say(l, testKey(2), Record{Kind: KindRename, Device: testKey(1).ID(), Label: "desk"}),
		say(l, testKey(2), Record{Kind: KindRename, Device: testKey(1).ID(), Label: "nas"}),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	one, _ := l.Member(testKey(1).ID())
	two, _ := l.Member(testKey(2).ID())
	if two.Role != Archive || two.Label != "nas-2" {
		t.Errorf("second device: %+v", two)
	}
	if one.Label != "nas" || one.Enrolled != "laptop" || one.Role != Cache {
		t.Errorf("first device: %+v", one)
	}
}

// TestSay: members rename and give roles, nobody else does, and nothing that is
// refused changes the log.
func TestSay(t *testing.T) {
	l := newLog(t)
	mustAdd(t, l, testKey(1), 2, "nas")
	mustAdd(t, l, testKey(1), 3, "phone")
	if err := say(l, testKey(0), Record{Kind: KindRevoke, Device: testKey(3).ID(), Class: ClassLost}); err != nil {
		t.Fatal(err)
	}
	before := l.Hash()
	for what, c := range map[string]struct {
		do   func() error
		want error
	}{
		"a name that is taken": {func() error { return l.Rename(testKey(1), testKey(2).ID(), "laptop", epoch) }, ErrTaken},
		"no name":              {func() error { return l.Rename(testKey(1), testKey(2).ID(), "a b", epoch) }, ErrRecord},
		"rename of a stranger": {func() error { return l.Rename(testKey(1), testKey(9).ID(), "x", epoch) }, ErrNotMember},
		"rename of a revoked":  {func() error { return l.Rename(testKey(1), testKey(3).ID(), "x", epoch) }, ErrNotMember},
		"rename by a stranger": {func() error { return l.Rename(testKey(9), testKey(2).ID(), "x", epoch) }, ErrNotMember},
		"rename by a revoked":  {func() error { return l.Rename(testKey(3), testKey(2).ID(), "x", epoch) }, ErrNotMember},
		"rename by nobody":     {func() error { return l.Rename(Key{}, testKey(2).ID(), "x", epoch) }, ErrNotMember},
		"no role":              {func() error { return l.SetRole(testKey(1), testKey(2).ID(), 0, epoch) }, ErrRecord},
		"role of a stranger":   {func() error { return l.SetRole(testKey(1), testKey(9).ID(), Archive, epoch) }, ErrNotMember},
		"role by a stranger":   {func() error { return l.SetRole(testKey(9), testKey(2).ID(), Archive, epoch) }, ErrNotMember},
	} {
		if err := c.do(); !errors.Is(err, c.want) || l.Hash() != before {
			t.Errorf("%s: %v, want %v", what, err, c.want)
		}
	}
	for _, err := range []error{
		l.Rename(testKey(1), testKey(2).ID(), "Home-NAS", epoch),
		l.Rename(testKey(2), testKey(2).ID(), "home-nas", epoch), // again
		l.Rename(testKey(0), testKey(1).ID(), "nas", epoch),      // by the owner, and the name is free now
		l.SetRole(testKey(2), testKey(1).ID(), Archive, epoch),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	one, _ := l.Member(testKey(1).ID())
	two, _ := l.Member(testKey(2).ID())
	if one.Label != "nas" || one.Role != Archive || two.Label != "home-nas" || two.Enrolled != "nas" {
		t.Errorf("members are %+v and %+v", one, two)
	}
	if again := clone(t, l); again.Hash() != l.Hash() {
		t.Error("the log does not survive its encoding")
	}
}

func TestRevoked(t *testing.T) {
	l := newLog(t)
	mustAdd(t, l, testKey(1), 2, "nas")
	mustAdd(t, l, testKey(2), 3, "phone") // the revocation will know this one
	thief := clone(t, l)
	if err := say(l, testKey(0), Record{Kind: KindRevoke, Device: testKey(2).ID(), Class: ClassCompromised}); err != nil {
		t.Fatal(err)
	}
	mustAdd(t, thief, testKey(2), 4, "evil")   // and these not
	mustAdd(t, thief, testKey(4), 5, "evil-2") //
	if changed, err := l.Merge(thief.Encode()); err != nil || !changed {
		t.Fatal(changed, err)
	}
	if got, want := labels(l), []string{"laptop", "phone"}; !slices.Equal(got, want) {
		t.Errorf("members %q, want %q", got, want)
	}
	if _, ok := l.Member(testKey(2).ID()); ok {
		t.Error("a revoked device is a member")
	}
	if m, ok := l.ByActor(testActor(2)); !ok || !m.Revoked || m.Label != "nas" {
		t.Errorf("author of old work = %+v, %v", m, ok)
	}
	for n, want := range map[byte]error{2: ErrNotMember, 4: ErrNotMember} {
		if _, err := l.Add(testKey(n), testKey(6).ID(), "x", Cache, testActor(6), epoch); !errors.Is(err, want) {
			t.Errorf("device %d still admits: %v", n, err)
		}
	}
	if _, err := l.Add(testKey(1), testKey(2).ID(), "back", Cache, NewActor(testKey(2).ID(), [16]byte{9}), epoch); !errors.Is(err, ErrRevoked) {
		t.Errorf("a revoked device returns: %v", err)
	}
	if err := say(l, testKey(2), Record{Kind: KindRename, Device: testKey(1).ID(), Label: "x"}); !errors.Is(err, ErrNotMember) {
		t.Errorf("a revoked device speaks: %v", err)
	}
	// What is void says nothing either.
	if err := say(thief, testKey(2), Record{Kind: KindRename, Device: testKey(1).ID(), Label: "pwned"}); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Merge(thief.Encode()); err != nil {
		t.Fatal(err)
	}
	if m, _ := l.Member(testKey(1).ID()); m.Label != "laptop" {
		t.Errorf("a void rename took effect: %q", m.Label)
	}
}

func TestSelfRevoke(t *testing.T) {
	l := newLog(t)
	mustAdd(t, l, testKey(1), 2, "nas")
	if err := say(l, testKey(2), Record{Kind: KindRevoke, Device: testKey(2).ID(), Class: ClassRetired}); err != nil {
		t.Fatal(err)
	}
	if got, want := labels(l), []string{"laptop"}; !slices.Equal(got, want) {
		t.Errorf("members %q, want %q", got, want)
	}
}

func TestFull(t *testing.T) {
	l := newLog(t)
	owner := testKey(0)
	genesis := l.Records()[0].Hash()
	var recs []Record
	for n := 1; n < MaxRecords; n++ { // all on the genesis, so there are many heads
		r := Record{
			Kind: KindAdd, Hive: l.Hive(), Parents: []Hash{genesis},
			Device: ID{1: byte(n), 2: byte(n >> 8), 3: 1}, Label: fmt.Sprintf("d%d", n), Role: Cache,
			Actor: [8]byte{byte(n), byte(n >> 8), 1},
		}
		r.sign(owner)
		recs = append(recs, r)
	}
	full := clone(t, l)
	if _, err := full.Merge(encode(l.Hive(), recs)); err != nil {
		t.Fatal(err)
	}
	if got := len(full.Members()); got != MaxRecords {
		t.Errorf("%d members, want %d", got, MaxRecords)
	}
	if _, err := full.Add(testKey(1), testKey(2).ID(), "one-more", Cache, testActor(2), epoch); !errors.Is(err, ErrFull) {
		t.Errorf("one more: %v, want ErrFull", err)
	}
	// With more heads than parents fit, a member's word still stands: its own
	// admission is among them.
	almost := clone(t, l)
	if _, err := almost.Merge(encode(l.Hive(), recs[:200])); err != nil {
		t.Fatal(err)
	}
	mustAdd(t, almost, testKey(0), 2, "late")
	r := mustAdd(t, almost, testKey(2), 3, "later")
	if len(r.Parents) != maxParents {
		t.Errorf("%d parents, want %d", len(r.Parents), maxParents)
	}
	if _, err := Decode(almost.Encode()); err != nil {
		t.Error(err)
	}
}

func TestConcurrentUse(t *testing.T) {
	l := newLog(t)
	other := clone(t, l)
	for n := byte(50); n < 60; n++ {
		mustAdd(t, other, testKey(1), n, "far")
	}
	enc := other.Encode()
	var wg sync.WaitGroup
	for g := range byte(4) {
		wg.Go(func() {
			for n := range byte(5) {
				if _, err := l.Add(testKey(1), testKey(10+g*5+n).ID(), "d", Cache, testActor(10+g*5+n), epoch); err != nil {
					t.Error(err)
				}
				if _, err := l.Merge(enc); err != nil {
					t.Error(err)
				}
			}
		})
		wg.Go(func() {
			for range 200 {
				ms := l.Members()
				if _, ok := l.Member(ms[len(ms)-1].ID); !ok {
					t.Error("a member vanished")
				}
				_, _ = l.Encode(), l.Hash()
			}
		})
	}
	wg.Wait()
	if got := len(l.Members()); got != 1+20+10 {
		t.Errorf("%d members, want 31", got)
	}
}

// ed25519.PrivateKey carries its public half; a wrong one must not make a hive
// nobody can verify.
func TestInconsistentOwnerKey(t *testing.T) {
	priv := slices.Clone(testKey(0).Private())
	copy(priv[32:], testKey(1).Private()[32:])
	if _, err := NewHive(priv, testKey(1).ID(), "a", Cache, testActor(1), epoch); !errors.Is(err, ErrSignature) {
		t.Errorf("got %v, want ErrSignature", err)
	}
}

func BenchmarkMember(b *testing.B) {
	l := newLog(b)
	for n := byte(2); n < 33; n++ {
		mustAdd(b, l, testKey(1), n, "d")
	}
	id := testKey(20).ID()
	b.ReportAllocs()
	for b.Loop() {
		if _, ok := l.Member(id); !ok {
			b.Fatal("not a member")
		}
	}
}

func BenchmarkDecode32(b *testing.B) {
	l := newLog(b)
	for n := byte(2); n < 33; n++ {
		mustAdd(b, l, testKey(1), n, "d")
	}
	enc := l.Encode()
	b.ReportMetric(float64(len(enc)), "bytes")
	for b.Loop() {
		if _, err := Decode(enc); err != nil {
			b.Fatal(err)
		}
	}
}
