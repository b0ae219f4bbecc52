#!/usr/bin/env bash
# Three nodes on this machine: to try things out (`up`), and to check the whole road (`smoke`).
#
# usage: deploy/cluster.sh up            start, upload and call the examples, stay until Ctrl-C
#        deploy/cluster.sh smoke         the same on other ports, checked, with a leader killed
#        deploy/cluster.sh status        who leads, how far each node is
#        deploy/cluster.sh kill-leader   kill -9 of the leader; it is started again afterwards
#        deploy/cluster.sh stop          stop a cluster that was left behind
#
# environment: KVDB_BIN               the binary
#
# Nodes listen on 127.0.0.1 only. Data, logs and process ids lie under .kvdb in the checkout. Nodes
# are sessions of their own, so that Ctrl-C reaches this script and not them: it stops them in order.
set -euo pipefail
cd "$(dirname "$0")/.."

bin="${KVDB_BIN:-}"
# What else is set for kvdb in the environment is not meant for these nodes.
for name in "${!KVDB_@}"; do unset "$name"; done

nodes=(1 2 3)
examples=deploy/examples
# Setting before getting, and so on: each answer then depends on nothing but the calls before it.
# shopping_cart_open is not called: it needs a bucket with a signing key.
order=(hello print redirect status header exit set get incr delete list scope counter rate_limiter job_queue
    session_store leaderboard shopping_cart feature_flags url_shortener lock inventory_transfer)
bucket=demo
admin_key=admin
# Our own lines. The libraries warn again and again of a peer that is down, which we see ourselves.
filter=error,kvdb=info
# How long a cluster may take to be ready, a node to stop, a new leader to be found; milliseconds.
ready_max=30000
stop_max=15000
outage_max=3000
outage_goal=3000

# --- Words

say() { printf '%s\n' "$*"; }
die() { printf 'cluster: %s\n' "$*" >&2; exit 1; }

if [ -t 1 ]; then
    tint() { printf '\033[%sm%s\033[0m' "$1" "$2"; }
else
    tint() { printf '%s' "$2"; }
fi
heading() { printf '\n%s\n' "$(tint 1 "== $*")"; }

now_ms() { local micros=${EPOCHREALTIME/[.,]/}; echo $((micros / 1000)); }

# --- Which cluster

# Names where it lives: its directory and its ports.
choose() {
    dir=".kvdb/$1"
    client_base=$2
    peer_base=$3
    join=""
    for n in "${nodes[@]}"; do join+="${join:+,}127.0.0.1:$((peer_base + n))"; done
}
choose_standing() { choose cluster 7410 7420; }
choose_smoke()    { choose smoke 7430 7440; }

url() { echo "http://127.0.0.1:$((client_base + $1))"; }
log() { echo "$dir/n$1.log"; }

# One script at a time has a cluster in its hands. Nodes do not inherit the lock.
take_turn() {
    mkdir -p "$dir"
    exec 9>"$dir.lock"
    flock -n 9 || die "another \`make ${1:-cluster}\` of this checkout is running"
}

# --- Processes

