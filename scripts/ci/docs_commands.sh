#!/usr/bin/env bash
# Every block of commands in the documentation runs, in small; see scripts/docs/commands.py.
set -euo pipefail
cd "$(dirname "$0")/../.."
if ! python3 -c 'import tomllib' 2>/dev/null; then
  echo "Python 3.11 or newer is not here: skipped"
  exit 0
fi
sora=${SORA:-target/release/sora}
[ -x "$sora" ] || cargo build --release --quiet --bin sora
python3 scripts/docs/commands.py "$sora" "$@"
