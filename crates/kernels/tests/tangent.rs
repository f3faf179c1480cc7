//! The derivative of batch norm along a tangent, and its gradients, against finite differences in
//! `f64`, on every instruction set of this machine.

#![allow(clippy::unwrap_used)]

mod common;

use common::{assert_close, assert_rounded, cases, moments, narrowed, to_f64, values, widened};
use sora_kernels::batch_norm::BatchNorm;
use sora_kernels::channels::channel_moments;
use sora_kernels::{Element, Isa, bf16};

/// Rows of values, their tangent, the gradient by the derivative, and the parameters.
struct Case {
    x: Vec<f32>,
    t: Vec<f32>,
    d: Vec<f32>,
    gamma: Vec<f32>,
    beta: Vec<f32>,
    relu: bool,
}

impl Case {
    fn new(rows: usize, c: usize, relu: bool) -> Self {
        Self {
            x: values(rows * c, 1, 0.5),
            t: values(rows * c, 2, 0.2),
            d: values(rows * c, 3, 0.1),
            gamma: values(c, 4, 1.5),
            beta: values(c, 5, 0.2),
            relu,
        }
    }

    /// The same with `x`, `t` and `d` rounded to `E`.
    fn rounded<E: Element>(self) -> Self {
        let [x, t, d] = [self.x, self.t, self.d].map(|v| widened(&narrowed::<E>(&v)));
        Self { x, t, d, ..self }
    }

    /// The output of batch norm with the statistics of `x`, before the ReLU.
    fn normed(&self, x: &[f64], gamma: &[f64]) -> Vec<f64> {
        let c = gamma.len();
        let (mean, variance) = moments(x, c);
        let value = |(i, x): (usize, &f64)| {
            let k = i % c;
            (x - mean[k]) / (variance[k] + 1e-5).sqrt() * gamma[k] + f64::from(self.beta[k])
        };
        x.iter().enumerate().map(value).collect()
    }

    /// The derivative of the output along `t`, by a central difference. The mask is that of `x`.
    fn slope(&self, x: &[f64], t: &[f64], gamma: &[f64]) -> Vec<f64> {
        let h = 1e-4;
        let at = |h: f64| {
            let moved: Vec<f64> = x.iter().zip(t).map(|(x, t)| x + h * t).collect();
            self.normed(&moved, gamma)
        };
        let (up, down, here) = (at(h), at(-h), self.normed(x, gamma));
        let masked = |here: f64| self.relu && here <= 0.0;
        let each = up.iter().zip(&down).zip(here);
        each.map(|((up, down), here)| if masked(here) { 0.0 } else { (up - down) / (2.0 * h) })
            .collect()
    }

    /// `sum(d slope)`.
    fn loss(&self, x: &[f64], t: &[f64], gamma: &[f64]) -> f64 {
        self.slope(x, t, gamma).iter().zip(&self.d).map(|(s, d)| s * f64::from(*d)).sum()
    }

    /// The derivative of `f` by each element of `at`, by central differences.
    fn gradient(at: &[f64], f: impl Fn(&[f64]) -> f64) -> Vec<f64> {
        let mut moved = at.to_vec();
        let mut one = |i: usize| {
            let mut shifted = |h: f64| {
                moved[i] = at[i] + h;
                f(&moved)
            };
            let slope = (shifted(1e-3) - shifted(-1e-3)) / 2e-3;
            moved[i] = at[i];
            slope
        };
        (0..at.len()).map(&mut one).collect()
    }
}

/// What the kernels make of `case` in storage type `E`: slope, gradients by x, tangent and gamma.
fn run<E: Element>(isa: Isa, case: &Case) -> ([Vec<E>; 3], Vec<f32>) {
    let c = case.gamma.len();
    let [x, t, d] = [&case.x, &case.t, &case.d].map(|v| narrowed::<E>(v));
    let (mut mean, mut variance) = (vec![0.0; c], vec![0.0; c]);
    channel_moments(isa, &x, &mut mean, &mut variance).unwrap();
    let norm = BatchNorm {
        mean: &mean,
        variance: &variance,
        gamma: &case.gamma,
        beta: &case.beta,
        epsilon: 1e-5,
        relu: case.relu,
    };
    let mut slope = vec![E::from_f32(f32::NAN); x.len()];
    norm.tangent(isa, &x, &t, &mut slope).unwrap();
    let (mut dx, mut dt, mut dgamma) = (slope.clone(), slope.clone(), vec![f32::NAN; c]);
    norm.tangent_grads(isa, [&x, &t, &d], [&mut dx, &mut dt], &mut dgamma).unwrap();
    ([slope, dx, dt], dgamma)
}

fn matches_finite_differences<E: Element>() {
    for isa in Isa::available() {
        let all = [(40, 3, true), (33, 5, false), (7, 20, true), (60, 1, false)];
        for (rows, c, relu) in cases(&all, &[(5, 3, true), (4, 2, false)]) {
            let case = Case::new(rows, c, relu).rounded::<E>();
            let [x, t, gamma] = [&case.x, &case.t, &case.gamma].map(|v| to_f64(v));
            let ([slope, dx, dt], dgamma) = run::<E>(isa, &case);
            assert_rounded("slope", &slope, &case.slope(&x, &t, &gamma), 1e-5);
            let want = Case::gradient(&x, |x| case.loss(x, &t, &gamma));
            assert_rounded("by x", &dx, &want, 5e-5);
            let want = Case::gradient(&t, |t| case.loss(&x, t, &gamma));
            assert_rounded("by the tangent", &dt, &want, 5e-5);
            let want = Case::gradient(&gamma, |gamma| case.loss(&x, &t, gamma));
            assert_close("by gamma", &dgamma, &want, 5e-5);
        }
    }
}

#[test]
fn the_derivative_of_a_batch_norm_and_its_gradients_match_finite_differences() {
    matches_finite_differences::<f32>();
    matches_finite_differences::<bf16>();
}

#[test]
#[cfg_attr(miri, ignore = "the kernels use one thread")]
fn they_have_the_same_bits_on_any_number_of_threads() {
    for isa in Isa::available() {
        for c in [3, 64, 300] {
            let case = Case::new(200_000 / c, c, true);
            let one = common::on_threads(1, || run::<f32>(isa, &case));
            assert!((2..4).all(|threads| common::on_threads(threads, || run(isa, &case)) == one));
        }
    }
}

#[test]
fn tensors_of_different_lengths_are_refused() {
    let isa = Isa::Portable;
    let one = [1.0];
    let norm = BatchNorm {
        mean: &one,
        variance: &one,
        gamma: &one,
        beta: &one,
        epsilon: 1e-5,
        relu: true,
    };
    let (whole, part) = ([1.0f32; 4], [1.0f32; 3]);
    let (mut a, mut b, mut short, mut sums) = (whole, whole, part, [0.0]);
    assert!(norm.tangent(isa, &whole, &part, &mut a).is_err());
    assert!(norm.tangent(isa, &whole, &whole, &mut short).is_err());
    let mut grads = |of: [&[f32]; 3], a: &mut [f32], sums: &mut [f32]| {
        norm.tangent_grads(isa, of, [a, &mut b], sums).is_err()
    };
    assert!(grads([&whole, &part, &whole], &mut a, &mut sums));
    assert!(grads([&whole, &whole, &part], &mut a, &mut sums));
    assert!(grads([&whole; 3], &mut short, &mut sums));
    assert!(grads([&whole; 3], &mut a, &mut [0.0; 2]));
    assert!(!grads([&whole; 3], &mut a, &mut sums));
}
