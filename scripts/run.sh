#!/usr/bin/env bash
# Builds, runs a three-node cluster on this machine and opens the kvcli shell on it.
#
# usage: scripts/run.sh [--data DIR] [--ports BASE] [--nodes N] [COMMAND...]
#
# With a terminal, this is an interactive shell; Ctrl-D leaves it and stops the cluster. With
# standard input from a file or a pipe, its lines are executed as commands, and only their answers
# come out on standard output:
#
#     printf 'put colour green\nget colour\n' | scripts/run.sh
#
# With a COMMAND, that one is executed. The exit code is kvcli's: 0 done, 1 the server said no,
# 2 usage, 3 no connection, 4 unknown outcome.
#
#   --data DIR    where the data is kept (./data/run). It outlives the cluster: the next run, of
#                 whichever kind, finds what this one wrote. To begin again:
#                 scripts/cluster.sh --data data/run wipe
#   --ports BASE  the first of the ports (7001). If one of them is taken, others are chosen.
#   --nodes N     how many nodes a new folder gets (3)
#
# If the cluster of the folder runs already, this joins it; it ends with what started it.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

DATA=$ROOT/data/run
BASE=7001
NODES=()
while (($# > 0)); do
    case $1 in
    --data) need_value "$1" $# && DATA=$2 && shift 2 ;;
    --ports) need_value "$1" $# && BASE=$2 && shift 2 ;;
    --nodes) need_value "$1" $# && NODES=("$2") && shift 2 ;;
    -h | --help) print_help && exit 0 ;;
    --) shift && break ;;
    -*) die 2 "there is no option $1; see --help" ;;
    *) break ;;
    esac
done
need_number --ports "$BASE" 1 60000
if ((${#NODES[@]})); then need_number --nodes "${NODES[0]}" 1 9; fi

cluster() { "$ROOT/scripts/cluster.sh" --quiet --data "$DATA" "$@"; }

STARTED=
# shellcheck disable=SC2317 # Called by the trap.
stop_cluster() {
    local code=$?
    trap - EXIT
    if [[ -n $STARTED ]]; then cluster stop >&2 || true; fi
    exit "$code"
}

# Between the look for free ports and their use another cluster may take them: then look again.
start_cluster() {
    local attempt base code errors count=${NODES[0]:-3}
    if [[ -f $DATA/cluster ]]; then read -r _ count <"$DATA/cluster"; fi
    STARTED=1
    for attempt in 1 2 3; do
        base=$(free_ports "$BASE" "$count")
        code=0
        errors=$(cluster --ports "$base" start "${NODES[@]}" 2>&1 </dev/null) || code=$?
        if ((code == 0)); then return; fi
        if ((code != 5)); then break; fi
        say "port $base or one of the next was taken in the meantime; attempt $attempt of 3"
        cluster stop >&2 || true
    done
    say "$errors"
    die "the cluster in $DATA did not start"
}

# Ctrl-C is for kvcli, which cancels the request under way; this script waits for it to end.
trap : INT
trap stop_cluster EXIT
trap 'exit 143' TERM
trap 'exit 129' HUP

find_binaries
mkdir -p -- "$DATA" || die "cannot make the folder $DATA; choose another with --data"
exec 8>"$DATA/run.lock"
if ! flock --nonblock 8; then
    say "another run.sh has the cluster in $DATA: joining it; it ends with the other one"
    # This waits until the other one has started it.
    cluster start >&2 </dev/null
elif [[ -n $(cluster running) ]]; then
    say "the cluster in $DATA runs already: joining it, and leaving it running"
else
    start_cluster
fi

addresses=$(cluster addresses)
if [[ -t 0 && -t 1 && $# == 0 ]]; then
    say "cluster of $DATA: $addresses. Ctrl-D leaves and stops it; the data stays."
fi
code=0
"$KVCLI" --cluster "$addresses" "$@" || code=$?
exit "$code"
