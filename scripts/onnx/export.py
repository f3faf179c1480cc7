"""Exports networks of torchvision and timm to ONNX with values to hold an importer against.

    python scripts/onnx/export.py FOLDER [NAME ...]

For each network FOLDER gets NAME.onnx and NAME.safetensors: images `x` [n, c, h, w] in [0, 1], `logits` of
onnxruntime, a `cotangent` [n, k], and `grad`, PyTorch's gradient of sum(cotangent * logits) for x.
Weights are random (seed 0), running statistics too, so that every layer matters. The images are the first of some
seeds for which PyTorch's gradients in f32 and f64 agree to 1e-5: elsewhere a value lies so near a kink of ReLU that
rounding decides on which side.
Forms, as in NAME@small@opset11:
    smooth    SiLU in place of ReLU, means in place of largest values: deep networks with random weights have kinks that
              rounding falls on either side of
    small     images of 64x64
    fixed     a fixed batch of two images
    opsetN    the TorchScript exporter with opset N (up to 17); from 18 on the newer exporter
    data      weights in a file beside (external data)
    int8      quantise-dequantise form of onnxruntime's static quantisation; no gradient is compared
"""

import copy
import sys
import warnings
from pathlib import Path

import numpy as np
import onnxruntime
import onnxruntime.quantization as quantization
import timm
import torch
import torchvision
from safetensors.numpy import save_file

TORCHVISION = """resnet18 wide_resnet50_2 resnext50_32x4d densenet121 efficientnet_b0 efficientnet_v2_s mobilenet_v2
mobilenet_v3_small convnext_tiny vit_b_32 swin_t swin_v2_t regnet_y_400mf regnet_x_400mf vgg11_bn squeezenet1_1
shufflenet_v2_x0_5 mnasnet0_5 googlenet inception_v3 alexnet maxvit_t""".split()
TIMM = """mixer_s32_224 vit_tiny_patch16_224 deit_tiny_distilled_patch16_224 resmlp_12_224 gmlp_ti16_224 poolformer_s12
levit_128s xcit_nano_12_p16_224 cait_xxs24_224 pit_ti_224 convmixer_768_32 seresnet18 ghostnet_050 mobilevit_xxs
repvgg_a0 coat_lite_tiny nf_resnet26 efficientformer_l1 crossvit_tiny_240 edgenext_xx_small""".split()
OWN = ["wideresnet_28_4", "preact_resnet18"]
FORMS = """resnet18@small@opset11 resnet18@small@opset13 resnet18@small@opset17 resnet18@small@opset21
mobilenet_v3_small@small@opset12 vit_tiny_patch16_224@opset14 beit_base_patch16_224@opset17 shufflenet_v2_x0_5@small@fixed
resnet18@small@data resnet18@small@int8 mobilenet_v2@small@int8 densenet121@smooth resnext50_32x4d@smooth
wide_resnet50_2@smooth googlenet@smooth inception_v3@smooth""".split()
SIZES = {"wideresnet_28_4": 32, "preact_resnet18": 32, "inception_v3": 299, "crossvit_tiny_240": 240, "mobilevit_xxs": 256, "edgenext_xx_small": 256, "swin_v2_t": 256}


class Block(torch.nn.Module):
    """Pre-activation block, as the WideResNets of the robustness literature have it."""

    def __init__(self, inside, outside, stride):
        super().__init__()
        self.bn1, self.bn2 = torch.nn.BatchNorm2d(inside), torch.nn.BatchNorm2d(outside)
        self.relu = torch.nn.ReLU()
        self.conv1 = torch.nn.Conv2d(inside, outside, 3, stride, 1, bias=False)
        self.conv2 = torch.nn.Conv2d(outside, outside, 3, 1, 1, bias=False)
        self.shortcut = None if inside == outside else torch.nn.Conv2d(inside, outside, 1, stride, bias=False)

    def forward(self, x):
        y = self.relu(self.bn1(x))
        shortcut = x if self.shortcut is None else self.shortcut(y)
        return shortcut + self.conv2(self.relu(self.bn2(self.conv1(y))))


class PreActivation(torch.nn.Module):
    """Normalisation inside, three or four stages of blocks, mean over the image."""

    def __init__(self, widths, blocks):
        super().__init__()
        self.register_buffer("mean", torch.tensor([0.4914, 0.4822, 0.4465]).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor([0.2471, 0.2435, 0.2616]).view(1, 3, 1, 1))
        layers = [torch.nn.Conv2d(3, widths[0], 3, 1, 1, bias=False)]
        for stage, (inside, outside) in enumerate(zip(widths, widths[1:])):
            for k in range(blocks):
                layers.append(Block(outside if k else inside, outside, 2 if stage and not k else 1))
        self.layers = torch.nn.Sequential(*layers, torch.nn.BatchNorm2d(widths[-1]), torch.nn.ReLU())
        self.head = torch.nn.Linear(widths[-1], 10)

    def forward(self, x):
        x = self.layers((x - self.mean) / self.std)
        return self.head(torch.nn.functional.adaptive_avg_pool2d(x, 1).flatten(1))


