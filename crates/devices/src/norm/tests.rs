//! Batch norm against its definition.

use super::*;
use crate::testing::{close, noise, read, tensor};

/// The result and the gradients by x, gamma and beta, in f64.
fn by_definition(
    x: &[f32],
    dy: &[f32],
    [gamma, beta]: [&[f32]; 2],
    [n, channels, pixels]: [usize; 3],
    plan: Plan,
) -> [Vec<f32>; 4] {
    let count = (n * pixels) as f64;
    let (mut y, mut dx) = (vec![0.0; x.len()], vec![0.0; x.len()]);
    let (mut dgamma, mut dbeta) = (vec![0.0; channels], vec![0.0; channels]);
    for c in 0..channels {
        let places: Vec<usize> = (0..x.len()).filter(|at| at / pixels % channels == c).collect();
        let mean = places.iter().map(|&at| f64::from(x[at])).sum::<f64>() / count;
        let square = |at: &usize| (f64::from(x[*at]) - mean).powi(2);
        let variance = places.iter().map(square).sum::<f64>() / count;
        let scale = (variance + f64::from(plan.epsilon)).sqrt().recip();
        let (gamma, beta) = (f64::from(gamma[c]), f64::from(beta[c]));
        let normed = |at: usize| (f64::from(x[at]) - mean) * scale;
        let value = |at: usize| normed(at) * gamma + beta;
        let grad = |at: usize| {
            if plan.relu && value(at) <= 0.0 { 0.0 } else { f64::from(dy[at]) }
        };
        let sum = |f: &dyn Fn(usize) -> f64| places.iter().map(|&at| f(at)).sum::<f64>();
        let (plain, weighted) = (sum(&grad), sum(&|at| grad(at) * normed(at)));
        (dgamma[c], dbeta[c]) = (weighted as f32, plain as f32);
        for &at in &places {
            y[at] = if plan.relu { value(at).max(0.0) } else { value(at) } as f32;
            let centred = grad(at) - plain / count - normed(at) * weighted / count;
            dx[at] = (centred * gamma * scale) as f32;
        }
    }
    [y, dx, dgamma, dbeta]
}

#[test]
fn results_and_gradients_are_those_of_the_definition() {
    for (shape, offset) in [
        ([2, 3, 5, 4], 0.0),
        ([4, 8, 16, 16], 0.0),
        ([3, 64, 4, 4], 0.0),
        ([1, 72, 3, 3], 0.0),
        // Far from 0, where the mean of the squares is nearly the square of the mean.
        ([4, 8, 16, 16], 1000.0),
    ] {
        let [n, channels, height, width] = shape;
        let len = shape.iter().product();
        let x: Vec<f32> = noise(len, 1).iter().map(|v| v + offset).collect();
        let dy = noise(len, 2);
        let (gamma, beta) = (noise(channels, 3), noise(channels, 4));
        for relu in [false, true] {
            let plan = Plan { epsilon: 1e-5, relu };
            let sizes = [n, channels, height * width];
            let [y, dx, dgamma, dbeta] = by_definition(&x, &dy, [&gamma, &beta], sizes, plan);
            let tolerance = if offset == 0.0 { 1e-5 } else { 1e-3 };
            let of = |values: &[f32]| tensor(values, [channels]);
            let (found, mean, variance) = forward(tensor(&x, shape), [of(&gamma), of(&beta)], plan);
            close(&read(found), &y, tolerance);
            let (found, of_gamma, of_beta) = backward(
                tensor(&x, shape),
                tensor(&dy, shape),
                [of(&gamma), of(&beta)],
                [mean, variance],
                plan,
            );
            if offset == 0.0 {
                // Elsewhere rounding moves values over 0.
                close(&read(found), &dx, tolerance);
                close(&read(of_gamma), &dgamma, tolerance);
                close(&read(of_beta), &dbeta, tolerance);
            }
        }
    }
}
