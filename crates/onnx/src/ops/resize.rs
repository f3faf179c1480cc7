//! Resizes images by nearest, linear and cubic interpolation, one axis after another.

use ndarray::Axis;

use super::{Attributes, Back, Inputs, Operator};
use crate::{
    error::{Outcome, problem},
    value::{Array, Value, elements, plain, to_axis, to_shape, zeros},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Nearest,
    Linear,
    Cubic,
}

/// The map from a place of the output to a coordinate of the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Coordinates {
    HalfPixel,
    PytorchHalfPixel,
    AlignCorners,
    Asymmetric,
}

/// The neighbour that is taken for a coordinate between two places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Nearest {
    PreferFloor,
    PreferCeil,
    Floor,
    Ceil,
    /// What onnxruntime takes up to opset 10, where no option says it: the place before where an axis
    /// grows, the place behind where it shrinks.
    ByScale,
}

/// How far from a half a coordinate may lie and still count as one, as in onnxruntime: quotients of
/// scales like 1.2 are not exact.
const TIE: f64 = 1e-6;

/// What the sizes that are asked for mean where they have another ratio than the input's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Policy {
    /// They are taken as they are.
    Stretch,
    /// The ratio stays, and no side gets larger than its size.
    NotLarger,
    /// The ratio stays, and no side gets smaller than its size.
    NotSmaller,
}

/// What an axis becomes.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Side {
    size: usize,
    scale: f32,
}

/// `Resize` and `Upsample`.
#[derive(Debug)]
struct Resize {
    mode: Mode,
    coordinates: Coordinates,
    nearest: Nearest,
    cubic: f32,
    policy: Policy,
    axes: Option<Vec<i64>>,
    /// Indices of the inputs that hold the scales and the sizes.
    inputs: [Option<usize>; 2],
    scales: Option<Vec<f32>>,
}

pub(super) fn build(attributes: &Attributes<'_>) -> Outcome<Option<Box<dyn Operator>>> {
    let old = match attributes.kind() {
        "Resize" => attributes.opset < 11,
        "Upsample" => true,
        _ => return Ok(None),
    };
    let mode = match attributes.text("mode", "nearest").as_str() {
        "nearest" => Mode::Nearest,
        "linear" => Mode::Linear,
        "cubic" => Mode::Cubic,
        other => problem!("interpolation of mode {other}"),
    };
    let default = if old { "asymmetric" } else { "half_pixel" };
    let coordinates = match attributes.text("coordinate_transformation_mode", default).as_str() {
        "half_pixel" => Coordinates::HalfPixel,
        "pytorch_half_pixel" => Coordinates::PytorchHalfPixel,
        "align_corners" => Coordinates::AlignCorners,
        "asymmetric" => Coordinates::Asymmetric,
        other => problem!("coordinates of mode {other}"),
    };
    let nearest = match attributes.text("nearest_mode", "round_prefer_floor").as_str() {
        _ if old => Nearest::ByScale,
        "round_prefer_floor" => Nearest::PreferFloor,
        "round_prefer_ceil" => Nearest::PreferCeil,
        "floor" => Nearest::Floor,
        "ceil" => Nearest::Ceil,
        other => problem!("nearest neighbours of mode {other}"),
    };
    let policy = match attributes.text("keep_aspect_ratio_policy", "stretch").as_str() {
        "stretch" => Policy::Stretch,
        "not_larger" => Policy::NotLarger,
        "not_smaller" => Policy::NotSmaller,
        other => problem!("a ratio of the sides by the policy {other}"),
    };
    if attributes.int("antialias", 0) != 0 || attributes.int("exclude_outside", 0) != 0 {
        problem!("antialias and exclude_outside");
    }
    Ok(Some(Box::new(Resize {
        mode,
        coordinates,
        nearest,
        cubic: attributes.float("cubic_coeff_a", -0.75),
        policy,
        axes: attributes.ints("axes"),
        inputs: if old { [Some(1), None] } else { [Some(2), Some(3)] },
        scales: attributes.floats("scales"),
    })))
}

