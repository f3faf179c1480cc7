//! Conversions of type.

use super::{Attributes, Back, Inputs, Operator};
use crate::{
    error::{Outcome, problem},
    proto::data_type,
    value::{Array, Value, map},
};

/// `Cast` to a type, or `CastLike` to the second input's type.
#[derive(Debug)]
struct Cast {
    to: Option<i32>,
}

pub(super) fn build(attributes: &Attributes<'_>) -> Outcome<Option<Box<dyn Operator>>> {
    let to = match attributes.kind() {
        "Cast" => Some(attributes.int("to", i64::from(data_type::FLOAT)) as i32),
        "CastLike" => None,
        _ => return Ok(None),
    };
    Ok(Some(Box::new(Cast { to })))
}

/// The Rust type that holds a type of ONNX.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Held {
    Float,
    Int,
    Bool,
}

fn held(kind: i32) -> Outcome<Held> {
    Ok(match kind {
        data_type::FLOAT | data_type::FLOAT16 | data_type::BFLOAT16 | data_type::DOUBLE => {
            Held::Float
        }
        data_type::BOOL => Held::Bool,
        data_type::INT8
        | data_type::INT16
        | data_type::INT32
        | data_type::INT64
        | data_type::UINT8
        | data_type::UINT16
        | data_type::UINT32
        | data_type::UINT64 => Held::Int,
        other => problem!("element type {other} is not supported"),
    })
}

/// A whole number wrapped into the range of a type, as a conversion does.
fn narrow(value: i64, kind: i32) -> i64 {
    match kind {
        data_type::INT8 => i64::from(value as i8),
        data_type::UINT8 => i64::from(value as u8),
        data_type::INT16 => i64::from(value as i16),
        data_type::UINT16 => i64::from(value as u16),
        data_type::INT32 => i64::from(value as i32),
        data_type::UINT32 => i64::from(value as u32),
        _ => value,
    }
}

/// A number rounded to the narrower floating-point type.
fn round(value: f32, kind: i32) -> f32 {
    match kind {
        data_type::FLOAT16 => half::f16::from_f32(value).to_f32(),
        data_type::BFLOAT16 => half::bf16::from_f32(value).to_f32(),
        _ => value,
    }
}

impl Operator for Cast {
    fn forward(&self, inputs: &Inputs<'_>) -> Outcome<Vec<Value>> {
        let (to, kind) = match (self.to, inputs.get(1)) {
            (Some(kind), _) => (held(kind)?, kind),
            (None, Some(Value::Int(_))) => (Held::Int, data_type::INT64),
            (None, Some(Value::Bool(_))) => (Held::Bool, data_type::BOOL),
            (None, _) => (Held::Float, data_type::FLOAT),
        };
        Ok(vec![match (inputs.value(0)?, to) {
            (Value::Float(x), Held::Float) => Value::Float(map(x, |x| round(x, kind))?),
            (Value::Float(x), Held::Int) => Value::Int(map(x, |x| narrow(x as i64, kind))?),
            (Value::Float(x), Held::Bool) => Value::Bool(map(x, |x| x != 0.0)?),
            (Value::Int(x), Held::Float) => Value::Float(map(x, |x| round(x as f32, kind))?),
            (Value::Int(x), Held::Int) => Value::Int(map(x, |x| narrow(x, kind))?),
            (Value::Int(x), Held::Bool) => Value::Bool(map(x, |x| x != 0)?),
            (Value::Bool(x), Held::Float) => Value::Float(map(x, |x| f32::from(u8::from(x)))?),
            (Value::Bool(x), Held::Int) => Value::Int(map(x, i64::from)?),
            (Value::Bool(x), Held::Bool) => Value::Bool(x.clone()),
        }])
    }

    fn backward(&self, back: &mut Back<'_>) -> Outcome<Vec<Option<Array<f32>>>> {
        // A conversion to whole numbers passes no gradient, whatever the next cast does.
        let smooth = matches!(back.inputs.value(0)?, Value::Float(_))
            && matches!(back.outputs.first(), Some(Some(Value::Float(_))));
        let gradient = if smooth { Some(back.gradient()?.clone()) } else { None };
        Ok(back.only(gradient))
    }
}
