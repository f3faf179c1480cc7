#!/usr/bin/env bash
# Memory and pace of an ImageNet-shaped run: 20,000 JPEG files of about 500x375 in 100 classes, 224x224 crops, decoded on demand.
#   PYTHON=python3 SORA=target/release/sora scripts/imagenet_memory.sh WORK [train options, such as --width 4 --batch 32]
# Prints images/s of the loader alone, then of a training epoch, its largest resident memory, and the share of it that waited for batches.
set -euo pipefail
sora=${SORA:-$(dirname "$0")/../target/release/sora}
work=$1; shift
if [ ! -e "$work/made" ]; then
  "${PYTHON:-python3}" - "$work/photos" <<'PY'
import io, sys
from pathlib import Path
import numpy as np
from PIL import Image

root = Path(sys.argv[1])
rng = np.random.default_rng(0)

def photo():
    """Smooth shapes with edges and grain: about as many bytes as a photograph of that size."""
    height, width = [(375, 500), (500, 375), (333, 500), (400, 400)][rng.integers(4)]
    small = rng.integers(0, 256, (height // 24 + 2, width // 24 + 2, 3), np.uint8)
    image = np.asarray(Image.fromarray(small).resize((width, height), Image.BICUBIC), np.int16)
    image = image + rng.normal(0, 14, (height, width, 1)).astype(np.int16)
    data = io.BytesIO()
    Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(data, "JPEG", quality=92)
    return data.getvalue()

photos = [photo() for _ in range(400)]
print("mean file size", sum(map(len, photos)) // len(photos), "bytes")
for split, per_class in (("train", 200), ("val", 5)):
    for k in range(100):
        folder = root / split / f"n{k:08d}"
        folder.mkdir(parents=True, exist_ok=True)
        for i in range(per_class):
            (folder / f"{i}.JPEG").write_bytes(photos[(k * per_class + i) % len(photos)])
PY
  touch "$work/made"
fi
"$sora" bench data --dataset "imagefolder:$work/photos" --batch 128 --batches "${BATCHES:-20}"
[ "${ONLY_LOADER:-0}" = 1 ] && exit
rm -rf "$work/run"
start=$(date +%s.%N)
"$sora" train --dataset "imagefolder:$work/photos" --epochs 1 --val 0 --lr-max 0.05 "$@" --out "$work/run" 2>"$work/log"
end=$(date +%s.%N)
"${PYTHON:-python3}" - "$work/run" "$start" "$end" <<'PY'
import json, sys
run, start, end = sys.argv[1], float(sys.argv[2]), float(sys.argv[3])
line = json.loads(open(f"{run}/epochs.jsonl").readlines()[-1])
steps = [json.loads(l) for l in open(f"{run}/metrics.jsonl")]
images = sum(s["images_per_s"] > 0 for s in steps)
wall = end - start
print(json.dumps({"steps": images, "step_seconds": line["seconds"], "wall_seconds": wall, "waiting": 1 - line["seconds"] / wall, "peak_rss_mib": line["peak_rss_mib"]}))
PY
