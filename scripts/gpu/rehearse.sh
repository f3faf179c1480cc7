#!/usr/bin/env bash
# lease.sh without a card, at small sizes: lavapipe in place of it, PyTorch on the CPU. Takes some minutes.
#
#   scripts/gpu/rehearse.sh OUT PROGRAM PEER.py [CIFAR10.tar.xz]      PROGRAM built with --features vulkan
#
# LAVAPIPE: folder of lavapipe.sh, if not its usual one. Fails if no step was timed on both sides.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
run="$here/lavapipe.sh${LAVAPIPE:+ -C $LAVAPIPE}"
$run >/dev/null
export DEVICE=vulkan SECOND='' TORCH=cpu WIDTH=4 BATCHES=${BATCHES:-"8 16"} IMAGE=16 STEPS=2 MATRIX=256 COMPILE=0 RUN=$run
export TRAIN=f32 LIMIT=${LIMIT:-3000} PATIENCE=${PATIENCE:-8}
"$here/lease.sh" "$@"
grep -q '"framework":"sora' "$1/lines.jsonl" && grep -q '"framework": "torch' "$1/lines.jsonl"
grep -q '"kind":"agreement"' "$1/lines.jsonl"
