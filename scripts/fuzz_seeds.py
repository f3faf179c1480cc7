#!/usr/bin/env python3
"""Makes the seeds of the fuzz targets, fuzz/seeds/TARGET/*: small files of each kind that are read
from the first byte to the last. Those of a run's files come from a run that it makes, with
target/release/sora. Standard library only. Usage: scripts/fuzz_seeds.py"""

import gzip
import hashlib
import io
import json
import pickle
import shutil
import struct
import subprocess
import sys
import tarfile
import tempfile
import types
import zipfile
import zlib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FIXTURES = ROOT / "crates/data/tests/fixtures"
PIXELS = 3072


def png(side: int = 8, depth: int = 8, colour: int = 2, more: bytes = b"") -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    samples = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    row = -(-side * samples * depth // 8)
    rows = b"".join(bytes([y % 5]) + bytes((x * 9 + y) % 256 for x in range(row)) for y in range(side))
    header = struct.pack(">IIBBBBB", side, side, depth, colour, 0, 0, 0)
    palette = chunk(b"PLTE", bytes(range(48))) if colour == 3 else b""
    data = chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + more + palette + data + chunk(b"IEND", b"")


# A grey JPEG of 8 x 8 pixels, one value.
JPEG = bytes.fromhex(
    "ffd8ffe000104a46494600010100000100010000ffdb004300" + "01" * 64 + "ffc0000b080008000801011100"
    "ffc40014000100000000000000000000000000000003ffc4001410010000000000000000000000000000000000"
    "ffda0008010100003f0037ffd9"
)


def idx(*dims: int) -> bytes:
    count = 1
    for dim in dims:
        count *= dim
    return struct.pack(">I", 0x800 + len(dims)) + b"".join(struct.pack(">I", d) for d in dims) + bytes(i % 9 for i in range(count))


def tar_gz(files: dict[str, bytes], level: int = 0) -> bytes:
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    # With level 0 the bytes lie open, so that a changed byte is a changed byte of the archive.
    return gzip.compress(plain.getvalue(), level, mtime=0)


def zipped(files: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), data, method)
    return out.getvalue()


def npy(shape: tuple[int, ...], data: bytes) -> bytes:
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}".encode()
    header += b" " * (117 - len(header)) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + data


def medmnist() -> dict[str, bytes]:
    images = lambda n: npy((n, 4, 3, 3), bytes(n * 4 * 3 * 3))
    return {
        "train_images.npy": images(3),
        "train_labels.npy": npy((3, 1), bytes([8, 0, 5])),
        "test_images.npy": images(2),
        "test_labels.npy": npy((2, 1), bytes([1, 2])),
    }


def cifar() -> dict[str, bytes]:
    folder, record = "cifar-10-batches-bin", lambda label: bytes([label]) + bytes(PIXELS)
    found = {f"{folder}/data_batch_{i}.bin": record(i) for i in range(1, 6)}
    return found | {f"{folder}/test_batch.bin": record(3)}


def cifar_python() -> dict[str, bytes]:
    def batch(label: int) -> bytes:
        text = lambda value: b"U" + bytes([len(value)]) + value
        numbers = b"".join(b"J" + struct.pack("<i", n) for n in (1, PIXELS))
        return (
            b"\x80\x02}q\x01(" + text(b"labels") + b"]q\x05(K" + bytes([label]) + b"e" + text(b"data")
            + b"cnumpy.core.multiarray\n_reconstruct\nq\x07cnumpy\nndarray\nq\x08K\x00\x85U\x01b\x87Rq\x09(K\x01"
            + numbers + b"\x86cnumpy\ndtype\nq\x0aU\x02u1K\x00K\x01\x87Rq\x0b(K\x03U\x01|NNN"
            + b"J\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T" + struct.pack("<I", PIXELS) + bytes(PIXELS) + b"tbu."
        )

    folder = "cifar-10-batches-py"
    return {f"{folder}/data_batch_{i}": batch(i) for i in range(1, 6)} | {f"{folder}/test_batch": batch(3)}


