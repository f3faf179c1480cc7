#!/usr/bin/env bash
# Kills a short run with SIGKILL at random moments, resumes it each time, and checks that it ends in the same bits as an unbroken run:
# final weights, and every line of metrics.jsonl and epochs.jsonl except wall-clock fields.
# Usage: scripts/kill_resume.sh [KILLS] [further flags of `sora train`, for example --method pgd]
set -euo pipefail
cd "$(dirname "$0")/.."
kills=${1:-20}
shift || true
cargo build --release --quiet --bin sora
sora=$PWD/target/release/sora
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
flags=(--dataset synthetic --image-size 16 --width 8 --limit-train 1200 --limit-test 100 --val 100 --batch 50 --epochs 4 --seed 3
       --checkpoint-steps 2 --keep 3 "$@")

start=$(date +%s%N)
"$sora" train "${flags[@]}" --out "$work/whole" 2>"$work/log"
length=$(( ($(date +%s%N) - start) / 1000000 ))
echo "unbroken run: ${length} ms"

met=0
call=(train "${flags[@]}" --out "$work/broken")
while [ "$met" -lt "$kills" ]; do
  "$sora" "${call[@]}" 2>>"$work/log" &
  pid=$!
  # Anywhere from before the folder exists to about a tenth of the run later: checkpoints are being written all the time.
  wait_ms=$(( RANDOM % (length / 8 + 60) ))
  sleep "$(printf '%d.%03d' $((wait_ms / 1000)) $((wait_ms % 1000)))"
  if kill -9 "$pid" 2>/dev/null; then met=$((met + 1)); fi
  wait "$pid" 2>/dev/null || true
  if [ -f "$work/broken/config.toml" ]; then
    call=(resume "$work/broken")
    if [ -f "$work/broken/model.safetensors" ]; then
      # It was done before all kills were spent: begin once more, the kills go on.
      cmp "$work/whole/model.safetensors" "$work/broken/model.safetensors"
      rm -rf "$work/broken"
      call=(train "${flags[@]}" --out "$work/broken")
    fi
  else
    rm -rf "$work/broken"
  fi
done
"$sora" "${call[@]}" 2>>"$work/log"

strip() { sed -E 's/"(seconds|val_seconds|images_per_s|peak_rss_mib)":[^,}]*//g' "$1"; }
cmp "$work/whole/model.safetensors" "$work/broken/model.safetensors"
for log in metrics epochs; do
  cmp <(strip "$work/whole/$log.jsonl") <(strip "$work/broken/$log.jsonl")
done
echo "same bits after $met kills"
