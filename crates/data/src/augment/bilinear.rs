//! Bilinear resampling of images in memory: the window of a resized crop, and rotation.

use crate::window::CropWindow;

/// Resizes the window to the whole of `out`, bilinear with half-pixel centres, and maps bytes to
/// \[0, 1\]. No low-pass filter is needed, because the window is never larger than the output.
pub(super) fn window(
    image: &[u8],
    out: &mut [f32],
    shape: [usize; 3],
    window: CropWindow,
    flip: bool,
) {
    let [_, height, width] = shape;
    let rows = taps(window.top, window.height, height);
    let mut columns = taps(window.left, window.width, width);
    if flip {
        columns.reverse();
    }
    for (image, out) in image.chunks_exact(height * width).zip(out.chunks_exact_mut(height * width))
    {
        for (row, vertical) in out.chunks_exact_mut(width).zip(&rows) {
            let upper = &image[vertical.low * width..][..width];
            let lower = &image[vertical.high * width..][..width];
            for (value, tap) in row.iter_mut().zip(&columns) {
                let mix = |line: &[u8]| {
                    let (a, b) = (f32::from(line[tap.low]), f32::from(line[tap.high]));
                    a + (b - a) * tap.part
                };
                let (a, b) = (mix(upper), mix(lower));
                *value = (a + (b - a) * vertical.part) / 255.0;
            }
        }
    }
}

/// The two source positions of an output position, and the weight of the second.
struct Tap {
    low: usize,
    high: usize,
    part: f32,
}

fn taps(start: usize, from: usize, to: usize) -> Vec<Tap> {
    let scale = from as f32 / to as f32;
    (0..to)
        .map(|i| {
            let at = ((i as f32 + 0.5) * scale - 0.5).clamp(0.0, (from - 1) as f32);
            let low = at as usize;
            Tap { low: start + low, high: start + (low + 1).min(from - 1), part: at - low as f32 }
        })
        .collect()
}

/// Rotates `image` in place by `degrees` counter-clockwise about its centre, bilinear. Pixels that
/// come from outside the image are zero.
pub(super) fn rotate(image: &mut [f32], shape: [usize; 3], degrees: f32) {
    let [_, height, width] = shape;
    let (sin, cos) = degrees.to_radians().sin_cos();
    let (cy, cx) = ((height - 1) as f32 / 2.0, (width - 1) as f32 / 2.0);
    let mut source = vec![0.0; height * width];
    for plane in image.chunks_exact_mut(height * width) {
        source.copy_from_slice(plane);
        let pixel = |y: isize, x: isize| -> f32 {
            let inside = (0..height as isize).contains(&y) && (0..width as isize).contains(&x);
            if inside { source[y as usize * width + x as usize] } else { 0.0 }
        };
        for (y, row) in plane.chunks_exact_mut(width).enumerate() {
            let dy = y as f32 - cy;
            for (x, value) in row.iter_mut().enumerate() {
                let dx = x as f32 - cx;
                // Rows grow downwards, so a counter-clockwise turn of the picture is a clockwise
                // turn from the target to the source.
                let (sx, sy) = (cos * dx - sin * dy + cx, sin * dx + cos * dy + cy);
                let (fx, fy) = (sx.floor(), sy.floor());
                let (px, py) = (sx - fx, sy - fy);
                let (ix, iy) = (fx as isize, fy as isize);
                let top = pixel(iy, ix) * (1.0 - px) + pixel(iy, ix + 1) * px;
                let bottom = pixel(iy + 1, ix) * (1.0 - px) + pixel(iy + 1, ix + 1) * px;
                *value = top * (1.0 - py) + bottom * py;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(a: &[f32], b: &[f32]) {
        assert_eq!(a.len(), b.len());
        for (x, y) in a.iter().zip(b) {
            assert!((x - y).abs() < 1e-5, "{a:?} {b:?}");
        }
    }

    #[test]
    fn a_quarter_turn_by_hand() {
        // 1 2      2 4
        // 3 4  ->  1 3   counter-clockwise
        let mut image = [1.0, 2.0, 3.0, 4.0];
        rotate(&mut image, [1, 2, 2], 90.0);
        close(&image, &[2.0, 4.0, 1.0, 3.0]);
        let mut image = [1.0, 2.0, 3.0, 4.0];
        rotate(&mut image, [1, 2, 2], -90.0);
        close(&image, &[3.0, 1.0, 4.0, 2.0]);
    }

    #[test]
    fn half_of_45_degrees_by_hand() {
        // The corner (0,0) of 3x3 reads from distance sqrt(2) straight left of the centre row:
        // column 1 - sqrt(2) < 0.
        let mut image = [0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0];
        rotate(&mut image, [1, 3, 3], 45.0);
        // Output (2,0): offset (dx,dy) = (-1,1) -> source dx = cos*(-1) - sin*1 = -sqrt(2), dy = 0:
        // column -0.414, weight of column 0 is 1 - 0.414.
        let sqrt2 = 2.0f32.sqrt();
        assert!((image[6] - (2.0 - sqrt2)).abs() < 1e-5, "{image:?}");
        assert_eq!(image[4], 0.0);
    }

    #[test]
    fn a_window_of_everything_is_the_image() {
        let image = [0, 51, 102, 153, 204, 255];
        let all = CropWindow { top: 0, left: 0, height: 2, width: 3 };
        let mut out = [0.0; 6];
        window(&image, &mut out, [1, 2, 3], all, false);
        close(&out, &[0.0, 0.2, 0.4, 0.6, 0.8, 1.0]);
        window(&image, &mut out, [1, 2, 3], all, true);
        close(&out, &[0.4, 0.2, 0.0, 1.0, 0.8, 0.6]);
    }

    #[test]
    fn a_window_twice_enlarged_by_hand() {
        // Columns 1..3 of one row of four: values 1.0 and 0.0 spread over 4 columns at -0.25, 0.25,
        // 0.75, 1.25.
        let image = [7, 255, 0, 7];
        let mut out = [0.0; 4];
        window(
            &image,
            &mut out,
            [1, 1, 4],
            CropWindow { top: 0, left: 1, height: 1, width: 2 },
            false,
        );
        close(&out, &[1.0, 0.75, 0.25, 0.0]);
    }
}
