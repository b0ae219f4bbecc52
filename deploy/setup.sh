#!/usr/bin/env bash
# Installs what a fresh Debian lacks and builds RocksDB once. Idempotent; silent when nothing is to do.
#
# RocksDB is some 340 C++ files: half an hour on two cores by its crate's build script, about eight
# minutes as a CMake unity build. So the same vendored sources are built once per machine, outside
# the checkout, and the crate links the archive (ROCKSDB_LIB_DIR, ROCKSDB_STATIC).
#
# usage: deploy/setup.sh            set up
#        deploy/setup.sh --env      print what cargo needs in its environment, and do nothing else
#        deploy/setup.sh --valgrind install what counts instructions
#        deploy/setup.sh --lab      install what fault campaigns need; without root, say what is missing
#        deploy/setup.sh --clients  install the HTTP clients that `make redirect-matrix` tries; the same
#        deploy/setup.sh --bench    install the databases that `make bench` measures beside ours; the same
#
# environment: KVDB_CACHE           where RocksDB and the target directory are kept (~/.cache/kvdb)
#              CARGO_TARGET_DIR     another target directory
set -euo pipefail
cd "$(dirname "$0")/.."

cache="${KVDB_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/kvdb}"
version=$(sed -n '/^name = "librocksdb-sys"$/{n;s/^version = "\(.*\)"$/\1/p}' Cargo.lock)
lib_dir="$cache/rocksdb-$version-1"   # raise the last digit when the flags below change

say() { printf 'setup: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

# make takes its values apart at blanks, and so do cmake's and cargo's helpers.
for path in "$cache" "${CARGO_TARGET_DIR:-}"; do
    case "$path" in *[[:space:]]*)
        die "there is a blank in the path \`$path\`: set KVDB_CACHE or CARGO_TARGET_DIR to one without" ;;
    esac
done

if [ "${1:-}" = --env ]; then
    echo "ROCKSDB_LIB_DIR=$lib_dir"
    echo "ROCKSDB_STATIC=1"
    echo "CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$cache/target}"
    exit 0
fi

# Whether one of the paths, which may have been wildcards, is there.
any() {
    local path
    for path in "$@"; do
        [ -e "$path" ] && return 0
    done
    return 1
}

