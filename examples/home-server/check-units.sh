#!/usr/bin/env bash
# Has systemd check the units, with the program where it lies on this computer.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
roam=$(realpath "${ROAM:-../../bin/roam}")
units=$(mktemp -d)
trap 'rm -rf "$units"' EXIT

# place UNIT FILE: installs a unit with the path of the program in it.
place() {
	install -D -m 644 "$1" "$units/$2"
	sed -i "s|/usr/local/bin/roam|$roam|" "$units/$2"
}

# verify UNIT options…: nothing that systemd says may be about the unit; it also
# looks at what else is installed, which is none of our business.
verify() {
	local said
	said=$(XDG_RUNTIME_DIR=${XDG_RUNTIME_DIR:-$units} systemd-analyze "${@:2}" verify "$1" 2>&1) || {
		echo "$said" >&2
		exit 1
	}
	if grep -F "$units" <<<"$said" >&2; then exit 1; fi
}

user=$(id -un)
place roam.service user/roam.service
verify "$units/user/roam.service" --user
place roam@.service "plain/roam@$user.service"
verify "$units/plain/roam@$user.service"
place roam@.service "mount/roam@$user.service"
place roam@.service.d/mount.conf "mount/roam@$user.service.d/mount.conf"
verify "$units/mount/roam@$user.service"
echo "the units are valid"
