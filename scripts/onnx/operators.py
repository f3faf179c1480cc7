"""Writes crates/onnx/tests/golden/operators.safetensors: one small network for each operator and each of its forms.

A network takes images [n, 3, 4, 6], applies the operator, flattens and multiplies with a matrix [m, 3]. For each case
the file holds the model's bytes, and the logits [2, 3] that onnxruntime gives for the images `x`.
"""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save_file

OUT = Path(__file__).resolve().parents[2] / "crates" / "onnx" / "tests" / "golden" / "operators.safetensors"
RNG = np.random.default_rng(0)
N, C, H, W = 2, 3, 4, 6
X = RNG.uniform(0.05, 0.95, (N, C, H, W)).astype(np.float32)


def floats(*shape, low=-1.0, high=1.0):
    return RNG.uniform(low, high, shape).astype(np.float32)


def ints(*values):
    return np.array(values, dtype=np.int64)


CASES = {}


def case(label, op, *inputs, opset=17, before=(), after=(), outputs=1, **attributes):
    """`op` of x (or of what `before` makes of it) and the constants `inputs` (None: left out)."""
    CASES[label] = (op, inputs, opset, before, after, outputs, attributes)


SCALE = [("Mul", [np.float32(4.0)]), ("Sub", [np.float32(2.0)])]  # to [-2, 2]
for name in """Abs Neg Exp Sqrt Reciprocal Log Identity""".split():
    case(name.lower(), name)
for name in """Erf Tanh Sin Cos Sigmoid Relu Softplus Softsign LeakyRelu Elu Selu Celu HardSigmoid HardSwish
ThresholdedRelu Floor Ceil Round Sign""".split():
    case(name.lower(), name, before=SCALE)
case("mish", "Mish", opset=18, before=SCALE)
case("gelu", "Gelu", opset=20, before=SCALE)
case("gelu-tanh", "Gelu", opset=20, before=SCALE, approximate="tanh")
case("leaky", "LeakyRelu", before=SCALE, alpha=0.2)
case("dropout", "Dropout", np.float32(0.5))
case("clip", "Clip", np.float32(0.3), np.float32(0.7))
case("clip-old", "Clip", opset=10, min=0.2, max=0.8)
case("clip-high", "Clip", None, np.float32(0.5))
case("prelu", "PRelu", floats(3, 1, 1), before=SCALE)
for name in ["Add", "Sub", "Mul", "Div"]:
    case(name.lower(), name, floats(1, 3, 1, 1, low=0.5, high=1.5))
    case(name.lower() + "-row", name, floats(6, low=0.5, high=1.5))
case("pow", "Pow", np.float32(2.0))
case("pow-half", "Pow", np.float32(1.5))
case("max", "Max", floats(1, 1, 4, 6, low=0, high=1))
case("min", "Min", floats(3, 4, 6, low=0, high=1), floats(1, low=0.5, high=0.8))
case("sum", "Sum", floats(4, 6), floats(1))
case("mean", "Mean", floats(4, 6), floats(1))
case("mod", "Mod", np.float32(0.3), fmod=1)
case("where", "Greater", np.float32(0.5), after=[("Where", ["x", np.float32(0.25)])])
case("less-not", "Less", np.float32(0.5), after=[("Not", []), ("Where", ["x", np.float32(-1.0)])])
case("equal-or", "LessOrEqual", np.float32(0.2), after=[("Or", [np.array(False)]), ("Cast", [], {"to": 1})])
case("conv", "Conv", floats(5, 3, 3, 3), floats(5), pads=[1, 1, 1, 1])
case("conv-stride", "Conv", floats(4, 3, 3, 3), strides=[2, 2], pads=[1, 1, 1, 1])
case("conv-uneven", "Conv", floats(4, 3, 3, 2), strides=[2, 1], pads=[0, 1, 1, 0])
case("conv-same", "Conv", floats(4, 3, 2, 2), auto_pad="SAME_UPPER")
case("conv-same-lower", "Conv", floats(4, 3, 2, 2), auto_pad="SAME_LOWER")
case("conv-dilated", "Conv", floats(4, 3, 2, 2), dilations=[2, 3])
case("conv-depthwise", "Conv", floats(3, 1, 3, 3), floats(3), group=3, pads=[1, 1, 1, 1])
case("conv-wide-pad", "Conv", floats(2, 3, 1, 1), pads=[2, 2, 2, 2])
case("conv-1d", "Reshape", ints(0, 3, 24), after=[("Conv", [floats(4, 3, 5), floats(4)], {"pads": [2, 2]})])
case("matmul", "MatMul", floats(6, 5))
case("matmul-stack", "MatMul", floats(3, 6, 2))
case("matmul-self", "Transpose", perm=[0, 1, 3, 2], after=[("MatMul", ["x"])])
case("gemm", "Flatten", after=[("Gemm", [floats(72, 5), floats(5)], {"alpha": 0.5, "beta": 2.0})])
case("gemm-turned", "Flatten", after=[("Gemm", [floats(5, 72), floats(1, 5)], {"transB": 1})])
case("einsum", "Einsum", floats(6, 5), equation="nchw,wk->nkhc")
case("einsum-heads", "Einsum", floats(3, 6, 2), equation="nchw,cwk->nchk")
case("batch-norm", "BatchNormalization", floats(3), floats(3), floats(3), floats(3, low=0.5, high=1.5))
case("instance-norm", "InstanceNormalization", floats(3), floats(3))
case("layer-norm", "LayerNormalization", floats(6), floats(6))
case("layer-norm-3", "LayerNormalization", floats(3, 4, 6), axis=1)
case("group-norm", "GroupNormalization", floats(4), floats(4), opset=21, num_groups=2,
     before=[("Conv", [floats(4, 3, 1, 1)])])
