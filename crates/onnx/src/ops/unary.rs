//! Functions of one number: activations, roots, exponentials.

use std::f32::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI};

use super::{Attributes, Back, Inputs, Operator};
use crate::{
    error::{Outcome, problem},
    value::{Array, Value, combine, map},
};

/// A function with up to two options.
#[derive(Clone, Copy, Debug)]
struct Unary {
    options: [f32; 2],
    f: fn(f32, [f32; 2]) -> f32,
    /// The derivative, as a function of the argument and the value.
    derivative: fn(f32, f32, [f32; 2]) -> f32,
    /// The same function on whole numbers, if there is one.
    of_int: Option<fn(i64) -> i64>,
}

fn sigmoid(x: f32) -> f32 {
    if x >= 0.0 { 1.0 / (1.0 + (-x).exp()) } else { x.exp() / (1.0 + x.exp()) }
}

fn softplus(x: f32) -> f32 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

fn sign(x: f32) -> f32 {
    f32::from(i8::from(x > 0.0) - i8::from(x < 0.0))
}

/// Distribution function and density of the standard normal distribution.
fn normal(x: f32) -> [f32; 2] {
    let density = 0.5 * FRAC_2_SQRT_PI * FRAC_1_SQRT_2 * (-0.5 * x * x).exp();
    [0.5 * (1.0 + libm::erff(x * FRAC_1_SQRT_2)), density]
}

/// The argument of the hyperbolic tangent in GELU's approximation, and its derivative.
fn gelu_argument(x: f32) -> [f32; 2] {
    const ROOT: f32 = 0.797_884_6;
    const CUBIC: f32 = 0.044_715;
    [ROOT * (x + CUBIC * x * x * x), ROOT * (1.0 + 3.0 * CUBIC * x * x)]
}

const IDENTITY: Unary =
    Unary { options: [0.0; 2], f: |x, _| x, derivative: |_, _, _| 1.0, of_int: Some(|x| x) };

/// A function without options.
const fn plain(f: fn(f32, [f32; 2]) -> f32, derivative: fn(f32, f32, [f32; 2]) -> f32) -> Unary {
    Unary { options: [0.0; 2], f, derivative, of_int: None }
}

/// A function that is constant between its jumps.
const fn steps(f: fn(f32, [f32; 2]) -> f32) -> Unary {
    plain(f, |_, _, _| 0.0)
}

pub(super) fn build(attributes: &Attributes<'_>) -> Outcome<Option<Box<dyn Operator>>> {
    let alpha = |default: f32| attributes.float("alpha", default);
    let unary = match attributes.kind() {
        "Abs" => {
            Unary { of_int: Some(i64::wrapping_abs), ..plain(|x, _| x.abs(), |x, _, _| sign(x)) }
        }
        "Neg" => Unary { of_int: Some(i64::wrapping_neg), ..plain(|x, _| -x, |_, _, _| -1.0) },
        "Exp" => plain(|x, _| x.exp(), |_, y, _| y),
        "Log" => plain(|x, _| x.ln(), |x, _, _| 1.0 / x),
        "Sqrt" => plain(|x, _| x.sqrt(), |_, y, _| 0.5 / y),
        "Reciprocal" => plain(|x, _| 1.0 / x, |_, y, _| -y * y),
        "Erf" => plain(|x, _| libm::erff(x), |x, _, _| FRAC_2_SQRT_PI * (-x * x).exp()),
        "Tanh" => plain(|x, _| x.tanh(), |_, y, _| 1.0 - y * y),
        "Sin" => plain(|x, _| x.sin(), |x, _, _| x.cos()),
        "Cos" => plain(|x, _| x.cos(), |x, _, _| -x.sin()),
        "Sigmoid" => plain(|x, _| sigmoid(x), |_, y, _| y * (1.0 - y)),
        "Relu" => plain(|x, _| x.max(0.0), |x, _, _| f32::from(u8::from(x > 0.0))),
        "Softplus" => plain(|x, _| softplus(x), |x, _, _| sigmoid(x)),
        "Softsign" => plain(|x, _| x / (1.0 + x.abs()), |x, _, _| (1.0 + x.abs()).powi(2).recip()),
        "Mish" => plain(
            |x, _| x * softplus(x).tanh(),
            |x, _, _| {
                let t = softplus(x).tanh();
                t + x * (1.0 - t * t) * sigmoid(x)
            },
        ),
        "Floor" => steps(|x, _| x.floor()),
        "Ceil" => steps(|x, _| x.ceil()),
        "Round" => steps(|x, _| x.round_ties_even()),
        "Sign" => steps(|x, _| sign(x)),
        "LeakyRelu" => Unary {
            options: [alpha(0.01), 0.0],
            ..plain(
                |x, [a, _]| if x > 0.0 { x } else { a * x },
                |x, _, [a, _]| if x > 0.0 { 1.0 } else { a },
            )
        },
        "ThresholdedRelu" => Unary {
            options: [alpha(1.0), 0.0],
            ..plain(
                |x, [a, _]| if x > a { x } else { 0.0 },
                |x, _, [a, _]| f32::from(u8::from(x > a)),
            )
        },
        "Elu" => Unary {
            options: [alpha(1.0), 0.0],
            ..plain(
                |x, [a, _]| if x > 0.0 { x } else { a * x.exp_m1() },
                |x, y, [a, _]| if x > 0.0 { 1.0 } else { y + a },
            )
        },
        "Selu" => Unary {
            options: [alpha(1.673_263_2), attributes.float("gamma", 1.050_701)],
            ..plain(
                |x, [a, g]| if x > 0.0 { g * x } else { g * a * x.exp_m1() },
                |x, y, [a, g]| if x > 0.0 { g } else { y + g * a },
            )
        },
        "Celu" => Unary {
            options: [alpha(1.0), 0.0],
            ..plain(
                |x, [a, _]| if x > 0.0 { x } else { a * (x / a).exp_m1() },
                |x, _, [a, _]| if x > 0.0 { 1.0 } else { (x / a).exp() },
            )
        },
        "HardSigmoid" => Unary {
            options: [alpha(0.2), attributes.float("beta", 0.5)],
            ..plain(
                |x, [a, b]| (a * x + b).clamp(0.0, 1.0),
                |_, y, [a, _]| if y > 0.0 && y < 1.0 { a } else { 0.0 },
            )
        },
        "HardSwish" => plain(
            |x, _| x * (x / 6.0 + 0.5).clamp(0.0, 1.0),
            |x, _, _| {
                if x <= -3.0 {
                    0.0
                } else if x < 3.0 {
                    x / 3.0 + 0.5
                } else {
                    1.0
                }
            },
        ),
        "Gelu" if attributes.text("approximate", "none") == "tanh" => plain(
            |x, _| 0.5 * x * (1.0 + gelu_argument(x)[0].tanh()),
            |x, _, _| {
                let [u, du] = gelu_argument(x);
                let t = u.tanh();
                0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * du
            },
        ),
        "Gelu" => plain(
            |x, _| x * normal(x)[0],
            |x, _, _| {
                let [below, density] = normal(x);
                below + x * density
            },
        ),
        // In inference, dropout is the identity.
        "Identity" | "Dropout" => IDENTITY,
        _ => return Ok(None),
    };
    Ok(Some(Box::new(unary)))
}

