//! Convolutions as matrix products on tensor cores, in all three directions, without autotune.
//!
//! Burn tunes each shape and direction in each process: on an H200 that takes a SORA step of
//! preact-resnet18 two to three minutes, most of it for matrix products inside candidates that lose.
//! Here each direction has one algorithm, which was the fastest there or close to it; where a device
//! has no such kernel, Burn chooses.
//!
//! Tensors are `[N, C, H, W]` by name and `[N, H, W, C]` in memory. Weights are
//! `[out, in, k, k]`. Convolutions have neither groups nor dilation.

use burn::tensor::{DType, Shape, ops::ConvOptions};
use burn_cubecl::{
    kernel::{
        cast,
        conv::{ConvStrategy, conv_data_backward, conv_forward, conv_weight_backward},
        into_contiguous,
        matmul::{MatmulStrategy as BurnMatmul, matmul as burn_matmul},
        slice,
    },
    ops::{
        numeric::{add, empty_device_dtype},
        permute, permute_nchw_to_nhwc, permute_nhwc_to_nchw, reshape,
    },
    tensor::CubeTensor,
};
use cubek::{
    convolution::{
        AcceleratedTileKind, ConvAlgorithm, ConvolutionArgs, ConvolutionInputs, Strategy,
        launch_ref as launch_conv,
    },
    matmul::{
        definition::{MatmulElems, MatmulGlobalElems},
        launch::launch_ref as launch_matmul,
        multi_level::{
            Strategy as MatmulStrategy,
            components::tile::TileMatmulKind,
            routines::batch::{double_buffering::DoubleBufferingArgs, simple::SimpleArgs},
        },
        routine::BlueprintStrategy,
    },
    std::InputBinding,
};

use crate::{
    contiguous, elem,
    patches::{patches, reversed, spread, sum_parts},
};

/// Largest matrix of patches that a weight gradient makes at once, in elements; a larger batch is
/// taken in parts.
const MOST_PATCHES: usize = 1 << 28;

/// Convolution of `x` `[N, in, H, W]` with `w` `[out, in, k, k]`, of one type, to `[N, out, H', W']`
/// of that type.
pub fn forward(x: CubeTensor, w: CubeTensor, options: ConvOptions<2>) -> CubeTensor {
    if fits(&options) {
        let [n, _, height, width] = dims(&x);
        let [out, _, kernel, _] = dims(&w);
        if options.stride[0] == 1 && options.padding[0].0 < kernel {
            return transposed_forward(x, w, options);
        }
        let size = |pixels| (pixels + 2 * options.padding[0].0 - kernel) / options.stride[0] + 1;
        let y = nhwc_like(&x, [n, size(height), size(width), out]);
        let (image, weight) = (permute_nchw_to_nhwc(x.clone()), channels_last(w.clone()));
        let inputs = |image: &CubeTensor, weight: &CubeTensor| ConvolutionInputs::Forward {
            input: input(image),
            weight: input(weight),
            bias: None,
            out: y.clone().binding(),
        };
        if accelerated(&y, || inputs(&image, &weight), &options) {
            return permute_nhwc_to_nchw(y);
        }
    }
    conv_forward(x, w, None, options, ConvStrategy::default()).expect("a convolution")
}

/// A convolution of stride 1 as the input gradient of another: of the one whose weight has the roles
/// of its channels exchanged and its taps in reverse. Burn's kernel for input gradients reads its
/// weight faster: on an H200 512 channels at 4x4 pixels take half the time.
fn transposed_forward(x: CubeTensor, w: CubeTensor, options: ConvOptions<2>) -> CubeTensor {
    let [n, _, height, width] = dims(&x);
    let [out, _, kernel, _] = dims(&w);
    let padding = options.padding[0].0;
    let size = |pixels| pixels + 2 * padding + 1 - kernel;
    let y = nhwc_like(&x, [n, size(height), size(width), out]);
    let (image, weight) = (permute_nchw_to_nhwc(x.clone()), reversed(w.clone()));
    let around = kernel - 1 - padding;
    let turned = ConvOptions::new([1; 2], [around; 2], [1; 2], 1);
    let inputs = || ConvolutionInputs::BackwardData {
        out_grad: input(&image),
        weights: input(&weight),
        in_grad: y.clone().binding(),
    };
    if accelerated(&y, inputs, &turned) {
        return permute_nhwc_to_nchw(y);
    }
    conv_forward(x, w, None, options, ConvStrategy::default()).expect("a convolution")
}

