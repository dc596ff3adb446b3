# What the run.sh of the examples share: devices in temporary directories, checks
# and cleaning up. To be sourced by bash.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
roam=${ROAM:-$here/../bin/roam}
[[ -x $roam ]] || roam=$(command -v roam) || {
	echo "there is no roam: run \`make build\` first" >&2
	exit 1
}

play=$(mktemp -d "${TMPDIR:-/tmp}/roam-example-XXXXXX")
devices=()

# on DEVICE command…: runs roam as that device.
on() {
	local device=$1
	shift
	"$roam" --state "$play/$device" "$@"
}

# files DEVICE: where that device shows the files.
files() { echo "$play/$1-files"; }

# start DEVICE: runs the device with its mount, in the background.
start() { on "$1" mount --background "$(files "$1")"; }

# first DEVICE flags…: makes the first device of a hive.
first() {
	local device=$1
	shift
	devices+=("$device")
	on "$device" init --name "$device" "$@" >/dev/null
}

# join DEVICE FROM flags…: makes a device join, invited by another one. The code
# goes through a file and the standard input, so that no list of processes shows
# it.
join() {
	local device=$1 from=$2 invite
	shift 2
	devices+=("$device")
	on "$from" invite >"$play/code" 2>"$play/invite-talk" &
	invite=$!
	eventually test -s "$play/code"
	head -n 1 "$play/code" | on "$device" join - --name "$device" "$@" >/dev/null
	wait "$invite"
}

say() { echo "· $*"; }

# check TEXT command…: the command must succeed.
check() {
	local text=$1
	shift
	if "$@"; then
		echo "✓ $text"
	else
		echo "✗ $text: $* failed" >&2
		exit 1
	fi
}

# eventually command…: the command must succeed within half a minute.
eventually() {
	for _ in $(seq 300); do
		if "$@" >/dev/null 2>&1; then return 0; fi
		sleep 0.1
	done
	echo "did not happen in half a minute: $*" >&2
	return 1
}

# same FILE FILE: the files have the same content.
same() { cmp -s "$1" "$2"; }

# copied DEVICE: nothing waits to be copied to another device.
copied() { on "$1" status --json | grep -q '"waiting_to_copy":{"files":0,'; }

# prints DEVICE TEXT command…: roam as that device prints the text.
prints() {
	local device=$1 text=$2
	shift 2
	on "$device" "$@" | grep -qF -- "$text"
}

clean_up() {
	local code=$? device
	trap - EXIT
	for device in "${devices[@]}"; do
		if ((code)) && [[ -s $play/$device/log ]]; then
			echo "log of $device:" >&2
			tail -n 20 "$play/$device/log" >&2
		fi
		on "$device" stop >/dev/null 2>&1 || true # it may not be running
	done
	rm -rf --one-file-system "$play"
	exit "$code"
}
trap clean_up EXIT
