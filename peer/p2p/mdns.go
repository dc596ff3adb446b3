package p2p

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"net"
	"sync"
	"time"

	"github.com/zeebo/blake3"
	"golang.org/x/net/ipv4"

	"github.com/roamfs/roamfs/peer/device"
)

const (
	mdnsPort = 5353
	// askEvery is how often the network is asked while Run runs. Devices that come
	// announce themselves, so that this only heals losses.
	askEvery = 60 * time.Second
	// answerEvery is how often at most questions are answered.
	answerEvery = time.Second
)

// starts are the pauses before the first questions and announcements.
var starts = [...]time.Duration{0, time.Second, 3 * time.Second}

// serviceOf returns the name of the service in which the members of a hive find
// each other. It is a hash, so that it does not tell which hive it is.
func serviceOf(hive device.HiveID) string {
	var tag [6]byte
	blake3.DeriveKey("roamfs mdns service 1", hive[:], tag[:])
	return "_r" + hex.EncodeToString(tag[:]) + "._udp.local."
}

// beacon announces this device by multicast DNS (RFC 6762, 6763) and listens for
// others, until the returned function is called, which waits for the end. Where
// there is no multicast it does nothing.
func (h *Host) beacon(ctx context.Context) (stop func()) {
	if !h.cfg.MDNS {
		return func() {}
	}
	b, err := newBeacon(h)
	if err != nil {
		h.log.Info("no multicast DNS", "err", err)
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { b.ask(ctx) })
	wg.Go(b.listen)
	return func() {
		cancel()
		b.bye()
		_ = b.pc.Close()
		wg.Wait()
	}
}

// beacon is one announcement of this device, with the addresses that it has now.
type beacon struct {
	h        *Host
	pc       *ipv4.PacketConn
	ifs      []net.Interface // joined
	question []byte
	answer   []byte
	farewell []byte
	answered time.Time // of listen
}

func newBeacon(h *Host) (*beacon, error) {
	service := serviceOf(h.cfg.Hive)
	var random [8]byte
	_, _ = rand.Read(random[:]) // never fails
	name := hex.EncodeToString(random[:]) + "." + service
	b := &beacon{h: h}
	var err error
	if b.question, err = mdnsQuestion(service); err != nil {
		return nil, err
	}
	// Addresses on loopback are of no use to others, and devices on this computer
	// reach the others too.
	s := sighting{dev: h.self, addrs: texts(withoutLoopback(parse(h.self, h.Addrs())))}
	if b.answer, err = mdnsAnswer(service, name, s, mdnsTTL); err != nil {
		return nil, err
	}
	if b.farewell, err = mdnsAnswer(service, name, s, 0); err != nil {
		return nil, err
	}
	if b.pc, b.ifs, err = multicast(); err != nil {
		return nil, err
	}
	return b, nil
}

var mdnsGroup = &net.UDPAddr{IP: net.IPv4(224, 0, 0, 251), Port: mdnsPort}

// multicast returns a socket that is in the group of multicast DNS on each
// interface that can.
func multicast() (*ipv4.PacketConn, []net.Interface, error) {
	lc := net.ListenConfig{Control: reuse}
	udp, err := lc.ListenPacket(context.Background(), "udp4", "0.0.0.0:5353")
	if err != nil {
		return nil, nil, err
	}
	pc := ipv4.NewPacketConn(udp)
	all, err := net.Interfaces()
	var joined []net.Interface
	for _, ifi := range all {
		if ifi.Flags&net.FlagUp != 0 && ifi.Flags&net.FlagMulticast != 0 &&
			pc.JoinGroup(&ifi, &net.UDPAddr{IP: mdnsGroup.IP}) == nil {
			joined = append(joined, ifi)
		}
	}
	if err == nil && len(joined) == 0 {
		err = errNoMulticast
	}
	if err == nil {
		err = pc.SetMulticastLoopback(true) // for other devices on this computer
	}
	if err == nil {
		err = pc.SetMulticastTTL(255)
	}
	if err != nil {
		_ = udp.Close()
		return nil, nil, err
	}
	return pc, joined, nil
}

func (b *beacon) send(packet []byte) {
	for i := range b.ifs {
		// An interface may be gone by now; the change is noticed elsewhere.
		_, _ = b.pc.WriteTo(packet, &ipv4.ControlMessage{IfIndex: b.ifs[i].Index}, mdnsGroup)
	}
}

// ask asks and announces, often at first and then now and then.
func (b *beacon) ask(ctx context.Context) {
	for i := 0; ; i++ {
		pause := jitter(askEvery)
		if i < len(starts) {
			pause = starts[i]
		}
		if !rest(ctx, pause) {
			return
		}
		b.send(b.question)
		if i < len(starts) {
			b.send(b.answer)
		}
	}
}

func (b *beacon) bye() { b.send(b.farewell) }

// listen answers questions and takes answers, until the socket is closed.
func (b *beacon) listen() {
	buf := make([]byte, mdnsMax)
	service := serviceOf(b.h.cfg.Hive)
	for {
		n, _, from, err := b.pc.ReadFrom(buf)
		if err != nil {
			return
		}
		if udp, ok := from.(*net.UDPAddr); !ok || udp.Port != mdnsPort {
			continue // not multicast DNS; RFC 6762, section 6.7 is not for us
		}
		asked, seen := mdnsRead(buf[:n], service)
		if asked && time.Since(b.answered) > answerEvery {
			b.answered = time.Now()
			b.send(b.answer)
		}
		for _, s := range seen {
			if s.dev != b.h.self {
				b.h.Remember(s.dev, s.addrs) // which asks whether it is a member
			}
		}
	}
}
