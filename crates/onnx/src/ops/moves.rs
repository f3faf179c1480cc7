//! Operations that move, repeat or leave out numbers without changing them.
//!
//! The gradient of such an operation is a sum over the places to which each number went. Where this
//! is not the same operation backwards, the places of the numbers are moved in the same way to find
//! it.

use super::{
    Attributes, Back, Inputs, Operator,
    places::{Mode, Sources, around, everything, pick, place, sliced},
};
use crate::{
    error::{Outcome, Problem, problem},
    value::{
        Array, Value, array, elements, permute, plain, reshape, spread, to_axis, to_shape,
        unpermute, unspread,
    },
};

#[derive(Debug)]
enum Move {
    Reshape {
        zero_is_zero: bool,
    },
    Flatten {
        axis: i64,
    },
    /// Axes of the option (up to opset 12) or of the second input.
    Squeeze(Option<Vec<i64>>),
    Unsqueeze(Option<Vec<i64>>),
    Transpose(Option<Vec<i64>>),
    Expand,
    Tile,
    /// Starts, ends and axes up to opset 9; later opsets have them as inputs.
    Slice(Option<[Vec<i64>; 3]>),
    Gather {
        axis: i64,
    },
    GatherElements {
        axis: i64,
    },
    Pad {
        mode: Mode,
        pads: Option<Vec<i64>>,
        value: f32,
    },
    DepthToSpace {
        block: usize,
        columns_first: bool,
    },
    SpaceToDepth {
        block: usize,
    },
    Trilu {
        upper: bool,
    },
}

pub(super) fn build(attributes: &Attributes<'_>) -> Outcome<Option<Box<dyn Operator>>> {
    let axis = attributes.int("axis", 0);
    let block = match usize::try_from(attributes.int("blocksize", 1)) {
        Ok(block @ 1..=4096) => block,
        _ => problem!("a block of {}", attributes.int("blocksize", 1)),
    };
    let this = match attributes.kind() {
        "Reshape" => Move::Reshape { zero_is_zero: attributes.int("allowzero", 0) != 0 },
        "Flatten" => Move::Flatten { axis: attributes.int("axis", 1) },
        "Squeeze" => Move::Squeeze(attributes.ints("axes")),
        "Unsqueeze" => Move::Unsqueeze(attributes.ints("axes")),
        "Transpose" => Move::Transpose(attributes.ints("perm")),
        "Expand" => Move::Expand,
        "Tile" => Move::Tile,
        "Slice" => Move::Slice(attributes.ints("starts").map(|starts| {
            let axes = attributes.ints("axes");
            let axes = axes.unwrap_or_else(|| (0..starts.len() as i64).collect());
            [starts, attributes.ints("ends").unwrap_or_default(), axes]
        })),
        "Gather" => Move::Gather { axis },
        "GatherElements" => Move::GatherElements { axis },
        "Pad" => Move::Pad {
            mode: match attributes.text("mode", "constant").as_str() {
                "constant" => Mode::Constant,
                "reflect" => Mode::Reflect,
                "edge" => Mode::Edge,
                "wrap" => Mode::Wrap,
                other => problem!("padding of mode {other}"),
            },
            pads: attributes.ints("pads"),
            value: attributes.float("value", 0.0),
        },
        "DepthToSpace" => {
            Move::DepthToSpace { block, columns_first: attributes.text("mode", "DCR") == "CRD" }
        }
        "SpaceToDepth" => Move::SpaceToDepth { block },
        "Trilu" => Move::Trilu { upper: attributes.int("upper", 1) != 0 },
        _ => return Ok(None),
    };
    Ok(Some(Box::new(this)))
}

