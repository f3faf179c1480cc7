//! Everything but convolutions against plain `f64` references, on every instruction set of this
//! machine.

#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use common::{
    assert_close, cases, instruction_sets, moments, narrowed, on_threads, to_f64, values,
    values_as, widened,
};
use proptest::prelude::*;
use sora_kernels::activation::{add_relu, gelu, gelu_grad, relu, relu_grad, relu_grad_in_place};
use sora_kernels::attention::Attention;
use sora_kernels::batch_norm::{BatchNorm, Statistics};
use sora_kernels::channels::{channel_moments, channel_sums};
use sora_kernels::conv::{Addend, Direction};
use sora_kernels::layer_norm::LayerNorm;
use sora_kernels::layout::{Dimensions, hwnc_to_nchw, nchw_to_hwnc};
use sora_kernels::linear::Linear;
use sora_kernels::loss::softmax_cross_entropy;
use sora_kernels::pool::{PoolWindow, global_average, global_average_grad};
use sora_kernels::sgd::Sgd;
use sora_kernels::{Buffer, Isa, bf16};

const TOLERANCE: f64 = 1e-5;

/// Central difference of `f` at `x` in direction `i`.
fn slope(x: &[f64], i: usize, f: impl Fn(&[f64]) -> f64) -> f64 {
    let h = 1e-5;
    let mut at = x.to_vec();
    at[i] = x[i] + h;
    let up = f(&at);
    at[i] = x[i] - h;
    (up - f(&at)) / (2.0 * h)
}

struct BatchNormCase {
    x: Vec<f32>,
    dy: Vec<f32>,
    add: Vec<f32>,
    mean: Vec<f32>,
    variance: Vec<f32>,
    gamma: Vec<f32>,
    beta: Vec<f32>,
    relu: bool,
}

impl BatchNormCase {
    fn new(isa: Isa, rows: usize, c: usize, relu: bool) -> Self {
        let x = values(rows * c, 1, 0.5);
        let (mut mean, mut variance) = (vec![0.0; c], vec![0.0; c]);
        channel_moments(isa, &x, &mut mean, &mut variance).unwrap();
        Self {
            dy: values(rows * c, 2, 0.2),
            add: values(rows * c, 3, 0.0),
            gamma: values(c, 4, 1.5),
            beta: values(c, 5, 0.2),
            x,
            mean,
            variance,
            relu,
        }
    }

    fn norm(&self) -> BatchNorm<'_> {
        BatchNorm {
            mean: &self.mean,
            variance: &self.variance,
            gamma: &self.gamma,
            beta: &self.beta,
            epsilon: 1e-5,
            relu: self.relu,
        }
    }

    /// Loss `sum(dy y)` as a function of the input, with the statistics of the input or constant
    /// ones.
    fn loss(&self, x: &[f64], gamma: &[f64], beta: &[f64], batch: bool) -> f64 {
        let c = gamma.len();
        let (mean, variance) =
            if batch { moments(x, c) } else { (to_f64(&self.mean), to_f64(&self.variance)) };
        x.iter()
            .enumerate()
            .map(|(i, x)| {
                let k = i % c;
                let v = (x - mean[k]) / (variance[k] + 1e-5).sqrt() * gamma[k] + beta[k];
                let v = if self.relu { v.max(0.0) } else { v };
                v * f64::from(self.dy[i])
            })
            .sum()
    }
}

