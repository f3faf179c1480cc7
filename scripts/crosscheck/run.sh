#!/usr/bin/env bash
# Attacks one weights file with ours and with public tools on the same images, and compares.
#
# Usage: scripts/crosscheck/run.sh WEIGHTS.safetensors DATASET OUT [N] [EPSILON] [ATTACKS]
#   WEIGHTS   a preact-resnet18 that `sora train` wrote      DATASET   as for --dataset      OUT   folder for what is found; a run cut off goes on
#   N         images (default 1000)    EPSILON   (default 8/255)    ATTACKS   (default: all that torchattacks has in the norm)
# NORM=l2 attacks in l2 (default linf), NORM=l1 in l1, where torchattacks has nothing and AUTO_ATTACK is needed.
# AUTO_ATTACK=CHECKOUT also runs the official AutoAttack from a checkout of github.com/fra31/auto-attack (it is not on PyPI).
# PYTHON as in benches/attacks.sh. PyTorch needs some hours for 1000 images of a robust model on two cores.
set -euo pipefail
cd "$(dirname "$0")/../.."
usage="usage: scripts/crosscheck/run.sh WEIGHTS.safetensors DATASET OUT [N] [EPSILON] [ATTACKS]"
weights=${1:?$usage} dataset=${2:?$usage} out=${3:?$usage} n=${4:-1000} epsilon=${5:-8/255}
norm=${NORM:-linf}
case $norm in
  linf) attacks=${6:-fgsm,pgd-10,apgd-ce,apgd-dlr,apgd-t,fab,fab-t,square} ;;
  l2) attacks=${6:-pgd-10,cw,apgd-ce,apgd-dlr,apgd-t,fab,fab-t,square} ;;
  l1) attacks=${6:-apgd-ce,apgd-t,fab-t,square}; : "${AUTO_ATTACK:?NORM=l1 needs AUTO_ATTACK}" ;;
  *) echo "$usage; NORM is linf, l2 or l1, not '$norm'" >&2; exit 2 ;;
esac
python=${PYTHON:-}
if [ -z "$python" ]; then
  python=.venv-crosscheck/bin/python
  [ -x $python ] || { python3 -m venv .venv-crosscheck && .venv-crosscheck/bin/pip install -q -r scripts/crosscheck/requirements.txt; }
fi
sora=${SORA:-target/release/sora}
[ -x "$sora" ] || cargo build --release --quiet --bin sora
unset OPENBLAS_CORETYPE OPENBLAS_L2_SIZE
mkdir -p "$out"
[ -e "$out/model.safetensors" ] || cp "$weights" "$out/model.safetensors"
ours=("$sora" eval "$out/model.safetensors" --dataset "$dataset" --norm "$norm" --epsilon "$epsilon" --limit "$n" --json)
if [ ! -e "$out/images.npz" ]; then
  "${ours[@]}" --attacks square-1 --save-adv >/dev/null
  mv "$out"/model-adv-square-1-*.npz "$out/images.npz"
fi
"${ours[@]}" --attacks "clean,$attacks,autoattack" >"$out/ours.json"
peer=("$python" scripts/crosscheck/peer.py --weights "$out/model.safetensors" --images "$out/images.npz" --norm "$norm" --epsilon "$epsilon" --n "$n" --threads "$(nproc)")
if [ "$norm" != l1 ]; then
  "${peer[@]}" --out "$out/peer" --attacks "$attacks"
  "$python" scripts/crosscheck/compare.py "$out/ours.json" "$out/peer"
fi
if [ -n "${AUTO_ATTACK:-}" ]; then
  "${peer[@]}" --out "$out/peer" --tool auto-attack --auto-attack-path "$AUTO_ATTACK" --attacks autoattack
  "$python" scripts/crosscheck/compare.py "$out/ours.json" "$out/peer" --tool auto-attack
fi