impl Move {
    /// Computes the result for a value of any type.
    fn apply<T: Copy>(&self, x: &Array<T>, inputs: &Inputs<'_>, fill: T) -> Outcome<Array<T>> {
        let (shape, rank) = (x.shape().to_vec(), x.ndim());
        match self {
            Self::Reshape { .. } | Self::Flatten { .. } | Self::Squeeze(_) | Self::Unsqueeze(_) => {
                reshape(x, &self.new_shape(&shape, inputs)?)
            }
            Self::Transpose(axes) => Ok(permute(x, &permutation(axes.as_deref(), rank)?)),
            Self::Expand => {
                let to = to_shape(&inputs.list(1)?.unwrap_or_default())?;
                let to = crate::value::broadcast_shape(&shape, &to)?;
                Ok(plain(&spread(x, &to)?.to_shared()))
            }
            Self::Tile | Self::Slice(_) | Self::Pad { .. } => {
                pick(x, &self.sources(&shape, inputs)?, fill)
            }
            Self::Gather { axis } => gather(x, to_axis(*axis, rank)?, inputs.value(1)?.int()?),
            Self::GatherElements { axis } => {
                gather_elements(x, to_axis(*axis, rank)?, inputs.value(1)?.int()?)
            }
            Self::DepthToSpace { block, columns_first } => {
                let &[n, c, h, w] = &shape[..] else { problem!("images of shape {shape:?}") };
                let (b, deep) = (*block, c / (block * block));
                if c != deep * b * b {
                    problem!("{c} channels in blocks of {b}x{b}");
                }
                let (split, order) = match columns_first {
                    true => ([n, deep, b, b, h, w], [0, 1, 4, 2, 5, 3]),
                    false => ([n, b, b, deep, h, w], [0, 3, 4, 1, 5, 2]),
                };
                reshape(&permute(&reshape(x, &split)?, &order), &[n, deep, h * b, w * b])
            }
            Self::SpaceToDepth { block } => {
                let &[n, c, h, w] = &shape[..] else { problem!("images of shape {shape:?}") };
                let b = *block;
                if h % b != 0 || w % b != 0 {
                    problem!("images of {h}x{w} in blocks of {b}x{b}");
                }
                let split = reshape(x, &[n, c, h / b, b, w / b, b])?;
                let turned = permute(&split, &[0, 3, 5, 1, 2, 4]);
                reshape(&turned, &[n, c * b * b, h / b, w / b])
            }
            Self::Trilu { upper } => trilu(x, *upper, inputs, fill),
        }
    }

    fn new_shape(&self, shape: &[usize], inputs: &Inputs<'_>) -> Outcome<Vec<usize>> {
        let rank = shape.len();
        match self {
            Self::Flatten { axis } => {
                // The axis may also equal the number of axes.
                let axis = if *axis == rank as i64 { rank } else { to_axis(*axis, rank)? };
                Ok(vec![shape[..axis].iter().product(), shape[axis..].iter().product()])
            }
            Self::Squeeze(axes) => {
                let axes = axes.clone().map_or_else(|| inputs.list(1), |axes| Ok(Some(axes)))?;
                let axes = match axes {
                    Some(axes) => {
                        axes.iter().map(|&a| to_axis(a, rank)).collect::<Outcome<Vec<_>>>()?
                    }
                    None => (0..rank).filter(|&axis| shape[axis] == 1).collect(),
                };
                if let Some(axis) = axes.iter().find(|&&axis| shape[axis] != 1) {
                    problem!("axis {axis} of {shape:?} is not 1");
                }
                let kept = (0..rank).filter(|axis| !axes.contains(axis));
                Ok(kept.map(|axis| shape[axis]).collect())
            }
            Self::Unsqueeze(axes) => {
                let axes = axes.clone().map_or_else(|| inputs.list(1), |axes| Ok(Some(axes)))?;
                let axes = axes.unwrap_or_default();
                let all = rank + axes.len();
                let axes = axes.iter().map(|&a| to_axis(a, all)).collect::<Outcome<Vec<_>>>()?;
                let mut old = shape.iter();
                let sides = (0..all).map(|axis| match axes.contains(&axis) {
                    true => Some(1),
                    false => old.next().copied(),
                });
                sides.collect::<Option<_>>().ok_or_else(|| Problem::new("an axis given twice"))
            }
            _ => {
                let asked = inputs.list(1)?.unwrap_or_default();
                let zero_is_zero = matches!(self, Self::Reshape { zero_is_zero: true });
                reshaped(shape, &asked, zero_is_zero)
            }
        }
    }