# The node's process, where it runs; a number that was given to another process is not it.
pid_of() {
    local pid line
    pid=$(cat "$dir/n$1.pid" 2>/dev/null) && [ -r "/proc/$pid/cmdline" ] || return 1
    line=$(tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline") || return 1
    [[ $line == *"--data $PWD/$dir/n$1 "* ]] && echo "$pid"
}

runs() { pid_of "$1" >/dev/null; }

start_node() {
    local n=$1
    [ -x "$bin" ] || die "no binary at '$bin': run this by make"
    NO_COLOR=1 KVDB_CLUSTER_SECRET=local KVDB_ADMIN_KEY=$admin_key \
        setsid "$bin" start --node-id "$n" --data "$PWD/$dir/n$n" \
        --listen "127.0.0.1:$((client_base + n))" --peer-listen "127.0.0.1:$((peer_base + n))" \
        --join "$join" --log "$filter" </dev/null >>"$(log "$n")" 2>&1 9>&- &
    local pid=$!
    disown
    echo "$pid" >"$dir/n$n.pid"
    # For a moment the new process is still a copy of this shell, and not known as the node's.
    until runs "$n" || ! kill -0 "$pid" 2>/dev/null; do sleep 0.01; done
}

# Waits until a process is gone; fails after so many milliseconds.
gone() {
    local pid=$1 until=$(($(now_ms) + $2))
    while kill -0 "$pid" 2>/dev/null; do
        [ "$(now_ms)" -lt "$until" ] || return 1
        sleep 0.05
    done
}

# Stops all nodes that run, in order: each hands over before it goes.
stop_nodes() {
    local n pid clean=0
    for n in "${nodes[@]}"; do
        pid=$(pid_of "$n") || continue
        kill -TERM "$pid" 2>/dev/null || true
        if ! gone "$pid" "$stop_max"; then
            say "n$n did not stop within $((stop_max / 1000)) s: killed"
            kill -KILL "$pid" 2>/dev/null || true
            clean=1
        fi
        rm -f "$dir/n$n.pid"
    done
    return $clean
}

need_free_ports() {
    local n port
    for n in "${nodes[@]}"; do
        if runs "$n"; then die "node n$n of an earlier run is still there: make stop"; fi
    done
    for n in "${nodes[@]}"; do
        for port in $((client_base + n)) $((peer_base + n)); do
            # Connecting succeeds where somebody listens.
            if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
                die "port $port is taken by another process; these nodes need $((client_base + 1)) to" \
                    "$((client_base + 3)) and $((peer_base + 1)) to $((peer_base + 3))"
            fi
        done
    done
}

# --- Questions

# curl as we use it: silent, no proxy, and a redirect is followed within this machine only (the
# example that redirects to https is to be shown, not followed).
ask() { curl -sS --noproxy '*' --max-time 10 --proto-redir '=http' "$@" 2>/dev/null; }

# A field of a JSON object, the first of that name. Enough for what our own nodes answer.
field() {
    [[ $1 =~ \"$2\":\"?([^\",}]*) ]] && echo "${BASH_REMATCH[1]}"
}

cluster_of() { ask --max-time 2 "$(url "$1")/-/cluster"; }

# The node that leads and says so itself; fails where there is none.
leader() {
    local n status
    for n in "${nodes[@]}"; do
        status=$(cluster_of "$n") || continue
        if [ "$(field "$status" state)" = leader ]; then echo "$n"; return; fi
    done
    return 1
}

wait_ready() {
    local n until=$(($(now_ms) + ready_max))
    for n in "$@"; do
        until ask --max-time 1 -f -o /dev/null "$(url "$n")/readyz"; do
            runs "$n" || { tail -n 20 "$(log "$n")" >&2; die "n$n has ended; its log: $(log "$n")"; }
            if [ "$(now_ms)" -ge "$until" ]; then
                tail -n 20 "$(log "$n")" >&2
                die "n$n is not ready within $((ready_max / 1000)) s; its log: $(log "$n")"
            fi
            sleep 0.1
        done
    done
}

# Calls a URL; sets `status`, `location` and `body`.
call() {
    local out
    # A redirect that is not followed makes curl fail, and still tell what was answered.
    out=$(ask -D "$dir/headers" -w '\n%{http_code}' "$@" || true)
    status=${out##*$'\n'}
    body=${out%$'\n'*}
    body=${body%$'\n'}
    location=""
    # Of several answers, the last is the one.
    case "$status" in 3*) location=$(sed -n 's/^[Ll]ocation: \([^\r]*\).*/\1/p' "$dir/headers" | tail -n 1) ;; esac
}

# What an example's first lines say behind a word: how to upload it, what to call it with.
note() { sed -n "s/^-- $2: //p" "$examples/$1.lua"; }

prepare_bucket() {
    local name
    call -d "id=$bucket" "$(url 1)/"
    case "$status" in
        201 | 409) ;;
        *) die "the bucket was not created: $status $body" ;;
    esac
    for name in "${order[@]}"; do
        call -X PUT -H 'Content-Type: text/plain' --data-binary "@$examples/$name.lua" \
            "$(url 2)/$bucket/scripts/$name$(note "$name" upload)"
        [ "$status" = 200 ] || [ "$status" = 201 ] || die "$name.lua was not taken: $status $body"
    done
    call -X PUT -d 'first' "$(url 1)/$bucket/msg:1"
    call -X PUT -d 'second' "$(url 3)/$bucket/msg:2"
    call -X PUT -d 'on' "$(url 1)/$bucket/flag:dark_mode"
    call -X PUT -d '3' "$(url 1)/$bucket/stock:west:apple"
}

run_example() {
    local query
    query=$(note "$2" try)
    call -g -L "$(url "$1")/$bucket/scripts/$2${query:-?name=world}"
}

show_answer() {
    local first=1 line
    while IFS= read -r line; do
        if [ $first = 1 ]; then
            printf '  n%s  %-18s %s  %s\n' "$1" "$2" "$(tint 36 "$status")" "$line"
        else
            printf '  %27s%s\n' '' "$line"
        fi
        first=0
    done <<<"$body${location:+to $location}"
}

print_status() {
    local n status
    printf '  %-5s%-10s%-8s%-6s%-9s%-10s%-10s%s\n' node state leader term applied committed snapshot url
    for n in "${nodes[@]}"; do
        if status=$(cluster_of "$n"); then
            printf '  %-5s%-10s%-8s%-6s%-9s%-10s%-10s%s\n' "n$n" "$(field "$status" state)" \
                "$(field "$status" leader)" "$(field "$status" term)" \
                "$(field "$status" applied_index)" "$(field "$status" committed_index)" \
                "$(field "$status" snapshot_index)" "$(url "$n")"
        else
            printf '  %-5s%-53s%s\n' "n$n" "does not answer" "$(url "$n")"
        fi
    done
}

# The status, or a hint where there is none.
show_status() {
    local n
    print_status
    for n in "${nodes[@]}"; do
        if cluster_of "$n" >/dev/null; then return; fi
    done
    die "no node answers: start them with 'make cluster'"
}

# --- up

# Shows the nodes' logs as they grow, each line with its node.
follow_logs() {
    local n
    followers=()
    for n in "${nodes[@]}"; do
        touch "$(log "$n")"
        tail -n 0 -F "$(log "$n")" 2>/dev/null 9>&- \
            > >(trap '' INT; exec sed -u "s/^/$(tint "3$((n + 1))" "[n$n]") /" 9>&-) &
        followers+=($!)
        disown
    done
}

end_up() {
    trap '' INT TERM
    heading "stopping"
    stop_nodes || true
    # The last lines of the logs.
    sleep 1.2
    kill "${followers[@]}" 2>/dev/null || true
    say "stopped; the data stays in $dir (make clean deletes it)"
    exit 0
}

up() {
    local n name
    choose_standing
    take_turn cluster
    need_free_ports
    follow_logs
    trap end_up INT TERM
    trap 'stop_nodes || true; kill "${followers[@]}" 2>/dev/null || true' EXIT
    heading "three nodes"
    for n in "${nodes[@]}"; do start_node "$n"; done
    wait_ready "${nodes[@]}"
    heading "the bucket '$bucket', and the scripts of $examples"
    prepare_bucket
    heading "each script, called on each node with curl -L"
    for name in "${order[@]}"; do
        for n in "${nodes[@]}"; do
            run_example "$n" "$name"
            show_answer "$n" "$name"
        done
    done
    how_to_use
    while for n in "${nodes[@]}"; do runs "$n" && break; done; do
        sleep 1 &
        wait $! || true
    done
    say "all nodes are gone"
}

how_to_use() {
    heading "it runs; Ctrl-C stops it"
    print_status
    cat <<EOF

  curl -L '$(url 1)/$bucket/scripts/hello?name=you'     run a script, on any node
  curl -X PUT -d 3 $(url 2)/$bucket/apples               set a key
  curl -X PATCH -d +2 $(url 3)/$bucket/apples            count: 5
  curl '$(url 1)/$bucket/?values'                        list
  curl -X PUT --data-binary @my.lua $(url 1)/$bucket/scripts/my

  In another terminal: make status, make kill-leader, make stop.
  The admin key of this cluster is '$admin_key'. Logs and data: $dir
EOF
}

# --- kill-leader

# Kills the leader; sets `victim` and `killed_at`.
kill_leader() {
    local pid
    victim=$(leader) || die "no node says that it leads: make status"
    pid=$(pid_of "$victim") || die "n$victim leads, but was not started by this script"
    killed_at=$(now_ms)
    kill -KILL "$pid"
    gone "$pid" 5000 || die "n$victim survived kill -9"
}

kill_leader_and_show() {
    local next
    choose_standing
    kill_leader
    say "killed n$victim, which led"
    until next=$(leader); do
        [ $(($(now_ms) - killed_at)) -lt $ready_max ] || die "nobody leads"
        sleep 0.05
    done
    say "n$next leads after $(($(now_ms) - killed_at)) ms"
    print_status
    start_node "$victim"
    wait_ready "$victim"
    say "started n$victim again"
    print_status
}

# --- smoke

failures=0

# Checks the last call: its status, and its body against a pattern.
expect() {
    local what=$1 want_status=$2 pattern=$3
    # shellcheck disable=SC2053 # a pattern is meant
    if [ "$status" = "$want_status" ] && [[ $body == $pattern ]]; then
        printf '  ok    %s\n' "$what"
        return
    fi
    failures=$((failures + 1))
    printf '  %s  %s\n        expected %s %q\n        answered %s %q\n' "$(tint 31 FAIL:)" "$what" \
        "$want_status" "$pattern" "$status" "$body"
}

# What each example answers on its turn: 1, 2 or 3.
check_example() {
    local n=$1 name=$2 turn=$3 nl=$'\n'
    run_example "$n" "$name"
    case "$name" in
        redirect) body=$location; expect "n$n $name" 302 "https://example.com/" ;;
        hello)    expect "n$n $name" 200 "Hello world" ;;
        print)    expect "n$n $name" 200 "Hello, world!${nl}Hello, world!" ;;
        status)   expect "n$n $name" 500 "" ;;
        header)   expect "n$n $name" 200 "<h1>Hello, world!</h1>" ;;
        exit)     expect "n$n $name" 403 "" ;;
        set)      expect "n$n $name" 200 "" ;;
        get)      expect "n$n $name" 200 "value: my value" ;;
        incr)     expect "n$n $name" 200 "visitors today: $turn" ;;
        delete)   expect "n$n $name" 200 "" ;;
        list)     expect "n$n $name" 200 "msg:1=first${nl}msg:2=second" ;;
        scope)    expect "n$n $name" 200 "scope prefix: ${nl}scope permissions: *${nl}error setting: *" ;;
        counter)  expect "n$n $name" 200 "$turn" ;;
        rate_limiter)  expect "n$n $name" 200 "$((5 - turn)) calls left" ;;
        job_queue)     expect "n$n $name" 200 "{\"id\":$turn}" ;;
        session_store) expect "n$n $name" 200 "????????-*" ;;
        leaderboard)   expect "n$n $name" 200 '*"best":42*' ;;
        shopping_cart) expect "n$n $name" 200 "{\"apple\":$turn}" ;;
        feature_flags) expect "n$n $name" 200 '{"dark_mode":true}' ;;
        url_shortener) expect "n$n $name" 200 "??????" ;;
        # The first one has it, for half a minute.
        lock)          expect "n$n $name" "$([ "$turn" = 1 ] && echo 200 || echo 409)" "*" ;;
        inventory_transfer) expect "n$n $name" 200 "moved 1 kinds from west to east" ;;
        *)        die "no answer is known for $name.lua" ;;
    esac
}

