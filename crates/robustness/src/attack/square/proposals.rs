//! The changes that Square Attack proposes (Andriushchenko et al. 2020, arXiv 1912.00049,
//! algorithms 2 and 3).

use crate::{
    classifier::Shape,
    rows,
    threat::{Norm, Threat},
};

/// Share of the image that the first squares cover.
const P_INIT: f64 = 0.8;

/// Makes the proposals of one query.
#[derive(Debug)]
pub(super) struct Proposer {
    threat: Threat,
    shape: Shape,
    first: bool,
    /// Sides of the window, cut to the image.
    window: [usize; 2],
    /// The pattern of a window in l2 or l1, and its transpose.
    pattern: [Vec<f32>; 2],
    /// Side of the tiles of a start in l2 or l1.
    tile: usize,
}

impl Proposer {
    pub fn new(threat: Threat, shape: Shape, query: usize) -> Self {
        let Shape { height, width, .. } = shape;
        let first = query == 0;
        let smallest = height.min(width);
        let tile = (smallest / 5).max(1);
        let side = ((share(query.saturating_sub(1)) * (height * width) as f64).sqrt().round()
            as usize)
            .max(1);
        let (window, pattern) = match (threat.norm, first) {
            (Norm::Linf, _) => ([side.min(height), side.min(width)], [Vec::new(), Vec::new()]),
            (norm, true) => ([tile; 2], patterns(norm, tile)),
            (norm, false) => {
                let side = (side.max(3) | 1).min(smallest);
                ([side; 2], patterns(norm, side))
            }
        };
        Self { threat, shape, first, window, pattern, tile }
    }

    /// Whether a proposal changes only a small part of the image.
    pub fn is_small(&self) -> bool {
        let Shape { height, width, .. } = self.shape;
        self.threat.norm == Norm::Linf
            && !self.first
            && 3 * self.window[0] <= height
            && 3 * self.window[1] <= width
    }

    /// Number of values in [0, 1) that the proposal for one image takes.
    pub fn draws(&self) -> usize {
        let Shape { channels, height, width, .. } = self.shape;
        match (self.threat.norm, self.first) {
            (Norm::Linf, true) => channels * width,
            (Norm::Linf, false) => 2 + channels,
            (_, true) => (height / self.tile) * (width / self.tile) * (1 + channels),
            (_, false) => 5 + channels,
        }
    }

    /// Changes `z`, the best point so far, into the proposal for the image `x`.
    pub fn propose(&self, x: &[f32], z: &mut [f32], draws: &[f32]) {
        match (self.threat.norm, self.first) {
            (Norm::Linf, true) => self.stripes(x, z, draws),
            (Norm::Linf, false) => self.square(x, z, draws),
            (_, true) => self.tiles(x, z, draws),
            (_, false) => self.move_mass(x, z, draws),
        }
    }

    /// The start in l-inf: vertical stripes of +-epsilon.
    fn stripes(&self, x: &[f32], z: &mut [f32], draws: &[f32]) {
        let Shape { height, width, .. } = self.shape;
        for (p, (z, x)) in z.iter_mut().zip(x).enumerate() {
            let stripe = p / (height * width) * width + p % width;
            *z = (x + sign(draws[stripe]) * self.threat.epsilon).clamp(0.0, 1.0);
        }
    }

    /// A square of +-epsilon, the sign drawn for each channel.
    fn square(&self, x: &[f32], z: &mut [f32], draws: &[f32]) {
        let corner = self.corner(draws[0], draws[1]);
        for c in 0..self.shape.channels {
            let change = sign(draws[2 + c]) * self.threat.epsilon;
            for p in self.pixels(c, corner) {
                z[p] = (x[p] + change).clamp(0.0, 1.0);
            }
        }
    }

