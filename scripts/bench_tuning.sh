#!/usr/bin/env bash
# Measures what was tuned on a small machine, with and without each: is it worth its lines where a
# node has a machine to itself, and does it do harm there?
#
# usage: scripts/bench_tuning.sh [--seconds S] [--rounds N] [--only VARIANT,...]
#
#   --seconds S      how long each load lasts (10)
#   --rounds N       of how many rounds the median counts (4)
#   --run-in S       how long a cluster is loaded before its figures count (8)
#   --only VARIANTS  only these beside the product as it is: batch_threads, spares
#   --ports BASE     where to look for free ports (7401)
#
#   batch_threads    without batch scheduling of the busy threads (src/node/scheduling.rs)
#   spares           without segments that the courier makes ready ahead of time
#
# Each variant is the product with one line changed, made in a copy of this tree under
# target/tuning: the product has no option for it. Two places are measured: "shared", three nodes
# and the load on the same two processors; and "alone", one node on processor 0 and the load on
# processor 1. The first load, "fresh64", finds empty folders: no file of an old segment is there
# yet. The variants take turns within each round, and each round begins with another one.
#
# It takes about 70 seconds for each variant, place and round: with the defaults half an hour, and
# the builds. It needs nothing else to run on the machine meanwhile, which it cannot check. What it
# starts it ends, also on Ctrl-C.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=scripts/bench/systems.sh
source "$ROOT/scripts/bench/systems.sh"
# shellcheck source=scripts/bench/results.sh
source "$ROOT/scripts/bench/results.sh"

TUNING=${CARGO_TARGET_DIR:-$ROOT/target}/tuning
TREE=$TUNING/tree
WANTED_PORT=7401
SECONDS_EACH=10
RUN_IN=8
ROUNDS=4
WORK=
ONLY=batch_threads,spares
VARIANTS=(as_it_is)

# Each variant: a line of the product as a fixed string, and what takes its place.
declare -A LINE=(
    [batch_threads]='rustix::process::getpriority_process(None) == Ok(USUAL_NICENESS)'
    [spares]='wanted.load(Ordering::SeqCst) > done.load(Ordering::SeqCst)'
)
declare -A INSTEAD=(
    [batch_threads]='{ let _ = USUAL_NICENESS; false }'
    [spares]='{ let _ = (wanted, done); false }'
)

parse_options() {
    local variant
    while (($# > 0)); do
        case $1 in
        --seconds) need_value "$1" $# && SECONDS_EACH=$2 && shift 2 ;;
        --rounds) need_value "$1" $# && ROUNDS=$2 && shift 2 ;;
        --run-in) need_value "$1" $# && RUN_IN=$2 && shift 2 ;;
        --only) need_value "$1" $# && ONLY=$2 && shift 2 ;;
        --ports) need_value "$1" $# && WANTED_PORT=$2 && shift 2 ;;
        -h | --help) print_help && exit 0 ;;
        *) die 2 "there is no option $1; see --help" ;;
        esac
    done
    need_number --seconds "$SECONDS_EACH" 1 3600
    need_number --rounds "$ROUNDS" 1 99
    need_number --run-in "$RUN_IN" 1 3600
    need_number --ports "$WANTED_PORT" 1 60000
    for variant in ${ONLY//,/ }; do
        [[ -n ${LINE[$variant]:-} ]] || die 2 "there is no variant $variant; see --help"
        VARIANTS+=("$variant")
    done
    (($(nproc) >= 2)) || die "this needs two processors"
    command -v taskset >/dev/null || die "taskset is not installed (util-linux)"
}

# Makes the copy equal to this tree. Files that are equal stay untouched: cargo builds what changed.
copy_tree() {
    local file
    mkdir -p "$TREE"
    git -C "$ROOT" ls-files -z --cached --others --exclude-standard >"$TUNING/files"
    while IFS= read -r -d '' file; do
        [[ -e $ROOT/$file ]] || continue
        cmp --silent -- "$ROOT/$file" "$TREE/$file" && continue
        mkdir -p "$TREE/$(dirname "$file")"
        cp -- "$ROOT/$file" "$TREE/$file"
    done <"$TUNING/files"
}

