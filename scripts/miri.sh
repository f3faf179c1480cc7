#!/usr/bin/env bash
# Runs the kernels' unit tests and tests/sizes.rs under Miri, on portable code without threads.
# Needs: rustup toolchain install nightly --component miri,rust-src
# Usage: scripts/miri.sh [TEST FILTER]
set -euo pipefail
cd "$(dirname "$0")/.."
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-target/miri}
cargo +nightly miri test -p sora-robust-kernels --features serial --lib --test sizes -- "$@"
