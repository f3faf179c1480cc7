"""The installed wheel: arrays, torch modules, ONNX files, runs, bad calls."""

import importlib.util
import inspect
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import sora_robust as sora

RNG = np.random.default_rng(0)
SHAPE = (3, 8, 8)
WEIGHTS = RNG.normal(size=(5, int(np.prod(SHAPE)))).astype(np.float32)


def logits(x):
    return x.reshape(len(x), -1) @ WEIGHTS.T


def pull_back(x, cotangent):
    return (cotangent @ WEIGHTS).reshape(x.shape)


@pytest.fixture
def data():
    x = RNG.uniform(0.2, 0.8, (40, *SHAPE)).astype(np.float32)
    return x, logits(x).argmax(1)


def margin_says(x, y, epsilon):
    """Robust accuracy of the linear model in linf, in closed form (pixels stay within [0, 1])."""
    z = logits(x)
    stand = 0
    for i in range(len(x)):
        gaps = [(z[i, y[i]] - z[i, k]) - epsilon * np.abs(WEIGHTS[y[i]] - WEIGHTS[k]).sum() for k in range(5) if k != y[i]]
        stand += min(gaps) > 0
    return stand / len(x)


def test_a_linear_model_has_the_robust_accuracy_of_its_margins(data):
    x, y = data
    epsilon = 0.005
    report = sora.evaluate((logits, pull_back), x, y, epsilon=epsilon, suite="autoattack", progress=False)
    assert report.accuracy["clean"] == 1.0
    assert 0.0 < report.accuracy["autoattack"] < 1.0
    assert abs(report.accuracy["autoattack"] - margin_says(x, y, epsilon)) <= 1 / 40 + 1e-9
    low, high = report.interval["autoattack"]
    assert low <= report.accuracy["autoattack"] <= high
    assert json.dumps(report.to_dict()) and "autoattack" in str(report) and "<table>" in report._repr_html_()


def test_adversarial_examples_lie_in_the_ball_and_fool(data):
    x, y = data
    report = sora.evaluate((logits, pull_back), x, y, epsilon=0.01, attacks=["pgd-10"], adversarial=True, progress=False)
    found = report.adversarial["pgd-10"]
    assert np.abs(found["x_adv"] - x).max() <= 0.01 + 1e-6
    assert found["x_adv"].min() >= 0 and found["x_adv"].max() <= 1
    assert abs((logits(found["x_adv"]).argmax(1) == y).mean() - report.accuracy["pgd-10"]) < 1e-9


def test_a_torch_module_is_judged_like_its_arrays_and_left_as_it_was(data):
    torch = pytest.importorskip("torch")
    x, y = data
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Dropout(0.5), torch.nn.Linear(192, 5, bias=False))
    with torch.no_grad():
        module[2].weight.copy_(torch.from_numpy(WEIGHTS))
    module.train()
    options = {"epsilon": 0.005, "attacks": ["clean", "fgsm", "apgd-ce", "square-100"], "progress": False}
    ours = sora.evaluate((logits, pull_back), x, y, **options)
    theirs = sora.evaluate(module, torch.from_numpy(x), torch.from_numpy(y), **options)
    assert ours.accuracy == theirs.accuracy
    assert module.training and module[1].training and module[2].weight.requires_grad
    assert module[2].weight.grad is None


def small_network(torch):
    torch.manual_seed(0)
    layers = [torch.nn.Conv2d(3, 6, 3, padding=1), torch.nn.BatchNorm2d(6), torch.nn.ReLU(), torch.nn.Flatten()]
    return torch.nn.Sequential(*layers, torch.nn.Linear(6 * 64, 5))


class Watched:
    """A hook that notes of each call the thread, the number of images, and PyTorch's threads."""

    def __init__(self, torch):
        self.torch, self.calls = torch, []

    def __call__(self, layer, inputs):
        self.calls.append((threading.get_ident(), len(inputs[0]), self.torch.get_num_threads()))


@pytest.fixture
def two_threads():
    torch = pytest.importorskip("torch")
    if "backend: OpenMP" not in torch.__config__.parallel_info():
        pytest.skip("a PyTorch with one number of threads for the whole process")
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield torch
    torch.set_num_threads(before)


def threads_of_a_new_thread(torch):
    found = []
    thread = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    return found[0]


