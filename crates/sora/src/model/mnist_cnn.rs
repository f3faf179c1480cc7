//! The small network of the fast-training literature for MNIST (Wong et al. 2020, arXiv
//! 2001.03994): two 4x4 convolutions of stride 2 with bias, and two fully connected layers. The
//! names are those of its `nn.Sequential` (`0`, `2`, `5`, `7`), the initialisation is PyTorch's
//! default.

use super::{Builder, Id, NetworkInfo, Start, Window};

/// The row of mnist-cnn.
pub(super) const MNIST_CNN: NetworkInfo = NetworkInfo {
    name: "mnist-cnn",
    summary: "two 4x4 convolutions and two fully connected layers, the small network of fast \
              training on MNIST",
    source: "Wong et al. 2020, arXiv 2001.03994",
    names: "its nn.Sequential; PyTorch's default start",
    default_width: 16,
    options: &["activation"],
    width_from: "0.weight",
    classes_from: &["7.weight"],
    aliases: &[],
    build: mnist_cnn,
    ..NetworkInfo::BASE
};

const START: Start = Start::Default;
/// Features of the hidden layer.
const HIDDEN: usize = 100;

/// The network; its convolutions have `width` and twice `width` channels (16 in the literature).
fn mnist_cnn(net: &mut Builder, x: Id) {
    let (width, classes) = (net.width(), net.shape().classes);
    let x = net.conv_bias(x, "0", width, Window::of(4, 2, 1), START);
    let x = net.act(x);
    let x = net.conv_bias(x, "2", 2 * width, Window::of(4, 2, 1), START);
    let x = net.act(x);
    let x = net.flatten(x);
    let x = net.dense(x, "5", HIDDEN, START);
    let x = net.act(x);
    net.dense(x, "7", classes, START);
}
