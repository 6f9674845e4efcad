#!/usr/bin/env bash
# Measures what changes of members cost under load, beside etcd where it is installed: how long a
# new node takes until it votes, and what clients notice meanwhile.
#
# usage: scripts/bench_members.sh [--only PART,...] [--keys N] [--rate R] [--seconds S]
#                                 [--rounds N] [--systems ours,etcd]
#
#   --only PARTS   only these parts:
#                  calm     nothing happens
#                  replace  a follower is dead for good, and a new node at another address takes its
#                           place
#                  wiped    a follower comes back with an empty folder (ours only)
#                  add      a fourth node comes in
#                  remove   the fourth node goes
#                  leader   the leader is removed
#   --keys N       how many keys there are (1000000)
#   --rate R       puts a second, due at fixed times (5000)
#   --seconds S    how long the load lasts in each part (20)
#   --rounds N     how many times (3)
#   --systems L    which systems: ours,etcd (those that are installed)
#   --ports BASE   where to look for free ports (7201)
#
# Keys have 16 bytes, values 128; 64 clients have a connection each. A put's time counts from when
# it was due. Each part happens 2 s after the load began; its time counts from the start of the new
# node's process or from the request, until the new node votes or the change is committed. The gap
# is the longest time in which no client had an answer.
#
# etcd learns of a dead member and of a new one by requests that are made before the new process
# starts; the new one begins as a learner and is promoted as soon as etcd lets it be.
# It needs nothing else to run on the machine meanwhile. What it starts it ends, also on Ctrl-C.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=scripts/bench/systems.sh
source "$ROOT/scripts/bench/systems.sh"

WANTED_PORT=7201
RATE=5000
SECONDS_EACH=20
ROUNDS=3
KEYS=1000000
ONLY=
WORK=
TOOK=
SYSTEMS=(ours etcd)
PARTS=(calm replace wiped add remove leader)

parse_options() {
    while (($# > 0)); do
        case $1 in
        --only) need_value "$1" $# && ONLY=$2 && shift 2 ;;
        --keys) need_value "$1" $# && KEYS=$2 && shift 2 ;;
        --rate) need_value "$1" $# && RATE=$2 && shift 2 ;;
        --seconds) need_value "$1" $# && SECONDS_EACH=$2 && shift 2 ;;
        --rounds) need_value "$1" $# && ROUNDS=$2 && shift 2 ;;
        --systems) need_value "$1" $# && IFS=, read -r -a SYSTEMS <<<"$2" && shift 2 ;;
        --ports) need_value "$1" $# && WANTED_PORT=$2 && shift 2 ;;
        -h | --help) print_help && exit 0 ;;
        *) die 2 "there is no option $1; see --help" ;;
        esac
    done
    need_number --keys "$KEYS" 1 100000000
    need_number --rate "$RATE" 1 1000000
    need_number --seconds "$SECONDS_EACH" 4 3600
    need_number --rounds "$ROUNDS" 1 99
    need_number --ports "$WANTED_PORT" 1 60000
}

# --- ours ---

own_address() { printf '127.0.0.1:%s' "$((OURS_BASE + $1 - 1))"; }

# Starts a node of a cluster that exists, on the port of PLACE.
join_ours() { # ID PLACE
    setsid "$KVNODE" --id "$1" --join "$ADDRESSES" --listen "$(own_address "$2")" \
        --data "$WORK/ours/node-$2" </dev/null >>"$WORK/ours/node-$2.log" 2>&1 &
    OWN+=("$!")
}

members_ours() { "$KVCLI" --cluster "$ADDRESSES" --timeout 2s -o raw member list 2>/dev/null; }

# Whether the node votes with this address and a folder that is not the old one.
votes_ours() { # ID ADDRESS OLD_FOLDER
    local line
    while IFS= read -r line; do
        if [[ $(field id "$line") == "$1" ]]; then
            [[ $(field role "$line") == voter && $(field address "$line") == "$2" &&
                $(field folder "$line") != "$3" ]]
            return
        fi
    done < <(members_ours)
    return 1
}

