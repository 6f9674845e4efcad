#!/usr/bin/env bash
# Measures the store beside etcd and Redis, as far as they are installed, and says which bars it
# meets.
#
# usage: scripts/bench.sh [--quick] [--only ROW,...] [--seconds S] [--rounds N] [--out FILE]
#
#   --quick       about four minutes: one short round, 100,000 keys for a million, no tables
#   --only ROWS   only these rows: floor, put1, put64, put256, put256x8, get1, get64, get256, half
#                 (with put64), mixed, kill, term, restart, idle, sizes, clients, nodes, keys,
#                 degraded
#   --seconds S   how long each load lasts (10)
#   --rounds N    of how many rounds the median counts (3)
#   --kills N     how often a leader is killed or stopped (9)
#   --systems L   which systems: ours,etcd,redis (those that are installed)
#   --huge        with ten million keys, too
#   --run-in S    how long each system is loaded before its figures count (8)
#   --ports BASE  where to look for free ports (7201)
#   --out FILE    where to write the results (bench/RESULTS.md; with --quick or --only, nowhere)
#
# All systems start afresh in each round and take turns. They are run in first: a log that has been
# cut for the first time uses its files again, from then on. It needs nothing else to run on the
# machine meanwhile, which it cannot check. What it starts it ends, also on Ctrl-C.
#
# etcd is loaded over gRPC by bench/etcd-load, as Debian has no tool for it; to find etcd's leader
# it needs curl. A follower with a slow disk needs strace.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=scripts/bench/systems.sh
source "$ROOT/scripts/bench/systems.sh"
# shellcheck source=scripts/bench/rows.sh
source "$ROOT/scripts/bench/rows.sh"
# shellcheck source=scripts/bench/results.sh
source "$ROOT/scripts/bench/results.sh"

SECONDS_EACH=10
RUN_IN=8
ROUNDS=3
KILLS=9
MANY_KEYS=1000000
WANTED_PORT=7201
ONLY=
OUT=
HUGE=
WORK=
SYSTEMS=()
ETCD_PIDS=()
ALL_ROWS=' floor put1 put64 put256 put256x8 get1 get64 get256 half mixed kill term restart idle '
ALL_ROWS+='sizes clients nodes keys degraded '
QUICK_ROWS='floor,put1,put64,put256x8,get1,get64,half,mixed,kill,term,restart,idle,degraded'

parse_options() {
    local out=$ROOT/bench/RESULTS.md row
    while (($# > 0)); do
        case $1 in
        --quick) SECONDS_EACH=2 RUN_IN=2 ROUNDS=1 KILLS=2 MANY_KEYS=100000 out= && shift ;;
        --only) need_value "$1" $# && ONLY=$2 && out= && shift 2 ;;
        --seconds) need_value "$1" $# && SECONDS_EACH=$2 && shift 2 ;;
        --run-in) need_value "$1" $# && RUN_IN=$2 && shift 2 ;;
        --rounds) need_value "$1" $# && ROUNDS=$2 && shift 2 ;;
        --kills) need_value "$1" $# && KILLS=$2 && shift 2 ;;
        --systems) need_value "$1" $# && IFS=, read -r -a SYSTEMS <<<"$2" && shift 2 ;;
        --huge) HUGE=1 && shift ;;
        --ports) need_value "$1" $# && WANTED_PORT=$2 && shift 2 ;;
        --out) need_value "$1" $# && OUT=$2 && shift 2 ;;
        -h | --help) print_help && exit 0 ;;
        *) die 2 "there is no option $1; see --help" ;;
        esac
    done
    need_number --seconds "$SECONDS_EACH" 1 3600
    need_number --run-in "$RUN_IN" 1 3600
    need_number --rounds "$ROUNDS" 1 99
    need_number --kills "$KILLS" 1 99
    need_number --ports "$WANTED_PORT" 1 60000
    for row in ${ONLY//,/ }; do
        [[ $ALL_ROWS == *" $row "* ]] || die 2 "there is no row $row; see --help"
    done
    if [[ -z $ONLY && -z $out ]]; then ONLY=$QUICK_ROWS; fi
    OUT=${OUT:-$out}
}

