#!/usr/bin/env bash
# Everything that a borrowed card is wanted for, in one call of at most LIMIT seconds (540), without a network:
#
#   scripts/gpu/lease.sh OUT PROGRAM PEER.py [CIFAR10.tar.xz]
#
# OUT      folder for the results: lines.jsonl (every figure), table.md, log.txt; written as they come
# PROGRAM  sora built with --features cuda,vulkan, as it is or compressed (sora.xz): FEATURES=cuda,vulkan build-cuda.sh,
#          then scripts/gpu/pack.sh
# PEER.py  a PyTorch step script, as for benches/compare.sh, that also takes --device --no-tf32 --compile --compile-mode
# CIFAR10  an archive with train/CLASS/*.jpg and test/CLASS/*.jpg: trained on with the time that is left
#
# In the order of their worth, and as far as the time goes: half precision at full width against the CPU; steps of sora,
# fgsm and pgd in bf16, f32 and tf32 against PyTorch's eager steps, in turn, and against its compiled and CUDA-graph steps;
# methods, an evaluation and resuming against the CPU (check.sh); each convolution against cuDNN and the card's peak; batch
# 512; Vulkan; networks against the CPU; the kernels of a step (kernels.sh); a training at the paper's size (paper_run.sh
# has a call to itself, and evaluates it). A stage that fails or takes too long is a line in the results, and the next one
# begins.
#
# A rehearsal without a card (small, on lavapipe and PyTorch's CPU): scripts/gpu/rehearse.sh. Environment, with the
# values of a card: DEVICE=cuda SECOND=vulkan TORCH=cuda WIDTH=64 BATCHES="128 512" IMAGE=32 STEPS=20 MATRIX=8192
# PRECISIONS="f32 tf32 bf16" TRAIN=bf16 COMPILE=1 LIMIT=540 PATIENCE=1 (times the seconds of each stage) PYTHON=python3
# RUN= (a prefix of every call of sora) LIBS= (a folder with shared libraries that the machine lacks, as libvulkan.so.1).
set -uo pipefail
usage="usage: $0 OUT PROGRAM PEER.py [CIFAR10.tar.xz]"
out=${1:?$usage} program=${2:?$usage} peer=${3:?$usage} cifar=${4:-}
here=$(cd "$(dirname "$0")" && pwd)
device=${DEVICE:-cuda} second=${SECOND-vulkan} torch=${TORCH:-cuda} width=${WIDTH:-64} image=${IMAGE:-32}
steps=${STEPS:-20} matrix=${MATRIX:-8192} limit=${LIMIT:-540} python=${PYTHON:-python3}
read -ra batches <<<"${BATCHES:-128 512}"
read -ra precisions <<<"${PRECISIONS:-f32 tf32 bf16}"
read -ra run <<<"${RUN:-}"
# The last precision is the fastest, and the first that is timed.
best=${precisions[-1]}
order=("$best" "${precisions[@]:0:${#precisions[@]}-1}")
mkdir -p "$out"
out=$(realpath "$out")
lines=$out/lines.jsonl log=$out/log.txt
: >"$lines"
: >"$log"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

case $program in
  *.xz)
    if command -v xz >/dev/null; then
      xz --decompress --stdout "$program"
    else
      "$python" -c 'import lzma, shutil, sys; shutil.copyfileobj(lzma.open(sys.argv[1]), sys.stdout.buffer)' "$program"
    fi >"$work/sora"
    chmod +x "$work/sora" && program=$work/sora
    ;;
esac
[ -x "$program" ] || { echo "$0: $program is no program" >&2; exit 2; }
export SORA=$program LD_LIBRARY_PATH=${LIBS:+$LIBS:}${LD_LIBRARY_PATH:-} TORCHINDUCTOR_CACHE_DIR=$work/inductor
sora=("${run[@]}" "$program")
WORK=$work PYTHON=$python
. "$here/card.sh"

# stage NAME SECONDS COMMAND...: its JSON lines go to the results, the rest to the log.
stage() {
  local name=$1 most=$2 left=$((limit - SECONDS)) began=$SECONDS status
  shift 2
  if [ $left -lt 10 ]; then
    printf '{"kind":"stage","stage":"%s","status":"skipped","seconds":0}\n' "$name" >>"$lines"
    return
  fi
  most=$((most * ${PATIENCE:-1}))
  [ "$most" -gt $((left - 4)) ] && most=$((left - 4))
  printf '== %s (%s s in)\n' "$name" "$SECONDS" | tee -a "$log"
  timeout --kill-after 3 "$most" "$@" >"$work/stdout" 2>>"$log"
  status=$?
  grep '^{' "$work/stdout" | sed "s/^{/{\"stage\":\"$name\",/" >>"$lines"
  grep -v '^{' "$work/stdout" >>"$log"
  printf '{"kind":"stage","stage":"%s","status":%s,"seconds":%s}\n' "$name" $status $((SECONDS - began)) >>"$lines"
  [ $status = 0 ] || printf '   status %s; %s\n' $status "$(tail -1 "$log")" | tee -a "$log"
}