case("lp-norm", "LpNormalization", axis=1, p=2)
case("softmax", "Softmax", axis=1)
case("softmax-old", "Softmax", opset=11, axis=2)
case("log-softmax", "LogSoftmax")
case("max-pool", "MaxPool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
case("max-pool-ceil", "MaxPool", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)
case("max-pool-dilated", "MaxPool", kernel_shape=[2, 2], dilations=[2, 2])
case("average-pool", "AveragePool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
case("average-pool-counted", "AveragePool", kernel_shape=[2, 3], pads=[1, 1, 0, 1], count_include_pad=1)
case("average-pool-ceil", "AveragePool", opset=19, kernel_shape=[2, 4], strides=[2, 3], ceil_mode=1)
case("global-average", "GlobalAveragePool")
case("global-max", "GlobalMaxPool")
for name in ["Sum", "Mean", "Max", "Min", "Prod", "L1", "L2", "SumSquare", "LogSumExp"]:
    if name == "Sum":
        case("reduce-sum", "ReduceSum", ints(2, -1), keepdims=0)
    else:
        case(f"reduce-{name.lower()}", f"Reduce{name}", axes=[1, 3], keepdims=1)
case("reduce-mean-18", "ReduceMean", ints(2, 3), opset=18, keepdims=0)
case("reduce-all", "ReduceMean", ints(1, 2, 3), opset=18)
case("reshape", "Reshape", ints(0, 6, -1))
case("flatten", "Flatten", axis=2, after=[("Reshape", [ints(-1, 72)])])
case("squeeze", "Unsqueeze", ints(1, -1), after=[("Squeeze", [ints(1)])])
case("unsqueeze-old", "Unsqueeze", opset=11, axes=[0], after=[("Squeeze", [], {"axes": [0]})])
case("transpose", "Transpose", perm=[0, 3, 1, 2])
case("expand", "Unsqueeze", ints(2), after=[("Expand", [ints(1, 3, 2, 4, 6)])])
case("tile", "Tile", ints(1, 2, 1, 3))
case("slice", "Slice", ints(1, -1), ints(3, -100), ints(2, 3), ints(1, -2))
case("slice-old", "Slice", opset=9, starts=[1], ends=[-1], axes=[3])
case("gather", "Gather", ints(2, 0, 2), axis=1)
case("gather-one", "Gather", np.array(-1, dtype=np.int64), axis=3)
case("gather-elements", "GatherElements", RNG.integers(0, 4, (2, 3, 2, 6)), axis=2)
case("scatter-nd", "ScatterND", ints(0, 2, 1, 1).reshape(2, 2), floats(2, 4, 6))
case("scatter-nd-add", "ScatterND", ints(1, 1, 0, 0).reshape(2, 2), floats(2, 4, 6), reduction="add")
case("concat", "Concat", "x", floats(2, 3, 4, 6), axis=1)
case("split", "Split", ints(2, 4), outputs=2, axis=3, after=[("Concat", ["y1", "y0"], {"axis": 3, "alone": 1})])
case("split-even", "Split", opset=18, outputs=2, axis=2, num_outputs=2, after=[("Mul", ["y0", "y1"], {"alone": 1})])
case("pad", "Pad", ints(0, 0, 1, 2, 0, 1, 0, 1), np.float32(0.3))
case("pad-reflect", "Pad", ints(0, 0, 1, 2, 0, 0, 2, 1), mode="reflect")
case("pad-edge", "Pad", ints(0, 0, 1, 2, 0, 0, 2, 1), mode="edge")
case("pad-crop", "Pad", ints(0, 0, -1, 0, 0, 0, 0, -2))
case("depth-to-space", "DepthToSpace", blocksize=2, before=[("Conv", [floats(8, 3, 1, 1)])])
case("depth-to-space-crd", "DepthToSpace", blocksize=2, mode="CRD", before=[("Conv", [floats(8, 3, 1, 1)])])
case("space-to-depth", "SpaceToDepth", blocksize=2)
case("cumsum", "CumSum", np.array(2, dtype=np.int64))
case("cumsum-back", "CumSum", np.array(-1, dtype=np.int64), exclusive=1, reverse=1)
case("gather-nd", "GatherND", ints(0, 2, 1, 1, -1, 1).reshape(3, 2),
     before=[("Transpose", [], {"perm": [1, 2, 3, 0]})], after=[("Transpose", [], {"perm": [2, 0, 1]})])
case("gather-nd-batch", "GatherND", ints(0, 2, 1, 1, -1, 3).reshape(3, 2, 1), batch_dims=1,
     before=[("Transpose", [], {"perm": [1, 2, 0, 3]})], after=[("Transpose", [], {"perm": [2, 0, 1, 3]})])
case("trilu", "Trilu", np.array(1, dtype=np.int64), upper=0)
NONE = np.zeros(0, np.float32)
case("resize-nearest", "Resize", None, np.array([1, 1, 2, 1.5], np.float32))
case("resize-floor", "Resize", None, np.array([1, 1, 2, 0.5], np.float32), nearest_mode="floor",
     coordinate_transformation_mode="asymmetric")
case("resize-linear", "Resize", None, None, ints(2, 3, 7, 5), mode="linear")
case("resize-corners", "Resize", None, None, ints(2, 3, 8, 9), mode="linear",
     coordinate_transformation_mode="align_corners")
case("resize-cubic", "Resize", None, None, ints(2, 3, 7, 9), mode="cubic")
case("upsample", "Upsample", np.array([1, 1, 2, 2], np.float32), opset=9, mode="nearest")
case("shape-arithmetic", "Shape", after=[("Slice", [ints(0), ints(1)]), ("Concat", [ints(-1)], {"axis": 0}),
                                         ("Reshape", ["x", "y"], {"alone": 1})])
case("constant-of-shape", "Shape", after=[("ConstantOfShape", [], {"value": numpy_helper.from_array(floats(1))}),
                                          ("Mul", ["x"])])
case("range", "Size", after=[("Div", [ints(12)]), ("Range", [ints(0), "y", ints(1)], {"alone": 1}),
                             ("Slice", [ints(0), ints(6)]), ("CastLike", ["x"]), ("Mul", ["x"])])
case("logic", "GreaterOrEqual", np.float32(0.5),
     after=[("And", [np.array([True, False, True, True, True, False])]), ("Xor", [np.array([[True], [False], [False], [True]])]),
            ("Equal", [np.array(True)]), ("Where", ["x", np.float32(0.1)])])
case("cast-half", "Cast", to=10, after=[("Cast", [], {"to": 1})])
case("arg-max", "ArgMax", axis=1, after=[("Cast", [], {"to": 1}), ("Mul", ["x"])])
case("quantize", "QuantizeLinear", np.float32(0.02), np.array(10, np.uint8),
     after=[("DequantizeLinear", [np.float32(0.02), np.array(10, np.uint8)])])
case("quantize-signed", "QuantizeLinear", np.float32(0.01), np.array(0, np.int8), before=SCALE,
     after=[("DequantizeLinear", [np.float32(0.01), np.array(0, np.int8)])])
case("dequantize-axis", "Mul", np.float32(1.0),
     after=[("MatMul", ["q"])])
# Cases below draw nothing, so that the numbers of those above stay what they are.
TO_TEN = [("Pad", [ints(0, 0, 3, 2, 0, 0, 3, 2)])]  # 10x10
# ONNX's own inference of shapes, which a product with a matrix would meet, multiplies in f64: 6x22.
case("resize-rounded", "Resize", None, np.array([1, 1, 0.7, 2.3], np.float32), before=TO_TEN, nearest_mode="floor",
     coordinate_transformation_mode="asymmetric", after=[("GlobalAveragePool", [])])
case("resize-tie", "Resize", None, np.array([1, 1, 1.2, 1.2], np.float32), before=TO_TEN,
     nearest_mode="round_prefer_ceil", coordinate_transformation_mode="asymmetric")
case("resize-one-side", "Resize", None, np.array([1, 1, 1.2, 0.5], np.float32), mode="linear")
case("resize-old", "Resize", np.array([1, 1, 0.75, 0.4], np.float32), opset=10)
case("resize-old-larger", "Resize", np.array([1, 1, 1.5, 1.3], np.float32), opset=10)
case("resize-old-linear", "Resize", np.array([1, 1, 1.5, 0.7], np.float32), opset=10, mode="linear")
for policy in ["not_larger", "not_smaller"]:
    case("resize-" + policy.replace("_", "-"), "Resize", None, None, ints(7, 9), opset=18, axes=[2, 3],
         mode="linear", keep_aspect_ratio_policy=policy)
case("mod-floor", "Shape", after=[("Slice", [ints(1), ints(4)]), ("Mod", [ints(-5)]),
                                  ("Gather", ["x", "y"], {"axis": 3, "alone": 1})])
case("mod-truncated", "Shape", after=[("Slice", [ints(1), ints(4)]), ("Sub", [ints(8)]), ("Mod", [ints(3)], {"fmod": 1}),
                                      ("Gather", ["x", "y"], {"axis": 3, "alone": 1})])
case("dropout-mode", "Dropout", np.float32(0.5), np.array(False))


# Their constants hold for a batch of two only.
FIXED = {"concat", "resize-linear", "resize-corners", "resize-cubic", "gather-elements", "scatter-nd", "scatter-nd-add"}


def build(label):
    batch = N if label in FIXED else "n"
    op, inputs, opset, before, after, outputs, attributes = CASES[label]
    nodes, constants = [], []

    def name_of(value):
        if value is None:
            return ""
        if isinstance(value, str):
            return value
        constants.append(numpy_helper.from_array(np.asarray(value), f"c{len(constants)}"))
        return constants[-1].name

    def add(op, inputs, out, attributes):
        nodes.append(helper.make_node(op, inputs, out, name=f"{label}/{len(nodes)}", **attributes))

    current = "x"
    for index, step in enumerate(before):
        kind, more, options = (*step, {})[:3]
        add(kind, [current, *map(name_of, more)], [f"b{index}"], options)
        current = f"b{index}"
    if label == "dequantize-axis":
        q = RNG.integers(-100, 100, (6, 4)).astype(np.int8)
        add("DequantizeLinear", [name_of(q), name_of(floats(4, low=0.01, high=0.02)), name_of(np.zeros(4, np.int8))], ["q"], {"axis": 1})
    first = list(map(name_of, inputs))
    while first and first[-1] == "":
        first.pop()
    outs = ["y"] if outputs == 1 else [f"y{k}" for k in range(outputs)]
    add(op, [current, *first], outs, attributes)
    current = outs[0]
    for index, step in enumerate(after):
        kind, more, options = (*step, {})[:3]
        options = dict(options)
        alone = options.pop("alone", 0)
        given = list(map(lambda v: current if isinstance(v, str) and v == "y" else name_of(v), more))
        add(kind, given if alone else [current, *given], [f"a{index}"], options)
        current = f"a{index}"
    add("Flatten", [current], ["flat"], {"axis": 1})
    probe = helper.make_graph(nodes, label, [helper.make_tensor_value_info("x", 1, [batch, C, H, W])],
                              [helper.make_tensor_value_info("flat", TensorProto.FLOAT, None)], constants)
    width = run(helper.make_model(probe, opset_imports=[helper.make_opsetid("", opset)], ir_version=10), X).shape[1]
    add("MatMul", ["flat", name_of(floats(width, 3))], ["logits"], {})
    graph = helper.make_graph(nodes, label, [helper.make_tensor_value_info("x", 1, [batch, C, H, W])],
                              [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, 3])], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    return model.SerializeToString(), run(model, X)


def run(model, x):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


def main():
    values = {"x": X}
    for label in CASES:
        try:
            model, logits = build(label)
        except Exception as e:
            raise SystemExit(f"{label}: {e}")
        values[f"{label}.model"] = np.frombuffer(model, np.uint8).copy()
        values[f"{label}.logits"] = np.ascontiguousarray(logits)
    save_file(values, OUT)
    print(f"{len(CASES)} cases, {OUT.stat().st_size / 1024:.0f} KiB; onnx {onnx.__version__}, onnxruntime {onnxruntime.__version__}")


main()
