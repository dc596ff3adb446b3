package copies

import (
	"errors"
	"slices"
	"testing"

	"github.com/roamfs/roamfs/peer/device"
	"github.com/roamfs/roamfs/sync/tree"
)

// TestInformed: a device is informed that knows every content that is known here.
func TestInformed(t *testing.T) {
	w := newWorld(t)
	k := w.keeper(false)
	check := func(when string, want ...device.ID) {
		t.Helper()
		got, err := k.Informed()
		slices.SortFunc(got, device.ID.Compare)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %v, %v; want %v", when, got, err, want)
		}
	}
	x, y := w.file(1, 1), w.file(2, 1)
	w.share(dev(1), x, y)
	w.share(dev(2), x)
	check("at first", dev(1))
	z := w.file(3, 1)
	k.Wrote(ino(3))
	check("written here")
	w.share(dev(1), z)
	check("one device has heard of it", dev(1))
	c := w.make(1)
	c.dot.Actor = tree.Actor{2}
	w.set(ino(3), z, c)
	w.share(dev(2), c)
	k.Adopted([]tree.Ino{ino(3)})
	check("adopted from a device that does not know the rest")
	w.share(dev(1), c)
	check("one device knows both", dev(1))

	many := make([]tree.Ino, mostFresh+1)
	y2 := w.file(4, 1)
	k.Adopted(many)
	if len(k.heads.fresh) > mostFresh {
		t.Errorf("%d inodes are remembered", len(k.heads.fresh))
	}
	check("more has changed than is remembered")
	w.share(dev(1), y2)
	check("and is known", dev(1))
}

// TestInformedFails: what could not be read is read when it is asked for again.
func TestInformedFails(t *testing.T) {
	w := newWorld(t)
	broken := errors.New("broken")
	tr := &failing{world: w}
	k := New(Config{Tree: tr, Blocks: w, Holders: w, Keys: w.keys})
	if _, err := k.Informed(); err != nil {
		t.Fatal(err)
	}
	x := w.file(1, 1)
	w.share(dev(1))
	k.Wrote(ino(1))
	tr.err = broken
	if got, err := k.Informed(); !errors.Is(err, broken) || got != nil {
		t.Errorf("got %v, %v", got, err)
	}
	tr.err = nil
	if got, err := k.Informed(); err != nil || len(got) > 0 {
		t.Errorf("informed are %v, %v, of %v", got, err, x.dot)
	}
}
