//! WideResNet (Zagoruyko and Komodakis 2016, arXiv 1605.07146) in the form of the robustness
//! literature (TRADES, RobustBench): names `block1.layer.0.conv1`, `convShortcut`, `bn1`, `fc`;
//! convolutions start from N(0, 2 / (out k k)), the classifier's bias from 0.
//!
//! The stem has 16 channels. The width is that of the first stage, 16 times the widening factor:
//! 160 is WideResNet-28-10. Dropout lies between the two convolutions of a block; adversarial
//! training usually sets it to 0, the paper to 0.3.

use super::{Builder, Id, NetworkInfo, Start, Window, builder::Block};

/// The common fields of this family's rows.
const FAMILY: NetworkInfo = NetworkInfo {
    source: "Zagoruyko and Komodakis 2016, arXiv 1605.07146",
    names: "TRADES, RobustBench",
    default_width: 160,
    options: &["activation", "dropout"],
    width_from: "block1.layer.0.conv1.weight",
    classes_from: &["fc.weight"],
    aliases: &[("linear.", "fc.")],
    ..NetworkInfo::BASE
};

/// The row of wideresnet-28-10.
pub(super) const WIDERESNET_28_10: NetworkInfo = NetworkInfo {
    name: "wideresnet-28-10",
    summary: "WideResNet-28-10; width is 16 times the widening factor, the stem has 16 channels",
    build: |net, x| wide_resnet(net, x, 28),
    ..FAMILY
};

/// The row of wideresnet-34-10.
pub(super) const WIDERESNET_34_10: NetworkInfo = NetworkInfo {
    name: "wideresnet-34-10",
    summary: "WideResNet-34-10; width is 16 times the widening factor, the stem has 16 channels",
    build: |net, x| wide_resnet(net, x, 34),
    ..FAMILY
};

const START: Start = Start::KaimingOut;
/// Channels of the stem.
const STEM: usize = 16;

/// A network of `depth` layers, 6 n + 4.
fn wide_resnet(net: &mut Builder, x: Id, depth: usize) {
    let x = net.conv(x, "conv1", STEM, Window::of(3, 1, 1), START);
    let depths = [(depth - 4) / 6; 3];
    let x = net.stages(x, &depths, |net, x, Block { stage, index, channels, stride }| {
        block(net, x, &format!("block{}.layer.{index}", stage + 1), channels, stride)
    });
    let x = net.norm_act(x, "bn1");
    let x = net.global_pool(x);
    let classes = net.shape().classes;
    net.dense(x, "fc", classes, Start::ZeroBias);
}

/// Pre-activation block; its projection takes the pre-activated input.
fn block(net: &mut Builder, x: Id, name: &str, cout: usize, stride: usize) -> Id {
    let at = |part: &str| format!("{name}.{part}");
    let (active, projected) = net.preactivate(x, &at("bn1"), cout, stride);
    // The projection runs first, but PyTorch registers its weight last.
    let shortcut =
        if projected { net.conv_ahead(active, cout, Window::of(1, stride, 0)) } else { x };
    let y = net.conv(active, &at("conv1"), cout, Window::of(3, stride, 1), START);
    let y = net.norm_act(y, &at("bn2"));
    let y = net.dropout(y);
    let out = net.conv_add(y, shortcut, &at("conv2"), cout, Window::of(3, 1, 1), START);
    if projected {
        net.register(shortcut, &at("convShortcut"), START);
    }
    out
}
