//! Normalisations: with stored statistics (batch norm) and with statistics of each image or token.

use sora_kernels::batch_norm;

use super::{Attributes, Back, Inputs, Operator, Part};
use crate::{
    buffers::taken,
    cache::isa,
    error::{Outcome, problem},
    value::{
        Array, Value, combine, combine_into, like, map, plain, reshape, to_axis, unspread, zeros,
    },
};

/// `BatchNormalization` in inference: a scale and a shift of each channel.
#[derive(Debug)]
pub(crate) struct BatchNorm {
    epsilon: f32,
}

/// The elements that are normalised together.
#[derive(Clone, Copy, Debug)]
enum Group {
    /// All axes from this one on (layer norm).
    From(i64),
    /// This number of groups of channels, with their pixels (group norm).
    Channels(usize),
    /// Each channel by itself (instance norm).
    EachChannel,
}

/// Zero mean and unit variance over a group, then a scale and a shift.
#[derive(Debug)]
struct Normalise {
    group: Group,
    epsilon: f32,
    /// Whether the scale has one value for each group, as in group norm up to opset 20.
    scale_of_group: bool,
}

/// `LpNormalization`: divides by the norm over an axis.
#[derive(Debug)]
struct Lp {
    axis: i64,
    p: i64,
}

pub(super) fn build(attributes: &Attributes<'_>) -> Outcome<Option<Box<dyn Operator>>> {
    let epsilon = attributes.float("epsilon", 1e-5);
    let normalise = |group, scale_of_group| -> Outcome<Option<Box<dyn Operator>>> {
        Ok(Some(Box::new(Normalise { group, epsilon, scale_of_group })))
    };
    match attributes.kind() {
        // Up to opset 13 its outputs say the mode: with more than one it normalises by the batch.
        "BatchNormalization"
            if attributes.int("training_mode", 0) != 0
                || attributes.opset < 14 && attributes.gives_more_than_one() =>
        {
            problem!("batch norm in training mode: export the network in eval mode")
        }
        "BatchNormalization" => Ok(Some(Box::new(BatchNorm { epsilon }))),
        "LayerNormalization" => normalise(Group::From(attributes.int("axis", -1)), false),
        "InstanceNormalization" => normalise(Group::EachChannel, false),
        "GroupNormalization" => {
            let groups = attributes.int("num_groups", 0);
            match usize::try_from(groups) {
                Ok(groups @ 1..) => normalise(Group::Channels(groups), attributes.opset < 21),
                _ => problem!("{groups} groups"),
            }
        }
        "LpNormalization" => {
            Ok(Some(Box::new(Lp { axis: attributes.int("axis", -1), p: attributes.int("p", 2) })))
        }
        _ => Ok(None),
    }
}

/// Reshapes one value per channel so that it broadcasts over images of `rank` dimensions.
fn of_channels(x: &Array<f32>, rank: usize) -> Outcome<Array<f32>> {
    let mut shape = vec![1; rank];
    match shape.get_mut(1) {
        Some(side) => *side = x.len(),
        None => problem!("expected at least 2 dimensions"),
    }
    reshape(x, &shape)
}

impl BatchNorm {
    /// `[scale / sqrt(variance + epsilon), mean]`, by channel, for values of `rank` dimensions.
    fn slope(&self, inputs: &Inputs<'_>, rank: usize) -> Outcome<[Array<f32>; 2]> {
        let spread = combine(inputs.float(1)?, inputs.float(4)?, |scale, variance| {
            scale / (variance + self.epsilon).sqrt()
        })?;
        Ok([of_channels(&spread, rank)?, of_channels(inputs.float(3)?, rank)?])
    }

    /// The kernels' form of this batch norm, from the parameters in `inputs`; `None` where they are
    /// not plain lists of one value a channel.
    pub fn kernel<'a>(
        &self,
        inputs: &Inputs<'a>,
        channels: usize,
        relu: bool,
    ) -> Option<batch_norm::BatchNorm<'a>> {
        let list = |index: usize| {
            let list = inputs.get(index)?.float().ok()?.as_slice()?;
            (list.len() == channels && channels > 0).then_some(list)
        };
        Some(batch_norm::BatchNorm {
            mean: list(3)?,
            variance: list(4)?,
            gamma: list(1)?,
            beta: list(2)?,
            epsilon: self.epsilon,
            relu,
        })
    }

    /// The forward pass, and that of a rectifier behind it, of values whose channels are neighbours
    /// in memory; `None` for others.
    pub fn in_rows(&self, inputs: &Inputs<'_>, relu: bool) -> Outcome<Option<Array<f32>>> {
        let x = inputs.float(0)?;
        let (Some(&channels), Some(&stride)) = (x.shape().get(1), x.strides().get(1)) else {
            return Ok(None);
        };
        let data = x.as_slice_memory_order().filter(|_| x.strides().iter().all(|&s| s >= 0));
        let (Some(data), Some(kernel)) = (data, self.kernel(inputs, channels, relu)) else {
            return Ok(None);
        };
        if channels > 1 && stride != 1 {
            return Ok(None);
        }
        let mut y = taken(data.len());
        kernel.forward(isa()?, data, &mut y)?;
        like(x, y).map(Some)
    }
}

