#!/usr/bin/env bash
# Format, and lints with warnings denied.
set -euo pipefail
cd "$(dirname "$0")/../.."
cargo fmt --all --check
cargo clippy --release --workspace --all-targets -- -D warnings
