package p2p

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	ma "github.com/multiformats/go-multiaddr"

	"github.com/roamfs/roamfs/peer/device"
)

func addrs(t *testing.T, texts ...string) []ma.Multiaddr {
	t.Helper()
	var list []ma.Multiaddr
	for _, s := range texts {
		a, err := ma.NewMultiaddr(s)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, a)
	}
	return list
}

func TestRank(t *testing.T) {
	for name, c := range map[string]struct{ in, want []string }{
		"local: TCP first": {
			[]string{"/ip4/192.168.1.2/udp/1/quic-v1", "/ip4/192.168.1.2/tcp/1", "/ip4/127.0.0.1/tcp/1", "/ip6/fd00::1/udp/1/quic-v1"},
			[]string{"0s /ip4/192.168.1.2/tcp/1", "0s /ip4/127.0.0.1/tcp/1", "250ms /ip4/192.168.1.2/udp/1/quic-v1", "250ms /ip6/fd00::1/udp/1/quic-v1"},
		},
		"public: QUIC first": {
			[]string{"/ip4/1.2.3.4/tcp/1", "/ip4/1.2.3.4/udp/1/quic-v1"},
			[]string{"0s /ip4/1.2.3.4/udp/1/quic-v1", "250ms /ip4/1.2.3.4/tcp/1"},
		},
		"nothing better: at once": {
			[]string{"/ip4/10.0.0.1/udp/1/quic-v1"},
			[]string{"0s /ip4/10.0.0.1/udp/1/quic-v1"},
		},
	} {
		var got []string
		for _, d := range rank(addrs(t, c.in...)) {
			got = append(got, fmt.Sprintf("%v %v", d.Delay, d.Addr))
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: got %v, want %v", name, got, c.want)
		}
	}
}

func TestPathNames(t *testing.T) {
	for a, want := range map[string]string{
		"/ip4/192.168.1.2/tcp/1":          "lan tcp",
		"/ip4/127.0.0.1/udp/1/quic-v1":    "lan quic",
		"/ip4/8.8.8.8/tcp/1":              "tcp",
		"/ip6/2001:4860::1/udp/1/quic-v1": "quic",
		"/ip6/fd00::1/tcp/1":              "lan tcp",
	} {
		if got := pathOf(addrs(t, a)[0]).String(); got != want {
			t.Errorf("%s: %q, want %q", a, got, want)
		}
	}
}

func TestPathOnLink(t *testing.T) {
	_, link, err := net.ParseCIDR("8.8.8.0/24")
	if err != nil {
		t.Fatal(err)
	}
	for a, want := range map[string]string{
		"/ip4/8.8.8.8/tcp/1":         "lan tcp", // a public address, but on our own link
		"/ip4/8.8.8.8/udp/1/quic-v1": "lan quic",
		"/ip4/8.8.9.8/udp/1/quic-v1": "quic",
		"/dns4/nas.example/tcp/3":    "tcp",
	} {
		if got := pathOver(addrs(t, a)[0], []*net.IPNet{link}).String(); got != want {
			t.Errorf("%s: %q, want %q", a, got, want)
		}
	}
}

func TestUsableAddrs(t *testing.T) {
	dev := device.ID{1}
	pid, err := peerOf(dev)
	if err != nil {
		t.Fatal(err)
	}
	other, _ := peerOf(device.ID{2})
	in := []string{
		"/ip4/10.0.0.1/tcp/1", "/ip6/fd00::1/udp/2/quic-v1", "/dns4/nas.example/tcp/3", "/ip4/10.0.0.1/tcp/1",
		"/ip4/10.0.0.2/tcp/4/p2p/" + pid.String(), // kept without the ID
		// and not:
		"/ip4/10.0.0.2/tcp/5/p2p/" + other.String(), "/ip4/0.0.0.0/tcp/1", "/ip6/::/tcp/1", "/ip4/224.0.0.1/tcp/1",
		"/ip6/fe80::1/tcp/1", "/ip4/10.0.0.1/tcp/0", "/ip4/10.0.0.1/udp/1", "/ip4/10.0.0.1/udp/1/quic",
		"/ip4/10.0.0.1/tcp/1/ws", "/unix/tmp/x", "/ip4/10.0.0.1", "", "10.0.0.1:1",
		"/ip4/10.0.0.1/tcp/1/p2p/" + other.String() + "/p2p-circuit", "/p2p/" + pid.String(),
	}
	want := []string{"/ip4/10.0.0.1/tcp/1", "/ip6/fd00::1/udp/2/quic-v1", "/dns4/nas.example/tcp/3", "/ip4/10.0.0.2/tcp/4"}
	if got := texts(parse(dev, in)); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestResolve(t *testing.T) {
	listen := addrs(t, "/ip4/0.0.0.0/udp/2/quic-v1", "/ip4/0.0.0.0/tcp/1", "/ip6/::/tcp/3", "/ip4/10.9.9.9/tcp/4")
	ips := []net.IP{net.ParseIP("127.0.0.1"), net.ParseIP("::1"), net.ParseIP("192.168.1.2"), net.ParseIP("fd00::1")}
	want := []string{
		"/ip4/192.168.1.2/tcp/1", "/ip4/10.9.9.9/tcp/4", "/ip4/192.168.1.2/udp/2/quic-v1", "/ip6/fd00::1/tcp/3",
		"/ip4/127.0.0.1/tcp/1", "/ip4/127.0.0.1/udp/2/quic-v1", "/ip6/::1/tcp/3",
	}
	if got := texts(resolve(listen, ips)); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestBook(t *testing.T) {
	var learned [][]string
	b := newBook(func(_ device.ID, list []string) { learned = append(learned, list) })
	dev := device.ID{1}
	var many []string
	for i := range 20 {
		many = append(many, fmt.Sprintf("/ip4/10.0.0.%d/tcp/1", i+1))
	}
	if b.add(dev, nil) || len(learned) != 0 {
		t.Error("nothing was new")
	}
	if !b.add(dev, addrs(t, many...)) {
		t.Error("nothing was new of what was new")
	}
	if got := texts(b.get(dev)); !slices.Equal(got, many[:maxAddrs]) {
		t.Errorf("got %v", got)
	}
	b.worked(dev, addrs(t, many[5])[0])
	if got := texts(b.get(dev)); got[0] != many[5] || len(got) != maxAddrs {
		t.Errorf("got %v", got)
	}
	if b.add(dev, addrs(t, many[7])) {
		t.Error("a known address was new")
	}
	n := len(learned)
	b.add(dev, addrs(t, many[7]))
	if len(learned) != n {
		t.Error("told of no change")
	}
	for i := range 2 * maxDevices {
		b.add(device.ID{2, byte(i), byte(i >> 8)}, addrs(t, many[0]))
	}
	if len(b.addrs) > maxDevices {
		t.Errorf("%d devices are remembered", len(b.addrs))
	}
}

func TestDialerWakes(t *testing.T) {
	d := &dialer{wake: make(chan bool, 1)}
	d.wakeUp(false)
	d.wakeUp(true)
	d.wakeUp(false)
	if !<-d.wake {
		t.Error("that the backoff begins anew was forgotten")
	}
}

func TestAwaitChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		// What is known is not what is: that counts once it stands still.
		changes := make(chan struct{}, 1)
		changes <- struct{}{}
		now := awaitChange(t.Context(), changes, []net.IP{net.ParseIP("10.99.99.99")})
		if !sameIPs(now, interfaceIPs()) || time.Since(began) != settle {
			t.Errorf("got %v after %v", now, time.Since(began))
		}
		// Without word from the system they are compared now and then.
		awaitChange(t.Context(), nil, []net.IP{net.ParseIP("10.99.99.99")})
		if d := time.Since(began); d != 2*settle+poll {
			t.Errorf("after %v", d)
		}
	})
}

