//! Gradients against finite differences of the loss itself.

use burn::tensor::{Device, Tensor, TensorData};
use sora::{
    gradient::{input_gradient, train_gradient},
    loss::cross_entropy,
    nn::BnMode,
};
use sora_rng::{Key, Purpose, fill_uniform};

use crate::support::{host, small_model};

fn images(n: usize, side: usize) -> Vec<f32> {
    let ids: Vec<u32> = (0..n as u32).collect();
    let mut pixels = vec![0.0; n * 3 * side * side];
    fill_uniform(&mut pixels, Key::new(3, Purpose::Synthetic), &ids);
    pixels
}

/// Within 4 % of what a directional derivative of this gradient typically is: ReLU's kinks and
/// single precision leave that much.
#[track_caller]
fn close(what: &str, analytic: f64, numeric: f64, gradient: &[f32], direction: &[f32]) {
    let typical =
        gradient.iter().zip(direction).map(|(g, d)| f64::from(g * d).powi(2)).sum::<f64>().sqrt();
    let allowed = 0.04 * (typical + analytic.abs());
    assert!(
        (analytic - numeric).abs() <= allowed,
        "{what}: gradient says {analytic}, differences say {numeric}, allowed {allowed}"
    );
}

/// Compares `<gradient, direction>` with a central difference along random directions.
#[test]
fn input_and_weight_gradients_match_finite_differences() {
    let (n, side, device) = (8, 16, Device::flex());
    let model = small_model(5, 3, side);
    let pixels = images(n, side);
    let labels = || Tensor::from_data([1, 7, 3, 3, 0, 9, 2, 5], &device);
    let tensor = |pixels: &[f32]| {
        Tensor::<4>::from_data(TensorData::new(pixels.to_vec(), [n, 3, side, side]), &device)
    };
    let direction = |len: usize, salt: u64| {
        let mut direction = vec![0.0; len];
        fill_uniform(&mut direction, Key::new(salt, Purpose::Diagnose(0)), &[0]);
        direction.iter_mut().for_each(|v| *v -= 0.5);
        direction
    };
    let dot = |a: &[f32], b: &[f32]| {
        a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>()
    };

    // Batch statistics make the loss bend more, so the steps must be shorter; in eval mode an
    // untrained network is nearly flat.
    for (mode, h) in [(BnMode::Train, 2e-4f32), (BnMode::Eval, 4e-3)] {
        let loss_at = |pixels: &[f32]| {
            let (logits, _) = model.forward(&model.params.frozen(), tensor(pixels), mode);
            f64::from(host(&cross_entropy(logits, labels()))[0])
        };
        let gradient = host(
            &input_gradient(&model, tensor(&pixels), mode, |logits| {
                cross_entropy(logits, labels())
            })
            .grad,
        );
        for salt in 0..4 {
            let mut d = direction(pixels.len(), salt);
            // Along random directions the terms nearly cancel; along the gradient's own signs they
            // add up.
            if salt % 2 == 0 {
                d.iter_mut().zip(&gradient).for_each(|(d, g)| *d = d.abs() * g.signum());
            }
            let shifted = |sign: f32| {
                pixels.iter().zip(&d).map(|(x, d)| x + sign * h * d).collect::<Vec<_>>()
            };
            let numeric = (loss_at(&shifted(1.0)) - loss_at(&shifted(-1.0))) / (2.0 * f64::from(h));
            let analytic = dot(&gradient, &d);
            close(&format!("{mode:?} input"), analytic, numeric, &gradient, &d);
        }
    }

    let h = 2e-4f32;
    let gradients = train_gradient(&model, tensor(&pixels), labels()).params;
    for name in [
        "conv1.weight",
        "layer1.0.bn1.weight",
        "layer2.0.shortcut.0.weight",
        "layer4.1.conv2.weight",
        "bn.bias",
        "linear.weight",
        "linear.bias",
    ] {
        let index = model.params.specs().iter().position(|spec| spec.name == name).unwrap();
        let value = host(&model.params.values()[index]);
        let gradient = host(&gradients[index]);
        let d: Vec<f32> = direction(value.len(), 9)
            .iter()
            .zip(&gradient)
            .map(|(d, g)| d.abs() * g.signum())
            .collect();
        let loss_at = |sign: f32| {
            let mut moved = model.clone();
            let shifted: Vec<f32> = value.iter().zip(&d).map(|(x, d)| x + sign * h * d).collect();
            moved.params.set(index, Tensor::from_data(shifted.as_slice(), &device));
            let (logits, _) = moved.forward(&moved.params.frozen(), tensor(&pixels), BnMode::Train);
            f64::from(host(&cross_entropy(logits, labels()))[0])
        };
        let numeric = (loss_at(1.0) - loss_at(-1.0)) / (2.0 * f64::from(h));
        close(name, dot(&gradient, &d), numeric, &gradient, &d);
    }
}
