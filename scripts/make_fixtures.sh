#!/usr/bin/env bash
# Makes the data folders and the backup that tests/upgrade keeps of a version, with the present one.
#
# usage: scripts/make_fixtures.sh VERSION
#
# Writes tests/upgrade/VERSION, which must not be there: what is kept of a version is made once,
# when that version is released, and never again. Numbers of folders are random, so a second run
# would write other bytes. examples/make_fixtures.rs says what is made and how it is packed.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

main() {
    if [[ ${1:-} == -h || ${1:-} == --help ]]; then
        print_help
        exit 0
    fi
    (($# == 1)) || die 2 "which version? see --help"
    [[ $1 =~ ^[0-9]+\.[0-9]+\.[0-9]+$ ]] || die 2 "$1 is not a version such as 0.1.0"
    cd "$ROOT"
    [[ ! -e tests/upgrade/$1 ]] || die "tests/upgrade/$1 is there already and stays as it is"
    cargo run --quiet --example make_fixtures -- "tests/upgrade/$1"
    du -sh "tests/upgrade/$1"
}

main "$@"
