#!/usr/bin/env bash
# Runs a cluster on this machine, one process per node.
#
# usage: scripts/cluster.sh [--data DIR] [--ports BASE] COMMAND
#
#   start [N]    start the nodes that do not run and wait until a leader answers. N nodes found the
#                cluster, 3 by default; a folder keeps the nodes that it has
#   stop         stop all nodes cleanly
#   status       what each node's process does, and what the nodes say of themselves
#   kill ID      end a node as a crash would: kill -9
#   restart ID   start a node again; one that still runs is stopped cleanly first
#   pause ID     freeze a node: SIGSTOP
#   resume ID    let a frozen node go on: SIGCONT
#   add [ID]     start one more node, and wait until it votes; by default the first free id
#   remove ID    take a node out of the cluster, stop it and delete its data
#   replace ID   stop a node and delete its data, as if its machine were lost; start it with an
#                empty folder, and wait until it votes again
#   running      print the ids of the nodes whose processes run, frozen ones included
#   addresses    print the list that kvcli takes as --cluster
#   wipe         delete the data folder; only when all nodes are stopped
#
#   --data DIR    where the nodes keep their data, logs and process ids (./data/cluster)
#   --ports BASE  node 1 listens on BASE, node 2 on BASE+1, ... (7001, or what the folder had)
#   --quiet       say nothing unless something is wrong
#
# Several clusters run side by side if they have folders and ports of their own. The programs are
# built first; RAFTKV_BIN_DIR names a folder with kvnode and kvcli to use instead. RUST_LOG sets
# what the nodes log.
#
# In DIR: node-ID/ is the data of a node, node-ID.log its log, node-ID.pid its process id while it
# runs; change.log is what kvcli said of the last change of members; `lock` keeps two of these
# scripts from changing the cluster at the same time. `cluster` holds three lines: the first port
# and the number of founders; the ids of the nodes; the ids of those that joined later.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

DATA=$ROOT/data/cluster
BASE=
QUIET=
# The ids of the nodes, in ascending order, and those among them that joined.
IDS=()
JOINED=()
# How long a node may take until it votes, in seconds.
JOIN_LIMIT=300