def test_shares_of_a_batch_go_through_a_module_side_by_side(data, two_threads):
    torch, (x, _) = two_threads, data
    module, watched = small_network(torch).eval(), Watched(torch)
    with torch.no_grad():
        y = module(torch.from_numpy(x)).argmax(1)
    options = {"epsilon": 0.01, "attacks": ["clean", "pgd-10", "fab-t-10", "square-100"], "progress": False}
    module.register_forward_pre_hook(watched)
    shared = sora.evaluate(module, x, y, adversarial=True, **options)
    assert torch.get_num_threads() == 2 and threads_of_a_new_thread(torch) == 2
    # The first two calls are the looks at the whole.
    assert len({thread for thread, rows, _ in watched.calls if rows == 20}) == 2
    assert {threads for _, rows, threads in watched.calls[2:] if rows > 3} == {1}
    torch.set_num_threads(1)
    watched.calls.clear()
    whole = sora.evaluate(module, x, y, adversarial=True, **options)
    assert {rows for _, rows, _ in watched.calls} >= {40}
    assert 0 < whole.accuracy["pgd-10"] < 1 and shared.accuracy == whole.accuracy
    a, b = (report.adversarial["fab-t-10"]["x_adv"] for report in (shared, whole))
    assert np.abs(a - b).max() < 1e-4


def test_a_module_that_looks_at_the_whole_batch_gets_it(data, two_threads):
    torch, (x, y) = two_threads, data
    layers = [torch.nn.Flatten(), torch.nn.Linear(192, 5), torch.nn.BatchNorm1d(5, track_running_stats=False)]
    module, watched = torch.nn.Sequential(*layers), Watched(torch)
    module.register_forward_pre_hook(watched)
    sora.evaluate(module, x, y, epsilon=0.01, attacks=["clean", "fgsm"], progress=False)
    # The looks at the whole, twice, and at its two shares, then whole batches.
    rows = [rows for _, rows, _ in watched.calls]
    assert rows[:5] == [40, 39, 20, 20, 40] and 20 not in rows[4:]
    assert torch.get_num_threads() == 2 and threads_of_a_new_thread(torch) == 2


