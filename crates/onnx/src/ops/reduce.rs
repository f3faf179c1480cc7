//! Sums, means, extremes and norms over axes, and means over whole images.

use ndarray::Axis;

use super::{Attributes, Back, Inputs, Operator};
use crate::{
    error::{Outcome, problem},
    value::{Array, Value, combine, fold_axis, map, plain, reshape, to_axis},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Sum,
    Mean,
    Max,
    Min,
    Prod,
    L1,
    L2,
    SumSquare,
    LogSumExp,
}

/// The axes that are reduced.
#[derive(Debug)]
enum Axes {
    /// The axes of an option; all axes if the option is absent.
    Option(Option<Vec<i64>>),
    /// The axes of the second input; all axes if it is empty, unless `keep_if_empty`.
    Input { keep_if_empty: bool },
    /// Every axis after the second: the pixels of an image.
    Pixels,
}

#[derive(Debug)]
struct Reduce {
    kind: Kind,
    axes: Axes,
    keep: bool,
}

/// `ArgMax`: the index of the largest value, the first of equals.
#[derive(Debug)]
struct ArgMax {
    axis: i64,
    keep: bool,
}

pub(super) fn build(attributes: &Attributes<'_>) -> Outcome<Option<Box<dyn Operator>>> {
    let kind = match attributes.kind() {
        "ReduceSum" => Kind::Sum,
        "ReduceMean" | "GlobalAveragePool" => Kind::Mean,
        "ReduceMax" | "GlobalMaxPool" => Kind::Max,
        "ReduceMin" => Kind::Min,
        "ReduceProd" => Kind::Prod,
        "ReduceL1" => Kind::L1,
        "ReduceL2" => Kind::L2,
        "ReduceSumSquare" => Kind::SumSquare,
        "ReduceLogSumExp" => Kind::LogSumExp,
        "ArgMax" => {
            if attributes.int("select_last_index", 0) != 0 {
                problem!("select_last_index");
            }
            let keep = attributes.int("keepdims", 1) != 0;
            return Ok(Some(Box::new(ArgMax { axis: attributes.int("axis", 0), keep })));
        }
        _ => return Ok(None),
    };
    let from_input = attributes.opset >= if kind == Kind::Sum { 13 } else { 18 };
    let axes = if attributes.kind().starts_with("Global") {
        Axes::Pixels
    } else if from_input {
        Axes::Input { keep_if_empty: attributes.int("noop_with_empty_axes", 0) != 0 }
    } else {
        Axes::Option(attributes.ints("axes"))
    };
    Ok(Some(Box::new(Reduce { kind, axes, keep: attributes.int("keepdims", 1) != 0 })))
}

impl Reduce {
    /// The axes for these inputs, in ascending order; `None` leaves the value unchanged.
    fn axes(&self, inputs: &Inputs<'_>) -> Outcome<Option<Vec<usize>>> {
        let rank = inputs.value(0)?.shape().len();
        let given = match &self.axes {
            Axes::Pixels => Some((2..rank as i64).collect()),
            Axes::Option(axes) => axes.clone(),
            Axes::Input { keep_if_empty } => {
                let given = inputs.list(1)?.filter(|axes| !axes.is_empty());
                if given.is_none() && *keep_if_empty {
                    return Ok(None);
                }
                given
            }
        };
        let Some(given) = given else { return Ok(Some((0..rank).collect())) };
        let mut axes =
            given.iter().map(|&axis| to_axis(axis, rank)).collect::<Outcome<Vec<_>>>()?;
        axes.sort_unstable();
        axes.dedup();
        Ok(Some(axes))
    }

    fn floats(&self, x: &Array<f32>, axes: &[usize]) -> Outcome<Array<f32>> {
        let sum = |x: &Array<f32>| fold(x, axes, 0.0, |a, b| a + b);
        let count: usize = axes.iter().map(|&axis| x.shape()[axis]).product();
        match self.kind {
            Kind::Sum => sum(x),
            Kind::Mean => map(&sum(x)?, |v| v / count as f32),
            Kind::Max => fold(x, axes, f32::NEG_INFINITY, f32::max),
            Kind::Min => fold(x, axes, f32::INFINITY, f32::min),
            Kind::Prod => fold(x, axes, 1.0, |a, b| a * b),
            Kind::L1 => sum(&map(x, f32::abs)?),
            Kind::SumSquare => sum(&map(x, |v| v * v)?),
            Kind::L2 => map(&sum(&map(x, |v| v * v)?)?, f32::sqrt),
            Kind::LogSumExp => {
                let most = fold(x, axes, f32::NEG_INFINITY, f32::max)?;
                let sum = sum(&combine(x, &most, |v, most| (v - most).exp())?)?;
                combine(&sum, &most, |sum, most| most + sum.ln())
            }
        }
    }

