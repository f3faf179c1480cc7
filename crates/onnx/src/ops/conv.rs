//! Convolution in one and two dimensions, computed by the kernels.

use std::borrow::Cow;

use ndarray::{Axis, IxDyn, Slice};
use sora_kernels::{
    Addend, batch_norm,
    conv::{Conv2d, ConvGeometry, Direction, Epilogue, Normed},
    layout::{Dimensions, hwnc_to_nchw, nchw_to_hwnc},
};

use super::{Attributes, Back, Inputs, Operator, Part, norm::BatchNorm};
use crate::{
    buffers::taken,
    cache::{Packed, isa},
    error::{Outcome, problem},
    value::{Array, Value, array, elements, expect_rank, permute, plain, reshape, to_vec, zeros},
};

/// The way in which padding is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Padding {
    /// Pixels before and after each axis: first all the pixels before, then all the pixels after.
    Given(Vec<usize>),
    /// Padding that makes the output's size the input's size divided by the stride. An odd pixel
    /// goes after the axis (`upper`) or before it.
    Same { upper: bool },
}

impl Padding {
    pub fn read(attributes: &Attributes<'_>) -> Outcome<Self> {
        Ok(match attributes.text("auto_pad", "NOTSET").as_str() {
            "SAME_UPPER" => Self::Same { upper: true },
            "SAME_LOWER" => Self::Same { upper: false },
            "VALID" => Self::Given(Vec::new()),
            _ => Self::Given(attributes.sizes("pads", &[])?),
        })
    }

    /// Pixels `[before, after]` of axis `axis` of `count`.
    pub fn of(
        &self,
        axis: usize,
        count: usize,
        size: usize,
        kernel: usize,
        stride: usize,
    ) -> Outcome<[usize; 2]> {
        Ok(match self {
            Self::Given(pads) if pads.is_empty() => [0, 0],
            Self::Given(pads) if pads.len() == 2 * count => [pads[axis], pads[axis + count]],
            Self::Given(pads) => problem!("{} paddings for {count} axes", pads.len()),
            Self::Same { upper } => {
                let wanted = size.div_ceil(stride.max(1)).saturating_sub(1) * stride + kernel;
                let total = wanted.saturating_sub(size);
                let (less, more) = (total / 2, total.div_ceil(2));
                if *upper { [less, more] } else { [more, less] }
            }
        })
    }
}

/// `Conv`.
#[derive(Debug)]
pub(crate) struct Conv {
    stride: Vec<usize>,
    dilation: Vec<usize>,
    padding: Padding,
    groups: usize,
    packed: Packed,
}

pub(super) fn build(attributes: &Attributes<'_>) -> Outcome<Option<Box<dyn Operator>>> {
    if attributes.kind() != "Conv" {
        return Ok(None);
    }
    let groups = match usize::try_from(attributes.int("group", 1)) {
        Ok(groups @ 1..) => groups,
        _ => problem!("{} groups", attributes.int("group", 1)),
    };
    Ok(Some(Box::new(Conv {
        stride: attributes.sizes("strides", &[])?,
        dilation: attributes.sizes("dilations", &[])?,
        padding: Padding::read(attributes)?,
        groups,
        packed: Packed::default(),
    })))
}

/// Converts images `[N, C, H, W]` to the kernels' order `[H][W][N][C]`.
pub(super) fn to_hwnc(x: &Array<f32>) -> Outcome<Cow<'_, [f32]>> {
    expect_rank(x, 4)?;
    let turned = x.view().permuted_axes(IxDyn(&[2, 3, 0, 1]));
    if let Some(slice) = turned.to_slice() {
        return Ok(Cow::Borrowed(slice));
    }
    let [n, c, h, w] = [x.shape()[0], x.shape()[1], x.shape()[2], x.shape()[3]];
    let mut out = taken(x.len());
    let plain = plain(x);
    nchw_to_hwnc(Dimensions { n, c, h, w }, plain.as_slice().unwrap_or_default(), &mut out)?;
    Ok(Cow::Owned(out))
}

/// Converts numbers in the kernels' order to images `[N, C, H, W]`.
pub(super) fn from_hwnc([n, c, h, w]: [usize; 4], data: Vec<f32>) -> Outcome<Array<f32>> {
    Ok(permute(&array(&[h, w, n, c], data)?, &[2, 3, 0, 1]))
}