def keeping(torch, how):
    """A module that keeps its features and takes them from there, as modules of research do."""

    class Keeping(torch.nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.first, self.last = torch.nn.Linear(192, 32), torch.nn.Linear(32, 5)
            self.register_buffer("seen", torch.zeros(32))
            self.found, self.by_name, self.state = [None], {}, SimpleNamespace()

        def forward(self, x):
            h = self.first(x.flatten(1)).relu()
            if how == "attribute":
                self.features = h
                return self.last(self.features)
            if how == "buffer":
                self.seen = h
                return self.last(self.seen)
            if how == "write":
                self.seen.copy_(h.detach().mean(0))
            if how == "longer list":
                self.found.append(h)
            if how == "list":
                self.found[0] = h
                return self.last(self.found[0])
            if how == "dictionary":
                self.by_name["h"] = h
                return self.last(self.by_name["h"])
            if how == "object":
                self.state.h = h
                return self.last(self.state.h)
            if how == "number":
                self.n = len(x)
                return self.last(h.view(self.n, -1))
            if how == "deep":
                self.by_name.setdefault("a", [SimpleNamespace()])[0].h = h
                return self.last(self.by_name["a"][0].h)
            return self.last(h)

    return Keeping()


@pytest.mark.parametrize(
    "how", ["nothing", "attribute", "buffer", "write", "longer list", "list", "dictionary", "object", "deep", "number"]
)
def test_a_module_that_keeps_something_on_itself_gets_whole_batches(data, two_threads, how):
    torch, (x, y) = two_threads, data
    module, watched = keeping(torch, how), Watched(torch)
    # Not the first call ever: what it keeps is there already.
    module(torch.from_numpy(x))
    module.register_forward_pre_hook(watched)
    sora.evaluate(module, x, y, epsilon=0.01, attacks=["clean", "fgsm"], progress=False)
    assert (20 in {rows for _, rows, _ in watched.calls}) == (how == "nothing")
    assert torch.get_num_threads() == 2 and threads_of_a_new_thread(torch) == 2


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_what_a_module_computes_anew_or_once_keeps_it_in_shares(two_threads, tmp_path):
    torch = two_threads
    from sora_robust._models import Torch

    class Mask(torch.nn.Module):
        mask = None

        def forward(self, x):
            self.mask = torch.ones(SHAPE) if self.mask is None else self.mask
            return x * self.mask

    def normed():
        network = small_network(torch)
        layer = next(part for part in network.modules() if isinstance(part, torch.nn.Linear))
        torch.nn.utils.weight_norm(layer)
        return network

    def loaded():
        torch.jit.script(small_network(torch).eval()).save(str(tmp_path / "script.pt"))
        return torch.jit.load(str(tmp_path / "script.pt"))

    x = RNG.uniform(0, 1, (8, *SHAPE)).astype(np.float32)
    for module in [torch.nn.Sequential(Mask(), small_network(torch)), normed(), loaded()]:
        subject = Torch(module, SHAPE, None)
        try:
            subject.classes(x)
            assert subject._shares.of(len(x)) == 2, module
        finally:
            subject.close()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_torchscript_that_assigns_gets_whole_batches(two_threads):
    torch = two_threads
    from sora_robust._models import Torch

    class Keeping(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.features = small_network(torch), torch.zeros(1)

        def forward(self, x):
            self.features = self.inner(x)
            return self.features

    x = RNG.uniform(0, 1, (8, *SHAPE)).astype(np.float32)
    for module, shares in [(small_network(torch), 2), (Keeping(), 1)]:
        subject = Torch(torch.jit.script(module.eval()), SHAPE, None)
        try:
            subject.classes(x)
            assert subject._shares.of(len(x)) == shares
        finally:
            subject.close()


def test_a_module_is_attacked_in_the_engine_as_a_copy_that_is_compared(data):
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnx")
    x, _ = data
    module = small_network(torch).train()
    with torch.no_grad():
        y = module.eval()(torch.from_numpy(x)).argmax(1)
    module.train()
    options = {"epsilon": 0.01, "attacks": ["clean", "pgd-10", "fab-t-10", "square-100"], "progress": False}
    own = sora.evaluate(module, x, y, **options)
    copy = sora.evaluate(module, x, y, engine="sora", adversarial=True, **options)
    assert 0 < own.accuracy["pgd-10"] < 1
    assert all(abs(own.accuracy[name] - copy.accuracy[name]) <= 1 / 40 + 1e-9 for name in own.accuracy)
    assert "attacked in sora's engine, as a copy of the module" in copy.notes
    assert not any("do not fool" in note for note in copy.notes)
    assert module.training and module[0].weight.requires_grad
    found = copy.adversarial["pgd-10"]
    with torch.no_grad():
        pred = module.eval()(torch.from_numpy(found["x_adv"])).argmax(1).numpy()
    assert (pred == y.numpy()).mean() == copy.accuracy["pgd-10"]
    assert sora.evaluate(module, x, y, engine="sora", **options).adversarial == {}


def test_attacks_search_in_bf16_and_are_judged_in_f32(data):
    torch = pytest.importorskip("torch")
    x, _ = data
    precisions = set()

    class Watched(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = small_network(torch)

        def forward(self, x):
            values = self.inner(x)
            precisions.add((values.dtype, torch.is_grad_enabled()))
            return values

    module = Watched().eval()
    with torch.no_grad():
        y = module(torch.from_numpy(x)).argmax(1).numpy()
    options = dict(epsilon=0.02, attacks=["clean", "pgd-10", "apgd-ce"], progress=False)
    exact = sora.evaluate(module, x, y, **options)
    assert precisions == {(torch.float32, False), (torch.float32, True)}
    precisions.clear()
    rough = sora.evaluate(module, x, y, attack_precision="bf16", adversarial=True, **options)
    # Gradients in bf16, scores in f32; in f32 also what the search alone took for fooled.
    assert {(torch.float32, False), (torch.bfloat16, True)} <= precisions
    assert 0 < exact.accuracy["apgd-ce"] < 1 and rough.accuracy["clean"] == 1
    for name in ("pgd-10", "apgd-ce"):
        assert abs(rough.accuracy[name] - exact.accuracy[name]) <= 0.1
        found = rough.adversarial[name]
        with torch.no_grad():
            again = module(torch.from_numpy(found["x_adv"])).argmax(1).numpy()
        assert np.array_equal(again != y, found["fallen"].astype(bool))
    assert any("searched in bf16" in note for note in rough.notes)
    with pytest.raises(ValueError, match="attack_precision 'half'"):
        sora.evaluate(module, x, y, attack_precision="half", **options)
    with pytest.raises(ValueError, match="a run or a weights file"):
        sora.evaluate((logits, pull_back), x, y, attack_precision="bf16", **options)


def test_a_module_that_is_another_when_it_is_exported_has_no_copy(data):
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnx")
    x, y = data

    class Sly(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.network = small_network(torch)

        def forward(self, x):
            return self.network(x) * (2.0 if torch.onnx.is_in_onnx_export() else 1.0)

    with pytest.raises(ValueError, match="no copy of this module: its logits differ"):
        sora.evaluate(Sly(), x, y, epsilon=0.01, engine="sora", progress=False)
    with pytest.raises(ValueError, match="for a torch.nn.Module"):
        sora.evaluate((logits, pull_back), x, y, epsilon=0.01, engine="sora", progress=False)
    with pytest.raises(ValueError, match="engine 'onnx': expected 'sora', or none"):
        sora.evaluate(small_network(torch), x, y, epsilon=0.01, engine="onnx", progress=False)


def test_examples_that_do_not_fool_the_module_are_said(data):
    torch = pytest.importorskip("torch")
    from sora_robust._copy import confirmed
    from sora_robust._models import Torch

    x, _ = data
    module = small_network(torch)
    with torch.no_grad():
        y = module.eval()(torch.from_numpy(x)).argmax(1).numpy()
    found = {"x_adv": x, "y": y, "fallen": np.arange(len(x)) < 3}
    subject = Torch(module, SHAPE, None)
    assert subject.classes(x) == 5
    assert confirmed(subject, {"pgd-10": found}, 2) == [
        "pgd-10: 3 of 3 adversarial examples of the copy do not fool the module itself"
    ]
    assert confirmed(subject, {"pgd-10": {**found, "y": (y + 1) % 5}}, 2) == []
    subject.close()


def test_a_copy_of_a_module_with_one_output_is_judged_as_what_its_first_images_say(data):
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnx")
    x, _ = data
    w = WEIGHTS[1] - WEIGHTS[0]
    log_odds = x.reshape(len(x), -1) @ w
    shift = log_odds.mean()
    # Images of class 0 come first: the log-odds of those that fall are between 0 and 1 then.
    order = np.argsort(log_odds)
    x, log_odds = x[order], log_odds[order] - shift
    y = (log_odds > 0).astype(np.int64)
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 1))
    with torch.no_grad():
        module[1].weight.copy_(torch.from_numpy(w[None]))
        module[1].bias.fill_(-float(shift))
    report = sora.evaluate(
        module, x, y, epsilon=0.005, attacks=["clean", "fgsm"], engine="sora", adversarial=True, progress=False
    )
    found = report.adversarial["fgsm"]
    first = found["x_adv"][found["fallen"].astype(bool)][0]
    assert 0 <= module(torch.from_numpy(first[None])).item() <= 1
    margin = np.abs(log_odds) - 0.005 * np.abs(w).sum()
    assert abs(report.accuracy["fgsm"] - (margin > 0).mean()) <= 1 / 40 + 1e-9
    assert any("log-odds of class 1" in note for note in report.notes)
    assert not any("do not fool" in note for note in report.notes)


def export(torch, module, x, path):
    """Writes `module` as an ONNX file; needs the package onnx."""
    # The exporter that needs no onnxscript, which was the only one before torch 2.5.
    plain = {"dynamo": False} if "dynamo" in inspect.signature(torch.onnx.export).parameters else {}
    torch.onnx.export(module, (torch.from_numpy(x[:2]),), path,
                      input_names=["x"], dynamic_axes={"x": {0: "n"}}, **plain)  # fmt: skip


def test_an_onnx_file_is_judged_like_the_module_it_was_exported_from(data, tmp_path):
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnx")
    torch.manual_seed(0)
    x, _ = data
    module = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.BatchNorm2d(8), torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(8, 5),
    ).eval()  # fmt: skip
    y = module(torch.from_numpy(x)).argmax(1).numpy()
    path = tmp_path / "model.onnx"
    export(torch, module, x, path)
    options = {"epsilon": 0.02, "attacks": ["clean", "pgd-10", "apgd-t"], "progress": False}
    a, b = sora.evaluate(module, x, y, **options), sora.evaluate(path, x, y, **options)
    for name in a.accuracy:
        assert abs(a.accuracy[name] - b.accuracy[name]) <= 1 / 40 + 1e-9
    with pytest.raises(ValueError, match="ONNX file"):
        sora.evaluate(path, x, y, attack_precision="bf16", **options)


def test_a_run_is_trained_and_judged(tmp_path):
    run = sora.train("synthetic", method="fgsm", out=tmp_path / "run", model="mnist-cnn", width=2, image_size=8,
                     limit_train=200, limit_test=40, epochs=1, batch=20, val=20, progress=False)  # fmt: skip
    assert run.summary["epochs"] == 1 and os.path.exists(os.path.join(run.path, "model.safetensors"))
    x = RNG.uniform(0, 1, (20, 3, 8, 8)).astype(np.float32)
    y = np.zeros(20, dtype=int)
    report = sora.evaluate(run, x, y, epsilon=0.01, progress=False)
    assert set(report.accuracy) == {"clean", "fgsm", "pgd-10"}
    rough = sora.evaluate(run, x, y, epsilon=0.01, attack_precision="bf16", progress=False)
    assert rough.accuracy["clean"] == report.accuracy["clean"]
    assert any("searched in bf16" in note for note in rough.notes)
    with pytest.raises(ValueError, match="method"):
        sora.train("synthetic", method="no-such", progress=False)


def test_settings_are_written_as_toml():
    tomllib = pytest.importorskip("tomllib")
    from sora_robust._train import _text, _toml

    for value, meant in [
        (True, True),
        (np.bool_(False), False),
        (3, 3),
        (np.int64(-3), -3),
        (np.uint8(7), 7),
        (1e-5, 1e-5),
        (1e22, 1e22),
        (float("inf"), float("inf")),
        (np.float64(8 / 255), 8 / 255),
        (np.float32(0.1), float(np.float32(0.1))),
        (np.array(2.5), 2.5),
        ([0.5, np.float64(0.25), 1], [0.5, 0.25, 1]),
        ((15, 25), [15, 25]),
        (np.array([0.5]), [0.5]),
        ([], []),
        ("8/255", "8/255"),
        (np.str_("a"), "a"),
        (Path("a/b"), str(Path("a/b"))),
    ]:
        found = tomllib.loads(f"key = {_toml(value, 'key')}")["key"]
        assert found == meant and type(found) is type(meant), (value, found)
    for text in ["😀", "é\u2028\u0085", "\x00\x1f\x7f\t\n\r", 'a"b\\', "ключ"]:
        assert tomllib.loads(f"{_text(text)} = {_toml(text, 'key')}") == {text: text}


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"epochs": None}, "epochs: expected a text, a number.*found NoneType"),
        ({"mean": [0.5, {}]}, "mean: .*found dict"),
        ({"init": "a\udcff"}, r"'a\\udcff': .*valid Unicode"),
        ({"dataset": "folder:/no/such/😀"}, "/no/such/😀"),
    ],
)
def test_wrong_settings_are_told(settings, message):
    with pytest.raises(ValueError, match=message) as raised:
        sora.train(**{"dataset": "synthetic", "progress": False, **settings})
    assert "\n" not in str(raised.value)


