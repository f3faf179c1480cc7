"""The networks of `sora models` in PyTorch, written independently of the Rust code, with the same names of weights.

    import networks
    model = networks.load("model.safetensors").eval()      # a file of `sora export --format safetensors` or of a run folder
    logits = model(images)                                 # images [N, C, H, W] in [0, 1]; the normalisation is inside

Where torchvision or timm has the same network, a file loads there as well (check.py does). Needs torch and safetensors.
"""

import json

import torch
from torch import nn
from torch.nn import functional as F

ACTIVATIONS = {"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU, "softplus": nn.Softplus}


def conv(cin, cout, kernel, stride=1, padding=0, bias=False):
    return nn.Conv2d(cin, cout, kernel, stride, padding, bias=bias)


class PreActBlock(nn.Module):
    """Pre-activation block, basic or bottleneck; the projection sees the input or the activated input."""

    def __init__(self, cin, channels, stride, act, bottleneck, shortcut):
        super().__init__()
        self.projects_input = shortcut == "input"
        cout = channels * (4 if bottleneck else 1)
        self.bn1 = nn.BatchNorm2d(cin)
        if bottleneck:
            self.conv1 = conv(cin, channels, 1)
            self.bn2 = nn.BatchNorm2d(channels)
            self.conv2 = conv(channels, channels, 3, stride, 1)
            self.bn3 = nn.BatchNorm2d(channels)
            self.conv3 = conv(channels, cout, 1)
        else:
            self.conv1 = conv(cin, channels, 3, stride, 1)
            self.bn2 = nn.BatchNorm2d(channels)
            self.conv2 = conv(channels, channels, 3, 1, 1)
        if stride != 1 or cin != cout:
            self.shortcut = nn.Sequential(conv(cin, cout, 1, stride))
        self.act = act()

    def forward(self, x):
        active = self.act(self.bn1(x))
        skip = self.shortcut(x if self.projects_input else active) if hasattr(self, "shortcut") else x
        out = self.conv2(self.act(self.bn2(self.conv1(active))))
        if hasattr(self, "conv3"):
            out = self.conv3(self.act(self.bn3(out)))
        return out + skip


class SEBlock(nn.Module):
    """Pre-activation block whose output is gated channel by channel."""

    def __init__(self, cin, cout, stride, act, _bottleneck):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(cin)
        self.conv1 = conv(cin, cout, 3, stride, 1)
        self.bn2 = nn.BatchNorm2d(cout)
        self.conv2 = conv(cout, cout, 3, 1, 1)
        if stride != 1 or cin != cout:
            self.shortcut = nn.Sequential(conv(cin, cout, 1, stride))
        hidden = max(1, cout // 16)
        self.fc1, self.fc2 = conv(cout, hidden, 1, bias=True), conv(hidden, cout, 1, bias=True)
        self.act = act()

    def forward(self, x):
        active = self.act(self.bn1(x))
        skip = self.shortcut(active) if hasattr(self, "shortcut") else x
        out = self.conv2(self.act(self.bn2(self.conv1(active))))
        gate = self.fc2(self.act(self.fc1(out.mean((2, 3), keepdim=True)))).sigmoid()
        return out * gate + skip


class ResBlock(nn.Module):
    """Post-activation block of torchvision."""

    def __init__(self, cin, channels, stride, act, bottleneck):
        super().__init__()
        cout = channels * (4 if bottleneck else 1)
        kernels = [(1, 1), (3, stride), (1, 1)] if bottleneck else [(3, stride), (3, 1)]
        outs = [channels, channels, cout] if bottleneck else [channels, cout]
        ins = cin
        self.depth = len(kernels)
        for i, ((kernel, s), out) in enumerate(zip(kernels, outs), 1):
            setattr(self, f"conv{i}", conv(ins, out, kernel, s, kernel // 2))
            setattr(self, f"bn{i}", nn.BatchNorm2d(out))
            ins = out
        if stride != 1 or cin != cout:
            self.downsample = nn.Sequential(conv(cin, cout, 1, stride), nn.BatchNorm2d(cout))
        self.act = act()

    def forward(self, x):
        out = x
        for i in range(1, self.depth + 1):
            out = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(out))
            if i < self.depth:
                out = self.act(out)
        return self.act(out + (self.downsample(x) if hasattr(self, "downsample") else x))


class Residual(nn.Module):
    """The ResNets: `kind` names the stem's and the head's form."""

    def __init__(self, net, kind, block, depths, bottleneck=False):
        super().__init__()
        act, width = net["act"], net["width"]
        self.large = net["stem"] == "imagenet"
        self.conv1 = conv(
            net["channels"], width, 7 if self.large else 3, 2 if self.large else 1, 3 if self.large else 1
        )
        self.kind = kind
        if kind != "preact":
            self.bn1 = nn.BatchNorm2d(width)
        cin = width
        for stage, depth in enumerate(depths):
            blocks = []
            for i in range(depth):
                extra = [net["shortcut"]] if kind == "preact" else []
                blocks.append(block(cin, width << stage, 2 if stage and not i else 1, act, bottleneck, *extra))
                cin = (width << stage) * (4 if bottleneck else 1)
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
        if kind == "preact":
            self.bn = nn.BatchNorm2d(cin)
        setattr(self, "fc" if kind == "resnet" else "linear", nn.Linear(cin, net["classes"]))
        self.act = act()

    def forward(self, x):
        x = self.conv1(x)
        if self.kind != "preact":
            x = self.act(self.bn1(x))
        if self.large:
            x = F.max_pool2d(x, 3, 2, 1)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        if self.kind == "preact":
            x = self.act(self.bn(x))
        return (self.fc if self.kind == "resnet" else self.linear)(x.mean((2, 3)))


class WideBlock(nn.Module):
    def __init__(self, cin, cout, stride, act, rate):
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(cin), conv(cin, cout, 3, stride, 1)
        self.bn2, self.conv2 = nn.BatchNorm2d(cout), conv(cout, cout, 3, 1, 1)
        if cin != cout:
            self.convShortcut = conv(cin, cout, 1, stride)
        self.act, self.drop = act(), nn.Dropout(rate)

    def forward(self, x):
        active = self.act(self.bn1(x))
        out = self.conv2(self.drop(self.act(self.bn2(self.conv1(active)))))
        return out + (self.convShortcut(active) if hasattr(self, "convShortcut") else x)


class WideGroup(nn.Module):
    def __init__(self, blocks):
        super().__init__()
        self.layer = nn.Sequential(*blocks)

    def forward(self, x):
        return self.layer(x)


class WideResNet(nn.Module):
    def __init__(self, net, depth):
        super().__init__()
        act, width, cin = net["act"], net["width"], 16
        self.conv1 = conv(net["channels"], cin, 3, 1, 1)
        for stage in range(3):
            blocks = []
            for i in range((depth - 4) // 6):
                blocks.append(WideBlock(cin, width << stage, 2 if stage and not i else 1, act, net["dropout"]))
                cin = width << stage
            setattr(self, f"block{stage + 1}", WideGroup(blocks))
        self.bn1, self.act, self.fc = nn.BatchNorm2d(cin), act(), nn.Linear(cin, net["classes"])

    def forward(self, x):
        x = self.block3(self.block2(self.block1(self.conv1(x))))
        return self.fc(self.act(self.bn1(x)).mean((2, 3)))


class UnevenBlock(nn.Module):
    """Block of DeepMind's WideResNet: where it strides, zeros lie below and to the right alone."""

    def __init__(self, cin, cout, stride, act, rate):
        super().__init__()
        self.batchnorm_0, self.conv_0 = nn.BatchNorm2d(cin), conv(cin, cout, 3, stride)
        self.batchnorm_1, self.conv_1 = nn.BatchNorm2d(cout), conv(cout, cout, 3, 1, 1)
        if cin != cout:
            self.shortcut = conv(cin, cout, 1, stride)
        self.act, self.drop, self.pads = act(), nn.Dropout(rate), (0, 1, 0, 1) if stride == 2 else (1, 1, 1, 1)

    def forward(self, x):
        active = self.act(self.batchnorm_0(x))
        out = self.drop(self.act(self.batchnorm_1(self.conv_0(F.pad(active, self.pads)))))
        return self.conv_1(out) + (self.shortcut(active) if hasattr(self, "shortcut") else x)


class UnevenWideResNet(nn.Module):
    def __init__(self, net, depth):
        super().__init__()
        act, cin, groups = net["act"], 16, []
        self.init_conv = conv(net["channels"], cin, 3, 1, 1)
        for stage in range(3):
            cout, blocks = net["width"] << stage, []
            for i in range((depth - 4) // 6):
                blocks.append(UnevenBlock(cin, cout, 2 if stage and not i else 1, act, net["dropout"]))
                cin = cout
            groups.append(nn.Sequential())
            groups[-1].block = nn.Sequential(*blocks)
        self.layer = nn.ModuleList(groups)
        self.batchnorm, self.act, self.logits = nn.BatchNorm2d(cin), act(), nn.Linear(cin, net["classes"])

    def forward(self, x):
        x = self.init_conv(x)
        for group in self.layer:
            x = group.block(x)
        return self.logits(self.act(self.batchnorm(x)).mean((2, 3)))


class UnevenPreActBlock(nn.Module):
    """Block of DeepMind's PreActResNet: its projection is a 3x3 convolution of the block's input."""

    def __init__(self, cin, cout, stride, act):
        super().__init__()
        self.batchnorm_0, self.conv_2d_1 = nn.BatchNorm2d(cin), conv(cin, cout, 3, stride)
        self.batchnorm_1, self.conv_2d_2 = nn.BatchNorm2d(cout), conv(cout, cout, 3, 1, 1)
        if stride != 1 or cin != cout:
            self.shortcut = conv(cin, cout, 3, stride)
        self.act, self.pads = act(), (0, 1, 0, 1) if stride == 2 else (1, 1, 1, 1)

    def forward(self, x):
        out = self.conv_2d_1(F.pad(self.act(self.batchnorm_0(x)), self.pads))
        out = self.conv_2d_2(self.act(self.batchnorm_1(out)))
        return out + (self.shortcut(F.pad(x, self.pads)) if hasattr(self, "shortcut") else x)


class UnevenPreActResNet(nn.Module):
    def __init__(self, net, depths):
        super().__init__()
        act, cin = net["act"], net["width"]
        self.conv_2d = conv(net["channels"], cin, 3, 1, 1)
        for stage, depth in enumerate(depths):
            cout, blocks = net["width"] << stage, []
            for i in range(depth):
                blocks.append(UnevenPreActBlock(cin, cout, 2 if stage and not i else 1, act))
                cin = cout
            setattr(self, f"layer_{stage}", nn.Sequential(*blocks))
        self.batchnorm, self.act, self.logits = nn.BatchNorm2d(cin), act(), nn.Linear(cin, net["classes"])

    def forward(self, x):
        x = self.layer_3(self.layer_2(self.layer_1(self.layer_0(self.conv_2d(x)))))
        return self.logits(self.act(self.batchnorm(x)).mean((2, 3)))


class VGG16(nn.Module):
    def __init__(self, net):
        super().__init__()
        act, width, cin, layers = net["act"], net["width"], net["channels"], []
        for count, factor in ((2, 1), (2, 2), (3, 4), (3, 8), (3, 8)):
            for _ in range(count):
                layers += [conv(cin, factor * width, 3, 1, 1, bias=True), nn.BatchNorm2d(factor * width), act()]
                cin = factor * width
            layers.append(nn.MaxPool2d(2, 2))
        self.features = nn.Sequential(*layers)
        self.large = net["size"] >= 96
        if self.large:
            hidden, drop = 64 * width, nn.Dropout(net["dropout"])
            first = [nn.Linear(49 * cin, hidden), act(), drop, nn.Linear(hidden, hidden), act(), drop]
            self.classifier = nn.Sequential(*first, nn.Linear(hidden, net["classes"]))
        else:
            self.classifier = nn.Linear(cin, net["classes"])

    def forward(self, x):
        x = self.features(x)
        return self.classifier(F.adaptive_avg_pool2d(x, 7).flatten(1) if self.large else x.mean((2, 3)))


class Attention(nn.Module):
    def __init__(self, width, heads, bias):
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(width, 3 * width, bias=bias), nn.Linear(width, width)

    def forward(self, x):
        n, t, width = x.shape
        q, k, v = self.qkv(x).view(n, t, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        scores = (q @ k.transpose(2, 3)) / (width // self.heads) ** 0.5
        return self.proj((scores.softmax(3) @ v).transpose(1, 2).reshape(n, t, width))


class Patches(nn.Module):
    def __init__(self, channels, width, patch):
        super().__init__()
        self.proj = conv(channels, width, patch, patch, bias=True)

    def forward(self, x):
        return self.proj(x).flatten(2).transpose(1, 2)


class ViTBlock(nn.Module):
    def __init__(self, width, heads, act, drop):
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(width, 1e-6), Attention(width, heads, True)
        self.norm2 = nn.LayerNorm(width, 1e-6)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, 4 * width), "fc2": nn.Linear(4 * width, width)})
        self.act, self.drop = act(), drop

    def forward(self, x):
        x = x + self.drop(self.attn(self.norm1(x)))
        return x + self.drop(self.mlp["fc2"](self.drop(self.act(self.mlp["fc1"](self.norm2(x))))))


class ViT(nn.Module):
    def __init__(self, net, heads):
        super().__init__()
        width, patch = net["width"], net["patch"]
        tokens = (net["size"] // patch) * (net["breadth"] // patch) + 1
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, tokens, width))
        self.patch_embed = Patches(net["channels"], width, patch)
        self.drop = nn.Dropout(net["dropout"])
        self.blocks = nn.Sequential(*[ViTBlock(width, heads, net["act"], self.drop) for _ in range(12)])
        self.norm, self.head = nn.LayerNorm(width, 1e-6), nn.Linear(width, net["classes"])

    def forward(self, x):
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), self.patch_embed(x)], 1)
        return self.head(self.norm(self.blocks(self.drop(x + self.pos_embed)))[:, 0])


