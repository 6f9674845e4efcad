#!/usr/bin/env bash
# Runs a cluster on this machine, one process per node.
#
# usage: scripts/cluster.sh [--data DIR] [--ports BASE] COMMAND
#
#   start [N]    start the nodes that do not run (N of them, 3 by default; a folder keeps the
#                number that it was made with) and wait until a leader answers
#   stop         stop all nodes cleanly
#   status       what each node's process does, and what the nodes say of themselves
#   kill ID      end a node as a crash would: kill -9
#   restart ID   start a node again; one that still runs is stopped cleanly first
#   pause ID     freeze a node: SIGSTOP
#   resume ID    let a frozen node go on: SIGCONT
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
# runs; `cluster` holds the first port and the number of nodes, `lock` keeps two of these scripts
# from changing the cluster at the same time.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

DATA=$ROOT/data/cluster
BASE=
QUIET=

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
        "running, addresses or wipe; see --help"
    local command=$1
    shift
    case $command in
    start) (($# <= 1)) || die 2 "start takes one number; see --help" ;;
    kill | restart | pause | resume) (($# == 1)) || die 2 "$command takes the id of one node" ;;
    stop | status | running | addresses | wipe)
        (($# == 0)) || die 2 "$command takes nothing else; see --help"
        ;;
    *) die 2 "there is no command '$command'; see --help" ;;
    esac
    case $command in
    start | stop | kill | restart | pause | resume | wipe) lock_folder ;;
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

# Reads what the folder was made with. Sets BASE, COUNT (empty for a new folder) and DATA.
load_settings() {
    local kept_base='' kept_count=''
    DATA=$(realpath -m -- "$DATA")
    if [[ -f $DATA/cluster ]]; then
        read -r kept_base kept_count <"$DATA/cluster" || true
        need_number "the first port in $DATA/cluster" "$kept_base" 1 65535
        need_number "the number of nodes in $DATA/cluster" "$kept_count" 1 9
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
    need_number "the id of a node" "$1" 1 "$COUNT"
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
    mkdir -p "$DATA/node-$1"
    RUST_LOG=${RUST_LOG:-info} setsid "$KVNODE" --id "$1" \
        --cluster "$(cluster_addresses "$BASE" "$COUNT")" --data "$DATA/node-$1" \
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
    local id wanted=${1:-${COUNT:-3}} stopped=()
    need_number "the number of nodes" "$wanted" 1 9
    [[ -z $COUNT || $COUNT == "$wanted" ]] ||
        die "the cluster in $DATA has $COUNT nodes, not $wanted; wipe it, or choose another --data"
    COUNT=$wanted
    find_binaries
    for ((id = 1; id <= COUNT; id++)); do
        if ! runs "$id"; then stopped+=("$id"); fi
    done
    # Nothing is started or written down unless everything can be.
    for id in "${stopped[@]}"; do need_port "$id"; done
    printf '%s %s\n' "$BASE" "$COUNT" >"$DATA/cluster"
    declare -gA PIDS=()
    for id in "${stopped[@]}"; do launch "$id"; done
    for id in "${stopped[@]}"; do await_node "$id"; done
    wait_until 60 leader_answers "$(command_addresses)" ||
        die "no leader after 60 s; the logs are $DATA/node-*.log"
    note "${#stopped[@]} of $COUNT nodes started: kvcli --cluster $(command_addresses)"
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
    for ((id = 1; id <= COUNT; id++)); do
        if pid=$(pid_of "$id"); then kill -TERM "$pid" 2>/dev/null || true; fi
    done
    for ((id = 1; id <= COUNT; id++)); do
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
    for ((id = 1; id <= COUNT; id++)); do
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

command_running() {
    local id
    for ((id = 1; id <= ${COUNT:-0}; id++)); do
        if runs "$id"; then printf '%s\n' "$id"; fi
    done
}

command_addresses() {
    need_cluster
    printf '%s\n' "$(client_addresses "$BASE" "$COUNT")"
}

# Deletes only what this script makes, so that a wrong --data harms nothing.
command_wipe() {
    need_cluster
    ! any_runs || die "nodes of $DATA still run; stop them first"
    local id
    for ((id = 1; id <= COUNT; id++)); do
        rm -rf -- "$DATA/node-$id" "$DATA/node-$id.log" "$DATA/node-$id.pid" \
            "$DATA/node-$id.unsynced"
    done
    rm -f -- "$DATA/cluster" "$DATA/lock" "$DATA/run.lock"
    rmdir -- "$DATA" 2>/dev/null || note "$DATA holds other files and stays"
    note "wiped"
}

main "$@"
