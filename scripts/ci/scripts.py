#!/usr/bin/env python3
"""What the scripts promise, without a build, PyTorch or a network: wrong or missing things are refused, nothing passes
for checked that was not. Their tools (cargo, apt-get, torch, ...) are stand-ins."""

import argparse
import contextlib
import importlib.util
import io
import json
import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

ROOT = Path(__file__).resolve().parents[2]
if sys.version_info < (3, 11):
    sys.exit(subprocess.call([ROOT / "scripts/ci/skipped.sh", "scripts.py: Python 3.11 or newer is not here"]))


def call(*words, **variables):
    """A finished command, with the environment of this process and `variables`."""
    environment = os.environ | {key: str(value) for key, value in variables.items()}
    words = [str(word) for word in words]
    return subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, encoding="utf-8", timeout=60)


def script(name, *absent):
    """The script `name` as a module, with stand-ins for the modules `absent`."""
    spec = importlib.util.spec_from_file_location("script_under_test", ROOT / name)
    module = importlib.util.module_from_spec(spec)
    with mock.patch.dict(sys.modules, {key: mock.MagicMock() for key in absent}):
        with mock.patch.object(sys, "path", [str((ROOT / name).parent), *sys.path]):
            spec.loader.exec_module(module)
    return module


class Case(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def tool(self, name, text):
        """An executable shell script in the folder `bin`; returns the PATH with it in front."""
        path = self.folder / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("#!/bin/sh\n" + text, encoding="utf-8")
        path.chmod(0o755)
        return f"{path.parent}:{os.environ['PATH']}"

    def refused(self, done, *said):
        """One line that says `said`, and exit status 2."""
        self.assertEqual(done.returncode, 2, done.stderr)
        self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)
        for words in said:
            self.assertIn(words, done.stderr)


class Skips(Case):
    def test_what_cannot_be_checked_fails_where_nothing_may_be_skipped(self):
        for value, status in (("", 0), ("required", 1)):
            done = call("scripts/ci/skipped.sh", "a tool is not here", SORA_CI=value)
            self.assertEqual((done.stdout, done.returncode), ("a tool is not here: skipped\n", status))

    def test_workflows_that_call_the_checks_let_them_skip_nothing(self):
        for path in (ROOT / ".github/workflows").glob("*.yml"):
            text = path.read_text(encoding="utf-8")
            if "scripts/ci/" in text:
                self.assertIn("\n  SORA_CI: required\n", text, path.name)

    def test_every_check_that_skips_says_so_in_one_way(self):
        for path in (ROOT / "scripts/ci").glob("*.sh"):
            for line in path.read_text(encoding="utf-8").splitlines():
                own = path.name == "skipped.sh" or line.lstrip().startswith("#")
                self.assertFalse("echo" in line and ": skipped" in line and not own, f"{path.name}: {line}")


    def test_no_workflow_hides_a_failure_in_a_substitution(self):
        for path in (ROOT / ".github/workflows").glob("*.yml"):
            commands = [line.partition("#")[0] for line in path.read_text(encoding="utf-8").splitlines()]
            self.assertNotIn("<(", "\n".join(commands), path.name)


class Licences(Case):
    AUTHOR = "Copyright (c) 2015 Bartłomiej Kamiński"

    def listed(self, target):
        """The output for a program of one crate, on a machine whose encodings lack letters."""
        package = self.folder / "generic-array"
        package.mkdir(exist_ok=True)
        (package / "LICENSE").write_text(self.AUTHOR, encoding="utf-8")
        part = {"name": "generic-array", "version": "1.0.0", "id": "part", "source": "registry", "license": "MIT"}
        part |= {"manifest_path": str(package / "Cargo.toml"), "authors": ["Bartłomiej"], "repository": None}
        own = part | {"name": "sora-robust-cli", "id": "own", "source": None}
        dependency = {"pkg": "part", "dep_kinds": [{"kind": None}]}
        nodes = [{"id": "own", "deps": [dependency]}, {"id": "part", "deps": []}]
        metadata = {"packages": [own, part], "resolve": {"nodes": nodes}}
        (self.folder / "metadata").write_text(json.dumps(metadata, ensure_ascii=False), encoding="utf-8")
        path = self.tool("cargo", f"cat '{self.folder}/metadata'\n")
        plain = {"PYTHONIOENCODING": "cp1252", "LC_ALL": "C", "PYTHONUTF8": 0, "PYTHONCOERCECLOCALE": 0}
        done = call(sys.executable, "scripts/dist/licences.py", target, PATH=path, **plain)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def test_names_of_all_letters_are_written_whatever_the_machine_s_encoding(self):
        self.assertIn(self.AUTHOR, self.listed("x86_64-pc-windows-msvc"))

    def test_what_is_no_crate_has_its_licence_too(self):
        linux, mac = self.listed("x86_64-unknown-linux-gnu"), self.listed("aarch64-apple-darwin")
        for words in ("Rust Project Developers", "SIL OPEN FONT LICENSE", "uPlot"):
            self.assertIn(words, linux)
            self.assertIn(words, mac)
        self.assertIn("GNU LESSER GENERAL PUBLIC LICENSE", linux)
        self.assertNotIn("LESSER GENERAL", mac)


