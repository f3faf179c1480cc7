"""Makes crates/onnx/tests/golden/one_output.safetensors: networks of two classes with one output, in the forms in which
such files come, with what onnxruntime says of them.

    python scripts/onnx/one_output.py        needs numpy, onnx, onnxruntime, safetensors
"""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save_file

ROOT = Path(__file__).resolve().parents[2]
rng = np.random.default_rng(7)
x = rng.uniform(0, 1, (9, 3, 4, 4)).astype(np.float32)
weights = rng.normal(0, 0.4, (48, 1)).astype(np.float32)
bias = np.float32([-(x.reshape(9, -1) @ weights).mean()])


def model(*nodes: tuple) -> bytes:
    """Flatten and Gemm, and then `nodes`: (operator, inputs beside the one before)."""
    chain = [("Flatten", ()), ("Gemm", ("w", "b")), *nodes]
    made, before = [], "x"
    for i, (operator, inputs) in enumerate(chain):
        after = "y" if i + 1 == len(chain) else f"t{i}"
        made.append(helper.make_node(operator, [before, *inputs], [after]))
        before = after
    constants = [("w", weights), ("b", bias), ("flat", np.int64([-1, 1]))]
    graph = helper.make_graph(
        made,
        "one_output",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 4, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 1])],
        [numpy_helper.from_array(value, name) for name, value in constants],
    )
    found = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(found)
    return found.SerializeToString()


tensors = {"x": x}
for label, nodes in {
    "logit": [],
    "sigmoid": [("Sigmoid", ())],
    "probability": [("Sigmoid", ()), ("Reshape", ("flat",))],
}.items():
    data = model(*nodes)
    values = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
    tensors[f"{label}.model"] = np.frombuffer(data, np.uint8).copy()
    tensors[f"{label}.values"] = values
save_file(tensors, ROOT / "crates/onnx/tests/golden/one_output.safetensors")
