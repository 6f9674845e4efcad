#!/usr/bin/env bash
# Makes wrong variants of the product and requires that the tests notice: a check that no wrong
# variant has ever failed proves nothing.
#
# usage: scripts/canaries.sh [NAME...]     the canaries of these names; without one, all
#        scripts/canaries.sh --quick       a few that share one build: what a change must pass
#        scripts/canaries.sh --unit        those that unit tests notice, which share one build
#        scripts/canaries.sh --sim         those that the simulator notices
#        scripts/canaries.sh --slow        those that tests of whole nodes and processes notice
#        scripts/canaries.sh --list [GROUP]  their names, and the command that must notice each
#        scripts/canaries.sh --table       the table of docs/testing.md
#
# A canary is a file verify/canaries/NAME.patch: a change of the product, and above it what is
# wrong with it (what:), the command that must notice (check:), what must stand in its output
# (notices:), and what the change would cost in production (why:). For each one, the change is
# made in a copy of this tree under target/canaries, which is all that is written to. It counts as
# noticed only if the check fails and says that sentence: another failure is not the one that the
# check is there for.
#
# What was built is kept in target/canaries/target, so that each canary costs no more than to
# compile what it changes. A change that no longer fits its place line by line is merged, as git
# does with a commit on an older tree; if that leaves a conflict, the canary does not apply.
#
# Exit code 0 only if all were noticed. What a check prints is kept in target/canaries/NAME.log.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

PATCHES=$ROOT/verify/canaries
WORK=${CARGO_TARGET_DIR:-$ROOT/target}/canaries
TREE=$WORK/tree
# The copy as git sees it: a repository of its own, which borrows the objects of this one.
COPY=$WORK/copy.git
# Of the core, the store, the storage and the client; their checks take seconds.
QUICK=(
    two_votes_in_a_term
    commits_what_was_not_verified
    repeats_are_executed
    log_is_not_synced
    retries_get_a_new_number
)
# For a build from nothing on a slow machine, and the check.
MOST_SECONDS=1800

# Prints what stands behind a name and a colon above the change.
header() { # NAME FIELD
    sed -n "/^diff --git /q; s/^$2: //p" "$PATCHES/$1.patch"
}

# Prints the names of a group: all, quick, unit, sim or slow.
names_of() { # GROUP
    local patch name group
    if [[ $1 == quick ]]; then
        printf '%s\n' "${QUICK[@]}"
        return
    fi
    for patch in "$PATCHES"/*.patch; do
        name=${patch##*/}
        name=${name%.patch}
        case $(header "$name" check) in
        *' --lib '*) group=unit ;;
        *' --bin kvsim '*) group=sim ;;
        *) group=slow ;;
        esac
        if [[ $1 == all || $1 == "$group" ]]; then printf '%s\n' "$name"; fi
    done
}

# Prints the table of docs/testing.md, which `cargo test --test tidy` compares.
print_table() {
    local name check notices
    printf '| canary | what is wrong | noticed by |\n| --- | --- | --- |\n'
    while IFS= read -r name; do
        check=$(header "$name" check)
        notices=$(header "$name" notices)
        notices=${notices#FAILED: }
        case $check in
        *kvsim*) check="the simulator: ${notices%:}" ;;
        *) check="\`${check##*[ :]}\`" ;;
        esac
        printf '| [%s](../verify/canaries/%s.patch) | %s | %s |\n' \
            "$name" "$name" "$(header "$name" what)" "$check"
    done < <(names_of all)
}

