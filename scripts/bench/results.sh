#!/usr/bin/env bash
# What scripts/bench.sh writes down: medians, ratios, and whether each bar is met. Sourced by it;
# does nothing by itself.
set -euo pipefail

calculate() { # EXPRESSION DIGITS
    awk "BEGIN { printf \"%.$2f\", ($1) }"
}

# Prints the figures of all rounds in order of size.
figures() { # ROW SYSTEM NAME
    sed -n "s/^$1 $2 $3 //p" "$WORK/figures" | sort -g
}

# Prints the median of a figure over all rounds; - if there is none.
median() { # ROW SYSTEM NAME
    figures "$@" | awk '{ all[NR] = $1 } END { print NR ? all[int((NR + 1) / 2)] : "-" }'
}

# Prints the largest of a figure; - if there is none.
largest() { # ROW SYSTEM NAME
    figures "$@" | awk 'END { print NR ? $1 : "-" }'
}

# Prints A / B with two digits; - if one of them is missing.
ratio() { # A B
    if [[ $1 == - || $2 == - ]]; then printf -- '-' && return; fi
    calculate "$2 > 0 ? $1 / $2 : 0" 2
}

# One bar: the figure, what it may be, and whether it is.
bar() { # TEXT FIGURE COMPARISON LIMIT UNIT
    local verdict=-
    if [[ $2 == - || $4 == - ]]; then
        verdict=-
    elif [[ $(calculate "$2 $3 $4" 0) == 1 ]]; then
        verdict=met
    else
        verdict='**not met**'
    fi
    [[ $2 != - ]] || return 0
    local sign=≤
    if [[ $3 == '>=' ]]; then sign=≥; fi
    printf '| %s | %s %s | %s %s %s | %s |\n' "$1" "$2" "$5" "$sign" "$4" "$5" "$verdict"
}

# Prints A * B; - if one of them is missing.
product() { # A B DIGITS
    if [[ $1 == - || $2 == - ]]; then printf -- '-' && return; fi
    calculate "$1 * $2" "$3"
}

# Prints 0.8 times what clients reach that wait for each answer, if every other request is of the
# one kind and the rest of the other.
weighted() { # ROW ROW
    local one other
    one=$(median "$1" ours throughput)
    other=$(median "$2" ours throughput)
    if [[ $one == - || $other == - ]]; then printf -- '-' && return; fi
    calculate "0.8 / (0.5 / $one + 0.5 / $other)" 0
}

bars() {
    local serial trips sync name
    sync=$(median floor machine allocated_512_p50_us)
    trips=$(product "$(median floor machine trip_two_cores_p50_us)" 2 0)
    serial=$(median put1 ours p50_us)
    printf '| bar | measured | allowed | |\n| --- | --- | --- | --- |\n'
    if [[ $sync != - ]]; then
        bar 'put, 1 client, p50: 1.3 × (two round trips + one sync)' "$serial" '<=' \
            "$(calculate "1.3 * ($trips + $sync)" 0)" us
    fi
    bar 'put, 1 client, p50: 0.4 × etcd' "$serial" '<=' \
        "$(product 0.4 "$(median put1 etcd p50_us)" 0)" us
    for name in put64 put256 put256x8; do
        bar "$name: 10 × etcd" "$(median "$name" ours throughput)" '>=' \
            "$(product 10 "$(median "$name" etcd throughput)" 0)" /s
    done
    for name in put64 put256; do
        bar "$name: the single Redis" "$(median "$name" ours throughput)" '>=' \
            "$(median "$name" redis throughput)" /s
    done
    bar 'get, 1 client, p50: two round trips' "$(median get1 ours p50_us)" '<=' "$trips" us
    for name in get64 get256; do
        bar "$name: 0.8 × the single Redis" "$(median "$name" ours throughput)" '>=' \
            "$(product 0.8 "$(median "$name" redis throughput)" 0)" /s
    done
    bar "mixed, zipfian, $MANY_KEYS keys: 0.8 × the weighted sum of put64 and get64" \
        "$(median mixed ours throughput)" '>=' "$(weighted put64 get64)" /s
    bar 'the same, of puts and gets of the same keys' \
        "$(median mixed ours throughput)" '>=' "$(weighted mixed_put mixed_get)" /s
    bar 'put at half of the peak, p99: 5 × the serial p50' "$(median half ours p99_us)" '<=' \
        "$(product 5 "$serial" 0)" us
    bars_of_failures
    bars_of_costs
}

