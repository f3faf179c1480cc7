#!/usr/bin/env bash
# Runs a fuzz target under AddressSanitizer on the pinned stable toolchain, from its seeds and what
# earlier runs found (fuzz/corpus). Needs: cargo install cargo-fuzz.
# Usage: [BUILT=1] scripts/fuzz.sh TARGET [SECONDS] [LIBFUZZER OPTION...]
# With BUILT=1 the target runs as it was built before, for example while another one is built.
set -euo pipefail
cd "$(dirname "$0")/.."
target=${1:?usage: scripts/fuzz.sh TARGET [SECONDS] [LIBFUZZER OPTION...]}
seconds=${2:-60}
shift $(($# < 2 ? $# : 2))
# libFuzzer's instrumentation and the sanitizer are unstable options of the stable compiler.
export RUSTC_BOOTSTRAP=1
mkdir -p "fuzz/corpus/$target" "fuzz/artifacts/$target"
directories=("fuzz/corpus/$target")
[ -f "fuzz/seeds/$target.py" ] && python3 "fuzz/seeds/$target.py" "fuzz/corpus/$target"
[ -d "fuzz/seeds/$target" ] && directories+=("fuzz/seeds/$target")
options=(-max_total_time="$seconds" -rss_limit_mb=4096 -timeout=120 -print_final_stats=1 -artifact_prefix="fuzz/artifacts/$target/")
# Its bytes choose sizes; the numbers in the slices are made.
[ "$target" = kernels_api ] && options+=(-max_len=256)
[ -f "fuzz/dictionaries/$target.dict" ] && options+=(-dict="fuzz/dictionaries/$target.dict")
# Below the readers of runs lies Burn, of which they call little: half an hour of compiling becomes ten minutes.
[ "${target%%_*}" != run ] || export CARGO_PROFILE_RELEASE_OPT_LEVEL=1
[ -n "${BUILT:-}" ] || nice -n 15 cargo fuzz build "$target" --features "$target"
program=${CARGO_TARGET_DIR:-fuzz/target}/$(rustc -vV | sed -n 's/^host: //p')/release/$target
# Readers of files write them to a folder for temporary files: one in memory is faster. It may be too
# small for the linker's.
if [ -w /dev/shm ]; then
    TMPDIR=$(mktemp -d /dev/shm/fuzz.XXXXXX)
    export TMPDIR
    folder=$TMPDIR
fi
end() {
    # After a signal to this script: the fuzzer writes its figures and ends.
    kill $(jobs -p) 2>/dev/null || true
    wait
    [ -z "${folder:-}" ] || rm -rf "$folder"
}
trap end EXIT
# A third of the time went into what only reports and C need: the stack of each allocation, memory that
# stays freed for long, and frames on the heap (references of safe Rust do not outlive theirs).
asan=detect_odr_violation=0:malloc_context_size=0:quarantine_size_mb=16
[ "$target" = kernels_api ] || asan+=:detect_stack_use_after_return=0
export ASAN_OPTIONS=$asan${ASAN_OPTIONS:+:$ASAN_OPTIONS}
# In the background, so that a signal to this script is heard at once.
nice -n 15 "$program" "${options[@]}" "$@" "${directories[@]}" &
wait $!
