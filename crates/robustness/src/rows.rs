//! Rows of pixels on the host: norms, balls, boxes, and removing the images that an attack has
//! finished.
//!
//! Every operation works on one image at a time, so that an image's result does not depend on its
//! batch.

use std::ops::{Deref, DerefMut};

use rayon::prelude::*;

use crate::threat::{Norm, Threat};

/// Smallest denominator of a normalised vector.
const TINY: f64 = 1e-12;

/// Euclidean length.
pub fn l2(v: &[f32]) -> f64 {
    v.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt()
}

/// Length of `a - b` in `norm`.
pub fn distance(norm: Norm, a: &[f32], b: &[f32]) -> f64 {
    let differences = a.iter().zip(b).map(|(a, b)| f64::from(a - b));
    match norm {
        Norm::Linf => differences.fold(0.0, |most, d| most.max(d.abs())),
        Norm::L2 => differences.map(|d| d * d).sum::<f64>().sqrt(),
        Norm::L1 => differences.map(f64::abs).sum(),
    }
}

/// Brings `point` into the ball around `x` and into the box [0, 1]. A point that lies in both stays
/// as it is, to the bit.
pub fn project(threat: Threat, x: &[f32], point: &mut [f32]) {
    let epsilon = threat.epsilon;
    match threat.norm {
        Norm::Linf => {
            for (p, &x) in point.iter_mut().zip(x) {
                // `max` comes first, because it turns a NaN into a number.
                *p = p.max(x - epsilon).min(x + epsilon).clamp(0.0, 1.0);
            }
        }
        Norm::L2 => {
            for (p, &x) in point.iter_mut().zip(x).filter(|(p, _)| !p.is_finite()) {
                *p = x;
            }
            let most = f64::from(epsilon) * (1.0 + 1e-6);
            // In a small ball the rounding of the pixels can leave a scaled point outside by more
            // than that. The point is then aimed further inside, and in the end at the centre.
            let mut shrink = 0.0;
            loop {
                let length = distance(Norm::L2, point, x);
                if length <= most {
                    break;
                }
                let scale = (f64::from(epsilon) * f64::max(1.0 - shrink, 0.0) / length) as f32;
                for (p, &x) in point.iter_mut().zip(x) {
                    *p = x + (*p - x) * scale;
                }
                shrink = f64::max(2.0 * shrink, 1e-6);
            }
            point.iter_mut().for_each(|p| *p = p.clamp(0.0, 1.0));
        }
        Norm::L1 => project_l1(f64::from(epsilon), x, point),
    }
}

/// The point of the l1 ball of radius `epsilon` around `x`, within [0, 1], that is nearest to
/// `point` in l2: with delta = point - x, each value moves to `clamp(sign(delta) max(|delta| - t,
/// 0), -x, 1 - x)`, t >= 0 as small as the ball allows (Croce and Hein 2021, arXiv 2103.01208,
/// proposition 2.1).
fn project_l1(epsilon: f64, x: &[f32], point: &mut [f32]) {
    for (p, &x) in point.iter_mut().zip(x).filter(|(p, _)| !p.is_finite()) {
        *p = x;
    }
    let most = epsilon * (1.0 + 1e-6);
    let inside = |p: &f32| (0.0..=1.0).contains(p);
    if distance(Norm::L1, point, x) <= most && point.iter().all(inside) {
        return;
    }
    let changes: Vec<Change> = point.iter().zip(x).map(|(&p, &x)| Change::of(p, x)).collect();
    // Rounding of the pixels can leave the point outside: it is aimed further inside then, and at
    // the centre in the end.
    let mut shrink = 0.0;
    loop {
        let threshold = threshold_l1(epsilon * f64::max(1.0 - shrink, 0.0), &changes);
        for ((p, &x), change) in point.iter_mut().zip(x).zip(&changes) {
            let way = change.beyond(threshold);
            let moved = f64::from(x) + way.copysign(change.delta);
            *p = if way > 0.0 { moved.clamp(0.0, 1.0) as f32 } else { x };
        }
        if distance(Norm::L1, point, x) <= most || shrink >= 1.0 {
            break;
        }
        shrink = f64::max(2.0 * shrink, 1e-6);
    }
}

/// The change of a value, and how far the box lets it go that way.
#[derive(Clone, Copy, Debug)]
struct Change {
    delta: f64,
    most: f64,
}

impl Change {
    fn of(p: f32, x: f32) -> Self {
        let (delta, x) = (f64::from(p) - f64::from(x), f64::from(x));
        Self { delta, most: if delta > 0.0 { 1.0 - x } else { x }.max(0.0) }
    }

    /// What is left of its length beyond `t`, within the box.
    fn beyond(&self, t: f64) -> f64 {
        (self.delta.abs() - t).clamp(0.0, self.most)
    }
}

