#!/usr/bin/env bash
# Kills nodes with kill -9 under load, again and again, and checks that not a byte is lost.
#
# usage: scripts/kill_restart.sh [--members] [--ports BASE] [--seed N] [SECONDS]
#
# For SECONDS (60), one kvcli appends every line of a text to one key, and four more put every line
# of a table under a key of its own, round after round with new keys. Meanwhile leaders, followers
# and sometimes all three nodes at once are killed and started again; after each kill, lines must
# go on being acknowledged. When the load is over, all nodes are killed once more. Then the value
# must be the text and the table must be the table, byte for byte.
#
# The nodes are kvnode_unsynced: kvnode on a disk that keeps what was not synced in the memory of
# the process, so that kill -9 loses and tears it as a power failure does. (On a real disk, the
# kernel keeps what a killed process has written.)
#
# A line whose outcome is in doubt is repeated by kvcli under the same number until it is
# acknowledged; appended twice or lost, it would show. The script fails if it saw no kill of a
# leader. When it fails, it keeps its folder and says where.
#
# With --members, nodes are added, removed, and replaced by ones with empty folders as well, one
# after the other, while others are killed: there are three to five of them at a time. Each kvcli is
# told of the first three only. The script then fails too if there was no change of each kind.
#
#   --members     change the members meanwhile
#   --ports BASE  the first of the ports to try (7101); if one is taken, others are chosen
#   --seed N      whom to kill and when, as far as that can be repeated
#
#   RAFTKV_BIN_DIR  a folder with the programs; without it they are built
#   RAFTKV_NODE     the node's program, kvnode or kvnode_unsynced
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

export RAFTKV_NODE=${RAFTKV_NODE:-kvnode_unsynced}
NODES=3
WRITERS=4
# In seconds. A line is repeated for so long; far longer than any gap that the kills leave.
CALL_TIMEOUT=300
# How long the cluster may take to acknowledge lines again after a kill.
GAP_LIMIT=60
TABLE_LINES=2000

LENGTH=60
WANTED_PORT=7101
SEED=$((RANDOM * 32768 + RANDOM))

KILLS=0
LEADER_KILLS=0
FULL_STOPS=0
LEADER_CHANGES=0
LAST_LEADER=
STREAMS=()
WORK=
MEMBERS=
CHANGER=