    fn sources(&self, shape: &[usize], inputs: &Inputs<'_>) -> Outcome<Sources> {
        let rank = shape.len();
        match self {
            Self::Tile => {
                let repeats = to_shape(&inputs.list(1)?.unwrap_or_default())?;
                if repeats.len() != rank {
                    problem!("{} repeats for {rank} axes", repeats.len());
                }
                let sides: Vec<usize> =
                    shape.iter().zip(&repeats).map(|(a, b)| a.saturating_mul(*b)).collect();
                elements(&sides)?;
                let places = shape.iter().zip(sides);
                Ok(places.map(|(&side, all)| (0..all).map(|i| Some(i % side)).collect()).collect())
            }
            Self::Slice(options) => {
                let [starts, ends, axes, steps] = slice_inputs(options.as_ref(), inputs)?;
                let mut sources = everything(shape);
                for (index, &start) in starts.iter().enumerate() {
                    let axis = to_axis(axes[index], rank)?;
                    sources[axis] = sliced(shape[axis] as i64, start, ends[index], steps[index])?;
                }
                Ok(sources)
            }
            Self::Pad { mode, pads, .. } => {
                let pads = pads.clone().map_or_else(|| inputs.list(1), |pads| Ok(Some(pads)))?;
                let pads = pads.unwrap_or_default();
                let axes = inputs.list(3)?.unwrap_or_else(|| (0..rank as i64).collect());
                if pads.len() != 2 * axes.len() {
                    problem!("{} paddings for {} axes", pads.len(), axes.len());
                }
                let axes = axes.iter().map(|&axis| to_axis(axis, rank));
                let axes = axes.collect::<Outcome<Vec<_>>>()?;
                around(shape, *mode, &axes, &pads)
            }
            _ => Ok(everything(shape)),
        }
    }

    /// The number that fills places without a source.
    fn fill(&self, inputs: &Inputs<'_>) -> Outcome<f32> {
        match (self, inputs.get(2)) {
            (Self::Pad { .. }, Some(value)) => Ok(value.float()?.first().copied().unwrap_or(0.0)),
            (Self::Pad { value, .. }, None) => Ok(*value),
            _ => Ok(0.0),
        }
    }
}

/// The shape that Reshape asks for: 0 keeps a side, and one -1 takes the rest.
fn reshaped(shape: &[usize], asked: &[i64], zero_is_zero: bool) -> Outcome<Vec<usize>> {
    let mut sides = Vec::with_capacity(asked.len());
    for (axis, &side) in asked.iter().enumerate() {
        sides.push(match side {
            0 if !zero_is_zero => match shape.get(axis) {
                Some(&side) => Some(side),
                None => problem!("{asked:?} for shape {shape:?}"),
            },
            -1 => None,
            side => Some(to_shape(&[side])?[0]),
        });
    }
    let known: usize = sides.iter().flatten().product();
    let all: usize = shape.iter().product();
    let rest = all.checked_div(known).unwrap_or(0);
    let sides: Vec<usize> = sides.into_iter().map(|side| side.unwrap_or(rest)).collect();
    if elements(&sides)? != all {
        problem!("{asked:?} for shape {shape:?}");
    }
    Ok(sides)
}

fn permutation(axes: Option<&[i64]>, rank: usize) -> Outcome<Vec<usize>> {
    let Some(axes) = axes else { return Ok((0..rank).rev().collect()) };
    let order = axes.iter().map(|&axis| to_axis(axis, rank)).collect::<Outcome<Vec<_>>>()?;
    let mut sorted = order.clone();
    sorted.sort_unstable();
    if sorted != (0..rank).collect::<Vec<_>>() {
        problem!("the order {axes:?} of {rank} axes");
    }
    Ok(order)
}

/// Starts, ends, axes and steps, of equal length.
fn slice_inputs(options: Option<&[Vec<i64>; 3]>, inputs: &Inputs<'_>) -> Outcome<[Vec<i64>; 4]> {
    let (starts, ends, axes, steps) = match options {
        Some([starts, ends, axes]) => {
            (starts.clone(), ends.clone(), axes.clone(), vec![1; starts.len()])
        }
        None => {
            let starts = inputs.value(1)?.list()?;
            let axes = inputs.list(3)?.unwrap_or_else(|| (0..starts.len() as i64).collect());
            let steps = inputs.list(4)?.unwrap_or_else(|| vec![1; starts.len()]);
            (starts, inputs.value(2)?.list()?, axes, steps)
        }
    };
    if [ends.len(), axes.len(), steps.len()].iter().any(|&len| len != starts.len()) {
        problem!("starts, ends, axes and steps of different lengths");
    }
    Ok([starts, ends, axes, steps])
}