def imagenette() -> dict[str, bytes]:
    image = png()
    return {
        f"imagenette2-160/{split}/n0144076{k}/{k}_{i}.JPEG": image
        for split, count in (("train", 2), ("val", 1)) for k in (4, 5) for i in range(count)
    }


def shard() -> dict[str, bytes]:
    """A shard of a WebDataset: each sample an image and its class."""
    parts = lambda i: {f"{i}.png": png(), f"{i}.cls": str(i).encode()}
    return parts(0) | parts(1)


def tiny_imagenet() -> dict[str, bytes]:
    image, top = png(64, 1, 0), "tiny-imagenet-200"
    return {
        f"{top}/words.txt": b"n1\tgoldfish\nn3\tother\n",
        f"{top}/val/val_annotations.txt": b"v0.JPEG\tn2\t0\t0\t9\t9\nv1.JPEG\tn1\t1\t1\t9\t9\n",
        f"{top}/val/images/v0.JPEG": image,
        f"{top}/val/images/v1.JPEG": image,
        f"{top}/train/n1/images/n1_0.JPEG": image,
        f"{top}/train/n2/images/n2_0.JPEG": image,
    }


def cache() -> bytes:
    """As crates/data/src/source/cache.rs describes it: 3 + 2 images of 1 x 2 x 2."""
    header = b"sorapix\0" + struct.pack("<I", 3) + bytes([3] * 32) + struct.pack("<IIIQQ", 1, 2, 2, 3, 2)
    parts = [bytes(range(12)), bytes(range(8))]
    hashed = b"".join(hashlib.sha256(part).digest() for part in parts)
    return header + b"".join(parts) + hashlib.sha256(header + hashed).digest()


def states() -> dict[str, bytes]:
    """States of an evaluation, as crates/robustness/src/evaluate/state.rs describes them."""
    dump = lambda value: json.dumps(value, separators=(",", ":")).encode() + b"\n"
    half = lambda data: hashlib.sha256(data).hexdigest()[:32]
    identity = {
        "program": "seed",
        "weights": {"sha256": "", "step": None, "which": "", "network": ""},
        "data": {"name": "", "split": "", "sha256": "", "images": 0, "classes": []},
        "norm": "linf", "epsilon": 0.5, "seed": 0, "options": [], "attacks": [],
    }
    rows = struct.pack("<4f", 0.1, 0.2, 0.3, 0.4)
    lines = [
        {"attack": "clean", "round": 0, "ids": [1, 2, 3], "fallen": [3], "seconds": 1.5},
        {"attack": "pgd-10", "round": 0, "ids": [1, 2], "fallen": [], "seconds": 0.25},
        {"attack": "pgd-10", "round": 1, "ids": [1, 2], "fallen": [1, 2], "seconds": 0.5, "row": 0, "examples": half(rows)},
    ]
    text = dump({"sora_evaluation": 1, "identity": identity})
    for line in lines:
        text += dump(line | {"sum": half(dump(line))})
    return {"plain": b"\0" + text, "begun": b"\0" + text[:-40], "with examples": b"\1" + text + b"\0" + rows}