/// Gradient by the input, of the shape `x_shape`, of a convolution with `w`, from the gradient `dy`
/// by its result.
pub fn input_gradient(
    dy: CubeTensor,
    w: CubeTensor,
    x_shape: [usize; 4],
    options: ConvOptions<2>,
) -> CubeTensor {
    if fits(&options) {
        let [n, channels, height, width] = x_shape;
        let kernel = dims(&w)[2];
        let dx = nhwc_like(&dy, [n, height, width, channels]);
        let mut grad = permute_nchw_to_nhwc(dy.clone());
        let mut plain = options.clone();
        // With zeros between its pixels, the gradient is that of a convolution of stride 1.
        if options.stride[0] > 1 {
            let size = |pixels| pixels + 2 * options.padding[0].0 + 1 - kernel;
            grad = spread(grad, options.stride[0], [size(height), size(width)]);
            plain.stride = [1; 2];
        }
        let weight = channels_last(w.clone());
        let inputs = || ConvolutionInputs::BackwardData {
            out_grad: input(&grad),
            weights: input(&weight),
            in_grad: dx.clone().binding(),
        };
        if accelerated(&dx, inputs, &plain) {
            return permute_nhwc_to_nchw(dx);
        }
    }
    let shape = Shape::from(x_shape);
    conv_data_backward(dy, w, shape, options, ConvStrategy::default()).expect("a convolution")
}

/// Gradient by the weight, of the shape `w_shape` and in f32, of a convolution of `x`, from the
/// gradient `dy` by its result.
///
/// It sums over all pixels of the batch, and its result is small: cut into parts, the sum has work
/// for the whole device.
pub fn weight_gradient(
    x: CubeTensor,
    dy: CubeTensor,
    w_shape: [usize; 4],
    options: ConvOptions<2>,
) -> CubeTensor {
    if fits(&options)
        && let Some(dw) = weight_gradient_in_parts(&x, &dy, w_shape, &options, &on_tensor_cores())
    {
        return dw;
    }
    let shape = Shape::from(w_shape);
    let dw = conv_weight_backward(x, dy, shape, options, ConvStrategy::default());
    cast(dw.expect("a convolution"), DType::F32)
}

fn weight_gradient_in_parts(
    x: &CubeTensor,
    dy: &CubeTensor,
    [out, channels, kernel, _]: [usize; 4],
    options: &ConvOptions<2>,
    strategies: &[MatmulStrategy],
) -> Option<CubeTensor> {
    let [n, _, height, width] = dims(dy);
    let image = permute_nchw_to_nhwc(x.clone());
    let grad = channels_last(dy.clone());
    let columns = (kernel * kernel * channels).next_multiple_of(8);
    // The images of one matrix of patches: all of them, or the largest share that divides the batch.
    let most = (MOST_PATCHES / (height * width * columns)).max(1);
    let at_once = (1..=n.min(most)).rev().find(|images| n.is_multiple_of(*images))?;
    let rows = at_once * height * width;
    let parts = parts_of(rows, out, columns);
    let mut total = None;
    for start in (0..n).step_by(at_once) {
        let share = |t: &CubeTensor| {
            let [_, height, width, channels] = dims(t);
            slice(t.clone(), &[start..start + at_once, 0..height, 0..width, 0..channels])
        };
        let window = [kernel, options.stride[0], options.padding[0].0];
        let right = patches(share(&image), window, [height, width], columns);
        let right = reshape(right, Shape::from([parts, rows / parts, columns]));
        let left = reshape(share(&grad), Shape::from([parts, rows / parts, out]));
        let sums = contiguous(&right, [parts, out, columns], DType::F32);
        product(permute(left, &[0, 2, 1]), right, sums.clone(), strategies)?;
        let sum = sum_parts(sums, [out, kernel, kernel, channels]);
        total = Some(match total {
            None => sum,
            Some(total) => add(total, sum),
        });
    }
    total.map(permute_nhwc_to_nchw)
}

/// The matrix product of `a` `[.., m, k]` and `b` `[.., k, n]`, of one type, whose other dimensions
/// agree, to `[.., m, n]` of that type.
pub fn matmul(a: CubeTensor, b: CubeTensor) -> CubeTensor {
    let rank = a.meta.num_dims();
    let mut shape = a.meta.shape().clone();
    shape[rank - 1] = b.meta.shape()[rank - 1];
    let out = contiguous(&a, shape, a.dtype);
    if product(a.clone(), b.clone(), out.clone(), &on_tensor_cores()).is_some() {
        return out;
    }
    let dtype = a.dtype;
    burn_matmul(a, b, None, BurnMatmul::default(), dtype).expect("a matrix product")
}

/// The parts into which a sum over `rows` with `out` by `columns` results is cut: enough for every
/// processor of a large card, each of at least 256 rows.
fn parts_of(rows: usize, out: usize, columns: usize) -> usize {
    const TILE: usize = 128;
    const TILES: usize = 256;
    let tiles = out.div_ceil(TILE) * columns.div_ceil(TILE);
    let wanted = TILES.div_ceil(tiles).next_power_of_two();
    let mut parts = wanted.min((rows / 256).max(1).next_power_of_two());
    while !rows.is_multiple_of(parts) {
        parts /= 2;
    }
    parts
}

/// `left` `[parts, m, k]` times `right` `[parts, k, n]`, into `out`, by the first of `strategies` that
/// the device has; `None` if it has none of them.
fn product(
    left: CubeTensor,
    right: CubeTensor,
    out: CubeTensor,
    strategies: &[MatmulStrategy],
) -> Option<()> {
    let client = out.client.clone();
    strategies.iter().find_map(|strategy| {
        let mut types = types(&left, &right, &out);
        let (left, right, out) = (input(&left), input(&right), out.clone().binding());
        let strategy = strategy.clone().into();
        launch_matmul(&strategy, &client, left, right, out, &mut types).ok()
    })
}

