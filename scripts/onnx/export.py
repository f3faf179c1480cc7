"""Exports networks of torchvision and timm to ONNX with values to hold an importer against.

    python scripts/onnx/export.py FOLDER [NAME ...]

For each network FOLDER gets NAME.onnx and NAME.safetensors: images `x` [n, c, h, w] in [0, 1], `logits` of
onnxruntime, a `cotangent` [n, k], and `grad`, PyTorch's gradient of sum(cotangent * logits) for x.
Weights are random (seed 0), running statistics too, so that every layer matters. The images are the first of some
seeds for which PyTorch's gradients in f32 and f64 agree to 1e-5: elsewhere a value lies so near a kink of ReLU that
rounding decides on which side.
NAME@old uses the TorchScript exporter and opset 13, NAME@fixed a fixed batch, NAME@small 64x64 images, NAME@smooth
has SiLU in place of ReLU: deep ReLU networks with random weights have kinks that rounding falls on either side of.
"""

import copy
import sys
import warnings
from pathlib import Path

import numpy as np
import onnxruntime
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
SIZES = {"inception_v3": 299, "crossvit_tiny_240": 240, "mobilevit_xxs": 256, "edgenext_xx_small": 256, "swin_v2_t": 256}


def build(name):
    torch.manual_seed(0)
    if name in TORCHVISION:
        more = {"aux_logits": False} if name in ("googlenet", "inception_v3") else {}
        model = getattr(torchvision.models, name)(weights=None, **more)
    else:
        model = timm.create_model(name, pretrained=False)
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
    return model.eval()


def smooth(model):
    for name, child in model.named_children():
        if isinstance(child, (torch.nn.ReLU, torch.nn.ReLU6)):
            setattr(model, name, torch.nn.SiLU())
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


def export(folder, label):
    name, _, form = label.partition("@")
    model = build(name)
    if form == "smooth":
        smooth(model)
    size = 64 if form == "small" else SIZES.get(name, 224)
    x, cotangent, grad = images(model, size)
    path = folder / f"{label}.onnx"
    options = {"input_names": ["image"], "output_names": ["logits"]}
    if form == "old":
        torch.onnx.export(model, (x,), path, dynamo=False, opset_version=13,
                          dynamic_axes={"image": {0: "n"}, "logits": {0: "n"}}, **options)
    elif form == "fixed":
        torch.onnx.export(model, (x,), path, dynamo=True, opset_version=18, external_data=False, **options)
    else:
        torch.onnx.export(model, (x,), path, dynamo=True, opset_version=18, external_data=False,
                          dynamic_shapes=({0: torch.export.Dim("n", min=1, max=512)},), **options)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    logits = session.run(None, {session.get_inputs()[0].name: x.numpy()})[0]
    out = logits_of(model, x)
    gap = float(np.abs(logits - out.detach().numpy()).max() / np.abs(logits).max())
    values = {"x": x.numpy(), "logits": logits, "cotangent": cotangent.numpy(), "grad": grad.numpy()}
    save_file({key: np.ascontiguousarray(value) for key, value in values.items()}, folder / f"{label}.safetensors")
    print(f"{label}: {path.stat().st_size / 2**20:.1f} MiB, onnxruntime and PyTorch differ by {gap:.1e}", flush=True)


def main():
    warnings.filterwarnings("ignore")
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for label in sys.argv[2:] or TORCHVISION + TIMM:
        try:
            export(folder, label)
        except Exception as e:  # an exporter that fails says nothing of the importer
            print(f"{label}: not exported: {str(e).splitlines()[0][:150]}", flush=True)


main()
