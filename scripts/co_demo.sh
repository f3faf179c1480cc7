#!/usr/bin/env bash
# Runs FGSM into catastrophic overfitting on real images and SORA past the same point without it, says when it was noticed, and makes the
# report page of the two runs. 468 steps of 128 images each, and a validation on 500 images every 10 steps.
# Usage: scripts/co_demo.sh IMAGE_FOLDER [OUT]      IMAGE_FOLDER: train/CLASS/*.jpg|png and test/CLASS/*, for example CIFAR-10 in folders
set -euo pipefail
cd "$(dirname "$0")/.."
images=${1:?usage: scripts/co_demo.sh IMAGE_FOLDER [OUT]}
out=${2:-runs/co-demo}
cargo build --release --quiet --bin sora
sora=$PWD/target/release/sora
mkdir -p "$out"
for method in fgsm sora; do
  run=$out/$method
  if [ -f "$run/config.toml" ]; then
    "$sora" resume "$run"
  else
    "$sora" train --dataset "folder:$images" --method "$method" --epsilon 16/255 --width 16 --limit-train 10500 --val 500 --val-steps 10 \
      --epochs 6 --checkpoint-steps 20 --keep 30 --out "$run"
  fi
done
"$sora" diagnose "$out/fgsm" "$out/sora"
# What the demonstration must show: the detector marks fgsm and only fgsm.
test "$("$sora" diagnose --json "$out/fgsm" | grep -c '"co":null')" = 0
test "$("$sora" diagnose --json "$out/sora" | grep -c '"co":null')" = 1
"$sora" report "$out/fgsm" "$out/sora" --out "$out/report"
