#!/usr/bin/env bash
# Every block of commands in the documentation runs, in small; see scripts/docs/commands.py.
set -euo pipefail
cd "$(dirname "$0")/../.."
if ! python3 -c 'import tomllib' 2>/dev/null; then
  scripts/ci/skipped.sh "Python 3.11 or newer is not here"
  exit
fi
sora=${SORA:-target/release/sora}
[ -x "$sora" ] || cargo build --release --quiet --bin sora
python3 scripts/docs/commands.py "$sora" "$@"

# The test of the Homebrew formula, which release.yml repeats on macOS and Windows.
words=$(sed -n 's|^ *system bin/"sora", \(.*\), testpath/"run"$|\1|p' packaging/sora.rb.in | tr -d '",')
grep -q "sora ${words% --out} " .github/workflows/release.yml || { echo "release.yml tries another training than sora.rb.in"; exit 1; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
# shellcheck disable=SC2086 # words of a command
"$sora" -q $words "$folder/run"
"$sora" -q eval "$folder/run" --limit 64 | grep pgd-10 >/dev/null
echo "the formula's test passes"
