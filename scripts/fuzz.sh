#!/usr/bin/env bash
# Fuzzes everything that reads bytes from outside, guided by coverage: the targets of tests/fuzz
# under libFuzzer, on a stable toolchain.
#
# usage: scripts/fuzz.sh [SECONDS] [TARGET...]
#        scripts/fuzz.sh --keep [TARGET...]
#
# Each target runs for so many seconds (60); without a TARGET all of them run, one after the other.
# Prints for each how many inputs it tried, how many edges of the program they covered at first and
# in the end, and how many inputs it keeps and how many made it fail. Exit code 1 if any did: they
# then lie in target/fuzz/crashes. RAFTKV_FUZZ_INPUT=FILE cargo test --test fuzz TARGET runs one
# alone, with a backtrace.
#
# With --keep, writes the smallest set of short inputs that reaches every edge reached so far to
# fuzz/corpus/TARGET.hex, from which cargo test starts too. Lines there that begin with # stay, and
# each with the line below it: that is the place for an input that made a target fail.
#
#   RAFTKV_FUZZ_JOBS  how many processes work on a target at a time (1)
#
# Inputs are kept from run to run in target/fuzz/corpus. Needs a C++ compiler for libFuzzer, which
# comes with the crate libfuzzer-sys; where there is none and this may install one, it does. No
# nightly compiler is needed: the counters are put in by a pass of LLVM that stable rustc has.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

SECONDS_EACH=60
JOBS=${RAFTKV_FUZZ_JOBS:-1}
HOST=
WORK=
FAILED=()

need_compiler() {
    if command -v c++ >/dev/null || command -v clang++ >/dev/null; then return; fi
    command -v apt-get >/dev/null || die "install a C++ compiler: libFuzzer is built with it"
    say "installing a C++ compiler for libFuzzer..."
    local sudo=()
    ((EUID == 0)) || sudo=(sudo)
    "${sudo[@]}" apt-get update -qq || die "cannot install one; install g++ or clang"
    "${sudo[@]}" apt-get install -qq -y g++ >/dev/null ||
        die "cannot install one; install g++ or clang"
}

# Counters on every edge, and the operands of comparisons: what libFuzzer is guided by. With
# --target the build scripts stay without them.
build() {
    local flags=(
        --cfg fuzzing
        -C passes=sancov-module
        -C llvm-args=-sanitizer-coverage-level=4
        -C llvm-args=-sanitizer-coverage-inline-8bit-counters
        -C llvm-args=-sanitizer-coverage-pc-table
        -C llvm-args=-sanitizer-coverage-trace-compares
    )
    say "building (the first time takes a few minutes)..."
    CARGO_ENCODED_RUSTFLAGS=$(IFS=$'\x1f' && printf '%s' "${flags[*]}") \
        cargo build --quiet --release --locked --target "$HOST" \
        --manifest-path "$ROOT/fuzz/Cargo.toml" --target-dir "$WORK"
}

# The seeds are made by the code that the targets share with cargo test.
write_seeds() {
    RAFTKV_FUZZ_SEEDS=$WORK/seeds \
        cargo test --quiet --manifest-path "$ROOT/Cargo.toml" --test fuzz \
        seeds_are_written >/dev/null
}

# The first and the last number behind a word in the log of libFuzzer.
first() { sed -nE "s/.* $1: ([0-9]+).*/\1/p" "$2" | head -n 1; }
last() { sed -nE "s/.* $1: ([0-9]+).*/\1/p" "$2" | tail -n 1; }

fuzz() { # TARGET
    local target=$1 log=$WORK/$1.log corpus=$WORK/corpus/$1 before after
    mkdir -p "$corpus" "$WORK/crashes"
    before=$(count_crashes "$target")
    # A crash ends one job; the others and the next ones go on. The limit on addresses is for memory
    # that is asked for because a length says so, and never touched: no resident size shows it.
    (
        ulimit -v $((2 << 20))
        RAFTKV_FUZZ_TARGET=$target exec "$WORK/$HOST/release/raftkv-fuzz" \
            -max_total_time="$SECONDS_EACH" -timeout=10 -rss_limit_mb=2048 -max_len=4096 \
            -fork="$JOBS" -ignore_crashes=1 -ignore_timeouts=0 -ignore_ooms=0 \
            -artifact_prefix="$WORK/crashes/$target-" "$corpus" "$WORK/seeds/$target"
    ) >"$log" 2>&1 || true
    after=$(count_crashes "$target")
    printf '%-10s %10s inputs  edges %5s -> %-5s  kept %5s  crashes %s\n' "$target" \
        "$(sed -nE 's/^#([0-9]+): cov: .*/\1/p' "$log" | tail -n 1)" \
        "$(first cov "$log")" "$(last cov "$log")" "$(find "$corpus" -type f | wc -l)" \
        "$((after - before))"
    # Not a word of coverage: it has not run.
    if ((after > before)) || [[ -z $(last cov "$log") ]]; then FAILED+=("$target: see $log"); fi
}

keep() { # TARGET
    local target=$1 merged=$WORK/merged/$1 file=$ROOT/fuzz/corpus/$1.hex failures input
    rm -rf -- "$merged"
    mkdir -p "$merged" "$WORK/corpus/$target"
    RAFTKV_FUZZ_TARGET=$target "$WORK/$HOST/release/raftkv-fuzz" -set_cover_merge=1 \
        -use_counters=0 -max_len=300 "$merged" "$WORK/corpus/$target" "$WORK/seeds/$target" \
        >"$WORK/$target.log" 2>&1 || die "the merge failed: see $WORK/$target.log"
    failures=$(grep -s -A1 '^#' "$file" | grep -v '^--$' || true)
    {
        if [[ -n $failures ]]; then printf '%s\n' "$failures"; fi
        for input in "$merged"/*; do
            od -An -v -tx1 "$input" | tr -d ' \n'
            printf '\n'
        done | sort -u
    } >"$file.new"
    mv -- "$file.new" "$file"
    printf '%-10s %5s inputs kept\n' "$target" "$(grep -vc '^#' "$file")"
}

count_crashes() { find "$WORK/crashes" -name "$1-*" -type f | wc -l; }

main() {
    if [[ ${1:-} == -h || ${1:-} == --help ]]; then
        print_help
        exit 0
    fi
    local act=fuzz
    if [[ ${1:-} == --keep ]]; then
        act=keep
        shift
    elif (($# > 0)); then
        SECONDS_EACH=$1
        shift
    fi
    need_number SECONDS "$SECONDS_EACH" 1 8640000
    need_number RAFTKV_FUZZ_JOBS "$JOBS" 1 256
    command -v cargo >/dev/null || die "cargo is not installed: get Rust from https://rustup.rs"
    HOST=$(rustc -vV | sed -n 's/^host: //p')
    WORK=${CARGO_TARGET_DIR:-$ROOT/target}/fuzz
    need_compiler
    build
    write_seeds
    local targets=("$@") target
    if (($# == 0)); then mapfile -t targets < <(cd "$WORK/seeds" && printf '%s\n' *); fi
    for target in "${targets[@]}"; do
        [[ -d $WORK/seeds/$target ]] ||
            die 2 "there is no target '$target'; there are: $(cd "$WORK/seeds" && echo *)"
        "$act" "$target"
    done
    if ((${#FAILED[@]})); then
        printf 'FAILED: %s\n' "${FAILED[@]}" >&2
        exit 1
    fi
}

main "$@"
