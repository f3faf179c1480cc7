//! PreActResNet (He et al. 2016, arXiv 1603.05027) with the CIFAR stem, the network of the fast-adversarial-training literature.
//!
//! Names of the weights are those of the public implementations (`conv1`, `layer1.0.bn1`, `layer2.0.shortcut.0`, `bn`, `linear`).
//! The projection shortcut takes the pre-activated input, as they do.

use burn::tensor::Tensor;

use super::{Network, Shape};
use crate::nn::{BatchNorm, Conv2d, Feature, Flat, Linear, Pass, SpecBuilder, Weights, enter, global_avg_pool};

/// Pre-activation basic block: `x' + conv2(relu(bn2(conv1(relu(bn1(x))))))`.
#[derive(Debug)]
struct Block {
    bn1: BatchNorm,
    conv1: Conv2d,
    bn2: BatchNorm,
    conv2: Conv2d,
    shortcut: Option<Conv2d>,
}

impl Block {
    fn new(specs: &mut SpecBuilder, name: &str, cin: usize, cout: usize, stride: usize) -> Self {
        Self {
            bn1: BatchNorm::new(specs, &format!("{name}.bn1"), cin),
            conv1: Conv2d::new(specs, &format!("{name}.conv1"), [cin, cout], 3, stride, 1),
            bn2: BatchNorm::new(specs, &format!("{name}.bn2"), cout),
            conv2: Conv2d::new(specs, &format!("{name}.conv2"), [cout, cout], 3, 1, 1),
            shortcut: (stride != 1 || cin != cout).then(|| Conv2d::new(specs, &format!("{name}.shortcut.0"), [cin, cout], 1, stride, 0)),
        }
    }

    fn forward(&self, weights: &Weights, x: Feature, pass: &mut Pass) -> Feature {
        let (out, shortcut) = match &self.shortcut {
            Some(conv) => {
                let out = self.bn1.forward_relu(weights, x, pass);
                (out.clone(), conv.forward(weights, out, pass))
            }
            None => (self.bn1.forward_relu_beside_shortcut(weights, x.clone(), pass), x),
        };
        let out = self.conv1.forward(weights, out, pass);
        let out = self.bn2.forward_relu(weights, out, pass);
        self.conv2.forward_add(weights, out, shortcut, pass)
    }
}

/// The network's structure; its values live in a [`TensorSet`](crate::nn::TensorSet).
#[derive(Debug)]
pub struct PreActResNet {
    conv1: Conv2d,
    blocks: Vec<Block>,
    bn: BatchNorm,
    linear: Linear,
}

impl PreActResNet {
    /// Stages of `depths` blocks with `width`, 2, 4 and 8 times `width` channels; `[2, 2, 2, 2]` is PreActResNet-18.
    pub fn new(specs: &mut SpecBuilder, depths: [usize; 4], width: usize, shape: Shape) -> Self {
        let conv1 = Conv2d::new(specs, "conv1", [shape.channels, width], 3, 1, 1);
        let mut blocks = Vec::new();
        let mut cin = width;
        for (stage, depth) in depths.into_iter().enumerate() {
            let cout = width << stage;
            for index in 0..depth {
                let stride = if stage > 0 && index == 0 { 2 } else { 1 };
                blocks.push(Block::new(specs, &format!("layer{}.{index}", stage + 1), cin, cout, stride));
                cin = cout;
            }
        }
        Self { conv1, blocks, bn: BatchNorm::new(specs, "bn", cin), linear: Linear::new(specs, "linear", [cin, shape.classes]) }
    }
}

impl Network for PreActResNet {
    fn forward(&self, weights: &Weights, x: Tensor<4>, pass: &mut Pass) -> Flat {
        let mut out = self.conv1.forward(weights, enter(x, pass), pass);
        for block in &self.blocks {
            out = block.forward(weights, out, pass);
        }
        let out = self.bn.forward_relu(weights, out, pass);
        self.linear.forward(weights, global_avg_pool(out, pass), pass)
    }
}
