//! Sums, products, powers and bounds of two or more values, broadcast to a common shape.

use super::{Attributes, Back, Inputs, Operator, Part};
use crate::{
    error::{Outcome, problem},
    value::{Array, Value, combine, map, unspread, update},
};

/// An operation on pairs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Add,
    Sub,
    Mul,
    Div,
    Pow,
    Max,
    Min,
    /// The rest of a quotient rounded down, with the sign of the divisor.
    Mod,
    /// The rest of a quotient rounded to zero, with the sign of the dividend.
    Fmod,
    PRelu,
}

/// A pair operation, repeated from left to right where there are more inputs.
#[derive(Debug)]
struct Pairs {
    kind: Kind,
    /// Whether the result is divided by the number of inputs.
    mean: bool,
}

/// Clips numbers to two bounds.
#[derive(Debug)]
struct Clip {
    /// Bounds of opsets up to 10, where the bounds are options.
    bounds: [f32; 2],
}

pub(super) fn build(attributes: &Attributes<'_>) -> Outcome<Option<Box<dyn Operator>>> {
    let kind = match attributes.kind() {
        "Add" | "Sum" | "Mean" => Kind::Add,
        "Sub" => Kind::Sub,
        "Mul" => Kind::Mul,
        "Div" => Kind::Div,
        "Pow" => Kind::Pow,
        "Max" => Kind::Max,
        "Min" => Kind::Min,
        "Mod" if attributes.int("fmod", 0) != 0 => Kind::Fmod,
        "Mod" => Kind::Mod,
        "PRelu" => Kind::PRelu,
        "Clip" => {
            let bounds = [
                attributes.float("min", f32::NEG_INFINITY),
                attributes.float("max", f32::INFINITY),
            ];
            return Ok(Some(Box::new(Clip { bounds })));
        }
        _ => return Ok(None),
    };
    Ok(Some(Box::new(Pairs { kind, mean: attributes.kind() == "Mean" })))
}

fn of_floats(kind: Kind, a: &Array<f32>, b: &Array<f32>) -> Outcome<Array<f32>> {
    match kind {
        Kind::Add => combine(a, b, |a, b| a + b),
        Kind::Sub => combine(a, b, |a, b| a - b),
        Kind::Mul => combine(a, b, |a, b| a * b),
        Kind::Div => combine(a, b, |a, b| a / b),
        Kind::Pow => combine(a, b, power),
        Kind::Max => combine(a, b, f32::max),
        Kind::Min => combine(a, b, f32::min),
        Kind::Mod => combine(a, b, floor_mod),
        Kind::Fmod => combine(a, b, |a, b| a % b),
        Kind::PRelu => combine(a, b, |x, slope| if x > 0.0 { x } else { slope * x }),
    }
}

/// `a - floor(a / b) * b`: the sign of `b`, also of a zero.
fn floor_mod(a: f32, b: f32) -> f32 {
    let rest = a % b;
    if rest == 0.0 {
        0f32.copysign(b)
    } else if (rest < 0.0) != (b < 0.0) {
        rest + b
    } else {
        rest
    }
}

/// Does what [`floor_mod`] does; `b` is not 0.
fn floor_mod_of_ints(a: i64, b: i64) -> i64 {
    let rest = a.wrapping_rem(b);
    if rest != 0 && (rest < 0) != (b < 0) { rest + b } else { rest }
}

/// Small whole powers are computed as products, as in other implementations.
fn power(a: f32, b: f32) -> f32 {
    if b == 2.0 { a * a } else { a.powf(b) }
}

