//! Gates, their gradients and sums of maps, against plain loops in `f64`.

#![allow(clippy::unwrap_used)]

mod common;

use common::{
    assert_close, cases, instruction_sets, narrowed, on_threads, values, values_as, widened,
};
use sora_kernels::gate::{add, add_average_grad, gate, gate_factor_grad};
use sora_kernels::{Element, Isa, bf16};

/// Pixels and values a pixel: less than a vector, whole vectors, several tasks of columns.
const SHAPES: [[usize; 2]; 4] = [[1, 3], [9, 32], [4, 2500], [300, 7]];

fn check<E: Element + PartialEq + std::fmt::Debug>(isa: Isa, pixels: usize, row: usize) {
    let (x, dy) = (values_as::<E>(pixels * row, 1, 0.0), values_as::<E>(pixels * row, 2, 0.0));
    let factor = values(row, 3, 0.5);
    let mut y = dy.clone();
    gate(isa, &x, &factor, &mut y).unwrap();
    let (x, wide_dy) = (x, widened(&dy));
    let wide = widened(&x);
    let product: Vec<f32> = wide.iter().enumerate().map(|(i, x)| x * factor[i % row]).collect();
    assert_eq!(y, narrowed::<E>(&product), "{isa:?}, {pixels} pixels of {row}: rounded once");

    let mut gradient = vec![f32::NAN; row];
    gate_factor_grad(isa, &x, &dy, &mut gradient).unwrap();
    let at = |i: usize, pixel: usize| {
        f64::from(wide[pixel * row + i]) * f64::from(wide_dy[pixel * row + i])
    };
    let expected: Vec<f64> = (0..row).map(|i| (0..pixels).map(|p| at(i, p)).sum()).collect();
    assert_close("factor gradient", &gradient, &expected, 1e-5);

    let mut sum = dy.clone();
    add(isa, &x, &dy, &mut sum).unwrap();
    let expected: Vec<f32> = wide.iter().zip(&wide_dy).map(|(x, y)| x + y).collect();
    assert_eq!(sum, narrowed::<E>(&expected), "{isa:?}: a sum is rounded once");

    let mut map = x;
    add_average_grad(isa, pixels, &factor, &mut map).unwrap();
    let tolerance = if E::PRECISION == sora_kernels::ElementType::Bf16 { 4e-3 } else { 1e-6 };
    let expected: Vec<f64> = (wide.iter().enumerate())
        .map(|(i, x)| f64::from(*x) + f64::from(factor[i % row]) / pixels as f64)
        .collect();
    assert_close("average's gradient added", &widened(&map), &expected, tolerance);
}

#[test]
fn gates_and_their_gradients_are_those_of_plain_loops() {
    for isa in instruction_sets() {
        for [pixels, row] in cases(&SHAPES, &SHAPES[..2]).iter().copied() {
            check::<f32>(isa, pixels, row);
            check::<bf16>(isa, pixels, row);
        }
    }
}

#[test]
fn the_factors_gradient_does_not_depend_on_the_threads() {
    let [pixels, row] = cases(&[[64, 5000]], &[[3, 40]])[0];
    let (x, dy) = (values(pixels * row, 1, 0.0), values(pixels * row, 2, 0.0));
    let gradient = || {
        let mut gradient = vec![0.0; row];
        gate_factor_grad(Isa::Portable, &x, &dy, &mut gradient).unwrap();
        gradient
    };
    assert_eq!(on_threads(1, gradient), on_threads(3, gradient));
}

#[test]
fn wrong_lengths_are_refused_and_nothing_is_nothing() {
    let isa = Isa::Portable;
    assert!(gate(isa, &[1.0; 7], &[1.0; 2], &mut [0.0; 7]).is_err());
    assert!(gate(isa, &[1.0; 4], &[1.0; 2], &mut [0.0; 3]).is_err());
    assert!(gate(isa, &[1.0; 4], &[], &mut [0.0; 4]).is_err());
    assert!(gate_factor_grad(isa, &[1.0; 4], &[1.0; 2], &mut [0.0; 2]).is_err());
    assert!(gate_factor_grad(isa, &[1.0; 3], &[1.0; 3], &mut [0.0; 2]).is_err());
    assert!(add(isa, &[1.0; 4], &[1.0; 3], &mut [0.0; 4]).is_err());
    assert!(add(isa, &[1.0; 4], &[1.0; 4], &mut [0.0; 5]).is_err());
    assert!(add_average_grad(isa, 0, &[], &mut [0.0f32; 0]).is_err());
    assert!(add_average_grad(isa, 2, &[1.0; 2], &mut [0.0f32; 3]).is_err());
    assert!(add_average_grad(isa, usize::MAX, &[1.0; 2], &mut [0.0f32; 3]).is_err());
    gate::<f32>(isa, &[], &[], &mut []).unwrap();
    let mut gradient = [f32::NAN; 2];
    gate_factor_grad::<f32>(isa, &[], &[], &mut gradient).unwrap();
    assert_eq!(gradient, [0.0; 2], "a sum over no pixels");
}