bars_of_failures() {
    local name alone
    alone=$(largest undisturbed ours gap_ms)
    bar 'leader killed, 50/300 ms, median gap: 0.8 × etcd' "$(median kill ours gap_ms)" '<=' \
        "$(product 0.8 "$(median kill etcd gap_ms)" 0)" ms
    bar 'leader killed, our defaults, median gap' "$(median kill_defaults ours gap_ms)" '<=' 400 ms
    for name in term transfer; do
        bar "leader stopped or moved ($name), longest gap; if nothing happens, $alone ms" \
            "$(largest "$name" ours gap_ms)" '<=' 20 ms
    done
}

bars_of_costs() {
    local name
    bar 'processor time per 100,000 puts, 64 clients: etcd / 10' \
        "$(median put64 ours processor_s)" '<=' \
        "$(product 0.1 "$(median put64 etcd processor_s)" 2)" s
    bar 'bytes per put that the disk wrote, 64 clients' \
        "$(median put64 ours device_bytes_each)" '<=' 1000 B
    bar 'bytes per put that the kernel counts for the nodes, 64 clients' \
        "$(median put64 ours bytes_each)" '<=' 1000 B
    bar "restart with $MANY_KEYS keys, to the first put: Redis + one election (0.5 s)" \
        "$(median restart ours ms)" '<=' "$(plus "$(median restart redis ms)" 500)" ms
    bar "memory per node with $MANY_KEYS keys: 1.2 × Redis" "$(median restart ours memory_mib)" \
        '<=' "$(product 1.2 "$(median restart redis memory_mib)" 0)" MiB
    for name in dead stopped slow_disk; do
        bar "one follower $name: 0.9 × healthy" "$(median "degraded.$name" ours throughput)" '>=' \
            "$(product 0.9 "$(median degraded.healthy ours throughput)" 0)" /s
    done
    bar 'idle, the nodes together' "$(median idle ours percent)" '<=' 3 %
}

plus() { # A B
    if [[ $1 == - ]]; then printf -- '-'; else calculate "$1 + $2" 0; fi
}

# One line for each figure, one column for each system.
side_by_side() {
    local entry row name
    printf '| %s | %s | %s | %s | %s | %s | %s |\n' row figure ours 'etcd, 3 nodes' \
        'Redis, 1 node' 'ours / etcd' 'ours / Redis'
    printf '| --- | --- | --- | --- | --- | --- | --- |\n'
    for entry in "${POINTS[@]}" restart kill kill_defaults undisturbed term transfer; do
        row=${entry%% *}
        for name in throughput p50_us p99_us processor_s bytes_each device_bytes_each ms \
            memory_mib gap_ms; do
            side_by_side_row "$row" "$name"
        done
    done
}

side_by_side_row() { # ROW NAME
    local ours etcd redis
    ours=$(median "$1" ours "$2")
    etcd=$(median "$1" etcd "$2")
    redis=$(median "$1" redis "$2")
    [[ $ours != - || $etcd != - || $redis != - ]] || return 0
    printf '| %s | %s | %s | %s | %s | %s | %s |\n' "$1" "$2" "$ours" "$etcd" "$redis" \
        "$(ratio "$ours" "$etcd")" "$(ratio "$ours" "$redis")"
}