/// Places of the input and their weights, for one place of the output.
type Sources = Vec<(usize, f32)>;

impl Resize {
    /// The output's size and scale of each axis; `None` where the input stays as it is.
    fn sides(&self, inputs: &Inputs<'_>) -> Outcome<Option<Vec<Side>>> {
        let shape = inputs.value(0)?.shape();
        let axes = match &self.axes {
            Some(axes) => {
                axes.iter().map(|&a| to_axis(a, shape.len())).collect::<Outcome<Vec<_>>>()?
            }
            None => (0..shape.len()).collect(),
        };
        let asked =
            self.asked(inputs, &axes.iter().map(|&axis| shape[axis]).collect::<Vec<_>>())?;
        let mut sides: Vec<Side> = shape.iter().map(|&size| Side { size, scale: 1.0 }).collect();
        for (&axis, side) in axes.iter().zip(asked) {
            if shape[axis] == 0 && side.size != 0 {
                problem!("an axis without places is to get {}", side.size);
            }
            sides[axis] = side;
        }
        elements(&sides.iter().map(|side| side.size).collect::<Vec<_>>())?;
        let same = sides.iter().zip(shape).all(|(side, &before)| side.size == before);
        Ok((!same).then_some(sides))
    }

    /// What the second or third input, or the option, asks for the axes of the sizes `before`.
    fn asked(&self, inputs: &Inputs<'_>, before: &[usize]) -> Outcome<Vec<Side>> {
        let sizes = match self.inputs[1] {
            Some(index) => inputs.list(index)?.filter(|sizes| !sizes.is_empty()),
            None => None,
        };
        let scales = match (&self.scales, self.inputs[0].and_then(|index| inputs.get(index))) {
            (Some(scales), _) => scales.clone(),
            (None, Some(scales)) => scales.float()?.iter().copied().collect(),
            (None, None) => Vec::new(),
        };
        let count = sizes.as_ref().map_or(scales.len(), Vec::len);
        if count != before.len() {
            problem!("{count} sizes or scales for {} axes", before.len());
        }
        match sizes {
            Some(sizes) => self.by_sizes(&to_shape(&sizes)?, before),
            None => before.iter().zip(scales).map(|(&side, scale)| scaled(side, scale)).collect(),
        }
    }

    fn by_sizes(&self, sizes: &[usize], before: &[usize]) -> Outcome<Vec<Side>> {
        let sides = sizes.iter().zip(before);
        let sides =
            sides.map(|(&size, &side)| Side { size, scale: size as f32 / side.max(1) as f32 });
        let sides: Vec<Side> = sides.collect();
        let scales = sides.iter().map(|side| side.scale);
        let common = match self.policy {
            Policy::Stretch => return Ok(sides),
            Policy::NotLarger => scales.fold(f32::INFINITY, f32::min),
            Policy::NotSmaller => scales.fold(0.0, f32::max),
        };
        before.iter().map(|&side| side_of((side as f32 * common).round(), common)).collect()
    }

    /// The coordinate on an axis of `before` places that corresponds to place `at` of `side`, in the
    /// precision in which other implementations compute it: where quotients are rounded decides which
    /// neighbour is the nearest.
    fn source(&self, at: usize, before: usize, Side { size, scale }: Side) -> f32 {
        let at = at as f32;
        match self.coordinates {
            Coordinates::PytorchHalfPixel if size <= 1 => 0.0,
            Coordinates::HalfPixel | Coordinates::PytorchHalfPixel => (at + 0.5) / scale - 0.5,
            Coordinates::AlignCorners if size <= 1 => 0.0,
            Coordinates::AlignCorners => at * (before as f32 - 1.0) / (size as f32 - 1.0),
            Coordinates::Asymmetric => at / scale,
        }
    }

