package peertest

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/roamfs/roamfs/peer/device"
	"github.com/roamfs/roamfs/peer/wire"
)

// Errors of streams and hosts.
var (
	ErrNotConnected = errors.New("peertest: not connected")
	ErrReset        = errors.New("peertest: stream reset")
	ErrClosed       = errors.New("peertest: closed")
)

// Link says how bytes travel between two hosts. The zero Link takes no time.
type Link struct {
	Latency time.Duration // one way
	Jitter  time.Duration // more latency, up to this, at random; order is kept
	Rate    float64       // bytes per second each way, shared by all streams; 0: no limit
	Loss    float64       // part of the writes, up to 64 KiB each, that have to be sent twice
	// Notice is how long after [Network.Partition] both ends see that they are no
	// longer connected. Zero: 6 s. Negative: never.
	Notice time.Duration
}

// Network is a set of hosts. It is safe for concurrent use.
type Network struct {
	mu    sync.Mutex
	rng   *rand.Rand
	hosts map[device.ID]*Host
	links map[pair]*link
}

type pair struct{ a, b device.ID } // a < b

func pairOf(a, b device.ID) pair {
	if a.Compare(b) > 0 {
		a, b = b, a
	}
	return pair{a, b}
}

// link is what lies between two hosts. All fields are guarded by Network.mu.
type link struct {
	Link
	up      bool
	silent  bool // partitioned
	notice  *time.Timer
	free    [2]time.Time // when each direction has sent what was given to it
	streams map[*stream]struct{}
}

// New returns an empty network, whose random choices follow from seed.
func New(seed uint64) *Network {
	return &Network{
		rng:   rand.New(rand.NewPCG(seed, 0)),
		hosts: make(map[device.ID]*Host),
		links: make(map[pair]*link),
	}
}

// Host adds a host for a device, connected with none. It must be closed.
func (n *Network) Host(dev device.ID) *Host {
	h := &Host{
		net: n, dev: dev, handlers: make(map[string]func(context.Context, device.ID, wire.Stream)),
		known: make(map[device.ID][]string), wake: make(chan struct{}, 1),
	}
	h.ctx, h.cancel = context.WithCancel(context.Background())
	h.wg.Go(h.dispatch)
	n.mu.Lock()
	n.hosts[dev] = h
	n.mu.Unlock()
	return h
}

func (n *Network) linkLocked(a, b device.ID) *link {
	p := pairOf(a, b)
	l := n.links[p]
	if l == nil {
		l = &link{streams: make(map[*stream]struct{})}
		n.links[p] = l
	}
	return l
}

// SetLink sets how bytes travel between two hosts from now on.
func (n *Network) SetLink(a, b device.ID, l Link) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.linkLocked(a, b).Link = l
}

// Connect connects two hosts, and heals a partition between them.
func (n *Network) Connect(a, b device.ID) {
	n.mu.Lock()
	l := n.linkLocked(a, b)
	if l.notice != nil {
		l.notice.Stop()
		l.notice = nil
	}
	was := l.up
	l.up = !n.hosts[a].closed && !n.hosts[b].closed
	heal := l.silent
	l.silent = false
	if l.up && !was {
		n.hosts[a].changedLocked(b, true)
		n.hosts[b].changedLocked(a, true)
	}
	streams := l.listLocked()
	n.mu.Unlock()
	if heal {
		for _, s := range streams {
			s.in.stir()
		}
	}
}

// ConnectAll connects all hosts with each other.
func (n *Network) ConnectAll() {
	n.mu.Lock()
	devs := make([]device.ID, 0, len(n.hosts))
	for dev := range n.hosts {
		devs = append(devs, dev)
	}
	n.mu.Unlock()
	slices.SortFunc(devs, device.ID.Compare)
	for i, a := range devs {
		for _, b := range devs[i+1:] {
			n.Connect(a, b)
		}
	}
}

// Cut ends the connection between two hosts, which both notice at once.
func (n *Network) Cut(a, b device.ID) {
	n.mu.Lock()
	l := n.linkLocked(a, b)
	if l.notice != nil {
		l.notice.Stop()
		l.notice = nil
	}
	was := l.up
	l.up, l.silent = false, false
	if was {
		n.hosts[a].changedLocked(b, false)
		n.hosts[b].changedLocked(a, false)
	}
	streams := l.listLocked()
	clear(l.streams)
	n.mu.Unlock()
	for _, s := range streams {
		s.in.fail(ErrReset)
		s.out.fail(ErrReset)
	}
}

// Partition silently stops all that travels between two hosts. Until
// [Link.Notice] is over they believe that they are connected.
func (n *Network) Partition(a, b device.ID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	l := n.linkLocked(a, b)
	if !l.up || l.silent {
		return
	}
	l.silent = true
	d := l.Notice
	if d == 0 {
		d = 6 * time.Second
	}
	if d > 0 {
		l.notice = time.AfterFunc(d, func() { n.Cut(a, b) })
	}
}

func (l *link) listLocked() []*stream {
	list := make([]*stream, 0, len(l.streams))
	for s := range l.streams {
		list = append(list, s)
	}
	return list
}

// arrival returns when size bytes arrive that are sent now from a to b.
func (n *Network) arrival(from, to device.ID, size int) time.Time {
	n.mu.Lock()
	defer n.mu.Unlock()
	l := n.linkLocked(from, to)
	dir := 0
	if from.Compare(to) > 0 {
		dir = 1
	}
	now := time.Now()
	at := now
	if l.Rate > 0 {
		if l.free[dir].After(at) {
			at = l.free[dir]
		}
		at = at.Add(time.Duration(float64(size) / l.Rate * float64(time.Second)))
		l.free[dir] = at
	}
	at = at.Add(l.Latency)
	if l.Jitter > 0 {
		at = at.Add(time.Duration(n.rng.Int64N(int64(l.Jitter))))
	}
	if l.Loss > 0 && n.rng.Float64() < l.Loss {
		at = at.Add(max(200*time.Millisecond, 2*l.Latency))
	}
	return at
}

func (n *Network) isSilent(a, b device.ID) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.linkLocked(a, b).silent
}

func (n *Network) rtt(a, b device.ID) time.Duration {
	n.mu.Lock()
	defer n.mu.Unlock()
	return 2 * n.linkLocked(a, b).Latency
}
