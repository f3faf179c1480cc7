//! Functions of one number: activations, roots, exponentials.

use std::{
    f32::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI},
    fmt::{self, Debug},
};

use super::{Attributes, Back, Inputs, Operator};
use crate::{
    error::{Outcome, problem},
    value::{Array, Value, map, update},
};

/// A function with up to two options. Each has a type of its own, so that the loops over its values
/// are compiled with it and not with calls.
#[derive(Clone, Copy)]
struct Unary<F, D> {
    options: [f32; 2],
    f: F,
    /// The derivative, as a function of the argument and the value.
    derivative: D,
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

/// A function of a number and the options.
trait Function: Fn(f32, [f32; 2]) -> f32 + Copy + Send + Sync + 'static {}
impl<F: Fn(f32, [f32; 2]) -> f32 + Copy + Send + Sync + 'static> Function for F {}

/// A derivative.
trait Derivative: Fn(f32, f32, [f32; 2]) -> f32 + Copy + Send + Sync + 'static {}
impl<D: Fn(f32, f32, [f32; 2]) -> f32 + Copy + Send + Sync + 'static> Derivative for D {}

/// A function without options.
fn plain(f: impl Function, derivative: impl Derivative) -> Unary<impl Function, impl Derivative> {
    Unary { options: [0.0; 2], f, derivative, of_int: None }
}

/// A function that is constant between its jumps.
fn steps(f: impl Function) -> Unary<impl Function, impl Derivative> {
    plain(f, |_, _, _| 0.0)
}

impl<F: Function, D: Derivative> Unary<F, D> {
    fn with(self, options: [f32; 2]) -> Box<dyn Operator> {
        Self { options, ..self }.boxed()
    }

    fn and_of_int(self, of_int: fn(i64) -> i64) -> Box<dyn Operator> {
        Self { of_int: Some(of_int), ..self }.boxed()
    }

    fn boxed(self) -> Box<dyn Operator> {
        Box::new(self)
    }
}

pub(super) fn build(attributes: &Attributes<'_>) -> Outcome<Option<Box<dyn Operator>>> {
    let alpha = |default: f32| attributes.float("alpha", default);
    let unary = match attributes.kind() {
        "Abs" => plain(|x, _| x.abs(), |x, _, _| sign(x)).and_of_int(i64::wrapping_abs),
        "Neg" => plain(|x, _| -x, |_, _, _| -1.0).and_of_int(i64::wrapping_neg),
        "Exp" => plain(|x, _| x.exp(), |_, y, _| y).boxed(),
        "Log" => plain(|x, _| x.ln(), |x, _, _| 1.0 / x).boxed(),
        "Sqrt" => plain(|x, _| x.sqrt(), |_, y, _| 0.5 / y).boxed(),
        "Reciprocal" => plain(|x, _| 1.0 / x, |_, y, _| -y * y).boxed(),
        "Erf" => plain(|x, _| libm::erff(x), |x, _, _| FRAC_2_SQRT_PI * (-x * x).exp()).boxed(),
        "Tanh" => plain(|x, _| x.tanh(), |_, y, _| 1.0 - y * y).boxed(),
        "Sin" => plain(|x, _| x.sin(), |x, _, _| x.cos()).boxed(),
        "Cos" => plain(|x, _| x.cos(), |x, _, _| -x.sin()).boxed(),
        "Sigmoid" => plain(|x, _| sigmoid(x), |_, y, _| y * (1.0 - y)).boxed(),
        "Softplus" => plain(|x, _| softplus(x), |x, _, _| sigmoid(x)).boxed(),
        "Softsign" => {
            plain(|x, _| x / (1.0 + x.abs()), |x, _, _| (1.0 + x.abs()).powi(2).recip()).boxed()
        }
        "Mish" => plain(
            |x, _| x * softplus(x).tanh(),
            |x, _, _| {
                let t = softplus(x).tanh();
                t + x * (1.0 - t * t) * sigmoid(x)
            },
        )
        .boxed(),
        "Floor" => steps(|x, _| x.floor()).boxed(),
        "Ceil" => steps(|x, _| x.ceil()).boxed(),
        "Round" => steps(|x, _| x.round_ties_even()).boxed(),
        "Sign" => steps(|x, _| sign(x)).boxed(),
        "LeakyRelu" => plain(
            |x, [a, _]| if x > 0.0 { x } else { a * x },
            |x, _, [a, _]| if x > 0.0 { 1.0 } else { a },
        )
        .with([alpha(0.01), 0.0]),
        "ThresholdedRelu" => plain(
            |x, [a, _]| if x > a { x } else { 0.0 },
            |x, _, [a, _]| f32::from(u8::from(x > a)),
        )
        .with([alpha(1.0), 0.0]),
        "Elu" => plain(
            |x, [a, _]| if x > 0.0 { x } else { a * x.exp_m1() },
            |x, y, [a, _]| if x > 0.0 { 1.0 } else { y + a },
        )
        .with([alpha(1.0), 0.0]),
        "Selu" => plain(
            |x, [a, g]| if x > 0.0 { g * x } else { g * a * x.exp_m1() },
            |x, y, [a, g]| if x > 0.0 { g } else { y + g * a },
        )
        .with([alpha(1.673_263_2), attributes.float("gamma", 1.050_701)]),
        "Celu" => plain(
            |x, [a, _]| if x > 0.0 { x } else { a * (x / a).exp_m1() },
            |x, _, [a, _]| if x > 0.0 { 1.0 } else { (x / a).exp() },
        )
        .with([alpha(1.0), 0.0]),
        "HardSigmoid" => plain(
            |x, [a, b]| (a * x + b).clamp(0.0, 1.0),
            |_, y, [a, _]| if y > 0.0 && y < 1.0 { a } else { 0.0 },
        )
        .with([alpha(0.2), attributes.float("beta", 0.5)]),
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
        )
        .boxed(),
        "Gelu" if attributes.text("approximate", "none") == "tanh" => plain(
            |x, _| 0.5 * x * (1.0 + gelu_argument(x)[0].tanh()),
            |x, _, _| {
                let [u, du] = gelu_argument(x);
                let t = u.tanh();
                0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * du
            },
        )
        .boxed(),
        "Gelu" => plain(
            |x, _| x * normal(x)[0],
            |x, _, _| {
                let [below, density] = normal(x);
                below + x * density
            },
        )
        .boxed(),
        "Dropout" => Box::new(Dropout) as Box<dyn Operator>,
        "Identity" => plain(|x, _| x, |_, _, _| 1.0).and_of_int(|x| x),
        _ => return Ok(None),
    };
    Ok(Some(unary))
}

