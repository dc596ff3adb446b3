package p2p_test

import (
	"net"
	"testing"
	"time"

	"github.com/roamfs/roamfs/peer/device"
	"github.com/roamfs/roamfs/peer/p2p"
)

// Members of one hive find each other on the local network, those of another one
// do not.
func TestMDNS(t *testing.T) {
	ifs, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	var able bool
	for _, i := range ifs {
		as, _ := i.Addrs()
		able = able || i.Flags&net.FlagUp != 0 && i.Flags&net.FlagMulticast != 0 && i.Flags&net.FlagLoopback == 0 && len(as) > 0
	}
	if !able {
		t.Skip("no interface with multicast")
	}
	in := func(hive device.HiveID) func(*p2p.Config) {
		return func(c *p2p.Config) { c.MDNS, c.Hive, c.Listen = true, hive, nil }
	}
	hive := device.HiveID{1, 2, 3}
	other := newNode(t, in(device.HiveID{9}))
	a := newNode(t, in(hive))
	b := newNode(t, in(hive))
	a.await(t, b.id, true)
	b.await(t, a.id, true)
	echo(t, a, b, "hello")
	select {
	case e := <-other.events:
		t.Errorf("another hive: %v", e)
	case <-time.After(time.Second):
	}
}
