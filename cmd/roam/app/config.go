package app

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/BurntSushi/toml"
	"github.com/multiformats/go-multiaddr"

	"github.com/roamfs/roamfs/peer/device"
	"github.com/roamfs/roamfs/sync/guard"
)

// Config is the content of config.toml: what the owner may decide about this
// one device. A key that is absent has the value that [DefaultConfig] gives it;
// a key that is not listed here is an error. It is read when the device starts;
// a change of CacheSize is applied while it runs, too (see [daemon.followConfig]).
type Config struct {
	// Name is what this device asks to be called when it is made or joins: 1 to
	// 32 of a-z, 0-9 and '-'. Empty: the host name. It has no effect later,
	// since the hive then knows the device by the name it got.
	Name string `toml:"name"`

	// CacheSize bounds the disk space of the whole state directory, in bytes; at
	// least MinCacheSize. 0: DefaultCacheSize for a device of role cache,
	// no bound for an archive. A running device takes a new value within
	// seconds: it gives back what is over a smaller one, or keeps the old one and
	// says so as long as what only it holds needs the room.
	CacheSize Size `toml:"cache_size"`

	// Listen are the multiaddresses at which other devices can reach this one, at
	// most 16. Empty: all interfaces over TCP and QUIC, on ports that the system
	// chooses.
	Listen []string `toml:"listen"`

	// MDNS tells whether devices on the same LAN are found by multicast.
	// Absent: true.
	MDNS bool `toml:"mdns"`

	// ReadTimeout is how long a read waits for bytes that are not here before
	// it fails; 100 ms to 10 minutes. 0: 10 seconds.
	ReadTimeout Duration `toml:"read_timeout"`

	// MassChange is how many percent of the files another device may remove within an
	// hour, or twice as many rewrite, before that is held back until roam accept; 0 to
	// 100. It takes more than 1,000 files in any case. 0: nothing is held back. Absent: 10.
	MassChange int `toml:"mass_change_percent"`
}

// Bounds and defaults of [Config].
const (
	MinCacheSize       Size = 16 << 20
	DefaultCacheSize   Size = 20 << 30
	DefaultReadTimeout      = 10 * time.Second

	maxConfigSize = 64 << 10 // bytes of config.toml
	maxListen     = 16
	minReadTime   = 100 * time.Millisecond
	maxReadTime   = 10 * time.Minute
)

// Duration is a [time.Duration] that is written as "10s" or "1m30s".
type Duration time.Duration

// UnmarshalText reads a duration as [time.ParseDuration] does.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil {
		return fmt.Errorf("%q is not a duration; write it like 10s or 1m30s", clip(string(text)))
	}
	*d = Duration(v)
	return nil
}

// MarshalText is the inverse of UnmarshalText.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// DefaultConfig returns what an empty config.toml means.
func DefaultConfig() Config {
	return Config{MDNS: true, MassChange: guard.Share}
}

// Limit returns the bound of the state directory in bytes for a device of the
// given role, 0 if it has none.
func (c Config) Limit(role string) int64 {
	switch {
	case c.CacheSize != 0:
		return int64(c.CacheSize)
	case role == RoleArchive:
		return 0
	}
	return int64(DefaultCacheSize)
}

// Timeout returns how long a read may wait for bytes that are not here.
func (c Config) Timeout() time.Duration {
	if c.ReadTimeout == 0 {
		return DefaultReadTimeout
	}
	return time.Duration(c.ReadTimeout)
}

// ParseConfig reads and checks the content of a config.toml. Its errors name
// the line where that is known.
func ParseConfig(data []byte) (Config, error) {
	c := DefaultConfig()
	if len(data) > maxConfigSize {
		return Config{}, fmt.Errorf("longer than %d bytes", maxConfigSize)
	}
	meta, err := toml.NewDecoder(bytes.NewReader(data)).Decode(&c)
	if err != nil {
		if p, ok := errors.AsType[toml.ParseError](err); ok {
			return Config{}, fmt.Errorf("line %d: %s", p.Position.Line, parseMessage(p))
		}
		return Config{}, errors.New(clip(strings.TrimPrefix(err.Error(), "toml: ")))
	}
	if unknown := meta.Undecoded(); len(unknown) > 0 {
		key := unknown[0]
		return Config{}, fmt.Errorf("line %d: unknown key %q", keyLine(data, key), clip(key.String()))
	}
	if key, err := c.check(); err != nil {
		return Config{}, fmt.Errorf("line %d: %s: %w", keyLine(data, toml.Key{key}), key, err)
	}
	return c, nil
}

// parseMessage returns what is wrong without the prefix and the line, which the
// caller adds in its own way.
func parseMessage(p toml.ParseError) string {
	text := p.Message
	if text == "" {
		text = p.Error()
		if _, rest, ok := strings.Cut(text, "): "); ok {
			text = rest
		}
	}
	if p.LastKey != "" {
		return clip(p.LastKey) + ": " + text
	}
	return text
}

