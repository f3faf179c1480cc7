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
}

/// `Resize` and `Upsample`.
#[derive(Debug)]
struct Resize {
    mode: Mode,
    coordinates: Coordinates,
    nearest: Nearest,
    cubic: f32,
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
    let default = if old { "floor" } else { "round_prefer_floor" };
    let nearest = match attributes.text("nearest_mode", default).as_str() {
        "round_prefer_floor" => Nearest::PreferFloor,
        "round_prefer_ceil" => Nearest::PreferCeil,
        "floor" => Nearest::Floor,
        "ceil" => Nearest::Ceil,
        other => problem!("nearest neighbours of mode {other}"),
    };
    if attributes.int("antialias", 0) != 0 || attributes.int("exclude_outside", 0) != 0 {
        problem!("antialias and exclude_outside");
    }
    Ok(Some(Box::new(Resize {
        mode,
        coordinates,
        nearest,
        cubic: attributes.float("cubic_coeff_a", -0.75),
        axes: attributes.ints("axes"),
        inputs: if old { [Some(1), None] } else { [Some(2), Some(3)] },
        scales: attributes.floats("scales"),
    })))
}

/// For each place of an axis of the output, places of the input and their weights.
type Weights = Vec<Vec<(usize, f32)>>;

impl Resize {
    /// The output's size and scale of each axis.
    fn sides(&self, inputs: &Inputs<'_>) -> Outcome<Vec<(usize, f64)>> {
        let shape = inputs.value(0)?.shape();
        let axes = match &self.axes {
            Some(axes) => {
                axes.iter().map(|&a| to_axis(a, shape.len())).collect::<Outcome<Vec<_>>>()?
            }
            None => (0..shape.len()).collect(),
        };
        let mut sides: Vec<(usize, f64)> = shape.iter().map(|&side| (side, 1.0)).collect();
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
        if count != axes.len() {
            problem!("{count} sizes or scales for {} axes", axes.len());
        }
        for (index, &axis) in axes.iter().enumerate() {
            let side = shape[axis];
            sides[axis] = match &sizes {
                Some(sizes) => {
                    let size = to_shape(&[sizes[index]])?[0];
                    (size, size as f64 / side.max(1) as f64)
                }
                None => {
                    let scale = f64::from(scales[index]);
                    let size = (side as f64 * scale).floor();
                    if !(0.0..=1e8).contains(&size) {
                        problem!("a scale of {scale}");
                    }
                    (size as usize, scale)
                }
            };
        }
        elements(&sides.iter().map(|(side, _)| *side).collect::<Vec<_>>())?;
        Ok(sides)
    }

    /// The coordinate on an axis of `side` that corresponds to place `at` of `size`.
    fn source(&self, at: usize, side: usize, size: usize, scale: f64) -> f64 {
        let at = at as f64;
        match self.coordinates {
            Coordinates::PytorchHalfPixel if size <= 1 => 0.0,
            Coordinates::HalfPixel | Coordinates::PytorchHalfPixel => (at + 0.5) / scale - 0.5,
            Coordinates::AlignCorners if size <= 1 => 0.0,
            Coordinates::AlignCorners => at * (side as f64 - 1.0) / (size as f64 - 1.0),
            Coordinates::Asymmetric => at / scale,
        }
    }

    fn weights(&self, side: usize, size: usize, scale: f64) -> Weights {
        let clamp = |at: f64| at.clamp(0.0, side.saturating_sub(1) as f64) as usize;
        let each = |at: usize| {
            let from = self.source(at, side, size, scale);
            let (floor, rest) = (from.floor(), (from - from.floor()) as f32);
            match self.mode {
                Mode::Nearest => {
                    let near = match self.nearest {
                        Nearest::PreferFloor => (from - 0.5).ceil(),
                        Nearest::PreferCeil => (from + 0.5).floor(),
                        Nearest::Floor => floor,
                        Nearest::Ceil => from.ceil(),
                    };
                    vec![(clamp(near), 1.0)]
                }
                Mode::Linear => vec![(clamp(floor), 1.0 - rest), (clamp(floor + 1.0), rest)],
                Mode::Cubic => (-1..=2)
                    .map(|k| (clamp(floor + f64::from(k)), cubic(self.cubic, rest - k as f32)))
                    .collect(),
            }
        };
        (0..size).map(each).collect()
    }
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

impl Operator for Resize {
    fn forward(&self, inputs: &Inputs<'_>) -> Outcome<Vec<Value>> {
        let sides = self.sides(inputs)?;
        let mut x = plain(inputs.float(0)?);
        for (axis, (size, scale)) in sides.into_iter().enumerate() {
            let side = x.shape()[axis];
            if side == size {
                continue;
            }
            let mut shape = x.shape().to_vec();
            shape[axis] = size;
            elements(&shape)?;
            let mut y = zeros(&shape);
            for (to, sources) in self.weights(side, size, scale).into_iter().enumerate() {
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
        let sides = self.sides(&back.inputs)?;
        let mut g = plain(back.gradient()?);
        for (axis, (size, scale)) in sides.into_iter().enumerate().rev() {
            let side = shape[axis];
            if side == size {
                continue;
            }
            let mut wider = g.shape().to_vec();
            wider[axis] = side;
            elements(&wider)?;
            let mut dx = zeros(&wider);
            for (to, sources) in self.weights(side, size, scale).into_iter().enumerate() {
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