fn of_ints(kind: Kind, a: &Array<i64>, b: &Array<i64>) -> Outcome<Array<i64>> {
    if matches!(kind, Kind::Div | Kind::Mod | Kind::Fmod) && b.iter().any(|&b| b == 0) {
        problem!("a whole number is divided by zero");
    }
    match kind {
        Kind::Add => combine(a, b, i64::wrapping_add),
        Kind::Sub => combine(a, b, i64::wrapping_sub),
        Kind::Mul => combine(a, b, i64::wrapping_mul),
        Kind::Div => combine(a, b, i64::wrapping_div),
        Kind::Pow => combine(a, b, |a, b| a.wrapping_pow(b.clamp(0, 64) as u32)),
        Kind::Max => combine(a, b, i64::max),
        Kind::Min => combine(a, b, i64::min),
        Kind::Mod => combine(a, b, floor_mod_of_ints),
        Kind::Fmod => combine(a, b, i64::wrapping_rem),
        Kind::PRelu => problem!("expected floating-point numbers"),
    }
}

impl Pairs {
    fn pair(&self, a: &Value, b: &Value) -> Outcome<Value> {
        match (a, b) {
            (Value::Float(a), Value::Float(b)) => of_floats(self.kind, a, b).map(Value::Float),
            (Value::Int(a), Value::Int(b)) => of_ints(self.kind, a, b).map(Value::Int),
            (Value::Float(a), Value::Int(b)) => {
                of_floats(self.kind, a, &map(b, |b| b as f32)?).map(Value::Float)
            }
            _ => problem!("its inputs are of types that do not go together"),
        }
    }

    /// The gradient of the input `side` of a pair.
    fn pulled(&self, side: usize, [a, b]: [&Array<f32>; 2], g: &Array<f32>) -> Outcome<Array<f32>> {
        let pulled = match (self.kind, side) {
            (Kind::Sub, 0) => g.clone(),
            (Kind::Sub, _) => map(g, |g| -g)?,
            (Kind::Mul, 0) => combine(g, b, |g, b| g * b)?,
            (Kind::Mul, _) => combine(g, a, |g, a| g * a)?,
            (Kind::Div, 0) => combine(g, b, |g, b| g / b)?,
            (kind, _) => {
                let (pairs, slope) = (combine(a, b, |a, b| (a, b))?, Self::slopes(kind)[side]);
                combine(&pairs, g, |(a, b), g| slope(a, b, g))?
            }
        };
        unspread(pulled, if side == 0 { a.shape() } else { b.shape() })
    }

    /// Slopes by the two inputs, as functions of both inputs and the gradient.
    fn slopes(kind: Kind) -> [fn(f32, f32, f32) -> f32; 2] {
        match kind {
            Kind::Add => [|_, _, g| g, |_, _, g| g],
            Kind::Sub => [|_, _, g| g, |_, _, g| -g],
            Kind::Mul => [|_, b, g| g * b, |a, _, g| g * a],
            Kind::Div => [|_, b, g| g / b, |a, b, g| -g * a / (b * b)],
            Kind::Pow => [
                |a, b, g| if b == 0.0 { 0.0 } else { g * b * power(a, b - 1.0) },
                |a, b, g| if a == 0.0 && b >= 0.0 { 0.0 } else { g * power(a, b) * a.ln() },
            ],
            // Equal values share the gradient, as in PyTorch.
            Kind::Max => [|a, b, g| g * share(a, b), |a, b, g| g * share(b, a)],
            Kind::Min => [|a, b, g| g * share(b, a), |a, b, g| g * share(a, b)],
            Kind::Mod => [|_, _, g| g, |a, b, g| -g * (a / b).floor()],
            Kind::Fmod => [|_, _, g| g, |a, b, g| -g * (a / b).trunc()],
            Kind::PRelu => [
                |x, slope, g| if x > 0.0 { g } else { g * slope },
                |x, _, g| if x > 0.0 { 0.0 } else { g * x },
            ],
        }
    }
}

/// The share of a in the gradient of `max(a, b)`.
fn share(a: f32, b: f32) -> f32 {
    if a > b {
        1.0
    } else if a == b {
        0.5
    } else {
        0.0
    }
}

/// The value as floating-point numbers, whatever its type.
fn numbers(value: &Value) -> Outcome<Array<f32>> {
    Ok(match value {
        Value::Float(x) => x.clone(),
        Value::Int(x) => map(x, |x| x as f32)?,
        Value::Bool(_) => problem!("expected numbers"),
    })
}