// check returns the first key whose value is out of bounds, and why.
func (c Config) check() (key string, err error) {
	if c.Name != "" {
		if err := device.CheckLabel(c.Name); err != nil {
			return "name", err
		}
	}
	if c.CacheSize != 0 && c.CacheSize < MinCacheSize {
		return "cache_size", fmt.Errorf("%v is less than the least size %v", c.CacheSize, MinCacheSize)
	}
	if len(c.Listen) > maxListen {
		return "listen", fmt.Errorf("%d addresses, at most %d", len(c.Listen), maxListen)
	}
	for _, a := range c.Listen {
		if _, err := multiaddr.NewMultiaddr(a); err != nil {
			return "listen", fmt.Errorf("%q is not a multiaddress such as /ip4/0.0.0.0/tcp/4001", clip(a))
		}
	}
	if t := time.Duration(c.ReadTimeout); t != 0 && (t < minReadTime || t > maxReadTime) {
		return "read_timeout", fmt.Errorf("%v is not between %v and %v", t, minReadTime, maxReadTime)
	}
	if c.MassChange < 0 || c.MassChange > 100 {
		return "mass_change_percent", fmt.Errorf("%d is not between 0 and 100", c.MassChange)
	}
	return "", nil
}

// keyLine finds the line on which a key is set, 1 if it cannot tell. The TOML
// library knows the position of a mistake in the syntax but not of a key.
func keyLine(data []byte, key toml.Key) int {
	table, last := strings.Join(key[:len(key)-1], "."), key[len(key)-1]
	at, current := 1, ""
	for i, line := range strings.Split(string(data), "\n") {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "[") {
			name, _, _ := strings.Cut(strings.Trim(line, "["), "]")
			current = strings.TrimSpace(name)
			if current == key.String() {
				return i + 1
			}
			continue
		}
		name, _, found := strings.Cut(line, "=")
		name = strings.Trim(strings.TrimSpace(name), `"'`)
		if !found {
			continue
		}
		if current == table && name == last || current == "" && name == key.String() {
			return i + 1
		}
		if current == "" && table != "" && name == key[0] {
			at = i + 1 // an inline table
		}
	}
	return at
}

// readConfig reads config.toml of a state directory. A missing file is an empty
// one.
func readConfig(path string) (Config, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return DefaultConfig(), nil
	}
	if err != nil {
		return Config{}, err
	}
	defer discard(f)
	data, err := io.ReadAll(io.LimitReader(f, maxConfigSize+1))
	if err != nil {
		return Config{}, fmt.Errorf("read %s: %w", path, err)
	}
	c, err := ParseConfig(data)
	if err != nil {
		return Config{}, failure(CodeFailed, "correct the line, or remove it to have the default", "%s: %w", path, err)
	}
	return c, nil
}

// configText returns the config.toml that init and join write: every key with
// its meaning, the ones that were chosen in force, the others commented out.
func configText(c Config) []byte {
	b := bytes.NewBufferString("# Settings of this device. They are read when it starts; a new cache_size\n# counts within seconds of saving this file.\n")
	entry := func(comment, key string, chosen bool, value string) {
		fmt.Fprintf(b, "\n# %s\n", strings.ReplaceAll(comment, "\n", "\n# "))
		if !chosen {
			b.WriteString("# ")
		}
		fmt.Fprintf(b, "%s = %s\n", key, value)
	}
	size, listen, wait := c.CacheSize, c.Listen, c.Timeout()
	if size == 0 {
		size = DefaultCacheSize
	}
	if len(listen) == 0 {
		listen = []string{"/ip4/0.0.0.0/tcp/4001", "/ip4/0.0.0.0/udp/4001/quic-v1"}
	}
	entry("The disk space that this whole directory may take. An archive has no\nbound unless one is set here.",
		"cache_size", c.CacheSize != 0, fmt.Sprintf("%q", size))
	entry("Where other devices can reach this one. Without it: every interface, over\nTCP and QUIC, on free ports.",
		"listen", len(c.Listen) > 0, `["`+strings.Join(listen, `", "`)+`"]`)
	entry("Whether devices on the same network find each other by multicast.",
		"mdns", !c.MDNS, fmt.Sprint(c.MDNS))
	entry("How long a read waits for bytes that only another device has.",
		"read_timeout", c.ReadTimeout != 0, fmt.Sprintf("%q", wait))
	entry("How much of the tree another device may remove within an hour, in percent\n(or rewrite, twice as much), before `roam accept` is asked for. 0: all.",
		"mass_change_percent", c.MassChange != guard.Share, fmt.Sprint(c.MassChange))
	return b.Bytes()
}
