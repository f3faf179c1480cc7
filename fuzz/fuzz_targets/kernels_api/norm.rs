//! Batch norm and layer norm.

use libfuzzer_sys::arbitrary::Result;
use sora_kernels::batch_norm::Statistics;
use sora_kernels::conv::Addend;
use sora_kernels::layer_norm::LayerNorm;
use sora_kernels::{Element, Isa};

use crate::input::{
    Input, Norm, addend, assert_written, isa, numbers, output, positive, product, size,
};

pub fn batch_norm<E: Element>(u: &mut Input<'_>) -> Result<()> {
    let (isa, rows, channels) = (isa(u)?, size(u)?, size(u)?);
    let len = product(&[rows, channels]);
    let norm = Norm::new(u, channels)?;
    let (x, dy, tensor): (Vec<E>, Vec<E>, Vec<E>) =
        (numbers(u, len)?, numbers(u, len)?, numbers(u, len)?);
    let (mut y, mut dx): (Vec<E>, Vec<E>) = (output(u, len)?, output(u, len)?);
    let (mut dgamma, mut dbeta): (Vec<f32>, Vec<f32>) =
        (output(u, channels)?, output(u, channels)?);
    if norm.get().forward(isa, &x, &mut y).is_ok() {
        assert_written(&y);
    }
    if norm.get().parameter_grads(isa, &x, &dy, &mut dgamma, &mut dbeta).is_ok() {
        assert_written(&dgamma);
        assert_written(&dbeta);
    } else {
        dgamma.fill(0.5);
        dbeta.fill(0.5);
    }
    let statistics = if u.arbitrary()? {
        Statistics::Constant
    } else {
        Statistics::Batch { dgamma: &dgamma, dbeta: &dbeta }
    };
    let add = addend(u, &tensor)?;
    if matches!(add, Addend::Output) {
        dx.fill(E::from_f32(0.5));
    }
    if norm.get().input_grad(isa, &x, &dy, statistics, &mut dx, add).is_ok() {
        assert_written(&dx);
    }
    let mut gradient = dy;
    let add = if u.arbitrary()? { Some(&tensor[..]) } else { None };
    let _ = norm.get().input_grad_in_place(isa, &x, &mut gradient, statistics, add);
    assert_written(&gradient);
    tangent(u, isa, &norm, [&x, &tensor, &gradient])
}

fn tangent<E: Element>(u: &mut Input<'_>, isa: Isa, norm: &Norm, of: [&[E]; 3]) -> Result<()> {
    let [x, t, _] = of;
    let (mut slope, mut dx): (Vec<E>, Vec<E>) = (output(u, x.len())?, output(u, x.len())?);
    let mut dt: Vec<E> = output(u, x.len())?;
    let mut dgamma: Vec<f32> = output(u, norm.get().mean.len())?;
    if norm.get().tangent(isa, x, t, &mut slope).is_ok() {
        assert_written(&slope);
    }
    if norm.get().tangent_grads(isa, of, [&mut dx, &mut dt], &mut dgamma).is_ok() {
        assert_written(&dx);
        assert_written(&dt);
        assert_written(&dgamma);
    }
    Ok(())
}

pub fn layer_norm<E: Element>(u: &mut Input<'_>) -> Result<()> {
    let (rows, features) = (size(u)?, size(u)?);
    let len = product(&[rows, features]);
    let (gamma, beta) = (positive(u, features)?, positive(u, features)?);
    let norm = LayerNorm { gamma: &gamma, beta: &beta, epsilon: 1e-5 };
    let (x, dy): (Vec<E>, Vec<E>) = (numbers(u, len)?, numbers(u, len)?);
    let (mut y, mut dx): (Vec<E>, Vec<E>) = (output(u, len)?, output(u, len)?);
    let (mut dgamma, mut dbeta): (Vec<f32>, Vec<f32>) =
        (output(u, features)?, output(u, features)?);
    if norm.forward(&x, &mut y).is_ok() {
        assert_written(&y);
    }
    if norm.backward(&x, &dy, &mut dx, &mut dgamma, &mut dbeta).is_ok() {
        assert_written(&dx);
        assert_written(&dgamma);
        assert_written(&dbeta);
    }
    Ok(())
}
