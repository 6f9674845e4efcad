#!/usr/bin/env bash
# The systems that scripts/bench.sh measures: how each is started, loaded, looked at and ended.
# Sourced by it; does nothing by itself.
#
# Each system has start_X, fill_X KEYS, load_X KIND CLIENTS CONNECTIONS SECONDS, pids_X and stop_X;
# load_X prints one line of name=value words. Keys have 16 bytes, values 128.
set -euo pipefail

# Keys that the rows on throughput spread over.
KEYS=10000
# What etcd gets besides the usual.
ETCD_OPTIONS=()
# Processes that this script started and that cluster.sh does not know.
OWN=()

# Whether --only leaves a part of the measurements in.
wanted() { # NAME
    [[ -z $ONLY || ",$ONLY," == *",$1,"* ]]
}

# Ends what was started, in whatever way the script ends.
clean_up_at_the_end() {
    trap clean_up EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
}

# shellcheck disable=SC2317 # Called by the trap.
clean_up() {
    local code=$?
    trap - EXIT INT TERM
    end_own "${OWN[@]}"
    if [[ -n $WORK ]]; then
        stop_ours
        rm -rf -- "$WORK"
    fi
    exit "$code"
}

# --- ours ---

cluster() { "$ROOT/scripts/cluster.sh" --quiet --data "$WORK/ours" "$@"; }

start_ours() { # [NODES]
    local base
    base=$(free_ports "$WANTED_PORT" 9)
    cluster --ports "$base" start "${1:-3}" || die "the cluster in $WORK/ours does not start"
    OURS_BASE=$base
    OURS_NODES=${1:-3}
    ADDRESSES=$(cluster addresses)
}

bench() { "$KVCLI" --cluster "$ADDRESSES" --timeout 60s -o raw bench "$@"; }

fill_ours() { # KEYS
    bench --prefill --keys "$1" -n 1 -w 0 >/dev/null
}

load_ours() { # KIND CLIENTS CONNECTIONS SECONDS [OPTION...]
    local kind=$1 clients=$2 connections=$3 seconds=$4
    shift 4
    bench -m "$kind" -c "$clients" -C "$connections" -s "$seconds" -w 0 -k "$KEYS" "$@"
}

pid_ours() { # ID
    local pid=''
    read -r pid <"$WORK/ours/node-$1.pid" || true
    printf '%s' "$pid"
}

pids_ours() {
    local id
    for ((id = 1; id <= OURS_NODES; id++)); do
        if [[ -f $WORK/ours/node-$id.pid ]]; then printf '%s\n' "$(pid_ours "$id")"; fi
    done
}

# Prints the id of the leader, once one answers.
leader_ours() {
    local found
    wait_until 30 leader_answers "$ADDRESSES" || die "no leader for 30 s in $WORK/ours"
    found=$(find_leader "$ADDRESSES")
    printf '%s' "${found% *}"
}

# As cluster.sh does, but without waiting for anything: for what is timed.
launch_ours() { # ID
    setsid "$KVNODE" --id "$1" --cluster "$(cluster_addresses "$OURS_BASE" "$OURS_NODES")" \
        --data "$WORK/ours/node-$1" </dev/null >>"$WORK/ours/node-$1.log" 2>&1 &
    printf '%s\n' "$!" >"$WORK/ours/node-$1.pid"
}

stop_ours() {
    [[ -f $WORK/ours/cluster ]] || return 0
    cluster stop >/dev/null 2>&1 || true
    cluster wipe >/dev/null 2>&1 || true
}

# --- etcd ---

etcd_url() { printf 'http://127.0.0.1:%s' "$((ETCD_BASE + $1))"; }

launch_etcd() { # ID
    local id members=()
    for id in 1 2 3; do members+=("n$id=$(etcd_url $((id + 3)))"); done
    etcd --name "n$1" --data-dir "$WORK/etcd/n$1" \
        --listen-client-urls "$(etcd_url "$1")" --advertise-client-urls "$(etcd_url "$1")" \
        --listen-peer-urls "$(etcd_url $(($1 + 3)))" \
        --initial-advertise-peer-urls "$(etcd_url $(($1 + 3)))" \
        --initial-cluster "$(IFS=, && printf '%s' "${members[*]}")" \
        --quota-backend-bytes 8589934592 --logger zap --log-level error \
        "${ETCD_OPTIONS[@]}" </dev/null >>"$WORK/etcd/n$1.log" 2>&1 &
    ETCD_PIDS[$1]=$!
    OWN+=($!)
}