fn gather<T: Copy>(x: &Array<T>, axis: usize, indices: &Array<i64>) -> Outcome<Array<T>> {
    let side = x.shape()[axis];
    let places = indices.iter().map(|&i| place(i, side).map(Some)).collect::<Outcome<Vec<_>>>()?;
    let mut sources = everything(x.shape());
    sources[axis] = places;
    // No place is filled, as each has a source.
    let Some(&fill) = x.first() else { problem!("nothing to gather from") };
    let picked = pick(x, &sources, fill)?;
    let (before, behind) = (&x.shape()[..axis], &x.shape()[axis + 1..]);
    reshape(&picked, &[before, indices.shape(), behind].concat())
}

fn gather_elements<T: Copy>(x: &Array<T>, axis: usize, indices: &Array<i64>) -> Outcome<Array<T>> {
    let fits = indices.ndim() == x.ndim()
        && (0..x.ndim()).all(|d| d == axis || indices.shape()[d] <= x.shape()[d]);
    if !fits {
        problem!("indices of shape {:?} into {:?}", indices.shape(), x.shape());
    }
    let side = x.shape()[axis];
    let mut out = Vec::with_capacity(indices.len());
    for (at, &index) in indices.indexed_iter() {
        let mut at = at;
        at[axis] = place(index, side)?;
        out.push(x[at]);
    }
    array(indices.shape(), out)
}

fn trilu<T: Copy>(x: &Array<T>, upper: bool, inputs: &Inputs<'_>, fill: T) -> Outcome<Array<T>> {
    let rank = x.ndim();
    if rank < 2 {
        problem!("expected at least 2 dimensions");
    }
    let shift = inputs.list(1)?.and_then(|k| k.first().copied()).unwrap_or(0);
    let mut y = plain(x);
    for (at, value) in y.indexed_iter_mut() {
        let above = at[rank - 1] as i64 - at[rank - 2] as i64;
        if if upper { above < shift } else { above > shift } {
            *value = fill;
        }
    }
    Ok(y)
}

impl Operator for Move {
    fn forward(&self, inputs: &Inputs<'_>) -> Outcome<Vec<Value>> {
        Ok(vec![match inputs.value(0)? {
            Value::Float(x) => Value::Float(self.apply(x, inputs, self.fill(inputs)?)?),
            Value::Int(x) => {
                let fill = match (self, inputs.get(2)) {
                    (Self::Pad { .. }, Some(value)) => value.list()?.first().copied().unwrap_or(0),
                    _ => 0,
                };
                Value::Int(self.apply(x, inputs, fill)?)
            }
            Value::Bool(x) => Value::Bool(self.apply(x, inputs, false)?),
        }])
    }

    fn backward(&self, back: &mut Back<'_>) -> Outcome<Vec<Option<Array<f32>>>> {
        let shape = back.inputs.value(0)?.shape();
        let g = back.gradient()?;
        let gradient = match self {
            Self::Reshape { .. } | Self::Flatten { .. } | Self::Squeeze(_) | Self::Unsqueeze(_) => {
                reshape(g, shape)?
            }
            Self::Transpose(axes) => unpermute(g, &permutation(axes.as_deref(), shape.len())?),
            Self::Expand => unspread(g.clone(), shape)?,
            _ => {
                let count = elements(shape)?;
                let places = array(shape, (0..count as i64).collect())?;
                let moved = self.apply(&places, &back.inputs, -1)?;
                let mut sums = vec![0.0f32; count];
                for (&place, &g) in moved.iter().zip(g) {
                    if let Ok(place) = usize::try_from(place) {
                        sums[place] += g;
                    }
                }
                array(shape, sums)?
            }
        };
        Ok(back.only(Some(gradient)))
    }
}
