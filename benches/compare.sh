#!/usr/bin/env bash
# Times a training step of ours and of a PyTorch step script in turn, on the same machine in one run, and prints the median of the pairwise ratios.
#
# Usage: benches/compare.sh PEER.py [PAIRS] [WIDTHS] [METHODS]
#   PEER.py  a script that prints one JSON line with median_s and peak_rss_mib and takes --method --width --batch --precision --channels-last --threads --steps
#   PAIRS    pairs of runs for each case (default 5)
#   WIDTHS   "64 16"    METHODS  "sora fgsm none pgd10"
# PyTorch is installed from PyPI into .venv-bench.
set -euo pipefail
cd "$(dirname "$0")/.."
peer=${1:?usage: benches/compare.sh PEER.py [PAIRS] [WIDTHS] [METHODS]}
pairs=${2:-5}
widths=${3:-64 16}
methods=${4:-sora fgsm none pgd10}
threads=$(nproc)

if [ ! -x .venv-bench/bin/python ]; then
  python3 -m venv .venv-bench
  .venv-bench/bin/pip install -q torch numpy
fi
cargo build --release --quiet --bin sora
# These slow a current numpy and PyTorch where they are set.
unset OPENBLAS_CORETYPE OPENBLAS_L2_SIZE
export OMP_NUM_THREADS=$threads

field() { python3 -c 'import json,sys; print(json.loads(sys.argv[1])[sys.argv[2]])' "$1" "$2"; }
median() { printf '%s\n' "$@" | sort -g | awk '{v[NR]=$1} END {print (NR % 2) ? v[(NR+1)/2] : (v[NR/2]+v[NR/2+1])/2}'; }

echo "| method | width | ours s | PyTorch f32 s | ratio | PyTorch f32 channels-last s | ratio | memory, ours / PyTorch f32 |"
echo "|---|---|---|---|---|---|---|---|"
for width in $widths; do
  for method in $methods; do
    ours_name=${method/pgd10/pgd}
    ours=() plain=() last=() ratio_plain=() ratio_last=() memory=()
    for _ in $(seq "$pairs"); do
      a=$(target/release/sora bench step --method "$ours_name" --width "$width" --threads "$threads" --steps 3)
      b=$(.venv-bench/bin/python "$peer" --method "$method" --width "$width" --threads "$threads" --steps 3)
      c=$(.venv-bench/bin/python "$peer" --method "$method" --width "$width" --threads "$threads" --steps 3 --channels-last)
      sa=$(field "$a" median_s) sb=$(field "$b" median_s) sc=$(field "$c" median_s)
      ours+=("$sa") plain+=("$sb") last+=("$sc")
      ratio_plain+=("$(awk "BEGIN{print $sa/$sb}")")
      ratio_last+=("$(awk "BEGIN{print $sa/$sc}")")
      memory+=("$(awk "BEGIN{print $(field "$a" peak_rss_mib)/$(field "$b" peak_rss_mib)}")")
    done
    printf '| %s | %s | %.3f | %.3f | %.2f | %.3f | %.2f | %.2f |\n' "$method" "$width" "$(median "${ours[@]}")" "$(median "${plain[@]}")" \
      "$(median "${ratio_plain[@]}")" "$(median "${last[@]}")" "$(median "${ratio_last[@]}")" "$(median "${memory[@]}")"
  done
done
