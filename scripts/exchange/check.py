#!/usr/bin/env python3
"""check.py FOLDER: holds PyTorch and onnxruntime against the logits of `sora export --samples`, for every run in the folder.

The exported weights are loaded by networks.py, and by torchvision and timm where they have the same network. Needs torch, safetensors, onnx and
onnxruntime; timm and torchvision are used if they are there. Prints the largest difference, relative to the largest logit.
"""

import json
import sys
from pathlib import Path

import numpy
import onnx
import onnxruntime
import torch
from safetensors import safe_open
from safetensors.torch import load_file

import networks

TORCH, ONNX = 1e-5, 1e-4


def public(about, weights):
    """The network of torchvision or timm with these weights, or None."""
    name, width, shape = about["name"], about["width"], about["shape"]
    options = about.get("options", {})
    if options.get("activation") not in (None, "relu", "gelu"):
        return None, None
    try:
        if name.startswith("vit"):
            import timm

            heads = {"vit-tiny": 3, "vit-small": 6}[name]
            model = timm.models.VisionTransformer(
                img_size=shape["height"],
                patch_size=options["patch"],
                embed_dim=width,
                num_heads=heads,
                num_classes=shape["classes"],
            )
            return "timm", model
        import torchvision

        if name == "resnet18" and options.get("stem") == "imagenet":
            # torchvision's class has a width for bottlenecks only; its layers are made narrow one by one.
            model = torchvision.models.resnet18(num_classes=shape["classes"])
            if model.conv1.weight.shape != weights["conv1.weight"].shape:
                narrow(model, weights)
            return "torchvision", model
        if name == "vgg16-bn" and shape["height"] >= 96:
            model = torchvision.models.vgg16_bn(num_classes=shape["classes"])
            narrow(model, weights)
            return "torchvision", model
    except ImportError:
        pass
    return None, None


def narrow(model, weights):
    """Makes every layer of `model` as wide as the weights are."""
    for name, module in model.named_modules():
        weight = weights.get(f"{name}.weight")
        if weight is None:
            continue
        empty = lambda key: torch.nn.Parameter(torch.empty_like(weights[key])) if key in weights else None
        module.weight, module.bias = empty(f"{name}.weight"), empty(f"{name}.bias")
        if isinstance(module, torch.nn.BatchNorm2d):
            module.num_features = len(weight)
            module.running_mean, module.running_var = torch.zeros(len(weight)), torch.ones(len(weight))
        elif isinstance(module, torch.nn.Conv2d):
            module.out_channels, module.in_channels = weight.shape[:2]


def gap(found, expected):
    return float(numpy.abs(found - expected).max() / numpy.abs(expected).max())


def main():
    torch.set_num_threads(1)
    bad = 0
    paths = sorted(Path(sys.argv[1]).glob("*/export/model.safetensors"))
    if not paths:
        sys.exit(f"check.py: {sys.argv[1]}: no run with an export/model.safetensors; scripts/check_models.sh leaves such")
    for path in paths:
        samples = load_file(f"{path}.samples.safetensors")
        images, logits = samples["images"], samples["logits"].numpy()
        model = networks.load(path).eval()
        with torch.no_grad():
            in_torch = gap(model(images).numpy(), logits)
        with safe_open(path, "pt") as file:
            about = json.loads(file.metadata()["sora"])["network"]
        weights = load_file(path)
        source, other = public(about, weights)
        known = ""
        if other is not None:
            other.load_state_dict(weights)
            wrapped = networks.Normalised(other, about["mean"], about["std"]).eval()
            with torch.no_grad():
                difference = gap(wrapped(images).numpy(), logits)
            known = f"  {source} {difference:.1e}"
            bad += difference > TORCH
        graph = str(path.with_suffix(".onnx"))
        onnx.checker.check_model(graph, full_check=True)
        session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
        outputs = [session.run(None, {"images": images[:n].numpy()})[0] for n in (len(images), 1)]
        in_onnx = max(gap(outputs[0], logits), gap(outputs[1], logits[:1]))
        bad += in_torch > TORCH or in_onnx > ONNX
        print(f"{path.parents[1].name:24} torch {in_torch:.1e}  onnxruntime {in_onnx:.1e}{known}", flush=True)
    print("all within 1e-5 (torch) and 1e-4 (onnxruntime)" if not bad else f"{bad} beyond the limits")
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main())
