#!/usr/bin/env bash
# Every crate as it would be published: no warning, its licence and no golden values inside.
set -euo pipefail
cd "$(dirname "$0")/../.."
log=$(mktemp)
trap 'rm -f "$log"' EXIT
cargo package --workspace --no-verify --allow-dirty 2>&1 | tee "$log"
if grep "^warning" "$log" >/dev/null; then exit 1; fi
for manifest in crates/*/Cargo.toml; do
  cargo package --manifest-path "$manifest" --list --allow-dirty >"$log"
  grep -x LICENSE "$log" >/dev/null || { echo "$manifest: the package holds no LICENSE: name it in include" >&2; exit 1; }
  if grep '^tests/golden/' "$log"; then echo "$manifest: the package holds golden values: leave them out of include" >&2; exit 1; fi
done
