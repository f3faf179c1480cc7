#!/usr/bin/env bash
# The documentation site, with its reference made by the program: to target/book, or to the folder $1.
# Dead links are refused. Without mdbook (cargo install mdbook) the sources are put together and
# checked all the same.
set -euo pipefail
cd "$(dirname "$0")/../.."
sora=${SORA:-target/release/sora}
[ -x "$sora" ] || cargo build --release --quiet --bin sora
out=$(realpath -m "${1:-target/book}")
source=$(mktemp -d)
trap 'rm -rf "$source"' EXIT
python3 scripts/docs/book.py "$sora" "$source"
if ! command -v mdbook >/dev/null; then
  scripts/ci/skipped.sh "mdbook is not here (cargo install mdbook): building the site"
  exit
fi
mdbook build "$source" --dest-dir "$out"
python3 scripts/docs/site_links.py "$out"