# Makes the copy equal to this tree, whatever was left of an earlier run. A file that is equal stays
# untouched, so that cargo builds only what has changed.
copy_tree() {
    local file
    mkdir -p "$TREE"
    git -C "$ROOT" ls-files -z --cached --others --exclude-standard |
        LC_ALL=C sort -zu >"$WORK/files"
    while IFS= read -r -d '' file; do
        [[ -e $ROOT/$file ]] || continue
        cmp --silent -- "$ROOT/$file" "$TREE/$file" && continue
        mkdir -p "$TREE/$(dirname "$file")"
        cp -- "$ROOT/$file" "$TREE/$file"
    done <"$WORK/files"
    (cd "$TREE" && find . -type f -printf '%P\0') |
        while IFS= read -r -d '' file; do
            [[ -e $ROOT/$file ]] || rm -- "$TREE/$file"
        done
}

copy_git() {
    GIT_DIR=$COPY GIT_WORK_TREE=$TREE git -C "$TREE" -c core.autocrlf=false "$@"
}

# Lets git know the copy as it is, so that changes can be merged into it and taken back.
know_copy() {
    [[ -d $COPY ]] || git init --quiet --bare "$COPY"
    git -C "$ROOT" rev-parse --path-format=absolute --git-path objects \
        >"$COPY/objects/info/alternates"
    rm -f -- "$COPY/index"
    copy_git add --all --force .
}

apply() { # NAME
    copy_git apply "$PATCHES/$1.patch" || copy_git apply --3way "$PATCHES/$1.patch"
}

# Takes a change back. Only the files that it changed are written, so only they are built again.
take_back() {
    copy_git read-tree --reset -u "$CLEAN"
}

# Runs the check of a canary on the changed copy. Sets RESULT.
try() { # NAME
    local check sentence log=$WORK/$1.log
    check=$(header "$1" check)
    sentence=$(header "$1" notices)
    if [[ -z $check || -z $sentence || -z $(header "$1" why) ]]; then
        RESULT="has no check, notices or why"
    elif ! apply "$1" >"$log" 2>&1; then
        RESULT="does not apply"
        take_back
    else
        if (cd "$TREE" && CARGO_TARGET_DIR=$WORK/target timeout "$MOST_SECONDS" \
            bash -c "$check") >"$log" 2>&1; then
            RESULT="NOT NOTICED"
        elif grep --quiet --fixed-strings -e "$sentence" "$log"; then
            RESULT="noticed"
        elif grep --quiet '^error: could not compile' "$log"; then
            RESULT="does not build"
        else
            RESULT="fails otherwise"
        fi
        take_back
    fi
}

run() { # NAME...
    local name began seconds missed=0 table=()
    mkdir -p "$WORK"
    exec 9>"$WORK/lock"
    flock --nonblock 9 || die "another run uses $WORK; wait for its end"
    copy_tree
    know_copy
    CLEAN=$(copy_git write-tree)
    for name in "$@"; do
        began=$(now_ms)
        try "$name"
        seconds=$((($(now_ms) - began + 500) / 1000))
        say "$name: $RESULT after $seconds s by $(header "$name" check)"
        table+=("$(printf '%-44s %-16s %5d s' "$name" "$RESULT" "$seconds")")
        if [[ $RESULT != noticed ]]; then
            missed=$((missed + 1))
            say "    see $WORK/$name.log"
        fi
    done
    printf '%s\n' "${table[@]}"
    printf '%d of %d noticed\n' "$(($# - missed))" "$#"
    ((missed == 0))
}

main() {
    local name names=()
    case ${1:-} in
    -h | --help)
        print_help
        return
        ;;
    --list)
        while IFS= read -r name; do
            printf '%-44s %s\n' "$name" "$(header "$name" check)"
        done < <(names_of "${2:-all}")
        return
        ;;
    --table)
        print_table
        return
        ;;
    --quick | --unit | --sim | --slow) mapfile -t names < <(names_of "${1#--}") ;;
    -*) die 2 "there is no '$1'; see --help" ;;
    '') mapfile -t names < <(names_of all) ;;
    *) names=("$@") ;;
    esac
    for name in "${names[@]}"; do
        [[ -f $PATCHES/$name.patch ]] || die 2 "there is no canary '$name'; see --list"
    done
    run "${names[@]}"
}

main "$@"
