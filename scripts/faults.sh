#!/usr/bin/env bash
# Faults by count: kills, full disks, failing calls, damaged files, little memory, jumping clocks,
# processes at once, over every command that keeps something. After each: no panic, the exit status
# that is promised, and the repeated command ends in the bits of an unbroken one. Prints a table;
# exit status 1 on a mismatch. Needs Linux, Python 3.11 and a C compiler; full disks need root.
# Usage: scripts/faults.sh [--short] [--only PART] [--scenario NAME] [--table FILE] [--sora PROGRAM]
set -euo pipefail
cd "$(dirname "$0")/.."
sora=""
rest=()
while (($#)); do
    case $1 in
    --sora) sora=$2 && shift 2 ;;
    *) rest+=("$1") && shift ;;
    esac
done
if [ -z "$sora" ]; then
    cargo build --release --quiet --bin sora
    sora=target/release/sora
fi
exec python3 scripts/faults "$sora" "${rest[@]}"
