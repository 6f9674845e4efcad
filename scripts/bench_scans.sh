#!/usr/bin/env bash
# Measures what large reads do to those who write beside them: puts at a steady rate, first alone,
# then while many clients read all keys at once, each as `kvcli scan --all` does. In both cases it
# tells the longest gap between two puts, and how many terms have begun meanwhile: none should.
#
# usage: scripts/bench_scans.sh [--keys N] [--scans N] [--rate R] [--seconds S]
#
#   --keys N       how many keys there are (1000000)
#   --scans N      how many clients read all of them (40)
#   --rate R       puts a second, from 4 clients (500)
#   --seconds S    how long the puts go on, and the scans with them (20)
#   --ports BASE   where to look for free ports (7301)
#
# Those who scan run at the lowest priority: on one machine with the nodes they would take their
# processors, and it would be measured how the system shares these. Keys have 16 bytes, values 128.
# RAFTKV_BIN_DIR names a folder with the kvnode and kvcli to measure: with two of them in turn, two
# versions are compared. It needs nothing else to run on the machine meanwhile. What it starts it
# ends, also on Ctrl-C.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=scripts/bench/systems.sh
source "$ROOT/scripts/bench/systems.sh"

WANTED_PORT=7301
COUNT=1000000
SCANS=40
RATE=500
SECONDS_EACH=20
WORK=

parse_options() {
    while (($# > 0)); do
        case $1 in
        --keys) need_value "$1" $# && COUNT=$2 && shift 2 ;;
        --scans) need_value "$1" $# && SCANS=$2 && shift 2 ;;
        --rate) need_value "$1" $# && RATE=$2 && shift 2 ;;
        --seconds) need_value "$1" $# && SECONDS_EACH=$2 && shift 2 ;;
        --ports) need_value "$1" $# && WANTED_PORT=$2 && shift 2 ;;
        -h | --help) print_help && exit 0 ;;
        *) die 2 "there is no option $1; see --help" ;;
        esac
    done
    need_number --keys "$COUNT" 1 100000000
    need_number --scans "$SCANS" 1 1000
    need_number --rate "$RATE" 1 1000000
    need_number --seconds "$SECONDS_EACH" 2 3600
    need_number --ports "$WANTED_PORT" 1 60000
}

highest_term() {
    "$KVCLI" --cluster "$ADDRESSES" -o json status | grep -o '"term": *[0-9]*' |
        grep -o '[0-9]*$' | sort -n | tail -n 1
}

row() { # NAME
    local before after line name
    before=$(highest_term)
    line=$(load_ours put 4 4 "$SECONDS_EACH" --rate "$RATE")
    after=$(highest_term)
    printf '| %s |' "$1"
    for name in throughput p50_us p99_us p99.9_us max_us gap_ms failures; do
        printf ' %s |' "$(field "$name" "$line")"
    done
    printf ' %s |\n' "$((after - before))"
}

main() {
    local number scanners=()
    parse_options "$@"
    find_binaries
    mkdir -p "$ROOT/data"
    WORK=$(mktemp -d "$ROOT/data/bench.XXXXXX")
    clean_up_at_the_end
    start_ours 3
    say "putting $COUNT keys"
    fill_ours "$COUNT"
    printf '| load | puts/s | p50 us | p99 us | p99.9 us | max us | longest gap ms | failures | '
    printf 'new terms |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- |\n'
    row "puts alone"
    for ((number = 1; number <= SCANS; number++)); do
        nice -n 19 "$KVCLI" --cluster "$ADDRESSES" --timeout 60s -o raw \
            < <(yes 'scan --all') >/dev/null 2>&1 &
        scanners+=("$!")
        OWN+=("$!")
    done
    row "beside $SCANS scans"
    end_own "${scanners[@]}"
    stop_ours
}

main "$@"