#[test]
fn batch_norm_gradients_match_finite_differences() {
    for isa in Isa::available() {
        let all = [(40, 3, true), (33, 5, false), (7, 20, true)];
        for (rows, c, relu) in cases(&all, &[(5, 3, true), (3, 9, false)]) {
            let case = BatchNormCase::new(isa, rows, c, relu);
            let norm = case.norm();
            let (x, gamma, beta) = (to_f64(&case.x), to_f64(&case.gamma), to_f64(&case.beta));
            let mut y = vec![f32::NAN; x.len()];
            norm.forward(isa, &case.x, &mut y).unwrap();
            let loss: f64 = y.iter().zip(&case.dy).map(|(y, d)| f64::from(y * d)).sum();
            let expected = case.loss(&x, &gamma, &beta, true);
            assert!((loss - expected).abs() < 1e-4 * expected.abs().max(1.0));

            let (mut dgamma, mut dbeta) = (vec![0.0; c], vec![0.0; c]);
            norm.parameter_grads(isa, &case.x, &case.dy, &mut dgamma, &mut dbeta).unwrap();
            let expected: Vec<f64> =
                (0..c).map(|i| slope(&gamma, i, |g| case.loss(&x, g, &beta, true))).collect();
            assert_close("dgamma", &dgamma, &expected, TOLERANCE);
            let expected: Vec<f64> =
                (0..c).map(|i| slope(&beta, i, |b| case.loss(&x, &gamma, b, true))).collect();
            assert_close("dbeta", &dbeta, &expected, TOLERANCE);

            for batch in [true, false] {
                let statistics = if batch {
                    Statistics::Batch { dgamma: &dgamma, dbeta: &dbeta }
                } else {
                    Statistics::Constant
                };
                let expected: Vec<f64> = (0..x.len())
                    .map(|i| slope(&x, i, |x| case.loss(x, &gamma, &beta, batch)))
                    .collect();
                let run = |add| {
                    let mut dx = case.add.clone();
                    norm.input_grad(isa, &case.x, &case.dy, statistics, &mut dx, add).unwrap();
                    dx
                };
                assert_close("dx", &run(Addend::None), &expected, 5e-5);
                let sum: Vec<f64> =
                    expected.iter().zip(&case.add).map(|(d, a)| d + f64::from(*a)).collect();
                assert_close("dx + add", &run(Addend::Tensor(&case.add)), &sum, 5e-5);
                assert_close("dx += ", &run(Addend::Output), &sum, 5e-5);
                for add in [None, Some(&case.add[..])] {
                    let mut gradient = case.dy.clone();
                    norm.input_grad_in_place(isa, &case.x, &mut gradient, statistics, add).unwrap();
                    assert_eq!(gradient, run(add.map_or(Addend::None, Addend::Tensor)), "in place");
                }
            }
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "the kernels use one thread")]
fn batch_norm_spans_many_tasks_with_the_same_bits_on_any_number_of_threads() {
    for isa in Isa::available() {
        for c in [3, 64, 300] {
            let run = || {
                let case = BatchNormCase::new(isa, 200_000 / c, c, true);
                let mut y = vec![0.0; case.x.len()];
                case.norm().forward(isa, &case.x, &mut y).unwrap();
                let (mut dgamma, mut dbeta) = (vec![0.0; c], vec![0.0; c]);
                case.norm()
                    .parameter_grads(isa, &case.x, &case.dy, &mut dgamma, &mut dbeta)
                    .unwrap();
                (case.mean, case.variance, y, dgamma, dbeta)
            };
            let one = on_threads(1, run);
            assert!(one == on_threads(2, run) && one == on_threads(3, run));
            let x = to_f64(&values(200_000 / c * c, 1, 0.5));
            let (mean, variance) = moments(&x, c);
            assert_close("mean", &one.0, &mean, 5e-6);
            assert_close("variance", &one.1, &variance, 5e-6);
        }
    }
}

#[test]
fn moments_survive_a_large_mean() {
    for isa in Isa::available() {
        let x = values(cases(&[30_000], &[300])[0], 1, 4096.0);
        let (mut mean, mut variance) = (vec![0.0; 3], vec![0.0; 3]);
        channel_moments(isa, &x, &mut mean, &mut variance).unwrap();
        let (_, expected) = moments(&to_f64(&x), 3);
        assert_close("variance", &variance, &expected, 1e-5);
    }
}

#[test]
fn channel_sums_of_odd_channels() {
    for isa in Isa::available() {
        let all = [(0, 4), (1, 1), (70_000, 3), (500, 257)];
        for (rows, c) in cases(&all, &[(0, 4), (1, 1), (40, 3), (3, 37)]) {
            let x = values(rows * c, 9, 0.1);
            let mut sums = vec![f32::NAN; c];
            channel_sums(isa, &x, &mut sums).unwrap();
            let expected: Vec<f64> =
                (0..c).map(|k| x.iter().skip(k).step_by(c).map(|&x| f64::from(x)).sum()).collect();
            assert_close("sums", &sums, &expected, TOLERANCE);
        }
    }
}

#[test]
fn relu_keeps_nan_and_masks() {
    for isa in Isa::available() {
        let x = [-1.0, -0.0, 0.0, 2.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY];
        let mut y = [9.0; 7];
        relu(isa, &x, &mut y).unwrap();
        assert_eq!(y[..4], [0.0, 0.0, 0.0, 2.0]);
        assert!(y[4].is_nan() && y[5] == f32::INFINITY && y[6] == 0.0);
        let mut dx = [9.0; 7];
        relu_grad(isa, &x, &[3.0; 7], &mut dx).unwrap();
        assert_eq!(dx, [0.0, 0.0, 0.0, 3.0, 3.0, 3.0, 0.0]);
        let mut gradient = [3.0; 7];
        relu_grad_in_place(isa, &y, &mut gradient).unwrap();
        assert_eq!(gradient, dx, "the result of a ReLU gates as its input does");
        let case = BatchNormCase::new(isa, 4, 1, true);
        case.norm().forward(isa, &[f32::NAN], &mut y[..1]).unwrap();
        assert!(y[0].is_nan(), "batch norm with ReLU keeps NaN");
    }
}

/// A residual sum in bf16 is the sum in f32, rounded once, whatever the length.
#[test]
fn add_relu_adds_rounds_and_gates() {
    for isa in Isa::available() {
        for len in cases(&[0, 1, 15, 16, 33, 70_001], &[0, 1, 15, 16, 33]) {
            let [x, add] = [21, 22].map(|seed| values_as::<bf16>(len, seed, 0.0));
            let mut y = vec![bf16::NAN; len];
            add_relu(isa, &x, &add, &mut y).unwrap();
            let want: Vec<bf16> = (x.iter().zip(&add))
                .map(|(x, add)| bf16::from_f32((x.to_f32() + add.to_f32()).max(0.0)))
                .collect();
            assert_eq!(y, want, "{isa:?}");
            let mut gradient = add.clone();
            relu_grad_in_place(isa, &y, &mut gradient).unwrap();
            let gated = |(y, dy): (&bf16, &bf16)| if *y > bf16::ZERO { *dy } else { bf16::ZERO };
            assert_eq!(gradient, want.iter().zip(&add).map(gated).collect::<Vec<_>>());
        }
        let mut y = [0.0; 2];
        add_relu(isa, &[f32::NAN, 1.0], &[1.0, f32::INFINITY], &mut y).unwrap();
        assert!(y[0].is_nan() && y[1] == f32::INFINITY);
        assert!(add_relu(isa, &[1.0; 3], &[1.0; 2], &mut [0.0; 3]).is_err());
        assert!(relu_grad_in_place(isa, &[1.0; 3], &mut [0.0; 2]).is_err());
    }
}

/// erf by its Maclaurin series, enough terms for |x| <= 4.
fn erf(x: f64) -> f64 {
    let (mut term, mut sum) = (x, x);
    for k in 1..200 {
        term *= -x * x / f64::from(k);
        sum += term / f64::from(2 * k + 1);
    }
    sum * std::f64::consts::FRAC_2_SQRT_PI
}

#[test]
fn gelu_is_exact() {
    let step = cases(&[1], &[80])[0];
    let x: Vec<f32> = (-400..=400).step_by(step).map(|i| i as f32 / 100.0).collect();
    let reference = |x: f64| 0.5 * x * (1.0 + erf(x * std::f64::consts::FRAC_1_SQRT_2));
    for isa in Isa::available() {
        let (mut y, mut dx) = (vec![0.0; x.len()], vec![0.0; x.len()]);
        gelu(isa, &x, &mut y).unwrap();
        gelu_grad(isa, &x, &vec![2.0; x.len()], &mut dx).unwrap();
        let x = to_f64(&x);
        let expected: Vec<f64> = x.iter().map(|&x| reference(x)).collect();
        assert_close("gelu", &y, &expected, 1e-6);
        let expected: Vec<f64> =
            (0..x.len()).map(|i| 2.0 * slope(&x, i, |x| reference(x[i]))).collect();
        assert_close("gelu gradient", &dx, &expected, 1e-6);
        // Far below 0 the value is small, and right by itself: Phi(-5), Phi(-9) and Phi(-12.5) of a
        // table in 20 digits.
        let mut tail = [0.0; 4];
        gelu(isa, &[-5.0, -9.0, -12.5, -40.0], &mut tail).unwrap();
        for (y, want) in tail.iter().zip([
            -5.0 * 2.866_515_718_791_939e-7,
            -9.0 * 1.128_588_405_953_840_6e-19,
            -12.5 * 3.732_564_298_877_714e-36,
        ]) {
            assert!((f64::from(*y) / want - 1.0).abs() < 1e-5, "{isa:?}: {y} instead of {want}");
        }
        assert_eq!(tail[3], 0.0);
        let mut ends = [0.0; 3];
        gelu_grad(isa, &[f32::INFINITY, f32::NEG_INFINITY, f32::NAN], &[1.0; 3], &mut ends)
            .unwrap();
        assert!(ends[0] == 1.0 && ends[1] == 0.0 && ends[2].is_nan());
    }
}

#[test]
fn attention_matches_a_plain_reference_and_its_slopes() {
    let all = [(2, 5, 3, 4), (1, 1, 1, 1), (3, 19, 2, 7), (1, 33, 1, 18), (0, 4, 2, 2)];
    for (n, tokens, heads, width) in cases(&all, &[(1, 5, 1, 9), (2, 1, 2, 1), (0, 4, 2, 2)]) {
        let len = tokens * heads * width;
        let attention = Attention { tokens, heads, width };
        let at = |part: usize, token: usize, head: usize, c: usize| {
            ((token * 3 + part) * heads + head) * width + c
        };
        let reference = |qkv: &[f64]| -> Vec<f64> {
            let mut out = Vec::new();
            for (i, head, c) in (0..tokens)
                .flat_map(|i| (0..heads).flat_map(move |h| (0..width).map(move |c| (i, h, c))))
            {
                let score = |j| {
                    (0..width).map(|c| qkv[at(0, i, head, c)] * qkv[at(1, j, head, c)]).sum::<f64>()
                        / (width as f64).sqrt()
                };
                let total: f64 = (0..tokens).map(|j| score(j).exp()).sum();
                out.push(
                    (0..tokens).map(|j| score(j).exp() / total * qkv[at(2, j, head, c)]).sum(),
                );
            }
            out
        };
        let (qkv, dout) = (values(3 * n * len, 1, 0.0), values(n * len, 2, 0.0));
        for isa in Isa::available() {
            let (mut out, mut dqkv) = (vec![f32::NAN; n * len], vec![f32::NAN; 3 * n * len]);
            attention.forward(isa, &qkv, &mut out).unwrap();
            attention.backward(isa, &qkv, &dout, &mut dqkv).unwrap();
            for ((qkv, dout), (out, dqkv)) in qkv
                .chunks(3 * len)
                .zip(dout.chunks(len))
                .zip(out.chunks(len).zip(dqkv.chunks(3 * len)))
            {
                let qkv = to_f64(qkv);
                assert_close("attention", out, &reference(&qkv), 1e-5);
                let loss = |x: &[f64]| -> f64 {
                    reference(x).iter().zip(dout).map(|(y, d)| y * f64::from(*d)).sum()
                };
                // Every element of the small ones, some of the others.
                let checked: Vec<usize> = (0..3 * len).step_by(len.div_ceil(20).max(1)).collect();
                let expected: Vec<f64> = checked.iter().map(|&i| slope(&qkv, i, loss)).collect();
                let found: Vec<f32> = checked.iter().map(|&i| dqkv[i]).collect();
                assert_close("attention gradient", &found, &expected, 1e-5);
            }
        }
    }
    let attention = Attention { tokens: 4, heads: 2, width: 3 };
    let isa = Isa::Portable;
    assert!(attention.forward(isa, &[0.0; 72], &mut [0.0; 23]).is_err());
    assert!(attention.forward(isa, &[0.0; 69], &mut [0.0; 23]).is_err(), "no whole sequence");
    assert!(attention.backward(isa, &[0.0; 72], &[0.0; 24], &mut [0.0; 71]).is_err());
    assert!(Attention { heads: 0, ..attention }.forward(isa, &[], &mut []).is_err());
    // A score that is not finite shows in the output and harms no other sequence.
    let (mut qkv, mut out) = (values(144, 3, 0.0), vec![0.0; 48]);
    qkv[0] = f32::NAN;
    attention.forward(isa, &qkv, &mut out).unwrap();
    assert!(out[0].is_nan() && out[24..].iter().all(|v| v.is_finite()));
}

#[test]
fn layer_norm_matches_finite_differences() {
    for (rows, d) in cases(&[(3, 5), (70, 17), (2, 64)], &[(3, 5), (2, 9)]) {
        let x = values(rows * d, 1, 0.3);
        let (gamma, beta) = (values(d, 2, 1.0), values(d, 3, 0.0));
        let dy = values(rows * d, 4, 0.0);
        let norm = LayerNorm { gamma: &gamma, beta: &beta, epsilon: 1e-5 };
        let loss = |x: &[f64], gamma: &[f64], beta: &[f64]| -> f64 {
            let mut total = 0.0;
            for (r, row) in x.chunks(d).enumerate() {
                let mean = row.iter().sum::<f64>() / d as f64;
                let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / d as f64;
                for (i, x) in row.iter().enumerate() {
                    let y = (x - mean) / (variance + 1e-5).sqrt() * gamma[i] + beta[i];
                    total += y * f64::from(dy[r * d + i]);
                }
            }
            total
        };
        let (x64, g64, b64) = (to_f64(&x), to_f64(&gamma), to_f64(&beta));
        let mut y = vec![0.0; x.len()];
        norm.forward(&x, &mut y).unwrap();
        let actual: f64 = y.iter().zip(&dy).map(|(y, d)| f64::from(y * d)).sum();
        assert!((actual - loss(&x64, &g64, &b64)).abs() < 1e-4);
        let (mut dx, mut dgamma, mut dbeta) = (vec![0.0; x.len()], vec![0.0; d], vec![0.0; d]);
        norm.backward(&x, &dy, &mut dx, &mut dgamma, &mut dbeta).unwrap();
        let expected: Vec<f64> =
            (0..x.len().min(40)).map(|i| slope(&x64, i, |x| loss(x, &g64, &b64))).collect();
        assert_close("dx", &dx[..expected.len()], &expected, 5e-5);
        let expected: Vec<f64> = (0..d).map(|i| slope(&g64, i, |g| loss(&x64, g, &b64))).collect();
        assert_close("dgamma", &dgamma, &expected, 5e-5);
        let expected: Vec<f64> = (0..d).map(|i| slope(&b64, i, |b| loss(&x64, &g64, b))).collect();
        assert_close("dbeta", &dbeta, &expected, 5e-5);
    }
}

#[test]
fn linear_in_every_direction() {
    for isa in Isa::available() {
        let all = [(128, 512, 10), (5, 7, 3), (1, 1, 1), (600, 20, 40), (0, 4, 4)];
        for (n, inputs, outputs) in cases(&all, &[(5, 7, 3), (1, 1, 1), (3, 5, 10), (0, 4, 4)]) {
            let layer = Linear::<f32>::new(inputs, outputs, isa).unwrap();
            let (x, w) = (values(n * inputs, 1, 0.1), values(outputs * inputs, 2, 0.0));
            let (bias, dy) = (values(outputs, 3, 0.0), values(n * outputs, 4, 0.0));
            let mut y = vec![f32::NAN; n * outputs];
            let packed = layer.pack(&w, Direction::Forward).unwrap();
            layer.forward(n, &x, &packed, Some(&bias), &mut y).unwrap();
            let mut dx = vec![f32::NAN; x.len()];
            let packed = layer.pack(&w, Direction::InputGrad).unwrap();
            layer.input_grad(n, &dy, &packed, &mut dx, Addend::None.into()).unwrap();
            let mut dw = vec![f32::NAN; w.len()];
            layer.weight_grad(n, &x, &dy, &mut dw).unwrap();
            let mut y64: Vec<f64> = (0..y.len()).map(|i| f64::from(bias[i % outputs])).collect();
            let (mut dx64, mut dw64) = (vec![0.0; x.len()], vec![0.0; w.len()]);
            for i in 0..n {
                for o in 0..outputs {
                    for k in 0..inputs {
                        let (x, w) = (f64::from(x[i * inputs + k]), f64::from(w[o * inputs + k]));
                        let dy = f64::from(dy[i * outputs + o]);
                        y64[i * outputs + o] += x * w;
                        dx64[i * inputs + k] += dy * w;
                        dw64[o * inputs + k] += dy * x;
                    }
                }
            }
            assert_close("y", &y, &y64, TOLERANCE);
            assert_close("dx", &dx, &dx64, TOLERANCE);
            assert_close("dw", &dw, &dw64, TOLERANCE);
        }
    }
}

#[test]
fn cross_entropy_and_its_gradient() {
    let (n, k) = (cases(&[70], &[5])[0], 7);
    let logits = values(n * k, 1, 0.0);
    let labels: Vec<u32> = (0..n as u32).map(|i| i * 3 % k as u32).collect();
    for smoothing in [0.0, 0.1] {
        let one = |x: &[f64], label: usize| -> f64 {
            let log_total = x.iter().map(|x| x.exp()).sum::<f64>().ln();
            let s = f64::from(smoothing);
            (1.0 - s) * (log_total - x[label])
                + x.iter().map(|x| s / k as f64 * (log_total - x)).sum::<f64>()
        };
        let x = to_f64(&logits);
        let (mut loss, mut gradient) = (vec![0.0; n], vec![0.0; n * k]);
        softmax_cross_entropy(
            &logits,
            &labels,
            k,
            smoothing,
            &mut loss,
            Some((&mut gradient, 0.5)),
        )
        .unwrap();
        let expected: Vec<f64> =
            (0..n).map(|i| one(&x[i * k..][..k], labels[i] as usize)).collect();
        assert_close("loss", &loss, &expected, 1e-6);
        let expected: Vec<f64> = (0..n * k)
            .map(|i| 0.5 * slope(&x[i / k * k..][..k], i % k, |x| one(x, labels[i / k] as usize)))
            .collect();
        assert_close("gradient", &gradient, &expected, 1e-5);
    }
    let mut loss = [0.0];
    softmax_cross_entropy(&[1e4, -1e4], &[1], 2, 0.0, &mut loss, None).unwrap();
    assert_eq!(loss, [2e4], "large logits neither overflow nor vanish");
    softmax_cross_entropy(&[f32::NAN, 0.0], &[1], 2, 0.0, &mut loss, None).unwrap();
    assert!(loss[0].is_nan());
    let error = softmax_cross_entropy(&[0.0; 2], &[2], 2, 0.0, &mut loss, None).unwrap_err();
    assert_eq!(error.to_string(), "labels: label 2 of sample 0 is not below 2 classes");
    assert!(softmax_cross_entropy(&[0.0; 2], &[0], 2, 1.5, &mut loss, None).is_err());
    assert!(softmax_cross_entropy(&[0.0; 3], &[0], 2, 0.0, &mut loss, None).is_err());
}

#[test]
fn sgd_follows_pytorch() {
    for isa in Isa::available() {
        for nesterov in [false, true] {
            let sgd = Sgd { learning_rate: 0.1, momentum: 0.9, weight_decay: 5e-4, nesterov };
            let len = cases(&[70_001], &[71])[0];
            let mut p = values(len, 1, 0.0);
            let mut buffer = vec![0.0; len];
            let (mut p64, mut b64) = (to_f64(&p), vec![0.0; len]);
            for step in 0..3 {
                let g = values(len, 5 + step, 0.0);
                sgd.step(isa, &mut p, &g, &mut buffer).unwrap();
                for i in 0..len {
                    let g = f64::from(g[i]) + 5e-4 * p64[i];
                    b64[i] = 0.9 * b64[i] + g;
                    p64[i] -= 0.1 * if nesterov { g + 0.9 * b64[i] } else { b64[i] };
                }
            }
            assert_close("parameters", &p, &p64, 1e-6);
            assert_close("momentum", &buffer, &b64, 1e-6);
            assert!(sgd.step(isa, &mut p, &[0.0], &mut buffer).is_err());
        }
    }
}

#[test]
fn layouts_round_trip() {
    let all = [(3, 5, 4, 7), (1, 1, 1, 1), (128, 3, 32, 32), (2, 40, 3, 3), (0, 3, 4, 4)];
    for (n, c, h, w) in cases(&all, &[(3, 5, 4, 7), (1, 1, 1, 1), (2, 40, 2, 2), (0, 3, 4, 4)]) {
        let d = Dimensions { n, c, h, w };
        let nchw = values(n * c * h * w, 1, 0.0);
        let (mut hwnc, mut back) = (vec![0.0; nchw.len()], vec![0.0; nchw.len()]);
        nchw_to_hwnc(d, &nchw, &mut hwnc).unwrap();
        for (i, x) in nchw.iter().enumerate() {
            let (pixel, plane) = (i % (h * w), i / (h * w));
            assert_eq!(hwnc[pixel * n * c + plane], *x);
        }
        hwnc_to_nchw(d, &hwnc, &mut back).unwrap();
        assert_eq!(back, nchw);
        assert!(nchw_to_hwnc(d, &nchw, &mut vec![0.0; nchw.len() + 1]).is_err());
    }
}

#[test]
fn global_average_pooling() {
    let (pixels, row) = (9, cases(&[5000], &[21])[0]);
    let x = values(pixels * row, 1, 0.0);
    let mut y = vec![f32::NAN; row];
    global_average(pixels, &x, &mut y).unwrap();
    let expected: Vec<f64> = (0..row)
        .map(|i| (0..pixels).map(|p| f64::from(x[p * row + i])).sum::<f64>() / 9.0)
        .collect();
    assert_close("average", &y, &expected, TOLERANCE);
    let mut dx = vec![f32::NAN; x.len()];
    global_average_grad(pixels, &y, &mut dx).unwrap();
    assert!(dx.iter().enumerate().all(|(i, d)| (d - y[i % row] / 9.0).abs() <= 1e-7));
    assert!(global_average::<f32, f32>(0, &[], &mut y).is_err());
}

fn check_pooling(window: PoolWindow, row: usize) {
    let [h, w] = window.input;
    let [oh, ow] = window.output();
    let x = values(h * w * row, 1, 0.0);
    let dy = values(oh * ow * row, 2, 0.0);
    let (mut average, mut max) = (vec![f32::NAN; dy.len()], vec![f32::NAN; dy.len()]);
    let mut indices = vec![u32::MAX; dy.len()];
    window.average(row, &x, &mut average).unwrap();
    window.max(Isa::detect(), row, &x, &mut max, &mut indices).unwrap();
    let (mut dx_average, mut dx_max) = (vec![f32::NAN; x.len()], vec![f32::NAN; x.len()]);
    window.average_grad(row, &dy, &mut dx_average).unwrap();
    window.max_grad(Isa::detect(), row, &dy, &indices, &mut dx_max).unwrap();
    for isa in Isa::available() {
        let (mut y, mut from, mut dx) = (max.clone(), indices.clone(), dx_max.clone());
        y.fill(f32::NAN);
        from.fill(u32::MAX);
        dx.fill(f32::NAN);
        window.max(isa, row, &x, &mut y, &mut from).unwrap();
        window.max_grad(isa, row, &dy, &from, &mut dx).unwrap();
        assert_eq!((&y, &from, &dx), (&max, &indices, &dx_max), "{isa:?}");
    }
    let count = (window.kernel[0] * window.kernel[1]) as f64;
    let mut expected = [vec![0.0; dy.len()], vec![f64::NEG_INFINITY; dy.len()]];
    let mut expected_dx = [vec![0.0; x.len()], vec![0.0; x.len()]];
    for (o, &dy) in dy.iter().enumerate() {
        let (pixel, i) = (o / row, o % row);
        let mut best = None;
        for (ky, kx) in
            (0..window.kernel[0]).flat_map(|y| (0..window.kernel[1]).map(move |x| (y, x)))
        {
            let iy = (pixel / ow * window.stride[0] + ky).wrapping_sub(window.padding[0]);
            let ix = (pixel % ow * window.stride[1] + kx).wrapping_sub(window.padding[1]);
            if iy >= h || ix >= w {
                continue;
            }
            let at = (iy * w + ix) * row + i;
            expected[0][o] += f64::from(x[at]) / count;
            expected_dx[0][at] += f64::from(dy) / count;
            if f64::from(x[at]) > expected[1][o] {
                expected[1][o] = f64::from(x[at]);
                best = Some(at);
            }
        }
        expected_dx[1][best.expect("a window covers a pixel")] += f64::from(dy);
    }
    assert_close("average", &average, &expected[0], TOLERANCE);
    assert_close("max", &max, &expected[1], 0.0);
    assert_close("average gradient", &dx_average, &expected_dx[0], TOLERANCE);
    assert_close("max gradient", &dx_max, &expected_dx[1], TOLERANCE);
}

#[test]
fn some_pooling_windows() {
    let plain = PoolWindow { input: [4, 3], kernel: [2; 2], stride: [2; 2], padding: [0; 2] };
    for (window, row) in [
        (plain, 1),
        (PoolWindow { stride: [1, 3], padding: [1, 0], ..plain }, 5),
        (PoolWindow { kernel: [3, 1], padding: [1, 0], ..plain }, 9),
    ] {
        check_pooling(window, row);
        check_pooling_in_bf16(window, row);
    }
}

#[test]
fn max_pooling_reports_nan() {
    let window = PoolWindow { input: [2, 2], kernel: [2; 2], stride: [2; 2], padding: [0; 2] };
    let (mut y, mut indices) = ([0.0], [0]);
    let isa = Isa::detect();
    window.max(isa, 1, &[1.0, f32::NAN, 3.0, 2.0], &mut y, &mut indices).unwrap();
    assert!(y[0].is_nan() && indices == [1]);
    assert!(window.max(isa, 1, &[0.0; 3], &mut y, &mut indices).is_err());
    let degenerate = PoolWindow { stride: [0, 1], ..window };
    assert!(degenerate.average(1, &[0.0; 4], &mut y).is_err());
    let padded = PoolWindow { padding: [2, 0], ..window };
    assert!(padded.average(1, &[0.0; 4], &mut y).is_err());
}

#[test]
fn unaligned_slices_give_the_same_values() {
    let isa = Isa::detect();
    let aligned = Buffer::from(&values(cases(&[64 * 33], &[4 * 33])[0], 1, 0.0)[..]);
    let mut shifted = Buffer::zeroed(aligned.len() + 1);
    shifted[1..].copy_from_slice(&aligned);
    let (mut a, mut b) = (vec![0.0; aligned.len()], vec![0.0; aligned.len()]);
    relu(isa, &aligned, &mut a).unwrap();
    relu(isa, &shifted[1..], &mut b).unwrap();
    assert_eq!(a, b);
}

/// Operations on bf16 are those on `f32`, rounded once: the same bits as the `f32` operation on the
/// same values.
fn check_rows_in_bf16(rows: usize, c: usize) {
    let len = rows * c;
    let (x, dy, add) = (
        values_as::<bf16>(len, 1, 0.4),
        values_as::<bf16>(len, 2, 0.1),
        values_as::<bf16>(len, 3, 0.0),
    );
    let (wide_x, wide_dy, wide_add) = (widened(&x), widened(&dy), widened(&add));
    let (gamma, beta) = (values(c, 4, 1.2), values(c, 5, 0.1));
    for isa in instruction_sets() {
        let (mut mean, mut variance, mut sums) = (vec![0.0; c], vec![0.0; c], vec![0.0; c]);
        channel_moments(isa, &x, &mut mean, &mut variance).unwrap();
        channel_sums(isa, &x, &mut sums).unwrap();
        let (mut wide_mean, mut wide_variance, mut wide_sums) =
            (vec![0.0; c], vec![0.0; c], vec![0.0; c]);
        channel_moments(isa, &wide_x, &mut wide_mean, &mut wide_variance).unwrap();
        channel_sums(isa, &wide_x, &mut wide_sums).unwrap();
        assert_eq!(
            (&mean, &variance, &sums),
            (&wide_mean, &wide_variance, &wide_sums),
            "{isa} {rows}x{c}"
        );

        let (mut y, mut wide_y) = (vec![bf16::NAN; len], vec![f32::NAN; len]);
        for relu in [true, false] {
            let norm = BatchNorm {
                mean: &mean,
                variance: &variance,
                gamma: &gamma,
                beta: &beta,
                epsilon: 1e-5,
                relu,
            };
            norm.forward(isa, &x, &mut y).unwrap();
            norm.forward(isa, &wide_x, &mut wide_y).unwrap();
            assert_eq!(y, narrowed::<bf16>(&wide_y), "{isa} {rows}x{c}");
            let mut grads = [vec![0.0; c], vec![0.0; c], vec![0.0; c], vec![0.0; c]];
            let [dgamma, dbeta, wide_dgamma, wide_dbeta] = &mut grads;
            norm.parameter_grads(isa, &x, &dy, dgamma, dbeta).unwrap();
            norm.parameter_grads(isa, &wide_x, &wide_dy, wide_dgamma, wide_dbeta).unwrap();
            assert_eq!((&dgamma, &dbeta), (&wide_dgamma, &wide_dbeta));
            for statistics in [Statistics::Batch { dgamma, dbeta }, Statistics::Constant] {
                for (add, wide) in [
                    (Addend::None, Addend::None),
                    (Addend::Tensor(&add[..]), Addend::Tensor(&wide_add[..])),
                    (Addend::Output, Addend::Output),
                ] {
                    let (mut dx, mut wide_dx) = (dy.clone(), wide_dy.clone());
                    norm.input_grad(isa, &x, &dy, statistics, &mut dx, add).unwrap();
                    norm.input_grad(isa, &wide_x, &wide_dy, statistics, &mut wide_dx, wide)
                        .unwrap();
                    assert_eq!(dx, narrowed::<bf16>(&wide_dx), "{isa} {rows}x{c}");
                }
                let (mut gradient, mut dx) = (dy.clone(), dy.clone());
                norm.input_grad_in_place(isa, &x, &mut gradient, statistics, Some(&add[..]))
                    .unwrap();
                norm.input_grad(isa, &x, &dy, statistics, &mut dx, Addend::Tensor(&add[..]))
                    .unwrap();
                assert_eq!(gradient, dx, "{isa} {rows}x{c} in place");
            }
        }
        relu(isa, &x, &mut y).unwrap();
        relu(isa, &wide_x, &mut wide_y).unwrap();
        assert_eq!(y, narrowed::<bf16>(&wide_y));
        gelu(isa, &x, &mut y).unwrap();
        gelu(isa, &wide_x, &mut wide_y).unwrap();
        assert_eq!(y, narrowed::<bf16>(&wide_y));
        relu_grad(isa, &x, &dy, &mut y).unwrap();
        relu_grad(isa, &wide_x, &wide_dy, &mut wide_y).unwrap();
        assert_eq!(y, narrowed::<bf16>(&wide_y));
        gelu_grad(isa, &x, &dy, &mut y).unwrap();
        gelu_grad(isa, &wide_x, &wide_dy, &mut wide_y).unwrap();
        assert_eq!(y, narrowed::<bf16>(&wide_y));
    }
    let norm = LayerNorm { gamma: &gamma, beta: &beta, epsilon: 1e-5 };
    let (mut y, mut wide_y) = (vec![bf16::NAN; len], vec![f32::NAN; len]);
    norm.forward(&x, &mut y).unwrap();
    norm.forward(&wide_x, &mut wide_y).unwrap();
    assert_eq!(y, narrowed::<bf16>(&wide_y));
    let mut grads = [vec![0.0; c], vec![0.0; c], vec![0.0; c], vec![0.0; c]];
    let [dgamma, dbeta, wide_dgamma, wide_dbeta] = &mut grads;
    norm.backward(&x, &dy, &mut y, dgamma, dbeta).unwrap();
    norm.backward(&wide_x, &wide_dy, &mut wide_y, wide_dgamma, wide_dbeta).unwrap();
    assert_eq!(y, narrowed::<bf16>(&wide_y));
    assert_eq!((dgamma, dbeta), (wide_dgamma, wide_dbeta));
}

#[test]
fn rows_in_bf16_are_rounded_once() {
    let all = [(0, 5), (1, 1), (40, 3), (33, 17), (700, 64), (9000, 20), (3, 300)];
    for (rows, c) in cases(&all, &[(0, 5), (1, 1), (9, 3), (3, 17)]) {
        check_rows_in_bf16(rows, c);
    }
}

#[test]
fn linear_in_bf16() {
    for isa in instruction_sets() {
        let (n, inputs, outputs) = cases(&[(37, 65, 12)], &[(3, 9, 6)])[0];
        let layer = Linear::<bf16>::new(inputs, outputs, isa).unwrap();
        let (x, dy) =
            (values_as::<bf16>(n * inputs, 1, 0.1), values_as::<bf16>(n * outputs, 2, 0.0));
        let w = widened(&values_as::<bf16>(outputs * inputs, 3, 0.0));
        let bias = values(outputs, 4, 0.0);
        let (mut y, mut dx, mut dw) = (dy.clone(), x.clone(), w.clone());
        layer
            .forward(n, &x, &layer.pack(&w, Direction::Forward).unwrap(), Some(&bias), &mut y)
            .unwrap();
        layer
            .input_grad(
                n,
                &dy,
                &layer.pack(&w, Direction::InputGrad).unwrap(),
                &mut dx,
                Addend::None.into(),
            )
            .unwrap();
        layer.weight_grad(n, &x, &dy, &mut dw).unwrap();
        let (x, dy, w) = (to_f64(&widened(&x)), to_f64(&widened(&dy)), to_f64(&w));
        let sum = |len: usize, term: &dyn Fn(usize) -> f64| (0..len).map(term).sum::<f64>();
        let dot = |i: usize, o: usize| sum(inputs, &|k| x[i * inputs + k] * w[o * inputs + k]);
        let expected: Vec<f64> = (0..n * outputs)
            .map(|i| f64::from(bias[i % outputs]) + dot(i / outputs, i % outputs))
            .collect();
        common::assert_rounded("y", &y, &expected, TOLERANCE);
        let dot = |i: usize, k: usize| sum(outputs, &|o| dy[i * outputs + o] * w[o * inputs + k]);
        let expected: Vec<f64> = (0..n * inputs).map(|i| dot(i / inputs, i % inputs)).collect();
        common::assert_rounded("dx", &dx, &expected, TOLERANCE);
        let dot = |o: usize, k: usize| sum(n, &|i| dy[i * outputs + o] * x[i * inputs + k]);
        let expected: Vec<f64> = (0..w.len()).map(|i| dot(i / inputs, i % inputs)).collect();
        assert_close("dw", &dw, &expected, TOLERANCE);
    }
}

#[test]
fn layouts_and_global_pooling_convert_on_the_way() {
    let d = Dimensions { n: 5, c: 3, h: 6, w: 7 };
    let x = values(5 * 3 * 6 * 7, 1, 0.0);
    let (mut wide, mut narrow, mut back) =
        (vec![0.0; x.len()], vec![bf16::ZERO; x.len()], vec![0.0; x.len()]);
    nchw_to_hwnc(d, &x, &mut wide).unwrap();
    nchw_to_hwnc(d, &x, &mut narrow).unwrap();
    assert_eq!(narrow, narrowed::<bf16>(&wide));
    hwnc_to_nchw(d, &narrow, &mut back).unwrap();
    assert_eq!(back, widened(&narrowed::<bf16>(&x)));
    let (mut mean, mut wide_mean, mut narrow_mean) =
        (vec![0.0; 15], vec![0.0; 15], vec![bf16::ZERO; 15]);
    global_average(42, &narrow, &mut mean).unwrap();
    global_average(42, &narrow, &mut narrow_mean).unwrap();
    global_average(42, &widened(&narrow), &mut wide_mean).unwrap();
    assert_eq!(mean, wide_mean);
    assert_eq!(narrow_mean, narrowed::<bf16>(&mean));
    global_average_grad(42, &mean, &mut narrow).unwrap();
    global_average_grad(42, &mean, &mut wide).unwrap();
    assert_eq!(narrow, narrowed::<bf16>(&wide));
}

fn check_pooling_in_bf16(window: PoolWindow, row: usize) {
    let ([h, w], [oh, ow]) = (window.input, window.output());
    let (x, dy) =
        (values_as::<bf16>(h * w * row, 1, 0.0), values_as::<bf16>(oh * ow * row, 2, 0.0));
    let (wide_x, wide_dy) = (widened(&x), widened(&dy));
    let (mut y, mut wide_y) = (dy.clone(), wide_dy.clone());
    let (mut dx, mut wide_dx) = (x.clone(), wide_x.clone());
    window.average(row, &x, &mut y).unwrap();
    window.average(row, &wide_x, &mut wide_y).unwrap();
    assert_eq!(y, narrowed::<bf16>(&wide_y));
    window.average_grad(row, &dy, &mut dx).unwrap();
    window.average_grad(row, &wide_dy, &mut wide_dx).unwrap();
    assert_eq!(dx, narrowed::<bf16>(&wide_dx));
    let (mut indices, mut wide_indices) = (vec![0; dy.len()], vec![0; dy.len()]);
    window.max(Isa::detect(), row, &x, &mut y, &mut indices).unwrap();
    window.max(Isa::detect(), row, &wide_x, &mut wide_y, &mut wide_indices).unwrap();
    assert_eq!((widened(&y), &indices), (wide_y, &wide_indices));
    window.max_grad(Isa::detect(), row, &dy, &indices, &mut dx).unwrap();
    window.max_grad(Isa::detect(), row, &wide_dy, &indices, &mut wide_dx).unwrap();
    assert_eq!(dx, narrowed::<bf16>(&wide_dx));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    #[cfg_attr(miri, ignore = "too long; rows_in_bf16_are_rounded_once takes the same ways")]
    fn any_rows_in_bf16(rows in 0usize..60, c in 1usize..80) {
        check_rows_in_bf16(rows, c);
    }

    #[test]
    #[cfg_attr(miri, ignore = "too long; some_pooling_windows takes the same ways")]
    fn any_pooling_window(
        h in 1usize..9, w in 1usize..9, kh in 1usize..4, kw in 1usize..4,
        sh in 1usize..4, sw in 1usize..4, ph in 0usize..2, pw in 0usize..2, row in 1usize..20,
    ) {
        let window = PoolWindow {
            input: [h, w],
            kernel: [kh, kw],
            stride: [sh, sw],
            padding: [ph.min(kh / 2), pw.min(kw / 2)],
        };
        check_pooling(window, row);
        check_pooling_in_bf16(window, row);
    }
}
