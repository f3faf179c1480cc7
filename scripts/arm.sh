#!/usr/bin/env bash
# Runs the kernels' tests for 64-bit Arm on another processor, emulated by QEMU.
# Needs: rustup target add aarch64-unknown-linux-gnu, or where that cannot be had rustup toolchain
# install nightly --component rust-src; on Debian gcc-aarch64-linux-gnu, libc6-dev-arm64-cross,
# qemu-user-static.
# Usage: scripts/arm.sh [OPTIONS OF cargo test]
set -euo pipefail
cd "$(dirname "$0")/.."
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-target/arm}
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="qemu-aarch64-static -L /usr/aarch64-linux-gnu"
target=aarch64-unknown-linux-gnu
call=(cargo test)
[ -d "$(rustc --print sysroot)/lib/rustlib/$target/lib" ] || call=(cargo +nightly test -Zbuild-std=std,panic_unwind,test)
"${call[@]}" --target "$target" --release -p sora-robust-kernels "$@"
