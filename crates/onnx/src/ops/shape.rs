//! Shapes as values, and constants made from them.

use super::{Attributes, Back, Inputs, Operator};
use crate::{
    error::{Outcome, problem},
    proto::attribute_type,
    value::{Array, Value, array, to_shape},
};

/// Operations whose outputs do not depend smoothly on the numbers of their inputs.
#[derive(Debug)]
enum Shape {
    /// The sides of the input from `start` to `end`.
    Of { start: i64, end: Option<i64> },
    /// The number of elements.
    Size,
    /// A value that the file holds.
    Constant(Value),
    /// A tensor filled with one number.
    Filled(Value),
    /// Numbers from a start to an end by a step.
    Range,
}

pub(super) fn build(attributes: &Attributes<'_>) -> Outcome<Option<Box<dyn Operator>>> {
    Ok(Some(Box::new(match attributes.kind() {
        "Shape" => {
            let end = attributes.has("end").then(|| attributes.int("end", 0));
            Shape::Of { start: attributes.int("start", 0), end }
        }
        "Size" => Shape::Size,
        "Constant" => Shape::Constant(constant(attributes)?),
        "ConstantOfShape" => {
            let value = attributes.tensor("value")?;
            Shape::Filled(value.unwrap_or(Value::Float(array(&[1], vec![0.0])?)))
        }
        "Range" => Shape::Range,
        _ => return Ok(None),
    })))
}

fn constant(attributes: &Attributes<'_>) -> Outcome<Value> {
    if let Some(tensor) = attributes.tensor("value")? {
        return Ok(tensor);
    }
    if attributes.has_type("value_float", attribute_type::FLOAT) {
        return Ok(Value::Float(array(&[], vec![attributes.float("value_float", 0.0)])?));
    }
    if attributes.has_type("value_int", attribute_type::INT) {
        return Ok(Value::Int(array(&[], vec![attributes.int("value_int", 0)])?));
    }
    if let Some(floats) = attributes.floats("value_floats") {
        return Ok(Value::Float(array(&[floats.len()], floats)?));
    }
    if let Some(ints) = attributes.ints("value_ints") {
        return Ok(Value::Int(array(&[ints.len()], ints)?));
    }
    problem!("a constant that is neither numbers nor a tensor")
}

/// The numbers of a range, whose bounds are brought to one type.
fn range(inputs: &Inputs<'_>) -> Outcome<Value> {
    const MOST: f64 = 1e8;
    let first = |index: usize| -> Outcome<f64> {
        Ok(match inputs.value(index)? {
            Value::Int(x) => x.first().map_or(0.0, |&v| v as f64),
            Value::Float(x) => x.first().map_or(0.0, |&v| f64::from(v)),
            Value::Bool(_) => problem!("expected numbers"),
        })
    };
    let [start, end, step] = [first(0)?, first(1)?, first(2)?];
    let count = ((end - start) / step).ceil().max(0.0);
    if !(0.0..=MOST).contains(&count) {
        problem!("a range from {start} to {end} by {step}");
    }
    let count = count as usize;
    let at = |i: usize| start + i as f64 * step;
    Ok(match inputs.value(0)? {
        Value::Int(_) => Value::Int(array(&[count], (0..count).map(|i| at(i) as i64).collect())?),
        _ => Value::Float(array(&[count], (0..count).map(|i| at(i) as f32).collect())?),
    })
}

fn filled(value: &Value, shape: &[usize]) -> Outcome<Value> {
    let index = ndarray::IxDyn(shape);
    Ok(match value {
        Value::Float(v) => Value::Float(Array::from_elem(index, v.first().copied().unwrap_or(0.0))),
        Value::Int(v) => Value::Int(Array::from_elem(index, v.first().copied().unwrap_or(0))),
        Value::Bool(v) => Value::Bool(Array::from_elem(index, v.first().copied().unwrap_or(false))),
    })
}

impl Operator for Shape {
    fn forward(&self, inputs: &Inputs<'_>) -> Outcome<Vec<Value>> {
        Ok(vec![match self {
            Self::Constant(value) => value.clone(),
            Self::Filled(value) => filled(value, &to_shape(&inputs.list(0)?.unwrap_or_default())?)?,
            Self::Range => range(inputs)?,
            Self::Size => {
                let count = inputs.value(0)?.shape().iter().product::<usize>();
                Value::Int(array(&[], vec![count as i64])?)
            }
            Self::Of { start, end } => {
                let shape = inputs.value(0)?.shape();
                let rank = shape.len() as i64;
                let bound = |v: i64| (if v < 0 { v + rank } else { v }).clamp(0, rank) as usize;
                let (start, end) = (bound(*start), bound(end.unwrap_or(rank)));
                let sides: Vec<i64> =
                    shape[start..end.max(start)].iter().map(|&side| side as i64).collect();
                Value::Int(array(&[sides.len()], sides)?)
            }
        }])
    }

    fn backward(&self, back: &mut Back<'_>) -> Outcome<Vec<Option<Array<f32>>>> {
        Ok(vec![None; back.inputs.len()])
    }

    fn is_differentiable(&self) -> bool {
        false
    }
}