    /// The factor of the output's gradient at each input, as a function of input and output, but for
    /// means.
    fn slope(&self) -> impl Fn(f32, f32) -> f32 {
        let kind = self.kind;
        move |x: f32, y: f32| match kind {
            Kind::Sum | Kind::Mean => 1.0,
            // The gradient is shared among equal values below.
            Kind::Max | Kind::Min => f32::from(u8::from(x == y)),
            Kind::Prod => y / x,
            Kind::L1 => f32::from(i8::from(x > 0.0) - i8::from(x < 0.0)),
            Kind::L2 => x / y,
            Kind::SumSquare => 2.0 * x,
            Kind::LogSumExp => (x - y).exp(),
        }
    }
}

/// Folds `f` from `start` over `axes`, which keep the size 1.
fn fold<T: Copy>(
    x: &Array<T>,
    axes: &[usize],
    start: T,
    f: impl Fn(T, T) -> T,
) -> Outcome<Array<T>> {
    let mut result = x.clone();
    // The last axis comes first, because its numbers are neighbours in row-major order.
    for &axis in axes.iter().rev() {
        result = fold_axis(&result, axis, start, &mut |results, values| {
            for row in values.chunks_exact(results.len()) {
                results.iter_mut().zip(row).for_each(|(result, &v)| *result = f(*result, v));
            }
        })?;
    }
    Ok(result)
}

/// `shape` without `axes`.
fn without(shape: &[usize], axes: &[usize]) -> Vec<usize> {
    shape.iter().enumerate().filter(|(axis, _)| !axes.contains(axis)).map(|(_, &s)| s).collect()
}

impl Operator for Reduce {
    fn forward(&self, inputs: &Inputs<'_>) -> Outcome<Vec<Value>> {
        let Some(axes) = self.axes(inputs)? else { return Ok(vec![inputs.value(0)?.clone()]) };
        let keep = self.keep || matches!(self.axes, Axes::Pixels);
        Ok(vec![match inputs.value(0)? {
            Value::Float(x) => {
                let y = self.floats(x, &axes)?;
                Value::Float(if keep { y } else { reshape(&y, &without(x.shape(), &axes))? })
            }
            Value::Int(x) => {
                let y = match self.kind {
                    Kind::Sum => fold(x, &axes, 0, i64::wrapping_add)?,
                    Kind::Max => fold(x, &axes, i64::MIN, i64::max)?,
                    Kind::Min => fold(x, &axes, i64::MAX, i64::min)?,
                    Kind::Prod => fold(x, &axes, 1, i64::wrapping_mul)?,
                    _ => problem!("expected floating-point numbers"),
                };
                Value::Int(if keep { y } else { reshape(&y, &without(x.shape(), &axes))? })
            }
            Value::Bool(_) => problem!("expected numbers"),
        }])
    }

    fn backward(&self, back: &mut Back<'_>) -> Outcome<Vec<Option<Array<f32>>>> {
        let x = back.inputs.float(0)?;
        let Some(axes) = self.axes(&back.inputs)? else {
            return Ok(back.only(Some(back.gradient()?.clone())));
        };
        let mut kept = x.shape().to_vec();
        axes.iter().for_each(|&axis| kept[axis] = 1);
        let g = reshape(back.gradient()?, &kept)?;
        let count: usize = axes.iter().map(|&axis| x.shape()[axis]).product();
        if matches!(self.kind, Kind::Sum | Kind::Mean) {
            let share = if self.kind == Kind::Mean { 1.0 / count as f32 } else { 1.0 };
            return Ok(back.only(Some(combine(x, &g, |_, g| g * share)?)));
        }
        let y = reshape(back.output()?, &kept)?;
        let mut slope = combine(x, &y, self.slope())?;
        if matches!(self.kind, Kind::Max | Kind::Min) {
            let ties = fold(&slope, &axes, 0.0, |a, b| a + b)?;
            slope = combine(&slope, &ties, |slope, ties| slope / ties)?;
        }
        Ok(back.only(Some(combine(&slope, &g, |slope, g| slope * g)?)))
    }
}

impl Operator for ArgMax {
    fn forward(&self, inputs: &Inputs<'_>) -> Outcome<Vec<Value>> {
        let x = plain(inputs.float(0)?);
        let axis = Axis(to_axis(self.axis, x.ndim())?);
        let index = x.map_axis(axis, |lane| {
            let mut best = 0;
            lane.iter().enumerate().for_each(|(i, v)| {
                if *v > lane[best] {
                    best = i;
                }
            });
            best as i64
        });
        let index = index.into_shared();
        Ok(vec![Value::Int(if self.keep { index.insert_axis(axis) } else { index })])
    }

    fn backward(&self, back: &mut Back<'_>) -> Outcome<Vec<Option<Array<f32>>>> {
        Ok(vec![None; back.inputs.len()])
    }

    fn is_differentiable(&self) -> bool {
        false
    }
}