/// The smallest t >= 0 beyond which `changes` leave a sum of at most `epsilon`. The sum is piecewise
/// linear in t: its slope changes where a change leaves the box's edge and where it vanishes.
fn threshold_l1(epsilon: f64, changes: &[Change]) -> f64 {
    let sum = |t: f64| changes.iter().map(|change| change.beyond(t)).sum::<f64>();
    if sum(0.0) <= epsilon {
        return 0.0;
    }
    let kinks = changes.iter().flat_map(|c| [c.delta.abs() - c.most, c.delta.abs()]);
    let mut kinks: Vec<f64> = kinks.filter(|t| *t > 0.0).collect();
    kinks.sort_by(f64::total_cmp);
    // The last kink that leaves too much, and the one behind it.
    let low = kinks.partition_point(|&t| sum(t) > epsilon);
    let before = low.checked_sub(1).map_or(0.0, |k| kinks[k]);
    let behind = kinks.get(low).copied().unwrap_or(before);
    let (above, below) = (sum(before), sum(behind));
    before + (above - epsilon) * (behind - before) / (above - below).max(f64::MIN_POSITIVE)
}

/// Rounds the values of `point`, which lies in the ball around `x`, to multiples of 1/255 within
/// the ball. A value for which the ball holds no multiple becomes the value of `x`.
pub fn round_to_eight_bits(threat: Threat, x: &[f32], point: &mut [f32]) {
    const LEVELS: f64 = 255.0;
    let epsilon = f64::from(threat.epsilon) * (1.0 + 1e-6);
    let towards_x = |p: f64, x: f64| {
        let level = p * LEVELS;
        (if p > x { (level + 1e-4).floor() } else { (level - 1e-4).ceil() }) / LEVELS
    };
    let nearest: Vec<f32> = point
        .iter()
        .zip(x)
        .map(|(&p, &x)| {
            let (p, x) = (f64::from(p), f64::from(x));
            let rounded = (p * LEVELS).round() / LEVELS;
            let value = match threat.norm {
                Norm::Linf if (rounded - x).abs() > epsilon => towards_x(p, x),
                _ => rounded,
            };
            // Where x lies between two levels, rounding towards x can go past it.
            let outside = threat.norm == Norm::Linf && (value - x).abs() > epsilon;
            (if outside { x } else { value }) as f32
        })
        .collect();
    if threat.norm != Norm::Linf && distance(threat.norm, &nearest, x) > epsilon {
        for (p, &x) in point.iter_mut().zip(x) {
            let (value, x) = (towards_x(f64::from(*p), f64::from(x)), f64::from(x));
            // The rounded value must not be further from x than the value before.
            let further = (value - x).abs() > (f64::from(*p) - x).abs() + 1e-6;
            *p = (if further { x } else { value }) as f32;
        }
    } else {
        point.copy_from_slice(&nearest);
    }
}

/// Moves `point` by `step` along the direction of steepest ascent of a loss with gradient `grad`:
/// its sign (l-inf), itself over its length (l2), or the sign of its largest value (l1).
pub fn ascend(norm: Norm, point: &mut [f32], grad: &[f32], step: f32) {
    match norm {
        Norm::Linf => {
            for (p, g) in point.iter_mut().zip(grad) {
                // `signum` of 0 is 1, but a gradient of 0 must not move the point.
                *p += if *g > 0.0 {
                    step
                } else if *g < 0.0 {
                    -step
                } else {
                    0.0
                };
            }
        }
        Norm::L2 => {
            let scale = normaliser(grad) * f64::from(step);
            for (p, g) in point.iter_mut().zip(grad) {
                *p += (f64::from(*g) * scale) as f32;
            }
        }
        Norm::L1 => {
            let steepest = grad.iter().zip(point).max_by(|a, b| a.0.abs().total_cmp(&b.0.abs()));
            if let Some((g, p)) = steepest.filter(|(g, _)| **g != 0.0) {
                *p += step.copysign(*g);
            }
        }
    }
}

/// The factor that gives a vector the length 1; a vector of zeros stays zero.
pub fn normaliser(v: &[f32]) -> f64 {
    l2(v).max(f64::from(f32::MIN_POSITIVE) * TINY).recip().min(1e300)
}

/// Scales `direction` so that its length in `norm` is `radius`.
pub fn scale_to(norm: Norm, direction: &mut [f32], radius: f32) {
    let length = match norm {
        Norm::Linf => f64::from(direction.iter().fold(0f32, |most, v| most.max(v.abs()))),
        Norm::L2 => l2(direction),
        Norm::L1 => direction.iter().map(|v| f64::from(v.abs())).sum(),
    };
    let scale = f64::from(radius) / length.max(TINY);
    direction.iter_mut().for_each(|v| *v = (f64::from(*v) * scale) as f32);
}

