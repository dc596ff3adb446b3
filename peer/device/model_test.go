package device

import (
	"bytes"
	"reflect"
	"testing"

	"pgregory.net/rapid"
)

// Devices admit, revoke, rename and exchange their logs in random ways. The union
// must be a join, in any order and shape, and what it says must be sane.
func TestUnionModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		logs := []*Log{newLog(t), newLog(t), newLog(t)}
		next := byte(2)
		pick := func() *Log { return logs[rapid.IntRange(0, 2).Draw(rt, "log")] }
		member := func(l *Log) Key {
			ms := l.Members()
			if len(ms) == 0 {
				return testKey(0)
			}
			id := ms[rapid.IntRange(0, len(ms)-1).Draw(rt, "member")].ID
			for n := range next {
				if testKey(n).ID() == id {
					return testKey(n)
				}
			}
			panic("unknown member")
		}
		rt.Repeat(map[string]func(*rapid.T){
			"add": func(rt *rapid.T) {
				if next > 20 {
					rt.Skip("enough")
				}
				l := pick()
				by := member(l)
				label := rapid.SampledFrom([]string{"a", "a-2", "b"}).Draw(rt, "label")
				if _, err := l.Add(by, testKey(next).ID(), label, Cache, testActor(next), epoch); err != nil {
					rt.Fatal(err)
				}
				next++
			},
			"revoke": func(rt *rapid.T) {
				l := pick()
				if len(l.Members()) < 2 {
					rt.Skip("the last one")
				}
				if err := say(l, testKey(0), Record{Kind: KindRevoke, Device: member(l).ID(), Class: ClassLost}); err != nil {
					rt.Fatal(err)
				}
			},
			"epoch": func(rt *rapid.T) {
				l := pick()
				if len(l.Members()) == 0 {
					rt.Skip("nobody")
				}
				by := member(l)
				if lacking := l.Lacking(); len(lacking) > 0 {
					n, id := l.Epoch()
					for _, s := range l.Secrets(by) {
						if s.Epoch != n || s.ID() != id {
							continue
						}
						if err := l.Share(by, s, epoch); err != nil || len(l.Lacking()) > 0 {
							rt.Fatal(err, l.Lacking())
						}
					}
				}
				if err := l.Rotate(by, [32]byte{1, byte(len(l.Records())), next}, epoch); err != nil || l.Stale() || len(l.Lacking()) > 0 {
					rt.Fatal(err, l.Stale(), l.Lacking())
				}
			},
			"rename": func(rt *rapid.T) {
				l := pick()
				if len(l.Members()) == 0 {
					rt.Skip("nobody")
				}
				if err := say(l, member(l), Record{Kind: KindRename, Device: member(l).ID(), Label: "a"}); err != nil {
					rt.Fatal(err)
				}
			},
			"merge": func(rt *rapid.T) {
				l, o := pick(), pick()
				if _, err := l.Merge(o.Encode()); err != nil {
					rt.Fatal(err)
				}
				if changed, err := l.Merge(o.Encode()); changed || err != nil {
					rt.Fatalf("merging twice: changed %v, error %v", changed, err)
				}
				checkSane(rt, l)
			},
		})
		join := func(ls ...*Log) *Log {
			out := clone(t, ls[0])
			for _, l := range ls[1:] {
				if _, err := out.Merge(l.Encode()); err != nil {
					rt.Fatal(err)
				}
			}
			return out
		}
		a, b, c := logs[0], logs[1], logs[2]
		want := join(a, b, c)
		for _, got := range []*Log{join(c, b, a), join(b, a, c), join(a, join(b, c)), join(join(c, a), join(b, a))} {
			if !bytes.Equal(got.Encode(), want.Encode()) || got.Hash() != want.Hash() || !reflect.DeepEqual(got.Members(), want.Members()) {
				rt.Fatal("the order of merging matters")
			}
		}
		recs := rapid.Permutation(want.Records()).Draw(rt, "order")
		got, err := Decode(encode(want.Hive(), recs))
		if err != nil {
			rt.Fatal(err)
		}
		if !bytes.Equal(got.Encode(), want.Encode()) {
			rt.Fatal("the order of records matters")
		}
		n, id := want.Epoch()
		if m, other := got.Epoch(); m != n || id != other || got.Stale() != want.Stale() {
			rt.Fatal("the order of records matters for the epoch")
		}
		for _, m := range want.Former() {
			for k := byte(1); k < next; k++ {
				for _, s := range want.Secrets(testKey(k)) {
					if testKey(k).ID() == m.ID && !want.Stale() && s.Epoch == n && s.ID() == id {
						rt.Fatalf("%s was revoked and knows the secret of an epoch that is not stale", m.Label)
					}
				}
			}
		}
		checkSane(rt, want)
	})
}

func checkSane(rt *rapid.T, l *Log) {
	labels, actors := make(map[string]bool), make(map[[8]byte]bool)
	revoked := make(map[ID]bool)
	for _, r := range l.Records() {
		if r.Kind == KindRevoke {
			revoked[r.Device] = true
		}
	}
	for _, m := range l.Members() {
		if revoked[m.ID] || m.Revoked {
			rt.Fatalf("revoked device %q is a member", m.Label)
		}
		if labels[m.Label] || CheckLabel(m.Label) != nil {
			rt.Fatalf("label %q is taken or wrong", m.Label)
		}
		labels[m.Label] = true
		for _, a := range m.Actors {
			if actors[a] {
				rt.Fatalf("actor %x belongs to two devices", a)
			}
			actors[a] = true
			if o, ok := l.ByActor(a); !ok || o.ID != m.ID {
				rt.Fatalf("actor %x leads to %q, not %q", a, o.Label, m.Label)
			}
		}
		if got, ok := l.Member(m.ID); !ok || !reflect.DeepEqual(got, m) {
			rt.Fatalf("Member(%s) = %+v, want %+v", m.ID.Short(), got, m)
		}
	}
}