def messages() -> dict[str, bytes]:
    """What models send, see crates/served/src/fuzzing.rs."""
    about = {"protocol": 1, "shape": [1, 2, 2], "classes": 3, "answers": "logits", "batch": 4}
    line = lambda value: json.dumps(value).encode() + b"\n"
    logits = bytes(24)
    tensor = {"name": "x", "datatype": "FP32", "shape": [-1, 1, -1, -1]}
    metadata = {"name": "m", "inputs": [tensor], "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 3]}]}
    answer = {"outputs": [{"name": "y", "datatype": "FP32", "shape": [2, 3], "data": [0.5, 1, None, -1e9, 2, 3]}]}
    labels = about | {"answers": "labels"}
    return {
        "description": b"\0" + line(about),
        "array": b"\1" + npy((2, 3), bytes(6)),
        "inference": b"\2" + line(metadata) + b"\0" + line(answer),
        "logits": b"\3" + line(about) + line({"id": 0, "shape": [2, 3]}) + logits + line({"id": 1, "error": "no\tmore"}),
        "labels": b"\3" + line(labels) + line({"id": 0, "shape": [2]}) + bytes(8),
    }


def unsealed(text: str) -> bytes:
    """A record without the digest at its end, as older versions wrote them: changed bytes are then read."""
    return text.split(',\n  "sum"')[0].encode() + b"\n}\n"


def safetensors(data: bytes) -> tuple[dict, bytes]:
    """Header and numbers of a weights file; the description without its digests."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    if "__metadata__" in header:
        about = json.loads(header["__metadata__"]["sora"])
        about = {key: value for key, value in about.items() if key not in ("sum", "sha256")}
        header["__metadata__"]["sora"] = json.dumps(about)
    return header, data[8 + length :]


def weights(header: dict, numbers: bytes) -> bytes:
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + numbers


class Storage:
    """Stands for the numbers of a tensor, which a PyTorch file keeps beside its pickle."""

    def __init__(self, key: str, length: int):
        self.key, self.length = key, length


def torch_pickle(state: object) -> bytes:
    """A pickle as `torch.save` writes it, without PyTorch: its names are in modules made for it."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    torch.FloatStorage = type("FloatStorage", (), {"__module__": "torch", "__qualname__": "FloatStorage"})

    def _rebuild_tensor_v2(*parts): ...

    _rebuild_tensor_v2.__module__, _rebuild_tensor_v2.__qualname__ = "torch._utils", "_rebuild_tensor_v2"
    utils._rebuild_tensor_v2, torch._utils = _rebuild_tensor_v2, utils
    sys.modules.update({"torch": torch, "torch._utils": utils})

    class Tensor:
        def __init__(self, key: str, shape: list[int]):
            self.key, self.shape = key, tuple(shape)

        def __reduce__(self):
            strides, step = [], 1
            for side in reversed(self.shape):
                strides.insert(0, step)
                step *= side
            return _rebuild_tensor_v2, (Storage(self.key, step), 0, self.shape, tuple(strides), False, {})

    class Pickler(pickle.Pickler):
        def persistent_id(self, found):
            if isinstance(found, Storage):
                return ("storage", torch.FloatStorage, found.key, "cpu", found.length)

    out = io.BytesIO()
    Pickler(out, protocol=2).dump({name: Tensor(key, shape) for name, (key, shape) in state.items()})
    return out.getvalue()


def torch_files(header: dict, numbers: bytes) -> dict[str, bytes]:
    """The tensors of a weights file in the two forms of PyTorch's files."""
    state, data = {}, {}
    for i, (name, info) in enumerate((k, v) for k, v in header.items() if k != "__metadata__"):
        begin, end = info["data_offsets"]
        state[name], data[str(i)] = (str(i), info["shape"]), numbers[begin:end]
    tensors = torch_pickle(state)
    old = b"".join(pickle.dumps(part, protocol=2) for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}))
    old += tensors + pickle.dumps(list(data), protocol=2)
    old += b"".join(struct.pack("<q", len(part) // 4) + part for part in data.values())
    archive = {"m/data.pkl": tensors, "m/byteorder": b"little", "m/version": b"3\n"}
    return {"old": old, "zip": zipped(archive | {f"m/data/{key}": part for key, part in data.items()})}


def run_files() -> dict[str, dict[str, bytes]]:
    """Seeds of the readers of a run, see crates/sora/src/fuzzing.rs."""
    program = ROOT / "target/release/sora"
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "r"
        small = "--dataset synthetic --limit-train 96 --limit-test 8 --val 16 --model mnist-cnn --width 1 --image-size 8"
        call = f"train {small} --epochs 1 --batch 32 --checkpoint-steps 1 --threads 1 --out {run}"
        subprocess.run([program, *call.split()], check=True, capture_output=True)
        subprocess.run([program, "eval", run, "--attacks", "clean"], check=True, capture_output=True)
        text = lambda name: (run / name).read_text()
        config = text("config.toml").split("\n", 1)[1]
        checkpoint = run / "checkpoints/epoch-000-step-000001"
        header, numbers = safetensors((run / "model.safetensors").read_bytes())
        momentum, values = safetensors((checkpoint / "optimizer.safetensors").read_bytes())
        logs = [text("metrics.jsonl"), text("epochs.jsonl"), unsealed(text("summary.json")).decode()]
        logs += [unsealed(next((run / "eval").glob("*.json")).read_text()).decode(), config]
        position = (checkpoint / "state.json").read_bytes()
    settings = config.split("steps_per_epoch")[0]
    recipe = '[train]\nmethod = "fgsm"\n\n[[runs]]\nlabel = "a"\nepsilon = ["8/255", "12/255"]\nseed = [0, 1]\n'
    scales = 'title = "t"\nruns = [{ method = ["sora", "fgsm"] }]\n[scale.smoke.train]\nepochs = 1\n[scale.smoke.keep]\nmethod = ["sora"]\n'
    return {
        "run_config": {"config": config.encode(), "settings": settings.encode(), "recipe": recipe.encode(), "scales": scales.encode()},
        "run_logs": {"whole": "\0".join(logs).encode()},
        "run_checkpoint": {"weights": position + b"\0" + weights(header, numbers), "momentum": position + b"\0" + weights(momentum, values)},
        "run_weights": {"whole": weights(header, numbers)},
        "run_pytorch": torch_files(header, numbers) | {"safetensors": weights({k: v for k, v in header.items() if k != "__metadata__"}, numbers)},
    }


def seeds() -> dict[str, dict[str, bytes]]:
    fixture = lambda name: (FIXTURES / name).read_bytes()
    kinds = [(8, 0), (1, 0), (8, 2), (4, 3), (16, 4), (8, 6)]
    images = {f"png-{depth}-{colour}": b"\0" + png(8, depth, colour) for depth, colour in kinds}
    words = ["clean", "fgsm", "pgd-10", "pgd-50x10", "square-500", "autoattack", "apgd-ce", "8/255", "0.03", "1e-3", "0"]
    return {
        "data_image": images | {"jpeg": b"\1" + JPEG},
        "data_idx": {
            "images": b"\0" + idx(2, 4, 3), "labels": b"\1" + idx(2),
            "images.gz": b"\2" + gzip.compress(idx(2, 4, 3), mtime=0), "labels.gz": b"\3" + gzip.compress(idx(2), mtime=0),
        },
        "data_cifar": {"binary": b"\0" + tar_gz(cifar()), "python": b"\1" + tar_gz(cifar_python()), "packed": b"\0" + tar_gz(cifar(), 9)},
        "data_pickle": {f"protocol-{n}": fixture(f"batch_protocol{n}.pkl") for n in (2, 4, 5)},
        "data_npz": {
            f"{name}-{where}": bytes([where]) + zipped(medmnist(), method)
            for name, method in (("stored", zipfile.ZIP_STORED), ("packed", zipfile.ZIP_DEFLATED)) for where in (0, 1)
        },
        "data_mat": {"plain": fixture("svhn_plain.mat"), "packed": fixture("svhn.mat")},
        "data_parquet": {name: fixture(name) for name in ("train-00000-of-00001.parquet", "from_one.parquet", "no_dictionary.parquet", "huge_label.parquet")},
        "data_tar": {
            "open": b"\0" + tar_gz(imagenette()), "packed": b"\2" + tar_gz(imagenette(), 9),
            "shard": b"\1" + gzip.decompress(tar_gz(shard())), "kept": b"\3" + gzip.decompress(tar_gz(shard())),
        },
        "data_zip": {"stored": zipped(tiny_imagenet()), "packed": zipped(tiny_imagenet(), zipfile.ZIP_DEFLATED)},
        "data_cache": {"whole": cache()},
        "evaluation_state": states(),
        "served_messages": messages(),
        "evaluation_words": {word.replace("/", "_"): word.encode() for word in words},
    } | run_files()


def main() -> None:
    for target, files in seeds().items():
        folder = ROOT / "fuzz/seeds" / target
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for name, data in files.items():
            (folder / name.replace(" ", "-")).write_bytes(data)


if __name__ == "__main__":
    main()
