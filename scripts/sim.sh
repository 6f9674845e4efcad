#!/bin/sh
# Runs the simulator: scripts/sim.sh [--seeds N] [--start SEED] [--seed S] [--canary NAME]
# Exit code 0 only if every seed held; the last line is a summary. See docs/testing.md.
set -eu
cd "$(dirname "$0")/.."
cargo build --quiet --release --no-default-features --features sim --bin kvsim
exec "${CARGO_TARGET_DIR:-target}/release/kvsim" "$@"