# Whether the member leads.
etcd_leads() { # ID
    local answer member='member_id":"([0-9]+)' leader='"leader":"([0-9]+)'
    answer=$(curl -s -m 2 -d '{}' "$(etcd_url "$1")/v3/maintenance/status") || return 1
    [[ $answer =~ $member ]] || return 1
    member=${BASH_REMATCH[1]}
    [[ $answer =~ $leader && ${BASH_REMATCH[1]} == "$member" ]]
}

etcd_has_leader() {
    local id
    for id in 1 2 3; do
        if etcd_leads "$id"; then
            ETCD_LEADER=$id
            return
        fi
    done
    return 1
}

find_etcd_leader() { wait_until 60 etcd_has_leader || die "etcd has no leader after 60 s"; }

start_etcd() {
    local id
    ETCD_BASE=$(($(free_ports "$WANTED_PORT" 9) - 1))
    ETCD_PIDS=()
    mkdir -p "$WORK/etcd"
    for id in 1 2 3; do launch_etcd "$id"; done
    find_etcd_leader
}

# A workspace of its own, built into the same folder as the programs.
build_etcd_load() {
    (cd "$ROOT" && cargo build --quiet --release --locked \
        --manifest-path bench/etcd-load/Cargo.toml \
        --target-dir "${CARGO_TARGET_DIR:-$ROOT/target}" >&2) ||
        die "the build of bench/etcd-load failed; the compiler's messages are above"
}

# The leader's address first: clients talk to it.
etcd_addresses() {
    local id list=("127.0.0.1:$((ETCD_BASE + ETCD_LEADER))")
    for id in 1 2 3; do
        if ((id != ETCD_LEADER)); then list+=("127.0.0.1:$((ETCD_BASE + id))"); fi
    done
    (IFS=, && printf '%s' "${list[*]}")
}

fill_etcd() { # KEYS
    "$ETCD_LOAD" "$(etcd_addresses)" kind=fill clients=256 connections=8 "keys=$1" >/dev/null
}

load_etcd() { # KIND CLIENTS CONNECTIONS SECONDS [WORD...]
    "$ETCD_LOAD" "$(etcd_addresses)" "kind=$1" "clients=$2" "connections=$3" "seconds=$4" \
        warm_up=0 "keys=$KEYS" "${@:5}"
}

pids_etcd() { printf '%s\n' "${ETCD_PIDS[@]}"; }

stop_etcd() {
    end_own "${ETCD_PIDS[@]}"
    ETCD_PIDS=()
    rm -rf -- "$WORK/etcd"
}

# --- Redis, one node ---

launch_redis() {
    redis-server --port "$REDIS_PORT" --bind 127.0.0.1 --dir "$WORK/redis" --appendonly yes \
        --appendfsync always --save '' --daemonize no </dev/null >>"$WORK/redis.log" 2>&1 &
    REDIS_PID=$!
    OWN+=($!)
}

redis_answers() {
    [[ $(redis-cli -p "$REDIS_PORT" set probe x 2>/dev/null) == OK ]]
}

start_redis() {
    REDIS_PORT=$(free_ports "$WANTED_PORT" 1)
    mkdir -p "$WORK/redis"
    launch_redis
    wait_until 30 redis_answers || die "redis-server does not answer; its log is $WORK/redis.log"
}

fill_redis() { # KEYS
    # Keys are drawn at random: three times as many puts reach 95 of 100 of them.
    redis-benchmark -p "$REDIS_PORT" -t set -c 64 -P 16 -n $(($1 * 3)) -d 128 -r "$1" --csv \
        >/dev/null
}

