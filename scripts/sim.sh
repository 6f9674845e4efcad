#!/usr/bin/env bash
# Runs the simulator: whole clusters in virtual time, one for each seed.
#
# usage: scripts/sim.sh [--seeds N] [--start SEED] [--threads T]
#        scripts/sim.sh --seed SEED    one seed, with its trace
#
# Exit code 0 only if every seed held; the last line is a summary. See docs/testing.md.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
cargo build --quiet --profile verify --package raftkv-verify --bin kvsim
exec "${CARGO_TARGET_DIR:-target}/verify/kvsim" "$@"
