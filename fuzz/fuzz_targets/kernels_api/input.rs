//! Sizes, slices and parameters, drawn from the fuzzer's bytes.

use libfuzzer_sys::arbitrary::{Arbitrary, Result, Unstructured};
use sora_kernels::batch_norm::BatchNorm;
use sora_kernels::conv::Addend;
use sora_kernels::{Element, Isa};

/// Longest slice that is made.
pub const MOST: usize = 1 << 14;

/// Most products in the sums of an accepted call. More of them take longer and go no other way.
pub const MOST_TERMS: usize = 1 << 18;

pub type Input<'a> = Unstructured<'a>;

/// A size: mostly small, sometimes at the edge of what arithmetic can hold.
pub fn size(u: &mut Input<'_>) -> Result<usize> {
    Ok(match u.int_in_range(0..=15u8)? {
        0..=7 => u.int_in_range(0..=9)?,
        8..=11 => u.int_in_range(0..=70)?,
        12 => 1usize << u.int_in_range(0..=63)?,
        13 => (1usize << u.int_in_range(0..=63)?).wrapping_sub(u.int_in_range(0..=40)?),
        14 => usize::MAX - u.int_in_range(0..=70)?,
        _ => usize::arbitrary(u)?,
    })
}

/// `len`, or now and then another length.
pub fn length(u: &mut Input<'_>, len: usize) -> Result<usize> {
    let len = if u.ratio(1, 24)? { size(u)? } else { len };
    Ok(if len > MOST { u.int_in_range(0..=9)? } else { len })
}

/// Small numbers that `E` holds exactly.
pub fn numbers<E: Element>(u: &mut Input<'_>, len: usize) -> Result<Vec<E>> {
    let len = length(u, len)?;
    Ok((0..len).map(|i| E::from_f32(((i * 7 + len) % 17) as f32 / 8.0 - 1.0)).collect())
}

/// As [`numbers`], above zero.
pub fn positive(u: &mut Input<'_>, len: usize) -> Result<Vec<f32>> {
    Ok(numbers::<f32>(u, len)?.iter().map(|x| x.abs() + 0.25).collect())
}

/// Memory for a result.
pub fn output<E: Element>(u: &mut Input<'_>, len: usize) -> Result<Vec<E>> {
    let len = length(u, len)?;
    Ok(vec![E::from_f32(f32::NAN); len])
}

pub fn product(dims: &[usize]) -> usize {
    dims.iter().fold(1, |product, &d| product.saturating_mul(d))
}

#[track_caller]
pub fn assert_written<E: Element>(values: &[E]) {
    if let Some(at) = values.iter().position(|x| !x.to_f32().is_finite()) {
        panic!("value {at} of {} was not written", values.len());
    }
}

pub fn isa(u: &mut Input<'_>) -> Result<Isa> {
    u.choose(&Isa::ALL).copied()
}

pub fn addend<'a, E: Element>(u: &mut Input<'_>, tensor: &'a [E]) -> Result<Addend<'a, E>> {
    Ok(match u.int_in_range(0..=2u8)? {
        0 => Addend::None,
        1 => Addend::Tensor(tensor),
        _ => Addend::Output,
    })
}

/// Batch norm parameters for `channels`.
pub struct Norm([Vec<f32>; 4], bool);

impl Norm {
    pub fn new(u: &mut Input<'_>, channels: usize) -> Result<Self> {
        let [a, b, c, d] = [0; 4].map(|_| positive(u, channels));
        Ok(Self([a?, b?, c?, d?], u.arbitrary()?))
    }

    pub fn get(&self) -> BatchNorm<'_> {
        let Self([mean, variance, gamma, beta], relu) = self;
        BatchNorm { mean, variance, gamma, beta, epsilon: 1e-5, relu: *relu }
    }
}