def test_settings_may_be_numbers_of_numpy_and_lists(tmp_path):
    run = sora.train("synthetic", method="fgsm", out=tmp_path / "run-😀", model="mnist-cnn", width=np.int64(2),
                     image_size=8, limit_train=40, limit_test=20, epochs=np.int32(2), batch=20, val=10,
                     epsilon=np.float64(8 / 255), schedule="multistep", milestones=[np.int64(1)],
                     progress=False)  # fmt: skip
    assert run.summary["epochs"] == 2
    text = Path(run.path, "config.toml").read_text(encoding="utf-8")
    assert "milestones = [1]" in text


@pytest.mark.parametrize(
    "change, message",
    [
        ({"x": np.full((2, *SHAPE), 200.0)}, r"\[0, 1\]"),
        ({"x": np.zeros((2, *SHAPE), dtype=np.uint8)}, "255"),
        ({"x": np.zeros((0, *SHAPE), dtype=np.float32), "y": np.zeros(0, int)}, "at least one"),
        ({"y": np.array([0, 7])}, "5 classes"),
        ({"y": np.array([0.0, 1.0])}, "whole numbers"),
        ({"epsilon": 8}, "8 / 255"),
        ({"attacks": ["no-such"]}, "no-such"),
        ({"norm": "l7"}, "l7"),
        ({"suite": "no-such"}, "autoattack"),
        ({"attacks": "pgd-10"}, "a list of names"),
        ({"seed": -1}, "seed -1: expected a whole number from 0"),
        ({"seed": 2**64}, "seed 18446744073709551616: expected"),
        ({"seed": 0.5}, "seed 0.5: expected"),
        ({"batch_size": -1}, "batch_size -1: expected a whole number from 1"),
        ({"batch_size": 0}, "batch_size 0: expected"),
        ({"epsilon": float("inf"), "norm": "l2"}, "epsilon inf: expected a finite radius"),
        ({"epsilon": 1e39, "norm": "l2"}, "finite radius"),
        ({"epsilon": float("nan"), "norm": "l2"}, "finite radius"),
        ({"epsilon": "8/255"}, "epsilon '8/255': expected a number, such as 8 / 255"),
        ({"mean": 0.5, "std": 0.5}, "mean 0.5: expected a list of numbers"),
    ],
)
def test_wrong_calls_are_told(change, message):
    call = {"x": np.full((2, *SHAPE), 0.5, np.float32), "y": np.array([0, 1]), "epsilon": 0.01, "progress": False, **change}
    x, y = call.pop("x"), call.pop("y")
    with pytest.raises(ValueError, match=message):
        sora.evaluate((logits, pull_back), x, y, **call)


