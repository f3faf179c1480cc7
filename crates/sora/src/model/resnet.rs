//! ResNet (He et al. 2015, arXiv 1512.03385) with torchvision's names (`layer1.0.downsample.0`,
//! `fc`) and initialisation (`kaiming_normal_` by fan-out for convolutions). The stride of a
//! bottleneck block is in its 3x3 convolution, as in torchvision.

use super::{Builder, Id, NetworkInfo, Start, Stem, Window, builder::Block};

/// The common fields of this family's rows.
const FAMILY: NetworkInfo = NetworkInfo {
    source: "He et al. 2015, arXiv 1512.03385",
    names: "torchvision",
    default_width: 64,
    options: &["activation", "stem"],
    width_from: "conv1.weight",
    classes_from: &["fc.weight"],
    aliases: &[("linear.", "fc."), (".shortcut.", ".downsample.")],
    ..NetworkInfo::BASE
};

/// The row of resnet18.
pub(super) const RESNET18: NetworkInfo = NetworkInfo {
    name: "resnet18",
    summary: "ResNet-18; width scales every layer",
    build: |net, x| resnet(net, x, [2, 2, 2, 2], false),
    ..FAMILY
};

/// The row of resnet34.
pub(super) const RESNET34: NetworkInfo = NetworkInfo {
    name: "resnet34",
    summary: "ResNet-34; width scales every layer",
    build: |net, x| resnet(net, x, [3, 4, 6, 3], false),
    ..FAMILY
};

/// The row of resnet50.
pub(super) const RESNET50: NetworkInfo = NetworkInfo {
    name: "resnet50",
    summary: "ResNet-50, bottleneck blocks",
    build: |net, x| resnet(net, x, [3, 4, 6, 3], true),
    ..FAMILY
};

/// The row of resnet101.
pub(super) const RESNET101: NetworkInfo = NetworkInfo {
    name: "resnet101",
    summary: "ResNet-101, bottleneck blocks",
    build: |net, x| resnet(net, x, [3, 4, 23, 3], true),
    ..FAMILY
};

/// The row of resnet152.
pub(super) const RESNET152: NetworkInfo = NetworkInfo {
    name: "resnet152",
    summary: "ResNet-152, bottleneck blocks",
    build: |net, x| resnet(net, x, [3, 8, 36, 3], true),
    ..FAMILY
};

const START: Start = Start::KaimingOut;

/// Stages of `depths` blocks with `width`, 2, 4 and 8 times `width` channels, 4 times as many where
/// the blocks are bottlenecks.
fn resnet(net: &mut Builder, x: Id, depths: [usize; 4], bottleneck: bool) {
    let width = net.width();
    let (window, pooled) = match net.stem() {
        Stem::Cifar => (Window::of(3, 1, 1), false),
        Stem::Imagenet => (Window::of(7, 2, 3), true),
    };
    let x = net.conv(x, "conv1", width, window, START);
    let mut x = net.norm_act(x, "bn1");
    if pooled {
        x = net.max_pool(x, Window::of(3, 2, 1));
    }
    let x = net.stages(x, &depths, |net, x, Block { stage, index, channels, stride }| {
        block(net, x, &format!("layer{}.{index}", stage + 1), channels, stride, bottleneck)
    });
    let x = net.global_pool(x);
    net.classifier(x, "fc");
}

/// `relu(bn(conv(relu(bn(conv(x))))) + x)`, with three convolutions in a bottleneck.
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
    let y = if bottleneck {
        let y = net.conv(x, &at("conv1"), channels, Window::of(1, 1, 0), START);
        let y = net.norm_act(y, &at("bn1"));
        let y = net.conv(y, &at("conv2"), channels, Window::of(3, stride, 1), START);
        let y = net.norm_act(y, &at("bn2"));
        let y = net.conv(y, &at("conv3"), cout, Window::of(1, 1, 0), START);
        net.norm_only(y, &at("bn3"))
    } else {
        let y = net.conv(x, &at("conv1"), channels, Window::of(3, stride, 1), START);
        let y = net.norm_act(y, &at("bn1"));
        let y = net.conv(y, &at("conv2"), channels, Window::of(3, 1, 1), START);
        net.norm_only(y, &at("bn2"))
    };
    let shortcut = if stride != 1 || net.features(x) != cout {
        let projected = net.conv(x, &at("downsample.0"), cout, Window::of(1, stride, 0), START);
        net.norm_only(projected, &at("downsample.1"))
    } else {
        x
    };
    net.add_act(y, shortcut)
}
