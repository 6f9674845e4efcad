#!/usr/bin/env bash
# Runs real nodes under real faults, checks what their clients saw, and writes a report.
#
# usage: scripts/soak.sh [SECONDS] [SEED]
#        scripts/soak.sh --check FOLDER
#
# For SECONDS (60), three or five kvnode processes behind proxies of our own serve several clients
# while nodes are killed, stopped, frozen and cut off, bytes delayed, lost and changed, disks
# filled, and folders taken away. Then everything is healed: the work must go on, all nodes must
# hold the same, and what the clients saw must be linearizable. SEED decides about the faults, the
# clients and what they ask for; without it one is made up.
#
# The nodes are kvnode_unsynced: kvnode on a disk that keeps what was not synced in the memory of
# the process, so that kill -9 loses and tears it as a power failure does.
#
# The report goes to standard output. It stays in a folder beside the history, which --check checks
# again. Exit code 0 only if everything held. See docs/testing.md.
#
#   RAFTKV_BIN_DIR   a folder with the programs; without it they are built
#   RAFTKV_NODE      the node's program: kvnode_unsynced, or kvnode for the real disk
#   RAFTKV_SOAK_DIR  the folder for the run; it must be new or empty
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# Sets RUNNER.
find_runner() {
    if [[ -n ${RAFTKV_BIN_DIR:-} ]]; then
        RUNNER=$RAFTKV_BIN_DIR/kvsoak
    else
        (cd "$ROOT" && cargo build --quiet --release --bins &&
            cargo build --quiet --release --package raftkv-verify --bins) >&2 ||
            die "the build failed; the compiler's messages are above"
        RUNNER=${CARGO_TARGET_DIR:-$ROOT/target}/release/kvsoak
    fi
    [[ -x $RUNNER ]] || die "there is no program $RUNNER; is RAFTKV_BIN_DIR right?"
}

main() {
    case ${1:-} in
    -h | --help) print_help && exit 0 ;;
    --check)
        (($# == 2)) || die 2 "--check needs one folder; see --help"
        find_runner
        exec "$RUNNER" --check "$2"
        ;;
    -*) die 2 "there is no option $1; see --help" ;;
    esac
    (($# <= 2)) || die 2 "two numbers at the most; see --help"
    local seconds=${1:-60} seed=${2:-$((RANDOM * 32768 + RANDOM))} folder
    need_number SECONDS "$seconds" 5 86400
    need_number SEED "$seed" 0 999999999
    find_runner
    folder=${RAFTKV_SOAK_DIR:-$(mktemp -d "${TMPDIR:-/tmp}/raftkv-soak.XXXXXX")}
    say "soak: $seconds s with seed $seed in $folder"
    # It ends what it started, also when it is interrupted.
    exec "$RUNNER" --node "${RAFTKV_NODE:-kvnode_unsynced}" \
        --seconds "$seconds" --seed "$seed" --folder "$folder"
}

main "$@"
