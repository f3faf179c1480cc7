#!/usr/bin/env bash
# Runs the tests of the kernels, the one crate with `unsafe`, under AddressSanitizer, for every instruction set of this machine (the tests of each
# operation go through all of them). Needs a nightly toolchain: rustup toolchain install nightly.
# Usage: scripts/sanitize.sh [TEST FILTER]
set -euo pipefail
cd "$(dirname "$0")/.."
export RUSTFLAGS="-Zsanitizer=address" PROPTEST_CASES=${PROPTEST_CASES:-64} CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-target/sanitize}
# The SIGILL handler that stands in for AMX and the sanitizer's own do not go together: amx.rs is left out.
cargo +nightly test --release -p sora-robust-kernels --target x86_64-unknown-linux-gnu --lib --test conv --test ops -- "$@"