/// Rows of values of one width: the pixels of images, or their logits. As a slice, the rows follow
/// one another.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rows {
    data: Vec<f32>,
    width: usize,
}

impl Rows {
    /// `data` cut into rows of `width` values.
    pub fn new(data: Vec<f32>, width: usize) -> Self {
        Self { data, width: width.max(1) }
    }

    /// `n` rows of zeros.
    pub fn zeros(n: usize, width: usize) -> Self {
        Self::new(vec![0.0; n * width], width)
    }

    /// Number of values of a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Number of rows.
    pub fn count(&self) -> usize {
        self.data.len() / self.width.max(1)
    }

    /// Row `i`.
    pub fn row(&self, i: usize) -> &[f32] {
        &self.data[i * self.width..(i + 1) * self.width]
    }

    /// Row `i`, mutable.
    pub fn row_mut(&mut self, i: usize) -> &mut [f32] {
        &mut self.data[i * self.width..(i + 1) * self.width]
    }

    /// The rows, one after another.
    pub fn each(&self) -> impl ExactSizeIterator<Item = &[f32]> {
        self.data.chunks_exact(self.width.max(1))
    }

    /// The rows at `indices`, copied.
    #[must_use]
    pub fn select(&self, indices: &[usize]) -> Self {
        let data = indices.iter().flat_map(|&i| self.row(i)).copied().collect();
        Self::new(data, self.width)
    }

    /// Removes the rows for which `keep` is false, in place.
    pub fn retain(&mut self, keep: &[bool]) {
        if keep.iter().all(|keep| *keep) {
            return;
        }
        let mut kept = 0;
        for (i, _) in keep.iter().enumerate().filter(|(_, keep)| **keep) {
            self.data.copy_within(i * self.width..(i + 1) * self.width, kept * self.width);
            kept += 1;
        }
        self.data.truncate(kept * self.width);
    }

    /// Runs `work` on every row and its number, in parallel.
    pub fn for_each(&mut self, work: impl Fn(usize, &mut [f32]) + Sync) {
        self.data.par_chunks_mut(self.width.max(1)).enumerate().for_each(|(i, row)| work(i, row));
    }

    /// Does what [`for_each`](Self::for_each) does, and returns the results of `work` in the order
    /// of the rows.
    pub fn map<R: Send>(&mut self, work: impl Fn(usize, &mut [f32]) -> R + Sync) -> Vec<R> {
        let rows = self.data.par_chunks_mut(self.width.max(1)).enumerate();
        rows.map(|(i, row)| work(i, row)).collect()
    }

    /// Copies `other` into this value's memory.
    pub fn copy_from(&mut self, other: &Self) {
        self.data.clear();
        self.data.extend_from_slice(&other.data);
        self.width = other.width;
    }

    /// All values, row by row.
    pub fn into_values(self) -> Vec<f32> {
        self.data
    }
}

impl Deref for Rows {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.data
    }
}

impl DerefMut for Rows {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.data
    }
}

/// Row `i` of a slice of rows of `width` values.
pub fn row<T>(rows: &[T], width: usize, i: usize) -> &[T] {
    &rows[i * width..(i + 1) * width]
}

/// Runs `work` on the rows of a slice, each of `width` values, and on the rows' numbers, in
/// parallel.
pub fn for_each(rows: &mut [f32], width: usize, work: impl Fn(usize, &mut [f32]) + Sync) {
    rows.par_chunks_mut(width.max(1)).enumerate().for_each(|(i, row)| work(i, row));
}

/// The values at `indices`, copied.
pub(crate) fn pick<T: Copy>(values: &[T], indices: &[usize]) -> Vec<T> {
    indices.iter().map(|&i| values[i]).collect()
}

