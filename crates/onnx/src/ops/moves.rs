//! Operations that move, repeat or leave out numbers without changing them.
//!
//! The gradient of such an operation is a sum over the places to which each number went. Where this
//! is not the same operation backwards, the places of the numbers are moved in the same way to find
//! it.

use ndarray::{Axis, IxDyn};

use super::{Attributes, Back, Inputs, Operator};
use crate::{
    error::{Outcome, Problem, problem},
    value::{
        Array, Value, array, elements, permute, plain, reshape, spread, to_axis, to_shape, to_vec,
        unpermute, unspread, zeros,
    },
};

/// The way in which a value is padded.
#[derive(Clone, Copy, Debug)]
enum Mode {
    Constant,
    Reflect,
    Edge,
    Wrap,
}

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

#[derive(Debug)]
struct Concat {
    axis: i64,
}

/// `ScatterND`: rows of the third input replace rows of the first, or are added to them.
#[derive(Debug)]
struct ScatterNd {
    add: bool,
}

#[derive(Debug)]
struct Split {
    axis: i64,
    sizes: Option<Vec<i64>>,
    parts: usize,
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
        "Concat" => return Ok(Some(Box::new(Concat { axis }))),
        "ScatterND" => {
            let add = match attributes.text("reduction", "none").as_str() {
                "none" => false,
                "add" => true,
                other => problem!("the reduction {other}"),
            };
            return Ok(Some(Box::new(ScatterNd { add })));
        }
        "Split" => {
            let parts = usize::try_from(attributes.int("num_outputs", 0)).unwrap_or(0);
            let parts = if parts == 0 { attributes.outputs() } else { parts };
            let sizes = attributes.ints("split");
            return Ok(Some(Box::new(Split { axis, sizes, parts })));
        }
        _ => return Ok(None),
    };
    Ok(Some(Box::new(this)))
}

/// The source of each place of the result, for each axis; `None` for a place that is filled.
type Sources = Vec<Vec<Option<usize>>>;

/// Builds a value from the places `sources` of `x`.
fn pick<T: Copy>(x: &Array<T>, sources: &Sources, fill: T) -> Outcome<Array<T>> {
    let shape: Vec<usize> = sources.iter().map(Vec::len).collect();
    let mut out = Vec::with_capacity(elements(&shape)?);
    let x = plain(x);
    let data = x.as_slice().unwrap_or_default();
    let Some((last, outer)) = sources.split_last() else { return Ok(x.clone()) };
    let count: usize = shape[..outer.len()].iter().product();
    for index in 0..count {
        // Start of the row of `x` from which this row of the result is taken.
        let (mut rest, mut start) = (index, Some(0));
        for (axis, places) in outer.iter().enumerate().rev() {
            let place = places[rest % shape[axis]];
            rest /= shape[axis];
            start = start.zip(place).map(|(start, place)| {
                start + place * x.shape()[axis + 1..].iter().product::<usize>()
            });
        }
        match start {
            Some(start) => {
                out.extend(
                    last.iter().map(|place| place.map_or(fill, |place| data[start + place])),
                );
            }
            None => out.extend(std::iter::repeat_n(fill, last.len())),
        }
    }
    array(&shape, out)
}

/// The sources of every axis for a value that stays as it is.
fn everything(shape: &[usize]) -> Sources {
    shape.iter().map(|&side| (0..side).map(Some).collect()).collect()
}

