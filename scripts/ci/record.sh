#!/usr/bin/env bash
# Prints a step's time under each instruction set that the machine has: a record, not a test.
cd "$(dirname "$0")/../.." || exit 0
sora=target/release/sora
for isa in amx avx512bf16 avx512 avx2 neon portable; do
  for precision in f32 bf16; do
    SORA_ISA=$isa $sora bench step --width 16 --steps 3 --precision $precision 2>/dev/null || true
  done
done
if SORA_ISA=amx $sora bench step --width 4 --batch 8 --image-size 8 --steps 1 >/dev/null 2>&1; then
  for precision in f32 bf16; do
    $sora bench step --width 64 --steps 3 --precision $precision --profile
  done
  $sora bench conv --width 64
fi
exit 0
