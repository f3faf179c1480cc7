#!/usr/bin/env bash
# Times a training step of ours (f32 and bf16) and of a PyTorch step script (f32, f32 channels-last, bf16 channels-last) in turn, on the same
# machine, and prints the medians over the pairs of each ratio.
#
# Usage: benches/compare.sh run PEER.py LOG [CASE...]     runs the cases, one JSON line a measurement appended to LOG
#        benches/compare.sh table LOG                     the table of what LOG holds
#        benches/compare.sh PEER.py                       everything, then the table
#   PEER.py  a script that prints one JSON line with median_s and peak_rss_mib and takes --method --width --batch --precision --channels-last
#            --threads --steps
#   CASE     METHOD:WIDTH, for example sora:64; METHOD is sora, fgsm, none or pgd10, or sora/fgsm for the ratio of the two in our engine alone
# Environment: PAIRS (5), STEPS (3), SORA (target/release/sora, built if absent), PYTHON (.venv-bench/bin/python, made if absent),
#   PRECISIONS ("f32 bf16": ours). A case may be run in parts: LOG collects the pairs of all.
set -euo pipefail
cd "$(dirname "$0")/.."
pairs=${PAIRS:-5} steps=${STEPS:-3} precisions=${PRECISIONS:-f32 bf16} threads=$(nproc)
# What both sides are told.
same=(--batch 128 --threads "$threads" --steps "$steps")
sora=${SORA:-target/release/sora} python=${PYTHON:-.venv-bench/bin/python}

prepare() {
  if [ ! -x "$sora" ]; then cargo build --release --quiet --bin sora; fi
  if [ -n "${1:-}" ] && ! "$python" -c 'import torch, numpy' 2>/dev/null; then
    [ -z "${PYTHON:-}" ] || { echo "compare.sh: PYTHON=$PYTHON has no torch and numpy; install them there, or unset it" >&2; exit 2; }
    python3 -m venv .venv-bench
    .venv-bench/bin/pip install -q torch numpy
  fi
  # These slow a current numpy and PyTorch where they are set.
  unset OPENBLAS_CORETYPE OPENBLAS_L2_SIZE
  export OMP_NUM_THREADS=$threads
}

# record LOG CASE PAIR WHO COMMAND...: a line of the log, or none and an end where the command fails.
record() {
  local log=$1 case=$2 pair=$3 who=$4 result
  shift 4
  result=$("$@") || { echo "compare.sh: $who of $case failed: $*" >&2; exit 1; }
  [[ $result == "{"*"}" && $result != *$'\n'* ]] || { echo "compare.sh: expected one line of JSON of $*, found: $result" >&2; exit 1; }
  printf '{"case":"%s","pair":"%s","who":"%s","result":%s}\n' "$case" "$pair" "$who" "$result" >>"$log"
}

run() {
  local peer=$1 log=$2 case method width stamp
  shift 2
  prepare "$peer"
  if [ ! -s "$log" ]; then
    printf '{"machine":"%s","os":"%s","started":"%s"}\n' \
      "$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1), $threads threads" "$(uname -sr)" "$(date -u +%F)" >"$log"
  fi
  for case in "$@"; do
    method=${case%%:*} width=${case##*:}
    for pair in $(seq "$pairs"); do
      stamp=$(date +%s%N)-$pair
      if [ "$method" = sora/fgsm ]; then
        for one in sora fgsm; do
          record "$log" "$case" "$stamp" "$one" "$sora" bench step --method "$one" --width "$width" "${same[@]}"
        done
        continue
      fi
      for precision in $precisions; do
        record "$log" "$case" "$stamp" "ours $precision" \
          "$sora" bench step --method "${method/pgd10/pgd}" --width "$width" "${same[@]}" --precision "$precision"
      done
      peer_step=("$python" "$peer" --method "$method" --width "$width" "${same[@]}")
      record "$log" "$case" "$stamp" "f32" "${peer_step[@]}"
      record "$log" "$case" "$stamp" "f32 channels-last" "${peer_step[@]}" --channels-last
      record "$log" "$case" "$stamp" "bf16 channels-last" "${peer_step[@]}" --channels-last --precision bf16
    done
  done
}

table() {
  python3 - "$1" <<'PY'
import json, statistics, sys

lines = [json.loads(line) for line in open(sys.argv[1])]
machine = next((line for line in lines if "machine" in line), {})
cases = {}
isas, frameworks = set(), set()
for line in lines:
    if "case" in line:
        cases.setdefault(line["case"], {}).setdefault(line["pair"], {})[line["who"]] = line["result"]
        isas.add(line["result"].get("isa"))
        frameworks.add(line["result"]["framework"])
print(f"{machine.get('machine', '?')}; {machine.get('os', '?')}; {', '.join(sorted(frameworks))}; our instruction set: {', '.join(sorted(i for i in isas if i))}\n")

def ratio(pairs, a, b, key):
    found = [p[a][key] / p[b][key] for p in pairs.values() if a in p and b in p]
    return f"{statistics.median(found):.2f} ({min(found):.2f} - {max(found):.2f}, n {len(found)})" if found else "-"

def median(pairs, who):
    found = [p[who]["median_s"] for p in pairs.values() if who in p]
    return f"{statistics.median(found):.3f}" if found else "-"

peers = ["f32", "f32 channels-last", "bf16 channels-last"]
print("Seconds a step (medians over the pairs):\n")
print("| method | width | ours f32 | ours bf16 | " + " | ".join("PyTorch " + p for p in peers) + " |")
print("|---|---|---|---|" + "---|" * len(peers))
for case, pairs in cases.items():
    method, width = case.rsplit(":", 1)
    if method != "sora/fgsm":
        print(f"| {method} | {width} | " + " | ".join(median(pairs, w) for w in ["ours f32", "ours bf16", *peers]) + " |")
print("\nRatios of the pairs: median (least - largest, number):\n")
print("| method | width | " + " | ".join(f"ours f32 / {p}" for p in peers) + " | ours bf16 / f32 | ours bf16 / bf16 channels-last | memory, ours f32 / f32 | memory, ours bf16 / f32 |")
print("|---|---|" + "---|" * (len(peers) + 4))
for case, pairs in cases.items():
    method, width = case.rsplit(":", 1)
    if method == "sora/fgsm":
        continue
    cells = [ratio(pairs, "ours f32", p, "median_s") for p in peers]
    cells += [ratio(pairs, "ours bf16", "f32", "median_s"), ratio(pairs, "ours bf16", "bf16 channels-last", "median_s")]
    cells += [ratio(pairs, f"ours {p}", "f32", "peak_rss_mib") for p in ("f32", "bf16")]
    print(f"| {method} | {width} | " + " | ".join(cells) + " |")
for case, pairs in cases.items():
    method, width = case.rsplit(":", 1)
    if method == "sora/fgsm":
        print(f"\nA sora step against an fgsm step in our engine, width {width}: {ratio(pairs, 'sora', 'fgsm', 'median_s')}")
PY
}

case ${1:-} in
  run) run "${@:2}" ;;
  table) table "${2:?usage: benches/compare.sh table LOG}" ;;
  "" | -h | --help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0" ;;
  *)
    log=$(mktemp)
    run "$1" "$log" {sora,fgsm,none,pgd10}:{64,16} sora/fgsm:{64,16}
    table "$log"
    ;;
esac
