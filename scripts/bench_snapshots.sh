#!/usr/bin/env bash
# Measures what snapshots cost: their time and size, memory and restart for ever more keys, beside
# Redis where it is installed; the latency of puts while snapshots are taken one after the other;
# and how a follower catches up whose log is gone.
#
# usage: scripts/bench_snapshots.sh [--only PART,...] [--keys N,...] [--rate R] [--seconds S]
#                                   [--rounds N]
#
#   --only PARTS   only these parts: keys, steady, behind
#   --keys LIST    for how many keys (10000,100000,1000000)
#   --rate R       puts a second in steady and behind (5000)
#   --seconds S    how long they are loaded (10)
#   --rounds N     how many times in steady, with and without snapshots in turn (9)
#   --ports BASE   where to look for free ports (7201)
#
# Keys have 16 bytes, values 128. It needs nothing else to run on the machine meanwhile. What it
# starts it ends, also on Ctrl-C.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=scripts/bench/systems.sh
source "$ROOT/scripts/bench/systems.sh"

WANTED_PORT=7201
RATE=5000
SECONDS_EACH=10
ROUNDS=9
COUNTS=10000,100000,1000000
ONLY=
WORK=

parse_options() {
    while (($# > 0)); do
        case $1 in
        --only) need_value "$1" $# && ONLY=$2 && shift 2 ;;
        --keys) need_value "$1" $# && COUNTS=$2 && shift 2 ;;
        --rate) need_value "$1" $# && RATE=$2 && shift 2 ;;
        --seconds) need_value "$1" $# && SECONDS_EACH=$2 && shift 2 ;;
        --rounds) need_value "$1" $# && ROUNDS=$2 && shift 2 ;;
        --ports) need_value "$1" $# && WANTED_PORT=$2 && shift 2 ;;
        -h | --help) print_help && exit 0 ;;
        *) die 2 "there is no option $1; see --help" ;;
        esac
    done
    need_number --rate "$RATE" 1 1000000
    need_number --seconds "$SECONDS_EACH" 2 3600
    need_number --rounds "$ROUNDS" 1 99
    need_number --ports "$WANTED_PORT" 1 60000
}

member() { printf '127.0.0.1:%s' "$((OURS_BASE + $1 - 1))"; }

# Has a node take a snapshot and waits for it.
take_snapshot() { # ID
    "$KVCLI" --cluster "$(member "$1")" --timeout 60s snapshot >/dev/null
}

snapshot_bytes() { # ID
    stat -c %s "$WORK/ours/node-$1"/snapshot-* | sort -n | tail -n 1
}

launch_all() {
    local id
    for ((id = 1; id <= OURS_NODES; id++)); do launch_ours "$id"; done
}

first_put() { "$KVCLI" --cluster "$ADDRESSES" --timeout 60s put probe x >/dev/null; }

# Prints how long the nodes, killed, take until they serve a put again.
restart_ms() {
    local pids begun
    mapfile -t pids < <(pids_ours)
    crash "${pids[@]}"
    begun=$(now_ms)
    launch_all
    wait_until 300 first_put || die "no put 300 s after the restart"
    printf '%s' "$(($(now_ms) - begun))"
}

keys_of_ours() { # KEYS
    local pids begun taken memory bytes
    start_ours 3
    fill_ours "$1"
    mapfile -t pids < <(pids_ours)
    memory=$(memory_each "${pids[@]}")
    begun=$(now_ms)
    take_snapshot 1
    taken=$(($(now_ms) - begun))
    take_snapshot 2
    take_snapshot 3
    bytes=$(snapshot_bytes 1)
    printf '| %s | ours | %s | %s | %s | %s | %s |\n' "$1" "$(($1 * 144 / 1048576))" "$memory" \
        "$taken" "$((bytes / 1024))" "$(restart_ms)"
    stop_ours
}

keys_of_redis() { # KEYS
    local begun taken memory bytes keys
    REDIS_PORT=$(free_ports "$WANTED_PORT" 1)
    mkdir -p "$WORK/redis"
    launch_redis_rdb
    fill_redis "$1"
    keys=$(redis-cli -p "$REDIS_PORT" dbsize)
    memory=$(memory_each "$REDIS_PID")
    begun=$(now_ms)
    redis-cli -p "$REDIS_PORT" save >/dev/null
    taken=$(($(now_ms) - begun))
    bytes=$(stat -c %s "$WORK/redis/dump.rdb")
    crash "$REDIS_PID"
    begun=$(now_ms)
    launch_redis_rdb
    printf '| %s | Redis, RDB file | %s | %s | %s | %s | %s |\n' "$keys" \
        "$((keys * 144 / 1048576))" "$memory" "$taken" "$((bytes / 1024))" \
        "$(($(now_ms) - begun))"
    stop_redis
}

launch_redis_rdb() {
    redis-server --port "$REDIS_PORT" --bind 127.0.0.1 --dir "$WORK/redis" --appendonly no \
        --save '' --daemonize no </dev/null >>"$WORK/redis.log" 2>&1 &
    REDIS_PID=$!
    OWN+=($!)
    wait_until 60 redis_answers || die "redis-server does not answer; its log is $WORK/redis.log"
}

