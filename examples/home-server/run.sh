#!/usr/bin/env bash
# Plays the example on this computer: see README.md.
source "$(dirname "${BASH_SOURCE[0]}")/../play.sh"

say "the server runs without a mount, as roam@.service runs it"
first nas --role archive
on nas serve --background 2>/dev/null
join laptop nas
start laptop 2>/dev/null
laptop=$(files laptop)
check "the laptop knows the server" eventually prints laptop nas devices

say "a folder is copied in on the laptop"
cp -r "$here" "$laptop/examples"
check "all of it is copied to the server" eventually copied laptop
check "the server lists it" eventually prints nas play.sh ls roam:/examples
check "whereis names both" eventually prints laptop "2 copies" whereis "$laptop/examples/play.sh"

say "the server is stopped by the service manager, and started again"
kill "$(cat "$play/nas/lock")"
# shellcheck disable=SC2016 # for the inner shell
check "it ends in order" eventually bash -c '! test -e "$0/api.sock" && test ! -s "$0/lock"' "$play/nas"
echo "written while the server was off" >"$laptop/later.txt"
on nas serve --background 2>/dev/null
check "the laptop finds it again, and the file is copied" eventually copied laptop
check "the server has it" eventually prints nas later.txt ls roam:/

say "a second process on the same device is refused"
if on nas serve 2>"$play/refusal"; then
	check "a second process is refused" false
fi
check "it names the first one" grep -q "process $(cat "$play/nas/lock")" "$play/refusal"
