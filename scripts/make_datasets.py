"""Writes every registered data set in its true format, with made-up images: python make_datasets.py DIR (numpy, scipy, pillow, pyarrow).

Sets that come as arrays (CIFAR, SVHN, MedMNIST, MNIST) have their official number of images; those of image files have a few a class.
"""

import gzip
import io
import json
import pickle
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

root = Path(sys.argv[1])
rng = np.random.default_rng(0)


def file(*parts):
    path = root.joinpath(*parts)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def tiled(n, *shape):
    """n arrays of bytes, four distinct ones, so that the archives stay small."""
    return np.tile(rng.integers(0, 256, (4, *shape), np.uint8), (-(-n // 4), *[1] * len(shape)))[:n]


def labels(n, classes):
    return (np.arange(n) % classes).astype(np.uint8)


def add(tar, name, data):
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def picture(k, size):
    """A JPEG file whose colours depend on k."""
    width, height = size
    y, x = np.mgrid[0:height, 0:width]
    base = np.stack([(x * (k % 7 + 1) + 37 * k) % 256, (y * (k % 5 + 1) + 11 * k) % 256, (x + y + 5 * k) % 256], -1)
    data = io.BytesIO()
    Image.fromarray(base.astype(np.uint8)).save(data, "JPEG", quality=80)
    return data.getvalue()


def mnist(name):
    for prefix, n in (("train", 60000), ("t10k", 10000)):
        for kind, data, dims in (("images-idx3", tiled(n, 28, 28), (n, 28, 28)), ("labels-idx1", labels(n, 10), (n,))):
            head = bytes([0, 0, 8, len(dims)]) + b"".join(d.to_bytes(4, "big") for d in dims)
            with gzip.open(file(name, f"{prefix}-{kind}-ubyte.gz"), "wb", compresslevel=1) as out:
                out.write(head + data.tobytes())


def cifar():
    batches = [(f"data_batch_{i}", 10000) for i in range(1, 6)] + [("test_batch", 10000)]
    for name, folder, members, classes in (
        ("cifar10", "cifar-10", batches, 10),
        ("cifar100", "cifar-100", [("train", 50000), ("test", 10000)], 100),
    ):
        binary, python = f"{folder}-batches-bin" if classes == 10 else f"{folder}-binary", f"{folder}-batches-py" if classes == 10 else f"{folder}-python"
        with tarfile.open(file(name, f"{folder}-binary.tar.gz"), "w:gz", compresslevel=1) as tar:
            for member, n in members:
                heads = [labels(n, classes)] if classes == 10 else [labels(n, 20), labels(n, classes)]
                add(tar, f"{binary}/{member}.bin", np.concatenate([np.stack(heads, 1), tiled(n, 3072)], 1).tobytes())
        with tarfile.open(file("python", name, f"{folder}-python.tar.gz"), "w:gz", compresslevel=1) as tar:
            for member, n in members:
                key = "labels" if classes == 10 else "fine_labels"
                batch = {"data": tiled(n, 3072), key: labels(n, classes).tolist(), "filenames": [f"{i}.png" for i in range(n)]}
                add(tar, f"{python}/{member}", pickle.dumps(batch, 2))


def svhn():
    from scipy.io import savemat

    for name, n in (("train_32x32.mat", 73257), ("test_32x32.mat", 26032)):
        arrays = {"X": np.asfortranarray(np.moveaxis(tiled(n, 32, 32, 3), 0, -1)), "y": (labels(n, 10) + 1)[:, None]}
        savemat(file("svhn", name), arrays, do_compression=True)


MEDMNIST = {
    "pathmnist": (3, 89996, 7180, 9),
    "chestmnist": (1, 78468, 22433, 2),
    "dermamnist": (3, 7007, 2005, 7),
    "octmnist": (1, 97477, 1000, 4),
    "pneumoniamnist": (1, 4708, 624, 2),
    "retinamnist": (3, 1080, 400, 5),
    "breastmnist": (1, 546, 156, 2),
    "bloodmnist": (3, 11959, 3421, 8),
    "tissuemnist": (1, 165466, 47280, 8),
    "organamnist": (1, 34561, 17778, 11),
    "organcmnist": (1, 12975, 8216, 11),
    "organsmnist": (1, 13932, 8827, 11),
}


def medmnist(name, size=28):
    channels, train, test, classes = MEDMNIST[name]
    shape = (size, size) if channels == 1 else (size, size, channels)
    arrays = {}
    for split, n in (("train", train), ("val", 8), ("test", test)):
        arrays[f"{split}_images"] = tiled(n, *shape)
        # ChestMNIST: a row of findings an image; here the first alone.
        arrays[f"{split}_labels"] = labels(n, classes)[:, None] * (np.arange(14) == 0) if name == "chestmnist" else labels(n, classes)[:, None]
        arrays[f"{split}_labels"] = arrays[f"{split}_labels"].astype(np.uint8)
    np.savez_compressed(file(name, f"{name}.npz" if size == 28 else f"{name}_{size}.npz"), **arrays)


def tiny_imagenet():
    ids = [f"n{10000000 + 7 * k}" for k in range(200)]
    with zipfile.ZipFile(file("tiny-imagenet", "tiny-imagenet-200.zip"), "w") as out:
        top = "tiny-imagenet-200"
        out.writestr(f"{top}/wnids.txt", "\n".join(reversed(ids)) + "\n")
        out.writestr(f"{top}/words.txt", "".join(f"{i}\tname {k}, other name\n" for k, i in enumerate(ids)))
        lines = []
        for k, i in enumerate(ids):
            out.writestr(f"{top}/train/{i}/{i}_boxes.txt", "")
            for j in range(3):
                out.writestr(f"{top}/train/{i}/images/{i}_{j}.JPEG", picture(k, (64, 64)))
            out.writestr(f"{top}/val/images/val_{k}.JPEG", picture(k, (64, 64)))
            lines.append(f"val_{k}.JPEG\t{i}\t0\t0\t63\t63\n")
        out.writestr(f"{top}/val/val_annotations.txt", "".join(reversed(lines)))


IMAGENETTE = "n01440764 n02102040 n02979186 n03000684 n03028079 n03394916 n03417042 n03425413 n03445777 n03888257".split()


def imagenette(name, archive, side):
    with tarfile.open(file(name, f"{archive}.tgz"), "w:gz") as tar:
        for k, i in enumerate(IMAGENETTE):
            for split, n in (("train", 30), ("val", 8)):
                for j in range(n):
                    add(tar, f"{archive}/{split}/{i}/{i}_{j}.JPEG", picture(k, (side + 13 * (j % 5), side)))


def class_folders(name, classes, train, val="val", size=(250, 188)):
    for k in range(classes):
        for split, n in (("train", train), (val, 1)):
            for j in range(n):
                file(name, split, f"n{20000000 + k:08d}", f"{j}.JPEG").write_bytes(picture(k, size))


def imagenet_parquet():
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = [f"class {k}" for k in range(1000)]
    features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
    for split, shards, n in (("train", 2, 1000), ("validation", 1, 1000)):
        for s in range(shards):
            data = [{"bytes": picture(k, (200 + k % 50, 160)), "path": f"{k}.JPEG"} for k in range(n)]
            image = pa.array(data, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
            table = pa.table({"image": image, "label": pa.array(range(n), pa.int64())})
            table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
            pq.write_table(table, file("imagenet", "data", f"{split}-{s:05d}-of-{shards:05d}.parquet"), row_group_size=100)


if __name__ == "__main__":
    mnist("mnist")
    mnist("fashion-mnist")
    cifar()
    svhn()
    for name in MEDMNIST:
        medmnist(name)
    medmnist("bloodmnist", 64)
    medmnist("breastmnist", 128)
    medmnist("dermamnist", 224)
    tiny_imagenet()
    imagenette("imagenette", "imagenette2-320", 320)
    imagenette("imagenette-160", "imagenette2-160", 160)
    class_folders("imagenet100", 100, 3)
    imagenet_parquet()
    class_folders("photos", 3, 100)
    class_folders("small", 3, 100, "test", (40, 36))
