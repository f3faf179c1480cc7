//! Motion blur as ImageMagick computes it, which the published images were made with: a half of a
//! normal distribution along a line from each pixel. Within, values have sixteen bits; as bytes they
//! are rounded down (version 6.9.11, measured).

use super::picture::Border;

/// Blurs `plane`, values in [0, 1], along the direction `angle` (degrees) and returns eight bits a value.
/// The line is `2 radius + 1` pixels long, weights fall with standard deviation `sigma`.
pub(super) fn blur(
    plane: &mut [f64],
    [height, width]: [usize; 2],
    radius: f64,
    sigma: f64,
    angle: f64,
) {
    let length = 2 * radius.ceil().max(0.0) as isize + 1;
    let weight = |i: isize| (-0.5 * (i as f64 / sigma).powi(2)).exp();
    let sum: f64 = (0..length).map(weight).sum();
    let (sine, cosine) = angle.to_radians().sin_cos();
    let step = |i: isize, along: f64| (i as f64 * along - 0.5).ceil() as isize;
    let taps: Vec<_> =
        (0..length).map(|i| (step(i, sine), step(i, cosine), weight(i) / sum)).collect();
    let before = plane.to_vec();
    for (p, v) in plane.iter_mut().enumerate() {
        let (y, x) = ((p / width) as isize, (p % width) as isize);
        let found = |&(dy, dx, w): &(isize, isize, f64)| {
            let row = Border::Nearest.find(y + dy, height);
            w * before[row * width + Border::Nearest.find(x + dx, width)]
        };
        let blurred: f64 = taps.iter().map(found).sum();
        *v = ((blurred * 65_535.0).round() / 257.0).floor() / 255.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_by_hand() {
        // Radius 1, along a row: weights 1, e^-1/2, e^-2 over their sum, from the pixel rightwards.
        let mut plane = [0.0, 0.0, 1.0, 0.0, 0.0];
        blur(&mut plane, [1, 5], 1.0, 1.0, 0.0);
        let sum = 1.0 + (-0.5f64).exp() + (-2f64).exp();
        for (found, want) in
            plane.iter().zip([(-2f64).exp() / sum, (-0.5f64).exp() / sum, 1.0 / sum, 0.0, 0.0])
        {
            assert!((0.0..1.0 / 255.0).contains(&(want - found)), "{plane:?}");
        }
    }
}
