#!/usr/bin/env bash
# The README's test command, on the data set of its first; prints the totals.
set -euo pipefail
cd "$(dirname "$0")/../.."
log=${1:-$(mktemp)}
scripts/setup.sh || scripts/ci/skipped.sh "Fashion-MNIST cannot be had here: what needs it"
browser=$(command -v chromium chromium-browser google-chrome | head -1 || true)
echo "the tests of pages run in ${browser:-no browser: none is here, they are skipped}"
cargo test --release --workspace 2>&1 | tee "$log"
scripts/ci/totals.sh "$log"
