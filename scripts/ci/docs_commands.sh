#!/usr/bin/env bash
# Every block of commands in the documentation runs, in small; see scripts/docs/commands.py.
set -euo pipefail
cd "$(dirname "$0")/../.."
sora=${SORA:-target/release/sora}
[ -x "$sora" ] || cargo build --release --quiet --bin sora
python3 scripts/docs/commands.py "$sora" "$@"
