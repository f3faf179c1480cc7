//! WideResNet in the form of DeepMind's robustness work (Gowal et al. 2020, arXiv 2010.03593), the
//! network of a third of RobustBench's CIFAR-10 entries. Its names are those of the PyTorch form
//! (`init_conv`, `layer.0.block.0.conv_0`, `batchnorm`, `logits`).
//!
//! It differs from `wide_resnet` in its padding: a convolution of stride 2 has its zeros below and
//! to the right only, so it sees the map one pixel further on. The published models of 2020 and
//! later use Swish (SiLU). The width is that of the first stage, 16 times the widening factor.

use super::{Builder, Id, NetworkInfo, Start, Window, builder::Block};
use crate::nn::Activation;

/// The common fields of this family's rows.
const FAMILY: NetworkInfo = NetworkInfo {
    source: "Gowal et al. 2020, arXiv 2010.03593",
    names: "DeepMind's PyTorch form, RobustBench",
    default_width: 160,
    activation: Activation::Silu,
    options: &["activation", "dropout"],
    width_from: "layer.0.block.0.conv_0.weight",
    classes_from: &["logits.weight"],
    ..NetworkInfo::BASE
};

/// The row of dm-wideresnet-28-10.
pub(super) const DM_WIDERESNET_28_10: NetworkInfo = NetworkInfo {
    name: "dm-wideresnet-28-10",
    summary: "DeepMind's WideResNet-28-10, uneven padding; width is 16 times the widening factor",
    build: |net, x| dm_wide_resnet(net, x, 28),
    ..FAMILY
};

/// The row of dm-wideresnet-34-10.
pub(super) const DM_WIDERESNET_34_10: NetworkInfo = NetworkInfo {
    name: "dm-wideresnet-34-10",
    summary: "DeepMind's WideResNet-34-10, uneven padding; width is 16 times the widening factor",
    build: |net, x| dm_wide_resnet(net, x, 34),
    ..FAMILY
};

/// The row of dm-wideresnet-70-16.
pub(super) const DM_WIDERESNET_70_16: NetworkInfo = NetworkInfo {
    name: "dm-wideresnet-70-16",
    summary: "DeepMind's WideResNet-70-16, uneven padding; width is 16 times the widening factor",
    default_width: 256,
    build: |net, x| dm_wide_resnet(net, x, 70),
    ..FAMILY
};

const START: Start = Start::Default;
/// Channels of the stem.
const STEM: usize = 16;

/// A network of `depth` layers, 6 n + 4.
fn dm_wide_resnet(net: &mut Builder, x: Id, depth: usize) {
    let x = net.conv(x, "init_conv", STEM, Window::of(3, 1, 1), START);
    let depths = [(depth - 4) / 6; 3];
    let x = net.stages(x, &depths, |net, x, Block { stage, index, channels, stride }| {
        block(net, x, &format!("layer.{stage}.block.{index}"), channels, stride)
    });
    head(net, x);
}

/// What follows the last block of the networks of this work.
pub(super) fn head(net: &mut Builder, x: Id) {
    let x = net.norm_act(x, "batchnorm");
    let x = net.global_pool(x);
    let classes = net.shape().classes;
    net.dense(x, "logits", classes, START);
}

/// Pre-activation block; its projection takes the pre-activated input, unpadded.
fn block(net: &mut Builder, x: Id, name: &str, cout: usize, stride: usize) -> Id {
    let at = |part: &str| format!("{name}.{part}");
    let (active, projected) = net.preactivate(x, &at("batchnorm_0"), cout, stride);
    // The projection runs first, but PyTorch registers its weight last.
    let shortcut =
        if projected { net.conv_ahead(active, cout, Window::of(1, stride, 0)) } else { x };
    let (padded, window) = match stride {
        1 => (active, Window::of(3, 1, 1)),
        _ => (net.pad_end(active, 1), Window::of(3, stride, 0)),
    };
    let y = net.conv(padded, &at("conv_0"), cout, window, START);
    let y = net.norm_act(y, &at("batchnorm_1"));
    let y = net.dropout(y);
    let out = net.conv_add(y, shortcut, &at("conv_1"), cout, Window::of(3, 1, 1), START);
    if projected {
        net.register(shortcut, &at("shortcut"), START);
    }
    out
}
