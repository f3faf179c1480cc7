//! Pooling, attention, elementwise functions, the loss, changes of layout.

use libfuzzer_sys::arbitrary::Result;
use sora_kernels::activation::{add_relu, gelu, gelu_grad, relu, relu_grad, relu_grad_in_place};
use sora_kernels::attention::Attention;
use sora_kernels::channels::{channel_moments, channel_sums};
use sora_kernels::gate::{add, add_average_grad, gate, gate_factor_grad};
use sora_kernels::layout::{Dimensions, hwnc_to_nchw, nchw_to_hwnc};
use sora_kernels::loss::softmax_cross_entropy;
use sora_kernels::pool::{PoolWindow, global_average, global_average_grad};
use sora_kernels::sgd::Sgd;
use sora_kernels::{Buffer, Element};

use crate::input::{Input, assert_written, isa, length, numbers, output, product, size};

pub fn pool<E: Element>(u: &mut Input<'_>) -> Result<()> {
    let isa = isa(u)?;
    let kernel = [size(u)?, size(u)?];
    let window = PoolWindow {
        input: [size(u)?, size(u)?],
        kernel,
        stride: [size(u)?, size(u)?],
        padding: if u.arbitrary()? { kernel.map(|k| k / 2) } else { [size(u)?, size(u)?] },
    };
    let row = size(u)?;
    let [h, w] = window.output();
    let (input, out) = (product(&[window.input[0], window.input[1], row]), product(&[h, w, row]));
    // A window larger than the image is allowed: its time is bounded by the image.
    let (x, dy): (Vec<E>, Vec<E>) = (numbers(u, input)?, numbers(u, out)?);
    let (mut y, mut dx): (Vec<E>, Vec<E>) = (output(u, out)?, output(u, input)?);
    let mut indices: Vec<u32> = vec![0; length(u, out)?];
    if window.average(row, &x, &mut y).is_ok() {
        assert_written(&y);
    }
    if window.average_grad(row, &dy, &mut dx).is_ok() {
        assert_written(&dx);
    }
    if window.max(isa, row, &x, &mut y, &mut indices).is_ok() {
        assert_written(&y);
    }
    if u.ratio(1, 8)? {
        indices.iter_mut().for_each(|index| *index = u.arbitrary().unwrap_or(7));
    }
    if window.max_grad(isa, row, &dy, &indices, &mut dx).is_ok() {
        assert_written(&dx);
    }
    let pixels = size(u)?;
    let x: Vec<E> = numbers(u, product(&[pixels, row]))?;
    let (mut mean, mut dx): (Vec<f32>, Vec<E>) = (output(u, row)?, output(u, x.len())?);
    if global_average(pixels, &x, &mut mean).is_ok() {
        assert_written(&mean);
        if global_average_grad(pixels, &mean, &mut dx).is_ok() {
            assert_written(&dx);
        }
    }
    Ok(())
}

pub fn attention(u: &mut Input<'_>) -> Result<()> {
    let shape = Attention { tokens: size(u)?, heads: size(u)?, width: size(u)? };
    let len = product(&[size(u)?.min(3), shape.tokens, shape.heads, shape.width]);
    let (qkv, dout) = (numbers::<f32>(u, len.saturating_mul(3))?, numbers::<f32>(u, len)?);
    let (mut out, mut dqkv) = (output::<f32>(u, len)?, output::<f32>(u, len.saturating_mul(3))?);
    if shape.forward(isa(u)?, &qkv, &mut out).is_ok() {
        assert_written(&out);
    }
    if shape.backward(isa(u)?, &qkv, &dout, &mut dqkv).is_ok() {
        assert_written(&dqkv);
    }
    Ok(())
}

