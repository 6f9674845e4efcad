#!/usr/bin/env bash
# Runs all the tests: unit, integration and documentation tests, the style guide (tests/tidy), the
# simulator (verify/tests), the threads of a node under a schedule explorer
# (tests/schedules), real nodes that are killed with kill -9 under load, and real nodes under all
# kinds of faults; the last two on a disk that then loses what was not synced.
#
# usage: scripts/test.sh [ARGUMENTS OF cargo test...]
#
# Takes about ten minutes on two processors from a fresh clone, of which half is the compiler's.
# scripts/campaign.sh runs the parts that find more the longer they run.
#
# Needs strace, for the tests that watch the system calls of a node.
#
# Ends with a summary, and with exit code 1 if anything failed; what is left to run is run all the
# same. With arguments, only the tests of cargo that they choose are run.
#
#   RAFTKV_SIM_SECONDS   how long the simulator runs (60)
#   RAFTKV_KILL_SECONDS  how long nodes are killed, once with and once without changes of members
#                        (20)
#   RAFTKV_SOAK_SECONDS  how long nodes are under faults (30)
#   RAFTKV_SCHEDULES     how many schedules of its threads each test of a node explores (2000)
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# The simulator's test reads it.
export RAFTKV_SIM_SECONDS=${RAFTKV_SIM_SECONDS:-60}
KILL_SECONDS=${RAFTKV_KILL_SECONDS:-20}
SOAK_SECONDS=${RAFTKV_SOAK_SECONDS:-30}
# One whose first half minute has a node killed, one frozen, one cut off, and a full disk.
SOAK_SEED=1
FAILED=()
LOG=

# Sums up the lines "test result: ok. 12 passed; 0 failed; 1 ignored; ...".
count() { # passed | failed | ignored
    local number sum=0
    while read -r number; do
        sum=$((sum + number))
    done < <(sed -nE "s/^test result: .* ([0-9]+) $1;.*/\1/p" "$LOG")
    printf '%s' "$sum"
}

step() { # NAME COMMAND...
    local name=$1 start
    shift
    start=$(now_ms)
    say "--- $name"
    if "$@"; then
        say "--- $name: ok ($((($(now_ms) - start) / 1000)) s)"
    else
        say "--- $name: FAILED"
        FAILED+=("$name")
    fi
}

# Most tests of nodes and processes wait more than they compute: with one test for each processor,
# the processors stand still half of the time.
run_tests() {
    RUST_TEST_THREADS=${RUST_TEST_THREADS:-$((2 * $(nproc)))} run_cargo "$@"
}

run_cargo() { cargo test --no-fail-fast "$@" 2>&1 | tee -a "$LOG"; }

# The programs as cargo builds them for its own tests, with all assertions in them.
kill_nodes() { # OPTIONS...
    RAFTKV_BIN_DIR=${CARGO_TARGET_DIR:-$ROOT/target}/debug \
        "$ROOT/scripts/kill_restart.sh" "$@" "$KILL_SECONDS"
}

# The report is of interest only if something did not hold; the folder is then kept.
soak() {
    local folder
    folder=$(mktemp -d "${TMPDIR:-/tmp}/raftkv-soak.XXXXXX")
    RAFTKV_BIN_DIR=${CARGO_TARGET_DIR:-$ROOT/target}/debug RAFTKV_SOAK_DIR=$folder \
        "$ROOT/scripts/soak.sh" "$SOAK_SECONDS" "$SOAK_SEED" >"$folder.report" || {
        cat -- "$folder.report"
        return 1
    }
    sed -n '/^| operations/p; /^| terms/p; /^| snapshots/p' "$folder.report"
    rm -rf -- "$folder" "$folder.report"
}

main() {
    if [[ ${1:-} == -h || ${1:-} == --help ]]; then
        print_help
        exit 0
    fi
    command -v cargo >/dev/null || die "cargo is not installed: get Rust from https://rustup.rs"
    need_number RAFTKV_SIM_SECONDS "$RAFTKV_SIM_SECONDS" 0 86400
    need_number RAFTKV_KILL_SECONDS "$KILL_SECONDS" 5 86400
    need_number RAFTKV_SOAK_SECONDS "$SOAK_SECONDS" 5 86400
    LOG=$(mktemp "${TMPDIR:-/tmp}/raftkv-test.XXXXXX")
    trap 'rm -f -- "$LOG"' EXIT
    cd "$ROOT"
    step "cargo test" run_tests "$@"
    if (($# == 0)); then
        step "simulator" run_cargo --profile verify --package raftkv-verify
        # Optimised, a schedule takes 0.25 ms instead of 6: far more is saved than the build costs.
        step "schedules" run_cargo --profile verify --no-default-features --features shuttle \
            --test schedules
        step "build of the programs" cargo build --quiet --workspace --bins
        step "kill and restart" kill_nodes
        step "kill and restart while members change" kill_nodes --members
        step "soak" soak
    fi
    say
    say "$(count passed) tests passed, $(count failed) failed, $(count ignored) ignored"
    (($(count passed) > 0)) || FAILED+=("no test was run")
    if ((${#FAILED[@]})); then
        printf 'FAILED: %s\n' "${FAILED[@]}" >&2
        exit 1
    fi
    say "all tests passed"
}

main "$@"