check_examples() {
    local name n turn
    for name in "${order[@]}"; do
        turn=1
        for n in "${nodes[@]}"; do
            check_example "$n" "$name" "$turn"
            turn=$((turn + 1))
        done
    done
}

# A caller's key arrives at the leader through a follower's redirect, and a stranger stays one.
check_authority() {
    local n
    call -d 'id=closed&secret_key=owner&write_key=writer&read_key=reader' "$(url 1)/"
    expect "a bucket with keys" 201 closed
    call -X PUT -H 'Authorization: Bearer owner' --data-binary "@$examples/counter.lua" \
        "$(url 3)/closed/scripts/counter"
    [ "$status" = 200 ] || [ "$status" = 201 ] || expect "upload with the owner's key" 201 ''
    for n in "${nodes[@]}"; do
        call -L -H 'Authorization: Bearer owner' "$(url "$n")/closed/scripts/counter"
        expect "n$n as the owner" 200 "$n"
        call -L "$(url "$n")/closed/scripts/counter"
        expect "n$n as a stranger" 400 "error incrementing: *"
    done
}

check_failover() {
    local next tries=0 acked=0 i n took
    for i in {1..10}; do
        for n in "${nodes[@]}"; do
            call -L -X POST "$(url "$n")/$bucket/scripts/counter"
            [ "$status" = 200 ] && acked=$body
        done
    done
    expect "30 more increments, 33 in all" 200 33
    kill_leader
    next=$((victim % ${#nodes[@]} + 1))
    # A try that broke off may have counted: at most that many.
    until call --max-time 1 -L -X POST "$(url "$next")/$bucket/scripts/counter"
          tries=$((tries + 1)); [ "$status" = 200 ]; do
        [ $(($(now_ms) - killed_at)) -lt $ready_max ] || die "no new leader"
        sleep 0.02
    done
    took=$(($(now_ms) - killed_at))
    say "        killed n$victim, which led; n$next was answered after $took ms (goal: $outage_goal ms)"
    status=$([ $took -le $outage_max ] && echo soon || echo late)
    expect "a new leader within $outage_max ms" soon "*"
    status=$([ "$body" -gt "$acked" ] && [ "$body" -le $((acked + tries)) ] && echo kept || echo "lost")
    expect "the counter goes on from $acked, in $tries tries" kept "*"
}

check_rejoin() {
    local n until=$(($(now_ms) + ready_max)) first digest
    start_node "$victim"
    wait_ready "${nodes[@]}"
    while :; do
        first=$(ask "$(url 1)/-/digest" || true)
        status=same
        for n in 2 3; do
            digest=$(ask "$(url "$n")/-/digest" || true)
            [ -n "$first" ] && [ "$digest" = "$first" ] || status=differ
        done
        [ $status = differ ] && [ "$(now_ms)" -lt "$until" ] || break
        sleep 0.1
    done
    body="$(field "$first" digest) at entry $(field "$first" applied_index)"
    expect "n$victim is back; all digests: $body" same "*"
}

end_smoke() {
    local code=$?
    trap '' INT TERM EXIT
    stop_nodes || { failures=$((failures + 1)); say "  FAIL: not all nodes stopped when told to"; }
    if [ $code = 0 ] && [ $failures = 0 ]; then
        heading "smoke: passed"
        exit 0
    fi
    heading "smoke: FAILED ($failures checks); logs and data stay in $dir"
    exit 1
}

smoke() {
    local n
    choose_smoke
    take_turn smoke
    # Left behind by a run that was killed itself.
    stop_nodes || true
    need_free_ports
    rm -rf "$dir"
    mkdir -p "$dir"
    trap end_smoke EXIT
    trap 'exit 130' INT TERM
    heading "smoke: three nodes"
    for n in "${nodes[@]}"; do start_node "$n"; done
    wait_ready "${nodes[@]}"
    print_status
    heading "smoke: each example on each node"
    prepare_bucket
    check_examples
    heading "smoke: keys and strangers"
    check_authority
    heading "smoke: kill -9 of the leader"
    check_failover
    heading "smoke: it comes back"
    check_rejoin
    print_status
}

# --- main

case "${1:-}" in
    up) up ;;
    smoke) smoke ;;
    status) choose_standing; show_status ;;
    kill-leader) kill_leader_and_show ;;
    stop)
        choose_standing
        stop_nodes || true
        choose_smoke
        stop_nodes || true
        ;;
    *) sed -n '2,/^$/s/^# \{0,1\}//p' "$0"; exit 2 ;;
esac