class CCTBlock(nn.Module):
    def __init__(self, width, act, drop):
        super().__init__()
        self.pre_norm, self.self_attn = nn.LayerNorm(width), Attention(width, 4, False)
        self.norm1 = nn.LayerNorm(width)
        self.linear1, self.linear2 = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.act, self.drop = act(), drop

    def forward(self, x):
        x = self.norm1(x + self.drop(self.self_attn(self.pre_norm(x))))
        return x + self.drop(self.linear2(self.drop(self.act(self.linear1(x)))))


class CCT(nn.Module):
    def __init__(self, net):
        super().__init__()
        width, pooled = net["width"], [(side - 1) // 2 + 1 for side in (net["size"], net["breadth"])]
        first = nn.Sequential(conv(net["channels"], width, 3, 1, 1), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
        self.tokenizer = nn.ModuleDict({"conv_layers": nn.Sequential(first)})
        drop = nn.Dropout(net["dropout"])
        rest = nn.Module()
        rest.positional_emb = nn.Parameter(torch.zeros(1, pooled[0] * pooled[1], width))
        rest.attention_pool = nn.Linear(width, 1)
        rest.drop = drop
        rest.blocks = nn.ModuleList([CCTBlock(width, net["act"], drop) for _ in range(7)])
        rest.norm, rest.fc = nn.LayerNorm(width), nn.Linear(width, net["classes"])
        self.classifier = rest

    def forward(self, x):
        rest = self.classifier
        x = self.tokenizer["conv_layers"](x).flatten(2).transpose(1, 2)
        x = rest.drop(x + rest.positional_emb)
        for block in rest.blocks:
            x = block(x)
        x = rest.norm(x)
        return rest.fc((rest.attention_pool(x).softmax(1).transpose(1, 2) @ x).squeeze(1))


def mnist_cnn(net):
    width, act = net["width"], net["act"]
    side = [((side - 2) // 2 + 1 - 2) // 2 + 1 for side in (net["size"], net["breadth"])]
    return nn.Sequential(
        conv(net["channels"], width, 4, 2, 1, bias=True),
        act(),
        conv(width, 2 * width, 4, 2, 1, bias=True),
        act(),
        nn.Flatten(),
        nn.Linear(2 * width * side[0] * side[1], 100),
        act(),
        nn.Linear(100, net["classes"]),
    )


DEPTHS = {18: [2, 2, 2, 2], 34: [3, 4, 6, 3], 50: [3, 4, 6, 3], 101: [3, 4, 23, 3], 152: [3, 8, 36, 3]}
NETWORKS = {
    "wideresnet-28-10": lambda net: WideResNet(net, 28),
    "wideresnet-34-10": lambda net: WideResNet(net, 34),
    "dm-wideresnet-28-10": lambda net: UnevenWideResNet(net, 28),
    "dm-wideresnet-34-10": lambda net: UnevenWideResNet(net, 34),
    "dm-wideresnet-70-16": lambda net: UnevenWideResNet(net, 70),
    "dm-preact-resnet18": lambda net: UnevenPreActResNet(net, DEPTHS[18]),
    "dm-preact-resnet34": lambda net: UnevenPreActResNet(net, DEPTHS[34]),
    "senet18": lambda net: Residual(net, "senet", SEBlock, DEPTHS[18]),
    "vgg16-bn": VGG16,
    "vit-tiny": lambda net: ViT(net, 3),
    "vit-small": lambda net: ViT(net, 6),
    "cct-7-3x1": CCT,
    "mnist-cnn": mnist_cnn,
}
for depth, depths in DEPTHS.items():
    for name, kind, block in ((f"preact-resnet{depth}", "preact", PreActBlock), (f"resnet{depth}", "resnet", ResBlock)):
        NETWORKS[name] = lambda net, a=(kind, block, depths, depth >= 50): Residual(net, *a)


def build(
    name,
    width,
    channels=3,
    size=32,
    classes=10,
    breadth=None,
    activation=None,
    dropout=0.0,
    stem=None,
    patch=None,
    shortcut=None,
):
    """The network `name`; it takes normalised images of `size` by `breadth` pixels. Without a `shortcut` that of a PreActResNet takes the
    activated input, as in files of a time when there was no choice."""
    default = "gelu" if name.startswith(("vit", "cct")) else "silu" if name.startswith("dm") else "relu"
    if patch is None:
        patch = 4 if size < 48 else 8 if size < 96 else 16
    return NETWORKS[name](
        {
            "width": width,
            "channels": channels,
            "size": size,
            "breadth": breadth or size,
            "classes": classes,
            "act": ACTIVATIONS[activation or default],
            "dropout": dropout,
            "stem": stem or "cifar",
            "patch": patch,
            "shortcut": shortcut or "activated",
        }
    )


class Normalised(nn.Module):
    """A network with its normalisation in front: takes images in [0, 1]."""

    def __init__(self, model, mean, std):
        super().__init__()
        self.model = model
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)

    def forward(self, x):
        return self.model((x - self.mean) / self.std)


def metadata(path):
    """The description of a weights file, JSON."""
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        return file.metadata()["sora"]


def load(path):
    """The network of a weights file, by the description in its metadata."""
    from safetensors import safe_open

    about = json.loads(metadata(path))["network"]
    with safe_open(path, "pt") as file:
        weights = {name: file.get_tensor(name) for name in file.keys()}
    shape, options = about["shape"], about.get("options", {})
    model = build(
        about["name"],
        about["width"],
        shape["channels"],
        shape["height"],
        shape["classes"],
        shape["width"],
        options.get("activation"),
        options.get("dropout", 0.0),
        options.get("stem"),
        options.get("patch"),
        options.get("shortcut"),
    )
    model.load_state_dict(weights)
    return Normalised(model, about["mean"], about["std"])