def test_numbers_of_numpy_and_pixels_in_bf16_are_taken(data):
    torch = pytest.importorskip("torch")
    x, y = data
    rough = torch.from_numpy(x).bfloat16()
    options = {"attacks": ["clean", "fgsm"], "progress": False}
    a = sora.evaluate(
        (logits, pull_back), rough, y, epsilon=np.float64(0.01), seed=np.int64(3), batch_size=torch.tensor(7), **options
    )
    b = sora.evaluate((logits, pull_back), rough.float().numpy(), y, epsilon=0.01, seed=3, batch_size=7, **options)
    assert a.accuracy == b.accuracy and a.seed == b.seed == 3


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_a_frozen_module_is_judged_like_the_module(data):
    torch = pytest.importorskip("torch")
    x, _ = data
    module = small_network(torch).eval()
    with torch.no_grad():
        y = module(torch.from_numpy(x)).argmax(1)
    frozen = torch.jit.freeze(torch.jit.script(module))
    assert not hasattr(frozen, "training")
    options = {"epsilon": 0.01, "attacks": ["clean", "pgd-10"], "progress": False}
    of_frozen, of_module = (sora.evaluate(judged, x, y, **options) for judged in (frozen, module))
    assert 0 < of_module.accuracy["pgd-10"] < 1
    for name, accuracy in of_module.accuracy.items():
        assert abs(of_frozen.accuracy[name] - accuracy) <= 1 / 40 + 1e-9
    assert not hasattr(frozen, "training")


