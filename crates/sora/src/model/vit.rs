//! Vision transformers with timm's names and initialisation: ViT (Dosovitskiy et al. 2020, arXiv
//! 2010.11929) in the tiny and small sizes of DeiT (Touvron et al. 2020, arXiv 2012.12877).
//!
//! The network has pre-norm blocks, a class token, learned positions, GELU, and layer norm with
//! epsilon 1e-6. Fully connected layers and positions start from N(0, 0.02^2), their biases from 0,
//! the class token from N(0, 1e-12), and the patch embedding like PyTorch's convolutions. The width
//! is the size of a token; the number of heads does not depend on it.

use super::{Builder, Id, NetworkInfo, Start, Window};
use crate::{
    error::Error,
    nn::{Activation, Init},
};

/// The common fields of this family's rows.
const FAMILY: NetworkInfo = NetworkInfo {
    source: "Dosovitskiy et al. 2020, arXiv 2010.11929; Touvron et al. 2020, arXiv 2012.12877",
    names: "timm",
    default_width: 192,
    activation: Activation::Gelu,
    options: &["activation", "dropout", "patch"],
    width_from: "patch_embed.proj.weight",
    classes_from: &["head.weight"],
    aliases: &[],
    ..NetworkInfo::BASE
};

/// The row of vit-tiny.
pub(super) const VIT_TINY: NetworkInfo = NetworkInfo {
    name: "vit-tiny",
    summary: "ViT-tiny (DeiT-tiny without distillation), 12 blocks, 3 heads; width is the size of a token",
    build: |net, x| vit(net, x, 3),
    ..FAMILY
};

/// The row of vit-small.
pub(super) const VIT_SMALL: NetworkInfo = NetworkInfo {
    name: "vit-small",
    summary: "ViT-small (DeiT-small without distillation), 12 blocks, 6 heads; width is the size of a token",
    default_width: 384,
    build: |net, x| vit(net, x, 6),
    ..FAMILY
};

const START: Start = Start::Normal(0.02);
const EPSILON: f64 = 1e-6;
/// Number of blocks.
const DEPTH: usize = 12;

/// Patch side for images of `side` pixels: 4 at 32, 8 at 64, 16 at 224.
pub(super) fn default_patch(side: usize) -> usize {
    match side {
        0..48 => 4,
        48..96 => 8,
        _ => 16,
    }
}

/// The network, with `heads` attention heads.
fn vit(net: &mut Builder, x: Id, heads: usize) {
    let (width, classes, shape) = (net.width(), net.shape().classes, net.shape());
    let patch = net.options().patch.unwrap_or_else(|| default_patch(shape.height.min(shape.width)));
    if patch == 0 || !shape.height.is_multiple_of(patch) || !shape.width.is_multiple_of(patch) {
        let problem = format!(
            "images of {}x{} cannot be cut into patches of {patch}x{patch}; expected a divisor of both",
            shape.height, shape.width
        );
        net.refuse(Error::setting("patch", patch, problem));
        return;
    }
    // timm registers the token and the positions before the embedding; this list registers each
    // where it is first used.
    let x =
        net.conv_bias(x, "patch_embed.proj", width, Window::of(patch, patch, 0), Start::Default);
    let x = net.tokens(x);
    let x = net.prepend(x, "cls_token", Init::Normal(1e-6));
    let x = net.position(x, "pos_embed", Init::Normal(0.02));
    let mut x = net.dropout(x);
    for index in 0..DEPTH {
        x = block(net, x, &format!("blocks.{index}"), heads);
    }
    let x = net.layer_norm(x, "norm", EPSILON);
    let x = net.first(x);
    net.dense(x, "head", classes, START);
}

/// `x + attention(norm1(x))`, then `x + mlp(norm2(x))` with 4 times as many hidden features.
fn block(net: &mut Builder, x: Id, name: &str, heads: usize) -> Id {
    let (at, width) = (|part: &str| format!("{name}.{part}"), net.width());
    let y = net.layer_norm(x, &at("norm1"), EPSILON);
    let y = net.self_attention(y, &at("attn"), heads, true, START);
    let y = net.dropout(y);
    let x = net.add(x, y);
    let y = net.layer_norm(x, &at("norm2"), EPSILON);
    let y = net.dense(y, &at("mlp.fc1"), 4 * width, START);
    let y = net.act(y);
    let y = net.dropout(y);
    let y = net.dense(y, &at("mlp.fc2"), width, START);
    let y = net.dropout(y);
    net.add(x, y)
}
