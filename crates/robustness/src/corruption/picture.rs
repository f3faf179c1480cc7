//! Images as corruptions work on them, and the filters that several of them need.

use crate::classifier::Shape;

/// Values of eight bits.
const LEVELS: f64 = 255.0;
/// Levels by which rounding errors move a value at most: less than any value of interest is above a
/// level.
const ROUNDING: f64 = 1e-4;
/// Side that the constants of CIFAR-10-C are meant for.
const SIDE: f64 = 32.0;

/// An image: `channels x height x width` values in [0, 1].
#[derive(Clone, Debug, PartialEq)]
pub struct PlanarImage {
    /// Channels.
    pub channels: usize,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// Channel by channel, row by row.
    pub values: Vec<f64>,
}

/// What lies beyond the edge of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Border {
    /// The nearest value: `a a | a b c | c c`.
    Nearest,
    /// The image mirrored at its edge: `b a | a b c | c b`.
    Symmetric,
    /// The image mirrored at its outermost values: `c b | a b c | b a`.
    Mirror,
}

impl Border {
    /// Where the value of position `i` is found in `n` values.
    pub fn find(self, i: isize, n: usize) -> usize {
        let n = n as isize;
        let i = match self {
            Self::Nearest => i.clamp(0, n - 1),
            Self::Symmetric => {
                let i = i.rem_euclid(2 * n);
                i.min(2 * n - 1 - i)
            }
            Self::Mirror if n == 1 => 0,
            Self::Mirror => {
                let i = i.rem_euclid(2 * n - 2);
                i.min(2 * n - 2 - i)
            }
        };
        i as usize
    }
}

impl PlanarImage {
    /// The image of `shape` with the pixels `row`, rounded to eight bits a value.
    pub fn from_row(shape: Shape, row: &[f32]) -> Self {
        let Shape { channels, height, width, .. } = shape;
        let level = |v: &f32| (f64::from(*v) * LEVELS).round().clamp(0.0, LEVELS) / LEVELS;
        Self { channels, height, width, values: row.iter().map(level).collect() }
    }

    /// A picture of zeros.
    pub fn zeros([channels, height, width]: [usize; 3]) -> Self {
        Self { channels, height, width, values: vec![0.0; channels * height * width] }
    }

    /// The pixels as a row.
    pub fn to_row(&self) -> Vec<f32> {
        self.values.iter().map(|&v| v as f32).collect()
    }

    /// What lengths in pixels are multiplied with: 1 at 32x32.
    pub(super) fn scale(&self) -> f64 {
        self.height.min(self.width) as f64 / SIDE
    }

    pub(super) fn planes(&self) -> impl Iterator<Item = &[f64]> {
        self.values.chunks(self.height * self.width)
    }

    pub(super) fn planes_mut(&mut self) -> impl Iterator<Item = &mut [f64]> {
        self.values.chunks_mut(self.height * self.width)
    }

    /// Eight bits a value, rounded down, in [0, 1]. What is a level up to rounding errors is that
    /// level.
    pub(super) fn truncate(&mut self) {
        self.each(|v| (v.clamp(0.0, 1.0) * LEVELS + ROUNDING).floor() / LEVELS);
    }

    /// Eight bits a value, rounded to the nearest, halves up, in [0, 1].
    pub(super) fn round(&mut self) {
        self.each(|v| round(v.clamp(0.0, 1.0) * LEVELS) / LEVELS);
    }

    pub(super) fn each(&mut self, change: impl Fn(f64) -> f64) {
        self.values.iter_mut().for_each(|v| *v = change(*v));
    }

    /// Luma (ITU-R BT.601) of three channels; the mean of others.
    pub(super) fn grey(&self) -> Vec<f64> {
        let weights = match self.channels {
            3 => vec![0.299, 0.587, 0.114],
            n => vec![1.0 / n as f64; n],
        };
        let mut grey = vec![0.0; self.height * self.width];
        for (plane, weight) in self.planes().zip(weights) {
            grey.iter_mut().zip(plane).for_each(|(sum, v)| *sum += weight * v);
        }
        grey
    }

    /// Convolves each channel with a normal distribution of standard deviation `sigma`, cut off at
    /// `reach` of them.
    pub(super) fn gaussian(&mut self, sigma: f64, reach: f64, border: Border) {
        let [height, width] = [self.height, self.width];
        self.planes_mut().for_each(|plane| gaussian(plane, [height, width], sigma, reach, border));
    }

    /// The middle of the image, `factor` times as large, in the size of the image. As SciPy's `zoom`
    /// of order 1: the corners of the part that is shown stay in the corners.
    pub(super) fn zoomed(&self, factor: f64) -> Self {
        let axes = [self.height, self.width].map(|n| zoom_axis(n, factor));
        let mut out = Self { values: Vec::with_capacity(self.values.len()), ..*self };
        for plane in self.planes() {
            for y in &axes[0] {
                for x in &axes[1] {
                    let along = |row: usize| {
                        let row = &plane[row * self.width..];
                        row[x.low] * (1.0 - x.share) + row[x.high] * x.share
                    };
                    out.values.push(along(y.low) * (1.0 - y.share) + along(y.high) * y.share);
                }
            }
        }
        out
    }
}

