#!/usr/bin/env bash
# What the scripts share. Sourced by them; does nothing by itself.
#
# Needs bash 5, coreutils, grep, sed and util-linux (setsid), and a Linux /proc: processes and
# ports are looked up there, so that nothing has to be installed.
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

say() { printf '%s\n' "$*" >&2; }

# The first argument is the exit code when it is a number: die 2 "usage: …".
die() {
    local code=1
    if [[ $1 =~ ^[0-9]+$ ]]; then
        code=$1
        shift
    fi
    say "${0##*/}: $*"
    exit "$code"
}

# Fails the script unless the value is a whole number within the bounds.
need_number() { # NAME VALUE LOWEST HIGHEST
    [[ $2 =~ ^[0-9]{1,18}$ ]] && ((10#$2 >= $3 && 10#$2 <= $4)) && return
    die 2 "$1 must be a whole number from $3 to $4, not '$2'"
}

# Fails the script unless an option has a value.
need_value() { # OPTION "$#" of the caller
    (($2 >= 2)) || die 2 "$1 needs a value; see --help"
}

# The comment at the top of the running script is its help.
print_help() {
    sed -n '2,/^[^#]/{ /^#/!q; s/^# \{0,1\}//; p; }' "$0"
}

now_ms() { printf '%s' "$((${EPOCHREALTIME/[.,]/} / 1000))"; }

# Polls until the command succeeds. Returns 1 when the seconds have passed.
wait_until() { # SECONDS COMMAND...
    local deadline=$(($(now_ms) + $1 * 1000))
    shift
    until "$@"; do
        (($(now_ms) < deadline)) || return 1
        sleep 0.05
    done
}

# Builds kvcli and a node's program in release mode.
build_programs() { # NODE
    local programs=(--bin kvcli --bin "$1")
    if [[ $1 != kvnode ]]; then programs+=(--workspace); fi
    (cd "$ROOT" && cargo build --quiet --release "${programs[@]}" >&2) ||
        die "the build failed; the compiler's messages are above"
}

# Sets KVNODE and KVCLI: from RAFTKV_BIN_DIR, else built from the source in release mode.
# RAFTKV_NODE names the node's program, if it is not kvnode.
find_binaries() {
    local folder=${RAFTKV_BIN_DIR:-} node=${RAFTKV_NODE:-kvnode}
    if [[ -z $folder ]]; then
        command -v cargo >/dev/null ||
            die "cargo is not installed: get Rust from https://rustup.rs, or set RAFTKV_BIN_DIR" \
                "to a folder with kvnode and kvcli"
        if [[ -t 2 ]]; then say "building (the first time takes a few minutes)..."; fi
        build_programs "$node"
        folder=${CARGO_TARGET_DIR:-$ROOT/target}/release
    fi
    folder=$(cd "$folder" 2>/dev/null && pwd) || die "there is no folder $folder"
    KVNODE=$folder/$node
    KVCLI=$folder/kvcli
    local program
    for program in "$KVNODE" "$KVCLI"; do
        [[ -x $program ]] || die "there is no program $program; is RAFTKV_BIN_DIR right?"
    done
    # What this script calls uses the same ones and does not build again.
    export RAFTKV_BIN_DIR=$folder
}

# Prints the inode of each socket that listens on the port, on whatever address of this machine.
listeners() { # PORT
    local hex table fields
    printf -v hex '%04X' "$1"
    for table in /proc/net/tcp /proc/net/tcp6; do
        while read -r -a fields; do
            # Local address, remote address, state (0A listens) ... inode.
            if [[ ${fields[1]} == *:$hex && ${fields[3]} == 0A ]]; then
                printf '%s\n' "${fields[9]}"
            fi
        done < <(grep -si ":$hex " "$table")
    done
}

port_is_free() { # PORT
    [[ -z $(listeners "$1") ]]
}

# Whether it is this very process that listens on the port.
listens() { # PID PORT
    local inode file
    for inode in $(listeners "$2"); do
        for file in "/proc/$1/fd/"*; do
            if [[ $(readlink "$file") == "socket:[$inode]" ]]; then return; fi
        done
    done
    return 1
}

ports_are_free() { # BASE COUNT
    local port
    for ((port = $1; port < $1 + $2; port++)); do
        port_is_free "$port" || return 1
    done
}

# Prints the first base at or above the wanted one with COUNT free ports in a row.
free_ports() { # WANTED COUNT
    local base
    for ((base = $1; base < $1 + 2000; base += 10)); do
        if ports_are_free "$base" "$2"; then
            printf '%s' "$base"
            return
        fi
    done
    die "no $2 free ports in a row between $1 and $((base - 1)); choose others with --ports"
}

# The list for kvcli: 127.0.0.1:7001,127.0.0.1:7002,…
client_addresses() { # BASE COUNT
    local port list=()
    for ((port = $1; port < $1 + $2; port++)); do list+=("127.0.0.1:$port"); done
    (IFS=, && printf '%s' "${list[*]}")
}

# The list for kvnode: 1=127.0.0.1:7001,2=…
cluster_addresses() { # BASE COUNT
    local id list=()
    for ((id = 1; id <= $2; id++)); do list+=("$id=127.0.0.1:$(($1 + id - 1))"); done
    (IFS=, && printf '%s' "${list[*]}")
}

# The value of one name=value word in a line of `kvcli -o raw status`; empty if it is not there.
field() { # NAME LINE
    if [[ " $2 " =~ " $1="([^ ]*)" " ]]; then printf '%s' "${BASH_REMATCH[1]}"; fi
}

# Prints one line of name=value words for each node, also without a quorum.
status_lines() { # ADDRESSES
    "$KVCLI" --cluster "$1" --timeout 2s -o raw status 2>/dev/null || true
}

# Prints "ID TERM" of the leader with the highest term among those that answer; else fails.
find_leader() { # ADDRESSES
    local line best='' term best_term=-1
    while IFS= read -r line; do
        if [[ $(field role "$line") == leader ]]; then
            term=$(field term "$line")
            if ((term > best_term)); then
                best=$(field id "$line")
                best_term=$term
            fi
        fi
    done < <(status_lines "$1")
    [[ -n $best ]] && printf '%s %s' "$best" "$best_term"
}

leader_answers() { # ADDRESSES
    find_leader "$1" >/dev/null
}
