#!/usr/bin/env bash
# The kernels of a training step on a CUDA card, launched one by one under Nsight Compute (ncu, of a CUDA toolkit): a JSON
# line a kernel with its milliseconds and launches in a step, most time first. The card's clocks stay as they are; gaps
# between launches do not count.
#
#   scripts/gpu/kernels.sh [OPTIONS OF sora bench step]      SORA: the program, built with --features cuda
set -euo pipefail
# As in check.sh.
trap 'exit 143' TERM
here=$(dirname "$0")
table=$(mktemp)
trap 'rm -f "$table"' EXIT
# Six steps that warm up, and one.
SORA_RECORD=0 ncu --clock-control none --metrics gpu__time_duration.sum --csv --page raw --log-file "$table" \
  "${SORA:-$here/../../target/release/sora}" bench step --device cuda --steps 1 "$@" >&2
"${PYTHON:-python3}" "$here/kernels.py" "$table" 7