/// The nearest whole number, halves up, also where rounding errors left a half a little short.
pub(super) fn round(v: f64) -> f64 {
    (v + 0.5 + 1e-9).floor()
}

/// A place between two values: `share` of the way from `low` to `high`.
#[derive(Clone, Copy, Debug)]
struct Between {
    low: usize,
    high: usize,
    share: f64,
}

/// For each of `n` positions of the enlarged middle, the place that it shows.
fn zoom_axis(n: usize, factor: f64) -> Vec<Between> {
    let shown = ((n as f64 / factor).ceil() as usize).clamp(1, n);
    let first = (n - shown) / 2;
    let enlarged = ((shown as f64 * factor).round_ties_even() as usize).max(n);
    let trimmed = (enlarged - n) / 2;
    let step = if enlarged > 1 { (shown - 1) as f64 / (enlarged - 1) as f64 } else { 0.0 };
    (0..n)
        .map(|i| {
            let place = ((i + trimmed) as f64 * step).min((shown - 1) as f64);
            let low = place.floor() as usize;
            let high = (low + 1).min(shown - 1);
            Between { low: first + low, high: first + high, share: place - low as f64 }
        })
        .collect()
}

/// Convolves `plane` with a normal distribution of standard deviation `sigma`, cut off at `reach` of
/// them, first along columns, then along rows.
pub(super) fn gaussian(
    plane: &mut [f64],
    [height, width]: [usize; 2],
    sigma: f64,
    reach: f64,
    border: Border,
) {
    let radius = (reach * sigma + 0.5) as isize;
    if radius == 0 {
        return;
    }
    let weights = normal_weights(radius, sigma);
    for (lines, length, stride, next) in [(width, height, width, 1), (height, width, 1, width)] {
        let mut line = vec![0.0; length];
        for k in 0..lines {
            let at = |i: usize| k * next + i * stride;
            line.iter_mut().enumerate().for_each(|(i, v)| *v = plane[at(i)]);
            for i in 0..length {
                let taps = (-radius..=radius).zip(&weights);
                plane[at(i)] =
                    taps.map(|(d, w)| w * line[border.find(i as isize + d, length)]).sum();
            }
        }
    }
}

/// Weights of a normal distribution at -radius..=radius, of sum 1.
pub(super) fn normal_weights(radius: isize, sigma: f64) -> Vec<f64> {
    let weight = |d: isize| (-0.5 * (d as f64 / sigma).powi(2)).exp();
    let weights: Vec<f64> = (-radius..=radius).map(weight).collect();
    let sum: f64 = weights.iter().sum();
    weights.iter().map(|w| w / sum).collect()
}

/// Correlates `plane` with `kernel`, `side x side` values about its middle.
pub(super) fn correlate(
    plane: &mut [f64],
    [height, width]: [usize; 2],
    kernel: &[f64],
    side: usize,
    border: Border,
) {
    let middle = (side / 2) as isize;
    let taps: Vec<_> = kernel
        .iter()
        .enumerate()
        .filter(|(_, w)| **w != 0.0)
        .map(|(k, &w)| ((k / side) as isize - middle, (k % side) as isize - middle, w))
        .collect();
    let before = plane.to_vec();
    for (p, v) in plane.iter_mut().enumerate() {
        let (y, x) = ((p / width) as isize, (p % width) as isize);
        *v = taps
            .iter()
            .map(|&(dy, dx, w)| {
                w * before[border.find(y + dy, height) * width + border.find(x + dx, width)]
            })
            .sum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn borders_by_hand() {
        let of = |border: Border| (-4..7).map(|i| border.find(i, 3)).collect::<Vec<_>>();
        assert_eq!(of(Border::Nearest), [0, 0, 0, 0, 0, 1, 2, 2, 2, 2, 2]);
        assert_eq!(of(Border::Symmetric), [2, 2, 1, 0, 0, 1, 2, 2, 1, 0, 0]);
        assert_eq!(of(Border::Mirror), [0, 1, 2, 1, 0, 1, 2, 1, 0, 1, 2]);
        assert_eq!(Border::Mirror.find(-5, 1), 0);
    }

    #[test]
    fn filters_keep_a_constant_image() {
        let mut picture = PlanarImage { values: vec![0.25; 60], ..PlanarImage::zeros([3, 4, 5]) };
        picture.gaussian(1.3, 4.0, Border::Nearest);
        assert!(picture.zoomed(1.2).values.iter().all(|v| (v - 0.25).abs() < 1e-12));
    }
}
