"""Tables of what scripts/gpu/lease.sh found.

    python3 scripts/gpu/lease_table.py lines.jsonl
"""

import json
import sys
from collections import Counter, defaultdict


def read(path):
    lines = []
    with open(path, encoding="utf-8") as file:
        for line in file:
            try:
                lines.append(json.loads(line))
            except json.JSONDecodeError:
                print(f"not JSON: {line[:80]}", file=sys.stderr)
    return lines


def method(line):
    return "pgd" if line["method"].startswith("pgd") else line["method"]


def precision(line):
    if line["framework"].startswith("torch") and line["precision"] == "f32" and not line["no_tf32"]:
        return "tf32"
    return line["precision"]


def column(line):
    if line["framework"].startswith("sora"):
        return "sora"
    if not line["compile"]:
        return "eager"
    return "graphs" if line["compile_mode"] == "reduce-overhead" else "compiled"


def milliseconds(line):
    return f"{1e3 * line['median_s']:.2f}" if line else ""


def steps(lines):
    cells = defaultdict(dict)
    for line in lines:
        if "median_s" in line:
            cells[line["batch"], method(line), precision(line)][column(line)] = line
    print("Steps, median ms (device memory, MiB):\n")
    print("| batch | method | precision | sora | eager | compiled | graphs | sora / best of PyTorch | reserved by sora | allocated by PyTorch |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for (batch, name, kind), row in sorted(cells.items()):
        ours = row.get("sora")
        theirs = [row[key]["median_s"] for key in ("eager", "compiled", "graphs") if key in row]
        ratio = f"{ours['median_s'] / min(theirs):.2f}" if ours and theirs else ""
        memory = str(ours.get("device_mib") or "") if ours else ""
        peer = str(row["eager"]["peak_rss_mib"]) if "eager" in row else ""
        times = [milliseconds(row.get(key)) for key in ("sora", "eager", "compiled", "graphs")]
        print("| " + " | ".join([str(batch), name, kind, *times, ratio, memory, peer]) + " |")


def convolutions(lines):
    peaks = {line["precision"]: line["gflops"] for line in lines if line["kind"] == "peak"}
    print("\nPeak of PyTorch's matrix products: " + ", ".join(f"{p} {v / 1e3:.1f} TFLOP/s" for p, v in peaks.items()))
    cells = defaultdict(dict)
    for line in lines:
        if line["kind"] == "conv" and line["ms"]:
            shape = f"{line['in']} to {line['out']}, {line['image'][0]} px, {line['kernel']}x{line['kernel']} / {line['stride']}"
            who = "sora" if line["framework"].startswith("sora") else "torch"
            cells[line["precision"], shape, line["direction"]][who] = line
    if not cells:
        return
    total = defaultdict(Counter)
    print("\n| precision | convolution | direction | Burn ms | cuDNN ms | Burn / cuDNN | Burn of peak | cuDNN of peak |")
    print("|---|---|---|---|---|---|---|---|")
    for (kind, shape, direction), row in cells.items():
        times = [f"{row[who]['ms']:.3f}" if who in row else "" for who in ("sora", "torch")]
        both = "sora" in row and "torch" in row
        ratio = f"{row['sora']['ms'] / row['torch']['ms']:.2f}" if both else ""
        share = [f"{row[w]['gflops'] / peaks[kind]:.2f}" if w in row and kind in peaks else "" for w in ("sora", "torch")]
        print("| " + " | ".join([kind, shape, direction, *times, ratio, *share]) + " |")
        if both:
            for who in ("sora", "torch"):
                total[kind, direction][who] += row[who]["ms"] * row[who]["count"]
    for (kind, direction), sums in total.items():
        ours, theirs = sums["sora"], sums["torch"]
        print(f"| {kind} | all of the network | {direction} | {ours:.2f} | {theirs:.2f} | {ours / theirs:.2f} | | |")


def agreement(lines):
    found = [line for line in lines if line["kind"] == "agreement"]
    if not found:
        return
    print("\nAgainst the CPU:\n")
    count = Counter((line["device"], line["result"]) for line in found)
    for (device, result), n in sorted(count.items()):
        print(f"- {device}: {n} {result}")
    for line in found:
        if line["result"] in ("differs", "failed"):
            why = [str(line[key]) for key in ("figure", "off", "reason") if key in line]
            print(f"  - {line['device']} {line['case']}: {line['result']}: {' '.join(why)}")


def main():
    lines = [{"kind": "", **line} for line in read(sys.argv[1])]
    cards = {line["card"] for line in lines if "card" in line}
    print(f"Card: {', '.join(sorted(cards)) or 'unknown'}\n")
    steps(lines)
    convolutions(lines)
    agreement(lines)
    epochs = [line for line in lines if line["kind"] == "epoch"]
    if epochs:
        print("\nTraining: " + json.dumps(epochs[-1]))
    print("\nStages that did not end well:")
    for line in lines:
        if line["kind"] == "stage" and line["status"] != 0:
            print(f"- {line['stage']}: {line['status']} after {line['seconds']} s")


if __name__ == "__main__":
    main()
