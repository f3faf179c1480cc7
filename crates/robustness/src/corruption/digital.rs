//! Contrast, elastic transforms and pixelation.

use super::{
    Draws, PlanarImage, Severity,
    picture::{Border, gaussian},
};

/// Brings each channel nearer to its mean.
pub(super) fn contrast(x: &mut PlanarImage, severity: Severity) {
    let kept = severity.of([0.75, 0.5, 0.4, 0.3, 0.15]);
    for plane in x.planes_mut() {
        let mean = plane.iter().sum::<f64>() / plane.len() as f64;
        plane.iter_mut().for_each(|v| *v = (*v - mean) * kept + mean);
    }
}

/// Scales down by the mean over boxes, and up again.
pub(super) fn pixelate(x: &mut PlanarImage, severity: Severity) {
    let share = severity.of([0.95, 0.9, 0.85, 0.75, 0.65]);
    let smaller = [x.height, x.width].map(|n| ((n as f64 * share) as usize).max(1));
    let small = boxed(x, smaller);
    *x = boxed(&small, [x.height, x.width]);
}

/// `x` resized to `size` as Pillow's box filter does: each value the mean of those whose middles lie
/// in its box, first along rows, then along columns, rounded to eight bits after each.
fn boxed(x: &PlanarImage, [height, width]: [usize; 2]) -> PlanarImage {
    let (rows, columns) = (box_taps(x.height, height), box_taps(x.width, width));
    let mut wide = PlanarImage::zeros([x.channels, x.height, width]);
    for (to, from) in wide.values.chunks_mut(width).zip(x.values.chunks(x.width)) {
        for (v, taps) in to.iter_mut().zip(&columns) {
            *v = from[taps.clone()].iter().sum::<f64>() / taps.len() as f64;
        }
    }
    wide.round();
    let mut out = PlanarImage::zeros([x.channels, height, width]);
    for (to, from) in
        out.values.chunks_mut(height * width).zip(wide.values.chunks(x.height * width))
    {
        for (p, v) in to.iter_mut().enumerate() {
            let taps = &rows[p / width];
            let sum: f64 = taps.clone().map(|row| from[row * width + p % width]).sum();
            *v = sum / taps.len() as f64;
        }
    }
    out.round();
    out
}

/// For each of `to` positions, those of `from` that its box covers.
fn box_taps(from: usize, to: usize) -> Vec<std::ops::Range<usize>> {
    let ratio = from as f64 / to as f64;
    let support = 0.5 * ratio.max(1.0);
    (0..to)
        .map(|i| {
            let middle = (i as f64 + 0.5) * ratio;
            let low = ((middle - support + 0.5) as usize).min(from - 1);
            let high = ((middle + support + 0.5) as usize).clamp(low + 1, from);
            // The box of a value is half open: (-1/2, 1/2] of its width.
            let covers = |j: &usize| {
                let place = (*j as f64 - middle + 0.5) / ratio.max(1.0);
                place > -0.5 && place <= 0.5
            };
            let first = (low..high).find(covers).unwrap_or(low);
            let last = (low..high).rev().find(covers).unwrap_or(first);
            first..last + 1
        })
        .collect()
}

/// A random affine map, then random smooth shifts of the pixels.
pub(super) fn elastic(x: &mut PlanarImage, severity: Severity, draws: &mut dyn Draws) {
    let (shift, sigma, corners) = severity.of([
        (0.0, 0.0, 0.08),
        (0.05, 0.2, 0.07),
        (0.08, 0.06, 0.06),
        (0.1, 0.04, 0.05),
        (0.1, 0.03, 0.03),
    ]);
    let size = x.height.min(x.width) as f64;
    affine(x, corners * size, draws);
    let shape = [x.height, x.width];
    let mut shifts = || {
        let mut field: Vec<f64> =
            (0..shape[0] * shape[1]).map(|_| draws.between(-1.0, 1.0)).collect();
        gaussian(&mut field, shape, sigma * size, 3.0, Border::Symmetric);
        field.iter_mut().for_each(|v| *v *= shift * size);
        field
    };
    let (dx, dy) = (shifts(), shifts());
    let [height, width] = shape;
    for plane in x.planes_mut() {
        let before = plane.to_vec();
        for (p, v) in plane.iter_mut().enumerate() {
            let (row, column) = ((p / width) as f64 + dy[p], (p % width) as f64 + dx[p]);
            *v = between(&before, [height, width], row, column, Border::Symmetric);
        }
    }
}

