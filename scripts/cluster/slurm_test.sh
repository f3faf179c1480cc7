#!/usr/bin/env bash
# What docs/cluster.md says of Slurm, on a Slurm of two nodes over loopback: slurm_test.sh PROGRAM (built with --features mpi).
# Needs root, slurm-wlm, munge and OpenMPI; changes nothing outside a temporary folder.
set -euo pipefail
self=$(realpath "$0")
sora=$(realpath "${1:?"usage: $0 PROGRAM"}")
cd "$(dirname "$self")/../.."
# A cluster's own Slurm, whose SLURM_CONF may be set, is left alone.
if [ -z "${LOOPBACK_SLURM:-}" ] || [ "$LOOPBACK_SLURM" != "${SLURM_CONF:-}" ]; then exec scripts/cluster/slurm.sh "$self" "$sora"; fi
export SORA=$sora OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_btl=tcp,self OMPI_MCA_btl_tcp_if_include=lo
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
flags=(--dataset synthetic --image-size 16 --width 8 --limit-train 700 --limit-test 60 --val 60 --batch 64 --epochs 30 --seed 3 --threads 1)
submit() { sbatch --parsable --nodes 2 --output "$work/$1.log" examples/slurm/train.sbatch "$work/$1" "${flags[@]}"; }
state() { scontrol show job "$1" 2>/dev/null | sed -n 's/.*JobState=\([A-Z_]*\).*/\1/p'; }
finished() { # JOB NAME
  for _ in $(seq 600); do
    case $(state "$1") in COMPLETED) return ;; FAILED | TIMEOUT | NODE_FAIL | CANCELLED) break ;; esac
    sleep 0.5
  done
  echo "job $1 is $(state "$1")"; cat "$work/$2.log"; exit 1
}

echo "== tasks that do not know each other are refused"
if srun --mpi=none -N 2 -n 2 "$sora" train "${flags[@]}" --out "$work/alone" -q 2>"$work/log"; then echo "taken"; exit 1; fi
# By the program, or by an OpenMPI that takes such tasks for a mistake itself.
grep -qE "srun has 2 processes, and MPI sees 1|OMPI was not built with SLURM's PMI" "$work/log" || { cat "$work/log"; exit 1; }
[ ! -e "$work/alone" ]

echo "== a run over two nodes"
job=$(submit whole)
finished "$job" whole
grep -q '^world = 2$' "$work/whole/config.toml"

echo "== a run that is asked to stop queues again and goes on to the same bits"
job=$(submit broken)
for _ in $(seq 300); do [ -n "$(ls "$work/broken/checkpoints" 2>/dev/null)" ] && break; sleep 0.2; done
scancel --batch --signal=USR1 "$job"
finished "$job" broken
[ "$(scontrol show job "$job" | sed -n 's/.*Restarts=\([0-9]*\).*/\1/p')" = 1 ]
cmp "$work/whole/model.safetensors" "$work/broken/model.safetensors"

echo "== an array of jobs shares a grid"
cat >"$work/grid.toml" <<TOML
[train]
dataset = "synthetic"
image_size = 16
width = 8
limit_train = 700
limit_test = 60
val = 60
batch = 64
epochs = 2

[[runs]]
method = ["n-fgsm", "sora"]
seed = [0, 1]
TOML
sbatch --wait --array=1-2 --cpus-per-task=1 --output "$work/grid-%a.log" examples/slurm/grid.sbatch "$work/grid.toml" "$work/grid" >/dev/null
[ "$(ls "$work"/grid/*/summary.json | wc -l)" = 4 ]
"$sora" grid "$work/grid.toml" --out "$work/grid" --status
echo "Slurm: all as documented"