folder_ours() { # ID
    local line
    while IFS= read -r line; do
        if [[ $(field id "$line") == "$1" ]]; then field folder "$line"; fi
    done < <(members_ours)
}

change_ours() { "$KVCLI" --cluster "$ADDRESSES" --timeout 60s member "$@" >/dev/null; }

follower_ours() {
    local leader
    leader=$(leader_ours)
    printf '%s' "$((leader % 3 + 1))"
}

# Each sets TOOK: for how many milliseconds it went on.
replace_ours() {
    local id begun old
    id=$(follower_ours)
    old=$(folder_ours "$id")
    crash "$(pid_ours "$id")"
    # The others have to notice that it is gone.
    sleep 2
    begun=$(now_ms)
    join_ours "$id" 5
    wait_until 300 votes_ours "$id" "$(own_address 5)" "$old" || die "node $id never votes"
    TOOK=$(($(now_ms) - begun))
}

wiped_ours() {
    local id begun old
    id=$(follower_ours)
    old=$(folder_ours "$id")
    crash "$(pid_ours "$id")"
    rm -rf -- "$WORK/ours/node-$id"
    begun=$(now_ms)
    launch_ours "$id"
    wait_until 300 votes_ours "$id" "$(own_address "$id")" "$old" || die "node $id never votes"
    TOOK=$(($(now_ms) - begun))
}

add_ours() {
    local begun
    begun=$(now_ms)
    join_ours 4 4
    wait_until 300 votes_ours 4 "$(own_address 4)" none || die "node 4 never votes"
    TOOK=$(($(now_ms) - begun))
}

remove_ours() {
    local begun
    begun=$(now_ms)
    change_ours remove 4
    TOOK=$(($(now_ms) - begun))
}

leader_part_ours() {
    local begun leader
    leader=$(leader_ours)
    begun=$(now_ms)
    change_ours remove "$leader"
    TOOK=$(($(now_ms) - begun))
}

# --- etcd ---

etcd_asks() { # ID PATH BODY
    curl -s -m 5 -d "$3" "$(etcd_url "$1")/v3/$2"
}

# Prints the number that etcd has given the member with this name.
etcd_member() { # NAME
    local list
    list=$(etcd_asks "$ETCD_LEADER" cluster/member/list '{}')
    sed 's/},{/\n/g' <<<"$list" | sed -n "s/.*\"ID\":\"\([0-9]*\)\".*\"name\":\"$1\".*/\1/p"
}

# Makes a new member known to etcd and starts it, on the ports of PLACE and PLACE + 3; then promotes
# it. Sets TOOK: for how many milliseconds that went on, from the start of the process.
join_etcd() { # PLACE
    local name=n$1 url added number begun members='' id
    url=$(etcd_url $(($1 + 4)))
    added=$(etcd_asks "$ETCD_LEADER" cluster/member/add \
        "{\"peerURLs\":[\"$url\"],\"isLearner\":true}")
    number=$(sed -n 's/.*"member":{"ID":"\([0-9]*\)".*/\1/p' <<<"$added")
    [[ -n $number ]] || die "etcd does not let a member in: $added"
    for id in 1 2 3; do
        if [[ -n $(etcd_member "n$id") ]]; then members+="n$id=$(etcd_url $((id + 3))),"; fi
    done
    mkdir -p "$WORK/etcd"
    begun=$(now_ms)
    etcd --name "$name" --data-dir "$WORK/etcd/$name" \
        --listen-client-urls "$(etcd_url $(($1 + 3)))" \
        --advertise-client-urls "$(etcd_url $(($1 + 3)))" --listen-peer-urls "$url" \
        --initial-advertise-peer-urls "$url" --initial-cluster "$members$name=$url" \
        --initial-cluster-state existing --quota-backend-bytes 8589934592 --logger zap \
        --log-level error </dev/null >>"$WORK/etcd/$name.log" 2>&1 &
    OWN+=("$!")
    ETCD_PIDS+=("$!")
    wait_until 300 promoted_etcd "$number" || die "etcd does not promote $name"
    TOOK=$(($(now_ms) - begun))
}

