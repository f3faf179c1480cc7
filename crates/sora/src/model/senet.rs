//! SENet-18 (Hu et al. 2017, arXiv 1709.01507) in the form of the CIFAR literature. The output of
//! each pre-activation block is scaled, channel by channel, by two 1x1 convolutions of its mean
//! (`fc1`, `fc2`, reduction 16). The initialisation is PyTorch's default.

use super::{Builder, Id, NetworkInfo, Start, Window, builder::Block};

/// The row of senet18.
pub(super) const SENET18: NetworkInfo = NetworkInfo {
    name: "senet18",
    summary: "SENet-18, pre-activation blocks gated channel by channel, CIFAR stem",
    source: "Hu et al. 2017, arXiv 1709.01507",
    names: "the public CIFAR implementations; PyTorch's default start",
    default_width: 64,
    options: &["activation"],
    width_from: "conv1.weight",
    classes_from: &["linear.weight"],
    aliases: &[("fc.", "linear.")],
    build: |net, x| senet(net, x, [2, 2, 2, 2]),
    ..NetworkInfo::BASE
};

const START: Start = Start::Default;
/// Number of channels for each channel of the squeezed vector.
const REDUCTION: usize = 16;

/// Stages of `depths` blocks with `width`, 2, 4 and 8 times `width` channels.
fn senet(net: &mut Builder, x: Id, depths: [usize; 4]) {
    let width = net.width();
    let x = net.conv(x, "conv1", width, Window::of(3, 1, 1), START);
    let x = net.norm_act(x, "bn1");
    let x = net.stages(x, &depths, |net, x, Block { stage, index, channels, stride }| {
        block(net, x, &format!("layer{}.{index}", stage + 1), channels, stride)
    });
    let x = net.global_pool(x);
    net.classifier(x, "linear");
}

fn block(net: &mut Builder, x: Id, name: &str, cout: usize, stride: usize) -> Id {
    let at = |part: &str| format!("{name}.{part}");
    let (active, projected) = net.preactivate(x, &at("bn1"), cout, stride);
    let y = net.conv(active, &at("conv1"), cout, Window::of(3, stride, 1), START);
    let y = net.norm_act(y, &at("bn2"));
    let y = net.conv(y, &at("conv2"), cout, Window::of(3, 1, 1), START);
    let shortcut = if projected {
        net.conv(active, &at("shortcut.0"), cout, Window::of(1, stride, 0), START)
    } else {
        x
    };
    let mean = net.squeeze(y);
    let squeezed = net.dense_as_conv(mean, &at("fc1"), (cout / REDUCTION).max(1), START);
    let squeezed = net.act(squeezed);
    let factor = net.dense_as_conv(squeezed, &at("fc2"), cout, START);
    let gated = net.gate(y, factor);
    net.add(gated, shortcut)
}