# The rows of ours alone whose names begin so, in the order in which they were run.
steps() { # TITLE PREFIX...
    local title=$1 row rows
    shift
    rows=$(awk '!seen[$1]++ { print $1 }' "$WORK/figures" |
        grep -E "^($(IFS='|' && printf '%s' "$*"))" || true)
    [[ -n $rows ]] || return 0
    printf '\n## %s\n\n' "$title"
    printf '| %s | %s | %s | %s | %s | %s | %s |\n' row requests/s 'p50 us' 'p99 us' \
        'processor s / 100,000' 'bytes each' failures
    printf '| --- | --- | --- | --- | --- | --- | --- |\n'
    while IFS= read -r row; do
        printf '| %s | %s | %s | %s | %s | %s | %s |\n' "$row" \
            "$(median "$row" ours throughput)" "$(median "$row" ours p50_us)" \
            "$(median "$row" ours p99_us)" "$(median "$row" ours processor_s)" \
            "$(median "$row" ours bytes_each)" "$(median "$row" ours failures)"
    done <<<"$rows"
}

machine() {
    local name
    printf '| limit | us |\n| --- | --- |\n'
    for name in allocated_512_p50_us allocated_512_p99_us growing_512_p50_us \
        allocated_65536_p50_us growing_65536_p50_us three_512_p50_us three_512_p99_us \
        three_512_p999_us three_512_max_us trip_one_core_p50_us trip_two_cores_p50_us; do
        printf '| %s | %s |\n' "$name" "$(median floor machine "$name")"
    done
}

# Versions of what was measured.
versions() {
    printf 'raftkv %s' "$("$KVCLI" --version | cut -d ' ' -f 2)"
    if uses etcd; then printf ', etcd %s' "$(etcd --version | sed -n 's/etcd Version: //p')"; fi
    if uses redis; then
        printf ', Redis %s' "$(redis-server --version | sed 's/.*v=\([^ ]*\).*/\1/')"
    fi
}

results() {
    cat <<END
# Results

Written by \`scripts/bench.sh\` on $(date -u +%F): $(versions). $(nproc) processors
($(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -n 1)), Linux $(uname -r); nodes and
load on the same machine. Each figure is the median of $ROUNDS runs of $SECONDS_EACH s, of a
system that was loaded for $RUN_IN s before; gaps, of $KILLS failures. Values of 128 bytes, keys of
16; every put is synced to disk before its answer, by etcd and Redis as well.

A processor that the load takes is one that the servers lack. Ours is loaded by \`kvcli bench\`,
etcd by \`bench/etcd-load\`, over gRPC as its own clients do, Redis by
\`redis-benchmark\`; each is one thread. Clients talk to the leader.

## What the machine allows

\`fdatasync\` of 512 bytes and of 64 KiB, into an allocated file and into one that grows; of 512
bytes into three files at a time, without pause; a round trip of 128 bytes over loopback.

$(machine)

## The bars

$(bars)

## Side by side

Throughput in requests per second; \`processor_s\` is the time of all nodes for 100,000 requests;
\`gap_ms\` the longest time one client went without an answer. \`device_bytes_each\` is what the
disk wrote meanwhile, for whomever; \`bytes_each\` is \`write_bytes\` of \`/proc/PID/io\`, which
counts whole folios: where a file was allocated in large pieces, many times what is written. Space
that is allocated ahead counts as well, which shows in short runs.

$(side_by_side)

For comparison, RedisRaft on three nodes, measured once on a machine of two processors like the
one that the bars were set on: put, 1 client, p50 420 us; put, 64 clients 34,196 /s; 256 clients
43,591 /s; get, 1 client, p50 111 us; get, 64 and 256 clients 74,816 and 85,849 /s; leader killed at
50/300 ms, median gap 382 ms.
$(steps 'At half of the peak, and with many keys' half mixed)
$(steps 'Sizes of values, in bytes' 'sizes\.')
$(steps 'Clients' 'clients\.')
$(steps 'Nodes' 'nodes\.')
$(steps 'Keys' 'keys\.')
$(steps 'With one follower in trouble' 'degraded\.')
END
}