impl Operator for Pairs {
    fn forward(&self, inputs: &Inputs<'_>) -> Outcome<Vec<Value>> {
        let mut result = inputs.value(0)?.clone();
        for index in 1..inputs.len() {
            result = self.pair(&result, inputs.value(index)?)?;
        }
        if self.mean {
            let count = inputs.len() as f32;
            result = Value::Float(map(result.float()?, |v| v / count)?);
        }
        Ok(vec![result])
    }

    fn backward(&self, back: &mut Back<'_>) -> Outcome<Vec<Option<Array<f32>>>> {
        let count = back.inputs.len();
        let mut gradient = back.take_gradient()?;
        if self.mean {
            gradient = map(&gradient, |g| g / count as f32)?;
        }
        let mut all = vec![None; count];
        if self.kind == Kind::Add {
            for (index, place) in all.iter_mut().enumerate() {
                if back.wants(index) {
                    // A summand that was never stored has the sum's shape.
                    let shape = back.inputs.get(index).map_or(gradient.shape(), Value::shape);
                    *place = Some(unspread(gradient.clone(), shape)?);
                }
            }
            return Ok(all);
        }
        // The results of the pairs before the last one, from left to right.
        let mut left = vec![back.inputs.value(0)?.clone()];
        for index in 1..count.saturating_sub(1) {
            left.push(self.pair(&left[index - 1], back.inputs.value(index)?)?);
        }
        for index in (1..count).rev() {
            let (a, b) = (numbers(&left[index - 1])?, numbers(back.inputs.value(index)?)?);
            if back.wants(index) {
                all[index] = Some(self.pulled(1, [&a, &b], &gradient)?);
            }
            if index > 1 || back.wants(0) {
                gradient = self.pulled(0, [&a, &b], &gradient)?;
            }
        }
        all[0] = back.wants(0).then_some(gradient);
        Ok(all)
    }

    fn part(&self) -> Option<Part<'_>> {
        (self.kind == Kind::Add && !self.mean).then_some(Part::Add)
    }
}

/// NaN stays NaN; where the bounds cross, the upper one counts.
fn clipped(x: f32, low: f32, high: f32) -> f32 {
    let x = if x < low { low } else { x };
    if x > high { high } else { x }
}

impl Clip {
    fn bounds(&self, inputs: &Inputs<'_>) -> Outcome<[f32; 2]> {
        let mut bounds = self.bounds;
        for (index, bound) in bounds.iter_mut().enumerate() {
            if let Some(value) = inputs.get(index + 1) {
                match value.float()?.first() {
                    Some(&value) => *bound = value,
                    None => problem!("an empty bound"),
                }
            }
        }
        Ok(bounds)
    }
}

impl Operator for Clip {
    fn forward(&self, inputs: &Inputs<'_>) -> Outcome<Vec<Value>> {
        if let Value::Int(x) = inputs.value(0)? {
            let bound = |index: usize, default: i64| -> Outcome<i64> {
                Ok(inputs.list(index)?.and_then(|v| v.first().copied()).unwrap_or(default))
            };
            let (low, high) = (bound(1, i64::MIN)?, bound(2, i64::MAX)?);
            return Ok(vec![Value::Int(map(x, |x| x.max(low).min(high))?)]);
        }
        let [low, high] = self.bounds(inputs)?;
        Ok(vec![Value::Float(map(inputs.float(0)?, |x| clipped(x, low, high))?)])
    }

    fn backward(&self, back: &mut Back<'_>) -> Outcome<Vec<Option<Array<f32>>>> {
        let [low, high] = self.bounds(&back.inputs)?;
        let g = back.take_gradient()?;
        let inside = |g: f32, [x]: [f32; 1]| if x < low || x > high { 0.0 } else { g };
        Ok(back.only(Some(update(g, [back.inputs.float(0)?], inside)?)))
    }
}
