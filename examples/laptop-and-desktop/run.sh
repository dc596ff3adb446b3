#!/usr/bin/env bash
# Plays the example on this computer: see README.md.
source "$(dirname "${BASH_SOURCE[0]}")/../play.sh"

say "the desktop is the first device; the laptop joins"
first desktop
start desktop
join laptop desktop
start laptop
desktop=$(files desktop) laptop=$(files laptop)

say "a letter is written on the laptop"
mkdir "$laptop/letters"
echo "Dear Ada," >"$laptop/letters/ada.txt"
check "the letter is on the desktop" eventually same "$laptop/letters/ada.txt" "$desktop/letters/ada.txt"

say "it is continued on the desktop, and renamed"
echo "thank you for the notes." >>"$desktop/letters/ada.txt"
mv "$desktop/letters/ada.txt" "$desktop/letters/to ada.txt"
check "the laptop sees the new name and text" eventually grep -q "thank you" "$laptop/letters/to ada.txt"
check "and no longer the old name" test ! -e "$laptop/letters/ada.txt"

say "the desktop is switched off; the laptop goes on"
eventually copied desktop
on desktop stop 2>/dev/null
check "the letter still opens on the laptop" grep -q "Dear Ada" "$laptop/letters/to ada.txt"
echo "Sent from the train: the desktop is off, and the letter is here all the same." >>"$laptop/letters/to ada.txt"
check "status says that the laptop is not safe to shut down" eventually prints laptop '"safe_to_stop":false' status --json

say "the desktop is switched on again"
start desktop 2>/dev/null
check "it catches up by itself" eventually grep -q "from the train" "$desktop/letters/to ada.txt"
check "and the laptop is safe to shut down" eventually prints laptop '"safe_to_stop":true' status --json
