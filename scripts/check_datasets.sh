#!/usr/bin/env bash
# Every registered data set, in its true format with made-up images, through `sora train --limit-train 256 --epochs 1` and `sora eval`.
#   PYTHON=python3 SORA=target/release/sora scripts/check_datasets.sh [WORK FOLDER]
# The Python needs numpy, scipy, pillow and pyarrow. About 3 GB are written to the work folder, which is removed unless one is given.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
sora=${SORA:-$here/../target/release/sora}
if [ $# -gt 0 ]; then work=$1; mkdir -p "$work"; else work=$(mktemp -d); trap 'rm -rf "$work"' EXIT; fi
data=$work/data
[ -e "$work/made" ] || { echo "making the files in $data"; "${PYTHON:-python3}" "$here/make_datasets.py" "$data"; touch "$work/made"; }
failed=0
check() { # data set, options...
  local name=$1 run; shift
  run=$work/run-$(echo "$name" | tr -c 'a-z0-9\n' -)
  rm -rf "$run"
  if "$sora" train --dataset "$name" --data-dir "$data" --limit-train 256 --limit-test 64 --epochs 1 --width 8 --batch 32 --val 32 --lr-max 0.05 "$@" \
      --out "$run" >"$work/log" 2>&1 && "$sora" eval "$run" --attacks clean --json >"$work/eval" 2>>"$work/log"; then
    printf '%-34s %s\n' "$name ${*:1:2}" "$(grep -o '"n":[0-9]*\|"accuracy":[0-9.]*' "$work/eval" | tr '\n' ' ')"
  else
    failed=1; printf '%-34s FAILED\n' "$name"; cat "$work/log"
  fi
}
for name in synthetic fashion-mnist mnist cifar10 cifar100 svhn pathmnist chestmnist dermamnist octmnist pneumoniamnist retinamnist breastmnist bloodmnist tissuemnist \
    organamnist organcmnist organsmnist tiny-imagenet; do
  check $name
done
check bloodmnist --image-size 64
check breastmnist-128 --batch 16
check dermamnist --image-size 224 --limit-train 64 --val 16 --batch 8 --width 4
check imagenette --image-size 96
check imagenette-160 --image-size 64
check imagenet100 --image-size 64
check imagenet --image-size 64
check "imagefolder:$data/photos" --batch 8 --width 4
check "folder:$data/small" --image-size 32
data=$data/python
check cifar10
check cifar100
exit $failed
