#!/usr/bin/env bash
# Processes of MPI that share a training, on this machine: the program with the feature `mpi`, and what docs/cluster.md
# promises. With OpenMPI; MPI=mpich with MPICH. Installs it where Debian's packages can be had; skipped with a line where not.
set -euo pipefail
cd "$(dirname "$0")/../.."
MPI=${MPI:-openmpi}
case $MPI in
  openmpi) packages=(libopenmpi-dev openmpi-bin) says="Open MPI|OpenRTE" other=mpich ;;
  mpich) packages=(libmpich-dev mpich) says=HYDRA other=openmpi ;;
  *) echo "MPI=$MPI: expected openmpi or mpich" >&2; exit 2 ;;
esac
packages+=(libclang-dev procps)
# Debian has both side by side, under names of their own; elsewhere there is one.
program() { command -v "$1.$MPI" || command -v "$1"; }
has_all() {
  command -v pgrep >/dev/null && program mpicc >/dev/null && "$(program mpirun)" --version 2>/dev/null | grep -E "$says" >/dev/null &&
    { [ -n "${LIBCLANG_PATH:-}" ] || has_libclang; }
}
# The library (not libclang-cpp), and its own headers, without which it reads nothing.
has_libclang() {
  { ldconfig -p | grep -E 'libclang(-[0-9]+)?\.so' || compgen -G '/usr/lib/llvm-*/lib/libclang.so*'; } >/dev/null &&
    { compgen -G '/usr/lib/llvm-*/lib/clang/*/include/stddef.h' || compgen -G '/usr/lib*/clang/*/include/stddef.h'; } >/dev/null
}
if ! has_all && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null 2>&1 ||
    { apt-get update -qq && apt-get install -y -qq --no-install-recommends "${packages[@]}"; } >/dev/null 2>&1 || true
fi
has_all || { scripts/ci/skipped.sh "$MPI or libclang is missing, and cannot be installed (${packages[*]})"; exit; }
MPICC=$(program mpicc) mpirun=$(program mpirun)
export MPICC

# One build of Burn serves the program with MPI and without.
features() { cargo tree --locked -f "{p} {f}" --prefix none -e normal,build --workspace "$@" | sed 's/ (\*)//; s/ (proc-macro)//' | grep -v '^sora-' | sort -u; }
without=$(features)
with=$(features --features sora-robust-cli/mpi)
changed=$(comm -23 <(echo "$without") <(echo "$with"))
[ -z "$changed" ] || { echo "with the feature mpi these are built anew:"; echo "$changed"; exit 1; }

work=$(mktemp -d)
end() {
  # What is left after a failure or Ctrl-C: `timeout` hands the signal on to mpirun, and that ends its processes.
  kill $(jobs -p) 2>/dev/null || true
  wait
  rm -rf "$work"
}
trap end EXIT
if [ -z "${SORA_MPI:-}" ]; then
  # Of what it adds to the other builds only the kernels take time, and they are built already: hence little optimised.
  quick=(--config 'profile.release.package.sora-robust.opt-level=1' --config 'profile.release.package.sora-robust-cli.opt-level=1')
  target=target
  if [ "$MPI" != openmpi ]; then
    # The binding does not notice another library: a folder of its own, with links to what is the same for both.
    target=target/$MPI
    if [ ! -e "$target" ] && [ -e target/release ]; then
      mkdir -p "$target/release"
      cp -al target/release/{build,deps,.fingerprint} "$target/release/"
      find "$target/release" -mindepth 2 -maxdepth 2 \( -name 'mpi*' -o -name 'libmpi*' -o -name '*probe*mpi*' -o -name '*sora*' -o -name '*robust*' \) -exec rm -rf {} +
    fi
  fi
  CARGO_TARGET_DIR=$target cargo build --release --workspace --bin sora --features sora-robust-cli/mpi "${quick[@]}"
  cp "$target/release/sora" "$work/sora-mpi"
  # target/release/sora becomes the program without MPI again.
  [ "$MPI" != openmpi ] || cargo build --release --workspace --bin sora
  SORA_MPI=$work/sora-mpi
fi
# As many processes as wanted, whatever the number of cores; TCP over loopback stands for a network.
case $MPI in
  openmpi)
    launch=("$mpirun" --oversubscribe --bind-to none --mca btl tcp,self --mca btl_tcp_if_include lo --mca orte_abort_print_stack 0)
    [ "$(id -u)" != 0 ] || launch+=(--allow-run-as-root)
    killed="exited on signal 9"
    ;;
  mpich)
    launch=(env UCX_TLS=tcp,self UCX_NET_DEVICES=lo "$mpirun")
    killed="BAD TERMINATION"
    ;;
esac
# In the background, so that a signal to this script is heard at once.
start() { timeout -k 20 600 "${launch[@]}" -n "$@" & job=$!; }
world() { start "$@"; wait "$job"; }
flags=(--dataset synthetic --image-size 16 --width 8 --limit-train 700 --limit-test 60 --val 60 --batch 64 --epochs 2 --seed 3 --threads 1)
train=("$SORA_MPI" train "${flags[@]}")
strip() { sed -E 's/"(seconds|val_seconds|images_per_s|peak_rss_mib)":[^,}]*//g' "$1"; }

