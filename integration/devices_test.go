package integration

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestDevicesChange gives a device another name and another role from a second
// one. Both see it, also after a restart, and conflict copies keep the old name.
func TestDevicesChange(t *testing.T) {
	nas, laptop := pair(t)
	called := func(d *device, name, role string) {
		t.Helper()
		eventually(t, time.Minute, d.Name+" sees "+name, func() error {
			out, err := d.Run(t.Context(), "devices", "--json")
			if err == nil && !strings.Contains(out, fmt.Sprintf(`"name":%q,"role":%q`, name, role)) {
				err = fmt.Errorf("it sees\n%s", out)
			}
			return err
		})
	}
	if out, code := nas.try("devices", "rename", "laptop", "Notebook"); code != 0 {
		t.Fatalf("rename, code %d: %s", code, out)
	}
	if out, code := nas.try("devices", "rename", "notebook", "nas"); code != 2 {
		t.Fatalf("rename to a taken name, code %d: %s", code, out)
	}
	called(nas, "notebook", "cache")
	called(laptop, "notebook", "cache")
	if out, code := laptop.try("devices", "role", "notebook", "archive"); code != 0 {
		t.Fatalf("role, code %d: %s", code, out)
	}
	called(nas, "notebook", "archive")
	laptop.down()
	laptop.up()
	called(laptop, "notebook", "archive")
	connected(nas, laptop)
	if out, err := laptop.Run(t.Context(), "status"); err != nil || !strings.Contains(out, "notebook (archive)") {
		t.Errorf("status: %v\n%s", err, out)
	}
	sameRoot(nas, laptop)
}
