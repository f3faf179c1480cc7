#!/usr/bin/env bash
# Golden values, methods and the engine again under each instruction set that this machine has (the
# kernels' own tests try every one by themselves). Results are appended to the file $1.
set -euo pipefail
cd "$(dirname "$0")/../.."
log=${1:-/dev/null}
sora=target/release/sora
[ -x $sora ] || cargo build --release --quiet --bin sora
for isa in avx512 avx2 portable; do
  status=0
  said=$(SORA_ISA=$isa $sora bench step --width 4 --batch 8 --image-size 8 --steps 1 2>&1) || status=$?
  # 2: not on this machine. Portable code is on every one.
  if [ "$status" = 2 ] && [ $isa != portable ]; then
    echo "-- $isa is not on this machine"
    continue
  fi
  [ "$status" = 0 ] || { echo "-- $isa: exit status $status"; echo "$said"; exit 1; }
  echo "-- $isa"
  SORA_ISA=$isa cargo test --release --workspace --test suite -- golden methods engine 2>&1 | tee -a "$log"
done
