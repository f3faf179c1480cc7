//! Numbers as multiples of a scale (quantised exports).
//!
//! Rounding has a slope of zero almost everywhere. The gradient passes through it as through the
//! identity within the range, and is zero outside ("straight-through", Bengio et al. 2013).
//! Quantisation-aware training uses this rule, and an attack needs it too.

use super::{Attributes, Back, Inputs, Operator};
use crate::{
    error::{Outcome, problem},
    proto::data_type,
    value::{Array, Value, combine, map, plain, reshape, to_axis},
};

/// `QuantizeLinear`: whole numbers `round(x / scale) + zero`, clamped to the range of a type.
#[derive(Debug)]
struct Quantize {
    axis: i64,
    range: [i64; 2],
}

/// `DequantizeLinear`: `(q - zero) * scale`.
#[derive(Debug)]
struct Dequantize {
    axis: i64,
}

pub(super) fn build(attributes: &Attributes<'_>) -> Outcome<Option<Box<dyn Operator>>> {
    let axis = attributes.int("axis", 1);
    if attributes.int("block_size", 0) != 0 {
        problem!("scales of blocks");
    }
    match attributes.kind() {
        "QuantizeLinear" => {
            let asked = attributes.int("output_dtype", 0) as i32;
            let kind = if asked != 0 {
                asked
            } else {
                attributes.data_type(2).unwrap_or(data_type::UINT8)
            };
            let range = match kind {
                data_type::UINT8 => [0, 255],
                data_type::INT8 => [-128, 127],
                data_type::UINT16 => [0, 65_535],
                data_type::INT16 => [-32_768, 32_767],
                other => problem!("quantisation to element type {other}"),
            };
            Ok(Some(Box::new(Quantize { axis, range })))
        }
        "DequantizeLinear" => Ok(Some(Box::new(Dequantize { axis }))),
        _ => Ok(None),
    }
}

/// Reshapes a scale or zero point so that it broadcasts along `axis` of a value of `rank`
/// dimensions.
fn along<T: Clone>(x: &Array<T>, axis: i64, rank: usize) -> Outcome<Array<T>> {
    if x.len() == 1 {
        return reshape(x, &[]);
    }
    let mut shape = vec![1; rank];
    shape[to_axis(axis, rank)?] = x.len();
    reshape(&plain(x), &shape)
}

fn scale_and_zero(inputs: &Inputs<'_>, axis: i64) -> Outcome<[Array<f32>; 2]> {
    let rank = inputs.value(0)?.shape().len();
    let scale = along(inputs.float(1)?, axis, rank)?;
    let zero = match inputs.get(2) {
        Some(zero) => along(&map(zero.int()?, |v| v as f32)?, axis, rank)?,
        None => map(&scale, |_| 0.0)?,
    };
    Ok([scale, zero])
}

impl Operator for Quantize {
    fn forward(&self, inputs: &Inputs<'_>) -> Outcome<Vec<Value>> {
        let [scale, zero] = scale_and_zero(inputs, self.axis)?;
        let [low, high] = self.range;
        let steps = combine(inputs.float(0)?, &scale, |x, scale| (x / scale).round_ties_even())?;
        let whole = combine(&steps, &zero, |steps, zero| ((steps + zero) as i64).clamp(low, high))?;
        Ok(vec![Value::Int(whole)])
    }

    fn backward(&self, back: &mut Back<'_>) -> Outcome<Vec<Option<Array<f32>>>> {
        let [scale, zero] = scale_and_zero(&back.inputs, self.axis)?;
        let [low, high] = self.range.map(|bound| bound as f32);
        let steps = combine(back.inputs.float(0)?, &scale, |x, scale| x / scale)?;
        let inside = combine(&steps, &zero, |steps, zero| (low..=high).contains(&(steps + zero)))?;
        let gradient = combine(back.gradient()?, &scale, |g, scale| g / scale)?;
        let kept = combine(&gradient, &inside, |g, inside| if inside { g } else { 0.0 })?;
        Ok(back.only(Some(kept)))
    }
}

impl Operator for Dequantize {
    fn forward(&self, inputs: &Inputs<'_>) -> Outcome<Vec<Value>> {
        let [scale, zero] = scale_and_zero(inputs, self.axis)?;
        let steps = combine(inputs.value(0)?.int()?, &zero, |q, zero| q as f32 - zero)?;
        Ok(vec![Value::Float(combine(&steps, &scale, |steps, scale| steps * scale)?)])
    }

    fn backward(&self, back: &mut Back<'_>) -> Outcome<Vec<Option<Array<f32>>>> {
        let [scale, _] = scale_and_zero(&back.inputs, self.axis)?;
        Ok(back.only(Some(combine(back.gradient()?, &scale, |g, scale| g * scale)?)))
    }
}
