"""Writes the networks of crates/onnx/tests/golden/operators.safetensors, one an operator, into a folder."""

import json
import pathlib
import sys

source = pathlib.Path(__file__).parents[2] / "crates/onnx/tests/golden/operators.safetensors"
data, folder = source.read_bytes(), pathlib.Path(sys.argv[1])
length = int.from_bytes(data[:8], "little")
for name, tensor in json.loads(data[8 : 8 + length]).items():
    if name.endswith(".model"):
        start, end = (8 + length + offset for offset in tensor["data_offsets"])
        (folder / f"{name[:-6].replace('/', '_')}.onnx").write_bytes(data[start:end])