impl Operator for BatchNorm {
    fn forward(&self, inputs: &Inputs<'_>) -> Outcome<Vec<Value>> {
        if let Some(y) = self.in_rows(inputs, false)? {
            return Ok(vec![Value::Float(y)]);
        }
        let x = inputs.float(0)?;
        let [slope, mean] = self.slope(inputs, x.ndim())?;
        let shift = of_channels(inputs.float(2)?, x.ndim())?;
        let product = combine(&slope, &mean, |slope, mean| slope * mean)?;
        let offset = combine(&shift, &product, |shift, product| shift - product)?;
        let both = combine(&slope, &offset, |slope, offset| (slope, offset))?;
        Ok(vec![Value::Float(combine(x, &both, |x, (slope, offset)| x * slope + offset)?)])
    }

    fn backward(&self, back: &mut Back<'_>) -> Outcome<Vec<Option<Array<f32>>>> {
        let g = back.take_gradient()?;
        let [slope, mean] = self.slope(&back.inputs, g.ndim())?;
        let mut all = vec![None; back.inputs.len()];
        if back.wants(1) {
            let x = back.inputs.float(0)?;
            let centred = combine(x, &mean, |x, mean| x - mean)?;
            let variance = of_channels(back.inputs.float(4)?, x.ndim())?;
            let unit =
                combine(&centred, &variance, |x, variance| x / (variance + self.epsilon).sqrt())?;
            let sum = unspread(combine(&unit, &g, |unit, g| unit * g)?, slope.shape())?;
            all[1] = Some(reshape(&sum, back.inputs.value(1)?.shape())?);
        }
        if back.wants(2) {
            let sum = unspread(g.clone(), slope.shape())?;
            all[2] = Some(reshape(&sum, back.inputs.value(2)?.shape())?);
        }
        if back.wants(0) {
            all[0] = Some(combine_into(g, &slope, |g, slope| g * slope)?);
        }
        Ok(all)
    }

    fn part(&self) -> Option<Part<'_>> {
        Some(Part::Norm(self))
    }
}

/// The cut of a value: `rows` rows of `len` numbers that are normalised together.
struct Rows {
    rows: usize,
    len: usize,
}

/// Brings the gradient of a scale or a shift from one value a channel to `shape`, which may have one
/// a group.
fn of_groups(of_channel: &Array<f32>, shape: &[usize]) -> Outcome<Array<f32>> {
    let (channels, groups) = (of_channel.len(), shape.iter().product::<usize>());
    if groups == 0 || groups >= channels {
        return reshape(of_channel, shape);
    }
    let of_channel = reshape(of_channel, &[groups, channels / groups])?;
    reshape(&of_channel.sum_axis(ndarray::Axis(1)).into_shared(), shape)
}

impl Normalise {
    fn rows(&self, shape: &[usize]) -> Outcome<Rows> {
        let rank = shape.len();
        let rows = match self.group {
            Group::From(axis) => shape[..to_axis(axis, rank)?].iter().product(),
            Group::Channels(_) | Group::EachChannel if rank < 2 => {
                problem!("expected at least 2 dimensions")
            }
            Group::Channels(groups) if !shape[1].is_multiple_of(groups) => {
                problem!("{groups} groups do not divide {} channels", shape[1])
            }
            Group::Channels(groups) => shape[0].saturating_mul(groups),
            Group::EachChannel => shape[0] * shape[1],
        };
        let all: usize = shape.iter().product();
        Ok(Rows { rows, len: all.checked_div(rows).unwrap_or(0) })
    }

    /// The normalised value in row-major order, and the inverse standard deviation of each row.
    fn unit(&self, x: &Array<f32>) -> Outcome<(Array<f32>, Vec<f32>)> {
        let Rows { rows, len } = self.rows(x.shape())?;
        let mut unit = plain(x);
        let mut scales = Vec::with_capacity(rows);
        let data = unit.as_slice_mut().unwrap_or_default();
        for row in data.chunks_mut(len.max(1)) {
            let count = row.len() as f64;
            let mean = row.iter().map(|&v| f64::from(v)).sum::<f64>() / count;
            let variance = row.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / count;
            let scale = (variance + f64::from(self.epsilon)).sqrt().recip() as f32;
            row.iter_mut().for_each(|v| *v = (*v - mean as f32) * scale);
            scales.push(scale);
        }
        Ok((unit, scales))
    }

