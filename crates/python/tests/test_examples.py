"""The examples of the repository, as a reader runs them."""

import importlib.util
import json
import os
import pathlib
import re
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest

import sora_robust as sora

EXAMPLES = pathlib.Path(__file__).resolve().parents[3] / "examples" / "python"
RNG = np.random.default_rng(1)


def run(name, *arguments):
    call = [sys.executable, EXAMPLES / name, *arguments]
    done = subprocess.run(call, capture_output=True, text=True, env={**os.environ, "TQDM_DISABLE": "1"}, timeout=600)
    assert done.returncode == 0, done.stderr
    return done.stdout


def accuracy(text, attack):
    return float(re.search(rf"^{re.escape(attack)} +([0-9.]+) %", text, re.M)[1])


def test_a_torch_module_is_judged():
    pytest.importorskip("torch")
    out = run("judge_torch.py")
    assert accuracy(out, "clean") == 100.0 and accuracy(out, "autoattack") < 100.0


def test_functions_are_judged():
    out = run("functions.py")
    assert accuracy(out, "clean") == 100.0 and accuracy(out, "autoattack") < 100.0


def test_jax_gives_the_figures_of_the_same_model_by_hand():
    pytest.importorskip("jax")
    spec = importlib.util.spec_from_file_location("functions", EXAMPLES / "functions.py")
    functions = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(functions)
    import jax.numpy as jnp

    traced = functions.from_jax(lambda x: jnp.reshape(x, (len(x), -1)) @ functions.WEIGHTS.T)
    x = RNG.uniform(0.2, 0.8, (30, 3, 16, 16)).astype(np.float32)
    y = functions.by_hand()[0](x).argmax(1)
    options = {"epsilon": 1 / 255, "attacks": ["pgd-10", "apgd-t"], "progress": False}
    a, b = (sora.evaluate(model, x, y, **options).accuracy for model in (traced, functions.by_hand()))
    assert a.keys() == b.keys() and all(abs(a[name] - b[name]) <= 1 / 30 + 1e-9 for name in a)


def test_training_runs():
    out = run("train.py")
    assert "steps" in out and accuracy(out, "pgd-10") <= accuracy(out, "clean")


def test_the_notebook_runs():
    pytest.importorskip("torch")
    book = json.loads((EXAMPLES / "robust_accuracy.ipynb").read_text())
    names = {}
    for cell in book["cells"]:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), names)
    assert 0 <= names["report"].accuracy["autoattack"] <= names["report"].accuracy["clean"] == 1.0


def png(image):
    """A PNG file of bytes [h, w, 3]."""
    height, width, _ = image.shape
    rows = b"".join(b"\0" + row.tobytes() for row in image)

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.fixture
def linear(tmp_path):
    """A linear model for `serve.py`, and a folder of images that it classifies correctly."""
    weight = RNG.normal(size=(3, 3 * 8 * 8)).astype(np.float32)
    # What all images share decides nothing: each class gets some.
    weight -= weight.mean(1, keepdims=True)
    np.savez(tmp_path / "m.npz", weight=weight, bias=np.zeros(3, np.float32), shape=[3, 8, 8])
    images = (RNG.uniform(0.2, 0.8, (60, 8, 8, 3)) * 255).round().astype(np.uint8)
    classes = (images.transpose(0, 3, 1, 2).reshape(60, -1).astype(np.float32) / 255 @ weight.T).argmax(1)
    assert len(set(classes)) == 3
    for split in ("train", "test"):
        for number, (image, name) in enumerate(zip(images, classes)):
            folder = tmp_path / "set" / split / f"class{name}"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{number:03}.png").write_bytes(png(image))
    return tmp_path


def judge(folder, *model):
    """The report of the program on a served model."""
    call = [sys.executable, "-c", "from sora_robust._program import main; main()", "eval", *map(str, model)]
    call += ["--dataset", f"folder:{folder / 'set'}", "--epsilon", "2/255", "--json", "--limit", "30"]
    done = subprocess.run(call, capture_output=True, text=True, cwd=folder, timeout=600)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("form", ["exec", "url"])
@pytest.mark.parametrize("labels", [False, True])
def test_a_served_model_is_judged(linear, form, labels):
    words = [str(EXAMPLES / "serve.py"), str(linear / "m.npz"), *(["--labels"] if labels else [])]
    server = None
    try:
        if form == "exec":
            model = ["--exec", " ".join(f"'{word}'" for word in [sys.executable, *words])]
        else:
            server = subprocess.Popen([sys.executable, *words, "--port", "0"], stdout=subprocess.PIPE, text=True)
            model = ["--url", server.stdout.readline().strip()]
        report = judge(linear, *model)
    finally:
        if server:
            server.kill()
            server.wait()
    attack = "rays-1000" if labels else "square-1000"
    results = report["results"]
    assert list(results) == ["clean", attack]
    assert results["clean"]["correct"] == 30 > results[attack]["correct"]
    assert results["clean"]["queries"] == 30 and results[attack]["queries"] > 100