pub fn elementwise<E: Element>(u: &mut Input<'_>) -> Result<()> {
    let (isa, len) = (isa(u)?, size(u)?);
    let (x, dy): (Vec<E>, Vec<E>) = (numbers(u, len)?, numbers(u, len)?);
    let mut y: Vec<E> = output(u, len)?;
    let done = match u.int_in_range(0..=6u8)? {
        6 => add(isa, &x, &dy, &mut y),
        4 => add_relu(isa, &x, &dy, &mut y),
        5 => {
            y.fill(E::from_f32(1.0));
            relu_grad_in_place(isa, &x, &mut y)
        }
        0 => relu(isa, &x, &mut y),
        1 => relu_grad(isa, &x, &dy, &mut y),
        2 => gelu(isa, &x, &mut y),
        _ => gelu_grad(isa, &x, &dy, &mut y),
    };
    if done.is_ok() {
        assert_written(&y);
    }
    let sgd =
        Sgd { learning_rate: 0.1, momentum: 0.9, weight_decay: 0.1, nesterov: u.arbitrary()? };
    let gradient = numbers::<f32>(u, len)?;
    let (mut p, mut buffer) = (numbers::<f32>(u, len)?, numbers::<f32>(u, len)?);
    let _ = sgd.step(isa, &mut p, &gradient, &mut buffer);
    let row = size(u)?;
    let factor = numbers::<f32>(u, row)?;
    if gate(isa, &x, &factor, &mut y).is_ok() {
        assert_written(&y);
        let pixels = len.checked_div(row).unwrap_or(1);
        let _ = add_average_grad(isa, pixels, &factor, &mut y);
    }
    let mut gradient: Vec<f32> = output(u, row)?;
    if gate_factor_grad(isa, &x, &dy, &mut gradient).is_ok() {
        assert_written(&gradient);
    }
    let channels = size(u)?;
    let (mut sums, mut squares): (Vec<f32>, Vec<f32>) =
        (output(u, channels)?, output(u, channels)?);
    if channel_sums(isa, &x, &mut sums).is_ok() {
        assert_written(&sums);
    }
    if channel_moments(isa, &x, &mut sums, &mut squares).is_ok() {
        assert_written(&sums);
        assert_written(&squares);
    }
    let buffer = Buffer::<E>::from(&x[..]);
    assert_eq!(buffer.clone()[..], x[..]);
    Ok(())
}

pub fn loss(u: &mut Input<'_>) -> Result<()> {
    let (n, classes) = (size(u)?, size(u)?);
    let len = product(&[n, classes]);
    let logits = numbers::<f32>(u, len)?;
    let labels: Vec<u32> =
        (0..length(u, n)?).map(|_| size(u).map(|label| label as u32)).collect::<Result<_>>()?;
    let (mut loss, mut gradient) = (output::<f32>(u, n)?, output::<f32>(u, len)?);
    let smoothing = u.int_in_range(-1..=11)? as f32 / 10.0;
    let wanted = if u.arbitrary()? { Some((&mut gradient[..], 1.0)) } else { None };
    let is_wanted = wanted.is_some();
    if softmax_cross_entropy(&logits, &labels, classes, smoothing, &mut loss, wanted).is_ok() {
        assert_written(&loss);
        if is_wanted {
            assert_written(&gradient);
        }
    }
    Ok(())
}

pub fn layout<A: Element, B: Element>(u: &mut Input<'_>) -> Result<()> {
    let dimensions = Dimensions { n: size(u)?, c: size(u)?, h: size(u)?, w: size(u)? };
    let len = product(&[dimensions.n, dimensions.c, dimensions.h, dimensions.w]);
    let x: Vec<A> = numbers(u, len)?;
    let mut y: Vec<B> = output(u, len)?;
    if nchw_to_hwnc(dimensions, &x, &mut y).is_ok() {
        assert_written(&y);
    }
    let mut back: Vec<A> = output(u, len)?;
    if hwnc_to_nchw(dimensions, &y, &mut back).is_ok()
        && nchw_to_hwnc(dimensions, &x, &mut y).is_ok()
    {
        assert_eq!(back, x);
    }
    Ok(())
}
