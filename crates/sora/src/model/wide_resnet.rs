//! WideResNet (Zagoruyko and Komodakis 2016, arXiv 1605.07146) as the robustness literature has it
//! (TRADES, RobustBench): names `block1.layer.0.conv1`, `convShortcut`, `bn1`, `fc`; convolutions
//! start from N(0, 2 / (out k k)), the classifier's bias from 0.
//!
//! The stem has 16 channels; the width is that of the first stage, 16 times the widening factor:
//! 160 is WideResNet-28-10. Dropout lies between the two convolutions of a block; the literature of
//! adversarial training has it at 0, the paper at 0.3.

use super::graph::{Builder, Id, Start, Window};

const START: Start = Start::KaimingOut;
/// Channels of the stem.
const STEM: usize = 16;

/// A network of `depth` layers, 6 n + 4.
pub(super) fn wide_resnet(net: &mut Builder<'_>, x: Id, depth: usize) {
    let mut x = net.conv(x, "conv1", STEM, Window(3, 1, 1), START);
    for stage in 0..3 {
        for index in 0..(depth - 4) / 6 {
            let stride = if stage > 0 && index == 0 { 2 } else { 1 };
            x = block(
                net,
                x,
                &format!("block{}.layer.{index}", stage + 1),
                net.width << stage,
                stride,
            );
        }
    }
    let x = net.norm_act(x, "bn1");
    let x = net.global_pool(x);
    let classes = net.shape.classes;
    net.dense(x, "fc", classes, Start::ZeroBias);
}

/// Pre-activation block; its projection takes the pre-activated input.
fn block(net: &mut Builder<'_>, x: Id, name: &str, cout: usize, stride: usize) -> Id {
    let projected = stride != 1 || net.features(x) != cout;
    let at = |part: &str| format!("{name}.{part}");
    let active = if projected {
        net.norm_act(x, &at("bn1"))
    } else {
        net.norm_act_beside_shortcut(x, &at("bn1"))
    };
    // The projection runs first, and PyTorch registers its weight last.
    let shortcut = if projected { net.conv_ahead(active, cout, Window(1, stride, 0)) } else { x };
    let y = net.conv(active, &at("conv1"), cout, Window(3, stride, 1), START);
    let y = net.norm_act(y, &at("bn2"));
    let y = net.dropout(y);
    let out = net.conv_add(y, shortcut, &at("conv2"), cout, Window(3, 1, 1), START);
    if projected {
        net.register(shortcut, &at("convShortcut"), START);
    }
    out
}