uses() { # SYSTEM
    [[ " ${SYSTEMS[*]} " == *" $1 "* ]]
}

is_installed() { # SYSTEM
    case $1 in
    ours) true ;;
    etcd) command -v etcd >/dev/null && command -v curl >/dev/null ;;
    redis) command -v redis-server >/dev/null && command -v redis-benchmark >/dev/null ;;
    *) die 2 "there is no system $1: ours, etcd and redis can be measured" ;;
    esac
}

choose_systems() {
    local system wanted=("${SYSTEMS[@]}")
    if ((${#wanted[@]} == 0)); then wanted=(ours etcd redis); fi
    SYSTEMS=()
    for system in "${wanted[@]}"; do
        if is_installed "$system"; then
            SYSTEMS+=("$system")
        else
            say "$system is not installed and is left out"
        fi
    done
    uses ours || die 2 "without ours there is nothing to compare"
}

# What this machine allows at the best.
floor_row() {
    local round words port
    for ((round = 1; round <= ROUNDS; round++)); do
        say "round $round of $ROUNDS: what the machine allows"
        for words in 'sync 512' 'sync 65536'; do
            # shellcheck disable=SC2086 # Two words.
            keep_words floor machine "$("$FLOOR" ${words/sync/sync $WORK})"
        done
        keep_words floor machine "$("$FLOOR" logs "$WORK" "$SECONDS_EACH")"
        if ! command -v taskset >/dev/null || (($(nproc) < 2)); then continue; fi
        port=$(free_ports "$WANTED_PORT" 1)
        keep_words floor machine "$(round_trip "$port" 0 0 | sed 's/trip/trip_one_core/g')"
        keep_words floor machine "$(round_trip "$port" 0 1 | sed 's/trip/trip_two_cores/g')"
    done
}

keep_words() { # ROW SYSTEM LINE
    local word
    for word in $3; do keep "$1" "$2" "${word%%=*}" "${word#*=}"; done
}

# Between two processes, each on its processor.
round_trip() { # PORT PROCESSOR PROCESSOR
    local echo_pid
    taskset -c "$2" "$FLOOR" echo "$1" >/dev/null &
    echo_pid=$!
    # It ends when its caller has left; without one, with this script.
    wait_until 10 listens "$echo_pid" "$1" || die "the echo does not listen on port $1"
    taskset -c "$3" "$FLOOR" trip "127.0.0.1:$1" || kill "$echo_pid" 2>/dev/null
    wait "$echo_pid" || true
}

find_helpers() {
    local given=${RAFTKV_BIN_DIR:-} folder
    find_binaries
    folder=$RAFTKV_BIN_DIR/examples
    if [[ -z $given ]]; then
        (cd "$ROOT" && cargo build --quiet --release --example floor >&2) ||
            die "the build of the examples failed; the compiler's messages are above"
    fi
    FLOOR=$folder/floor
    [[ -x $FLOOR ]] || die "there is no program $FLOOR; is RAFTKV_BIN_DIR right?"
    ETCD_LOAD=$RAFTKV_BIN_DIR/etcd-load
    uses etcd || return 0
    if [[ -z $given ]]; then build_etcd_load; fi
    [[ -x $ETCD_LOAD ]] || die "there is no program $ETCD_LOAD; is RAFTKV_BIN_DIR right?"
}

main() {
    parse_options "$@"
    choose_systems
    find_helpers
    # On the disk that the data of this repository is on: /tmp may be memory.
    mkdir -p "$ROOT/data"
    WORK=$(mktemp -d "$ROOT/data/bench.XXXXXX")
    clean_up_at_the_end
    : >"$WORK/figures"
    if wanted floor; then floor_row; fi
    throughput_rows
    own_rows
    gap_rows
    restart_row
    idle_row
    step_rows
    degraded_row
    results >"$WORK/results"
    if [[ -n $OUT ]]; then
        mkdir -p "$(dirname "$OUT")"
        cp -- "$WORK/results" "$OUT"
        say "written to $OUT"
    fi
    cat "$WORK/results"
}

main "$@"
