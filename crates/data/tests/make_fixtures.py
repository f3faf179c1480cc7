"""Makes the small files of tests/fixtures: python make_fixtures.py.

Needs numpy, scipy, pyarrow, torch, torchvision and Pillow 11.3: version 13 resizes columns before rows where that is less work, which
changes bytes by 1.
"""

import pickle
from pathlib import Path

import numpy as np

out = Path(__file__).parent / "fixtures"
out.mkdir(exist_ok=True)

# A CIFAR batch as NumPy writes it today, for each way in which Python 3 writes bytes.
batch = {"labels": [7, 9], "data": np.array([[1, 2, 200], [4, 5, 255]], np.uint8), "filenames": [b"a.png"]}
for protocol in (2, 4, 5):
    (out / f"batch_protocol{protocol}.pkl").write_bytes(pickle.dumps(batch, protocol))

# SVHN: two images of 32 x 32, channel c, row y, column x: 100 i + 50 c + y - x; labels 10 (digit 0) and 3.
from scipy.io import savemat

y, x, c, i = np.meshgrid(np.arange(32), np.arange(32), np.arange(3), np.arange(2), indexing="ij")
arrays = {"X": ((100 * i + 50 * c + y - x) % 256).astype(np.uint8), "y": np.array([[10], [3]], np.uint8)}
savemat(out / "svhn.mat", arrays, do_compression=True)
savemat(out / "svhn_plain.mat", arrays, do_compression=False)

# Hugging Face shards: PNG files of one colour in small row groups and pages, class names in the metadata.
import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image


def png(value, size=(10, 8)):
    file = io.BytesIO()
    Image.new("RGB", size, (value, value, value)).save(file, "PNG")
    return file.getvalue()


def shard(name, values, labels, named=True, **options):
    table = pa.table(
        {
            "image": pa.array([{"bytes": png(v), "path": f"{v}.png"} for v in values], pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
            "label": pa.array(labels, pa.int64()),
        }
    )
    if named:
        features = {"image": {"_type": "Image"}, "label": {"names": ["ant", "bee", "wasp"], "_type": "ClassLabel"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, out / name, **options)


shard("train-00000-of-00001.parquet", [10 * i for i in range(7)], [i % 3 for i in range(7)], row_group_size=3, data_page_size=64, write_batch_size=1)
shard("validation-00000-of-00001.parquet", [200, 201], [0, 2], use_dictionary=False, data_page_version="2.0")

# Labels from 1 on, without names.
shard("from_one.parquet", [10, 20, 30], [1, 3, 2], named=False)
# Of the names' classes the first has no image; and labels that count from 1 beside the names.
shard("named_first_missing.parquet", [10, 20, 30], [1, 2, 1])
shard("named_from_one.parquet", [10, 20, 30], [1, 3, 2])
# A class number that would ask for as many names.
shard("huge_label.parquet", [10, 20, 30], [0, 1, 10_000_000], named=False)
# A small file with many rows: one image and one label again and again.
one = pa.array([{"bytes": b"", "path": None}], pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
many = pa.table({"image": pa.concat_arrays([one]).take(pa.array(np.zeros(200_000, np.int32))), "label": pa.array(np.zeros(200_000, np.int64))})
pq.write_table(many, out / "many_rows.parquet")

# Augmentation: torchvision's results on given draws, of an image made by a formula. One line of numbers a case.
import torch
from torchvision.transforms import functional as F
from torchvision.transforms import InterpolationMode as I


def picture(height, width):
    """Byte at (row y, column x, channel c): a pattern with sharp and smooth parts."""
    y, x, c = np.meshgrid(np.arange(height), np.arange(width), np.arange(3), indexing="ij")
    return ((7 * y * y + 13 * x * (c + 1) + 31 * ((x // 5 + y // 3) % 2) * (c + 2)) % 256).astype(np.uint8)


def crc(array):
    import zlib

    return zlib.crc32(np.ascontiguousarray(array, np.uint8).tobytes())


lines = []
# Pillow's resize through torchvision, exact bytes: Resize + CenterCrop, and resized crops of windows.
for height, width, side, crop in [(50, 37, 32, 28), (37, 50, 32, 28), (64, 64, 37, 32), (20, 31, 64, 56), (375, 500, 256, 224), (500, 333, 256, 224), (33, 33, 33, 30)]:
    image = F.center_crop(F.resize(Image.fromarray(picture(height, width)), side, I.BILINEAR), crop)
    lines.append(f"fit {height} {width} {side} {crop} : {crc(np.array(image))} {' '.join(str(v) for v in np.array(image)[:2, :4].ravel())}")
for height, width, top, left, h, w, size in [(50, 37, 3, 5, 40, 30, 24), (50, 37, 0, 0, 50, 37, 24), (50, 37, 10, 11, 7, 9, 24), (120, 160, 17, 20, 100, 61, 32), (375, 500, 100, 7, 200, 300, 224)]:
    image = F.resized_crop(Image.fromarray(picture(height, width)), top, left, h, w, [size, size], I.BILINEAR)
    lines.append(f"window {height} {width} {top} {left} {h} {w} {size} : {crc(np.array(image))} {' '.join(str(v) for v in np.array(image)[:2, :4].ravel())}")
# Tensors in [0, 1]: pad and crop, flip, window of an image in memory, rotation, cutout; values at every 11th place.
image = torch.tensor(picture(14, 14)).permute(2, 0, 1).float() / 255


def values(name, result):
    lines.append(f"{name} : " + " ".join(f"{v:.6f}" for v in result.flatten()[::11].tolist()))


for dy, dx, flip in [(0, 0, 0), (-4, 3, 0), (2, -1, 1), (4, 4, 1)]:
    result = F.crop(F.pad(image, [4]), 4 + dy, 4 + dx, 14, 14)
    values(f"crop {dy} {dx} {flip}", F.hflip(result) if flip else result)
for top, left, h, w, flip in [(2, 3, 9, 7, 0), (0, 0, 14, 14, 1), (5, 1, 3, 12, 1)]:
    result = F.resized_crop(image, top, left, h, w, [14, 14], I.BILINEAR, antialias=False)
    values(f"inner {top} {left} {h} {w} {flip}", F.hflip(result) if flip else result)
for angle in (10.0, -7.5, 3.25, 90.0, 33.0):
    values(f"rotate {angle}", F.rotate(image, angle, I.BILINEAR))
for top, left, h, w in [(0, 0, 4, 5), (6, 9, 8, 5)]:
    values(f"cutout {top} {left} {h} {w}", F.erase(image, top, left, h, w, torch.tensor(0.0)))
(out / "augment.txt").write_text("\n".join(lines) + "\n")
