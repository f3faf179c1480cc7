//! PreActResNet as DeepMind's robustness work has it (Rebuffi et al. 2021, arXiv 2103.01946):
//! RobustBench's `DMPreActResNet`, which several of its ResNet-18 entries are. Names of its PyTorch
//! form (`conv_2d`, `layer_0.0.conv_2d_1`, `batchnorm`, `logits`).
//!
//! It differs from `preact_resnet` in its projections, which are 3x3 convolutions of the block's
//! input, and in where it pads: a convolution of stride 2 has its zeros below and to the right
//! alone. Swish (SiLU) is its activation in the published models.

use super::{Builder, Id, NetworkInfo, Start, Window, builder::Block, dm_wide_resnet};
use crate::nn::Activation;

/// What the rows of this family share.
const FAMILY: NetworkInfo = NetworkInfo {
    source: "Rebuffi et al. 2021, arXiv 2103.01946",
    names: "DeepMind's PyTorch form, RobustBench",
    default_width: 64,
    activation: Activation::Silu,
    options: &["activation"],
    width_from: "conv_2d.weight",
    classes_from: &["logits.weight"],
    ..NetworkInfo::BASE
};

/// The row of dm-preact-resnet18.
pub(super) const DM_PREACT_RESNET18: NetworkInfo = NetworkInfo {
    name: "dm-preact-resnet18",
    summary: "DeepMind's PreActResNet-18, uneven padding, 3x3 projections",
    build: |net, x| dm_preact_resnet(net, x, [2, 2, 2, 2]),
    ..FAMILY
};

/// The row of dm-preact-resnet34.
pub(super) const DM_PREACT_RESNET34: NetworkInfo = NetworkInfo {
    name: "dm-preact-resnet34",
    summary: "DeepMind's PreActResNet-34, uneven padding, 3x3 projections",
    build: |net, x| dm_preact_resnet(net, x, [3, 4, 6, 3]),
    ..FAMILY
};

const START: Start = Start::Default;

/// Stages of `depths` blocks with `width`, 2, 4 and 8 times `width` channels.
fn dm_preact_resnet(net: &mut Builder, x: Id, depths: [usize; 4]) {
    let x = net.conv(x, "conv_2d", net.width(), Window::of(3, 1, 1), START);
    let x = net.stages(x, &depths, |net, x, Block { stage, index, channels, stride }| {
        block(net, x, &format!("layer_{stage}.{index}"), channels, stride)
    });
    dm_wide_resnet::head(net, x);
}

/// Pre-activation block; its projection takes the block's input, padded as the first convolution.
fn block(net: &mut Builder, x: Id, name: &str, cout: usize, stride: usize) -> Id {
    let at = |part: &str| format!("{name}.{part}");
    let (active, projected) = net.preactivate(x, &at("batchnorm_0"), cout, stride);
    let window = Window::of(3, stride, if stride == 1 { 1 } else { 0 });
    let padded = |net: &mut Builder, x: Id| if stride == 1 { x } else { net.pad_end(x, 1) };
    // The projection runs first, and PyTorch registers its weight last.
    let shortcut = if projected {
        let x = padded(net, x);
        net.conv_ahead(x, cout, window)
    } else {
        x
    };
    let inner = padded(net, active);
    let y = net.conv(inner, &at("conv_2d_1"), cout, window, START);
    let y = net.norm_act(y, &at("batchnorm_1"));
    let out = net.conv_add(y, shortcut, &at("conv_2d_2"), cout, Window::of(3, 1, 1), START);
    if projected {
        net.register(shortcut, &at("shortcut"), START);
    }
    out
}
