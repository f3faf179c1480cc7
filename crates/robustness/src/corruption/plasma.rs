//! Random height maps by the diamond-square algorithm.

use super::Draws;

/// A map of `side x side` values from 0 to 1, `side` a power of two, whose roughness falls by
/// `decay` from one scale to the next. It wraps around at its edges.
pub(super) fn plasma(side: usize, decay: f64, draws: &mut dyn Draws) -> Vec<f64> {
    let mut map = vec![0.0; side * side];
    let (mut step, mut rough) = (side, 100.0);
    while step >= 2 {
        let half = step / 2;
        let at = |y: usize, x: usize| (y % side) * side + x % side;
        let mut around = |sum: f64| sum / 4.0 + rough * draws.between(-rough, rough);
        // Middles of the squares.
        for y in (0..side).step_by(step) {
            for x in (0..side).step_by(step) {
                let corners = [at(y, x), at(y + step, x), at(y, x + step), at(y + step, x + step)];
                map[at(y + half, x + half)] = around(corners.iter().map(|&p| map[p]).sum());
            }
        }
        // Middles of their upper edges, then of their left edges.
        for (across, down) in [(half, 0), (0, half)] {
            for y in (0..side).step_by(step) {
                for x in (0..side).step_by(step) {
                    let (y, x) = (y + down + side, x + across + side);
                    let ring = [at(y - half, x), at(y + half, x), at(y, x - half), at(y, x + half)];
                    map[at(y, x)] = around(ring.iter().map(|&p| map[p]).sum());
                }
            }
        }
        step = half;
        rough /= decay;
    }
    let (low, high) = map
        .iter()
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), &v| (low.min(v), high.max(v)));
    let range = (high - low).max(f64::MIN_POSITIVE);
    map.iter().map(|v| (v - low) / range).collect()
}