/// The elements in row-major order, of images by the kernels.
pub(crate) fn to_pixels(x: &Array<f32>) -> Outcome<Vec<f32>> {
    if x.ndim() == 4
        && !x.is_standard_layout()
        && let Some(hwnc) = x.view().permuted_axes(IxDyn(&[2, 3, 0, 1])).to_slice()
    {
        let [n, c, h, w] = [x.shape()[0], x.shape()[1], x.shape()[2], x.shape()[3]];
        let mut pixels = vec![0.0; x.len()];
        hwnc_to_nchw(Dimensions { n, c, h, w }, hwnc, &mut pixels)?;
        return Ok(pixels);
    }
    Ok(to_vec(x))
}

/// Pads `x` with zeros, `[before, after]` of each axis.
fn pad(x: &Array<f32>, pads: [[usize; 2]; 2]) -> Outcome<Array<f32>> {
    let mut shape = x.shape().to_vec();
    for (side, [before, behind]) in shape[2..].iter_mut().zip(pads) {
        *side = side.saturating_add(before).saturating_add(behind);
    }
    elements(&shape)?;
    let mut padded = permute(&zeros(&[shape[2], shape[3], shape[0], shape[1]]), &[2, 3, 0, 1]);
    inside(&mut padded, pads, x.shape()).assign(x);
    Ok(padded)
}

/// The part of a padded value that is not padding.
fn inside<'a>(
    padded: &'a mut Array<f32>,
    pads: [[usize; 2]; 2],
    shape: &[usize],
) -> ndarray::ArrayViewMutD<'a, f32> {
    padded.slice_each_axis_mut(|axis| match axis.axis.index() {
        axis @ 2.. => Slice::from(pads[axis - 2][0]..pads[axis - 2][0] + shape[axis]),
        _ => Slice::from(..),
    })
}

/// The sizes and operands of a call, which the shapes decide.
struct Plan {
    /// Input and weights, with two spatial axes.
    x: Array<f32>,
    weights: Array<f32>,
    conv: Conv2d<f32>,
    /// Padding that was added beforehand; zeros where the kernels pad.
    before: [[usize; 2]; 2],
    output: [usize; 4],
}

/// Room for a convolution of `x`: zeros where there is nothing to sum.
fn room(len: usize, x: &[f32]) -> Vec<f32> {
    if x.is_empty() { vec![0.0; len] } else { taken(len) }
}

/// What follows a convolution: a sum, a batch norm with its inputs, a rectifier.
#[derive(Debug)]
pub(crate) struct Tail<'a> {
    pub add: Option<&'a Array<f32>>,
    pub norm: Option<(&'a BatchNorm, Inputs<'a>)>,
    pub relu: bool,
    /// Whether the value before batch norm and rectifier is needed, too.
    pub keep: bool,
}

/// The values of a convolution and its [`Tail`].
#[derive(Debug)]
pub(crate) struct Followed {
    /// The value before batch norm and rectifier, where it was asked for and differs from `end`.
    pub sum: Option<Array<f32>>,
    pub end: Array<f32>,
}

impl Conv {
    /// A list of two numbers: the option's list, or a 1 before the number of its single axis.
    fn pair(list: &[usize], axes: usize, default: usize) -> Outcome<[usize; 2]> {
        match (list, axes) {
            ([], _) => Ok([default; 2]),
            ([a], 1) => Ok([default, *a]),
            ([a, b], 2) => Ok([*a, *b]),
            _ => problem!("{} numbers for {axes} axes", list.len()),
        }
    }

