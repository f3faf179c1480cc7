#!/usr/bin/env python3
"""Writes every golden file to crates/sora/tests/golden (attacks: crates/robustness/tests/golden) and prints, for each, its size, f32/f64 agreement, seed and margin factor.

`--search NAME...` looks for new seeds of these cases (all, without names) and writes them to seeds.json: needed after a
change to a method, the network or the batches, when a case's old seed leads to an ambiguous value.
"""

import argparse
import json
from functools import partial
from pathlib import Path

import torch

import divergence
import evaluation
import minimal
import extras
import forward
import inputs
import methods
import model as network
import newer
import optimizers
import regularized
import selective
import sparse
import stateful
import step
import store

METHODS = {}
for module in (methods, selective, regularized, divergence, stateful, newer, extras):
    METHODS |= module.METHODS
SEEDS = Path(__file__).with_name("seeds.json")
# How many seeds to try for each margin factor, the widest margin first.
TRIALS = {8: 400, 4: 400, 2: 400, 1: 4000}


def cases(batches):
    """Name, run(seed, dtype, margin) and settings of every case that depends on a seed."""
    yield "model", forward.colour, {}
    yield "model_gray", forward.gray, {}
    for name, method in METHODS.items():
        yield f"step_{name}", partial(step.train, method, batches), {"method": name} | method().settings()


def search(name, run):
    """The first [seed, margin] free of ambiguous values."""
    for margin, trials in TRIALS.items():
        for seed in range(trials):
            try:
                store.both(lambda dtype: run(seed, dtype, margin))
            except store.Ambiguous:
                continue
            return [seed, margin]
    raise SystemExit(f"{name}: every seed leads to an ambiguous value")


def save(name, out, worst, folder=store.FOLDER, **settings):
    size = store.write(name, out, folder, **settings)
    found = f"seed {settings['seed']}, margin {settings['margin']}" if "seed" in settings else ""
    print(f"{name:24} {size:7} bytes  f32/f64 {worst:.1e}  {found}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--search", nargs="*", metavar="NAME")
    wanted = parser.parse_args().search
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)

    batches = inputs.batches()
    save("weights", network.build().state_dict(), 0.0)
    save("batches", batches | {"mean": torch.tensor(network.MEAN), "std": torch.tensor(network.STD)}, 0.0)
    save("schedules", optimizers.schedules(), 0.0)
    save("sgd", *store.both(optimizers.steps))
    save("losses", *store.both(evaluation.losses), store.ATTACKS)
    save("apgd", *store.both(evaluation.apgd), store.ATTACKS)
    save("minimal", *store.both(minimal.minimal), store.ATTACKS)
    save("apgd_l1", *store.both(sparse.apgd), store.ATTACKS)
    save("l1", *store.both(sparse.projections), store.ATTACKS)
    seeds = json.loads(SEEDS.read_text()) if SEEDS.exists() else {}
    for name, run, settings in cases(batches):
        if wanted is not None and (not wanted or name in wanted):
            seeds[name] = search(name, run)
            rows = ",\n".join(f"  {json.dumps(key)}: {value}" for key, value in seeds.items())
            SEEDS.write_text(f"{{\n{rows}\n}}\n")
        if name not in seeds:
            raise SystemExit(f"{name}: no seed in seeds.json; run make.py --search {name}")
        seed, margin = seeds[name]
        try:
            # Less strict than the search: another processor's last digits are not to refuse a case.
            out, worst = store.both(lambda dtype: run(seed, dtype, 0.9 * margin), slack=2)
        except store.Ambiguous as reason:
            raise SystemExit(f"{name}, seed {seed}: {reason}; run make.py --search {name}")
        save(name, out, worst, **settings, seed=seed, margin=margin)


if __name__ == "__main__":
    main()
