#!/usr/bin/env bash
# Every crate as it would be published: no warning, no test data inside.
set -euo pipefail
cd "$(dirname "$0")/../.."
log=$(mktemp)
cargo package --workspace --no-verify --allow-dirty 2>&1 | tee "$log"
! grep -q "^warning" "$log"
