#!/usr/bin/env bash
# Plays the example on this computer: see README.md.
source "$(dirname "${BASH_SOURCE[0]}")/../play.sh"

limit=$((64 * 1024 * 1024))
# within_limit: the state directory of the laptop takes no more than its limit.
within_limit() { (($(du -s -B1 "$play/laptop" | cut -f1) <= limit)); }

say "a computer with a large disk keeps everything, a laptop 64 MiB"
first attic --role archive
start attic
join laptop attic --cache-size 64MiB
start laptop
attic=$(files attic) laptop=$(files laptop)

say "40 photos of 3 MB are copied in, 120 MB in all"
mkdir -p "$play/camera" "$attic/photos"
for n in $(seq -w 40); do
	head -c 3000000 /dev/urandom >"$play/camera/img_$n.jpg" # as hard to compress as a JPEG
done
cp "$play/camera/"*.jpg "$attic/photos/"
# shellcheck disable=SC2016 # for the inner shell
check "the laptop lists all of them" eventually bash -c '(( $(ls "$0/photos" | wc -l) == 40 ))' "$laptop"
check "with their sizes" eventually bash -c '[[ $(stat -c %s "$0/photos/img_40.jpg") == 3000000 ]]' "$laptop"
check "and says that they are elsewhere" eventually prints laptop elsewhere ls roam:/photos

say "one photo is looked at, then all of them"
check "it is fetched and is the same" same "$play/camera/img_07.jpg" "$laptop/photos/img_07.jpg"
check "whereis names both devices" eventually prints laptop "2 copies (attic, laptop)" whereis "$laptop/photos/img_07.jpg"
for photo in "$play/camera/"*.jpg; do
	same "$photo" "$laptop/photos/${photo##*/}" || check "every photo is the same" false
	within_limit || check "the laptop keeps to its 64 MiB" false
done
check "every photo is the same, and the laptop kept to its 64 MiB" within_limit

say "a photo is taken on the laptop, which is then lost"
head -c 3000000 /dev/urandom >"$play/new.jpg"
cp "$play/new.jpg" "$laptop/photos/new.jpg"
check "the new photo is copied away" eventually copied laptop
on laptop stop 2>/dev/null
rm -rf "$play/laptop"
check "it is in the attic" same "$play/new.jpg" "$attic/photos/new.jpg"