    /// The start in l2 and l1: tiles of the pattern, the signs drawn for each tile and channel.
    fn tiles(&self, x: &[f32], z: &mut [f32], draws: &[f32]) {
        let Shape { channels, height, width, .. } = self.shape;
        let [rows, columns] = [height / self.tile, width / self.tile];
        let [top, left] = [(height - rows * self.tile) / 2, (width - columns * self.tile) / 2];
        let mut delta = vec![0.0; z.len()];
        for (n, draws) in draws.chunks(1 + channels).enumerate() {
            let corner = [top + n / columns * self.tile, left + n % columns * self.tile];
            let pattern = &self.pattern[usize::from(draws[0] > 0.5)];
            for c in 0..channels {
                for (p, v) in self.pixels(c, corner).zip(pattern) {
                    delta[p] = v * sign(draws[1 + c]);
                }
            }
        }
        self.place(x, z, delta);
    }

    /// Moves the change from one window to another, reshaped by the pattern, together with the
    /// change that the ball still allows. Mass is what adds up: squares in l2, absolute values in l1.
    fn move_mass(&self, x: &[f32], z: &mut [f32], draws: &[f32]) {
        let channels = self.shape.channels;
        let l1 = self.threat.norm == Norm::L1;
        let mass = |v: f64| if l1 { v.abs() } else { v * v };
        let length = |mass: f64| if l1 { mass } else { mass.sqrt() };
        // In l1 the public code fills a window with as much for each channel.
        let times = if l1 { channels as f64 } else { 1.0 };
        let [to, from] = [self.corner(draws[0], draws[1]), self.corner(draws[2], draws[3])];
        let pattern = &self.pattern[usize::from(draws[4] > 0.5)];
        let mut delta: Vec<f32> = z.iter().zip(x).map(|(z, x)| z - x).collect();
        let held: f64 = delta.iter().map(|&v| mass(f64::from(v))).sum();
        let left = (mass(f64::from(self.threat.epsilon)) - held).max(0.0) / channels as f64;
        for c in 0..channels {
            let in_to: f64 = self.pixels(c, to).map(|p| mass(f64::from(delta[p]))).sum();
            let bump: Vec<f64> = self
                .pixels(c, to)
                .zip(pattern)
                .map(|(p, v)| {
                    f64::from(v * sign(draws[5 + c]))
                        + f64::from(delta[p]) / (1e-12 + length(in_to))
                })
                .collect();
            let in_bump: f64 = length(bump.iter().map(|&v| mass(v)).sum());
            // The first window is emptied first, so that a value in both windows counts once.
            let mut freed = in_to;
            let target: Vec<usize> = self.pixels(c, to).collect();
            target.iter().for_each(|&p| delta[p] = 0.0);
            for p in self.pixels(c, from) {
                freed += mass(f64::from(delta[p]));
                delta[p] = 0.0;
            }
            let scale = times * length(left + freed) / (1e-12 + in_bump);
            for (&p, v) in target.iter().zip(&bump) {
                delta[p] = (v * scale) as f32;
            }
        }
        self.place(x, z, delta);
    }

    /// `x + delta`, in l2 with delta scaled to length epsilon, in ball and box.
    fn place(&self, x: &[f32], z: &mut [f32], mut delta: Vec<f32>) {
        if self.threat.norm == Norm::L2 {
            rows::scale_to(Norm::L2, &mut delta, self.threat.epsilon);
        }
        for ((z, x), d) in z.iter_mut().zip(x).zip(delta) {
            *z = x + d;
        }
        rows::project(self.threat, x, z);
    }

    /// Upper left corner of a window, uniform over the places it fits in.
    fn corner(&self, row: f32, column: f32) -> [usize; 2] {
        let place = |u: f32, size: usize, window: usize| {
            ((f64::from(u) * (size - window + 1) as f64) as usize).min(size - window)
        };
        [
            place(row, self.shape.height, self.window[0]),
            place(column, self.shape.width, self.window[1]),
        ]
    }

    /// Positions of a window's values in channel `c`, row by row.
    fn pixels(&self, c: usize, [top, left]: [usize; 2]) -> impl Iterator<Item = usize> {
        let Shape { height, width, .. } = self.shape;
        let [rows, columns] = self.window;
        (top..top + rows)
            .flat_map(move |r| (left..left + columns).map(move |q| (c * height + r) * width + q))
    }
}

/// Share of the image that query number `query` changes: halved after 10, 50, 200, 500, 1000, 2000,
/// 4000, 6000 and 8000 queries.
fn share(query: usize) -> f64 {
    let halvings = [10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000]
        .iter()
        .filter(|&&after| query > after)
        .count();
    P_INIT / f64::from(1u32 << halvings)
}