    /// Reshapes a scale or a shift so that it broadcasts over `x`.
    fn affine(&self, inputs: &Inputs<'_>, index: usize) -> Outcome<Option<Array<f32>>> {
        let Some(value) = inputs.get(index) else { return Ok(None) };
        let (value, shape) = (value.float()?, inputs.value(0)?.shape());
        Ok(Some(match self.group {
            Group::From(_) => value.clone(),
            Group::Channels(groups) if self.scale_of_group && value.len() == groups => {
                // One value per group is repeated for the group's channels.
                let each = shape[1] / groups;
                let data: Vec<f32> =
                    value.iter().flat_map(|&v| std::iter::repeat_n(v, each)).collect();
                of_channels(&crate::value::array(&[data.len()], data)?, shape.len())?
            }
            Group::Channels(_) | Group::EachChannel => of_channels(value, shape.len())?,
        }))
    }
}

impl Operator for Normalise {
    fn forward(&self, inputs: &Inputs<'_>) -> Outcome<Vec<Value>> {
        let (mut y, _) = self.unit(inputs.float(0)?)?;
        if let Some(scale) = self.affine(inputs, 1)? {
            y = combine(&y, &scale, |y, scale| y * scale)?;
        }
        if let Some(shift) = self.affine(inputs, 2)? {
            y = combine(&y, &shift, |y, shift| y + shift)?;
        }
        Ok(vec![Value::Float(y)])
    }

    fn backward(&self, back: &mut Back<'_>) -> Outcome<Vec<Option<Array<f32>>>> {
        let x = back.inputs.float(0)?;
        let (unit, scales) = self.unit(x)?;
        let g = back.gradient()?;
        let mut all = vec![None; back.inputs.len()];
        let scale = self.affine(&back.inputs, 1)?;
        for index in [1, 2] {
            if back.wants(index) {
                let each = match index {
                    1 => combine(&unit, g, |unit, g| unit * g)?,
                    _ => g.clone(),
                };
                let target = back.inputs.value(index)?.shape();
                let Some(spread) = self.affine(&back.inputs, index)? else { continue };
                let of_channel = unspread(each, spread.shape())?;
                all[index] = Some(of_groups(&of_channel, target)?);
            }
        }
        if back.wants(0) {
            let inner = match &scale {
                Some(scale) => combine(g, scale, |g, scale| g * scale)?,
                None => g.clone(),
            };
            let mut inner = plain(&inner);
            let len = self.rows(x.shape())?.len.max(1);
            let units = unit.as_slice().unwrap_or_default();
            let rows = inner.as_slice_mut().unwrap_or_default().chunks_mut(len);
            for ((row, unit), scale) in rows.zip(units.chunks(len)).zip(scales) {
                let count = row.len() as f32;
                let mean = row.iter().sum::<f32>() / count;
                let dot = row.iter().zip(unit).map(|(g, u)| g * u).sum::<f32>() / count;
                for (g, unit) in row.iter_mut().zip(unit) {
                    *g = scale * (*g - mean - unit * dot);
                }
            }
            all[0] = Some(inner);
        }
        Ok(all)
    }
}

impl Lp {
    /// The norm over the axis, which keeps the size 1.
    fn length(&self, x: &Array<f32>) -> Outcome<Array<f32>> {
        let axis = ndarray::Axis(to_axis(self.axis, x.ndim())?);
        let each = match self.p {
            1 => map(x, f32::abs)?,
            2 => map(x, |v| v * v)?,
            other => problem!("the norm of order {other}"),
        };
        let sum = each.sum_axis(axis).insert_axis(axis).into_shared();
        if self.p == 2 { map(&sum, f32::sqrt) } else { Ok(sum) }
    }
}

impl Operator for Lp {
    fn forward(&self, inputs: &Inputs<'_>) -> Outcome<Vec<Value>> {
        let x = inputs.float(0)?;
        let length = self.length(x)?;
        let divide = |x: f32, length: f32| if length == 0.0 { 0.0 } else { x / length };
        Ok(vec![Value::Float(combine(x, &length, divide)?)])
    }

    fn backward(&self, back: &mut Back<'_>) -> Outcome<Vec<Option<Array<f32>>>> {
        let (x, y, g) = (back.inputs.float(0)?, back.output()?, back.gradient()?);
        let length = self.length(x)?;
        let dot = unspread(combine(y, g, |y, g| y * g)?, length.shape())?;
        let direction = match self.p {
            1 => map(x, |v| f32::from(i8::from(v > 0.0) - i8::from(v < 0.0)))?,
            _ => y.clone(),
        };
        let across = combine(&direction, &dot, |direction, dot| direction * dot)?;
        let inner = combine(g, &across, |g, across| g - across)?;
        let divide = |g: f32, length: f32| if length == 0.0 { 0.0 } else { g / length };
        Ok(back.only(Some(if x.is_empty() {
            zeros(x.shape())
        } else {
            combine(&inner, &length, divide)?
        })))
    }
}