keys_part() {
    local count
    printf '\n| keys | system | raw MiB | memory of a node, MiB | snapshot, ms | its size, KiB | '
    printf 'killed to first put, ms |\n| --- | --- | --- | --- | --- | --- | --- |\n'
    for count in ${COUNTS//,/ }; do
        say "keys: $count"
        keys_of_ours "$count"
        if command -v redis-server >/dev/null; then keys_of_redis "$count"; fi
    done
}

# Has each node take one snapshot after the other, until it is ended.
snapshots_without_end() {
    local id
    for id in 1 2 3; do
        yes snapshot | "$KVCLI" --cluster "$(member "$id")" >>"$WORK/taken" 2>/dev/null &
        TAKERS+=("$!")
        OWN+=("$!")
    done
}

steady_line() { # NAME LINE
    local name
    printf '| %s |' "$1"
    for name in throughput p50_us p99_us p99.9_us max_us failures; do
        printf ' %s |' "$(field "$name" "$2")"
    done
    printf '\n'
}

STEADY_HEAD='| load | puts/s | p50 us | p99 us | p99.9 us | max us | failures |
| --- | --- | --- | --- | --- | --- | --- |'

# The median over all rounds of a figure.
steady_median() { # FILE NAME
    local line
    while IFS= read -r line; do
        field "$2" "$line"
        printf '\n'
    done <"$1" | sort -g | awk '{ all[NR] = $1 } END { print all[int((NR + 1) / 2)] }'
}

# With and without in turn: the disk has better and worse moments of its own.
steady_part() {
    local round name
    export RAFTKV_SNAPSHOT_LOG_BYTES=-1
    start_ours 3
    KEYS=100000
    fill_ours "$KEYS"
    printf '\n%s\n' "$STEADY_HEAD"
    load_ours put 64 64 2 --rate "$RATE" >/dev/null
    : >"$WORK/taken"
    for ((round = 1; round <= ROUNDS; round++)); do
        say "steady: round $round of $ROUNDS"
        load_ours put 64 64 "$SECONDS_EACH" --rate "$RATE" >>"$WORK/without"
        steady_line "no snapshots" "$(tail -n 1 "$WORK/without")"
        TAKERS=()
        snapshots_without_end
        load_ours put 64 64 "$SECONDS_EACH" --rate "$RATE" >>"$WORK/with"
        end_own "${TAKERS[@]}"
        steady_line "snapshots" "$(tail -n 1 "$WORK/with")"
    done
    stop_ours
    unset RAFTKV_SNAPSHOT_LOG_BYTES
    printf '\n%s snapshots in %s s. ' "$(wc -l <"$WORK/taken")" $((ROUNDS * SECONDS_EACH))
    printf 'Medians of the rounds, without and with them:'
    for name in p50_us p99_us p99.9_us; do
        printf ' %s %s and %s;' "${name%_us}" "$(steady_median "$WORK/without" "$name")" \
            "$(steady_median "$WORK/with" "$name")"
    done
    printf ' in us.\n'
}

# The index up to which a node has applied entries.
applied() { # ID
    "$KVCLI" --cluster "$(member "$1")" -o json status |
        sed -n 's/.*"applied": *\([0-9]*\).*/\1/p' | head -n 1
}

has_applied() { # ID INDEX
    local index
    index=$(applied "$1" 2>/dev/null) && [[ -n $index ]] && ((index >= $2))
}

behind_part() {
    local follower leader load begun target
    export RAFTKV_SNAPSHOT_LOG_BYTES=4194304
    start_ours 3
    KEYS=100000
    fill_ours "$KEYS"
    leader=$(leader_ours)
    follower=$((leader % 3 + 1))
    say "behind: node $follower is killed while $((RATE * 10)) puts go on"
    cluster kill "$follower"
    load_ours put 64 64 10 --rate "$RATE" >/dev/null
    printf '\n%s\n' "$STEADY_HEAD"
    load_ours put 64 64 "$SECONDS_EACH" --rate "$RATE" >"$WORK/behind" &
    load=$!
    OWN+=("$load")
    sleep 1
    target=$(applied "$leader")
    begun=$(now_ms)
    launch_ours "$follower"
    wait_until 120 has_applied "$follower" "$target" || die "node $follower does not catch up"
    begun=$(($(now_ms) - begun))
    wait "$load" || die "the load failed"
    forget "$load"
    steady_line "a follower catches up in $begun ms" "$(<"$WORK/behind")"
    grep -c 'snapshot up to .* received' "$WORK/ours/node-$follower.log" |
        sed 's/^/snapshots that it received: /'
    stop_ours
    unset RAFTKV_SNAPSHOT_LOG_BYTES
}

main() {
    parse_options "$@"
    find_binaries
    mkdir -p "$ROOT/data"
    WORK=$(mktemp -d "$ROOT/data/bench.XXXXXX")
    clean_up_at_the_end
    if wanted keys; then keys_part; fi
    if wanted steady; then steady_part; fi
    if wanted behind; then behind_part; fi
}

main "$@"
