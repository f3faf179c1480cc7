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
# In the order of their worth: the card and its peak; steps of sora, fgsm and pgd in f32, tf32 and bf16 against PyTorch's
# eager, compiled and CUDA-graph steps, in turn; the kernels of a step (kernels.sh); the device against the CPU (check.sh);
# each convolution against cuDNN; batch 512; Vulkan; a training at the paper's size (paper_run.sh has a call to itself, and
# evaluates it). A stage that fails or takes too long is a line in the results, and the next one begins.
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
# Where images for containers have the driver that the loader does not look for.
nvidia=/usr/local/nvidia
[ -d $nvidia/lib64 ] && export LD_LIBRARY_PATH=$LD_LIBRARY_PATH:$nvidia/lib64
icd=$nvidia/share/vulkan/icd.d/nvidia_icd.json
[ -e $icd ] && export VK_DRIVER_FILES=${VK_DRIVER_FILES:-$icd}

# libdevice, which CubeCL's CUDA kernels are linked with: of a toolkit, or of PyTorch's wheels.
if [ -z "${CUDA_PATH:-}" ]; then
  wheels=$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))' 2>>"$log")
  for file in /usr/local/cuda*/nvvm/libdevice/libdevice.10.bc "$wheels"/nvidia/*/nvvm/libdevice/libdevice.10.bc \
    "$wheels"/triton/backends/nvidia/lib/libdevice.10.bc; do
    [ -e "$file" ] || continue
    mkdir -p "$work/cuda/nvvm/libdevice"
    cp "$file" "$work/cuda/nvvm/libdevice/"
    export CUDA_PATH=$work/cuda
    break
  done
fi

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
check() { # DEVICE SECONDS GROUPS
  : >"$work/check"
  RUN="${run[*]}" OUT=$work/check ONLY=$3 stage "check $1" "$2" bash "$here/check.sh" "$1"
  sed "s/^{/{\"stage\":\"check $1\",/" "$work/check" >>"$lines"
}
table() { "$python" "$here/lease_table.py" "$lines" >"$out/table.md" 2>>"$log"; }

batch=${batches[0]}
{ nvidia-smi; lscpu; ldconfig -p | grep -E 'libvulkan|libcuda\.'; } >>"$log" 2>&1
stage "cudnn" 60 "$python" "$here/torch_conv.py" --device "$torch" --width "$width" --image-size "$image" \
  --batch "$batch" --matrix "$matrix"
for precision in "${precisions[@]}"; do
  ours "$batch" "$precision" 75 sora,fgsm,pgd
  theirs "$batch" "$precision" 25 sora
  [ "${COMPILE:-1}" = 0 ] || theirs "$batch" "$precision" 60 sora --compile
done
table
[ "${COMPILE:-1}" = 0 ] || theirs "$batch" bf16 60 sora --compile --compile-mode reduce-overhead
if [ "$device" = cuda ] && command -v ncu >/dev/null; then
  stage "kernels" 90 bash "$here/kernels.sh" --width "$width" --image-size "$image" --batch "$batch" --precision bf16
fi
check "$device" 100 "method evaluation resume bf16"
for precision in "${precisions[@]}"; do
  stage "burn $precision" 30 "${sora[@]}" bench conv --device "$device" --width "$width" --image-size "$image" --batch "$batch" \
    --precision "$precision" --seconds 0.05
done
table
for precision in "${precisions[@]}"; do
  theirs "$batch" "$precision" 20 fgsm
  theirs "$batch" "$precision" 20 pgd10
done
for batch in "${batches[@]:1}"; do
  for precision in "${precisions[@]}"; do
    ours "$batch" "$precision" 45 sora
    theirs "$batch" "$precision" 20 sora
  done
done
[ -z "$second" ] || check "$second" 60 "method bf16"
check "$device" 60 network
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
