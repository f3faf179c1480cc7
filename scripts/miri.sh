#!/usr/bin/env bash
# Runs the tests of the kernels under Miri, on portable code without threads. Tests take small sizes
# there (`cases` of crates/kernels/tests/common).
# Needs: rustup toolchain install nightly --component miri,rust-src
# Usage: scripts/miri.sh [lib|sizes|ops|conv] [TEST FILTER]
set -euo pipefail
cd "$(dirname "$0")/.."
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-target/miri}
tests=(--lib --test sizes --test ops --test conv)
case ${1:-} in
  lib) tests=(--lib); shift ;;
  sizes | ops | conv) tests=(--test "$1"); shift ;;
esac
cargo +nightly miri test -p sora-robust-kernels --features serial "${tests[@]}" -- "$@"
