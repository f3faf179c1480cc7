//! The work of a training step outside the network, on the CPU, each part in one pass over memory:
//! the arithmetic of perturbations, the figures of a step, the optimizer's update.

use burn::tensor::Tensor;
use burn_flex::Flex;
use rayon::prelude::*;
use sora_kernels::{gate::add, sgd::Sgd};

use super::{
    buffers::Output,
    flex::{dims, floats, isa, ok, primitive},
};
use crate::compute::{Agreement, SampleSums, SignStep};

/// Values that one task processes.
const CHUNK: usize = 1 << 14;

fn finished(output: Output) -> Tensor<4> {
    Tensor::from_primitive::<Flex>(output.finish())
}

/// The sign with Burn's convention: 0 for 0, and NaN for NaN.
fn sign(x: f32) -> f32 {
    if x > 0.0 {
        1.0
    } else if x < 0.0 {
        -1.0
    } else {
        x * 0.0
    }
}

/// Clamps `delta` to `low..=high`, and keeps NaN, as PyTorch does: `min` and `max` would make the
/// gradient of a diverged network a step far outside the ball, and hide it.
fn clamped(delta: f32, low: f32, high: f32) -> f32 {
    if delta < low {
        low
    } else if delta > high {
        high
    } else {
        delta
    }
}

/// Clamps `delta` so that `x + delta` stays in [0, 1].
fn clamped_to_box(x: f32, delta: f32) -> f32 {
    clamped(delta, -x, 1.0 - x)
}

/// `x + delta`. Both are on the CPU, without autodiff.
pub(crate) fn moved(x: &Tensor<4>, delta: &Tensor<4>) -> Tensor<4> {
    let [x, delta] = [x, delta].map(|tensor| primitive(tensor.clone()));
    let mut out = Output::new(dims::<4>(&x));
    ok(add(isa(), floats(&x), floats(&delta), out.as_mut()));
    finished(out)
}

/// Clamps `delta` so that `x + delta` stays in [0, 1]. Both are on the CPU, without autodiff.
pub(crate) fn clamp_to_box(x: &Tensor<4>, delta: Tensor<4>) -> Tensor<4> {
    let (x, delta) = (primitive(x.clone()), primitive(delta));
    let mut out = Output::new(dims::<4>(&x));
    let chunks = out
        .as_mut()
        .par_chunks_mut(CHUNK)
        .zip(floats(&x).par_chunks(CHUNK))
        .zip(floats(&delta).par_chunks(CHUNK));
    chunks.for_each(|((out, x), delta)| {
        out.iter_mut()
            .zip(x)
            .zip(delta)
            .for_each(|((out, &x), &delta)| *out = clamped_to_box(x, delta));
    });
    finished(out)
}

/// A step of a perturbation, of length `alpha`. All tensors are on the CPU and of one shape.
pub(crate) fn sign_step(step: SignStep<'_>, alpha: f32) -> Tensor<4> {
    let SignStep { x, start, grad, factor, radius, .. } = step;
    let (x, grad, start, factor) =
        (primitive(x.clone()), primitive(grad), start.map(primitive), factor.map(primitive));
    let (x_values, start, factor) =
        (floats(&x), start.as_ref().map(floats), factor.as_ref().map(floats));
    let mut out = Output::new(dims::<4>(&x));
    let chunks = out.as_mut().par_chunks_mut(CHUNK).zip(floats(&grad).par_chunks(CHUNK));
    chunks.enumerate().for_each(|(chunk, (out, grad))| {
        let at = chunk * CHUNK;
        let len = out.len();
        out.iter_mut().zip(grad).for_each(|(out, &grad)| *out = sign(grad) * alpha);
        if let Some(factor) = factor {
            out.iter_mut().zip(&factor[at..at + len]).for_each(|(out, factor)| *out *= factor);
        }
        if let Some(start) = start {
            out.iter_mut().zip(&start[at..at + len]).for_each(|(out, start)| *out += start);
        }
        if let Some(radius) = radius {
            out.iter_mut().for_each(|out| *out = clamped(*out, -radius, radius));
        }
        out.iter_mut()
            .zip(&x_values[at..at + len])
            .for_each(|(out, &x)| *out = clamped_to_box(x, *out));
    });
    finished(out)
}

/// Agreement of the gradients of a step's attack pass and training pass, `[N, C, H, W]`, on the
/// CPU. Linearity is measured along the sign of `attack`, or along `attack` itself.
pub(crate) fn agreement(
    along_sign: bool,
    attack: &Tensor<4>,
    train: &Tensor<4>,
    delta: &Tensor<4>,
) -> Agreement {
    let [attack, train, delta] = [attack, train, delta].map(|tensor| primitive(tensor.clone()));
    let [_, c, h, w] = dims(&attack);
    let len = (c * h * w).max(1);
    let samples: Vec<SampleSums> = floats(&attack)
        .par_chunks(len)
        .zip(floats(&train).par_chunks(len))
        .zip(floats(&delta).par_chunks(len))
        .map(|((attack, train), delta)| {
            let mut sums = SampleSums::default();
            // Short sums of f32 products in f64 neither overflow nor underflow, whatever the size
            // of the gradients.
            for ((&a, &t), &d) in attack.iter().zip(train).zip(delta) {
                let (wide_a, wide_t) = (f64::from(a), f64::from(t));
                let step = if along_sign { f64::from(sign(a)) } else { wide_a };
                sums.attack += wide_a * wide_a;
                sums.train += wide_t * wide_t;
                sums.dot += wide_a * wide_t;
                sums.top += step * wide_t;
                sums.bottom += step * wide_a;
                sums.delta += f64::from(d.abs());
            }
            sums
        })
        .collect();
    SampleSums::agreement(&samples, len)
}

/// One fused SGD update of `[value, buffer]` with `gradient`, in place where they have no other
/// owner. All are on the CPU.
pub(crate) fn sgd_step(
    sgd: &Sgd,
    value: Tensor<1>,
    buffer: Tensor<1>,
    gradient: Tensor<1>,
) -> [Tensor<1>; 2] {
    let (mut value, mut buffer, gradient) =
        (primitive(value), primitive(buffer), primitive(gradient));
    ok(sgd.step(isa(), value.storage_mut(), floats(&gradient), buffer.storage_mut()));
    [value, buffer].map(Tensor::from_primitive::<Flex>)
}
