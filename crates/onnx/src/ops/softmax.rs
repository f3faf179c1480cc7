//! Softmax and its logarithm.

use ndarray::Axis;

use super::{Attributes, Back, Inputs, Operator};
use crate::{
    error::Outcome,
    value::{Array, Value, plain, reshape, to_axis},
};

/// Softmax over one axis, or, up to opset 12, over this axis and all axes after it.
#[derive(Debug)]
struct Softmax {
    axis: i64,
    over_rest: bool,
    logarithm: bool,
}

pub(super) fn build(attributes: &Attributes<'_>) -> Outcome<Option<Box<dyn Operator>>> {
    let logarithm = match attributes.kind() {
        "Softmax" => false,
        "LogSoftmax" => true,
        _ => return Ok(None),
    };
    let over_rest = attributes.opset < 13;
    let axis = attributes.int("axis", if over_rest { 1 } else { -1 });
    Ok(Some(Box::new(Softmax { axis, over_rest, logarithm })))
}

impl Softmax {
    /// Reshapes the value and returns the number of the axis to sum over.
    fn arrange(&self, x: &Array<f32>) -> Outcome<(Array<f32>, usize)> {
        let axis = to_axis(self.axis, x.ndim())?;
        if !self.over_rest {
            return Ok((plain(x), axis));
        }
        let (outer, inner) = x.shape().split_at(axis);
        Ok((reshape(x, &[outer.iter().product(), inner.iter().product()])?, 1))
    }
}

impl Operator for Softmax {
    fn forward(&self, inputs: &Inputs<'_>) -> Outcome<Vec<Value>> {
        let x = inputs.float(0)?;
        let (mut y, axis) = self.arrange(x)?;
        for mut lane in y.lanes_mut(Axis(axis)) {
            let most = lane.fold(f32::NEG_INFINITY, |most, &v| most.max(v));
            if self.logarithm {
                let sum = lane.fold(0.0, |sum, &v| sum + (v - most).exp());
                let shift = most + sum.ln();
                lane.mapv_inplace(|v| v - shift);
            } else {
                lane.mapv_inplace(|v| (v - most).exp());
                let scale = lane.sum().recip();
                lane.mapv_inplace(|v| v * scale);
            }
        }
        Ok(vec![Value::Float(reshape(&y, x.shape())?)])
    }

    fn backward(&self, back: &mut Back<'_>) -> Outcome<Vec<Option<Array<f32>>>> {
        let (y, axis) = self.arrange(back.output()?)?;
        let (mut g, _) = self.arrange(back.gradient()?)?;
        for (mut g, y) in g.lanes_mut(Axis(axis)).into_iter().zip(y.lanes(Axis(axis))) {
            if self.logarithm {
                let sum = g.sum();
                g.zip_mut_with(&y, |g, y| *g -= y.exp() * sum);
            } else {
                let dot = g.iter().zip(y).fold(0.0, |sum, (g, y)| sum + g * y);
                g.zip_mut_with(&y, |g, y| *g = y * (*g - dot));
            }
        }
        Ok(back.only(Some(reshape(&g, back.output()?.shape())?)))
    }
}