parse_options() {
    while (($# > 0)); do
        case $1 in
        --members) MEMBERS=1 && shift ;;
        --ports) need_value "$1" $# && WANTED_PORT=$2 && shift 2 ;;
        --seed) need_value "$1" $# && SEED=$2 && shift 2 ;;
        -h | --help) print_help && exit 0 ;;
        -*) die 2 "there is no option $1; see --help" ;;
        *) (($# == 1)) || die 2 "one number of seconds; see --help" && LENGTH=$1 && shift ;;
        esac
    done
    need_number --ports "$WANTED_PORT" 1 60000
    need_number --seed "$SEED" 0 2147483647
    need_number SECONDS "$LENGTH" 5 86400
}

cluster() { "$ROOT/scripts/cluster.sh" --quiet --data "$WORK/cluster" "$@"; }

# Ends what was started, in whatever way the script ends.
# shellcheck disable=SC2317 # Called by the trap.
clean_up() {
    local code=$? pid
    trap - EXIT INT TERM
    for pid in "${STREAMS[@]}"; do kill "$pid" 2>/dev/null || true; done
    # With what it has started.
    if [[ -n $CHANGER ]]; then kill -- "-$CHANGER" 2>/dev/null || true; fi
    if [[ -f $WORK/cluster/cluster ]]; then cluster stop >/dev/null 2>&1 || true; fi
    if ((code == 0)); then
        rm -rf -- "$WORK"
    elif [[ -n $WORK ]]; then
        say "kill_restart: FAILED with seed $SEED; logs and files are kept in $WORK"
    fi
    exit "$code"
}

# Sets TEXT and TABLE to the first files that this machine has, most telling first.
choose_files() {
    local file
    TEXT=
    for file in /usr/share/common-licenses/{GPL-3,GPL-2,Apache-2.0} "$ROOT/LICENSE-APACHE"; do
        if [[ -s $file ]]; then TEXT=$file && break; fi
    done
    TABLE=
    for file in /usr/share/zoneinfo/{zone1970.tab,zone.tab,tzdata.zi} /usr/share/dict/words \
        /usr/share/unicode/UnicodeData.txt /usr/share/perl/5*/unicore/{Blocks,NamedSequences}.txt \
        /usr/share/unicode/*.txt /etc/services /etc/mime.types "$ROOT/Cargo.lock"; do
        if [[ -s $file ]]; then TABLE=$file && break; fi
    done
    [[ -n $TEXT && -n $TABLE ]] || die "this machine has neither of the texts or tables to write"
    cp -- "$TEXT" "$WORK/text"
    head -n "$TABLE_LINES" -- "$TABLE" >"$WORK/table"
    for file in "$WORK/text" "$WORK/table"; do
        [[ -z $(tail -c 1 "$file") ]] || die "$file does not end with a line break"
    done
    say "text:  $TEXT, $(wc -l <"$WORK/text") lines"
    say "table: $TABLE, $(wc -l <"$WORK/table") lines"
}

# Turns the files into kvcli commands; @ stands for the round. The table is cut into one slice per
# writer, so that keys in their order are lines in their order.
write_commands() {
    local slice number=0 line escape='s/[\\"]/\\&/g'
    sed -e "$escape" -e 's/^/append text-@ "/' -e 's/$/\\n"/' "$WORK/text" >"$WORK/text.commands"
    split --number="l/$WRITERS" --numeric-suffixes=1 --suffix-length=1 "$WORK/table" "$WORK/slice."
    for slice in "$WORK/slice."?; do
        while IFS= read -r line; do
            number=$((number + 1))
            printf 'put table-@-%06d "%s"\n' "$number" "$line"
        done < <(sed -e "$escape" "$slice") >"$WORK/table.commands.${slice##*.}"
    done
}

# Prints the commands of round after round until the time is up; a round that is begun is ended.
feed() { # COMMANDS
    local round=0
    until [[ -f $WORK/enough ]]; do
        round=$((round + 1))
        sed -E "s/^([a-z]+ [a-z]+-)@/\1$round/" "$1"
        printf '%s\n' "$round" >"$1.rounds"
    done
}

# Starts one kvcli that executes the commands; it answers each with one line.
start_stream() { # COMMANDS
    "$KVCLI" --cluster "$ADDRESSES" -o raw --timeout "${CALL_TIMEOUT}s" --stop-on-error --stats \
        < <(feed "$1") >"$1.answers" 2>"$1.errors" &
    STREAMS+=($!)
}

acknowledged() { cat "$WORK"/*.answers | wc -l; }

# More lines than can have been on their way to the answer files when counting began.
acknowledged_beyond() { # COUNT
    streams_live
    (($(acknowledged) > $1 + WRITERS + 1))
}

# A kvcli that ends before its commands do has met an error that it could not repeat away.
streams_live() {
    local pid
    [[ ! -f $WORK/enough ]] || return 0
    for pid in "${STREAMS[@]}"; do
        kill -0 "$pid" 2>/dev/null || die "a kvcli ended early: $(tail -qn 2 "$WORK"/*.errors)"
    done
}

streams_ended() {
    local pid
    for pid in "${STREAMS[@]}"; do
        if kill -0 "$pid" 2>/dev/null; then return 1; fi
    done
}

need_progress() { # WHEN
    wait_until "$GAP_LIMIT" acknowledged_beyond "$(acknowledged)" ||
        die "no line was acknowledged for $GAP_LIMIT s $1"
}

# The ids of all nodes, those that are down included.
ids() { sed -n 2p "$WORK/cluster/cluster"; }

has_node() { # ID
    [[ " $(ids) " == *" $1 "* ]]
}

# Sets LEADER, and counts it if it is not the one of last time in the same term.
find_and_count_leader() {
    local found
    ADDRESSES=$(cluster addresses)
    wait_until "$GAP_LIMIT" leader_answers "$ADDRESSES" || die "no leader for $GAP_LIMIT s"
    found=$(find_leader "$ADDRESSES") || return 1
    if [[ -n $LAST_LEADER && $found != "$LAST_LEADER" ]]; then
        LEADER_CHANGES=$((LEADER_CHANGES + 1))
    fi
    LAST_LEADER=$found
    LEADER=${found% *}
}

# A while of chance: where in its work a node is hit must differ.
dawdle() { # AT_MOST_MS
    local ms=$((RANDOM % $1))
    sleep "$((ms / 1000)).$(printf '%03d' $((ms % 1000)))"
}

# Does something to a node. While members change, the node may have gone meanwhile.
to_node() { # kill | restart ID
    if cluster "$@" 2>>"$WORK/nodes.log"; then return 0; fi
    [[ -n $MEMBERS ]] || die "cannot $1 node $2: $(tail -n 1 "$WORK/nodes.log")"
    # A node that is being replaced is down, and is started by whoever replaces it.
    if [[ $1 == restart ]] && has_node "$2"; then
        die "cannot restart node $2: $(tail -n 1 "$WORK/nodes.log")"
    fi
    return 1
}

kill_one() { # ID WHO
    to_node kill "$1" || return 0
    KILLS=$((KILLS + 1))
    if [[ $2 == leader ]]; then LEADER_KILLS=$((LEADER_KILLS + 1)); fi
    # Half of the time the others must go on alone; else the node comes back during the election.
    # One that is being replaced meanwhile is missing too: then the others may be too few.
    if [[ -z $MEMBERS ]] && ((RANDOM % 2)); then
        need_progress "with $2 $1 dead"
    else
        dawdle 500
    fi
    to_node restart "$1" || true
    need_progress "after $2 $1 came back"
}

crash_all() {
    local id
    for id in $(ids); do
        if to_node kill "$id"; then KILLS=$((KILLS + 1)); fi
    done
    cluster start
}

kill_all() {
    crash_all
    LEADER_KILLS=$((LEADER_KILLS + 1))
    FULL_STOPS=$((FULL_STOPS + 1))
    need_progress "after all nodes came back"
}

# One kill and what follows. The first three are one of each kind, so that a short run has them.
disturb() { # NUMBER
    local dice=$((RANDOM % 10)) followers
    if (($1 <= 3)); then dice=$(($1 * 3)); fi
    until find_and_count_leader; do :; done
    mapfile -t followers < <(ids | tr ' ' '\n' | grep -vx "$LEADER")
    case $dice in
    [0-4]) kill_one "$LEADER" leader ;;
    [5-8]) kill_one "${followers[RANDOM % ${#followers[@]}]}" follower ;;
    *) kill_all ;;
    esac
    dawdle 1500
}

# Begins a change of members of some kind that is possible with the nodes that there are. One that
# fails because of a kill changes nothing, or goes on without this script.
change_members() {
    local nodes kind
    read -r -a nodes < <(ids)
    local node=${nodes[RANDOM % ${#nodes[@]}]}
    case ${#nodes[@]}-$((RANDOM % 3)) in
    3-[01] | 4-0) kind=add && node= ;;
    5-[01] | 4-1) kind=remove ;;
    *) kind=replace ;;
    esac
    # shellcheck disable=SC2086 # There may be no node to name.
    if cluster "$kind" $node; then printf '%s\n' "$kind" >>"$WORK/changes"; fi
}

# Changes members until the time is up. What is begun is ended.
keep_changing() {
    # The kills are drawn from the same seed.
    RANDOM=$(((SEED + 1) % 32768))
    until [[ -f $WORK/enough ]]; do
        change_members
        dawdle 1000
    done
}

changes() { # KIND
    grep -cx "$1" "$WORK/changes" || true
}

finish_changes() {
    local kind
    wait "$CHANGER" || die "the changes of members ended early: $(tail -n 2 "$WORK/changes.log")"
    CHANGER=
    for kind in add remove replace; do
        (($(changes "$kind") > 0)) || die "no $kind succeeded; give it more SECONDS"
    done
    ADDRESSES=$(cluster addresses)
}

check_text() { # ROUNDS
    local round
    for ((round = 1; round <= $1; round++)); do
        "$KVCLI" --cluster "$ADDRESSES" -o raw get "text-$round" >"$WORK/text.read"
        cmp -- "$WORK/text" "$WORK/text.read" || die "text-$round is not the text"
    done
}

# Turns the lines KEY VALUE of a scan into the values' bytes, one line each. A value in double
# quotes has escapes that printf knows, but for those of the quotes.
values() {
    local line
    sed -e 's/\\\\/\\x5c/g' -e 's/\\"/\\x22/g' -e "s/\\\\'/\\\\x27/g" | while IFS= read -r line; do
        line=${line#* }
        if [[ $line == \"*\" ]]; then
            printf '%b\n' "${line:1:-1}"
        else
            printf '%s\n' "$line"
        fi
    done
}

# Writers end with different rounds: of the last ones, the slices that were written are expected.
check_table() {
    local round=0 slice rounds expected
    while true; do
        round=$((round + 1))
        expected=()
        for slice in "$WORK/slice."?; do
            read -r rounds <"$WORK/table.commands.${slice##*.}.rounds"
            if ((round <= rounds)); then expected+=("$slice"); fi
        done
        ((${#expected[@]})) || break
        cat -- "${expected[@]}" >"$WORK/table.expected"
        "$KVCLI" --cluster "$ADDRESSES" -o raw scan "table-$round-" --all >"$WORK/table.scan"
        values <"$WORK/table.scan" >"$WORK/table.read"
        cmp -- "$WORK/table.expected" "$WORK/table.read" || die "round $round is not the table"
        if ((round == 1)); then cmp -- "$WORK/table" "$WORK/table.read"; fi
    done
    TABLE_ROUNDS=$((round - 1))
}

# Adds up one number of the last lines that the streams wrote with --stats.
total() { # NAME
    local file number sum=0
    for file in "$WORK"/*.errors; do
        number=$(field "$1" "$(tail -n 1 "$file")")
        sum=$((sum + ${number:-0}))
    done
    printf '%s' "$sum"
}

# How many repeated numbers the leader's store answered from a session instead of executing them.
duplicates() {
    local line
    while IFS= read -r line; do
        if [[ $(field role "$line") == leader ]]; then field duplicates "$line"; fi
    done < <(status_lines "$ADDRESSES")
}

finish_load() {
    local pid code
    : >"$WORK/enough"
    wait_until "$CALL_TIMEOUT" streams_ended || die "the writers do not end"
    for pid in "${STREAMS[@]}"; do
        code=0
        wait "$pid" || code=$?
        ((code == 0)) || die "a kvcli ended with exit code $code: $(tail -qn 2 "$WORK"/*.errors)"
    done
    STREAMS=()
    # The rounds say how many commands there were, and each has one answer.
    local file rounds sent=0
    for file in "$WORK"/text.commands "$WORK"/table.commands.?; do
        read -r rounds <"$file.rounds"
        sent=$((sent + rounds * $(wc -l <"$file")))
    done
    ACKNOWLEDGED=$(acknowledged)
    ((ACKNOWLEDGED == sent)) || die "$sent lines were sent, $ACKNOWLEDGED acknowledged"
}

main() {
    parse_options "$@"
    find_binaries
    RANDOM=$((SEED % 32768))
    WORK=$(mktemp -d "${TMPDIR:-/tmp}/raftkv-kill.XXXXXX")
    trap clean_up EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    choose_files
    write_commands
    say "seed:  $SEED"
    local port number=0 text_rounds file deadline
    # One for each node that there may ever be.
    port=$(free_ports "$WANTED_PORT" 9)
    cluster --ports "$port" start "$NODES"
    ADDRESSES=$(cluster addresses)
    for file in "$WORK/text.commands" "$WORK/table.commands."?; do start_stream "$file"; done
    need_progress "after the start"
    : >"$WORK/changes"
    if [[ -n $MEMBERS ]]; then
        # In a process group of its own, so that it can be ended with all that it has started.
        set -m
        keep_changing 2>"$WORK/changes.log" &
        CHANGER=$!
        set +m
    fi
    deadline=$(($(now_ms) + LENGTH * 1000))
    while (($(now_ms) < deadline)); do
        number=$((number + 1))
        disturb "$number"
    done
    ((LEADER_KILLS > 0)) || die "no leader was killed; give it more SECONDS"
    finish_load
    if [[ -n $MEMBERS ]]; then finish_changes; fi
    crash_all
    read -r text_rounds <"$WORK/text.commands.rounds"
    check_text "$text_rounds"
    check_table
    local counted
    counted=$(duplicates)
    cat <<END
kill_restart: ok. text written $text_rounds times, table $TABLE_ROUNDS times: byte-identical
lines acknowledged $ACKNOWLEDGED, calls $(total calls), attempts $(total attempts)
kills $KILLS (of a leader $LEADER_KILLS, of all nodes at once $FULL_STOPS)
leader changes $LEADER_CHANGES, retries $(total retries), duplicates ${counted:-not reported}
END
    [[ -z $MEMBERS ]] || cat <<END
members added $(changes add), removed $(changes remove), replaced $(changes replace)
END
}

main "$@"
