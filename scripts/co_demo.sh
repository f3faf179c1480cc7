#!/usr/bin/env bash
# Trains FGSM into catastrophic overfitting on real images and SORA past the same point without it, says when it was noticed, shows over which
# radii each is robust, and makes the report page of the two runs: 60 epochs of 10,000 images each, a validation on 500 images after each.
# A quarter of an hour on two cores of today. The same call goes on where it was cut off.
# Usage: scripts/co_demo.sh IMAGE_FOLDER [OUT]      IMAGE_FOLDER: train/CLASS/*.jpg|png and test/CLASS/*, for example CIFAR-10 in folders
set -euo pipefail
cd "$(dirname "$0")/.."
images=${1:?usage: scripts/co_demo.sh IMAGE_FOLDER [OUT]}
out=${2:-runs/co-demo}
[ -n "${SORA:-}" ] || cargo build --release --quiet --bin sora
sora=${SORA:-$PWD/target/release/sora}
mkdir -p "$out"
for method in fgsm sora; do
  run=$out/$method
  if [ -f "$run/config.toml" ]; then
    "$sora" resume "$run"
  else
    "$sora" train --dataset "folder:$images" --method "$method" --epsilon 16/255 --epsilon-warmup 10 --width 8 --precision bf16 \
      --limit-train 10500 --val 500 --epochs 60 --out "$run"
  fi
  "$sora" eval "$run" --limit 1000
  # Epsilon overfitting: robust where it was trained, against the attack that it was trained on, and nowhere else.
  "$sora" sweep "$run" --limit 1000
done
"$sora" diagnose "$out/fgsm" "$out/sora"
# What the demonstration must show: the detector marks fgsm and only fgsm.
test "$("$sora" diagnose --json "$out/fgsm" | grep -c '"co":null')" = 0
test "$("$sora" diagnose --json "$out/sora" | grep -c '"co":null')" = 1
"$sora" report "$out/fgsm" "$out/sora" --out "$out/report"