impl<F, D> Debug for Unary<F, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unary").field("options", &self.options).finish_non_exhaustive()
    }
}

impl<F: Function, D: Derivative> Operator for Unary<F, D> {
    fn forward(&self, inputs: &Inputs<'_>) -> Outcome<Vec<Value>> {
        let Self { options, f, of_int, .. } = *self;
        Ok(vec![match (inputs.value(0)?, of_int) {
            (Value::Float(x), _) => Value::Float(map(x, |x| f(x, options))?),
            (Value::Int(x), Some(of_int)) => Value::Int(map(x, of_int)?),
            (Value::Bool(x), Some(_)) => Value::Bool(x.clone()),
            _ => problem!("expected floating-point numbers"),
        }])
    }

    fn backward(&self, back: &mut Back<'_>) -> Outcome<Vec<Option<Array<f32>>>> {
        let Self { options, derivative, .. } = *self;
        let g = back.take_gradient()?;
        let (x, y) = (back.inputs.float(0)?, back.output()?);
        let pulled = update(g, [x, y], |g, [x, y]| g * derivative(x, y, options))?;
        Ok(back.only(Some(pulled)))
    }
}

/// `Dropout` in inference: the identity.
#[derive(Debug)]
struct Dropout;

impl Operator for Dropout {
    fn forward(&self, inputs: &Inputs<'_>) -> Outcome<Vec<Value>> {
        // From opset 12 on the third input is the mode.
        match inputs.get(2) {
            None => {}
            Some(Value::Bool(training)) if training.iter().all(|&training| !training) => {}
            Some(_) => problem!("dropout in training mode: export the network in eval mode"),
        }
        Ok(vec![inputs.value(0)?.clone()])
    }

    fn backward(&self, back: &mut Back<'_>) -> Outcome<Vec<Option<Array<f32>>>> {
        let g = back.take_gradient()?;
        Ok(back.only(Some(g)))
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
            let operator = crate::ops::build(&Attributes::new(&node, 20, &types)).unwrap().unwrap();
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
            let mut back = Back {
                inputs: Inputs(&[Some(&x)]),
                outputs: &[Some(&y)],
                gradients: &mut [Some(array(&[count], vec![1.0; count]).unwrap())],
                wanted: &[true],
            };
            let slope = operator.backward(&mut back).unwrap().remove(0).unwrap();
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