class Setup(Case):
    def setup_ends(self, **tools):
        """How setup.sh ends for a user on a machine without the data set that has only these tools."""
        text = (ROOT / "scripts/setup.sh").read_text().replace("/usr/share/datasets", str(self.folder))
        (self.folder / "setup.sh").write_text(text)
        for name, body in ({"id": "echo 1000"} | tools).items():
            self.tool(name.replace("_", "-"), body + "\n")
        done = call("/bin/sh", self.folder / "setup.sh", PATH=self.folder / "bin")
        self.assertEqual(done.returncode, 1)
        self.assertIn("data fetch fashion-mnist", done.stderr.splitlines()[-1])
        return done.stderr

    def test_a_user_without_sudo_is_told_another_way(self):
        self.assertIn("no sudo", self.setup_ends(apt_get="exit 0"))

    def test_a_user_whom_sudo_refuses_is_told_another_way(self):
        self.setup_ends(apt_get="exit 0", sudo="echo 'sudo: a password is required' >&2; exit 1")

    def test_a_package_that_is_not_there_is_said_with_another_way(self):
        self.setup_ends(apt_get='[ "$1" = update ] || exit 100', sudo='exec "$@"')

    def test_a_machine_without_apt_is_told_another_way(self):
        self.assertIn("no apt-get", self.setup_ends())


class Runs(Case):
    CONFIG = 'dataset = "synthetic"\nmethod = "fgsm"\nnorm = "linf"\nwidth = 2\nepochs = 2\nlimit_train = 10000\n' \
        'val = 200\nepsilon = "8/255"\nseed = 0\n\n[options]\nreplays = 2\n'  # fmt: skip

    def run_of(self, name, text=CONFIG):
        folder = self.folder / name
        folder.mkdir()
        (folder / "config.toml").write_text(text)
        (folder / "model.safetensors").touch()

    def test_a_table_takes_no_run_of_other_settings_for_its_own(self):
        self.run_of("synthetic-fgsm-linf-seed0")
        self.run_of("synthetic-free-linf-seed0", self.CONFIG.replace("epochs = 2", "epochs = 1").replace("fgsm", "free"))
        table = [sys.executable, "scripts/methods_table.py", "--dataset", "synthetic", "--out", self.folder, "--width", 2]
        both = [*table, "--methods", "fgsm,free"]
        self.refused(call(*both, "--epsilon", "2/255"), "epsilon is 8/255", "2/255")
        self.refused(call(*both, "--width", 4), "width is 2", "4")
        self.refused(call(*both, "--dataset", "cifar10", "--name", "synthetic"), "dataset is synthetic")
        self.refused(call(*table, "--methods", "free", "--epochs", 3), "options.replays is 2")

    def test_a_study_takes_no_run_of_another_data_set_for_its_own(self):
        self.run_of("a-fgsm-e16-s0-w16-n6", 'dataset = "cifar10"\n')
        study = [sys.executable, "scripts/co_study.py", "--only-report", "--out", self.folder]
        self.refused(call(*study, "--dataset", "svhn"), "dataset is cifar10", "svhn")

    def test_a_run_of_the_same_settings_is_taken(self):
        settings = script("scripts/run_settings.py")
        self.run_of("run", f'dataset = "folder:{ROOT}/docs"\nepsilon = "16/255"\nwidth = 8\n[options]\nsteps = 2\n')
        os.chdir(ROOT)
        for name in ("docs", "folder:docs", "folder:docs/", f"folder:{ROOT}/docs"):
            settings.refuse_others(self.folder / "run", {"dataset": name, "epsilon": "16/255", "width": 8}, {"steps": 2})
        settings.refuse_others(self.folder / "no-run", {"width": 8})
        for wanted in ({"dataset": "imagefolder:docs"}, {"dataset": "folder:crates"}, {"width": 9}, {"epochs": 1}):
            with contextlib.redirect_stderr(io.StringIO()), self.assertRaises(SystemExit) as end:
                settings.refuse_others(self.folder / "run", wanted)
            self.assertEqual(end.exception.code, 2)


