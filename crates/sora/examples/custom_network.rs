//! A network of your own: listed layer by layer, registered by name, and trained against FGSM for a
//! few steps on images that this program draws.
//!
//! ```text
//! cargo run --release --example custom_network
//! ```
//!
//! A registered network also trains in a run folder like any other. Without the registry,
//! [`Model::from_builder`](sora::model::Model::from_builder) makes a model of the layers directly.

use burn::tensor::{Device, Int, Tensor, TensorData};
use sora::{
    device,
    error::Result,
    gradient::{input_gradient, train_gradient},
    loss::{correct, cross_entropy},
    model::{self, Builder, Id, Model, ModelConfig, NetworkInfo, Shape, Start, Window},
    nn::{BnMode, to_vec},
    optim::{OptimizerKind, Rates},
    perturbation::{Bound, Perturb},
    threat::{Norm, Threat},
};

/// The network's row in the registry; the other fields are those of `NetworkInfo::BASE`.
static TINY: NetworkInfo = NetworkInfo {
    name: "tiny-resnet",
    summary: "one residual block",
    source: "this example",
    names: "its own",
    default_width: 8,
    classes_from: &["fc.weight"],
    build: tiny,
    ..NetworkInfo::BASE
};

/// Lists the layers, with the names that PyTorch code would have.
fn tiny(net: &mut Builder, x: Id) {
    let (width, classes) = (net.width(), net.shape().classes);
    let three = Window::of(3, 1, 1);
    let x = net.conv(x, "conv1", width, three, Start::Default);
    let active = net.norm_act(x, "bn1");
    let y = net.conv(active, "conv2", width, three, Start::Default);
    let y = net.norm_only(y, "bn2");
    let sum = net.add(y, x);
    let x = net.act(sum);
    let x = net.global_pool(x);
    net.dense(x, "fc", classes, Start::Default);
}

const SIDE: usize = 16;
const RATES: Rates = Rates { lr: 0.05, momentum: 0.9 };

/// `n` noisy images with faint stripes, which lie (class 1) or stand (class 0).
fn images(n: usize, seed: u32, device: &Device) -> (Tensor<4>, Tensor<1, Int>) {
    let mut state = seed;
    let mut draw = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 24) as f32
    };
    let classes: Vec<i32> = (0..n as i32).map(|i| i % 2).collect();
    let mut pixels = Vec::with_capacity(n * SIDE * SIDE);
    for class in &classes {
        for (row, column) in (0..SIDE).flat_map(|row| (0..SIDE).map(move |column| (row, column))) {
            let across = if *class == 1 { row } else { column };
            let bright = if across % 4 < 2 { 0.2 } else { 0.0 };
            pixels.push(0.2 + 0.5 * draw() + bright);
        }
    }
    let x = Tensor::from_data(TensorData::new(pixels, [n, 1, SIDE, SIDE]), device);
    (x, Tensor::from_data(classes.as_slice(), device))
}

fn main() -> Result<()> {
    model::register(&TINY)?;
    let device = device::device("cpu")?;
    let config = ModelConfig {
        name: TINY.name.into(),
        width: TINY.default_width,
        shape: Shape { channels: 1, height: SIDE, width: SIDE, classes: 2 },
        mean: vec![0.5],
        std: vec![0.25],
        options: Default::default(),
        onnx: None,
    };
    let mut model = Model::init(config, 0, &device)?;
    let mut optimizer = OptimizerKind::Sgd.build(&model.params, 5e-4);
    let threat = Threat { norm: Norm::Linf, epsilon: 8.0 / 255.0 };
    let attack = |model: &Model, x: &Tensor<4>, labels: &Tensor<1, Int>| {
        let loss = |logits| cross_entropy(logits, labels.clone());
        let gradient = input_gradient(model, x.clone(), BnMode::Eval, loss).grad;
        x.clone() + threat.step(x, None, gradient, threat.epsilon, None, Bound::Box)
    };
    for step in 0..40 {
        let (x, labels) = images(32, step, &device);
        let worst = attack(&model, &x, &labels);
        let out = train_gradient(&model, worst, labels);
        model.absorb(out.stats);
        optimizer.step(&mut model.params, out.params, RATES);
        if step % 10 == 9 {
            println!("step {}: loss {:.3}", step + 1, to_vec(&out.loss)?[0]);
        }
    }
    let (x, labels) = images(200, 1_000_000, &device);
    let accuracy = |x| -> Result<f32> {
        Ok(100.0 * to_vec(&correct(model.logits(x), labels.clone()).mean())?[0])
    };
    let clean = accuracy(x.clone())?;
    let fgsm = accuracy(attack(&model, &x, &labels))?;
    println!("clean {clean:.1} %, fgsm {fgsm:.1} % of 200 images");
    Ok(())
}
