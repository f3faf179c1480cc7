//! The small network of the fast-training literature for MNIST (Wong et al. 2020, arXiv
//! 2001.03994): two 4x4 convolutions of stride 2 with bias, two fully connected layers. Names are
//! those of its `nn.Sequential` (`0`, `2`, `5`, `7`). PyTorch's default initialisation.

use super::graph::{Builder, Id, Start, Window};

const START: Start = Start::Default;
/// Features of the hidden layer.
const HIDDEN: usize = 100;

/// The network; its convolutions have `width` and twice `width` channels (16 in the literature).
pub(super) fn mnist_cnn(net: &mut Builder<'_>, x: Id) {
    let (width, classes) = (net.width, net.shape.classes);
    let x = net.conv_bias(x, "0", width, Window(4, 2, 1), START);
    let x = net.act(x);
    let x = net.conv_bias(x, "2", 2 * width, Window(4, 2, 1), START);
    let x = net.act(x);
    let x = net.flatten(x);
    let x = net.dense(x, "5", HIDDEN, START);
    let x = net.act(x);
    net.dense(x, "7", classes, START);
}