def build(name):
    torch.manual_seed(0)
    if name == "wideresnet_28_4":
        model = PreActivation([16, 64, 128, 256], 4)
    elif name == "preact_resnet18":
        model = PreActivation([64, 64, 128, 256, 512], 2)
    elif name in TORCHVISION:
        more = {"aux_logits": False} if name in ("googlenet", "inception_v3") else {}
        model = getattr(torchvision.models, name)(weights=None, **more)
    else:
        model = timm.create_model(name, pretrained=False)
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
        if isinstance(module, torch.nn.Linear) and not module.weight.any():
            # A head that starts at zero has neither logits nor gradients.
            torch.nn.init.normal_(module.weight, 0, 0.05, generator=generator)
    return model.eval()


def smooth(model):
    """SiLU for ReLU and means for largest values, as modules and as functions (for good: smooth forms come last)."""
    functional = torch.nn.functional
    functional.relu = lambda x, inplace=False: functional.silu(x)
    functional.max_pool2d = functional.avg_pool2d
    for name, child in model.named_children():
        if isinstance(child, (torch.nn.ReLU, torch.nn.ReLU6)):
            setattr(model, name, torch.nn.SiLU())
        elif isinstance(child, torch.nn.MaxPool2d):
            pool = torch.nn.AvgPool2d(child.kernel_size, child.stride, child.padding, child.ceil_mode)
            setattr(model, name, pool)
        else:
            smooth(child)


def logits_of(model, x):
    out = model(x)
    return out[0] if isinstance(out, tuple) else out


def gradient(model, x, cotangent):
    leaf = x.clone().requires_grad_()
    return torch.autograd.grad((logits_of(model, leaf) * cotangent).sum(), leaf)[0]


def images(model, size):
    precise = copy.deepcopy(model).double()
    best = None
    for seed in range(2, 12):
        x = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(seed))
        shape = logits_of(model, x[:1]).shape
        cotangent = torch.randn(2, shape[1], generator=torch.Generator().manual_seed(3))
        grad, exact = gradient(model, x, cotangent), gradient(precise, x.double(), cotangent.double())
        gap = float((grad - exact).abs().max() / exact.abs().max())
        if best is None or gap < best[0]:
            best = gap, x, cotangent, exact.float()
        if gap < 1e-5:
            break
    print(f"  gradients in f32 and f64 differ by {best[0]:.1e} (seed {seed})", flush=True)
    return best[1:]


def write(model, x, path, forms):
    """The ONNX file of a form; the number of the opset is the form's."""
    options = {"input_names": ["image"], "output_names": ["logits"]}
    opset = next((int(form[5:]) for form in forms if form.startswith("opset")), 18)
    if opset < 18:
        torch.onnx.export(model, (x,), path, dynamo=False, opset_version=opset,
                          dynamic_axes={"image": {0: "n"}, "logits": {0: "n"}}, **options)
    else:
        shapes = None if "fixed" in forms else ({0: torch.export.Dim("n", min=1, max=512)},)
        torch.onnx.export(model, (x,), path, dynamo=True, opset_version=opset, external_data="data" in forms,
                          dynamic_shapes=shapes, **options)


class Calibration(quantization.CalibrationDataReader):
    """Images that ranges are measured on."""

    def __init__(self, name, x):
        self.batches = iter([{name: x.numpy()}])

    def get_next(self):
        return next(self.batches, None)


def quantise(path, x):
    """Replaces a file by its quantise-dequantise form."""
    name = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).get_inputs()[0].name
    plain = path.with_suffix(".plain")
    path.rename(plain)
    quantization.quantize_static(plain, path, Calibration(name, x), quant_format=quantization.QuantFormat.QDQ)
    plain.unlink()


def export(folder, label):
    name, *forms = label.split("@")
    model = build(name)
    if "smooth" in forms:
        smooth(model)
    size = 64 if "small" in forms else SIZES.get(name, 224)
    x, cotangent, grad = images(model, size)
    path = folder / f"{label}.onnx"
    write(model, x, path, forms)
    settings = onnxruntime.SessionOptions()
    if "int8" in forms:
        quantise(path, x)
        # Without fusing: as the file says, in f32.
        settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(path, settings, providers=["CPUExecutionProvider"])
    logits = session.run(None, {session.get_inputs()[0].name: x.numpy()})[0]
    out = logits_of(model, x)
    gap = float(np.abs(logits - out.detach().numpy()).max() / np.abs(logits).max())
    values = {"x": x.numpy(), "logits": logits, "cotangent": cotangent.numpy()}
    if "int8" not in forms:
        values["grad"] = grad.numpy()
    save_file({key: np.ascontiguousarray(value) for key, value in values.items()}, folder / f"{label}.safetensors")
    print(f"{label}: {path.stat().st_size / 2**20:.1f} MiB, onnxruntime and PyTorch differ by {gap:.1e}", flush=True)


def main():
    warnings.filterwarnings("ignore")
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for label in sys.argv[2:] or TORCHVISION + TIMM + OWN + FORMS:
        try:
            export(folder, label)
        except Exception as e:  # an exporter that fails says nothing of the importer
            print(f"{label}: not exported: {str(e).splitlines()[0][:150]}", flush=True)


main()
