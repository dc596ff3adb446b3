package copies

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/roamfs/roamfs/sync/block"
)

// TestListsStay: the list of a file stays here as long as something of the file
// is here only, and is known to be one after a restart.
func TestListsStay(t *testing.T) {
	tied := func(k *Keeper, x content) bool {
		t.Helper()
		got, err := k.Tied(t.Context(), x.ids())
		if err != nil {
			t.Fatal(err)
		}
		_, list := got[x.list]
		if want := map[bool]int{true: 1}[list]; len(got) != want {
			t.Errorf("%d blocks have to stay, the list among them %v", len(got), list)
		}
		return list
	}
	w := newWorld(t)
	k := w.keeper(false)
	if tied(k, w.make(3)) {
		t.Error("an empty tree ties a list")
	}
	x := w.file(1, 3)
	k.Wrote(ino(1))
	if !tied(k, x) {
		t.Error("just written: the list may go")
	}
	w.share(dev(1), x)
	w.hold(dev(1), x.list, x.data[0])
	settle(k)
	if !tied(k, x) {
		t.Error("a block is here only: the list may go")
	}
	if !tied(w.keeper(false), x) {
		t.Error("after a restart: the list may go")
	}
	w.hold(dev(1), x.ids()...)
	k.HeardHoldings()
	settle(k)
	if tied(k, x) {
		t.Error("all is elsewhere: the list has to stay")
	}
	k.Wrote(ino(1))
	if tied(k, x) {
		t.Error("all is elsewhere, and not yet looked at: the list has to stay")
	}
}

// TestListsWaitForTheAccount: no list may go that the account may still name.
func TestListsWaitForTheAccount(t *testing.T) {
	w := newWorld(t)
	x := w.file(1, 3)
	tr := &failing{world: w, err: errors.New("broken")}
	k := New(Config{Tree: tr, Blocks: w, Holders: w, Keys: w.keys})
	if got, err := k.Tied(t.Context(), x.ids()); !errors.Is(err, ErrUnknown) {
		t.Errorf("the tree cannot be read: %v, %v", got, err)
	}
	tr.err = nil
	k.alone.turn <- struct{}{}
	short, cancel := context.WithCancel(t.Context())
	cancel()
	if got, err := k.Tied(short, x.ids()); !errors.Is(err, context.Canceled) {
		t.Errorf("somebody else makes it: %v, %v", got, err)
	}
	<-k.alone.turn
	if got, err := k.Tied(t.Context(), x.ids()); err != nil || len(got) != 1 {
		t.Errorf("it is made: %v, %v", got, err)
	}
}

// TestListsInMemory: they are bounded, and thrown away now and then.
func TestListsInMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l lists
		big := make([]byte, listMemory/4)
		fill := func() (n int) {
			for i := range 6 {
				id := block.ID{byte(i)}
				l.put(id, big)
				l.put(id, big) // counts once
				if l.get(id) != nil {
					n++
				}
			}
			return n
		}
		if n := fill(); n != 4 {
			t.Errorf("%d lists of a quarter fit", n)
		}
		if !l.room() || l.get(block.ID{1}) != nil {
			t.Error("full for the first time: not thrown away")
		}
		if n := fill(); n != 4 || l.room() {
			t.Errorf("%d lists of a quarter fit again, room %v", n, l.room())
		}
		<-time.After(listsFor)
		if !l.room() {
			t.Error("full for ever")
		}
	})
}
