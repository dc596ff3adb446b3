package p2p

import (
	"errors"
	"strings"

	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
	"golang.org/x/net/dns/dnsmessage"

	"github.com/roamfs/roamfs/peer/device"
)

const (
	mdnsMax     = 9000 // bytes of a packet (RFC 6762, section 17)
	mdnsRecords = 64   // looked at in a packet
	mdnsTTL     = 120  // seconds
	mdnsAddrs   = 8    // announced, so that a packet fits in a frame
)

var errNoMulticast = errors.New("no interface for multicast")

// sighting is what a device says of itself: in a TXT record, "d=" its ID and an
// "a=" for each of its addresses.
type sighting struct {
	dev   device.ID
	addrs []string
}

func withoutLoopback(list []ma.Multiaddr) []ma.Multiaddr {
	var out []ma.Multiaddr
	for _, a := range list {
		if !manet.IsIPLoopback(a) {
			out = append(out, a)
		}
	}
	return out
}

// mdnsQuestion asks for all instances of service.
func mdnsQuestion(service string) ([]byte, error) {
	name, err := dnsmessage.NewName(service)
	if err != nil {
		return nil, err
	}
	m := dnsmessage.Message{Questions: []dnsmessage.Question{
		{Name: name, Type: dnsmessage.TypePTR, Class: dnsmessage.ClassINET},
	}}
	return m.Pack()
}

// mdnsAnswer announces s as the instance called name, for ttl seconds.
func mdnsAnswer(service, name string, s sighting, ttl uint32) ([]byte, error) {
	sn, err := dnsmessage.NewName(service)
	if err != nil {
		return nil, err
	}
	in, err := dnsmessage.NewName(name)
	if err != nil {
		return nil, err
	}
	txt := []string{"d=" + s.dev.String()}
	for _, a := range s.addrs[:min(len(s.addrs), mdnsAddrs)] {
		if len(a) <= 250 {
			txt = append(txt, "a="+a)
		}
	}
	const flush = 1 << 15 // the record replaces earlier ones (RFC 6762, section 10.2)
	m := dnsmessage.Message{
		Header: dnsmessage.Header{Response: true, Authoritative: true},
		Answers: []dnsmessage.Resource{
			{
				Header: dnsmessage.ResourceHeader{Name: sn, Type: dnsmessage.TypePTR, Class: dnsmessage.ClassINET, TTL: ttl},
				Body:   &dnsmessage.PTRResource{PTR: in},
			},
			{
				Header: dnsmessage.ResourceHeader{Name: in, Type: dnsmessage.TypeTXT, Class: dnsmessage.ClassINET | flush, TTL: ttl},
				Body:   &dnsmessage.TXTResource{TXT: txt},
			},
		},
	}
	return m.Pack()
}

// mdnsRead reports whether a packet asks for service, and which instances of it
// the packet announces. Farewells and whatever is malformed are skipped.
func mdnsRead(packet []byte, service string) (asked bool, seen []sighting) {
	var p dnsmessage.Parser
	head, err := p.Start(packet)
	if err != nil {
		return false, nil
	}
	for range mdnsRecords {
		q, err := p.Question()
		if err != nil {
			break
		}
		if !head.Response && strings.EqualFold(q.Name.String(), service) &&
			(q.Type == dnsmessage.TypePTR || q.Type == dnsmessage.TypeALL) {
			asked = true
		}
	}
	if !head.Response || p.SkipAllQuestions() != nil {
		return asked, nil
	}
	for range mdnsRecords {
		rh, err := p.AnswerHeader()
		if err != nil {
			break
		}
		if rh.Type != dnsmessage.TypeTXT || rh.TTL == 0 ||
			!strings.HasSuffix(strings.ToLower(rh.Name.String()), "."+service) {
			if p.SkipAnswer() != nil {
				break
			}
			continue
		}
		txt, err := p.TXTResource()
		if err != nil {
			break
		}
		if s, ok := readTXT(txt.TXT); ok {
			seen = append(seen, s)
		}
	}
	return asked, seen
}

func readTXT(txt []string) (s sighting, ok bool) {
	for _, t := range txt {
		if id, found := strings.CutPrefix(t, "d="); found {
			dev, err := device.ParseID(id)
			if err != nil {
				return s, false
			}
			s.dev, ok = dev, true
		} else if a, found := strings.CutPrefix(t, "a="); found && len(s.addrs) < maxAddrs {
			s.addrs = append(s.addrs, a)
		}
	}
	return s, ok && len(s.addrs) > 0
}
