"""commands.py SORA: runs every block of shell commands in the documentation, in small.

A block is fenced as ```sh in README.md, docs/ (notes apart) or a crate's README. It runs in a folder of its own
file that holds what the text takes for granted (runs, weights, a grid file), with a `sora` in front of the program
that makes the work small: a few images of 8x8 pixels in place of a data set, a narrow network, one epoch.
All other flags and values are passed on as they are, so that one that is gone or misspelt fails here.

A block that cannot run has `<!-- not run: WHY -->` in the line above it. Every other block in which a line begins
with `sora ` must be one of these, so that none is forgotten.
"""

import os
import random
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import tomllib
import zlib

sora = os.path.abspath(sys.argv[1])
only = sys.argv[2:]
os.chdir(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))

SMALL = f"#!{sys.executable}\n" + r'''"""`sora`, with little to do."""
import os, shutil, sys
words = sys.argv[1:]
def have(flag): return any(w == flag or w.startswith(flag + "=") for w in words)
def drop(flag):
    while have(flag):
        i = next(i for i, w in enumerate(words) if w == flag or w.startswith(flag + "="))
        del words[i:i + (1 if "=" in words[i] else 2)]
def put(flag, *value):
    drop(flag)
    words.extend([flag, *value])
command = words[0] if words else ""
asks = {"--help", "-h", "--dry-run", "--status"} & set(words)
# Small images wherever a set is named.
if have("--dataset"):
    put("--dataset", "folder:" + os.environ["IMAGES"])
if have("--extra-data"):
    put("--extra-data", "folder:" + os.environ["IMAGES"])
if command == "train" and not asks:
    # The folder's earlier run, which another text has made.
    shutil.rmtree(words[words.index("--out") + 1], ignore_errors=True)
    for flag, value in [("--width", "2"), ("--batch", "8"), ("--limit-train", "40"), ("--limit-test", "8"),
                        ("--val", "8"), ("--val-steps", "2"), ("--epochs", "1"), ("--checkpoint-steps", "2")]:
        wanted = flag not in ("--val-steps", "--checkpoint-steps", "--width") or have(flag)
        if wanted or flag == "--width" and not have("--init"):
            put(flag, value)
    if have("--milestones"):
        put("--milestones", "1")
# Weights of a named set say what they were trained on; those of a folder cannot say where it is.
elif command in ("eval", "sweep") and not words[1].startswith("runs/"):
    put("--dataset", "folder:" + os.environ["IMAGES"])
# An entry of RobustBench is of all images.
if command in ("eval", "sweep") and not asks and not have("--model-info"):
    put("--limit", "4")
if command in ("report", "landscape", "plot") and not asks:
    put("--limit", "4")
# A reproduction takes hours.
if command == "reproduce" and len(words) > 1 and not asks:
    words.append("--dry-run")
os.execv(os.environ["REAL_SORA"], ["sora", *words])
'''

CARGO = r'''#!/bin/sh
# `cargo run --release -- WORDS` is the program; `cargo test` is what CI runs by itself.
case "$1 $2 $3" in
  "run --release --") shift 3; exec sora "$@" ;;
  "test --release --workspace" | "install sora-robust-cli ") exit 0 ;;
esac
echo "cargo $*: not known to the documentation's check" >&2
exit 1
'''


def blocks(path):
    """(line, language, reason not to run it, text) of every fenced block."""
    with open(path, encoding="utf-8") as file:
        lines = file.read().split("\n")
    at = 0
    while at < len(lines):
        fence = re.match(r" *```(\S*)", lines[at])
        if not fence:
            at += 1
            continue
        end = next(i for i in range(at + 1, len(lines)) if lines[i].strip() == "```")
        reason = re.match(r"<!-- not run: (.*) -->", lines[at - 1]) if at else None
        yield at + 1, fence.group(1), reason and reason.group(1), "\n".join(lines[at + 1 : end])
        at = end + 1


def write(path, text, mode=0o644):
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    os.chmod(path, mode)