echo "== one process and 1, 2, 4 begin alike; the same bits every time"
"${train[@]}" --out "$work/alone" -q
for n in 2 4; do world "$n" "${train[@]}" --out "$work/$n" -q; done
world 2 "${train[@]}" --out "$work/2b" -q
cmp "$work/2/model.safetensors" "$work/2b/model.safetensors"
cmp <(strip "$work/2/metrics.jsonl") <(strip "$work/2b/metrics.jsonl")
# With a thread to spare the gradients are summed beside the backward pass.
world 2 "${train[@]}" --threads 2 --out "$work/2t" -q
cmp "$work/2/model.safetensors" "$work/2t/model.safetensors"
first() { head -1 "$work/$1/metrics.jsonl" | sed -E 's/.*"loss":([0-9.e-]+).*/\1/'; }
alike() { # RUN RUN
  awk -v a="$(first "$1")" -v b="$(first "$2")" -v runs="$1 and $2" 'BEGIN {
    if (!(a + 0 > 0 && b + 0 > 0)) { print runs ": no loss of step 0"; exit 1 }
    d = (a - b) / a; if (d < 0) d = -d
    printf "%s: loss of step 0 differs by %.1e\n", runs, d; exit d > 1e-4 }'
}
for n in 2 4; do alike alone "$n"; done
grep -q '^world = 2$' "$work/2/config.toml"
for name in model.safetensors best.safetensors summary.json; do [ -f "$work/2/$name" ]; done

echo "== extra data are shared, too"
extra=(--extra-data synthetic:900 --extra-fraction 0.25)
"${train[@]}" "${extra[@]}" --out "$work/mixed" -q
for name in 2x 2y; do world 2 "${train[@]}" "${extra[@]}" --out "$work/$name" -q; done
cmp "$work/2x/model.safetensors" "$work/2y/model.safetensors"
alike mixed 2x

echo "== a kill of one process ends all; the run goes on to the same bits, and not with another number"
start 2 "${train[@]}" --epochs 30 --out "$work/killed" -q >"$work/log" 2>&1
for _ in $(seq 300); do [ -e "$work/killed/checkpoints" ] && [ -n "$(ls "$work/killed/checkpoints" 2>/dev/null)" ] && break; sleep 0.2; done
victim=$(pgrep -n -f "^$SORA_MPI train .*$work/killed")
kill -9 "$victim"
if wait "$job"; then echo "a killed process was not noticed"; exit 1; fi
if pgrep -f "^$SORA_MPI train .*$work/killed" >/dev/null; then echo "a process is still there"; exit 1; fi
[ "$(grep -c "$killed" "$work/log")" = 1 ] || { echo "expected one message of the end"; cat "$work/log"; exit 1; }
world 2 "${train[@]}" --epochs 30 --out "$work/whole" -q
if "$SORA_MPI" resume "$work/killed" 2>"$work/log"; then echo "another number of processes was taken"; exit 1; fi
grep -q "the run began with 2" "$work/log"
cp -r "$work/killed" "$work/taken"
"$SORA_MPI" resume "$work/taken" --world-size-may-differ -q
grep -q '^worlds = \[2\]$' "$work/taken/config.toml"
[ "$(wc -l <"$work/taken/metrics.jsonl")" = "$(wc -l <"$work/whole/metrics.jsonl")" ]
world 2 "$SORA_MPI" resume "$work/killed" -q
cmp "$work/whole/model.safetensors" "$work/killed/model.safetensors"

echo "== an evaluation that is shared out finds what one process does"
counts() { sed -E 's/"(seconds|seconds_per_image|sum)":[^,}]*,?//g' "$1"; }
"$SORA_MPI" eval "$work/2" --limit 50 --attacks clean,pgd-10,square-50 --json -q --out "$work/one.json" >/dev/null
world 3 "$SORA_MPI" eval "$work/2" --limit 50 --attacks clean,pgd-10,square-50 --json -q --out "$work/three.json" >/dev/null
cmp <(counts "$work/one.json") <(counts "$work/three.json")

echo "== what cannot be is refused in one line"
refused() {
  local part=$1; shift
  if "$@" >"$work/log" 2>&1; then echo "taken: $*"; exit 1; fi
  [ "$(grep -c "$part" "$work/log")" = 1 ] || { echo "expected once: $part"; cat "$work/log"; exit 1; }
}
refused "share a batch in equal parts" world 3 "${train[@]}" --out "$work/odd"
refused "no such method" world 2 "${train[@]}" --method magic --out "$work/magic"
refused "works in one process" world 2 "$SORA_MPI" methods
refused "MPI sees 1" env SLURM_STEP_NUM_TASKS=2 SLURM_PROCID=0 "${train[@]}" --out "$work/singleton"
if command -v "mpirun.$other" >/dev/null; then
  foreign=("mpirun.$other" -n 2)
  [ "$other" = mpich ] || [ "$(id -u)" != 0 ] || foreign+=(--allow-run-as-root)
  refused "is it the mpirun of the MPI library" "${foreign[@]}" "${train[@]}" --out "$work/foreign"
fi
for name in odd magic singleton foreign; do [ ! -e "$work/$name" ]; done
echo "== scaling, for the record"
world 2 "$SORA_MPI" bench scaling --width 8 --batch 32 --steps 2 --threads 1
