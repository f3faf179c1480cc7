//! PreActResNet (He et al. 2016, arXiv 1603.05027), the network of the fast-adversarial-training
//! literature.
//!
//! Names of the weights are those of the public implementations (`conv1`, `layer1.0.bn1`,
//! `layer2.0.shortcut.0`, `bn`, `linear`). The projection shortcut takes the pre-activated input,
//! as they do. PyTorch's default initialisation.

use super::{
    Stem,
    graph::{Builder, Id, Start, Window},
};

const START: Start = Start::Default;

/// Stages of `depths` blocks with `width`, 2, 4 and 8 times `width` channels; `[2, 2, 2, 2]` is
/// PreActResNet-18. A bottleneck block has three convolutions and gives 4 times its stage's
/// channels.
pub(super) fn preact_resnet(net: &mut Builder<'_>, x: Id, depths: [usize; 4], bottleneck: bool) {
    let width = net.width;
    let mut x = match net.stem() {
        Stem::Cifar => net.conv(x, "conv1", width, Window(3, 1, 1), START),
        Stem::Imagenet => {
            let x = net.conv(x, "conv1", width, Window(7, 2, 3), START);
            net.max_pool(x, Window(3, 2, 1))
        }
    };
    for (stage, depth) in depths.into_iter().enumerate() {
        for index in 0..depth {
            let stride = if stage > 0 && index == 0 { 2 } else { 1 };
            x = block(
                net,
                x,
                &format!("layer{}.{index}", stage + 1),
                width << stage,
                stride,
                bottleneck,
            );
        }
    }
    let x = net.norm_act(x, "bn");
    let x = net.global_pool(x);
    net.classifier(x, "linear");
}

/// Pre-activation block: convolutions of `relu(bn(x))`, plus x or its projection.
fn block(
    net: &mut Builder<'_>,
    x: Id,
    name: &str,
    channels: usize,
    stride: usize,
    bottleneck: bool,
) -> Id {
    let cout = if bottleneck { 4 * channels } else { channels };
    let projected = stride != 1 || net.features(x) != cout;
    let at = |part: &str| format!("{name}.{part}");
    let active = if projected {
        net.norm_act(x, &at("bn1"))
    } else {
        net.norm_act_beside_shortcut(x, &at("bn1"))
    };
    // The projection runs first, and PyTorch registers its weight last.
    let shortcut = if projected { net.conv_ahead(active, cout, Window(1, stride, 0)) } else { x };
    let out = if bottleneck {
        let y = net.conv(active, &at("conv1"), channels, Window(1, 1, 0), START);
        let y = net.norm_act(y, &at("bn2"));
        let y = net.conv(y, &at("conv2"), channels, Window(3, stride, 1), START);
        let y = net.norm_act(y, &at("bn3"));
        net.conv_add(y, shortcut, &at("conv3"), cout, Window(1, 1, 0), START)
    } else {
        let y = net.conv(active, &at("conv1"), channels, Window(3, stride, 1), START);
        let y = net.norm_act(y, &at("bn2"));
        net.conv_add(y, shortcut, &at("conv2"), cout, Window(3, 1, 1), START)
    };
    if projected {
        net.register(shortcut, &at("shortcut.0"), START);
    }
    out
}
