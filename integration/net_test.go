package integration

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// lan is a bridge with network namespaces around it, whose links can be cut.
type lan struct {
	t      *testing.T
	bridge string
	hosts  int
	spaces []string
}

// newLAN makes a bridge of its own. Its addresses are 10.x.y.0/24 inside the
// namespaces; nothing leads out of them.
func newLAN(t *testing.T) *lan {
	t.Helper()
	needNetns(t)
	l := &lan{t: t, bridge: fmt.Sprintf("rb%d", os.Getpid()%100000)}
	// The bridge has a namespace too, so that nothing of the test's own network changes.
	t.Cleanup(func() { // after the devices in it, which are made later, have ended
		for _, ns := range l.spaces {
			l.ip("netns", "del", ns)
		}
	})
	l.space(l.bridge)
	l.ip("-n", l.bridge, "link", "add", "br0", "type", "bridge")
	l.ip("-n", l.bridge, "link", "set", "br0", "up")
	return l
}

func (l *lan) space(name string) {
	l.t.Helper()
	l.ip("netns", "add", name)
	l.spaces = append(l.spaces, name)
}

func (l *lan) ip(args ...string) {
	l.t.Helper()
	out, err := exec.CommandContext(context.Background(), "ip", args...).CombinedOutput()
	if err != nil {
		l.t.Fatalf("ip %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// host puts the device into a namespace with a link to the bridge.
func (l *lan) host(d *device) {
	l.t.Helper()
	l.hosts++
	d.Netns = fmt.Sprintf("%sh%d", l.bridge, l.hosts)
	l.space(d.Netns)
	port := l.port(d)
	l.ip("-n", l.bridge, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", d.Netns)
	l.ip("-n", l.bridge, "link", "set", port, "master", "br0", "up")
	l.ip("-n", d.Netns, "link", "set", "lo", "up")
	l.ip("-n", d.Netns, "addr", "add", fmt.Sprintf("10.77.1.%d/24", l.hosts), "dev", "eth0")
	l.ip("-n", d.Netns, "link", "set", "eth0", "up")
	l.ip("-n", d.Netns, "route", "add", "224.0.0.0/4", "dev", "eth0")
}

func (l *lan) port(d *device) string { return "p" + strings.TrimPrefix(d.Netns, l.bridge) }

// cut takes the device off the network without its noticing.
func (l *lan) cut(d *device) {
	l.t.Helper()
	l.ip("-n", l.bridge, "link", "set", l.port(d), "nomaster", "down")
}

// heal puts the device back.
func (l *lan) heal(d *device) {
	l.t.Helper()
	l.ip("-n", l.bridge, "link", "set", l.port(d), "master", "br0", "up")
}

// readdress gives the device another address, as a new network would.
func (l *lan) readdress(d *device) {
	l.t.Helper()
	l.hosts++
	l.ip("-n", d.Netns, "addr", "flush", "dev", "eth0")
	l.ip("-n", d.Netns, "addr", "add", fmt.Sprintf("10.77.1.%d/24", 100+l.hosts), "dev", "eth0")
	l.ip("-n", d.Netns, "route", "replace", "224.0.0.0/4", "dev", "eth0")
}
