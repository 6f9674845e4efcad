#!/usr/bin/env bash
# The rows of the table that scripts/bench.sh makes: what is done for each, and what is kept of it.
# Sourced by it; does nothing by itself.
set -euo pipefail

# The throughput rows: name, kind, clients, connections. The clients of all systems share the
# connections.
POINTS=(
    'put1 put 1 1' 'put64 put 64 64' 'put256 put 256 256' 'put256x8 put 256 8'
    'get1 get 1 1' 'get64 get 64 64' 'get256 get 256 256'
)

# Keeps a figure; a row may get several, of which the median counts.
keep() { # ROW SYSTEM NAME VALUE
    if [[ -n $4 ]]; then printf '%s %s %s %s\n' "$@" >>"$WORK/figures"; fi
}

# Loads a system after a warm-up, and keeps what the load, the processes and the disk say of it.
point() { # ROW SYSTEM KIND CLIENTS CONNECTIONS [OPTION...]
    local row=$1 system=$2 pids line name ticks bytes device requests
    shift 2
    say "  $row: $system"
    "load_$system" "$1" "$2" "$3" 1 "${@:4}" >/dev/null || die "$system does not take load"
    mapfile -t pids < <("pids_$system")
    ticks=$(processor_ticks "${pids[@]}")
    bytes=$(bytes_written "${pids[@]}")
    device=$(device_bytes)
    line=$("load_$system" "$1" "$2" "$3" "$SECONDS_EACH" "${@:4}") || die "$system: $row failed"
    for name in throughput p50_us p99_us failures generator_us; do
        keep "$row" "$system" "$name" "$(field "$name" "$line")"
    done
    requests=$(field requests "$line")
    ((requests > 0)) || die "$system: nothing succeeded in $row: $line"
    ticks=$(($(processor_ticks "${pids[@]}") - ticks))
    bytes=$(($(bytes_written "${pids[@]}") - bytes))
    # 100,000 requests, and hundredths of a second.
    keep "$row" "$system" processor_s "$(calculate "$ticks / $requests * 1000" 2)"
    keep "$row" "$system" bytes_each "$(calculate "$bytes / $requests" 0)"
    [[ -n $device ]] || return 0
    device=$(($(device_bytes) - device))
    keep "$row" "$system" device_bytes_each "$(calculate "$device / $requests" 0)"
}

# So that what a system does only in its first minutes does not count, nor is left out what it does
# from then on.
run_in() { # SYSTEM
    "load_$1" put 256 8 "$RUN_IN" >/dev/null || die "$1 does not take load"
}

# Each round starts every system afresh, one after the other, so that none has the machine to
# itself while the others share it, and a slow minute of the machine hits all of them.
throughput_rows() {
    local round system entry row kind clients connections any=
    for entry in "${POINTS[@]}"; do
        if wanted "${entry%% *}"; then any=1; fi
    done
    [[ -n $any ]] || return 0
    for ((round = 1; round <= ROUNDS; round++)); do
        for system in "${SYSTEMS[@]}"; do
            say "round $round of $ROUNDS: $system"
            "start_$system"
            "fill_$system" "$KEYS"
            run_in "$system"
            for entry in "${POINTS[@]}"; do
                read -r row kind clients connections <<<"$entry"
                if wanted "$row"; then point "$row" "$system" "$kind" "$clients" "$connections"; fi
            done
            "stop_$system"
        done
    done
}

# The rows that only ours has, in the same cluster: at half of the peak, and with a million keys.
own_rows() {
    local round peak keys=$KEYS
    if wanted half; then
        peak=$(median put64 ours throughput)
        if [[ $peak == - ]]; then die 2 "half needs the row put64 in the same run"; fi
        for ((round = 1; round <= ROUNDS; round++)); do
            start_ours
            fill_ours "$KEYS"
            run_in ours
            point half ours put 64 64 --rate "$(calculate "$peak / 2" 0)"
            stop_ours
        done
    fi
    wanted mixed || return 0
    KEYS=$MANY_KEYS
    for ((round = 1; round <= ROUNDS; round++)); do
        start_ours
        fill_ours "$KEYS"
        run_in ours
        point mixed_put ours put 64 64 -d zipfian
        point mixed_get ours get 64 64 -d zipfian
        point mixed ours put=50,get=50 64 64 -d zipfian
        stop_ours
    done
    KEYS=$keys
}

