#!/usr/bin/env bash
# Trains every network for an epoch of 256 images at a small width, evaluates it, exports it both ways and imports it back.
# check_models.sh [SORA [FOLDER]]: the program (default target/release/sora) and where to leave the runs (default a temporary folder).
# With PYTHON set to an interpreter that has torch, safetensors, onnx and onnxruntime, PyTorch and onnxruntime are held against the logits.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
sora=${1:-$root/target/release/sora}
folder=${2:-$(mktemp -d)}
mkdir -p "$folder"
for row in \
    preact-resnet18:8:16 preact-resnet34:8:16 preact-resnet50:4:16 preact-resnet101:4:16 preact-resnet152:4:16 \
    resnet18:8:16 resnet34:8:16 resnet50:4:16 resnet101:4:16 resnet152:4:16 \
    wideresnet-28-10:16:16 wideresnet-34-10:16:16 senet18:16:16 vgg16-bn:8:32 \
    vit-tiny:24:16 vit-small:24:16 cct-7-3x1:16:16 mnist-cnn:8:28 \
    resnet18:8:96 vgg16-bn:2:96; do
    IFS=: read -r model width size <<<"$row"
    out=$folder/$model-$size
    more=()
    case $model in
    wideresnet-28-10 | vit-tiny) more=(--dropout 0.1) ;;
    senet18) more=(--activation silu) ;;
    esac
    case $model in
    vit* | cct*) more+=(--optimizer adamw --lr-max 0.001 --weight-decay 0.05) ;;
    *) more+=(--lr-max 0.05) ;;
    esac
    "$sora" train --dataset synthetic --image-size "$size" --model "$model" --width "$width" --limit-train 256 --limit-test 64 \
        --val 32 --batch 32 --epochs 1 "${more[@]}" --out "$out" 2>"$out.log" || { cat "$out.log"; exit 1; }
    before=$("$sora" eval "$out" --attacks clean,pgd-10 --json 2>/dev/null)
    "$sora" export "$out" --format safetensors --samples 8 2>>"$out.log"
    "$sora" export "$out" --format onnx --samples 8 2>>"$out.log"
    "$sora" import "$out/export/model.safetensors" --model "$model" --out "$out-imported" 2>>"$out.log"
    after=$("$sora" eval "$out-imported" --limit 64 --attacks clean,pgd-10 --json 2>/dev/null)
    accuracies() { grep -o '"accuracy":[0-9.]*' | tr '\n' ' '; }
    a=$(accuracies <<<"$before") b=$(accuracies <<<"$after")
    [ "$a" = "$b" ] || { echo "$model: $a before, $b after the import"; exit 1; }
    echo "$model width $width images $size: trained, evaluated ($a), exported, imported"
done
if [ -n "${PYTHON:-}" ]; then
    "$PYTHON" "$root/scripts/exchange/check.py" "$folder"
fi