    fn plan(&self, inputs: &Inputs<'_>) -> Outcome<Plan> {
        let (x, weights) = (inputs.float(0)?, inputs.float(1)?);
        let axes = x.ndim().saturating_sub(2);
        if !(1..=2).contains(&axes) || weights.ndim() != x.ndim() {
            problem!("images of shape {:?}, weights of {:?}", x.shape(), weights.shape());
        }
        // A row is treated as an image of height 1.
        let two = |v: &Array<f32>| match v.shape() {
            &[a, b, w] => reshape(v, &[a, b, 1, w]),
            _ => Ok(v.clone()),
        };
        let (mut x, mut weights) = (two(x)?, two(weights)?);
        let stride = Self::pair(&self.stride, axes, 1)?;
        let dilation = Self::pair(&self.dilation, axes, 1)?;
        if dilation != [1, 1] {
            weights = dilate(&weights, dilation)?;
        }
        let kernel = [weights.shape()[2], weights.shape()[3]];
        let mut pads = [[0; 2]; 2];
        for axis in 0..axes {
            let d = axis + 2 - axes;
            pads[d] = self.padding.of(axis, axes, x.shape()[d + 2], kernel[d], stride[d])?;
        }
        let even = (0..2).all(|d| pads[d][0] == pads[d][1] && pads[d][0] < kernel[d]);
        let before = if even { [[0; 2]; 2] } else { pads };
        if !even {
            x = pad(&x, pads)?;
        }
        let geometry = ConvGeometry {
            in_channels: x.shape()[1],
            out_channels: weights.shape()[0],
            input: [x.shape()[2], x.shape()[3]],
            kernel,
            stride,
            padding: if even { [pads[0][0], pads[1][0]] } else { [0, 0] },
            groups: self.groups,
        };
        let conv = Conv2d::new(geometry, isa()?)?;
        if weights.len() != conv.weight_len() {
            problem!(
                "weights of shape {:?} for {} channels in {} groups",
                weights.shape(),
                geometry.in_channels,
                self.groups
            );
        }
        let [h, w] = geometry.output();
        let output = [x.shape()[0], geometry.out_channels, h, w];
        elements(&output)?;
        Ok(Plan { x, weights, conv, before, output })
    }

    /// Returns packed weights; the packed weights of the file are kept under the weights' own
    /// address.
    fn pack(
        &self,
        plan: &Plan,
        inputs: &Inputs<'_>,
        direction: Direction,
    ) -> Outcome<std::sync::Arc<sora_kernels::conv::PackedWeights>> {
        self.packed.conv(&plan.conv, inputs.float(1)?, direction, || plan.weights.clone())
    }

    /// The result, with what `epilogue` does to it.
    fn run(&self, plan: &Plan, inputs: &Inputs<'_>, epilogue: Epilogue<'_>) -> Outcome<Vec<f32>> {
        let packed = self.pack(plan, inputs, Direction::Forward)?;
        let bias = inputs.get(2).map(|bias| bias.float().map(plain)).transpose()?;
        let bias = bias.as_ref().and_then(|bias| bias.as_slice());
        let (n, x) = (plan.output[0], to_hwnc(&plan.x)?);
        let mut y = room(elements(&plan.output)?, &x);
        plan.conv.forward(n, &x, &packed, &mut y, Epilogue { bias, ..epilogue })?;
        Ok(y)
    }

    /// Computes the convolution of images and what follows it, in one pass: the sum, if that is
    /// needed, and the end. `None` where the shapes do not allow it.
    pub fn followed(&self, inputs: &Inputs<'_>, tail: &Tail<'_>) -> Outcome<Option<Followed>> {
        let plan = self.plan(inputs)?;
        if inputs.float(0)?.ndim() != 4 || tail.add.is_some_and(|add| add.shape() != plan.output) {
            return Ok(None);
        }
        let (channels, relu) = (plan.output[1], tail.relu);
        let (zeros, ones) = (vec![0.0; channels], vec![1.0; channels]);
        let norm = match &tail.norm {
            Some((norm, inputs)) => match norm.kernel(inputs, channels, relu) {
                None => return Ok(None),
                norm => norm,
            },
            // The batch norm that changes nothing carries the rectifier.
            None => relu.then_some(batch_norm::BatchNorm {
                mean: &zeros,
                variance: &ones,
                gamma: &ones,
                beta: &zeros,
                epsilon: 0.0,
                relu,
            }),
        };
        let add = tail.add.map(to_hwnc).transpose()?;
        let apart = tail.keep && norm.is_some();
        let mut end = if apart { taken(elements(&plan.output)?) } else { Vec::new() };
        let y = self.run(
            &plan,
            inputs,
            Epilogue {
                add: add.as_ref().map_or(Addend::None, |add| Addend::Tensor(add)),
                norm: norm.map(|norm| Normed { norm, y: apart.then_some(&mut end[..]) }),
                ..Epilogue::default()
            },
        )?;
        let y = from_hwnc(plan.output, y)?;
        Ok(Some(match apart {
            true => Followed { sum: Some(y), end: from_hwnc(plan.output, end)? },
            false => Followed { sum: None, end: y },
        }))
    }
}

