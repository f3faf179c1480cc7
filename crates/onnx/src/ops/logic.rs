//! Comparisons, truth values, and choices between values.

use super::{Attributes, Back, Inputs, Operator};
use crate::{
    error::{Outcome, problem},
    value::{Array, Value, combine, map, select, unspread, zeros},
};

/// A comparison of numbers, or a function of truth values.
#[derive(Clone, Copy, Debug)]
enum Logic {
    Equal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    And,
    Or,
    Xor,
    Not,
}

/// `Where`: chooses between two values by a condition.
#[derive(Debug)]
struct Where;

pub(super) fn build(attributes: &Attributes<'_>) -> Outcome<Option<Box<dyn Operator>>> {
    let logic = match attributes.kind() {
        "Equal" => Logic::Equal,
        "Less" => Logic::Less,
        "LessOrEqual" => Logic::LessOrEqual,
        "Greater" => Logic::Greater,
        "GreaterOrEqual" => Logic::GreaterOrEqual,
        "And" => Logic::And,
        "Or" => Logic::Or,
        "Xor" => Logic::Xor,
        "Not" => Logic::Not,
        "Where" => return Ok(Some(Box::new(Where))),
        _ => return Ok(None),
    };
    Ok(Some(Box::new(logic)))
}

fn compare<T: Copy + PartialOrd>(logic: Logic, a: &Array<T>, b: &Array<T>) -> Outcome<Array<bool>> {
    match logic {
        Logic::Equal => combine(a, b, |a, b| a == b),
        Logic::Less => combine(a, b, |a, b| a < b),
        Logic::LessOrEqual => combine(a, b, |a, b| a <= b),
        Logic::Greater => combine(a, b, |a, b| a > b),
        Logic::GreaterOrEqual => combine(a, b, |a, b| a >= b),
        Logic::And | Logic::Or | Logic::Xor | Logic::Not => problem!("expected truth values"),
    }
}

fn of_truth(logic: Logic, a: &Array<bool>, b: &Array<bool>) -> Outcome<Array<bool>> {
    match logic {
        Logic::Equal => combine(a, b, |a, b| a == b),
        Logic::And => combine(a, b, |a, b| a && b),
        Logic::Or => combine(a, b, |a, b| a || b),
        Logic::Xor => combine(a, b, |a, b| a != b),
        _ => problem!("expected numbers"),
    }
}

impl Operator for Logic {
    fn forward(&self, inputs: &Inputs<'_>) -> Outcome<Vec<Value>> {
        if matches!(self, Self::Not) {
            return Ok(vec![Value::Bool(map(inputs.value(0)?.bool()?, |x| !x)?)]);
        }
        let result = match (inputs.value(0)?, inputs.value(1)?) {
            (Value::Float(a), Value::Float(b)) => compare(*self, a, b)?,
            (Value::Int(a), Value::Int(b)) => compare(*self, a, b)?,
            (Value::Bool(a), Value::Bool(b)) => of_truth(*self, a, b)?,
            _ => problem!("its inputs are of different types"),
        };
        Ok(vec![Value::Bool(result)])
    }

    fn backward(&self, back: &mut Back<'_>) -> Outcome<Vec<Option<Array<f32>>>> {
        Ok(vec![None; back.inputs.len()])
    }

    fn is_differentiable(&self) -> bool {
        false
    }
}

impl Operator for Where {
    fn forward(&self, inputs: &Inputs<'_>) -> Outcome<Vec<Value>> {
        let condition = inputs.value(0)?.bool()?;
        Ok(vec![match (inputs.value(1)?, inputs.value(2)?) {
            (Value::Float(a), Value::Float(b)) => Value::Float(select(condition, a, b)?),
            (Value::Int(a), Value::Int(b)) => Value::Int(select(condition, a, b)?),
            (Value::Bool(a), Value::Bool(b)) => Value::Bool(select(condition, a, b)?),
            _ => problem!("its inputs are of different types"),
        }])
    }

    fn backward(&self, back: &mut Back<'_>) -> Outcome<Vec<Option<Array<f32>>>> {
        let condition = back.inputs.value(0)?.bool()?;
        let gradient = back.gradient()?;
        let zero = zeros(&[]);
        let mut all = vec![None; 3];
        for (index, place) in all.iter_mut().enumerate().skip(1) {
            if back.wants(index) {
                let taken = match index {
                    1 => select(condition, gradient, &zero)?,
                    _ => select(condition, &zero, gradient)?,
                };
                *place = Some(unspread(taken, back.inputs.value(index)?.shape())?);
            }
        }
        Ok(all)
    }
}
