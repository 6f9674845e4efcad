#!/usr/bin/env bash
# Makes wrong variants of the product and requires that the tests notice: a check that no wrong
# variant has ever failed proves nothing.
#
# usage: scripts/canaries.sh [NAME...]     the canaries of these names; without one, all
#        scripts/canaries.sh --list        their names, and the command that must notice each
#
# A canary is a file verify/canaries/NAME.patch: a change of the product, and above it the command
# that must notice (check:), what must stand in its output (notices:), and what the change would
# cost in production (why:). For each one, the change is made in a copy of this tree under
# target/canaries, which is all that is written to. It counts as noticed only if the check fails and
# says that sentence: another failure is not the one that the check is there for.
#
# Exit code 0 only if all were noticed. What a check prints is kept in target/canaries/NAME.log.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

PATCHES=$ROOT/verify/canaries
WORK=${CARGO_TARGET_DIR:-$ROOT/target}/canaries
TREE=$WORK/tree
# For a build from nothing on a slow machine, and the check.
MOST_SECONDS=1800

# Prints what stands behind a name and a colon above the change.
header() { # NAME FIELD
    sed -n "/^diff --git /q; s/^$2: //p" "$PATCHES/$1.patch"
}

all_names() {
    local patch
    for patch in "$PATCHES"/*.patch; do
        patch=${patch##*/}
        printf '%s\n' "${patch%.patch}"
    done
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

# The copy lies within the repository, which git must not find: it would change the repository.
apply() { # NAME [OPTION]
    (cd "$TREE" && GIT_CEILING_DIRECTORIES=$WORK git apply "${@:2}" "$PATCHES/$1.patch")
}

# Runs the check of a canary on the changed copy. Sets RESULT.
try() { # NAME
    local check sentence log=$WORK/$1.log
    check=$(header "$1" check)
    sentence=$(header "$1" notices)
    if [[ -z $check || -z $sentence || -z $(header "$1" why) ]]; then
        RESULT="has no check, notices or why"
    elif ! apply "$1" 2>"$log"; then
        RESULT="does not apply"
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
        apply "$1" --reverse
    fi
}

run() { # NAME...
    local name began seconds missed=0 table=()
    mkdir -p "$WORK"
    exec 9>"$WORK/lock"
    flock --nonblock 9 || die "another run uses $WORK; wait for its end"
    copy_tree
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
        done < <(all_names)
        return
        ;;
    -*) die 2 "there is no '$1'; see --help" ;;
    '') mapfile -t names < <(all_names) ;;
    *) names=("$@") ;;
    esac
    for name in "${names[@]}"; do
        [[ -f $PATCHES/$name.patch ]] || die 2 "there is no canary '$name'; see --list"
    done
    run "${names[@]}"
}

main "$@"
