"""Makes crates/onnx/tests/golden/small.safetensors: small networks as PyTorch's exporters write them, with onnxruntime's
logits and PyTorch's gradients (in f64) for the images and for the weights.

    python scripts/onnx/small.py        needs numpy, onnx, onnxruntime, onnxscript, safetensors, torch

For each network NAME the file has NAME.model (the ONNX file), NAME.logits (onnxruntime), NAME.grad and
NAME.grad.WEIGHT: gradients of sum(cotangent * logits) for `x` and for the weights that keep their name in the file.
"""

import copy
import io
import tempfile
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnxruntime import quantization
from safetensors.numpy import save_file
from torch import nn
from torch.nn import functional

OUT = Path(__file__).resolve().parents[2] / "crates" / "onnx" / "tests" / "golden" / "small.safetensors"
CLASSES, SIDE = 10, 16


class Convolutions(nn.Module):
    """Convolution, batch norm, ReLU, pooling, a fully connected layer; exporters fold the batch norms."""

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 8, 3, 1, 1, bias=False), nn.BatchNorm2d(8)
        self.conv2, self.bn2 = nn.Conv2d(8, 12, 3, 2, 1, bias=False), nn.BatchNorm2d(12)
        self.head = nn.Linear(12 * 16, CLASSES)

    def forward(self, x):
        x = functional.max_pool2d(functional.relu(self.bn1(self.conv1(x))), 2)
        return self.head(functional.relu(self.bn2(self.conv2(x))).flatten(1))


class PreActivation(nn.Module):
    """Normalisation inside, a block whose batch norms come before the convolutions, mean over the image."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.tensor([0.4914, 0.4822, 0.4465]).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor([0.2471, 0.2435, 0.2616]).view(1, 3, 1, 1))
        self.conv0 = nn.Conv2d(3, 8, 3, 1, 1, bias=False)
        self.bn1, self.conv1 = nn.BatchNorm2d(8), nn.Conv2d(8, 12, 3, 2, 1, bias=False)
        self.shortcut = nn.Conv2d(8, 12, 1, 2, bias=False)
        self.bn2, self.conv2 = nn.BatchNorm2d(12), nn.Conv2d(12, 12, 3, 1, 1, bias=False)
        self.bn3, self.head = nn.BatchNorm2d(12), nn.Linear(12, CLASSES)

    def forward(self, x):
        x = functional.relu(self.bn1(self.conv0((x - self.mean) / self.std)))
        x = self.shortcut(x) + self.conv2(functional.relu(self.bn2(self.conv1(x))))
        return self.head(functional.adaptive_avg_pool2d(functional.relu(self.bn3(x)), 1).flatten(1))


class Depthwise(nn.Module):
    """An inverted residual with a gate, group norm, a learned slope, and a convolution as the head."""

    def __init__(self):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, 2, 1), nn.GroupNorm(2, 8)
        self.wide, self.depth = nn.Conv2d(8, 16, 1), nn.Conv2d(16, 16, 3, 1, 1, groups=16)
        self.squeeze, self.excite = nn.Conv2d(16, 4, 1), nn.Conv2d(4, 16, 1)
        self.narrow, self.slope = nn.Conv2d(16, 8, 1), nn.PReLU(8)
        self.head = nn.Conv2d(8, CLASSES, 1)

    def forward(self, x):
        x = self.slope(self.norm(self.stem(x)))
        y = functional.hardswish(self.depth(functional.hardswish(self.wide(x))))
        gate = functional.hardsigmoid(self.excite(functional.relu(self.squeeze(y.mean((2, 3), keepdim=True)))))
        return self.head(x + self.narrow(y * gate)).mean((2, 3))


class Transformer(nn.Module):
    """Patches, a class token, positions, a block of attention and GELU, layer norms."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 4, 4)
        self.token, self.position = nn.Parameter(torch.randn(1, 1, 16)), nn.Parameter(torch.randn(1, 17, 16))
        self.norm1, self.qkv, self.out = nn.LayerNorm(16), nn.Linear(16, 48), nn.Linear(16, 16)
        self.norm2, self.mlp1, self.mlp2 = nn.LayerNorm(16), nn.Linear(16, 32), nn.Linear(32, 16)
        self.norm3, self.head = nn.LayerNorm(16), nn.Linear(16, CLASSES)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.position
        q, k, v = self.qkv(self.norm1(x)).reshape(x.shape[0], 17, 3, 2, 8).permute(2, 0, 3, 1, 4)
        attention = ((q @ k.transpose(-2, -1)) * 8**-0.5).softmax(-1)
        x = x + self.out((attention @ v).transpose(1, 2).reshape(x.shape[0], 17, 16))
        x = x + self.mlp2(functional.gelu(self.mlp1(self.norm2(x))))
        return self.head(self.norm3(x)[:, 0])


