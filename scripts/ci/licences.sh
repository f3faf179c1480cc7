#!/usr/bin/env bash
# Licences and sources of the dependencies, with cargo-deny where it can be had; known
# vulnerabilities, too, where its database can be had.
set -euo pipefail
cd "$(dirname "$0")/../.."
if ! command -v cargo-deny >/dev/null; then
  cargo install --quiet --locked cargo-deny || { echo "cargo-deny cannot be had here: skipped"; exit 0; }
fi
cargo deny check bans licenses sources
if cargo deny fetch db >/dev/null 2>&1; then
  cargo deny check advisories
else
  echo "the database of advisories cannot be had here: skipped"
fi