# Installs Debian packages; says what to do where it cannot.
install() {
    local sudo=()
    command -v apt-get >/dev/null || die "install these first, then run again: $*"
    if [ "$(id -u)" != 0 ]; then
        command -v sudo >/dev/null || die "as root, install these, then run again: $*"
        sudo=(sudo)
    fi
    say "installing $*"
    "${sudo[@]}" apt-get update -qq
    "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

install_valgrind() {
    command -v valgrind >/dev/null || install valgrind
}

# Network filters, tracing, disk images, an fsync that lies. A campaign does without what is not there.
install_lab() {
    local missing=()
    command -v nft       >/dev/null || missing+=(nftables)
    command -v iptables  >/dev/null || missing+=(iptables)
    command -v ip        >/dev/null || missing+=(iproute2)
    command -v ping      >/dev/null || missing+=(iputils-ping)
    command -v strace    >/dev/null || missing+=(strace)
    command -v mkfs.ext4 >/dev/null || missing+=(e2fsprogs)
    any /usr/lib/*/libeatmydata.so* || missing+=(libeatmydata1)
    [ ${#missing[@]} -eq 0 ] && return
    if [ "$(id -u)" != 0 ]; then
        say "not root: nodes will be plain processes, with fewer faults (missing: ${missing[*]})"
        return
    fi
    install "${missing[@]}"
}

# curl, Python's requests, node and a browser. The test of clients leaves out what is not there, loudly.
install_clients() {
    local missing=()
    command -v curl >/dev/null || missing+=(curl)
    python3 -c 'import requests' 2>/dev/null || /usr/bin/python3 -c 'import requests' 2>/dev/null \
        || missing+=(python3-requests)
    command -v node     >/dev/null || missing+=(nodejs)
    command -v chromium >/dev/null || command -v chromium-browser >/dev/null \
        || command -v google-chrome >/dev/null || missing+=(chromium)
    [ ${#missing[@]} -eq 0 ] && return
    # In a shell of its own: that it fails is said, and ends nothing.
    (install "${missing[@]}") || say "these clients will not be tried: ${missing[*]}"
}

# etcd, Redis and Tarantool as programs that the benchmark starts itself, on ports and data of its own.
install_bench() {
    local missing=()
    command -v etcd         >/dev/null || missing+=(etcd-server)
    command -v redis-server >/dev/null || missing+=(redis-server)
    command -v tarantool    >/dev/null || missing+=(tarantool)
    [ ${#missing[@]} -eq 0 ] && return
    if [ "$(id -u)" != 0 ]; then
        say "not root: rows of these peers will be left out: ${missing[*]}"
        return
    fi
    without_services install_each "${missing[@]}"
}

# One by one: not every Debian has all of them, and a peer that is missing costs its rows only.
install_each() {
    local package
    for package in "$@"; do
        (install "$package") || say "not installed, its rows will be left out: $package"
    done
}

# Runs a command while packages may start no service: Debian starts a database as it installs it, and that
# would hold its port, and be measured beside ours. Units stay off until somebody enables them.
without_services() {
    local policy=/usr/sbin/policy-rc.d ours='' unit
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod +x "$policy"
        ours=$policy
    fi
    "$@" || { rm -f "${ours:-/nonexistent}"; return 1; }
    rm -f "${ours:-/nonexistent}"
    [ -d /run/systemd/system ] || return 0
    for unit in etcd redis-server tarantool; do
        systemctl disable --now "$unit" >/dev/null 2>&1 || true
    done
}

install_packages() {
    local missing=()
    command -v g++   >/dev/null || missing+=(g++)
    command -v cmake >/dev/null || missing+=(cmake)
    command -v ninja >/dev/null || missing+=(ninja-build)
    command -v curl  >/dev/null || missing+=(curl)
    any /usr/include/lz4.h      || missing+=(liblz4-dev)
    any /usr/include/zstd.h     || missing+=(libzstd-dev)
    # libclang, with clang's own headers, is what bindgen reads RocksDB's C header with.
    { any /usr/lib/*/libclang[-.]*so* /usr/lib/llvm-*/lib/libclang[-.]*so* \
        && any /usr/lib/llvm-*/lib/clang/*/include /usr/lib/clang/*/include; } || missing+=(libclang-dev)
    [ ${#missing[@]} -eq 0 ] && return
    install "${missing[@]}"
}

need_rust() {
    local needed=1.89 found
    found=$(cargo --version 2>/dev/null | sed -n 's/^cargo \([0-9]*\.[0-9]*\).*/\1/p')
    [ "$(printf '%s\n' "$needed" "${found:-0}" | sort -V | head -n 1)" = "$needed" ] && return
    die "Rust $needed or later is needed, ${found:-none} is here (Debian's own may be older):" \
        "install it with rustup, then run again"
}

# Where cargo unpacked the crate's sources; fetches them where it has not.
rocksdb_sources() {
    cargo metadata --locked --format-version 1 \
        | sed -n 's/.*"manifest_path":"\([^"]*\/librocksdb-sys-[^"]*\)\/Cargo\.toml".*/\1\/rocksdb/p'
}

# Waits for ninja: a line that rewrites itself on a terminal, a line every half minute elsewhere.
follow_ninja() {
    local pid=$1 log=$2 every=15 turn=0 line
    [ -t 2 ] && every=1
    while kill -0 "$pid" 2>/dev/null; do
        sleep 2
        turn=$((turn + 1))
        [ $((turn % every)) -eq 0 ] || continue
        line=$(tail -c 400 "$log" | tr '\r' '\n' | sed -n 's/^\(\[[0-9]*\/[0-9]*\]\).*/\1/p' | tail -n 1)
        if [ -t 2 ]; then printf '\rsetup: RocksDB %s ' "$line" >&2; else say "RocksDB $line"; fi
    done
    [ -t 2 ] && printf '\n' >&2
    wait "$pid"
}

build_rocksdb() {
    [ -f "$lib_dir/librocksdb.a" ] && return
    local sources build cpu ninja
    say "fetching sources"
    sources=$(rocksdb_sources)
    [ -d "$sources" ] || die "cargo did not fetch RocksDB's sources"
    case "$(uname -m)" in x86_64) cpu=-DPORTABLE=x86-64-v2 ;; *) cpu=-DPORTABLE=1 ;; esac
    build="$cache/build-rocksdb-$version"
    mkdir -p "$build" "$lib_dir"
    exec 9>"$build/lock"
    flock -n 9 || { say "waiting for another build of RocksDB"; flock 9; }
    [ -f "$lib_dir/librocksdb.a" ] && return
    say "building RocksDB $version once (about 8 minutes on 2 cores) into $lib_dir"
    cmake -S "$sources" -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release \
        -DCMAKE_UNITY_BUILD=ON -DCMAKE_UNITY_BUILD_BATCH_SIZE=12 \
        -DWITH_TESTS=OFF -DWITH_TOOLS=OFF -DWITH_CORE_TOOLS=OFF -DWITH_BENCHMARK_TOOLS=OFF \
        -DWITH_TRACE_TOOLS=OFF -DWITH_GFLAGS=OFF -DWITH_LZ4=ON -DWITH_ZSTD=ON -DWITH_LIBURING=OFF \
        -DROCKSDB_BUILD_SHARED=OFF -DFAIL_ON_WARNINGS=OFF -DUSE_RTTI=1 "$cpu" >"$build/cmake.log" 2>&1 \
        || { tail -n 20 "$build/cmake.log" >&2; die "cmake failed (log: $build/cmake.log)"; }
    ninja -C "$build" rocksdb >"$build/ninja.log" 2>&1 &
    ninja=$!
    # A shell's background jobs do not hear Ctrl-C.
    trap 'kill $ninja 2>/dev/null' EXIT
    follow_ninja "$ninja" "$build/ninja.log" \
        || { tail -n 30 "$build/ninja.log" >&2; die "RocksDB did not build (log: $build/ninja.log)"; }
    trap - EXIT
    # The archive appears whole or not at all.
    mv "$build/librocksdb.a" "$lib_dir/librocksdb.a.tmp"
    mv "$lib_dir/librocksdb.a.tmp" "$lib_dir/librocksdb.a"
    rm -rf "$build"
    say "RocksDB is built"
}

# All checkouts share the target directory, and cargo tells by the age of files what is to be built: what
# another checkout built may be newer than the files here. So whoever takes over makes its own files new.
claim_target_dir() {
    local target="${CARGO_TARGET_DIR:-$cache/target}"
    mkdir -p "$target"
    if [ "$(cat "$target/checkout" 2>/dev/null || true)" != "$PWD" ]; then
        find src cluster-tests -name '*.rs' -exec touch {} +
        printf '%s' "$PWD" >"$target/checkout"
    fi
}

case "${1:-}" in
    --valgrind) install_valgrind; exit 0 ;;
    --lab) install_lab; exit 0 ;;
    --clients) install_clients; exit 0 ;;
    --bench) install_bench; exit 0 ;;
esac

install_packages
need_rust
build_rocksdb
claim_target_dir
