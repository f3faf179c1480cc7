#!/usr/bin/env bash
# Licences and sources of the dependencies, with cargo-deny where it can be had; known
# vulnerabilities, too, where its database can be had.
set -euo pipefail
cd "$(dirname "$0")/../.."
if ! command -v cargo-deny >/dev/null; then
  # The Rust that this repository pins may be too old for it.
  cargo=(cargo)
  if cargo +stable --version >/dev/null 2>&1; then cargo+=(+stable); fi
  "${cargo[@]}" install --quiet --locked cargo-deny || { scripts/ci/skipped.sh "cargo-deny cannot be had here"; exit; }
fi
cargo deny check bans licenses sources
if cargo deny fetch db >/dev/null 2>&1; then
  cargo deny check advisories
else
  scripts/ci/skipped.sh "the database of advisories cannot be had here"
fi
