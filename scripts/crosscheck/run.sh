#!/usr/bin/env bash
# Attacks one weights file with ours and with public tools on the same images, and compares.
#
# Usage: scripts/crosscheck/run.sh WEIGHTS.safetensors DATASET OUT [N] [EPSILON] [ATTACKS]
#   WEIGHTS   a preact-resnet18 that `sora train` wrote      DATASET   as for --dataset      OUT   folder for what is found; a run cut off goes on
#             of the same WEIGHTS; images and results of another DATASET, N or EPSILON are kept beside each other
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
[ -f "$weights" ] || { echo "run.sh: $weights: no such file; expected weights that sora wrote" >&2; exit 2; }
mkdir -p "$out"
if [ ! -e "$out/model.safetensors" ]; then
  cp "$weights" "$out/model.new" && mv "$out/model.new" "$out/model.safetensors"
elif ! cmp -s "$weights" "$out/model.safetensors"; then
  echo "run.sh: $out has results of other weights than $weights; take another OUT" >&2
  exit 2
fi
python=${PYTHON:-}
if [ -z "$python" ]; then
  python=.venv-crosscheck/bin/python
  $python -c 'import numpy, safetensors, torch, torchattacks' 2>/dev/null ||
    { python3 -m venv .venv-crosscheck && .venv-crosscheck/bin/pip install -q -r scripts/crosscheck/requirements.txt; }
fi
sora=${SORA:-target/release/sora}
[ -x "$sora" ] || cargo build --release --quiet --bin sora
unset OPENBLAS_CORETYPE OPENBLAS_L2_SIZE
# Of which images and how many: everything else is in the names of the peer's results.
images=$out/images-${dataset//[^A-Za-z0-9._-]/_}-$n.npz
ours=("$sora" eval "$out/model.safetensors" --dataset "$dataset" --norm "$norm" --epsilon "$epsilon" --limit "$n" --json)
if [ ! -e "$images" ]; then
  "${ours[@]}" --attacks square-1 --save-adv >/dev/null
  mv "$out"/model-adv-square-1-*.npz "$images"
fi
"${ours[@]}" --attacks "clean,$attacks,autoattack" >"$out/ours.json"
peer=("$python" scripts/crosscheck/peer.py --weights "$out/model.safetensors" --images "$images" --norm "$norm" --epsilon "$epsilon" --n "$n" --threads "$(nproc)")
compare=("$python" scripts/crosscheck/compare.py "$out/ours.json" "$out/peer" --weights "$out/model.safetensors" --images "$images")
if [ "$norm" != l1 ]; then
  "${peer[@]}" --out "$out/peer" --attacks "$attacks"
  "${compare[@]}" --attacks "$attacks"
fi
if [ -n "${AUTO_ATTACK:-}" ]; then
  "${peer[@]}" --out "$out/peer" --tool auto-attack --auto-attack-path "$AUTO_ATTACK" --attacks autoattack
  "${compare[@]}" --tool auto-attack --attacks autoattack
fi
