//! A texture in the place of the published frost photographs, which are not part of this library.
//!
//! It has what was measured on 5,000 crops of the photographs at the published scale: mean colour,
//! how far the brightness of crops varies, how far that of pixels varies within a crop (about it),
//! and how much a pixel says of its neighbour. Shapes of ice it has none.

use super::{Draws, PlanarImage};

/// One channel of the photographs.
#[derive(Clone, Copy, Debug)]
struct Channel {
    mean: f64,
    /// Standard deviation of the means of crops.
    between: f64,
    /// Standard deviation within a crop.
    within: f64,
}

/// Red, green and blue.
const CHANNELS: [Channel; 3] = [
    Channel { mean: 0.566, between: 0.200, within: 0.091 },
    Channel { mean: 0.650, between: 0.140, within: 0.085 },
    Channel { mean: 0.697, between: 0.134, within: 0.086 },
];
/// Weight of each of a pixel's four neighbours against its own 1: neighbours then correlate to
/// 0.28, as in the photographs.
const NEIGHBOUR: f64 = 0.15;

/// A texture of `channels x height x width` values in [0, 1]. Its grains are pixels at 32x32, and
/// grow with the image.
pub(super) fn texture([channels, height, width]: [usize; 3], draws: &mut dyn Draws) -> PlanarImage {
    let mut out = PlanarImage::zeros([channels, height, width]);
    let grain = (out.scale().round() as usize).max(1);
    let [rows, columns] = [height.div_ceil(grain), width.div_ceil(grain)];
    let bright = draws.normal();
    let noise: Vec<f64> = (0..rows * columns).map(|_| draws.normal()).collect();
    // Around the edges, as on a torus.
    let at = |y: usize, x: usize| noise[y % rows * columns + x % columns];
    let length = (1.0 + 4.0 * NEIGHBOUR * NEIGHBOUR).sqrt();
    let grains: Vec<f64> = (0..noise.len())
        .map(|p| {
            let (y, x) = (p / columns, p % columns);
            let ring = at(y + 1, x) + at(y + rows - 1, x) + at(y, x + 1) + at(y, x + columns - 1);
            (at(y, x) + NEIGHBOUR * ring) / length
        })
        .collect();
    for (c, plane) in out.planes_mut().enumerate() {
        let Channel { mean, between, within } = CHANNELS[if channels == 3 { c } else { 1 }];
        for (p, v) in plane.iter_mut().enumerate() {
            let grain = grains[p / width / grain * columns + p % width / grain];
            *v = (mean + between * bright + within * grain).clamp(0.0, 1.0);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corruption::{Corruption, Seeded, Severity};

    #[test]
    fn the_texture_has_the_photographs_figures() {
        let (mut sum, mut squares, mut steps) = (0.0, 0.0, 0.0);
        let (crops, size) = (400, 32 * 32);
        for id in 0..crops {
            let mut draws = Seeded::new(0, Corruption::Frost, Severity::ALL[0], id);
            let green = texture([3, 32, 32], &mut draws).values[size..2 * size].to_vec();
            let mean = green.iter().sum::<f64>() / size as f64;
            sum += mean;
            squares += green.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / size as f64;
            let rises =
                green.chunks(32).flat_map(|row| row.windows(2)).map(|w| (w[1] - w[0]).powi(2));
            steps += rises.sum::<f64>() / (32 * 31) as f64;
        }
        let of = |sum: f64| sum / f64::from(crops);
        assert!((of(sum) - 0.650).abs() < 0.03, "{}", of(sum));
        assert!((of(squares).sqrt() - 0.085).abs() < 0.005, "{}", of(squares).sqrt());
        // 0.106 was measured as the root mean square between neighbours.
        assert!((of(steps).sqrt() - 0.106).abs() < 0.007, "{}", of(steps).sqrt());
    }
}
