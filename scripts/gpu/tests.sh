#!/usr/bin/env bash
# The tests of crates/devices, each kernel against its definition, on the CPU by Mesa's lavapipe (scripts/gpu/lavapipe.sh):
#
#   scripts/gpu/tests.sh [-C FOLDER] [NAME OF A TEST ...]      -C: folder of lavapipe.sh, if not its usual one
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
run=$here/lavapipe.sh
if [ "${1:-}" = -C ]; then
  run="$run -C $(realpath -m "${2:?"usage: $0 [-C FOLDER] [NAME OF A TEST ...]"}")"
  shift 2
fi
$run >/dev/null
cd "$here/../.."
export CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER=$run
exec cargo test --release -p sora-robust-devices --features vulkan --lib "$@"