promoted_etcd() { # NUMBER
    local answer
    answer=$(etcd_asks "$ETCD_LEADER" cluster/member/promote "{\"ID\":\"$1\"}")
    [[ $answer == *'"members"'* ]]
}

replace_etcd() {
    local id=$((ETCD_LEADER % 3 + 1)) number
    number=$(etcd_member "n$id")
    crash "${ETCD_PIDS[$id]}"
    sleep 2
    etcd_asks "$ETCD_LEADER" cluster/member/remove "{\"ID\":\"$number\"}" >/dev/null
    join_etcd 5
}

add_etcd() { join_etcd 4; }

remove_etcd() {
    local begun number
    number=$(etcd_member n4)
    begun=$(now_ms)
    etcd_asks "$ETCD_LEADER" cluster/member/remove "{\"ID\":\"$number\"}" >/dev/null
    TOOK=$(($(now_ms) - begun))
}

leader_part_etcd() {
    local begun number
    number=$(etcd_member "n$ETCD_LEADER")
    begun=$(now_ms)
    etcd_asks "$ETCD_LEADER" cluster/member/remove "{\"ID\":\"$number\"}" >/dev/null
    TOOK=$(($(now_ms) - begun))
}

# --- the parts ---

load_of() { # SYSTEM
    case $1 in
    ours) load_ours put 64 64 "$SECONDS_EACH" --rate "$RATE" ;;
    etcd) load_etcd put 64 64 "$SECONDS_EACH" "rate=$RATE" ;;
    esac
}

# Runs one part under load and prints its row.
part() { # SYSTEM PART
    local load line name
    TOOK=-
    load_of "$1" >"$WORK/load" &
    load=$!
    OWN+=("$load")
    sleep 2
    case $2 in
    calm) ;;
    leader) "leader_part_$1" ;;
    *) "$2_$1" ;;
    esac
    wait "$load" || die "the load on $1 failed; it says: $(cat "$WORK/load")"
    forget "$load"
    line=$(tail -n 1 "$WORK/load")
    printf '| %s | %s | %s |' "$2" "$1" "$TOOK"
    for name in gap_ms max_us p99_us p50_us throughput failures; do
        printf ' %s |' "$(field "$name" "$line")"
    done
    printf '\n'
}

# A system is started afresh for each part that leaves it with other nodes than before; add and
# remove belong together.
run_parts() { # SYSTEM
    local system=$1 name
    for name in "${PARTS[@]}"; do
        wanted "$name" || continue
        if [[ $name == wiped && $system == etcd ]]; then continue; fi
        say "$system: $name"
        if [[ $name != remove ]] || ! wanted add; then
            "start_$system"
            "fill_$system" "$KEYS"
        fi
        if [[ $name == remove ]] && ! wanted add; then "add_$system"; fi
        part "$system" "$name"
        if [[ $name != add ]] || ! wanted remove; then
            end_own "${OWN[@]}"
            "stop_$system"
        fi
    done
}

# Leaves etcd out if it is not installed.
find_etcd() {
    if ! command -v etcd >/dev/null || ! command -v curl >/dev/null; then
        say "etcd or curl is not installed: etcd is left out"
        SYSTEMS=(ours)
        return
    fi
    ETCD_LOAD=$RAFTKV_BIN_DIR/etcd-load
    [[ -x $ETCD_LOAD ]] || build_etcd_load
}

main() {
    parse_options "$@"
    find_binaries
    WORK=$(mktemp -d "${TMPDIR:-/tmp}/raftkv-members.XXXXXX")
    clean_up_at_the_end
    local round system
    if [[ " ${SYSTEMS[*]} " == *" etcd "* ]]; then find_etcd; fi
    printf "| part | system | ms | gap, ms | longest put, us | p99, us | p50, us | puts/s |"
    printf " failed |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- |\n"
    for ((round = 1; round <= ROUNDS; round++)); do
        for system in "${SYSTEMS[@]}"; do run_parts "$system"; done
    done
}

main "$@"
