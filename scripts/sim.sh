#!/usr/bin/env bash
# Runs the simulator: whole clusters in virtual time, one for each seed.
#
# usage: scripts/sim.sh [--seeds N] [--start SEED] [--threads T] [--canary NAME]
#        scripts/sim.sh --seed SEED [--canary NAME]    one seed, with its trace
#        scripts/sim.sh --canaries [--seeds N]         what it takes to catch each canary
#
# Exit code 0 only if every seed held; the last line is a summary. See docs/testing.md.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
cargo build --quiet --release --no-default-features --features sim --bin kvsim
exec "${CARGO_TARGET_DIR:-target}/release/kvsim" "$@"