# One client puts while something happens to the leader; keeps its longest gap.
gap() { # ROW SYSTEM SECONDS DISTURB...
    local row=$1 system=$2 seconds=$3 load words=()
    shift 3
    # A request that waits at a node for a leader that is gone is better asked again elsewhere; our
    # own client does so by itself.
    if [[ $system == etcd ]]; then words=(timeout_ms=50); fi
    "load_$system" put 1 1 "$seconds" "${words[@]}" >"$WORK/gap" &
    load=$!
    OWN+=("$load")
    sleep 1
    "$@"
    wait "$load" || die "$system: the client of $row failed"
    forget "$load"
    keep "$row" "$system" gap_ms "$(field client_gap_ms "$(<"$WORK/gap")")"
    keep "$row" "$system" failures "$(field failures "$(<"$WORK/gap")")"
}

# What the machine does by itself in as long: the disk now and then stands still.
leave_alone() { :; }
kill_leader_ours() { kill -9 "$(pid_ours "$LEADER")"; }
term_leader_ours() { kill -TERM "$(pid_ours "$LEADER")"; }
transfer_ours() { "$KVCLI" --cluster "$ADDRESSES" transfer >/dev/null; }
kill_leader_etcd() { crash "${ETCD_PIDS[$ETCD_LEADER]}"; }

gaps_of_ours() { # ROW DISTURB
    local number
    start_ours
    for ((number = 1; number <= KILLS; number++)); do
        LEADER=$(leader_ours)
        say "  $1: ours, $number of $KILLS"
        gap "$1" ours 3 "$2"
        cluster restart "$LEADER"
        # The one that came back has to catch up before the next one goes.
        leader_ours >/dev/null
        sleep 0.5
    done
    stop_ours
}

gaps_of_etcd() { # ROW
    local number
    [[ " ${SYSTEMS[*]} " == *" etcd "* ]] || return 0
    start_etcd
    for ((number = 1; number <= KILLS; number++)); do
        say "  $1: etcd, $number of $KILLS"
        find_etcd_leader
        gap "$1" etcd 5 kill_leader_etcd
        launch_etcd "$ETCD_LEADER"
        sleep 2
    done
    stop_etcd
}

gap_rows() {
    if wanted kill; then
        # Exported for the nodes that cluster.sh starts.
        export RAFTKV_HEARTBEAT_MS=50 RAFTKV_ELECTION_MS=300
        gaps_of_ours kill kill_leader_ours
        unset RAFTKV_HEARTBEAT_MS RAFTKV_ELECTION_MS
        ETCD_OPTIONS=(--heartbeat-interval 50 --election-timeout 300)
        gaps_of_etcd kill
        # shellcheck disable=SC2034 # launch_etcd reads it.
        ETCD_OPTIONS=()
        gaps_of_ours kill_defaults kill_leader_ours
        gaps_of_etcd kill_defaults
    fi
    if wanted term; then
        gaps_of_ours undisturbed leave_alone
        gaps_of_ours term term_leader_ours
        gaps_of_ours transfer transfer_ours
    fi
}

launch_all_ours() {
    local id
    for ((id = 1; id <= OURS_NODES; id++)); do launch_ours "$id"; done
}
launch_all_etcd() {
    local id
    for id in 1 2 3; do launch_etcd "$id"; done
}
launch_all_redis() { launch_redis; }

first_put_ours() { "$KVCLI" --cluster "$ADDRESSES" --timeout 60s put probe x >/dev/null; }
first_put_etcd() {
    # "probe" and "x" in base64.
    local id answer
    for id in 1 2 3; do
        answer=$(curl -s -m 1 -d '{"key":"cHJvYmU=","value":"eA=="}' "$(etcd_url "$id")/v3/kv/put")
        if [[ $answer == *revision* ]]; then return; fi
    done
    return 1
}
first_put_redis() { redis_answers; }