/// Moves three points about the middle by up to `most` pixels along each axis, and the image with
/// them.
fn affine(x: &mut PlanarImage, most: f64, draws: &mut dyn Draws) {
    let [height, width] = [x.height, x.width];
    let middle = [(height / 2) as f64, (width / 2) as f64];
    let arm = (height.min(width) / 3) as f64;
    let from = [
        [middle[0] + arm, middle[1] + arm],
        [middle[0] + arm, middle[1] - arm],
        [middle[0] - arm, middle[1] - arm],
    ];
    let to = from.map(|point| point.map(|v| v + draws.between(-most, most)));
    // Where the moved image takes its values: the map from `to` back to `from`.
    let Some(map) = affine_through(to, from) else { return };
    for plane in x.planes_mut() {
        let before = plane.to_vec();
        for (p, v) in plane.iter_mut().enumerate() {
            let at = [(p % width) as f64, (p / width) as f64];
            let [column, row] = map.map(|[a, b, c]| fixed(a * at[0], b * at[1] + c));
            *v = between(&before, [height, width], row, column, Border::Mirror);
        }
    }
}

/// A coordinate as OpenCV computes it: two parts in 1/1024, the sum to the nearest 1/32.
fn fixed(along: f64, rest: f64) -> f64 {
    let parts = |v: f64| (v * 1024.0).round_ties_even();
    ((parts(along) + parts(rest) + 16.0) / 32.0).floor() / 32.0
}

/// The affine map `[[a, b, c]; 2]`, (u, v) to (a u + b v + c, ...), that takes each point of `from`
/// to that of `to`; `None` where the points lie on a line.
fn affine_through(from: [[f64; 2]; 3], to: [[f64; 2]; 3]) -> Option<[[f64; 3]; 2]> {
    let side = |k: usize| [from[k][0] - from[0][0], from[k][1] - from[0][1]];
    let ([u1, v1], [u2, v2]) = (side(1), side(2));
    let area = u1 * v2 - u2 * v1;
    if area.abs() < 1e-12 {
        return None;
    }
    Some([0, 1].map(|axis| {
        let (d1, d2) = (to[1][axis] - to[0][axis], to[2][axis] - to[0][axis]);
        let (a, b) = ((d1 * v2 - d2 * v1) / area, (u1 * d2 - u2 * d1) / area);
        [a, b, to[0][axis] - a * from[0][0] - b * from[0][1]]
    }))
}

/// The value at a place between pixels, bilinear.
fn between(
    plane: &[f64],
    [height, width]: [usize; 2],
    row: f64,
    column: f64,
    border: Border,
) -> f64 {
    let (top, left) = (row.floor(), column.floor());
    let (down, right) = (row - top, column - left);
    let at = |dy: isize, dx: isize| {
        plane[border.find(top as isize + dy, height) * width
            + border.find(left as isize + dx, width)]
    };
    (at(0, 0) * (1.0 - right) + at(0, 1) * right) * (1.0 - down)
        + (at(1, 0) * (1.0 - right) + at(1, 1) * right) * down
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_affine_map_takes_its_points_where_they_belong() {
        let from = [[1.0, 2.0], [4.0, 2.5], [0.0, 7.0]];
        let to = [[0.5, 2.0], [5.0, 1.0], [1.0, 8.0]];
        let map = affine_through(from, to).unwrap();
        for (from, to) in from.iter().zip(to) {
            let found = map.map(|[a, b, c]| a * from[0] + b * from[1] + c);
            assert!(found.iter().zip(to).all(|(a, b)| (a - b).abs() < 1e-9), "{found:?}");
        }
        assert!(affine_through([[0.0, 0.0], [1.0, 1.0], [2.0, 2.0]], to).is_none());
    }

    #[test]
    fn boxes_cover_every_value_once_on_the_way_down() {
        for (from, to) in [(32, 30), (32, 20), (28, 18), (7, 1), (1, 1)] {
            let all: Vec<usize> = box_taps(from, to).into_iter().flatten().collect();
            assert_eq!(all, (0..from).collect::<Vec<_>>(), "{from} to {to}");
        }
    }
}
