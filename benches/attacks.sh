#!/usr/bin/env bash
# Times `autoattack` (standard) of ours and of torchattacks on the same weights and the same images, in turn, on the same machine in one run.
#
# Usage: benches/attacks.sh WEIGHTS.safetensors DATASET [N] [EPSILON] [PAIRS]
#   WEIGHTS   a preact-resnet18 that `sora train` wrote      DATASET   as for --dataset
#   N         images (default 64)    EPSILON   (default 8/255)    PAIRS   pairs of runs (default 1)
# The peer runs twice: with the schedule of the paper (100 steps in APGD and FAB), which is ours, and as torchattacks has it by default (10 steps).
# Environment: PEERS ("autoattack autoattack-default", these two), THREADS. PYTHON names an interpreter that has torch, torchattacks, safetensors and numpy; without it they are installed from PyPI into .venv-crosscheck.
set -euo pipefail
cd "$(dirname "$0")/.."
weights=${1:?usage: benches/attacks.sh WEIGHTS.safetensors DATASET [N] [EPSILON] [PAIRS]}
dataset=${2:?usage: benches/attacks.sh WEIGHTS.safetensors DATASET [N] [EPSILON] [PAIRS]}
peers=${PEERS:-autoattack autoattack-default}
n=${3:-64} epsilon=${4:-8/255} pairs=${5:-1} threads=${THREADS:-$(nproc)}
python=${PYTHON:-}
if [ -z "$python" ]; then
  python=.venv-crosscheck/bin/python
  $python -c 'import numpy, safetensors, torch, torchattacks' 2>/dev/null ||
    { python3 -m venv .venv-crosscheck && .venv-crosscheck/bin/pip install -q -r scripts/crosscheck/requirements.txt; }
fi
sora=${SORA:-target/release/sora}
[ -x "$sora" ] || cargo build --release --quiet --bin sora
# These slow a current numpy and PyTorch where they are set.
unset OPENBLAS_CORETYPE OPENBLAS_L2_SIZE
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cp "$weights" "$folder/model.safetensors"
ours=("$sora" eval "$folder/model.safetensors" --dataset "$dataset" --epsilon "$epsilon" --limit "$n" --threads "$threads" --json)
"${ours[@]}" --attacks fgsm --save-adv >/dev/null 2>&1
mv "$folder"/*.npz "$folder/images.npz"

echo "| pair | tool | robust accuracy | seconds | ours / this |"
echo "|---|---|---|---|---|"
for pair in $(seq "$pairs"); do
  "${ours[@]}" --attacks clean,autoattack >"$folder/ours.json" 2>/dev/null
  for attack in $peers; do
    rm -rf "$folder/peer"
    "$python" scripts/crosscheck/peer.py --weights "$folder/model.safetensors" --images "$folder/images.npz" --out "$folder/peer" \
      --epsilon "$epsilon" --n "$n" --batch 256 --threads "$threads" --attacks "$attack" >"$folder/$attack.json" 2>"$folder/log" || { tail -3 "$folder/log" >&2; exit 1; }
  done
  "$python" - "$folder" "$pair" $peers <<'PY'
import json, sys
folder, pair, *peers = sys.argv[1:]
ours = json.load(open(f"{folder}/ours.json"))["results"]["autoattack"]
print(f"| {pair} | ours | {ours['accuracy']:.4f} | {ours['seconds']:.1f} | |")
said = {"autoattack": "torchattacks, 100 steps", "autoattack-default": "torchattacks, its default of 10 steps"}
for name in peers:
    peer = json.load(open(f"{folder}/{name}.json"))
    print(f"| {pair} | {said[name]} | {peer['accuracy']:.4f} | {peer['seconds']:.1f} | {ours['seconds'] / peer['seconds']:.2f} |")
PY
done
