package app

import (
	"strings"
	"testing"
	"time"
)

func TestParseConfig(t *testing.T) {
	c, err := ParseConfig(nil)
	if err != nil || !c.MDNS || c.Limit(RoleCache) != 20<<30 || c.Limit(RoleArchive) != 0 || c.Timeout() != 10*time.Second {
		t.Errorf("an empty file means %+v, %v", c, err)
	}
	c, err = ParseConfig([]byte(`
name = "laptop"
cache_size = "64MiB"
listen = ["/ip4/127.0.0.1/tcp/0", "/ip6/::1/udp/4001/quic-v1"]
mdns = false
read_timeout = "1m30s"
`))
	if err != nil {
		t.Fatal(err)
	}
	if c.Name != "laptop" || c.Limit(RoleCache) != 64<<20 || c.Limit(RoleArchive) != 64<<20 || len(c.Listen) != 2 || c.MDNS || c.Timeout() != 90*time.Second {
		t.Errorf("got %+v", c)
	}
}

func TestParseConfigMistakes(t *testing.T) {
	for _, test := range []struct{ name, text, want string }{
		{"unknown key", "mdns = true\nmnds = true\n", `line 2: unknown key "mnds"`},
		{"unknown table", "mdns = true\n\n[net.tcp]\nport = 1\n", `line 3: unknown key "net.tcp`},
		{"unknown inline table", "mdns = true\nnet = {port = 1}\n", `line 2: unknown key "net`},
		{"twice", "mdns = true\nmdns = false\n", "line 2: "},
		{"syntax", "\n\nmdns = yes\n", "line 3: "},
		{"type", "mdns = 3\n", "mdns"},
		{"list", "listen = \"/ip4/0.0.0.0/tcp/1\"\n", "listen"},
		{"size", "\ncache_size = \"much\"\n", `line 2: cache_size: "much" is not a size`},
		{"small size", "\n\ncache_size = \"1MiB\"\n", "line 3: cache_size: 1MiB is less than the least size 16MiB"},
		{"negative size", "cache_size = -5\n", "is not a size"},
		{"time", "read_timeout = \"soon\"\n", "line 1: read_timeout: \"soon\" is not a duration"},
		{"long time", "read_timeout = \"1000h\"\n", "line 1: read_timeout: 1000h0m0s is not between"},
		{"address", "listen = [\"localhost\"]\n", "line 1: listen: \"localhost\" is not a multiaddress"},
		{"addresses", "listen = [" + strings.Repeat(`"/ip4/0.0.0.0/tcp/1",`, 17) + "]\n", "17 addresses"},
		{"name", "name = \"My Laptop\"\n", "line 1: name: "},
		{"long", strings.Repeat("# long\n", 10000), "longer than"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := ParseConfig([]byte(test.text))
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got error %v, want one with %q", err, test.want)
			}
		})
	}
}

// TestConfigText checks that what init writes means what was chosen, with every
// line that is commented out showing a value that is valid.
func TestConfigText(t *testing.T) {
	for _, c := range []Config{
		DefaultConfig(),
		{CacheSize: 64 << 20, Listen: []string{"/ip4/127.0.0.1/tcp/4001"}, ReadTimeout: Duration(time.Second), MassChange: 25},
		{}, // nothing is held back
	} {
		text := string(configText(c))
		got, err := ParseConfig([]byte(text))
		if err != nil || got.CacheSize != c.CacheSize || got.MDNS != c.MDNS || got.ReadTimeout != c.ReadTimeout || got.MassChange != c.MassChange || len(got.Listen) != len(c.Listen) {
			t.Errorf("%+v reads as %+v, %v, from\n%s", c, got, err, text)
		}
		for _, key := range []string{"cache_size", "listen", "mdns", "read_timeout", "mass_change_percent"} {
			text = strings.Replace(text, "# "+key+" =", key+" =", 1)
		}
		if _, err := ParseConfig([]byte(text)); err != nil {
			t.Errorf("with all lines in force: %v in\n%s", err, text)
		}
	}
}

func FuzzParseConfig(f *testing.F) {
	f.Add(configText(DefaultConfig()))
	f.Add([]byte("[a.b]\nc = 1"))
	f.Add([]byte("listen = [\"/ip4/0.0.0.0/tcp/1\"]\nread_timeout = \"1s\"\ncache_size = 20000000"))
	f.Add([]byte("a.\"b\nc\" = {d = [1, 2]}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := ParseConfig(data)
		if err != nil {
			if len(err.Error()) > 1000 {
				t.Fatalf("a message of %d bytes", len(err.Error()))
			}
			return
		}
		if key, err := c.check(); err != nil {
			t.Fatalf("accepted a bad %s: %v", key, err)
		}
	})
}
