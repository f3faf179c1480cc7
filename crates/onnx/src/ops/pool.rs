//! Max and average pooling over windows.

use std::borrow::Cow;

use super::{
    Attributes, Back, Inputs, Operator,
    conv::{Padding, from_hwnc, to_hwnc},
};
use crate::{
    error::{Outcome, problem},
    value::{Array, Value, elements, reshape},
};

/// `MaxPool` and `AveragePool`.
#[derive(Debug)]
struct Pool {
    kind: Kind,
    kernel: Vec<usize>,
    stride: Vec<usize>,
    dilation: Vec<usize>,
    padding: Padding,
    /// Whether a window counts that begins inside and ends outside.
    ceil: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Max,
    /// Whether padding counts as zeros.
    Average {
        padding_counts: bool,
    },
}

pub(super) fn build(attributes: &Attributes<'_>) -> Outcome<Option<Box<dyn Operator>>> {
    let kind = match attributes.kind() {
        "MaxPool" if attributes.outputs() > 1 => problem!("the indices as a second output"),
        "MaxPool" => Kind::Max,
        "AveragePool" => {
            Kind::Average { padding_counts: attributes.int("count_include_pad", 0) != 0 }
        }
        _ => return Ok(None),
    };
    Ok(Some(Box::new(Pool {
        kind,
        kernel: attributes.sizes("kernel_shape", &[])?,
        stride: attributes.sizes("strides", &[])?,
        dilation: attributes.sizes("dilations", &[])?,
        padding: Padding::read(attributes)?,
        ceil: attributes.int("ceil_mode", 0) != 0,
    })))
}

/// The windows along one axis.
#[derive(Clone, Copy, Debug)]
struct Side {
    input: usize,
    output: usize,
    kernel: usize,
    stride: usize,
    dilation: usize,
    before: usize,
    behind: usize,
}

impl Side {
    /// The input pixels under window `at`.
    fn inputs(self, at: usize) -> impl Iterator<Item = usize> + Clone {
        let start = at * self.stride;
        (0..self.kernel).filter_map(move |tap| {
            let padded = start + tap * self.dilation;
            padded.checked_sub(self.before).filter(|&pixel| pixel < self.input)
        })
    }

    /// The number of taps of window `at` that lie on the input or its padding.
    fn counted(self, at: usize) -> usize {
        let end = self.before + self.input + self.behind;
        (0..self.kernel).filter(|tap| at * self.stride + tap * self.dilation < end).count()
    }
}

impl Pool {
    fn sides(&self, shape: &[usize]) -> Outcome<[Side; 2]> {
        let axes = shape.len().saturating_sub(2);
        if !(1..=2).contains(&axes) || self.kernel.len() != axes {
            problem!("a window of {:?} over shape {shape:?}", self.kernel);
        }
        let whole =
            Side { input: 1, output: 1, kernel: 1, stride: 1, dilation: 1, before: 0, behind: 0 };
        let mut sides = [whole; 2];
        for axis in 0..axes {
            let at = |list: &[usize]| list.get(axis).copied().unwrap_or(1);
            let (input, kernel) = (shape[axis + 2], self.kernel[axis]);
            let (stride, dilation) = (at(&self.stride), at(&self.dilation));
            if kernel == 0 || stride == 0 || dilation == 0 {
                problem!("a window, stride or dilation of 0");
            }
            let reach = (kernel - 1).saturating_mul(dilation).saturating_add(1);
            let [before, behind] = self.padding.of(axis, axes, input, reach, stride)?;
            let Some(room) = (input + before + behind).checked_sub(reach) else {
                problem!("a window of {reach} over {input} pixels");
            };
            let mut output = room / stride + 1;
            if self.ceil {
                output = room.div_ceil(stride) + 1;
                // A window must begin inside the image or in the padding before it.
                if (output - 1) * stride >= input + before {
                    output -= 1;
                }
            }
            sides[axis + 2 - axes] =
                Side { input, output, kernel, stride, dilation, before, behind };
        }
        Ok(sides)
    }