def picture(path, draws):
    """A PNG file of 8x8 random pixels."""
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + draws.randbytes(24) for _ in range(8))
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0)))
        file.write(chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


def grid_in_small(text, images):
    """The grid file of the documentation with few images, a narrow network and one epoch."""
    grid = tomllib.loads(text)
    grid["train"] |= {"dataset": f"folder:{images}", "width": 2, "epochs": 1, "batch": 8, "val": 8,
                      "limit_train": 32, "limit_test": 8}
    grid["limit"] = 4

    def value(v):
        if isinstance(v, bool):
            return str(v).lower()
        if isinstance(v, list):
            return "[" + ", ".join(map(value, v)) + "]"
        if isinstance(v, dict):
            return "{ " + ", ".join(f"{k} = {value(x)}" for k, x in v.items()) + " }"
        return '"' + v + '"' if isinstance(v, str) else str(v)

    out = [f"{k} = {value(v)}" for k, v in grid.items() if k not in ("train", "runs")]
    for name, table in [("[train]", grid["train"])] + [("[[runs]]", run) for run in grid["runs"]]:
        out += [name] + [f"{k} = {value(v)}" for k, v in table.items()]
    return "\n".join(out) + "\n"


def stage(folder, env):
    """What the texts take for granted."""
    def run(*words):
        subprocess.run(["sora", *words, "-q"], cwd=folder, env=env, check=True, stdout=subprocess.DEVNULL)

    for name, method in [("sora", "sora"), ("fgsm", "fgsm")]:
        run("train", "--dataset", "cifar10", "--method", method, "--out", f"runs/{name}")
    run("export", "runs/sora", "--format", "onnx", "--out", "model.onnx")
    shutil.copy(f"{folder}/runs/sora/model.safetensors", f"{folder}/model.safetensors")
    # A checkpoint of another program: the same names without our metadata.
    shutil.copy(f"{folder}/runs/sora/model.safetensors", f"{folder}/model.pt")
    for block in blocks("docs/grid.md"):
        if block[1] == "toml":
            write(f"{folder}/methods.toml", grid_in_small(block[3], env["IMAGES"]))
    os.makedirs(f"{folder}/scripts")
    write(f"{folder}/scripts/setup.sh", "#!/bin/sh\n", 0o755)


def main():
    listed = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
                            check=True, capture_output=True, text=True)
    wanted = r"README\.md|docs/(?!notes/)(.*/)?[^/]+\.md|crates/[^/]+/README\.md"
    paths = sorted(n for n in listed.stdout.split("\0") if re.fullmatch(wanted, n) and os.path.exists(n))
    failures, ran, skipped = 0, 0, 0
    with tempfile.TemporaryDirectory() as scratch:
        tools, staged = f"{scratch}/bin", f"{scratch}/staged"
        os.makedirs(tools), os.makedirs(staged)
        write(f"{tools}/sora", SMALL, 0o755)
        write(f"{tools}/cargo", CARGO, 0o755)
        env = {k: v for k, v in os.environ.items() if k in ("LANG", "TMPDIR")}
        env |= {"PATH": f"{tools}:{os.environ['PATH']}", "REAL_SORA": sora, "SORA_DATA": f"{scratch}/data", "HOME": scratch, "IMAGES": f"{scratch}/images"}
        draws = random.Random(0)
        for split, each in [("train", 6), ("test", 2)]:
            for i in range(10 * each):
                picture(f"{env['IMAGES']}/{split}/class{i % 10}/{i}.png", draws)
        stage(staged, env)
        for path in paths:
            if only and path not in only:
                continue
            folder = f"{scratch}/{path.replace('/', '-')}"
            shutil.copytree(staged, folder)
            for line, language, reason, text in blocks(path):
                where = f"{path}:{line}"
                if language != "sh":
                    if re.search(r"(?m)^sora ", text):
                        print(f"{where}: a block with commands of sora has to be fenced as sh")
                        failures += 1
                elif reason:
                    print(f"{where}: not run: {reason}")
                    skipped += 1
                else:
                    ran += 1
                    done = subprocess.run(["bash", "-euo", "pipefail", "-c", text], cwd=folder, env=env, text=True,
                                          stdin=subprocess.DEVNULL, capture_output=True, timeout=900)
                    if done.returncode:
                        failures += 1
                        print(f"{where}: status {done.returncode}\n{text}\n{done.stdout[-500:]}{done.stderr[-2000:]}")
    print(f"{ran} blocks of commands ran, {skipped} are marked, {failures} failed")
    sys.exit(1 if failures or not ran else 0)


main()
