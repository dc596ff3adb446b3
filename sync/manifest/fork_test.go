package manifest

import (
	"errors"
	"testing"

	"pgregory.net/rapid"
)

func TestConflict(t *testing.T) {
	// Two copies of one device go on from the same manifest.
	original := newChain(1)
	other := newChain(2)
	other.add(t, other.next(FlagCommit))
	original.add(t, original.next(FlagCommit))
	first := original.last
	copied := newChain(1)
	copied.last = first
	copied.seen[first.Actor] = original.seen[first.Actor]
	original.see(other)
	second := original.add(t, original.next(FlagCommit))
	third := original.add(t, original.next(FlagCommit))
	checkpoint := original.add(t, original.next(FlagCheckpoint))
	fork2 := copied.add(t, copied.next(FlagCommit)) // has not seen other
	fork3 := copied.add(t, copied.next(FlagCheckpoint))
	fork4 := copied.add(t, copied.next(FlagCheckpoint))
	fork5 := copied.add(t, copied.next(FlagCommit))

	// Another copy has seen as much as the original, and commits later.
	late := newChain(1)
	late.last = first
	late.seen[first.Actor] = Head{first.Actor, first.Ctr, first.Hash()}
	late.see(other)
	late2 := late.next(FlagCheckpoint)
	unchained := *late2
	unchained.Wall++ // the same statement once more, and nothing follows it
	late.add(t, late2)
	if err := unchained.Sign(testKey(1)); err != nil {
		t.Fatal(err)
	}
	late3 := late.add(t, late.next(FlagCheckpoint))
	late4 := late.add(t, late.next(FlagCommit))
	late.add(t, late.next(FlagCheckpoint))
	late6 := late.add(t, late.next(FlagCheckpoint))

	for name, c := range map[string]struct {
		a, b *Manifest
		fork bool
	}{
		"the same":                      {second, second, false},
		"one after the other":           {first, second, false},
		"with a gap":                    {first, third, false},
		"a commit and its checkpoint":   {third, checkpoint, false},
		"two devices":                   {first, other.last, false},
		"the beginning of both":         {first, fork5, false},
		"one number":                    {second, fork2, true},
		"one number, other kinds":       {third, fork3, true},
		"next, but of the other":        {second, fork3, true},
		"later with fewer commits":      {third, fork5, true}, // both commit 3
		"later and has seen less":       {second, fork5, true},
		"next, of a twin":               {&unchained, late3, true},
		"one commit twice":              {second, late4, true},
		"later, after another commit":   {second, late6, true}, // with numbers apart, and seen as much
		"next, with fewer commits":      {third, fork4, true},
		"a checkpoint and an old count": {checkpoint, fork5, true},
	} {
		for _, err := range []error{Conflict(c.a, c.b), Conflict(c.b, c.a)} {
			fe, ok := errors.AsType[*ForkError](err)
			if ok != c.fork {
				t.Errorf("%s: %v", name, err)
			}
			if ok && (fe.Older.Seq > fe.Newer.Seq || fe.Older.Hash() == fe.Newer.Hash()) {
				t.Errorf("%s: no proof: %v", name, fe)
			}
		}
	}
}

// Devices that behave are never accused, whatever they see of each other; one
// that runs twice is, by two manifests of one number.
func TestConflictModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		chains := []*chain{newChain(1), newChain(2), newChain(3)}
		var all []*Manifest
		for range rapid.IntRange(1, 25).Draw(rt, "steps") {
			c := chains[rapid.IntRange(0, 2).Draw(rt, "device")]
			switch rapid.IntRange(0, 2).Draw(rt, "act") {
			case 0:
				c.see(chains[rapid.IntRange(0, 2).Draw(rt, "from")])
			case 1:
				all = append(all, c.add(t, c.next(FlagCheckpoint)))
			default:
				all = append(all, c.add(t, c.next(FlagCommit)))
			}
		}
		for i, a := range all {
			b, err := Decode(a.Encode())
			if err != nil || b.Verify() != nil {
				rt.Fatalf("manifest %d is not accepted: %v", i, err)
			}
			for _, b := range all {
				if err := Conflict(a, b); err != nil {
					rt.Fatalf("accused: %v", err)
				}
			}
		}
		if len(all) == 0 {
			return
		}
		again := *all[rapid.IntRange(0, len(all)-1).Draw(rt, "fork")]
		again.Wall++
		for _, m := range all {
			if m.Actor == again.Actor && m.Seq == again.Seq && Conflict(m, &again) == nil {
				rt.Fatal("a fork went unnoticed")
			}
		}
	})
}
