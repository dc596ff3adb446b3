package app

import (
	"os"
	"strings"

	"github.com/roamfs/roamfs/peer/device"
)

// chooseName returns the name for a new device: the flag, else the one of the
// configuration, else one made from the host name.
func chooseName(flag, configured string) (string, error) {
	if flag != "" {
		name := strings.ToLower(flag)
		if err := device.CheckLabel(name); err != nil {
			return "", usage("--name: %w", err)
		}
		return name, nil
	}
	if configured != "" {
		return configured, nil
	}
	host, err := os.Hostname()
	if err != nil {
		host = ""
	}
	return device.CleanLabel(host), nil
}

// checkRole returns an error unless role names a role that a device can have, or
// is empty and may be.
func checkRole(role string, mayBeEmpty bool) error {
	if role == RoleCache || role == RoleArchive || role == "" && mayBeEmpty {
		return nil
	}
	return usage("--role %q: a device is a %s (bounded) or an %s (keeps everything)", clip(role), RoleCache, RoleArchive)
}