class Crosschecks(Case):
    def test_results_of_other_weights_are_not_gone_on_with(self):
        (self.folder / "out").mkdir()
        (self.folder / "out/model.safetensors").write_text("before")
        (self.folder / "new.safetensors").write_text("after")
        check = ["scripts/crosscheck/run.sh", self.folder / "new.safetensors", "synthetic", self.folder / "out"]
        self.refused(call(*check, PYTHON="true", SORA="/bin/true"), "other weights")

    def test_a_result_s_file_names_all_that_decides_it(self):
        peer, subject = script("scripts/crosscheck/peer.py", "numpy", "torch", "network"), script("scripts/crosscheck/subject.py")
        files = [self.folder / name for name in ("a", "b", "c")]
        for file in files:
            file.write_text(file.name)
        a, b, c = files
        digests = {subject.digest(*both) for both in ((a, b), (a, c), (b, a), (c, b))}
        self.assertEqual(len(digests), 4)
        given = argparse.Namespace(out=self.folder, tool="torchattacks", norm="linf", seed=0)
        usual = ["pgd-10", 8 / 255, 100, "0"]
        changes = [("pgd-20", *usual[1:]), ("pgd-10", 8.001 / 255, 100, "0"), ("pgd-10", 8 / 255, 99, "0"), (*usual[:3], "1")]
        names = {peer.result_file(given, *usual), *(peer.result_file(given, *change) for change in changes)}
        given.seed = 1
        self.assertEqual(len(names | {peer.result_file(given, *usual)}), 6)

    def test_the_size_of_a_step_is_handed_on(self):
        peer = script("scripts/crosscheck/peer.py", "numpy", "torch", "network")
        tools = mock.MagicMock()
        absent = {"torchattacks": tools, "torchattacks.wrappers": tools, "torchattacks.wrappers.multiattack": tools}
        with mock.patch.dict(sys.modules, absent):
            peer.torchattack("pgd-20@2/255", "net", "linf", 8 / 255, 10, 0)
            peer.torchattack("pgd-10", "net", "l2", 0.5, 10, 0)
            with self.assertRaises(SystemExit):
                peer.torchattack("pgd-50x10", "net", "linf", 8 / 255, 10, 0)
        tools.PGD.assert_called_once_with("net", eps=8 / 255, alpha=2 / 255, steps=20)
        tools.PGDL2.assert_called_once_with("net", eps=0.5, alpha=0.125, steps=10)

    def compared(self, *more):
        """The exit status of compare.py on the folder's files; a line of text is 1."""
        compare = script("scripts/crosscheck/compare.py", "numpy")
        words = ["compare.py", str(self.folder / "ours.json"), str(self.folder), *map(str, more)]
        with mock.patch.object(sys, "argv", words), contextlib.redirect_stdout(io.StringIO()):
            try:
                compare.main()
            except SystemExit as end:
                return end.code if isinstance(end.code, int) else 1
        return 0

    def result(self, file, attack, **changes):
        result = {"attack": attack, "n": 10, "epsilon": 0.5, "norm": "l2", "accuracy": 0.4} | changes
        (self.folder / f"torchattacks-{file}.json").write_text(json.dumps(result))

    def test_a_comparison_of_nothing_fails(self):
        one = {"accuracy": 0.4, "ci95": [0.2, 0.6]}
        ours = {"n": 10, "epsilon": 0.5, "norm": "l2", "seed": 0, "results": {"clean": one, "fgsm": one, "pgd-10": one}}
        (self.folder / "ours.json").write_text(json.dumps(ours))
        self.assertEqual(self.compared(), 1)
        self.result("fgsm", "fgsm")
        self.assertEqual(self.compared(), 0)
        self.assertEqual(self.compared("--attacks", "fgsm,pgd-10"), 1)
        for changes in ({"n": 9}, {"epsilon": 0.6}, {"norm": "linf"}):
            self.result("pgd-10", "pgd-10", **changes)
            self.assertEqual(self.compared(), 1, changes)
            self.assertEqual(self.compared("--attacks", "fgsm"), 0, changes)
        self.result("pgd-10", "pgd-10", accuracy=0.3)
        self.assertEqual(self.compared(), 1)

    def test_results_of_other_weights_or_images_are_not_compared(self):
        weights, images, others = (self.folder / name for name in ("w", "i", "o"))
        for file in (weights, images, others):
            file.write_text(file.name)
        one = {"accuracy": 0.4, "ci95": [0.2, 0.6]}
        ours = {"n": 10, "epsilon": 0.5, "norm": "l2", "seed": 0, "results": {"fgsm": one}}
        (self.folder / "ours.json").write_text(json.dumps(ours))
        of = script("scripts/crosscheck/subject.py").digest(weights, images)
        self.result("a", "fgsm", of=of)
        self.assertEqual(self.compared("--weights", weights, "--images", images), 0)
        self.assertEqual(self.compared("--weights", weights, "--images", others), 1)
        self.result("b", "fgsm", of="another")
        self.assertEqual(self.compared(), 1)
        self.assertEqual(self.compared("--weights", weights, "--images", images), 0)

    def test_a_folder_without_exports_is_not_within_the_limits(self):
        check = script("scripts/exchange/check.py", "numpy", "onnx", "onnxruntime", "torch", "safetensors", "safetensors.torch", "networks")
        with mock.patch.object(sys, "argv", ["check.py", str(self.folder)]), self.assertRaises(SystemExit) as end:
            check.main()
        self.assertIn("no run", end.exception.code)