/// Puts zeros between the taps of the weights.
fn dilate(weights: &Array<f32>, dilation: [usize; 2]) -> Outcome<Array<f32>> {
    if dilation.contains(&0) {
        problem!("a dilation of 0");
    }
    let mut shape = weights.shape().to_vec();
    for (side, dilation) in shape[2..].iter_mut().zip(dilation) {
        *side = side.saturating_sub(1).saturating_mul(dilation).saturating_add(1);
    }
    elements(&shape)?;
    let mut wide = zeros(&shape);
    wide.slice_each_axis_mut(|axis| match axis.axis.index() {
        axis @ 2.. => Slice::new(0, None, dilation[axis - 2] as isize),
        _ => Slice::from(..),
    })
    .assign(weights);
    Ok(wide)
}

/// Takes the taps that are weights out of a dilated gradient.
fn undilate(wide: &Array<f32>, dilation: [usize; 2]) -> Array<f32> {
    wide.slice_each_axis(|axis| match axis.axis.index() {
        axis @ 2.. => Slice::new(0, None, dilation[axis - 2] as isize),
        _ => Slice::from(..),
    })
    .to_shared()
}

impl Operator for Conv {
    fn forward(&self, inputs: &Inputs<'_>) -> Outcome<Vec<Value>> {
        let plan = self.plan(inputs)?;
        let y = from_hwnc(plan.output, self.run(&plan, inputs, Epilogue::default())?)?;
        let [n, c, _, w] = plan.output;
        Ok(vec![Value::Float(if inputs.float(0)?.ndim() == 3 {
            reshape(&y, &[n, c, w])?
        } else {
            y
        })])
    }

    fn backward(&self, back: &mut Back<'_>) -> Outcome<Vec<Option<Array<f32>>>> {
        let plan = self.plan(&back.inputs)?;
        let g = reshape_to(back.gradient()?, plan.output)?;
        let (n, dy) = (plan.output[0], to_hwnc(&g)?);
        let mut all = vec![None; back.inputs.len()];
        if back.wants(0) {
            let packed = self.pack(&plan, &back.inputs, Direction::InputGrad)?;
            let mut dx = room(plan.x.len(), &dy);
            plan.conv.input_grad(n, &dy, &packed, &mut dx, Epilogue::default())?;
            let s = plan.x.shape();
            let mut dx = from_hwnc([s[0], s[1], s[2], s[3]], dx)?;
            let x = back.inputs.float(0)?;
            if plan.before != [[0; 2]; 2] {
                let mut shape = s.to_vec();
                for (side, [a, b]) in shape[2..].iter_mut().zip(plan.before) {
                    *side -= a + b;
                }
                dx = inside(&mut dx, plan.before, &shape).to_shared();
            }
            all[0] = Some(if x.ndim() == 3 { reshape(&dx, x.shape())? } else { dx });
        }
        if back.wants(1) {
            let mut dw = vec![0.0; plan.weights.len()];
            plan.conv.weight_grad(n, &to_hwnc(&plan.x)?, &dy, &mut dw)?;
            let dw = array(plan.weights.shape(), dw)?;
            let axes = back.inputs.float(0)?.ndim() - 2;
            let dilation = Self::pair(&self.dilation, axes, 1)?;
            let dw = if dilation == [1, 1] { dw } else { undilate(&dw, dilation) };
            all[1] = Some(reshape(&dw, back.inputs.float(1)?.shape())?);
        }
        if back.wants(2) {
            let sums = g.sum_axis(Axis(3)).sum_axis(Axis(2)).sum_axis(Axis(0));
            all[2] = Some(sums.into_shared());
        }
        Ok(all)
    }

    fn part(&self) -> Option<Part<'_>> {
        Some(Part::Conv(self))
    }
}

/// Reshapes a gradient to two spatial axes, and keeps its order in memory if it has them already.
fn reshape_to(g: &Array<f32>, shape: [usize; 4]) -> Outcome<Array<f32>> {
    if g.shape() == shape { Ok(g.clone()) } else { reshape(g, &shape) }
}
