package copies

import (
	"context"
	"fmt"
	"testing"

	"github.com/roamfs/roamfs/peer/device"
	"github.com/roamfs/roamfs/sync/block"
)

// TestWhere: who has what of a file.
func TestWhere(t *testing.T) {
	w := newWorld(t)
	k := w.keeper(false)
	x := w.make(3)
	w.hold(dev(1), x.ids()...)
	w.hold(dev(2), x.list, x.data[0])
	show := func(got Where) string {
		return fmt.Sprint(got.Blocks, got.Missing, got.Local, got.Listed, got.Holders[dev(1)], got.Holders[dev(2)])
	}
	for _, c := range []struct {
		name string
		do   func()
		ask  func([]block.ID) map[device.ID][]bool
		want string
	}{
		{"the list is elsewhere", func() {}, nil, "1 1 0 false {0 false} {0 false}"},
		{"the list is here", func() { w.here[x.list] = x.all[x.list] }, nil, "4 3 0 true {324 true} {108 false}"},
		{"a block is here", func() { w.here[x.data[1]] = x.all[x.data[1]] }, nil, "4 2 108 true {324 true} {108 false}"},
		{"asked, a device answers something else", func() {}, func(ids []block.ID) map[device.ID][]bool {
			return map[device.ID][]bool{dev(1): make([]bool, len(ids))}
		}, "4 2 108 true {0 false} {108 false}"},
		{"a device does not belong any more", func() { w.revoked[dev(1)] = true }, nil, "4 2 108 true {0 false} {108 false}"},
	} {
		c.do()
		got, err := k.Where(x.ref(), c.ask)
		if err != nil {
			t.Fatal(err)
		}
		if show(got) != c.want {
			t.Errorf("%s: %s, want %s", c.name, show(got), c.want)
		}
	}
	w.offer(x)
	w.evict(x.list)
	if err := k.Learn(context.Background(), x.ref()); err != nil || !w.Has(x.list) {
		t.Errorf("learn: %v", err)
	}
	w.noRoom = true
	w.evict(x.list)
	if err := k.Learn(context.Background(), x.ref()); err != nil {
		t.Errorf("learn without room: %v", err)
	}
	if got, err := k.Where(x.ref(), nil); err != nil || !got.Listed || got.Missing != 3 {
		t.Errorf("learnt without room: %s, %v", show(got), err)
	}
}