# redis-benchmark counts requests, not time: a short run tells how many take about so long.
load_redis() { # KIND CLIENTS CONNECTIONS SECONDS
    local rate requests
    rate=$(field throughput "$(count_redis "$1" "$2" "$3" $(($2 * 20 + 200)))")
    requests=$(awk -v rate="$rate" -v s="$4" 'BEGIN { printf "%d", rate * s + 100 }')
    count_redis "$1" "$2" "$3" "$requests"
}

count_redis() { # KIND CLIENTS CONNECTIONS REQUESTS
    local test='set' csv
    if [[ $1 == get ]]; then test='get'; fi
    csv=$(redis-benchmark -p "$REDIS_PORT" -t "$test" -c "$3" -P $(($2 / $3)) -n "$4" -d 128 \
        -r "$KEYS" --csv | tail -n 1 | tr -d '"')
    # test, requests a second, then milliseconds: mean, least, p50, p95, p99, most.
    awk -F, -v n="$4" '{
        printf "throughput=%d requests=%d p50_us=%.0f p99_us=%.0f\n", $2, n, $5 * 1000, $7 * 1000
    }' <<<"$csv"
}

pids_redis() { printf '%s\n' "$REDIS_PID"; }

stop_redis() {
    end_own "$REDIS_PID"
    rm -rf -- "$WORK/redis"
}

# --- processes ---

# Ends processes that this script started, and waits for them. A number that belongs to another
# process by now is left alone.
end_own() { # PID...
    local pid
    for pid in "$@"; do
        if is_own "$pid"; then kill "$pid" 2>/dev/null || true; fi
    done
    for pid in "$@"; do
        is_own "$pid" || continue
        wait_until 10 has_ended "$pid" || kill -9 "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
    forget "$@"
}

# Ends nodes at once, as a crash would.
crash() { # PID...
    local pid
    kill -9 "$@"
    for pid in "$@"; do
        wait_until 10 has_ended "$pid" || die "process $pid does not end"
        # Those that cluster.sh has started are not this script's to wait for.
        wait "$pid" 2>/dev/null || true
    done
    forget "$@"
}

is_own() { # PID
    grep -qx "PPid:[[:space:]]*$$" "/proc/$1/status" 2>/dev/null
}

# These have ended, or are ended by somebody else.
forget() { # PID...
    local own kept=()
    for own in "${OWN[@]}"; do
        if [[ " $* " != *" $own "* ]]; then kept+=("$own"); fi
    done
    OWN=("${kept[@]}")
}

has_ended() { # PID
    local state
    [[ -d /proc/$1 ]] || return 0
    state=$(sed -n 's/^State:\t\(.\).*/\1/p' "/proc/$1/status" 2>/dev/null) || return 0
    [[ $state == Z || -z $state ]]
}

# Prints the processor time of processes so far, in hundredths of a second.
processor_ticks() { # PID...
    local pid stat sum=0
    for pid in "$@"; do
        stat=$(<"/proc/$pid/stat")
        # Behind the name, which may hold anything, utime and stime are words 12 and 13.
        read -r -a stat <<<"${stat##*) }"
        sum=$((sum + stat[11] + stat[12]))
    done
    printf '%s' "$sum"
}

# Prints how many bytes the disk below the work folder has written so far, for whomever; nothing if
# it does not tell.
device_bytes() {
    local stat
    stat=$(cat "/sys/dev/block/$(stat -c '%Hd:%Ld' "$WORK")/stat" 2>/dev/null) || return 0
    read -r -a stat <<<"$stat"
    printf '%s' "$((stat[6] * 512))"
}

# Prints how many bytes processes have dirtied in files so far. The kernel counts whole folios,
# which are far more than is written where a file was allocated in large pieces.
bytes_written() { # PID...
    local pid sum=0
    for pid in "$@"; do
        sum=$((sum + $(sed -n 's/^write_bytes: //p' "/proc/$pid/io")))
    done
    printf '%s' "$sum"
}

# Prints the memory of processes, divided by their number, in MiB.
memory_each() { # PID...
    local pid sum=0
    for pid in "$@"; do
        sum=$((sum + $(sed -n 's/^VmRSS:[^0-9]*\([0-9]*\).*/\1/p' "/proc/$pid/status")))
    done
    printf '%s' "$((sum / 1024 / $#))"
}