fn sign(u: f32) -> f32 {
    if u < 0.5 { -1.0 } else { 1.0 }
}

/// The paper's pattern of an s x s window, of length 1 in `norm`, and its transpose: two bumps of
/// opposite sign, one above the other.
fn patterns(norm: Norm, s: usize) -> [Vec<f32>; 2] {
    let mut upright = vec![0.0; s * s];
    let (above, below) = (bump(norm, s / 2, s), bump(norm, s - s / 2, s));
    upright[..above.len()].copy_from_slice(&above);
    upright[above.len()..].iter_mut().zip(below).for_each(|(v, b)| *v = -b);
    rows::scale_to(norm, &mut upright, 1.0);
    let across = (0..s * s).map(|p| upright[p % s * s + p / s]).collect();
    [upright, across]
}

/// A bump of length 1: nested rectangles about the middle, number n adding 1 / n^2, in l1 1 / n^4.
fn bump(norm: Norm, height: usize, width: usize) -> Vec<f32> {
    let power = if norm == Norm::L1 { -4 } else { -2 };
    let mut out = vec![0.0; height * width];
    let [middle_row, middle_column] = [height / 2, width / 2];
    for n in 0..=middle_row.max(middle_column) {
        let weight = ((n + 1) as f32).powi(power);
        for r in middle_row.saturating_sub(n)..(middle_row + n + 1).min(height) {
            for c in middle_column.saturating_sub(n)..(middle_column + n + 1).min(width) {
                out[r * width + c] += weight;
            }
        }
    }
    rows::scale_to(norm, &mut out, 1.0);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn squares_shrink_by_the_papers_schedule() {
        for (query, divisor) in [
            (0, 1.0),
            (10, 1.0),
            (11, 2.0),
            (50, 2.0),
            (51, 4.0),
            (500, 8.0),
            (1001, 32.0),
            (4999, 128.0),
            (8001, 512.0),
        ] {
            assert_eq!(share(query), P_INIT / divisor, "{query}");
        }
    }

    #[test]
    fn patterns_have_length_one_and_are_each_others_transposes() {
        for (norm, s) in (1..12).flat_map(|s| [(Norm::L2, s), (Norm::L1, s)]) {
            let [a, b] = patterns(norm, s);
            let length = rows::distance(norm, &a, &vec![0.0; s * s]);
            assert!((length - 1.0).abs() < 1e-5, "{norm} {s}");
            assert!((0..s * s).all(|p| a[p] == b[p % s * s + p / s]));
        }
        // s = 3 by hand: one row above, two below.
        let [a, _] = patterns(Norm::L2, 3);
        assert!(a[0] > 0.0 && a[1] > a[0] && a[3] < 0.0 && (a[0] - a[2]).abs() < 1e-6);
    }

    #[test]
    fn proposals_stay_in_ball_and_box_for_any_shape() {
        for (norm, epsilon) in [(Norm::Linf, 0.1), (Norm::L2, 0.7), (Norm::L1, 2.0)] {
            for (channels, height, width) in [(1, 1, 1), (3, 2, 5), (1, 7, 4), (3, 16, 16)] {
                let shape = Shape { channels, height, width, classes: 3 };
                let threat = Threat { norm, epsilon };
                let n = channels * height * width;
                let x: Vec<f32> = (0..n).map(|p| (p as f32 * 0.37).fract()).collect();
                let mut z = x.clone();
                for query in [0, 1, 20, 300, 4000] {
                    let proposer = Proposer::new(threat, shape, query);
                    for k in 0..20 {
                        let draws: Vec<f32> = (0..proposer.draws())
                            .map(|d| ((d * 13 + k * 7 + query) as f32 * 0.618).fract())
                            .collect();
                        proposer.propose(&x, &mut z, &draws);
                        assert!(z.iter().all(|v| (0.0..=1.0).contains(v)));
                        assert!(
                            rows::distance(norm, &x, &z) <= f64::from(epsilon) * (1.0 + 1e-6),
                            "{norm} {shape:?} {query}"
                        );
                    }
                }
            }
        }
    }
}