class Faults(Case):
    def test_a_part_that_is_none_is_refused(self):
        self.refused(call("scripts/faults.sh", "--sora", "/bin/true", "--only", "typo"), "--only typo", "kills")

    def test_no_case_is_no_success(self):
        parts = "bench damage disk errors kills others program scenario subjects surroundings together trainings"
        faults = script("scripts/faults/__main__.py", *parts.split())
        tally = faults.Bench.return_value.tally
        tally.mismatches = []
        for count, status in ((0, 1), (5, 0)):
            tally.count.return_value = count
            with mock.patch.object(sys, "argv", ["faults", "/bin/true"]), contextlib.redirect_stdout(io.StringIO()):
                with contextlib.redirect_stderr(io.StringIO()):
                    self.assertEqual(faults.main(), status)


class Benches(Case):
    ONE = '{"median_s":1,"framework":"x"}'

    def log(self, peer):
        """The lines that compare.sh logs, and its status, where the peer's interpreter does `peer`."""
        (self.folder / "peer.py").touch()
        said = f'echo "$@" >>"{self.folder}/called"\n'
        self.tool("sora", f"{said}echo '{self.ONE}'\n")
        self.tool("python", f'[ "$1" != -c ] || exit 0\n{said}{peer}\n')
        log = self.folder / "log"
        log.unlink(missing_ok=True)
        tools = {"SORA": self.folder / "bin/sora", "PYTHON": self.folder / "bin/python", "PAIRS": 1}
        done = call("benches/compare.sh", "run", self.folder / "peer.py", log, "fgsm:4", **tools)
        return [json.loads(line) for line in log.read_text().splitlines()], done

    def test_a_failed_measurement_ends_the_comparison_and_leaves_no_line(self):
        for peer in ("exit 1", f"echo '{self.ONE}'; exit 1", "echo warning", f"echo warning; echo '{self.ONE}'"):
            lines, done = self.log(peer)
            self.assertEqual([line.get("who") for line in lines], [None, "ours f32", "ours bf16"], peer)
            self.assertEqual(done.returncode, 1, peer)
            self.assertIn("peer.py", done.stderr)

    def test_both_sides_are_told_the_same(self):
        lines, done = self.log(f"echo '{self.ONE}'")
        self.assertEqual((len(lines), done.returncode), (6, 0), done.stderr)
        for words in (self.folder / "called").read_text().splitlines():
            self.assertIn("--batch 128", words)
            self.assertIn("--threads ", words)

    def test_an_interpreter_without_pytorch_is_refused(self):
        self.tool("none", "exit 1\n")
        tools = {"SORA": "/bin/true", "PYTHON": self.folder / "bin/none"}
        self.refused(call("benches/compare.sh", "run", "peer.py", self.folder / "log", "fgsm:4", **tools), "torch")

    def test_networks_get_as_many_threads_on_both_sides(self):
        networks = script("benches/networks.py")
        given = argparse.Namespace(steps=2, threads=3)
        for words in networks.sides("resnet50", "bf16", given):
            self.assertEqual(words[words.index("--threads") + 1], "3")
            self.assertEqual(words[words.index("--precision") + 1], "bf16")
        if hasattr(os, "sched_getaffinity"):
            self.assertEqual(networks.cores(), len(os.sched_getaffinity(0)))

    def test_tools_of_python_get_as_many_threads_each(self):
        tools = script("benches/python_autoattack.py", "numpy", "torch", "peer", "network")
        self.assertEqual(tools.surroundings(3)["RAYON_NUM_THREADS"], "3")


if __name__ == "__main__":
    unittest.main()
