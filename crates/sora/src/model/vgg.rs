//! VGG-16 with batch norm (Simonyan and Zisserman 2014, arXiv 1409.1556), with torchvision's names
//! (`features.0`, ...) and initialisation (`kaiming_normal_` by fan-out; N(0, 0.01^2) for fully
//! connected layers).
//!
//! Images below 96 pixels take the classifier of the CIFAR literature: the mean of each map and one
//! layer, `classifier`, with PyTorch's default initialisation. Larger images take torchvision's
//! classifier: a 7x7 average pool and the layers `classifier.0`, `.3` and `.6`, with dropout
//! between them at the run's rate (torchvision: 0.5).

use super::{Builder, Id, NetworkInfo, Start, Window, registry::LARGE_IMAGE};

/// The row of vgg16-bn.
pub(super) const VGG16_BN: NetworkInfo = NetworkInfo {
    name: "vgg16-bn",
    summary: "VGG-16 with batch norm, images from 32x32; below 96x96 with one fully connected \
              layer, from there with three",
    source: "Simonyan and Zisserman 2014, arXiv 1409.1556",
    names: "torchvision",
    default_width: 64,
    options: &["activation", "dropout"],
    width_from: "features.0.weight",
    classes_from: &["classifier.weight", "classifier.6.weight"],
    aliases: &[],
    build: vgg16_bn,
    ..NetworkInfo::BASE
};

const START: Start = Start::KaimingOut;
/// Number of channels of each convolution in units of the width; 0 is a pool.
const LAYERS: [usize; 18] = [1, 1, 0, 2, 2, 0, 4, 4, 4, 0, 8, 8, 8, 0, 8, 8, 8, 0];

/// The network; its first convolutions have `width` channels (64 in the paper).
fn vgg16_bn(net: &mut Builder, x: Id) {
    let (width, classes) = (net.width(), net.shape().classes);
    let mut x = x;
    // The index in torchvision's list, which also counts batch norm, activation and pool.
    let mut index = 0;
    for channels in LAYERS {
        if channels == 0 {
            x = net.max_pool(x, Window::of(2, 2, 0));
            index += 1;
        } else {
            x = net.conv_bias(
                x,
                &format!("features.{index}"),
                channels * width,
                Window::of(3, 1, 1),
                START,
            );
            x = net.norm_act(x, &format!("features.{}", index + 1));
            index += 3;
        }
    }
    if net.shape().height.min(net.shape().width) < LARGE_IMAGE {
        let x = net.global_pool(x);
        net.classifier(x, "classifier");
        return;
    }
    let x = net.adaptive_pool(x, 7);
    let mut x = net.flatten(x);
    for name in ["classifier.0", "classifier.3"] {
        x = net.dense(x, name, 64 * width, Start::Normal(0.01));
        x = net.act(x);
        x = net.dropout(x);
    }
    net.dense(x, "classifier.6", classes, Start::Normal(0.01));
}