/// Removes the values for which `stays` is false, in place.
pub(crate) fn keep<T>(values: &mut Vec<T>, stays: &[bool]) {
    let mut stays = stays.iter();
    values.retain(|_| stays.next().is_none_or(|stays| *stays));
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn norms() -> impl Strategy<Value = Norm> {
        prop_oneof![Just(Norm::Linf), Just(Norm::L2), Just(Norm::L1)]
    }

    #[test]
    fn rows_are_left_out_in_place() {
        let mut rows = Rows::new(vec![0.0, 1.0, 2.0, 3.0, 4.0, 5.0], 2);
        rows.retain(&[true, false, true]);
        assert_eq!((rows.count(), &*rows), (2, &[0.0, 1.0, 4.0, 5.0][..]));
        assert_eq!(*rows.select(&[1, 1, 0]), [4.0, 5.0, 4.0, 5.0, 0.0, 1.0]);
        let mut values = vec!['a', 'b', 'c'];
        keep(&mut values, &[false, true, true]);
        assert_eq!((pick(&values, &[1, 1]), values), (vec!['c', 'c'], vec!['b', 'c']));
    }

    #[test]
    fn a_zero_gradient_moves_nothing_and_a_tiny_one_a_whole_step() {
        for norm in [Norm::Linf, Norm::L2, Norm::L1] {
            let mut point = [0.5f32; 4];
            ascend(norm, &mut point, &[0.0; 4], 0.1);
            assert_eq!(point, [0.5; 4]);
            ascend(norm, &mut point, &[0.0, 1e-30, 0.0, 0.0], 0.1);
            assert!((point[1] - 0.6).abs() < 1e-6 && point[0] == 0.5, "{norm}: {point:?}");
        }
    }

    #[test]
    fn a_point_projected_on_a_small_ball_stays() {
        // Rounding leaves the scaled point outside by 7e-6 of the radius.
        let x = [0.005_976_14, 0.646_167_8, 0.0, 0.938_676_36, 0.729_391_34, 0.389_942_88, 0.0];
        let mut point =
            [-1.429_712_2, 2.560_569_5, 0.0, -1.793_787_5, 2.168_038_4, -1.160_671_5, 1.673_565];
        let threat = Threat { norm: Norm::L2, epsilon: 0.004_219_608 };
        project(threat, &x, &mut point);
        let before = point;
        project(threat, &x, &mut point);
        assert_eq!(before, point);
        // A radius below the spacing of the pixels' values, and a radius of zero.
        for epsilon in [1e-9, 0.0] {
            let mut point = [1.0; 7];
            project(Threat { norm: Norm::L2, epsilon }, &x, &mut point);
            assert!(distance(Norm::L2, &point, &x) <= f64::from(epsilon) * (1.0 + 1e-6));
        }
    }

    #[test]
    fn l1_projections_by_hand() {
        let project = |epsilon, x: &[f32], point: &[f32]| {
            let mut point = point.to_vec();
            super::project(Threat { norm: Norm::L1, epsilon }, x, &mut point);
            point
        };
        // Changes of 0.4, -0.02 and 0.1 lose 0.05 each; the small one vanishes.
        let found = project(0.4, &[0.5, 0.5, 0.5], &[0.9, 0.48, 0.6]);
        let near = |a: f32, b: f32| (a - b).abs() < 1e-6;
        assert!(near(found[0], 0.85) && found[1] == 0.5 && near(found[2], 0.55), "{found:?}");
        // The box cuts the first change to 0.1, so that the second keeps 0.2 of its 0.25.
        let found = project(0.3, &[0.9, 0.5], &[2.0, 0.25]);
        assert!((found[0] - 1.0).abs() < 1e-6 && (found[1] - 0.3).abs() < 1e-6, "{found:?}");
        // Inside of both it stays, and a radius of zero leaves the image.
        assert_eq!(project(0.3, &[0.9, 0.5], &[1.0, 0.4]), [1.0, 0.4]);
        assert_eq!(project(0.0, &[0.9, 0.5], &[1.0, 0.4]), [0.9, 0.5]);
        assert_eq!(project(0.3, &[0.9, 0.5], &[f32::NAN, 0.4]), [0.9, 0.4]);
    }

    proptest! {
        #[test]
        fn rounded_points_are_of_eight_bits_and_in_the_ball(
            pairs in proptest::collection::vec((0u8..=255, -1f32..2.0), 1..40), epsilon in 0f32..0.5, norm in norms()
        ) {
            let threat = Threat { norm, epsilon };
            let x: Vec<f32> = pairs.iter().map(|(level, _)| f32::from(*level) / 255.0).collect();
            let mut point: Vec<f32> = pairs.into_iter().map(|(_, value)| value).collect();
            project(threat, &x, &mut point);
            round_to_eight_bits(threat, &x, &mut point);
            let off = |p: &f32| (f64::from(*p) * 255.0 - (f64::from(*p) * 255.0).round()).abs();
            prop_assert!(point.iter().all(|p| (0.0..=1.0).contains(p) && off(p) < 1e-4));
            prop_assert!(distance(threat.norm, &point, &x) <= f64::from(epsilon) * (1.0 + 1e-5) + 1e-7);
        }

        #[test]
        fn projected_points_lie_in_ball_and_box_and_stay(
            pairs in proptest::collection::vec((0f32..=1.0, -2f32..3.0), 1..40), epsilon in 0f32..1.0, norm in norms()
        ) {
            let threat = Threat { norm, epsilon };
            let (x, mut point): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
            project(threat, &x, &mut point);
            prop_assert!(point.iter().all(|p| (0.0..=1.0).contains(p)));
            prop_assert!(distance(threat.norm, &point, &x) <= f64::from(epsilon) * (1.0 + 1e-6) + 1e-7);
            let before = point.clone();
            project(threat, &x, &mut point);
            prop_assert_eq!(before, point);
        }
    }
}
