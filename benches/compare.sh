#!/bin/bash
# Two days of one tree, pushed by sealift, restic, borg and tar|zstd|age: seconds, memory, bytes stored.
# usage: benches/compare.sh DAY0 DAY1     (directories; needs restic, borg, age, zstd, GNU time, a release build)
# Each tool sees the same path, whose content is replaced by the next day's. Caches are warm for all alike.
set -euo pipefail
day0=$(realpath "$1") day1=$(realpath "$2")
sealift=$(realpath "$(dirname "$0")/../target/release/sealift")
work=$(mktemp -d -p "${TMPDIR:-/tmp}" sealift-bench-XXXXXX)
trap 'rm -rf "$work"' EXIT
cd "$work"
export HOME=$work RESTIC_PASSWORD=x BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK=yes BORG_PASSPHRASE=x
live=$work/live
bytes() { find "$1" -type f -printf '%s\n' | awk '{ n += $1 } END { printf "%d", n }'; }

fill() { # the live tree becomes a copy of $1, inodes and all, as a day's work leaves it
    mkdir -p "$live"
    rsync -a --inplace --no-whole-file --delete "$1/" "$live/"
    sync
    sleep 3 # beyond the window in which a timestamp could hide a change
}

run() { # name, repository, command…: prints name, seconds, memory, bytes added
    local name=$1 repository=$2 before=0 after
    shift 2
    [ ! -e "$repository" ] || before=$(bytes "$repository")
    if ! /usr/bin/time -o time.txt -f '%e %M %U %S' "$@" >out.txt 2>&1; then cat out.txt >&2; exit 1; fi
    after=$(bytes "$repository")
    read -r seconds kilobytes user system <time.txt
    cpu=$(echo "$user $system" | awk '{ printf "%.1f", $1 + $2 }')
    printf '%-26s %7s s %7s CPU s %5d MB %12d bytes\n' "$name" "$seconds" "$cpu" $((kilobytes / 1024)) $((after - before))
}

"$sealift" key generate --output key.txt >recipient 2>/dev/null
mkdir -p "$live"
"$sealift" --config s.toml init --host bench --recipient "$(cat recipient)" --target "$work/sealift" --tree "$live" >/dev/null 2>&1
restic init -q -r "$work/restic"
borg init --encryption=repokey-blake2 "$work/borg" 2>/dev/null

for step in day0 unchanged day1; do
    [ $step = unchanged ] || fill "${!step}"
    run "sealift, $step" sealift "$sealift" --quiet --config s.toml backup
    run "restic, $step" restic restic -q -r restic backup "$live"
    run "borg, $step" borg borg create --compression zstd,3 "borg::$step" "$live"
    if [ $step != unchanged ]; then
        run "tar|zstd|age, $step" "tar-$step" bash -c "tar c -C '$live' . | zstd -3 -T0 | age -r '$(cat recipient)' >tar-$step"
    fi
done
run "sealift, restore of day1" out-s "$sealift" --quiet restore latest --from sealift --identity key.txt --accept-signer --to out-s
run "restic, restore of day1" out-r restic -q -r restic restore latest --target out-r
mkdir out-b
run "borg, restore of day1" out-b bash -c "cd out-b && borg extract ../borg::day1"
diff -r --no-dereference "$live" "out-s/live" && echo "restored by sealift: identical"
