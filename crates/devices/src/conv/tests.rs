//! Convolutions against their definition.

use super::*;
use crate::testing::{close, noise, read, tensor};

type Shape4 = [usize; 4];

/// `y[n, o, p] = sum x[n, i, s p + t - padding] w[o, i, t]`, and its gradients by x and w from `dy`.
fn by_definition(
    (x, x_shape): (&[f32], Shape4),
    (w, w_shape): (&[f32], Shape4),
    dy: &[f32],
    [stride, padding]: [usize; 2],
) -> [Vec<f32>; 3] {
    let ([n, channels, height, width], [out, _, kernel, _]) = (x_shape, w_shape);
    let size = |pixels| (pixels + 2 * padding - kernel) / stride + 1;
    let [down, across] = [size(height), size(width)];
    let mut y = vec![0.0; n * out * down * across];
    let (mut dx, mut dw) = (vec![0.0; x.len()], vec![0.0; w.len()]);
    for at in 0..y.len() {
        let (px, py) = (at % across, at / across % down);
        let (o, image) = (at / (across * down) % out, at / (across * down * out));
        for tap in 0..channels * kernel * kernel {
            let (tx, ty, i) = (tap % kernel, tap / kernel % kernel, tap / (kernel * kernel));
            let (sy, sx) = (stride * py + ty, stride * px + tx);
            let inside = |s: usize, size: usize| s >= padding && s < size + padding;
            if inside(sy, height) && inside(sx, width) {
                let source =
                    ((image * channels + i) * height + sy - padding) * width + sx - padding;
                let weight = o * channels * kernel * kernel + tap;
                y[at] += x[source] * w[weight];
                dx[source] += dy[at] * w[weight];
                dw[weight] += dy[at] * x[source];
            }
        }
    }
    [y, dx, dw]
}

const CASES: [(Shape4, Shape4, [usize; 2]); 5] = [
    ([2, 3, 6, 5], [4, 3, 3, 3], [1, 1]),
    ([4, 8, 8, 8], [8, 8, 3, 3], [1, 1]),
    ([4, 8, 8, 8], [16, 8, 3, 3], [2, 1]),
    ([2, 4, 8, 6], [6, 4, 1, 1], [2, 0]),
    ([2, 2, 9, 9], [3, 2, 5, 5], [1, 2]),
];

#[test]
fn convolutions_and_their_gradients_are_those_of_the_definition() {
    for (x_shape, w_shape, [stride, padding]) in CASES {
        let size = |pixels: usize| (pixels + 2 * padding - w_shape[2]) / stride + 1;
        let y_shape = [x_shape[0], w_shape[0], size(x_shape[2]), size(x_shape[3])];
        let len = |shape: Shape4| shape.iter().product::<usize>();
        let [x, w, dy] =
            [(x_shape, 1), (w_shape, 2), (y_shape, 3)].map(|(s, seed)| noise(len(s), seed));
        let expected = by_definition((&x, x_shape), (&w, w_shape), &dy, [stride, padding]);
        let options = ConvOptions::new([stride; 2], [padding; 2], [1; 2], 1);
        let (tx, tw, tdy) = (tensor(&x, x_shape), tensor(&w, w_shape), tensor(&dy, y_shape));
        close(&read(forward(tx.clone(), tw.clone(), options.clone())), &expected[0], 1e-5);
        let dx = input_gradient(tdy.clone(), tw, x_shape, options.clone());
        close(&read(dx), &expected[1], 1e-5);
        // In parts, as on tensor cores, but by a matrix product that every device has.
        let unit = [MatmulStrategy::SimpleUnit(BlueprintStrategy::Inferred(Default::default()))];
        // With all images at once, and one at a time.
        for most_patches in [1 << 28, 1] {
            let dw = weight_gradient_in_parts([&tx, &tdy], w_shape, &options, &unit, most_patches);
            close(&read(dw.unwrap()), &expected[2], 1e-4);
        }
    }
}

#[test]
fn a_sum_is_cut_into_parts_of_equal_length() {
    for (rows, out, columns) in [(131_072, 64, 576), (2048, 512, 4608), (90, 16, 32), (7, 1, 8)] {
        let parts = parts_of(rows, out, columns);
        assert!(parts >= 1 && rows.is_multiple_of(parts), "{rows} in {parts}");
    }
    assert_eq!(parts_of(131_072, 64, 576), 64);
    assert_eq!(parts_of(2048, 512, 4608), 4);
}
