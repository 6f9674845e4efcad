#!/usr/bin/env bash
# Runs for longer what scripts/test.sh runs for a minute: the simulator, the schedule explorer,
# real nodes that are killed, and real nodes under all kinds of faults.
#
# usage: scripts/campaign.sh [MINUTES]
#
# Takes about MINUTES (30) besides the build: a third of them for the simulator, a third for nodes
# under faults, a sixth for nodes that are killed, and the rest for the schedules. All but the
# schedules take new seeds in each run, so that each run tries what none has tried before; each part
# says which ones it took. Ends with exit code 1 if anything failed; what is left to run is run all
# the same.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# In one run of the soak. Several short runs differ more than a long one: each chooses how many
# nodes there are and which faults are frequent.
SOAK_SECONDS=120
# For each test, in a minute of two processors: somewhat fewer than they manage.
SCHEDULES_A_MINUTE=20000
# What the simulator runs in a second of two processors, at least.
SEEDS_A_SECOND=50
FAILED=()

step() { # NAME COMMAND...
    say "--- $1"
    if "${@:2}"; then
        say "--- $1: ok"
    else
        say "--- $1: FAILED"
        FAILED+=("$1")
    fi
}

schedules() { # HOW_MANY
    (cd "$ROOT" && RAFTKV_SCHEDULES=$1 cargo test --profile verify --no-default-features \
        --features shuttle --test schedules)
}

main() {
    if [[ ${1:-} == -h || ${1:-} == --help ]]; then
        print_help
        exit 0
    fi
    (($# <= 1)) || die 2 "one number of minutes; see --help"
    local minutes=${1:-30} start run
    need_number MINUTES "$minutes" 6 10000
    command -v cargo >/dev/null || die "cargo is not installed: get Rust from https://rustup.rs"
    # Beyond those that scripts/test.sh begins with.
    start=$(((RANDOM * 32768 + RANDOM) * 100 + 1000000))
    step "simulator from seed $start" "$ROOT/scripts/sim.sh" --start "$start" \
        --seeds $((minutes * 20 * SEEDS_A_SECOND))
    for ((run = 1; run <= minutes * 20 / SOAK_SECONDS; run++)); do
        step "soak $run" "$ROOT/scripts/soak.sh" "$SOAK_SECONDS"
    done
    step "kill and restart" "$ROOT/scripts/kill_restart.sh" $((minutes * 5))
    step "kill and restart while members change" \
        "$ROOT/scripts/kill_restart.sh" --members $((minutes * 5))
    step "schedules" schedules $((minutes * SCHEDULES_A_MINUTE / 6))
    if ((${#FAILED[@]})); then
        printf 'FAILED: %s\n' "${FAILED[@]}" >&2
        exit 1
    fi
    say "all held"
}

main "$@"