impl Operator for Unary {
    fn forward(&self, inputs: &Inputs<'_>) -> Outcome<Vec<Value>> {
        let Self { options, f, of_int, .. } = *self;
        Ok(vec![match (inputs.value(0)?, of_int) {
            (Value::Float(x), _) => Value::Float(map(x, |x| f(x, options))),
            (Value::Int(x), Some(of_int)) => Value::Int(map(x, of_int)),
            (Value::Bool(x), Some(_)) => Value::Bool(x.clone()),
            _ => problem!("expected floating-point numbers"),
        }])
    }

    fn backward(&self, back: &Back<'_>) -> Outcome<Vec<Option<Array<f32>>>> {
        let Self { options, derivative, .. } = *self;
        let slope =
            combine(back.inputs.float(0)?, back.output()?, |x, y| derivative(x, y, options))?;
        Ok(back.only(Some(combine(&slope, back.gradient()?, |slope, g| slope * g)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{proto::NodeProto, value::array};

    const NAMES: &[&str] = &[
        "Abs",
        "Neg",
        "Exp",
        "Log",
        "Sqrt",
        "Reciprocal",
        "Erf",
        "Tanh",
        "Sin",
        "Cos",
        "Sigmoid",
        "Relu",
        "Softplus",
        "Softsign",
        "Mish",
        "Floor",
        "Ceil",
        "Round",
        "Sign",
        "LeakyRelu",
        "ThresholdedRelu",
        "Elu",
        "Selu",
        "Celu",
        "HardSigmoid",
        "HardSwish",
        "Gelu",
        "Identity",
    ];

    #[test]
    fn derivatives_agree_with_differences() {
        for name in NAMES {
            let node = NodeProto { op_type: (*name).into(), ..NodeProto::default() };
            let types = Default::default();
            let operator = build(&Attributes::new(&node, 20, &types)).unwrap().unwrap();
            // The argument is positive for functions that need it, and away from kinks and jumps.
            let sign = if matches!(*name, "Log" | "Sqrt") { 1.0 } else { -1.0 };
            let points: Vec<f32> = (0..60)
                .map(|i| 0.263 + 0.1131 * i as f32)
                .filter(|x| ((2.0 * x).round() - 2.0 * x).abs() > 0.05)
                .enumerate()
                .map(|(i, x)| if i % 2 == 0 { x } else { sign * x })
                .collect();
            let count = points.len();
            let at = |shift: f32| {
                let x = array(&[count], points.iter().map(|x| x + shift).collect()).unwrap();
                let x = Value::Float(x);
                operator.forward(&Inputs(&[Some(&x)])).unwrap().remove(0)
            };
            let (x, y) = (Value::Float(array(&[count], points.clone()).unwrap()), at(0.0));
            let back = Back {
                inputs: Inputs(&[Some(&x)]),
                outputs: &[Some(&y)],
                gradients: &[Some(array(&[count], vec![1.0; count]).unwrap())],
                wanted: &[true],
            };
            let slope = operator.backward(&back).unwrap().remove(0).unwrap();
            let (high, low) = (at(1e-2), at(-1e-2));
            for i in 0..count {
                let difference = (high.float().unwrap()[i] - low.float().unwrap()[i]) / 2e-2;
                let size = difference.abs().max(1.0);
                assert!(
                    (slope[i] - difference).abs() < 4e-3 * size,
                    "{name} at {}: {} and {difference}",
                    points[i],
                    slope[i]
                );
            }
        }
    }
}