def test_weights_made_in_inference_mode_are_left_as_they_were(data):
    torch = pytest.importorskip("torch")
    x, y = data
    with torch.inference_mode():
        module = small_network(torch)
    assert "clean" in sora.evaluate(module, x, y, epsilon=0.01, attacks=["clean"], progress=False).accuracy
    assert all(parameter.requires_grad for parameter in module.parameters())


def test_logits_alone_are_a_black_box(data):
    x, y = data
    report = sora.evaluate(logits, x, y, epsilon=0.02, suite="autoattack", progress=False)
    assert list(report.accuracy) == ["clean", "square"] and report.accuracy["square"] < report.accuracy["clean"] == 1.0
    results = report.to_dict()["results"]
    assert results["clean"]["queries"] == 40 and results["square"]["queries_per_image"] > 1
    assert any("upper bounds" in note for note in report.notes)
    with pytest.raises(ValueError, match="gradients"):
        sora.evaluate(logits, x, y, epsilon=0.02, attacks=["pgd-10"], progress=False)
    with pytest.raises(ValueError, match="expected \\[40, classes\\]"):
        sora.evaluate(lambda x: x, x, y, epsilon=0.02, progress=False)


def test_one_output_is_two_classes_whichever_way_it_is_written(data, tmp_path):
    torch = pytest.importorskip("torch")
    x, _ = data
    w = WEIGHTS[1] - WEIGHTS[0]
    shift = np.float32((x.reshape(len(x), -1) @ w).mean())

    def logit(x):
        return x.reshape(len(x), -1) @ w[:, None] - shift

    y = (logit(x)[:, 0] > 0).astype(np.int64)

    def probability(x):
        return 1 / (1 + np.exp(-logit(x)))

    def pull_logit(x, c):
        assert c.shape == (len(x), 1)
        return (c * w).reshape(x.shape)

    def pull_probability(x, c):
        p = probability(x)
        return pull_logit(x, c * p * (1 - p))

    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 1))
    with torch.no_grad():
        module[1].weight.copy_(torch.from_numpy(w[None]))
        module[1].bias.fill_(-float(shift))
    path = tmp_path / "one.onnx"
    judged = [
        ((logit, pull_logit), {}),
        ((logit, pull_logit), {"one_output": "logit"}),
        ((probability, pull_probability), {"one_output": "probability"}),
        (module, {}),
        (torch.nn.Sequential(module, torch.nn.Sigmoid()), {"one_output": "probability"}),
    ]
    if importlib.util.find_spec("onnx"):
        export(torch, module, x, path)
        judged.append((path, {}))
    options = {"epsilon": 0.005, "attacks": ["clean", "fgsm", "apgd-ce"], "progress": False}
    # In closed form: a linear network of two classes.
    margin = np.abs(logit(x)[:, 0]) - 0.005 * np.abs(w).sum()
    for model, said in judged:
        report = sora.evaluate(model, x, y, **options, **said)
        assert report.accuracy["clean"] == 1.0
        for attack in ("fgsm", "apgd-ce"):
            assert abs(report.accuracy[attack] - (margin > 0).mean()) <= 1 / 40 + 1e-9, (attack, said)
        assert any("one output" in note for note in report.notes), report.notes