# Memory with many keys, and how long it takes until all nodes, killed and started again, take a
# put.
restart_row() {
    local system pids begun round
    wanted restart || return 0
    for system in "${SYSTEMS[@]}"; do
        say "restart with $MANY_KEYS keys: $system"
        "start_$system"
        "fill_$system" "$MANY_KEYS"
        mapfile -t pids < <("pids_$system")
        keep restart "$system" memory_mib "$(memory_each "${pids[@]}")"
        for ((round = 1; round <= ROUNDS; round++)); do
            mapfile -t pids < <("pids_$system")
            crash "${pids[@]}"
            begun=$(now_ms)
            "launch_all_$system"
            wait_until 120 "first_put_$system" || die "$system takes no put 120 s after its restart"
            keep restart "$system" ms "$(($(now_ms) - begun))"
            sleep 1
        done
        "stop_$system"
    done
}

idle_row() {
    local pids before
    wanted idle || return 0
    start_ours
    sleep 1
    mapfile -t pids < <(pids_ours)
    before=$(processor_ticks "${pids[@]}")
    sleep "$SECONDS_EACH"
    before=$(($(processor_ticks "${pids[@]}") - before))
    keep idle ours percent "$(calculate "$before / $SECONDS_EACH" 2)"
    stop_ours
}

# Tables of ours alone: one row for each step, so that a cliff would show.
step_rows() {
    local step keys=$KEYS
    if wanted sizes; then
        start_ours
        run_in ours
        for step in 16 128 1024 4096 16384 65536 262144 1048576; do
            KEYS=$((step > 16384 ? 100 : keys))
            point "sizes.put.$step" ours put 64 64 -v "$step"
            point "sizes.get.$step" ours get 64 64 -v "$step"
        done
        KEYS=$keys
        stop_ours
    fi
    if wanted clients; then
        start_ours
        run_in ours
        for step in 1 2 4 8 16 32 64 128 256 512; do
            point "clients.put.$step" ours put "$step" "$step"
            point "clients.get.$step" ours get "$step" "$step"
        done
        stop_ours
    fi
    if wanted nodes; then
        for step in 1 3 5 7; do
            start_ours "$step"
            run_in ours
            point "nodes.put1.$step" ours put 1 1
            point "nodes.put.$step" ours put 64 64
            point "nodes.get.$step" ours get 64 64
            stop_ours
        done
    fi
    wanted keys || return 0
    for step in 1000 10000 100000 1000000 ${HUGE:+10000000}; do
        start_ours
        KEYS=$step
        fill_ours "$step"
        run_in ours
        point "keys.put.$step" ours put 64 64
        point "keys.get.$step" ours get 64 64
        KEYS=$keys
        stop_ours
    done
}

# Prints the id of a node that does not lead.
a_follower() {
    local leader
    leader=$(leader_ours)
    printf '%s' "$((leader % OURS_NODES + 1))"
}

# A disk that takes 20 ms more for each sync: strace holds the call back, and sees no other one.
slow_disk() { # ID
    cluster kill "$1"
    # With -D the node is this script's child, and strace ends with it.
    strace -D -f --seccomp-bpf -qq -o /dev/null -e trace=fdatasync,fsync \
        -e inject=fdatasync,fsync:delay_exit=20000 \
        "$KVNODE" --id "$1" --cluster "$(cluster_addresses "$OURS_BASE" "$OURS_NODES")" \
        --data "$WORK/ours/node-$1" </dev/null >>"$WORK/ours/node-$1.log" 2>&1 &
    OWN+=("$!")
    printf '%s\n' "$!" >"$WORK/ours/node-$1.pid"
    wait_until 30 listens "$!" $((OURS_BASE + $1 - 1)) ||
        die "node $1 does not listen; its log is $WORK/ours/node-$1.log"
}

degraded_row() {
    local follower
    wanted degraded || return 0
    start_ours
    run_in ours
    point degraded.healthy ours put 64 64
    follower=$(a_follower)
    cluster kill "$follower"
    point degraded.dead ours put 64 64
    cluster restart "$follower"
    sleep 2
    cluster pause "$follower"
    point degraded.stopped ours put 64 64
    cluster resume "$follower"
    sleep 2
    if command -v strace >/dev/null; then
        slow_disk "$follower"
        point degraded.slow_disk ours put 64 64
        crash "$(pid_ours "$follower")"
    else
        say "strace is not installed: no follower with a slow disk"
    fi
    stop_ours
}
