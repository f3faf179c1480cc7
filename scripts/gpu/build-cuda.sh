#!/usr/bin/env bash
# Builds the program with `--features cuda` without a CUDA toolkit and without a card.
#
#   scripts/gpu/build-cuda.sh [-C FOLDER] [OPTIONS OF cargo build]
#   FEATURES=cuda,vulkan scripts/gpu/build-cuda.sh          one program for both
#
# CubeCL makes PTX by LLVM 23, whose static libraries come from PyPI's wheels mlc-llvm-static and
# mlc-llvm-static-extra-targets (NVPTX), unpacked once into FOLDER (default: sora/llvm in $XDG_CACHE_HOME or ~/.cache;
# 250 MB to download, 1.2 GB unpacked) where CubeCL's build script looks before it downloads a bundle of its own.
# PYTHON (default python3) needs pip. Functions of the driver are those of CUDA 13.0; CUDARC_CUDA_VERSION chooses another.
set -euo pipefail
cache=${XDG_CACHE_HOME:-$HOME/.cache}/sora/llvm
if [ "${1:-}" = -C ]; then
  cache=$(realpath -m "${2:?"usage: $0 [-C FOLDER] [OPTIONS OF cargo build]"}")
  shift 2
fi
cd "$(dirname "$0")/../.."
wheels=23.1.1.post0
# What tracel-llvm-bundler calls the bundle that it would download.
bundle=$cache/tracel/tracel-llvm-23.1.0-4

fetch() {
  local python=${PYTHON:-python3} work=$cache/new
  rm -rf "$work"
  mkdir -p "$work" "$(dirname "$bundle")"
  "$python" -m pip download --quiet --no-deps --only-binary=:all: --dest "$work" \
    "mlc-llvm-static==$wheels" "mlc-llvm-static-extra-targets==$wheels"
  local wheel
  for wheel in "$work"/*.whl; do
    "$python" -m zipfile --extract "$wheel" "$work/all"
    rm "$wheel"
  done
  chmod +x "$work"/all/mlc_llvm_static/static/bin/*
  # The program that the wheels bring is a Python script.
  rm -rf "$bundle"
  mv "$work/all/mlc_llvm_static/static" "$bundle"
  touch "$bundle/.tracel-llvm-installed"
  rm -rf "$work"
}

[ -e "$bundle/.tracel-llvm-installed" ] || fetch
export XDG_DATA_HOME=$cache CUDARC_CUDA_VERSION=${CUDARC_CUDA_VERSION:-13000}
[ "${1:-}" = --fetch-only ] && { echo "$bundle"; exit; }
exec cargo build --release --bin sora --features "${FEATURES:-cuda}" "$@"
