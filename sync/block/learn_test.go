package block

import (
	"bytes"
	"errors"
	"sync"
	"testing"
)

// TestLearn: a device goes on to a new epoch while it runs. It opens the blocks of
// all epochs, keeps its other keys, and is not understood by one that did not
// learn of it.
func TestLearn(t *testing.T) {
	first := Secret{1}
	newKeys := func() *Keys {
		k, err := NewKeys(1, map[uint32]Secret{1: first})
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	here, there, revoked := newKeys(), newKeys(), newKeys()
	content := bytes.Repeat([]byte("words "), 100)
	oldID, old, err := here.Seal(Data, content)
	if err != nil {
		t.Fatal(err)
	}
	// Two devices begin epoch 2, and that of {3} comes to be the one.
	for _, k := range []*Keys{here, there} {
		for _, s := range []Secret{{2}, {3}} {
			if err := k.Learn(2, s, s == Secret{3}); err != nil {
				t.Fatal(err)
			}
		}
	}
	other := newKeys() // which knows of one only
	if err := other.Learn(2, Secret{2}, true); err != nil {
		t.Fatal(err)
	}
	newID, sealed, err := here.Seal(Data, content)
	if err != nil || newID == oldID || here.Epoch() != 2 {
		t.Fatalf("sealed in epoch %d: %v", here.Epoch(), err)
	}
	otherID, byOther, err := other.Seal(Data, content)
	if err != nil {
		t.Fatal(err)
	}
	for what, b := range map[string]struct {
		id     ID
		sealed []byte
	}{"before": {oldID, old}, "now": {newID, sealed}, "in the epoch that lost": {otherID, byOther}} {
		if got, err := there.Open(b.id, Data, b.sealed); err != nil || !bytes.Equal(got, content) {
			t.Errorf("block sealed %s: %v", what, err)
		}
	}
	if _, err := revoked.Open(newID, Data, sealed); !errors.Is(err, ErrNoKey) {
		t.Errorf("a device without the secret opens a block: %v", err)
	}
	if _, err := other.Open(newID, Data, sealed); !errors.Is(err, ErrDamaged) {
		t.Errorf("a device with another secret of the epoch opens a block: %v", err)
	}
	if here.ChunkKey() != revoked.ChunkKey() {
		t.Error("content is cut in another way now")
	}
	if err := here.Learn(3, Secret{}, true); err == nil || here.Epoch() != 2 {
		t.Error("a secret of zeros is learnt")
	}
	again, _, err := here.Seal(Data, content)
	if err := errors.Join(err, here.Learn(2, Secret{2}, false), here.Learn(1, first, false)); err != nil || again != newID || here.Epoch() != 2 {
		t.Error("learning again changes the epoch")
	}
}

// TestLearnWhileSealing is for the race detector.
func TestLearnWhileSealing(t *testing.T) {
	k, err := NewKeys(1, map[uint32]Secret{1: {1}})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 200 {
				id, sealed, err := k.Seal(Data, []byte("x"))
				if err == nil {
					_, err = k.Open(id, Data, sealed)
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for n := uint32(2); n < 100; n++ {
		if err := k.Learn(n, Secret{byte(n)}, true); err != nil {
			t.Fatal(err)
		}
	}
	wg.Wait()
}