/// The source of place `at` of an axis of `side` under padding `mode`; `at` may lie before the
/// first place or after the last.
fn padded(mode: Mode, at: i64, side: i64) -> Option<usize> {
    let inside = (0..side).contains(&at);
    let place = match mode {
        _ if inside => at,
        Mode::Constant => return None,
        _ if side == 0 => return None,
        Mode::Edge => at.clamp(0, side - 1),
        Mode::Wrap => at.rem_euclid(side),
        Mode::Reflect if side == 1 => 0,
        Mode::Reflect => {
            let period = 2 * (side - 1);
            let at = at.rem_euclid(period);
            if at < side { at } else { period - at }
        }
    };
    usize::try_from(place).ok()
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
                let mut sources = everything(shape);
                for (index, &axis) in axes.iter().enumerate() {
                    let axis = to_axis(axis, rank)?;
                    let (before, behind) = (pads[index], pads[index + axes.len()]);
                    let side = shape[axis] as i64;
                    let end = side.saturating_add(behind);
                    let start = before.saturating_neg();
                    if end.saturating_sub(start) > 1 << 28 {
                        problem!("a padding of {before} and {behind}");
                    }
                    sources[axis] = (start..end).map(|at| padded(*mode, at, side)).collect();
                }
                Ok(sources)
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

/// The places of an axis of `side` from `start` to before `end` by `step`, clamped as in NumPy.
fn sliced(side: i64, start: i64, end: i64, step: i64) -> Outcome<Vec<Option<usize>>> {
    if step == 0 {
        problem!("a step of 0");
    }
    let absolute = |v: i64| if v < 0 { v.saturating_add(side) } else { v };
    let (low, high) = if step > 0 { (0, side) } else { (-1, side - 1) };
    let (mut at, end) = (absolute(start).clamp(low, high), absolute(end).clamp(low, high));
    let mut places = Vec::new();
    while if step > 0 { at < end } else { at > end } {
        places.push(usize::try_from(at).ok());
        at = at.saturating_add(step);
    }
    Ok(places)
}

/// An index that may count from the end, as a place.
fn place(index: i64, side: usize) -> Outcome<usize> {
    match usize::try_from(if index < 0 { index + side as i64 } else { index }) {
        Ok(place) if place < side => Ok(place),
        _ => problem!("place {index} of {side}"),
    }
}

fn gather<T: Copy>(x: &Array<T>, axis: usize, indices: &Array<i64>) -> Outcome<Array<T>> {
    let side = x.shape()[axis];
    let places = indices.iter().map(|&i| place(i, side).map(Some)).collect::<Outcome<Vec<_>>>()?;
    let mut sources = everything(x.shape());
    sources[axis] = places;
    let Some(&Some(fill)) = x.first().map(Some).as_ref() else {
        problem!("nothing to gather from");
    };
    let picked = pick(x, &sources, *fill)?;
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

    fn backward(&self, back: &Back<'_>) -> Outcome<Vec<Option<Array<f32>>>> {
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

fn concat<T: Copy>(parts: &[&Array<T>], axis: i64) -> Outcome<Array<T>> {
    let Some(first) = parts.first() else { problem!("nothing to join") };
    let axis = to_axis(axis, first.ndim())?;
    if parts.iter().any(|part| part.ndim() != first.ndim()) {
        problem!("its inputs have different numbers of axes");
    }
    let mut shape = first.shape().to_vec();
    shape[axis] = parts.iter().map(|part| part.shape()[axis]).sum();
    elements(&shape)?;
    // The result has the kernels' order in memory if the first part has it.
    let hwnc = first.ndim() == 4 && !first.is_standard_layout();
    let order: &[usize] = if hwnc { &[2, 3, 0, 1] } else { &[] };
    let views: Vec<_> = parts
        .iter()
        .map(|part| match order {
            [] => part.view(),
            order => part.view().permuted_axes(IxDyn(order)),
        })
        .collect();
    let at = if hwnc { (axis + 2) % 4 } else { axis };
    let joined = ndarray::concatenate(Axis(at), &views)?.into_shared();
    Ok(if hwnc { unpermute(&joined, order) } else { joined })
}

impl Operator for Concat {
    fn forward(&self, inputs: &Inputs<'_>) -> Outcome<Vec<Value>> {
        let all = (0..inputs.len()).map(|i| inputs.value(i)).collect::<Outcome<Vec<_>>>()?;
        Ok(vec![match all.first() {
            Some(Value::Float(_)) => {
                let parts = all.iter().map(|v| v.float()).collect::<Outcome<Vec<_>>>()?;
                Value::Float(concat(&parts, self.axis)?)
            }
            Some(Value::Int(_)) => {
                let parts = all.iter().map(|v| v.int()).collect::<Outcome<Vec<_>>>()?;
                Value::Int(concat(&parts, self.axis)?)
            }
            _ => problem!("expected numbers"),
        }])
    }

    fn backward(&self, back: &Back<'_>) -> Outcome<Vec<Option<Array<f32>>>> {
        let g = back.gradient()?;
        let axis = to_axis(self.axis, g.ndim())?;
        let (mut all, mut start) = (vec![None; back.inputs.len()], 0);
        for (index, place) in all.iter_mut().enumerate() {
            let side = back.inputs.value(index)?.shape()[axis];
            if back.wants(index) {
                let part = g.slice_axis(Axis(axis), ndarray::Slice::from(start..start + side));
                *place = Some(part.to_shared());
            }
            start += side;
        }
        Ok(all)
    }
}

impl Split {
    fn sizes(&self, side: usize, inputs: &Inputs<'_>) -> Outcome<Vec<usize>> {
        let given = self.sizes.clone().map_or_else(|| inputs.list(1), |sizes| Ok(Some(sizes)))?;
        let sizes = match given {
            Some(sizes) => to_shape(&sizes)?,
            None => {
                let each = side.div_ceil(self.parts.max(1));
                (0..self.parts).map(|i| each.min(side.saturating_sub(i * each))).collect()
            }
        };
        if sizes.iter().sum::<usize>() != side {
            problem!("parts of {sizes:?} of an axis of {side}");
        }
        Ok(sizes)
    }

    fn parts<T: Clone>(&self, x: &Array<T>, inputs: &Inputs<'_>) -> Outcome<Vec<Array<T>>> {
        let axis = to_axis(self.axis, x.ndim())?;
        let mut start = 0;
        let parts = self.sizes(x.shape()[axis], inputs)?.into_iter().map(|size| {
            let part = x.slice_axis(Axis(axis), ndarray::Slice::from(start..start + size));
            start += size;
            part.to_shared()
        });
        Ok(parts.collect())
    }
}

impl Operator for Split {
    fn forward(&self, inputs: &Inputs<'_>) -> Outcome<Vec<Value>> {
        Ok(match inputs.value(0)? {
            Value::Float(x) => self.parts(x, inputs)?.into_iter().map(Value::Float).collect(),
            Value::Int(x) => self.parts(x, inputs)?.into_iter().map(Value::Int).collect(),
            Value::Bool(x) => self.parts(x, inputs)?.into_iter().map(Value::Bool).collect(),
        })
    }

    fn backward(&self, back: &Back<'_>) -> Outcome<Vec<Option<Array<f32>>>> {
        let x = back.inputs.float(0)?;
        let axis = to_axis(self.axis, x.ndim())?;
        let sizes = self.sizes(x.shape()[axis], &back.inputs)?;
        let parts = sizes.iter().enumerate().map(|(index, &size)| {
            let mut shape = x.shape().to_vec();
            shape[axis] = size;
            back.gradients.get(index).cloned().flatten().unwrap_or_else(|| zeros(&shape))
        });
        let parts: Vec<_> = parts.collect();
        Ok(back.only(Some(concat(&parts.iter().collect::<Vec<_>>(), self.axis)?)))
    }
}

impl ScatterNd {
    /// The start of each row of updates in the data, and the length of a row.
    fn rows(shape: &[usize], indices: &Array<i64>) -> Outcome<(Vec<usize>, usize)> {
        let Some((&depth, outer)) = indices.shape().split_last() else {
            problem!("indices without an axis");
        };
        if depth > shape.len() {
            problem!("indices of {depth} places into shape {shape:?}");
        }
        let len = shape[depth..].iter().product();
        let indices = plain(indices);
        let mut rows = Vec::with_capacity(outer.iter().product());
        for index in indices.as_slice().unwrap_or_default().chunks(depth.max(1)) {
            let mut at = 0;
            for (&index, &side) in index.iter().zip(shape) {
                at = at * side + place(index, side)?;
            }
            rows.push(at * len);
        }
        Ok((rows, len))
    }

    fn scatter<T: Copy>(
        &self,
        data: &Array<T>,
        indices: &Array<i64>,
        updates: &Array<T>,
        add: impl Fn(T, T) -> T,
    ) -> Outcome<Array<T>> {
        let (rows, len) = Self::rows(data.shape(), indices)?;
        if updates.len() != rows.len() * len {
            problem!("{} updates for {} rows of {len}", updates.len(), rows.len());
        }
        let (mut out, updates) = (to_vec(data), to_vec(updates));
        for (&start, update) in rows.iter().zip(updates.chunks(len.max(1))) {
            for (out, &update) in out[start..start + len].iter_mut().zip(update) {
                *out = if self.add { add(*out, update) } else { update };
            }
        }
        array(data.shape(), out)
    }
}

impl Operator for ScatterNd {
    fn forward(&self, inputs: &Inputs<'_>) -> Outcome<Vec<Value>> {
        let indices = inputs.value(1)?.int()?;
        Ok(vec![match (inputs.value(0)?, inputs.value(2)?) {
            (Value::Float(data), Value::Float(updates)) => {
                Value::Float(self.scatter(data, indices, updates, |a, b| a + b)?)
            }
            (Value::Int(data), Value::Int(updates)) => {
                Value::Int(self.scatter(data, indices, updates, i64::wrapping_add)?)
            }
            (Value::Bool(data), Value::Bool(updates)) => {
                Value::Bool(self.scatter(data, indices, updates, |a, b| a | b)?)
            }
            _ => problem!("its inputs are of different types"),
        }])
    }

    fn backward(&self, back: &Back<'_>) -> Outcome<Vec<Option<Array<f32>>>> {
        let (shape, indices) = (back.inputs.value(0)?.shape(), back.inputs.value(1)?.int()?);
        let (rows, len) = Self::rows(shape, indices)?;
        let mut g = to_vec(back.gradient()?);
        let mut all = vec![None; 3];
        if back.wants(2) {
            let taken = rows.iter().flat_map(|&start| g[start..start + len].to_vec()).collect();
            all[2] = Some(array(back.inputs.value(2)?.shape(), taken)?);
        }
        if back.wants(0) {
            if !self.add {
                rows.iter().for_each(|&start| g[start..start + len].fill(0.0));
            }
            all[0] = Some(array(shape, g)?);
        }
        Ok(all)
    }
}
