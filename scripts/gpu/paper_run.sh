#!/usr/bin/env bash
# The paper's own run on a borrowed card, in one call of at most LIMIT seconds (560), without a network: PreActResNet-18 of
# width 64, 30 epochs of all images, 8/255, sora, bf16; then clean, fgsm, pgd-50x10 and AutoAttack, a file of results each.
#
#   scripts/gpu/paper_run.sh OUT PROGRAM CIFAR10.tar.xz      PROGRAM and CIFAR10 as for lease.sh
#
# OUT gets the run's configuration and logs, and the results as they come; not the weights. AutoAttack takes the time that
# is left; cut off, it leaves none. Environment, with the values of a card: DEVICE=cuda WIDTH=64 BATCH=128 EPOCHS=30 SEED=10
# PRECISION=bf16 IMAGES=1000 (of pgd-50x10) AUTOATTACK=500 (images) LIMIT=560 PYTHON=python3.
set -uo pipefail
usage="usage: $0 OUT PROGRAM CIFAR10.tar.xz"
out=${1:?$usage} program=${2:?$usage} cifar=${3:?$usage}
device=${DEVICE:-cuda} limit=${LIMIT:-560} python=${PYTHON:-python3}
mkdir -p "$out"
out=$(realpath "$out")
# Results of an earlier run do not stand beside those of this one.
rm -f "$out"/{config.toml,epochs.jsonl,metrics.jsonl,summary.json,clean.json,pgd.json,autoattack.json,log.txt}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
say() { printf '== %s (%s s in)\n' "$*" "$SECONDS" | tee -a "$out/log.txt"; }
left() { local seconds=$((limit - SECONDS - 5)); echo $((seconds > 1 ? seconds : 1)); }

case $program in
  *.xz)
    "$python" -c 'import lzma, shutil, sys; shutil.copyfileobj(lzma.open(sys.argv[1]), open(sys.argv[2], "wb"))' \
      "$program" "$work/sora" && chmod +x "$work/sora" && program=$work/sora
    ;;
esac
[ -x "$program" ] || { echo "$0: $program is no program" >&2; exit 2; }
WORK=$work PYTHON=$python
. "$(dirname "$0")/card.sh"

"$python" -c 'import sys, tarfile; tarfile.open(sys.argv[1]).extractall(sys.argv[2])' "$cifar" "$work" 2>>"$out/log.txt"
data=$(dirname "$(find "$work" -maxdepth 3 -name train -type d | head -1)")
say training
timeout "$(left)" "$program" train --dataset "folder:$data" --data-dir "$work" --out "$work/run" --method sora \
  --model preact-resnet18 --width "${WIDTH:-64}" --batch "${BATCH:-128}" --epochs "${EPOCHS:-30}" --eps 8/255 \
  --precision "${PRECISION:-bf16}" --seed "${SEED:-10}" --shortcut input --drop-last=false --schedule cyclic --cycle-momentum --val 0 \
  --device "$device" >>"$out/log.txt" 2>&1
status=$?
cp "$work"/run/{config.toml,epochs.jsonl,metrics.jsonl,summary.json} "$out" 2>>"$out/log.txt"
say "training ended with status $status"
[ $status = 0 ] || exit 1
judge() { # NAME OPTIONS OF sora eval
  local name=$1
  shift
  timeout "$(left)" "$program" eval "$work/run" --data-dir "$work" --device "$device" --json "$@" \
    >"$work/result.json" 2>>"$out/log.txt" && mv "$work/result.json" "$out/$name.json"
  say "$name ended with status $?"
}
judge clean --attacks clean,fgsm
judge pgd --attacks clean,fgsm,pgd-10,pgd-50x10 --limit "${IMAGES:-1000}"
judge autoattack --attacks autoattack --limit "${AUTOATTACK:-500}"