def test_one_output_that_may_be_a_probability_is_asked_about(data):
    x, _ = data
    y = np.zeros(len(x), np.int64)
    options = {"epsilon": 0.01, "attacks": ["clean"], "progress": False}
    bright = lambda x: x.mean(axis=(1, 2, 3))[:, None]  # noqa: E731
    with pytest.raises(ValueError, match="probability of class 1, or its log-odds"):
        sora.evaluate(bright, x, y, **options)
    with pytest.raises(ValueError, match="not always from 0 to 1"):
        sora.evaluate(lambda x: 9 * bright(x), x, y, one_output="probability", **options)
    with pytest.raises(ValueError, match="5 values an image, not one"):
        sora.evaluate(logits, x, y, one_output="logit", **options)
    with pytest.raises(ValueError, match="expected 'logit' or 'probability'"):
        sora.evaluate(bright, x, y, one_output="sigmoid", **options)
    assert sora.evaluate(bright, x, y, one_output="logit", **options).accuracy["clean"] == 0.0


def test_what_the_model_raises_comes_back_as_it_is(data):
    x, y = data

    def broken(x, cotangent):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        sora.evaluate((logits, broken), x, y, epsilon=0.01, attacks=["fgsm"], progress=False)


def test_progress_is_told_and_may_end_the_work(data):
    x, y = data
    seen = []
    sora.evaluate((logits, pull_back), x, y, epsilon=0.01, attacks=["pgd-10"], progress=lambda *a: seen.append(a))
    assert any(what == "pgd-10" and done == total for what, done, total, _ in seen)

    class Enough(Exception):
        pass

    def stop(what, done, total, remark):
        raise Enough

    with pytest.raises(Enough):
        sora.evaluate((logits, pull_back), x, y, epsilon=0.01, attacks=["square-5000"], progress=stop)


def test_the_program_comes_with_the_package():
    out = subprocess.run([sys.executable, "-c", "from sora_robust._program import main; main()", "--version"],
                         capture_output=True, text=True)  # fmt: skip
    assert out.returncode == 0 and out.stdout.startswith("sora "), out