fn on_tensor_cores() -> [MatmulStrategy; 2] {
    let double = BlueprintStrategy::Inferred(DoubleBufferingArgs {
        specialized: false,
        tile_matmul: TileMatmulKind::Mma,
    });
    let simple = BlueprintStrategy::Inferred(SimpleArgs {
        multi_rows: true,
        tile_matmul: TileMatmulKind::Cmma,
    });
    [MatmulStrategy::DoubleCyclicMma(double), MatmulStrategy::SimpleCyclicCmma(simple)]
}

/// Launches a convolution on tensor cores; false if the device has no such kernel.
fn accelerated(
    like: &CubeTensor,
    inputs: impl Fn() -> ConvolutionInputs,
    options: &ConvOptions<2>,
) -> bool {
    let kinds = [
        (ConvAlgorithm::SimpleSyncStrided, AcceleratedTileKind::Mma),
        (ConvAlgorithm::SimpleSyncCyclic, AcceleratedTileKind::Cmma),
    ];
    kinds.into_iter().any(|(algorithm, tile_kind)| {
        let args = ConvolutionArgs {
            stride: options.stride,
            padding: options.padding_begin(),
            dilation: options.dilation,
        };
        let strategy = Strategy::Inferred { algorithm, tile_kind };
        launch_conv(&strategy, &like.client, inputs(), args, types(like, like, like)).is_ok()
    })
}

/// Whether the algorithms of this module compute such a convolution.
fn fits(options: &ConvOptions<2>) -> bool {
    let ConvOptions { stride, padding, dilation, groups } = options;
    *groups == 1
        && *dilation == [1; 2]
        && stride[0] == stride[1]
        && padding.iter().all(|side| *side == (padding[0].0, padding[0].0))
}

fn types(left: &CubeTensor, right: &CubeTensor, out: &CubeTensor) -> MatmulElems {
    MatmulElems::from_globals(&MatmulGlobalElems {
        lhs: elem(left),
        rhs: elem(right),
        out: elem(out),
    })
}

fn input(t: &CubeTensor) -> InputBinding {
    InputBinding::new(t.clone().binding(), elem(t))
}

fn dims(t: &CubeTensor) -> [usize; 4] {
    t.meta.shape().dims()
}

/// `t`, `[N, C, H, W]` by name, as `[N, H, W, C]` with the channels next to each other.
fn channels_last(t: CubeTensor) -> CubeTensor {
    into_contiguous(permute_nchw_to_nhwc(t))
}

fn nhwc_like(t: &CubeTensor, shape: [usize; 4]) -> CubeTensor {
    empty_device_dtype(t.client.clone(), t.device.clone(), Shape::from(shape), t.dtype)
}

#[cfg(all(test, feature = "vulkan"))]
mod tests {
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
            let unit =
                [MatmulStrategy::SimpleUnit(BlueprintStrategy::Inferred(Default::default()))];
            let dw = weight_gradient_in_parts(&tx, &tdy, w_shape, &options, &unit);
            close(&read(dw.unwrap()), &expected[2], 1e-4);
        }
    }

    #[test]
    fn a_convolution_of_stride_1_is_an_input_gradient_with_the_weight_reversed() {
        for (x_shape, w_shape, [_, padding]) in CASES.into_iter().filter(|case| case.2[0] == 1) {
            let len = |shape: Shape4| shape.iter().product::<usize>();
            let (x, w) = (noise(len(x_shape), 1), noise(len(w_shape), 2));
            let [out, channels, kernel, _] = w_shape;
            let size = |pixels: usize| pixels + 2 * padding + 1 - kernel;
            let y_shape = [x_shape[0], out, size(x_shape[2]), size(x_shape[3])];
            let zeros = vec![0.0; len(y_shape)];
            let y = &by_definition((&x, x_shape), (&w, w_shape), &zeros, [1, padding])[0];
            // `[in, k, k, out]` by name `[in, out, k, k]`.
            let turned = permute_nhwc_to_nchw(reversed(tensor(&w, w_shape)));
            let turned = read(turned);
            let turned_shape = [channels, out, kernel, kernel];
            let around = [1, kernel - 1 - padding];
            let dx = &by_definition((&zeros, y_shape), (&turned, turned_shape), &x, around)[1];
            close(dx, y, 1e-5);
        }
    }

    #[test]
    fn a_sum_is_cut_into_parts_of_equal_length() {
        for (rows, out, columns) in [(131_072, 64, 576), (2048, 512, 4608), (90, 16, 32), (7, 1, 8)]
        {
            let parts = parts_of(rows, out, columns);
            assert!(parts >= 1 && rows.is_multiple_of(parts), "{rows} in {parts}");
        }
        assert_eq!(parts_of(131_072, 64, 576), 64);
        assert_eq!(parts_of(2048, 512, 4608), 2);
    }
}
