//! `Relu`, by the kernels. NaN stays NaN.

use sora_kernels::activation;

use super::{Attributes, Back, Inputs, Operator, Part};
use crate::{
    cache::isa,
    error::Outcome,
    value::{Array, Value, lie_alike, map, update},
};

#[derive(Debug)]
struct Relu;

pub(super) fn build(attributes: &Attributes<'_>) -> Outcome<Option<Box<dyn Operator>>> {
    Ok((attributes.kind() == "Relu").then(|| Box::new(Relu) as Box<dyn Operator>))
}

/// Whether a gradient passes where the result is `y`.
fn passes(y: f32) -> bool {
    y > 0.0 || y.is_nan()
}

impl Operator for Relu {
    fn forward(&self, inputs: &Inputs<'_>) -> Outcome<Vec<Value>> {
        let x = inputs.float(0)?;
        let y = map(x, |x| if passes(x) { x } else { 0.0 })?;
        Ok(vec![Value::Float(y)])
    }

    fn backward(&self, back: &mut Back<'_>) -> Outcome<Vec<Option<Array<f32>>>> {
        let mut g = back.take_gradient()?;
        let y = back.output()?;
        if lie_alike(&g, y)
            && let (Some(y), Some(g)) = (y.as_slice_memory_order(), g.as_slice_memory_order_mut())
        {
            activation::relu_grad_in_place(isa()?, y, g)?;
        } else {
            g = update(g, [y], |g, [y]| if passes(y) { g } else { 0.0 })?;
        }
        Ok(back.only(Some(g)))
    }

    fn part(&self) -> Option<Part<'_>> {
        Some(Part::Relu)
    }
}
