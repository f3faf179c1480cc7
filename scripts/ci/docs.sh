#!/usr/bin/env bash
# The API's documentation, with warnings denied.
set -euo pipefail
cd "$(dirname "$0")/../.."
RUSTDOCFLAGS="-D warnings" cargo doc --release --workspace --no-deps
