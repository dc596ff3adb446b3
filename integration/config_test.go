package integration

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/roamfs/roamfs/integration/cli"
)

// configure writes the config.toml of a device, as its owner does.
func (d *device) configure(text string) {
	d.t.Helper()
	write(d.t, filepath.Join(d.State, "config.toml"), []byte(text))
}

// limited waits until the device says that it has the limit.
func (d *device) limited(limit int64) {
	d.t.Helper()
	eventually(d.t, time.Minute, fmt.Sprintf("the limit of %s is %d", d.Name, limit), func() error {
		if got := d.status().Cache.Limit; got != limit {
			return fmt.Errorf("it is %d", got)
		}
		return nil
	})
}

// TestLimitChanges edits the limit of a running device that began with the
// default: a smaller one is kept at once, a mistake changes nothing, a larger one
// is used.
func TestLimitChanges(t *testing.T) {
	const small, large = 64 << 20, 512 << 20
	nas, laptop := pair(t)
	watch := func(name string, film []byte) {
		t.Helper()
		write(t, filepath.Join(nas.Mount, name), film)
		laptop.reads(name, film)
	}
	use := func() int64 {
		t.Helper()
		n, err := cli.DiskUse(laptop.State)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	hasRoom := func() {
		t.Helper()
		eventually(t, time.Minute, "the film stays on the laptop, which has room", func() error {
			if n := use(); n < 2*small {
				return fmt.Errorf("only %d bytes are there", n)
			}
			return nil
		})
	}
	watch("first", noise(11, 2*small))
	hasRoom()

	laptop.configure(`cache_size = "64MiB"`)
	laptop.limited(small)
	eventually(t, time.Minute, "the laptop is under its new limit", func() error {
		if n, s := use(), laptop.status(); n > small || s.Cache.Used > small {
			return fmt.Errorf("%d bytes of disk, %d by its status", n, s.Cache.Used)
		}
		return nil
	})
	stop := watchUse(t, laptop, small)
	watch("second", noise(12, 2*small))
	stop()

	laptop.configure("mdns = true\ncache_size = \"lots\"\n")
	eventually(t, time.Minute, "the mistake is logged", func() error {
		if !strings.Contains(laptop.logged(), `line 2: cache_size: \"lots\" is not a size`) {
			return errors.New(laptop.logged())
		}
		return nil
	})
	laptop.limited(small)

	laptop.configure(`cache_size = "512MiB"`)
	laptop.limited(large)
	watch("third", noise(13, 2*small))
	hasRoom()
}
