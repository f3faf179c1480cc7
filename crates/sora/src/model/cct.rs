//! Compact convolutional transformer CCT-7/3x1 (Hassani et al. 2021, arXiv 2104.05704), with the
//! names of the authors' implementation.
//!
//! A 3x3 convolution, ReLU and a 3x3 max pool make the tokens; positions are learned. 7 blocks
//! follow, with 4 heads and twice as many hidden features: each is `x + attention(pre_norm(x))`,
//! then `norm1`, then `x + linear2(gelu(linear1(x)))`. A learned score weights the mean of the
//! tokens. Fully connected layers start from N(0, 0.02^2), the convolution from `kaiming_normal_`,
//! the positions from N(0, 0.2^2). Stochastic depth and dropout of attention weights (0.1 in the
//! authors' settings) are left out; dropout has the run's rate. The option `activation` is that of
//! the blocks.

use super::{Builder, Id, NetworkInfo, Start, Window};
use crate::nn::{Activation, Init};

/// The row of cct-7-3x1.
pub(super) const CCT_7_3X1: NetworkInfo = NetworkInfo {
    name: "cct-7-3x1",
    summary: "compact convolutional transformer, 7 blocks, 4 heads, images up to 64x64; width is \
              the size of a token",
    source: "Hassani et al. 2021, arXiv 2104.05704",
    names: "the authors' implementation",
    default_width: 256,
    activation: Activation::Gelu,
    options: &["activation", "dropout"],
    width_from: "tokenizer.conv_layers.0.0.weight",
    classes_from: &["classifier.fc.weight"],
    build: cct7,
    ..NetworkInfo::BASE
};

const START: Start = Start::Normal(0.02);
const EPSILON: f64 = 1e-5;
const DEPTH: usize = 7;
const HEADS: usize = 4;
/// Largest side of an image in pixels; attention over half the pixels of a larger one costs too
/// much.
const LARGEST: usize = 64;

/// The network; the width is the size of a token (256 in the paper).
fn cct7(net: &mut Builder, x: Id) {
    let (width, classes) = (net.width(), net.shape().classes);
    if net.shape().height.max(net.shape().width) > LARGEST {
        let problem = format!(
            "images of {}x{}; expected at most {LARGEST}x{LARGEST}, choose vit-tiny or a ResNet",
            net.shape().height,
            net.shape().width
        );
        net.fail("cct-7-3x1", problem);
        return;
    }
    let x = net.conv(x, "tokenizer.conv_layers.0.0", width, Window::of(3, 1, 1), Start::KaimingIn);
    let x = net.act_with(x, Activation::Relu);
    let x = net.max_pool(x, Window::of(3, 2, 1));
    let x = net.tokens(x);
    let x = net.position(x, "classifier.positional_emb", Init::Normal(0.2));
    let mut x = net.dropout(x);
    for index in 0..DEPTH {
        x = block(net, x, &format!("classifier.blocks.{index}"));
    }
    let x = net.layer_norm(x, "classifier.norm", EPSILON);
    let x = net.pool_tokens(x, "classifier.attention_pool", START);
    net.dense(x, "classifier.fc", classes, START);
}

fn block(net: &mut Builder, x: Id, name: &str) -> Id {
    let (at, width) = (|part: &str| format!("{name}.{part}"), net.width());
    let y = net.layer_norm(x, &at("pre_norm"), EPSILON);
    let y = net.self_attention(y, &at("self_attn"), HEADS, false, START);
    let y = net.dropout(y);
    let x = net.add(x, y);
    let x = net.layer_norm(x, &at("norm1"), EPSILON);
    let y = net.dense(x, &at("linear1"), 2 * width, START);
    let y = net.act(y);
    let y = net.dropout(y);
    let y = net.dense(y, &at("linear2"), width, START);
    let y = net.dropout(y);
    net.add(x, y)
}
