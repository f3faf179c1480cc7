//! Products whole, split and in bf16 against each other.

use burn::tensor::{Distribution, TensorData};

use super::{ops::parts, *};

fn noise<const D: usize>(shape: [usize; D]) -> Tensor<D> {
    Tensor::random(shape, Distribution::Normal(0.0, 1.0), &Device::flex())
}

fn host<const D: usize>(t: &Tensor<D>) -> Vec<f32> {
    t.clone().into_data().try_to_vec().unwrap()
}

/// Value and gradients of a bilinear function, with a weight on each element of the result.
fn pulled_back<const D: usize>(
    [a, b]: [&Tensor<D>; 2],
    f: impl Fn(Tensor<D>, Tensor<D>) -> Tensor<D>,
) -> [Vec<f32>; 3] {
    let [a, b] = [a, b].map(|t| t.clone().autodiff().require_grad());
    let y = f(a.clone(), b.clone());
    let len: usize = y.dims().iter().product();
    let ramp: Vec<f32> = (0..len).map(|i| (i as f32 * 0.7).sin()).collect();
    let weight = Tensor::from_data(TensorData::new(ramp, y.dims()), &y.device());
    let mut gradients = (y.clone() * weight).sum().backward();
    let [da, db] = [a, b].map(|t| host(&t.grad_remove(&mut gradients).unwrap()));
    [host(&y.inner()), da, db]
}

fn agree(whole: [Vec<f32>; 3], split: [Vec<f32>; 3], tolerance: f32) {
    for (what, (whole, split)) in ["y", "da", "db"].iter().zip(whole.iter().zip(&split)) {
        let scale = whole.iter().fold(0f32, |m, v| m.max(v.abs()));
        let off = whole.iter().zip(split).fold(0f32, |m, (a, b)| m.max((a - b).abs()));
        assert!(scale > 0.1 && off < tolerance * scale, "{what}: off by {off} of {scale}");
    }
}

#[test]
fn split_products_are_the_whole_ones_forward_and_backward() {
    for (stride, groups) in [(1, 1), (2, 1), (1, 2)] {
        let (x, w) = (noise([2, 4, 7, 6]), noise([6, 4 / groups, 3, 3]));
        let options = || ConvOptions::new([stride; 2], [1; 2], [1; 2], groups);
        let by = |products: Products| {
            pulled_back([&x, &w], |x, w| products.conv2d(x, w, None, options()))
        };
        agree(by(Products::Whole), by(Products::Split), 1e-5);
    }
    let (a, b) = (noise([2, 5, 8]), noise([2, 8, 3]));
    let by = |products: Products| pulled_back([&a, &b], |a, b| products.matmul(a, b));
    agree(by(Products::Whole), by(Products::Split), 1e-5);
}

#[test]
fn products_in_bf16_round_their_operands_and_little_else() {
    let (x, w) = (noise([2, 4, 7, 6]), noise([6, 4, 3, 3]));
    let options = || ConvOptions::new([1; 2], [1; 2], [1; 2], 1);
    let by = |products: Products| {
        pulled_back([&x, &w], |x, w| wide(products.conv2d(x, w, None, options())))
    };
    let (whole, rounded) = (by(Products::Whole), by(Products::Bf16));
    assert_ne!(whole[0], rounded[0]);
    agree(whole, rounded, 0.02);
}

#[test]
fn a_bias_and_more_dimensions_make_no_difference() {
    let (x, weight, bias) = (noise([2, 3, 8]), noise([8, 5]), noise([5]));
    let whole = Products::Whole.linear(x.clone(), weight.clone(), Some(bias.clone()));
    let split = Products::Split.linear(x, weight, Some(bias));
    assert_eq!(split.dims(), [2, 3, 5]);
    let (whole, split) = (host(&whole), host(&split));
    assert!(whole.iter().zip(&split).all(|(a, b)| (a - b).abs() < 1e-4));
}

/// An operand as tensor cores take it: 10 bits after the leading one, rounded to nearest.
fn tf32(v: f32) -> f64 {
    f64::from(f32::from_bits((v.to_bits() + 0x1000) & !0x1fff))
}

#[test]
fn three_products_in_tf32_have_about_18_bits() {
    let (a, b) = (noise([512]), noise([512]));
    let as_parts = |t: &Tensor<1>| {
        parts::<Dispatch>(t.clone().into_dispatch())
            .map(|part| host(&Tensor::<1>::from_dispatch(part)))
    };
    let ([a_high, a_low], [b_high, b_low]) = (as_parts(&a), as_parts(&b));
    let (a, b) = (host(&a), host(&b));
    let (mut one, mut three) = (0f64, 0f64);
    for i in 0..a.len() {
        assert_eq!(a_high[i] + a_low[i], a[i], "the parts are all there is");
        let exact = f64::from(a[i]) * f64::from(b[i]);
        let of = |a: f32, b: f32| tf32(a) * tf32(b);
        one = one.max((of(a[i], b[i]) / exact - 1.0).abs());
        let sum = of(a_low[i], b[i]) + of(a_high[i], b_low[i]) + of(a_high[i], b_high[i]);
        three = three.max((sum / exact - 1.0).abs());
    }
    assert!(one > 2f64.powi(-13), "{one}: a single product has 11 bits");
    // A rest is at most 2^-8 of its operand and loses at most 2^-11 of itself, and so does the
    // other factor.
    assert!(three < 3.0 * 2f64.powi(-19), "{three}");
}

#[test]
fn the_cpu_has_no_tf32() {
    let device = Device::flex();
    assert_eq!(Products::of(Precision::F32, &device).unwrap(), Products::Whole);
    assert_eq!(Products::of(Precision::Bf16, &device).unwrap(), Products::Bf16);
    let error = Products::of(Precision::Tf32, &device).unwrap_err().to_string();
    assert!(error.contains("tf32") && error.contains("f32 or bf16"), "{error}");
}