ours() { # BATCH PRECISION SECONDS METHODS
  stage "sora $2 batch $1" "$3" "${sora[@]}" bench step --device "$device" --width "$width" --image-size "$image" --batch "$1" \
    --precision "$2" --steps "$steps" --method "$4"
}
theirs() { # BATCH PRECISION SECONDS METHOD [OPTIONS]
  local batch=$1 precision=$2 most=$3 method=$4 options=(--precision f32) script=("$peer")
  shift 4
  case "$*" in *reduce-overhead*) script=("$here/torch_graphs.py" "$peer") ;; esac
  case $precision in
    f32) options+=(--no-tf32) ;;
    tf32) options+=(--channels-last) ;;
    bf16) options=(--precision bf16 --channels-last) ;;
  esac
  stage "torch $precision batch $batch $method $*" "$most" "$python" "${script[@]}" --device "$torch" --method "$method" \
    --width "$width" --size "$image" --batch "$batch" --steps "$steps" "${options[@]}" "$@"
}
check() { # DEVICE SECONDS GROUPS [OPTIONS OF sora bench agree]
  local device=$1 most=$2 groups=$3
  shift 3
  : >"$work/check"
  RUN="${run[*]}" OUT=$work/check ONLY=$groups stage "check $device $groups" "$most" bash "$here/check.sh" "$device" "$@"
  sed "s/^{/{\"stage\":\"check $device\",/" "$work/check" >>"$lines"
}
table() { "$python" "$here/lease_table.py" "$lines" >"$out/table.md" 2>>"$log"; }

batch=${batches[0]}
compiled() { [ "${COMPILE:-1}" = 0 ] || theirs "${batches[0]}" "$1" 60 sora --compile "${@:2}"; }
{ nvidia-smi; lscpu; ldconfig -p | grep -E 'libvulkan|libcuda\.'; } >>"$log" 2>&1
# First what no other machine can tell: whether full tiles of half precision compute the same.
check "$device" 60 "bf16 tf32" --width "$width" --image-size "$image" --batch 16 --steps 3
for precision in "${order[@]}"; do
  ours "$batch" "$precision" 60 sora,fgsm,pgd
  theirs "$batch" "$precision" 25 sora
  [ "$precision" = "$best" ] && compiled "$precision"
done
table
compiled "$best" --compile-mode reduce-overhead
check "$device" 100 "method evaluation resume"
stage "cudnn" 40 "$python" "$here/torch_conv.py" --device "$torch" --width "$width" --image-size "$image" \
  --batch "$batch" --matrix "$matrix"
for precision in "${order[@]}"; do
  stage "burn $precision" 30 "${sora[@]}" bench conv --device "$device" --width "$width" --image-size "$image" --batch "$batch" \
    --precision "$precision" --seconds 0.05
done
table
for precision in "${order[@]}"; do
  theirs "$batch" "$precision" 20 fgsm
  theirs "$batch" "$precision" 20 pgd10
done
for batch in "${batches[@]:1}"; do
  for precision in "${order[@]}"; do
    ours "$batch" "$precision" 45 sora
    theirs "$batch" "$precision" 20 sora
  done
done
[ -z "$second" ] || check "$second" 60 "method bf16"
check "$device" 60 network
for precision in "${order[@]}"; do [ "$precision" = "$best" ] || compiled "$precision"; done
if [ "$device" = cuda ] && command -v ncu >/dev/null; then
  stage "kernels" 90 bash "$here/kernels.sh" --width "$width" --image-size "$image" --batch "${batches[0]}" --precision bf16
fi
if [ -n "$cifar" ] && [ $((limit - SECONDS)) -gt 40 ]; then
  mkdir "$work/cifar"
  stage "unpack" 30 "$python" -c 'import sys, tarfile; tarfile.open(sys.argv[1]).extractall(sys.argv[2])' "$cifar" "$work/cifar"
  data=$(dirname "$(find "$work/cifar" -maxdepth 2 -name train -type d | head -1)")
  # It is stopped when the time is over: a checkpoint and the log are there then.
  stage "training" $((limit - SECONDS - 8)) "${sora[@]}" train --dataset "folder:$data" --method sora --model preact-resnet18 \
    --width "$width" --batch "${batches[0]}" --epochs 30 --precision "${TRAIN:-bf16}" --device "$device" --out "$work/run" \
    --data-dir "$work"
  [ -e "$work/run/epochs.jsonl" ] && sed 's/^{/{"kind":"epoch","stage":"training",/' "$work/run/epochs.jsonl" >>"$lines"
  tail -n 3 "$work/run/metrics.jsonl" 2>/dev/null | sed 's/^{/{"kind":"step","stage":"training",/' >>"$lines"
fi
table
cat "$out/table.md"
echo "$SECONDS s; the results are in $out"