func TestMDNSMessages(t *testing.T) {
	service := serviceOf(device.HiveID{1})
	if other := serviceOf(device.HiveID{2}); other == service || len(strings.SplitN(service, ".", 2)[0]) > 16 {
		t.Errorf("services %q and %q", service, other)
	}
	if strings.Contains(service, "0100") {
		t.Errorf("%q shows the hive", service)
	}
	q, err := mdnsQuestion(service)
	if err != nil {
		t.Fatal(err)
	}
	if asked, seen := mdnsRead(q, service); !asked || len(seen) != 0 {
		t.Errorf("question: %v %v", asked, seen)
	}
	if asked, _ := mdnsRead(q, serviceOf(device.HiveID{2})); asked {
		t.Error("the question of another hive is ours")
	}
	s := sighting{dev: device.ID{7}}
	for i := range 12 {
		s.addrs = append(s.addrs, fmt.Sprintf("/ip4/10.0.0.%d/tcp/1", i))
	}
	a, err := mdnsAnswer(service, "0123456789abcdef."+service, s, mdnsTTL)
	if err != nil {
		t.Fatal(err)
	}
	if len(a) > 1400 {
		t.Errorf("announcement of %d bytes", len(a))
	}
	asked, seen := mdnsRead(a, service)
	if asked || len(seen) != 1 || seen[0].dev != s.dev || !slices.Equal(seen[0].addrs, s.addrs[:mdnsAddrs]) {
		t.Errorf("answer: %v %v", asked, seen)
	}
	if _, seen := mdnsRead(a, serviceOf(device.HiveID{2})); len(seen) != 0 {
		t.Error("the answer of another hive is ours")
	}
	bye, err := mdnsAnswer(service, "x."+service, s, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, seen := mdnsRead(bye, service); len(seen) != 0 {
		t.Error("a farewell announces")
	}
}

func FuzzMDNS(f *testing.F) {
	service := serviceOf(device.HiveID{1})
	q, _ := mdnsQuestion(service)
	a, _ := mdnsAnswer(service, "x."+service, sighting{device.ID{7}, []string{"/ip4/10.0.0.1/tcp/1"}}, mdnsTTL)
	f.Add(q)
	f.Add(a)
	f.Fuzz(func(t *testing.T, b []byte) {
		_, seen := mdnsRead(b, service)
		if len(seen) > mdnsRecords {
			t.Errorf("%d devices in one packet", len(seen))
		}
		for _, s := range seen {
			if len(s.addrs) > maxAddrs {
				t.Errorf("%d addresses", len(s.addrs))
			}
		}
	})
}

func TestStreamDeadlineAfterDeath(t *testing.T) {
	c := &conn{dead: make(chan struct{})}
	var set []time.Time
	s := &stream{conn: c}
	f := func(at time.Time) error { set = append(set, at); return errors.New("x") }
	later := time.Now().Add(time.Hour)
	_ = s.deadline(f, later)
	close(c.dead)
	_ = s.deadline(f, later)
	if want := []time.Time{later, later, past}; !slices.Equal(set, want) {
		t.Errorf("set %v, want %v", set, want)
	}
}