class Standardised(nn.Module):
    """A convolution whose weights are standardised in the graph (NF-Nets, BiT)."""

    def __init__(self):
        super().__init__()
        self.weight, self.gain = nn.Parameter(torch.randn(8, 3, 3, 3)), nn.Parameter(torch.ones(8, 1, 1, 1))
        self.head = nn.Linear(8, CLASSES, bias=False)

    def forward(self, x):
        mean = self.weight.mean((1, 2, 3), keepdim=True)
        var = self.weight.var((1, 2, 3), keepdim=True, unbiased=False)
        weight = (self.weight - mean) / torch.sqrt(var * 27 + 1e-4) * self.gain
        return self.head(functional.silu(functional.conv2d(x, weight, stride=2, padding=1)).mean((2, 3)))


class Calibration(quantization.CalibrationDataReader):
    """Images that ranges are measured on."""

    def __init__(self, x):
        self.batches = iter([{"image": x.numpy()}])

    def get_next(self):
        return next(self.batches, None)


# The network, the opset (up to 17: the TorchScript exporter) and whether the batch is fixed.
CASES = {
    "convolutions": (Convolutions, 13, False),
    "pre-activation": (PreActivation, 17, False),
    "pre-activation-fixed": (PreActivation, 11, True),
    "depthwise": (Depthwise, 18, False),
    "transformer": (Transformer, 18, False),
    "transformer-old": (Transformer, 14, False),
    "standardised": (Standardised, 17, False),
    "quantised": (Convolutions, 13, False),
}


def build(kind):
    torch.manual_seed(0)
    model = kind()
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
        if isinstance(module, (nn.BatchNorm2d, nn.LayerNorm, nn.GroupNorm)):
            # Exporters write tensors of the same values once.
            nn.init.uniform_(module.weight, 0.5, 1.5, generator=generator)
            nn.init.normal_(module.bias, 0, 0.2, generator=generator)
    return model.eval()


def export(model, x, opset, fixed, fold):
    names = {"input_names": ["image"], "output_names": ["logits"], "opset_version": opset}
    if opset >= 18:
        shapes = None if fixed else ({0: torch.export.Dim("n", min=1, max=512)},)
        made = torch.onnx.export(model, (x,), dynamo=True, dynamic_shapes=shapes, verbose=False, **names)
        return made.model_proto.SerializeToString()
    axes = None if fixed else {"image": {0: "n"}, "logits": {0: "n"}}
    buffer = io.BytesIO()
    torch.onnx.export(model, (x,), buffer, dynamo=False, dynamic_axes=axes, do_constant_folding=fold, **names)
    return buffer.getvalue()


def quantise(data, x):
    with tempfile.TemporaryDirectory() as folder:
        plain, out = Path(folder) / "plain.onnx", Path(folder) / "out.onnx"
        plain.write_bytes(data)
        quantization.quantize_static(plain, out, Calibration(x), quant_format=quantization.QuantFormat.QDQ)
        return out.read_bytes()


def slim(data):
    """Without what exporters write for debugging."""
    model = onnx.load_from_string(data)
    model.graph.doc_string = ""
    del model.graph.value_info[:], model.metadata_props[:], model.graph.metadata_props[:]
    for node in model.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    return model.SerializeToString()


def main():
    warnings.filterwarnings("ignore")
    x = torch.rand(4, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(2))
    cotangent = torch.randn(4, CLASSES, generator=torch.Generator().manual_seed(3))
    values = {"x": x.numpy(), "cotangent": cotangent.numpy()}
    for name, (kind, opset, fixed) in CASES.items():
        model = build(kind)
        data = slim(export(model, x, opset, fixed, fold=kind is not Standardised))
        settings = onnxruntime.SessionOptions()
        if name == "quantised":
            data = slim(quantise(data, x))
            settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        session = onnxruntime.InferenceSession(data, settings, providers=["CPUExecutionProvider"])
        values[f"{name}.model"] = np.frombuffer(data, np.uint8).copy()
        values[f"{name}.logits"] = session.run(None, {"image": x.numpy()})[0]
        if name == "quantised":
            continue
        exact = copy.deepcopy(model).double()
        leaf = x.double().requires_grad_()
        (exact(leaf) * cotangent.double()).sum().backward()
        values[f"{name}.grad"] = leaf.grad.float().numpy()
        kept = {tensor.name for tensor in onnx.load_from_string(data).graph.initializer}
        for weight, parameter in exact.named_parameters():
            if weight in kept and not (name == "convolutions" and weight.startswith("conv")):
                values[f"{name}.grad.{weight}"] = parameter.grad.float().numpy().copy()
        count = sum(key.startswith(f"{name}.grad.") for key in values)
        print(f"{name}: {len(data) / 1024:.0f} KiB, {count} of {len(list(exact.parameters()))} weights keep their name")
    save_file({key: np.ascontiguousarray(value) for key, value in values.items()}, OUT)
    print(f"{OUT.stat().st_size / 1024:.0f} KiB")


main()