    /// The sources of each place of an axis of `before` places that becomes `side`, one place after
    /// the other: an axis may be longer than all lists of its places should be.
    fn sources(&self, before: usize, side: Side) -> impl Iterator<Item = Sources> {
        let clamp = move |at: f64| at.clamp(0.0, before.saturating_sub(1) as f64) as usize;
        (0..side.size).map(move |at| {
            let from = f64::from(self.source(at, before, side));
            let (floor, rest) = (from.floor(), (from - from.floor()) as f32);
            match self.mode {
                Mode::Nearest => vec![(clamp(self.nearest.of(from, side.scale)), 1.0)],
                Mode::Linear => vec![(clamp(floor), 1.0 - rest), (clamp(floor + 1.0), rest)],
                Mode::Cubic => (-1..=2)
                    .map(|k| (clamp(floor + f64::from(k)), cubic(self.cubic, rest - k as f32)))
                    .collect(),
            }
        })
    }
}

impl Nearest {
    /// The place that is taken for the coordinate `from` of an axis that is scaled by `scale`.
    fn of(self, from: f64, scale: f32) -> f64 {
        match self {
            Self::PreferFloor => (from - 0.5 - TIE).ceil(),
            Self::PreferCeil => (from + 0.5 + TIE).floor(),
            Self::ByScale if scale < 1.0 => from.ceil(),
            Self::Floor | Self::ByScale => from.floor(),
            Self::Ceil => from.ceil(),
        }
    }
}

/// The side that `before` places get by `scale`. The product is one of f32, as elsewhere: 0.7 times 10
/// is 7 there, and 6.999... in f64.
fn scaled(before: usize, scale: f32) -> Outcome<Side> {
    side_of((before as f32 * scale).floor(), scale)
}

fn side_of(size: f32, scale: f32) -> Outcome<Side> {
    if !(0.0..=1e8).contains(&size) {
        problem!("a scale of {scale}");
    }
    Ok(Side { size: size as usize, scale })
}

/// Keys' cubic convolution kernel with coefficient `a` (Keys 1981).
fn cubic(a: f32, at: f32) -> f32 {
    let t = at.abs();
    if t <= 1.0 {
        ((a + 2.0) * t - (a + 3.0)) * t * t + 1.0
    } else if t < 2.0 {
        ((a * t - 5.0 * a) * t + 8.0 * a) * t - 4.0 * a
    } else {
        0.0
    }
}

/// Whether an axis of `before` places stays as it is.
fn stays(before: usize, side: Side) -> bool {
    before == side.size && side.scale == 1.0
}

impl Operator for Resize {
    fn forward(&self, inputs: &Inputs<'_>) -> Outcome<Vec<Value>> {
        let mut x = plain(inputs.float(0)?);
        let sides = self.sides(inputs)?.unwrap_or_default();
        for (axis, side) in sides.into_iter().enumerate() {
            let before = x.shape()[axis];
            if stays(before, side) {
                continue;
            }
            let mut shape = x.shape().to_vec();
            shape[axis] = side.size;
            elements(&shape)?;
            let mut y = zeros(&shape);
            for (to, sources) in self.sources(before, side).enumerate() {
                for (from, weight) in sources {
                    y.index_axis_mut(Axis(axis), to)
                        .scaled_add(weight, &x.index_axis(Axis(axis), from));
                }
            }
            x = y;
        }
        Ok(vec![Value::Float(x)])
    }

    fn backward(&self, back: &mut Back<'_>) -> Outcome<Vec<Option<Array<f32>>>> {
        let shape = back.inputs.value(0)?.shape();
        let sides = self.sides(&back.inputs)?.unwrap_or_default();
        let mut g = plain(back.gradient()?);
        for (axis, side) in sides.into_iter().enumerate().rev() {
            let before = shape[axis];
            if stays(before, side) {
                continue;
            }
            let mut wider = g.shape().to_vec();
            wider[axis] = before;
            elements(&wider)?;
            let mut dx = zeros(&wider);
            for (to, sources) in self.sources(before, side).enumerate() {
                for (from, weight) in sources {
                    dx.index_axis_mut(Axis(axis), from)
                        .scaled_add(weight, &g.index_axis(Axis(axis), to));
                }
            }
            g = dx;
        }
        Ok(back.only(Some(g)))
    }
}
