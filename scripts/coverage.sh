#!/usr/bin/env bash
# Measures which lines and regions of the code run, by the simulator alone or in all tests.
#
# usage: scripts/coverage.sh sim [SEEDS]         the simulator alone, that many seeds (500)
#        scripts/coverage.sh all [NAME...]       all tests; with a NAME the tests of that name only
#        scripts/coverage.sh missing KIND FILE   the lines of a file that KIND (sim, all) never ran
#
# Prints for each folder of src how many of its regions, functions and lines ran; tests within a
# file count as a part of it, folders and files of tests do not. A process that is ended by a
# signal writes no counts, so what only kvnode does is counted where it stopped by itself.
#
# Everything stays in target/coverage. Needs nothing but rustup, which brings the tools that read
# the counts; where there is no rustup, an llvm-profdata and llvm-cov of version 19 or later in
# the PATH do as well.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

WORK=${CARGO_TARGET_DIR:-$ROOT/target}/coverage
# What is no code of the product.
TESTS='/(tests?|testkit|sim|bin|cli)(/|\.rs)|_tests\.rs|/rustc/|/\.cargo/|/target/'

# Prints where a tool lies.
tool() { # NAME
    local own
    own=$(rustc --print sysroot)/lib/rustlib/$(rustc -vV | sed -n 's/^host: //p')/bin/$1
    if [[ ! -x $own ]] && command -v rustup >/dev/null; then
        rustup component add llvm-tools >&2 || say "rustup cannot install llvm-tools"
    fi
    if [[ -x $own ]]; then
        printf '%s' "$own"
    else
        command -v "$1" || die "there is no $1: run rustup component add llvm-tools"
    fi
}

# Runs cargo with counters in all code of this crate and its dependencies.
counted() {
    CARGO_TARGET_DIR=$WORK CARGO_PROFILE_DEV_OPT_LEVEL=1 CARGO_PROFILE_DEV_DEBUG=0 \
        RUSTFLAGS="-C instrument-coverage" LLVM_PROFILE_FILE=/dev/null \
        cargo "$@"
}

run_sim() { # SEEDS
    counted build --quiet --package raftkv-verify --bin kvsim
    LLVM_PROFILE_FILE=$WORK/sim/%p-%m.profraw "$WORK/debug/kvsim" --seeds "$1" ||
        say "the run failed; what it reached counts all the same"
    printf '%s\n' "$WORK/debug/kvsim" >"$WORK/sim/programs"
}

run_all() { # NAME...
    local programs=$WORK/all/programs
    counted test --quiet --workspace --no-run --message-format=json |
        sed -nE 's/.*"executable":"([^"]+)".*/\1/p' | sort -u >"$programs"
    local program
    while IFS= read -r program; do
        # The programs themselves are run by the tests.
        [[ $program == */deps/* ]] || continue
        (cd "$ROOT" && LLVM_PROFILE_FILE=$WORK/all/%p-%m.profraw "$program" -q "$@") </dev/null ||
            say "${program##*/} failed: its counts are in all the same"
        # Some tests start many processes.
        merge all
    done <"$programs"
}

# Adds what has been counted since to the counts.
merge() { # KIND
    local folder=$WORK/$1 old=()
    [[ -f $folder/counts ]] && old=("$folder/counts")
    find "$folder" -name '*.profraw' >"$folder/list"
    [[ -s $folder/list ]] || return 0
    "$(tool llvm-profdata)" merge -sparse -failure-mode=all -f "$folder/list" "${old[@]}" \
        -o "$folder/new" 2>"$folder/merge.log"
    mv -- "$folder/new" "$folder/counts"
    xargs rm -f -- <"$folder/list"
}

# Calls llvm-cov for a kind with the programs that it counted.
read_counts() { # KIND COMMAND ARGUMENTS...
    local kind=$1 command=$2 program objects=()
    shift 2
    while IFS= read -r program; do objects+=(-object "$program"); done <"$WORK/$kind/programs"
    "$(tool llvm-cov)" "$command" -instr-profile="$WORK/$kind/counts" "${objects[@]:1:1}" \
        "${objects[@]:2}" "$@" 2>"$WORK/$kind/read.log"
}

report() { # KIND
    printf '%-14s %8s %8s %8s\n' folder regions functions lines
    read_counts "$1" report -ignore-filename-regex="$TESTS" |
        awk '$2 ~ /^[0-9]+$/ && $1 != "TOTAL" {
                 path = $1; sub(/.*src\//, "", path); n = split(path, part, "/")
                 folder = "src/" (n > 1 ? part[1] : "")
                 for (i = 0; i < 3; i++) {
                     all[folder, i] += $(2 + 3 * i); missed[folder, i] += $(3 + 3 * i)
                 }
                 seen[folder] = 1
             }
             END {
                 for (folder in seen) {
                     printf "%-14s", folder
                     for (i = 0; i < 3; i++) {
                         share = all[folder, i] ? 1 - missed[folder, i] / all[folder, i] : 1
                         printf " %7.1f%%", 100 * share
                     }
                     print ""
                 }
             }' | sort
}

missing() { # KIND FILE
    read_counts "$1" show "$ROOT/$2" | sed -nE 's/^ *([0-9]+)\| *0\|(.*)/\1 \2/p'
}

main() {
    local act=${1:---help}
    shift || true
    case $act in
    -h | --help) print_help ;;
    sim | all)
        rm -rf -- "${WORK:?}/$act"
        mkdir -p "$WORK/$act"
        if [[ $act == sim ]]; then
            need_number SEEDS "${1:-500}" 1 1000000
            run_sim "${1:-500}"
        else
            run_all "$@"
        fi
        merge "$act"
        report "$act"
        ;;
    missing)
        (($# == 2)) || die 2 "missing needs a kind and a file; see --help"
        [[ -f $WORK/$1/counts ]] || die "nothing is counted yet: run scripts/coverage.sh $1"
        missing "$1" "$2"
        ;;
    *) die 2 "there is no '$act'; see --help" ;;
    esac
}

main "$@"
