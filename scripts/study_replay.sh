#!/bin/sh
# Writes the third arm of part c of docs/study.md: for every sora run of a finished grid (docs/study/adaptivity.toml) a run that takes the
# same step sizes in an order drawn from a seed, without the adaptation.
#
#     scripts/study_replay.sh runs/adaptivity [GRID.toml] > replay.toml && sora grid replay.toml --out runs/adaptivity
set -eu
[ $# -ge 1 ] && [ $# -le 2 ] && [ -d "$1" ] || { echo "usage: $0 FOLDER_OF_RUNS [GRID.toml] > replay.toml" >&2; exit 2; }
here=$(cd "$(dirname "$0")/.." && pwd)
grid=${2:-$here/docs/study/adaptivity.toml}

# The value of a key at the top of a run's config.toml.
value() { sed -n "s/^$1 = //p;/^\[/q" "$2" | head -n 1; }

# Evaluation and training settings are those of the grid.
sed -n '/^attacks/,/^\[\[runs/p' "$grid" | sed '/^\[\[runs/d'
found=0
for config in "$1"/*/config.toml; do
    [ "$(value method "$config")" = '"sora"' ] || continue
    grep -Eq '^(fixed_alpha = [0-9]|replay = ".+")' "$config" && continue
    run=$(dirname "$config")
    [ -f "$run/summary.json" ] || { echo "$0: $run is not finished" >&2; exit 1; }
    seed=$(value seed "$config")
    printf '[[runs]]\nlabel = "sora, steps drawn from its own"\nmethod = "sora"\nepsilon = %s\n' "$(value epsilon "$config")"
    printf 'options = { replay = "%s/metrics.jsonl", replay_seed = %s }\nseed = %s\n\n' "$run" "$seed" "$seed"
    found=$((found + 1))
done
[ "$found" -gt 0 ] || { echo "$0: no finished sora run in $1" >&2; exit 1; }
