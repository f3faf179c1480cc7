#!/usr/bin/env bash
# Builds the wheel, installs it into a fresh environment and runs its tests there. Tests that need
# PyTorch are skipped unless TORCH=1 installs it (gigabytes).
set -euo pipefail
cd "$(dirname "$0")/../.."
python=${PYTHON:-python3}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
if ! $python -m venv "$folder/venv" >/dev/null 2>&1 || ! "$folder/venv/bin/pip" install -q 'maturin>=1.9,<2' numpy pytest tqdm >/dev/null 2>&1; then
  scripts/ci/skipped.sh "no Python with venv and a package registry here"
  exit
fi
[ -z "${TORCH:-}" ] || "$folder/venv/bin/pip" install -q torch onnx onnxruntime onnxscript
"$folder/venv/bin/maturin" build --release -m crates/python/Cargo.toml --compatibility linux -o "$folder/wheels" -i "$folder/venv/bin/python"
"$folder/venv/bin/python" -m zipfile -l "$folder"/wheels/*.whl | grep 'dist-info/licenses/LICENSE' >/dev/null ||
  { echo "the wheel holds no LICENSE" >&2; exit 1; }
"$folder/venv/bin/pip" install -q "$folder"/wheels/*.whl
cd "$folder"
"$folder/venv/bin/python" -m pytest -q "$OLDPWD/crates/python/tests"
"$folder/venv/bin/sora" --version
