#!/usr/bin/env bash
# Installs what a fresh Debian lacks and builds RocksDB once. Idempotent; quiet when nothing is to do.
#
# RocksDB is some 340 C++ files: half an hour on two cores by its crate's build script, about eight
# minutes as a CMake unity build. So the same vendored sources are built once per machine, outside
# the checkout, and the crate links the archive (ROCKSDB_LIB_DIR, ROCKSDB_STATIC).
#
# usage: deploy/setup.sh            set up
#        deploy/setup.sh --env      print what the Makefile exports, and do nothing else
set -euo pipefail
cd "$(dirname "$0")/.."

cache="${KVDB_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/kvdb}"
version=$(sed -n '/^name = "librocksdb-sys"$/{n;s/^version = "\(.*\)"$/\1/p}' Cargo.lock)
lib_dir="$cache/rocksdb-$version-1"   # raise the last digit when the flags below change

if [ "${1:-}" = --env ]; then
    echo "ROCKSDB_LIB_DIR=$lib_dir"
    echo "CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$cache/target}"
    exit 0
fi

say() { printf 'setup: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

install_packages() {
    local missing=()
    command -v g++   >/dev/null || missing+=(g++)
    command -v cmake >/dev/null || missing+=(cmake)
    command -v ninja >/dev/null || missing+=(ninja-build)
    command -v curl  >/dev/null || missing+=(curl)
    [ -f /usr/include/lz4.h ]  || missing+=(liblz4-dev)
    [ -f /usr/include/zstd.h ] || missing+=(libzstd-dev)
    # libclang is what bindgen reads RocksDB's C header with.
    ls /usr/lib/*/libclang*.so* /usr/lib/llvm-*/lib/libclang*.so* 2>/dev/null | grep -q 'libclang[-.]' \
        && ls -d /usr/lib/llvm-*/lib/clang/*/include /usr/lib/clang/*/include >/dev/null 2>&1 \
        || missing+=(libclang-dev)
    [ ${#missing[@]} -eq 0 ] && return
    command -v apt-get >/dev/null || die "install these first, then run again: ${missing[*]}"
    say "installing ${missing[*]}"
    local sudo=""
    [ "$(id -u)" = 0 ] || sudo=sudo
    $sudo apt-get update -qq
    DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

need_rust() {
    command -v cargo >/dev/null && return
    die "Rust 1.88 or later is needed (Debian's own is older): install it with rustup, then run again"
}

build_rocksdb() {
    [ -f "$lib_dir/librocksdb.a" ] && return
    local sources build cpu=""
    sources=$(cargo metadata --locked --format-version 1 \
        | grep -o '"manifest_path":"[^"]*/librocksdb-sys-[^"]*/Cargo.toml"' | head -1 \
        | sed 's/.*:"\(.*\)\/Cargo.toml"/\1\/rocksdb/')
    [ -d "$sources" ] || die "cargo did not fetch RocksDB's sources"
    case "$(uname -m)" in x86_64) cpu=-DPORTABLE=x86-64-v2 ;; *) cpu=-DPORTABLE=1 ;; esac
    build="$cache/build-rocksdb-$version"
    mkdir -p "$build" "$lib_dir"
    exec 9>"$build/lock"
    flock 9
    [ -f "$lib_dir/librocksdb.a" ] && return
    say "building RocksDB $version once (about 8 minutes on 2 cores) into $lib_dir"
    cmake -S "$sources" -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release \
        -DCMAKE_UNITY_BUILD=ON -DCMAKE_UNITY_BUILD_BATCH_SIZE=12 \
        -DWITH_TESTS=OFF -DWITH_TOOLS=OFF -DWITH_CORE_TOOLS=OFF -DWITH_BENCHMARK_TOOLS=OFF \
        -DWITH_TRACE_TOOLS=OFF -DWITH_GFLAGS=OFF -DWITH_LZ4=ON -DWITH_ZSTD=ON -DWITH_LIBURING=OFF \
        -DROCKSDB_BUILD_SHARED=OFF -DFAIL_ON_WARNINGS=OFF -DUSE_RTTI=1 $cpu >"$build/cmake.log" 2>&1 \
        || { tail -20 "$build/cmake.log" >&2; die "cmake failed (log: $build/cmake.log)"; }
    ninja -C "$build" rocksdb >"$build/ninja.log" 2>&1 &
    local ninja=$!
    while kill -0 $ninja 2>/dev/null; do
        sleep 2
        printf '\rsetup: RocksDB %s ' "$(tail -c 200 "$build/ninja.log" | tr '\r' '\n' | grep -o '\[[0-9]*/[0-9]*\]' | tail -1)" >&2
    done
    wait $ninja || { tail -30 "$build/ninja.log" >&2; die "RocksDB did not build (log: $build/ninja.log)"; }
    printf '\n' >&2
    mv "$build/librocksdb.a" "$lib_dir/librocksdb.a.tmp"
    mv "$lib_dir/librocksdb.a.tmp" "$lib_dir/librocksdb.a"
    rm -rf "$build"
}

install_packages
need_rust
build_rocksdb
