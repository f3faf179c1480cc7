#!/usr/bin/env bash
# Memory and pace of an ImageNet-shaped run: 20,000 JPEG files of about 500x375 in 100 classes, 224x224 crops, decoded on demand.
#   PYTHON=python3 SORA=target/release/sora scripts/imagenet_memory.sh WORK [train options, such as --width 4 --batch 32]
# Prints images/s of the loader alone (BATCHES, 20), then trains for DURATION seconds (120) and prints its largest resident memory, its pace,
# and the share of the time that was not spent in steps (waiting for batches, logging). ONLY_LOADER=1 leaves the training out.
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
"${PYTHON:-python3}" - "$sora" "$work" "${DURATION:-120}" "$@" <<'PY'
import json, signal, subprocess, sys, time
from pathlib import Path

sora, work, duration, more = sys.argv[1], sys.argv[2], float(sys.argv[3]), sys.argv[4:]
call = [sora, "train", "--dataset", f"imagefolder:{work}/photos", "--epochs", "1", "--lr-max", "0.05", *more, "--out", f"{work}/run"]
run = subprocess.Popen(call, stderr=open(f"{work}/log", "w"))
metrics = Path(f"{work}/run/metrics.jsonl")
lines = lambda: [json.loads(line) for line in metrics.read_text().splitlines()] if metrics.exists() else []
while run.poll() is None and not lines():
    time.sleep(0.05)
begin, first = time.time(), len(lines())
while run.poll() is None and time.time() - begin < duration:
    time.sleep(0.5)
if run.poll() is not None:
    sys.exit(Path(f"{work}/log").read_text())
steps, elapsed = lines()[first:], time.time() - begin
peak = next(int(l.split()[1]) // 1024 for l in Path(f"/proc/{run.pid}/status").read_text().splitlines() if l.startswith("VmHWM"))
run.send_signal(signal.SIGINT)
run.wait()
batch = int(more[more.index("--batch") + 1]) if "--batch" in more else 128
busy = sum(batch / s["images_per_s"] for s in steps)
print(json.dumps({"peak_rss_mib": peak, "steps": len(steps), "batch": batch, "images_per_s": len(steps) * batch / elapsed, "waiting_share": max(0.0, 1 - busy / elapsed)}))
PY
