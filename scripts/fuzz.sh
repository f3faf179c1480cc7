#!/usr/bin/env bash
# Runs a fuzz target under AddressSanitizer on the pinned stable toolchain, from its seeds and what
# earlier runs found (fuzz/corpus). Needs: cargo install cargo-fuzz.
# Usage: scripts/fuzz.sh TARGET [SECONDS] [LIBFUZZER OPTION...]
set -euo pipefail
cd "$(dirname "$0")/.."
target=${1:?usage: scripts/fuzz.sh TARGET [SECONDS] [LIBFUZZER OPTION...]}
seconds=${2:-60}
shift $(($# < 2 ? $# : 2))
# libFuzzer's instrumentation and the sanitizer are unstable options of the stable compiler.
export RUSTC_BOOTSTRAP=1
mkdir -p "fuzz/corpus/$target"
directories=("fuzz/corpus/$target")
[ -f "fuzz/seeds/$target.py" ] && python3 "fuzz/seeds/$target.py" "fuzz/corpus/$target"
[ -d "fuzz/seeds/$target" ] && directories+=("fuzz/seeds/$target")
options=(-max_total_time="$seconds" -rss_limit_mb=4096 -timeout=30 -print_final_stats=1)
[ -f "fuzz/dictionaries/$target.dict" ] && options+=(-dict="fuzz/dictionaries/$target.dict")
nice -n 15 cargo fuzz build "$target" --features "$target"
# Readers of files write them to a folder for temporary files: one in memory is faster. It may be too
# small for the linker's.
[ -w /dev/shm ] && export TMPDIR=/dev/shm
exec nice -n 15 cargo fuzz run "$target" --features "$target" "${directories[@]}" -- "${options[@]}" "$@"