# Changes the line of a variant in the copy. It must be there once: else this script is out of date.
change() { # VARIANT
    local line=${LINE[$1]} instead=${INSTEAD[$1]} files text
    mapfile -t files < <(grep --recursive --files-with-matches --fixed-strings \
        --include='*.rs' -e "$line" "$TREE/src")
    ((${#files[@]} == 1)) || die "variant $1: ${#files[@]} files hold the line \"$line\", not one"
    text=$(<"${files[0]}")
    printf '%s\n' "${text/"$line"/$instead}" >"${files[0]}"
}

build_variants() {
    local variant folder
    exec 9>"$TUNING/lock"
    flock --nonblock 9 || die "another run uses $TUNING; wait for its end"
    for variant in "${VARIANTS[@]}"; do
        say "building $variant"
        copy_tree
        if [[ $variant != as_it_is ]]; then change "$variant"; fi
        (cd "$TREE" && CARGO_TARGET_DIR=$TUNING/build cargo build --quiet --release \
            --bin kvnode --bin kvcli >&2) || die "variant $variant does not build"
        folder=$TUNING/bin/$variant
        mkdir -p "$folder"
        cp -- "$TUNING/build/release/kvnode" "$TUNING/build/release/kvcli" "$folder"
    done
}

# What this script starts from here on runs on these processors.
run_on() { # LIST
    taskset --all-tasks --pid --cpu-list "$1" $$ >/dev/null
}

use() { # VARIANT
    export RAFTKV_BIN_DIR=$TUNING/bin/$1
    KVNODE=$RAFTKV_BIN_DIR/kvnode
    KVCLI=$RAFTKV_BIN_DIR/kvcli
}

keep_load() { # ROW VARIANT CLIENTS CONNECTIONS [OPTION...]
    local line name value
    line=$(load_ours put "$3" "$4" "$SECONDS_EACH" "${@:5}")
    for name in throughput p50_us p99_us p99.9_us failures; do
        value=$(field "$name" "$line")
        printf '%s %s %s %s\n' "$1" "$2" "$name" "${value:--}" >>"$WORK/figures"
    done
}

measure() { # PLACE VARIANT NODES PROCESSORS_OF_NODES PROCESSORS_OF_LOAD
    say "  $1: $2"
    use "$2"
    run_on "$4"
    start_ours "$3"
    run_on "$5"
    keep_load "$1.fresh64" "$2" 64 64
    fill_ours "$KEYS"
    load_ours put 64 64 "$RUN_IN" >/dev/null || die "$2 does not take load"
    keep_load "$1.put1" "$2" 1 1
    keep_load "$1.put64" "$2" 64 64
    keep_load "$1.put256x8" "$2" 256 8
    # Fills a segment of the log several times a second.
    KEYS=100 keep_load "$1.put1of64k" "$2" 1 1 --value-size 64k
    stop_ours
}

# Measures each variant once, beginning with another one in each round: what a variant leaves behind
# (files that the disk still writes out, a cold or a warm machine) slows down the one after it.
in_turn() { # ROUND PLACE NODES PROCESSORS_OF_NODES PROCESSORS_OF_LOAD
    local i
    for ((i = 0; i < ${#VARIANTS[@]}; i++)); do
        measure "$2" "${VARIANTS[(i + $1) % ${#VARIANTS[@]}]}" "${@:3}"
    done
}

results() {
    local row variant name
    printf '| load | variant | puts/s | p50 us | p99 us | p99.9 us | failures |\n'
    printf '| --- | --- | --- | --- | --- | --- | --- |\n'
    for row in {shared,alone}.{fresh64,put1,put64,put256x8,put1of64k}; do
        for variant in "${VARIANTS[@]}"; do
            case $variant in
            as_it_is) printf '| %s | as it is |' "$row" ;;
            *) printf '| %s | without %s |' "$row" "$variant" ;;
            esac
            for name in throughput p50_us p99_us p99.9_us failures; do
                printf ' %s |' "$(median "$row" "$variant" "$name")"
            done
            printf '\n'
        done
    done
}

main() {
    local round variant
    parse_options "$@"
    mkdir -p "$TUNING" "$ROOT/data"
    build_variants
    WORK=$(mktemp -d "$ROOT/data/bench.XXXXXX")
    clean_up_at_the_end
    : >"$WORK/figures"
    for ((round = 1; round <= ROUNDS; round++)); do
        say "round $round of $ROUNDS"
        in_turn "$round" shared 3 0,1 0,1
        in_turn "$round" alone 1 0 1
    done
    results
}

main "$@"