main() {
    while (($# > 0)); do
        case $1 in
        --data) need_value "$1" $# && DATA=$2 && shift 2 ;;
        --ports) need_value "$1" $# && BASE=$2 && shift 2 ;;
        --quiet) QUIET=1 && shift ;;
        -h | --help) print_help && exit 0 ;;
        -*) die 2 "there is no option $1; see --help" ;;
        *) break ;;
        esac
    done
    (($# > 0)) || die 2 "which command? start, stop, status, kill, restart, pause, resume," \
        "add, remove, replace, running, addresses or wipe; see --help"
    local command=$1
    shift
    case $command in
    start) (($# <= 1)) || die 2 "start takes one number; see --help" ;;
    add) (($# <= 1)) || die 2 "add takes the id of one node; see --help" ;;
    kill | restart | pause | resume | remove | replace)
        (($# == 1)) || die 2 "$command takes the id of one node"
        ;;
    stop | status | running | addresses | wipe)
        (($# == 0)) || die 2 "$command takes nothing else; see --help"
        ;;
    *) die 2 "there is no command '$command'; see --help" ;;
    esac
    case $command in
    start | stop | kill | restart | pause | resume | add | remove | replace | wipe) lock_folder ;;
    esac
    load_settings
    "command_$command" "$@"
}

# Two of these scripts never change one cluster at the same time. The nodes do not inherit the lock.
lock_folder() {
    DATA=$(realpath -m -- "$DATA")
    # There is nothing to lock, nor to stop or kill, where there is no folder; start makes it.
    [[ $command == start || -d $DATA ]] || return 0
    mkdir -p -- "$DATA" || die "cannot make the folder $DATA; choose another with --data"
    exec 9>"$DATA/lock"
    flock --wait 120 9 || die "another cluster.sh has been busy in $DATA for 120 s"
}

note() { if [[ -z $QUIET ]]; then say "$@"; fi; }

# Reads what the folder was made with. Sets BASE, COUNT (the number of founders, empty for a new
# folder), IDS, JOINED and DATA.
load_settings() {
    local id kept_base='' kept_count=''
    DATA=$(realpath -m -- "$DATA")
    if [[ -f $DATA/cluster ]]; then
        {
            read -r kept_base kept_count
            read -r -a IDS
            read -r -a JOINED
        } <"$DATA/cluster" || true
        need_number "the first port in $DATA/cluster" "$kept_base" 1 65535
        need_number "the number of founders in $DATA/cluster" "$kept_count" 1 9
        # A folder that was made before nodes could be added has the first line only.
        if ((${#IDS[@]} == 0)); then mapfile -t IDS < <(seq "$kept_count"); fi
        for id in "${IDS[@]}" "${JOINED[@]}"; do
            need_number "the id of a node in $DATA/cluster" "$id" 1 9
        done
    fi
    if [[ -n $BASE ]]; then need_number --ports "$BASE" 1 65526; fi
    COUNT=$kept_count
    if [[ -n $BASE && -n $kept_base && $BASE != "$kept_base" ]] && any_runs; then
        die "the cluster in $DATA runs on ports from $kept_base; stop it to give it others"
    fi
    BASE=${BASE:-${kept_base:-7001}}
}

need_cluster() {
    [[ -n $COUNT ]] || die "there is no cluster in $DATA; make one with start, or name its folder" \
        "with --data"
}

need_node() { # ID
    need_cluster
    need_number "the id of a node" "$1" 1 9
    is_among "$1" "${IDS[@]}" || die 2 "the cluster in $DATA has the nodes ${IDS[*]}, and no $1"
}

is_among() { # WORD WORDS...
    local word=$1 other
    shift
    for other in "$@"; do
        if [[ $word == "$other" ]]; then return 0; fi
    done
    return 1
}

# Prints the words after the first one, without that one.
without() { # WORD WORDS...
    local word=$1 other
    shift
    for other in "$@"; do
        if [[ $word != "$other" ]]; then printf '%s\n' "$other"; fi
    done
}

# The file is replaced as a whole: a script that is killed meanwhile leaves the old or the new one.
save_settings() {
    printf '%s\n' "$BASE $COUNT" "${IDS[*]}" "${JOINED[*]}" >"$DATA/cluster.new"
    mv -- "$DATA/cluster.new" "$DATA/cluster"
}

address_of() { # ID
    printf '127.0.0.1:%s' $((BASE + $1 - 1))
}

# The list for kvcli of all nodes but those that are named.
addresses_without() { # IDS...
    local id list=()
    for id in "${IDS[@]}"; do
        if ! is_among "$id" "$@"; then list+=("$(address_of "$id")"); fi
    done
    (IFS=, && printf '%s' "${list[*]}")
}

# Prints the process id of a node that runs. A process id may have been given to another process
# since: it is ours only if its command line is a node on that very folder.
pid_of() { # ID
    local pid='' argument previous='' argv=()
    read -r pid <"$DATA/node-$1.pid" 2>/dev/null || return 1
    [[ $pid =~ ^[0-9]+$ ]] || return 1
    mapfile -d '' -t argv 2>/dev/null <"/proc/$pid/cmdline" || return 1
    argv[0]=${argv[0]##*/}
    [[ ${argv[0]} == kvnode || ${argv[0]} == kvnode_unsynced ]] || return 1
    for argument in "${argv[@]}"; do
        if [[ $previous == --data && $argument == "$DATA/node-$1" ]]; then
            printf '%s' "$pid"
            return
        fi
        previous=$argument
    done
    return 1
} 2>/dev/null

runs() { pid_of "$1" >/dev/null; }

any_runs() {
    [[ -n $(command_running) ]]
}

# The letter of the process's state: R runs, S and D wait, T is frozen, Z is dead.
state_of() { # PID
    local stat
    read -r stat <"/proc/$1/stat" || return 1
    stat=${stat##*) }
    printf '%s' "${stat:0:1}"
} 2>/dev/null

# Whether a process has let go of its files and ports. One that nobody has waited for stays in the
# list of processes; it has let go once its last thread is gone.
is_gone() { # PID
    [[ -d /proc/$1 ]] || return 0
    local threads=("/proc/$1/task/"*)
    [[ $(state_of "$1" || printf Z) == Z ]] && ((${#threads[@]} == 1))
}

# Fails unless the port of a node can be had.
need_port() { # ID
    local port=$((BASE + $1 - 1))
    port_is_free "$port" ||
        die 5 "port $port, which node $1 needs, is in use; stop what listens there, or choose" \
            "other ports with --ports"
}

# Starts a node in a session of its own: what ends the terminal or its foreground job, such as
# Ctrl-C in a shell beside it, leaves it alone.
launch() { # ID
    local way=(--cluster "$(cluster_addresses "$BASE" "$COUNT")")
    if is_among "$1" "${JOINED[@]}"; then
        way=(--join "$(addresses_without "$1")" --listen "$(address_of "$1")")
    fi
    mkdir -p "$DATA/node-$1"
    RUST_LOG=${RUST_LOG:-info} setsid "$KVNODE" --id "$1" "${way[@]}" --data "$DATA/node-$1" \
        </dev/null >>"$DATA/node-$1.log" 2>&1 8>&- 9>&- &
    PIDS[$1]=$!
    printf '%s\n' "$!" >"$DATA/node-$1.pid"
}

# The node itself must listen: another process may have taken its port in the meantime.
listens_or_ended() { # ID
    listens "${PIDS[$1]}" $((BASE + $1 - 1)) || is_gone "${PIDS[$1]}"
}

# Waits until a node that was just launched listens.
await_node() { # ID
    wait_until 30 listens_or_ended "$1" ||
        die "node $1 does not listen after 30 s; its log is $DATA/node-$1.log"
    is_gone "${PIDS[$1]}" || return 0
    local code=0
    wait "${PIDS[$1]}" || code=$?
    rm -f "$DATA/node-$1.pid"
    say "the end of $DATA/node-$1.log:"
    tail -n 5 "$DATA/node-$1.log" | sed 's/^/    /' >&2
    case $code in
    2) die "$code" "node $1 does not accept its options" ;;
    3) die "$code" "node $1: another process holds $DATA/node-$1" ;;
    4) die "$code" "node $1 cannot use the data in $DATA/node-$1; see above for what to do" ;;
    5) die "$code" "node $1 cannot have port $((BASE + $1 - 1)); choose others with --ports" ;;
    *) die "node $1 ended at its start with exit code $code" ;;
    esac
}

command_start() { # [N]
    local id has=${#IDS[@]} stopped=()
    local wanted=${1:-$((has ? has : 3))}
    need_number "the number of nodes" "$wanted" 1 9
    [[ -z $COUNT || $has == "$wanted" ]] ||
        die "the cluster in $DATA has $has nodes, not $wanted; add or remove some, wipe it, or" \
            "choose another --data"
    if [[ -z $COUNT ]]; then
        COUNT=$wanted
        mapfile -t IDS < <(seq "$COUNT")
    fi
    find_binaries
    for id in "${IDS[@]}"; do
        if ! runs "$id"; then stopped+=("$id"); fi
    done
    # Nothing is started or written down unless everything can be.
    for id in "${stopped[@]}"; do need_port "$id"; done
    save_settings
    declare -gA PIDS=()
    for id in "${stopped[@]}"; do launch "$id"; done
    for id in "${stopped[@]}"; do await_node "$id"; done
    wait_until 60 leader_answers "$(command_addresses)" ||
        die "no leader after 60 s; the logs are $DATA/node-*.log"
    note "${#stopped[@]} of ${#IDS[@]} nodes started: kvcli --cluster $(command_addresses)"
}

# Signals a node and waits until it has ended.
end_node() { # ID SIGNAL SECONDS
    local pid
    pid=$(pid_of "$1") || return 0
    kill -"$2" "$pid" 2>/dev/null || true
    # A frozen process takes the signal once it goes on.
    kill -CONT "$pid" 2>/dev/null || true
    wait_until "$3" is_gone "$pid" || return 1
    rm -f "$DATA/node-$1.pid"
}

command_stop() {
    need_cluster
    local id pid failed=0
    for id in "${IDS[@]}"; do
        if pid=$(pid_of "$id"); then kill -TERM "$pid" 2>/dev/null || true; fi
    done
    for id in "${IDS[@]}"; do
        if ! end_node "$id" TERM 15; then
            say "node $id did not stop within 15 s and is killed; its log is $DATA/node-$id.log"
            end_node "$id" KILL 15 || die "node $id cannot be killed"
            failed=1
        fi
    done
    note "stopped"
    return "$failed"
}

command_status() {
    need_cluster
    local id pid
    for id in "${IDS[@]}"; do
        if ! pid=$(pid_of "$id"); then
            printf 'node %s  stopped\n' "$id"
        elif [[ $(state_of "$pid") == T ]]; then
            printf 'node %s  paused   pid %s\n' "$id" "$pid"
        else
            printf 'node %s  running  pid %s\n' "$id" "$pid"
        fi
    done
    find_binaries
    "$KVCLI" --cluster "$(command_addresses)" -o table status
}

command_kill() { # ID
    need_node "$1"
    runs "$1" || die "node $1 does not run"
    end_node "$1" KILL 15 || die "node $1 does not end; its log is $DATA/node-$1.log"
    note "node $1 killed"
}

command_restart() { # ID
    need_node "$1"
    find_binaries
    end_node "$1" TERM 15 || die "node $1 does not stop within 15 s; use kill $1 first"
    need_port "$1"
    declare -gA PIDS=()
    launch "$1"
    await_node "$1"
    note "node $1 restarted"
}

# pause and resume: SIGNAL and the state that it leads to.
signal_node() { # ID SIGNAL
    need_node "$1"
    local pid
    pid=$(pid_of "$1") || die "node $1 does not run; start it with restart $1"
    kill -"$2" "$pid"
}

command_pause() { # ID
    signal_node "$1" STOP
    note "node $1 paused"
}

command_resume() { # ID
    signal_node "$1" CONT
    note "node $1 resumed"
}

# Asks the cluster for a change of members and waits until it is done. The node that the change is
# about may not answer yet. Meanwhile other scripts may kill and restart nodes.
change_members() { # ID WORDS...
    local addresses code=0
    addresses=$(addresses_without "$1")
    flock --unlock 9
    "$KVCLI" --cluster "$addresses" --timeout "${JOIN_LIMIT}s" member "${@:2}" \
        >"$DATA/change.log" 2>&1 9>&- || code=$?
    lock_folder
    load_settings
    return "$code"
}

# Starts a node with an empty folder that joins the others, and waits until it votes. The leader
# lets nobody in while it has just heard the former folder, so it is asked again for a while.
let_in() { # ID WORD
    mapfile -t JOINED < <(without "$1" "${JOINED[@]}" && printf '%s\n' "$1")
    save_settings
    declare -gA PIDS=()
    launch "$1"
    await_node "$1"
    wait_until 10 change_members "$1" "$2" "$1=$(address_of "$1")" ||
        die "node $1 runs, and does not vote yet: $(tail -n 1 "$DATA/change.log"). See kvcli" \
            "member list, and its log $DATA/node-$1.log"
}

command_add() { # [ID]
    need_cluster
    local id=${1:-}
    if [[ -z $id ]]; then
        for ((id = 1; id <= 9; id++)); do
            if ! is_among "$id" "${IDS[@]}"; then break; fi
        done
        ((id <= 9)) || die "the cluster has 9 nodes, which is as many as this script runs"
    fi
    need_number "the id of the new node" "$id" 1 9
    ! is_among "$id" "${IDS[@]}" || die 2 "the cluster in $DATA has a node $id already"
    find_binaries
    need_port "$id"
    mapfile -t IDS < <(printf '%s\n' "${IDS[@]}" "$id" | sort -n)
    let_in "$id" add
    note "node $id added: kvcli --cluster $(command_addresses)"
}

command_remove() { # ID
    need_node "$1"
    ((${#IDS[@]} > 1)) || die "node $1 is the only one; stop and wipe end the whole cluster"
    find_binaries
    change_members "$1" remove "$1" ||
        die "node $1 is not removed: $(tail -n 1 "$DATA/change.log")"
    end_node "$1" TERM 15 || end_node "$1" KILL 15 ||
        die "node $1 does not end; its log is $DATA/node-$1.log"
    delete_node "$1"
    mapfile -t IDS < <(without "$1" "${IDS[@]}")
    mapfile -t JOINED < <(without "$1" "${JOINED[@]}")
    save_settings
    note "node $1 removed: kvcli --cluster $(command_addresses)"
}

command_replace() { # ID
    need_node "$1"
    ((${#IDS[@]} > 1)) || die "node $1 is the only one: without its data nothing is left"
    find_binaries
    end_node "$1" TERM 15 || end_node "$1" KILL 15 ||
        die "node $1 does not end; its log is $DATA/node-$1.log"
    need_port "$1"
    delete_node "$1"
    let_in "$1" replace
    note "node $1 replaced"
}

# Deletes what the nodes themselves have written, and keeps their logs.
delete_node() { # ID
    rm -rf -- "$DATA/node-$1" "$DATA/node-$1.pid" "$DATA/node-$1.unsynced"
}

command_running() {
    local id
    for id in "${IDS[@]}"; do
        if runs "$id"; then printf '%s\n' "$id"; fi
    done
}

command_addresses() {
    need_cluster
    printf '%s\n' "$(addresses_without)"
}

# Deletes only what this script makes, so that a wrong --data harms nothing.
command_wipe() {
    need_cluster
    ! any_runs || die "nodes of $DATA still run; stop them first"
    local id
    # Also what is left of nodes that were removed.
    for id in {1..9}; do
        delete_node "$id"
        rm -f -- "$DATA/node-$id.log"
    done
    rm -f -- "$DATA/cluster" "$DATA/change.log" "$DATA/lock" "$DATA/run.lock"
    rmdir -- "$DATA" 2>/dev/null || note "$DATA holds other files and stays"
    note "wiped"
}

main "$@"