    /// The factor of a window's sum.
    fn share(&self, [rows, columns]: [Side; 2], at: [usize; 2]) -> f32 {
        let count = match self.kind {
            Kind::Max => 1,
            Kind::Average { padding_counts: true } => rows.counted(at[0]) * columns.counted(at[1]),
            Kind::Average { padding_counts: false } => {
                rows.inputs(at[0]).count() * columns.inputs(at[1]).count()
            }
        };
        1.0 / count.max(1) as f32
    }
}

/// Adds a spatial axis to images that have only one.
fn two(x: &Array<f32>) -> Outcome<Array<f32>> {
    match x.shape() {
        &[n, c, w] => reshape(x, &[n, c, 1, w]),
        _ => Ok(x.clone()),
    }
}

/// The input pixels under the window of output pixel `[y, x]`.
fn window([rows, columns]: [Side; 2], at: [usize; 2]) -> impl Iterator<Item = usize> {
    rows.inputs(at[0]).flat_map(move |y| columns.inputs(at[1]).map(move |x| y * columns.input + x))
}

impl Operator for Pool {
    fn forward(&self, inputs: &Inputs<'_>) -> Outcome<Vec<Value>> {
        let x = inputs.float(0)?;
        let sides = self.sides(x.shape())?;
        let (n, c) = (x.shape()[0], x.shape()[1]);
        let shape = [n, c, sides[0].output, sides[1].output];
        let row = n * c;
        let wide = two(x)?;
        let source: Cow<'_, [f32]> = to_hwnc(&wide)?;
        let start = if self.kind == Kind::Max { f32::NEG_INFINITY } else { 0.0 };
        let mut y = vec![start; elements(&shape)?];
        for (index, out) in y.chunks_mut(row.max(1)).enumerate().take(shape[2] * shape[3]) {
            let at = [index / shape[3], index % shape[3]];
            for pixel in window(sides, at) {
                let values = source[pixel * row..(pixel + 1) * row].iter();
                match self.kind {
                    Kind::Max => out.iter_mut().zip(values).for_each(|(y, &x)| *y = y.max(x)),
                    Kind::Average { .. } => out.iter_mut().zip(values).for_each(|(y, &x)| *y += x),
                }
            }
            if self.kind != Kind::Max {
                let share = self.share(sides, at);
                out.iter_mut().for_each(|y| *y *= share);
            }
        }
        let y = from_hwnc(shape, y)?;
        Ok(vec![Value::Float(if x.ndim() == 3 { reshape(&y, &[n, c, shape[3]])? } else { y })])
    }

    fn backward(&self, back: &mut Back<'_>) -> Outcome<Vec<Option<Array<f32>>>> {
        let x = back.inputs.float(0)?;
        let sides = self.sides(x.shape())?;
        let (wide, g, out) = (two(x)?, two(back.gradient()?)?, two(back.output()?)?);
        let (source, dy, y) = (to_hwnc(&wide)?, to_hwnc(&g)?, to_hwnc(&out)?);
        let row = x.shape()[0] * x.shape()[1];
        let mut dx = vec![0.0f32; x.len()];
        let mut taken = vec![false; row];
        for index in 0..sides[0].output * sides[1].output {
            let at = [index / sides[1].output, index % sides[1].output];
            let (dy, y) = (&dy[index * row..][..row], &y[index * row..][..row]);
            let share = self.share(sides, at);
            // The first of equal pixels takes the gradient, as in PyTorch.
            taken.fill(false);
            for pixel in window(sides, at) {
                let range = pixel * row..(pixel + 1) * row;
                let (dx, x) = (&mut dx[range.clone()], &source[range]);
                for i in 0..row {
                    match self.kind {
                        Kind::Max if !taken[i] && x[i] == y[i] => {
                            dx[i] += dy[i];
                            taken[i] = true;
                        }
                        Kind::Max => {}
                        Kind::Average { .. } => dx[i] += dy[i] * share,
                    }
                }
            }
        }
        let s = wide.shape();
        let dx = from_hwnc([s[0], s[1], s[2], s[3]], dx)?;
        Ok(back.only(Some(if x.ndim() == 3 { reshape(&dx, x.shape())? } else { dx })))
    }
}
