//! Defocus, glass, motion and zoom blur.

use super::{
    Draws, PlanarImage, Severity, motion as motion_blur,
    picture::{Border, correlate, normal_weights},
};

/// Blurs with a disk whose edge is smoothed.
pub(super) fn defocus(x: &mut PlanarImage, severity: Severity) {
    let (radius, smooth) =
        severity.of([(0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1.0, 0.2), (1.5, 0.1)]);
    let (kernel, side) = disk(radius * x.scale(), smooth);
    let size = [x.height, x.width];
    x.planes_mut().for_each(|plane| correlate(plane, size, &kernel, side, Border::Mirror));
}

/// A disk of sum 1 on a grid, smoothed over 3x3 values (5x5 for radii beyond 8), and its side.
fn disk(radius: f64, smooth: f64) -> (Vec<f64>, usize) {
    let blurred = if radius <= 8.0 { 1 } else { 2 };
    let reach = (radius.ceil() as isize + blurred).max(8);
    let side = 2 * reach as usize + 1;
    let inside = |y: isize, x: isize| ((y * y + x * x) as f64 <= radius * radius) as u8;
    let grid =
        (-reach..=reach).flat_map(|y| (-reach..=reach).map(move |x| f64::from(inside(y, x))));
    let mut kernel: Vec<f64> = grid.collect();
    let sum: f64 = kernel.iter().sum();
    kernel.iter_mut().for_each(|v| *v /= sum);
    let weights = normal_weights(blurred, smooth);
    let square: Vec<f64> =
        weights.iter().flat_map(|a| weights.iter().map(move |b| a * b)).collect();
    correlate(&mut kernel, [side; 2], &square, weights.len(), Border::Mirror);
    (kernel, side)
}

/// Blurs, puts pixels in the place of neighbours, and blurs again.
pub(super) fn glass(x: &mut PlanarImage, severity: Severity, draws: &mut dyn Draws) {
    let (sigma, reach, times): (f64, f64, u8) =
        severity.of([(0.05, 1.0, 1), (0.25, 1.0, 1), (0.4, 1.0, 1), (0.25, 1.0, 2), (0.4, 1.0, 2)]);
    let sigma = sigma * x.scale();
    let reach = (reach * x.scale()).round().max(1.0) as usize;
    x.gaussian(sigma, 4.0, Border::Nearest);
    x.truncate();
    let (height, width) = (x.height, x.width);
    for _ in 0..times {
        for row in (reach + 1..=height.saturating_sub(reach)).rev() {
            for column in (reach + 1..=width.saturating_sub(reach)).rev() {
                let dx = draws.below(2 * reach);
                let dy = draws.below(2 * reach);
                let from = (row + dy - reach) * width + column + dx - reach;
                // The published code exchanges two views of one array, which copies one over the
                // other and leaves the second as it is: so do its images.
                x.planes_mut().for_each(|plane| plane[row * width + column] = plane[from]);
            }
        }
    }
    x.gaussian(sigma, 4.0, Border::Nearest);
}

/// Blurs along a line within 45 degrees of the horizontal.
pub(super) fn motion(x: &mut PlanarImage, severity: Severity, draws: &mut dyn Draws) {
    let (radius, sigma) = severity.of([(6.0, 1.0), (6.0, 1.5), (6.0, 2.0), (8.0, 2.0), (9.0, 2.5)]);
    let angle = draws.between(-45.0, 45.0);
    let (size, scale) = ([x.height, x.width], x.scale());
    x.planes_mut().for_each(|plane| {
        motion_blur::blur(plane, size, radius * scale, sigma * scale, angle);
    });
}

/// The mean of the image and of its enlargements in steps of one percent.
pub(super) fn zoom(x: &mut PlanarImage, severity: Severity) {
    // As many steps as NumPy's `arange(1, 1.06, 0.01)`, ... has, the first two one too many.
    let count = severity.of([7, 12, 16, 21, 26]);
    let mut sum = x.clone();
    for k in 0..count {
        // The step between NumPy's first two, which a later one is a multiple of.
        let enlarged = x.zoomed(1.0 + f64::from(k) * (1.01 - 1.0));
        sum.values.iter_mut().zip(enlarged.values).for_each(|(sum, v)| *sum += v);
    }
    x.values = sum.values;
    x.each(|v| v / f64::from(count + 1));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_has_sum_one_and_grows_with_its_radius() {
        let reach = |radius| {
            let (kernel, side) = disk(radius, 0.4);
            assert!((kernel.iter().sum::<f64>() - 1.0).abs() < 1e-9, "{radius}");
            let middle = side / 2 * side;
            kernel[middle..middle + side].iter().filter(|v| **v > 1e-6).count()
        };
        assert_eq!([0.3, 1.0, 10.5].map(reach), [3, 5, 23]);
    }
}
