//! PreActResNet (He et al. 2016, arXiv 1603.05027), the network of the fast-adversarial-training
//! literature.
//!
//! Names of the weights are those of the public implementations (`conv1`, `layer1.0.bn1`,
//! `layer2.0.shortcut.0`, `bn`, `linear`). These differ in the input of the projection shortcut,
//! which the option `shortcut` selects. The initialisation is PyTorch's default.

use super::{Builder, Id, NetworkInfo, Shortcut, Start, Stem, Window, builder::Block};

/// The common fields of this family's rows.
const FAMILY: NetworkInfo = NetworkInfo {
    source: "He et al. 2016, arXiv 1603.05027",
    names: "the public CIFAR implementations; PyTorch's default start",
    default_width: 64,
    options: &["activation", "stem", "shortcut"],
    width_from: "conv1.weight",
    classes_from: &["linear.weight"],
    aliases: &[("fc.", "linear.")],
    ..NetworkInfo::BASE
};

/// What the shortcuts of bottleneck blocks take: in the public implementations the activated input,
/// also where the blocks of two convolutions beside them take the input itself.
const BOTTLENECK: Shortcut = Shortcut::Activated;

/// The row of preact-resnet18.
pub(super) const PREACT_RESNET18: NetworkInfo = NetworkInfo {
    name: "preact-resnet18",
    summary: "PreActResNet-18; width scales every layer",
    build: |net, x| preact_resnet(net, x, [2, 2, 2, 2], false),
    ..FAMILY
};

/// The row of preact-resnet34.
pub(super) const PREACT_RESNET34: NetworkInfo = NetworkInfo {
    name: "preact-resnet34",
    summary: "PreActResNet-34; width scales every layer",
    build: |net, x| preact_resnet(net, x, [3, 4, 6, 3], false),
    ..FAMILY
};

/// The row of preact-resnet50.
pub(super) const PREACT_RESNET50: NetworkInfo = NetworkInfo {
    name: "preact-resnet50",
    summary: "PreActResNet-50, bottleneck blocks",
    shortcut: BOTTLENECK,
    build: |net, x| preact_resnet(net, x, [3, 4, 6, 3], true),
    ..FAMILY
};

/// The row of preact-resnet101.
pub(super) const PREACT_RESNET101: NetworkInfo = NetworkInfo {
    name: "preact-resnet101",
    summary: "PreActResNet-101, bottleneck blocks",
    shortcut: BOTTLENECK,
    build: |net, x| preact_resnet(net, x, [3, 4, 23, 3], true),
    ..FAMILY
};

/// The row of preact-resnet152.
pub(super) const PREACT_RESNET152: NetworkInfo = NetworkInfo {
    name: "preact-resnet152",
    summary: "PreActResNet-152, bottleneck blocks",
    shortcut: BOTTLENECK,
    build: |net, x| preact_resnet(net, x, [3, 8, 36, 3], true),
    ..FAMILY
};

const START: Start = Start::Default;

/// Stages of `depths` blocks with `width`, 2, 4 and 8 times `width` channels; `[2, 2, 2, 2]` is
/// PreActResNet-18. A bottleneck block has three convolutions and gives 4 times its stage's
/// channels.
fn preact_resnet(net: &mut Builder, x: Id, depths: [usize; 4], bottleneck: bool) {
    let width = net.width();
    let x = match net.stem() {
        Stem::Cifar => net.conv(x, "conv1", width, Window::of(3, 1, 1), START),
        Stem::Imagenet => {
            let x = net.conv(x, "conv1", width, Window::of(7, 2, 3), START);
            net.max_pool(x, Window::of(3, 2, 1))
        }
    };
    let x = net.stages(x, &depths, |net, x, Block { stage, index, channels, stride }| {
        block(net, x, &format!("layer{}.{index}", stage + 1), channels, stride, bottleneck)
    });
    let x = net.norm_act(x, "bn");
    let x = net.global_pool(x);
    net.classifier(x, "linear");
}

/// Pre-activation block: convolutions of `relu(bn(x))`, plus x, or a projection of x or of
/// `relu(bn(x))`.
fn block(
    net: &mut Builder,
    x: Id,
    name: &str,
    channels: usize,
    stride: usize,
    bottleneck: bool,
) -> Id {
    let cout = if bottleneck { 4 * channels } else { channels };
    let at = |part: &str| format!("{name}.{part}");
    let (active, projected) = net.preactivate(x, &at("bn1"), cout, stride);
    let source = match net.options().shortcut.unwrap_or(Shortcut::Activated) {
        Shortcut::Input => x,
        Shortcut::Activated => active,
    };
    // The projection runs first, but PyTorch registers its weight last.
    let shortcut =
        if projected { net.conv_ahead(source, cout, Window::of(1, stride, 0)) } else { x };
    let out = if bottleneck {
        let y = net.conv(active, &at("conv1"), channels, Window::of(1, 1, 0), START);
        let y = net.norm_act(y, &at("bn2"));
        let y = net.conv(y, &at("conv2"), channels, Window::of(3, stride, 1), START);
        let y = net.norm_act(y, &at("bn3"));
        net.conv_add(y, shortcut, &at("conv3"), cout, Window::of(1, 1, 0), START)
    } else {
        let y = net.conv(active, &at("conv1"), channels, Window::of(3, stride, 1), START);
        let y = net.norm_act(y, &at("bn2"));
        net.conv_add(y, shortcut, &at("conv2"), cout, Window::of(3, 1, 1), START)
    };
    if projected {
        net.register(shortcut, &at("shortcut.0"), START);
    }
    out
}
