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
        into_contiguous, slice,
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
        launch_ref,
    },
    matmul::{multi_level::Strategy as MatmulStrategy, routine::BlueprintStrategy},
};

use crate::{
    contiguous,
    patches::{patches, spread, sum_parts},
    product::{has_tensor_cores, input, on_tensor_cores, product, types},
    taken,
    tiles::Sums,
};

/// Largest matrix of patches that a weight gradient makes at once, in elements; a larger batch is
/// taken in parts.
const MOST_PATCHES: usize = 1 << 28;

/// Convolution of `x` `[N, in, H, W]` with `w` `[out, in, k, k]`, of one type, to `[N, out, H', W']`
/// of that type.
///
/// # Panics
/// If the shapes do not fit; they are the network's own, checked when it is built.
pub fn forward(x: CubeTensor, w: CubeTensor, options: ConvOptions<2>) -> CubeTensor {
    if fits(&x, &options)
        && let Some(y) = on_tensor_cores_forward(&x, &w, &options)
    {
        return y;
    }
    conv_forward(x, w, None, options, ConvStrategy::default()).expect("a convolution")
}

fn on_tensor_cores_forward(
    x: &CubeTensor,
    w: &CubeTensor,
    options: &ConvOptions<2>,
) -> Option<CubeTensor> {
    let ([n, _, height, width], [out, _, kernel, _]) = (dims(x), dims(w));
    let (stride, padding) = (options.stride[0], options.padding[0].0);
    let size = |pixels| (pixels + 2 * padding - kernel) / stride + 1;
    let y = nhwc_like(x, [n, size(height), size(width), out]);
    let image = permute_nchw_to_nhwc(x.clone());
    let weight = channels_last(w.clone());
    let inputs = || ConvolutionInputs::Forward {
        input: input(&image),
        weight: input(&weight),
        bias: None,
        out: y.clone().binding(),
    };
    accelerated(&y, inputs, options, Sums::forward(&y, &weight)).then(|| permute_nhwc_to_nchw(y))
}

/// Gradient by the input, of the shape `x_shape`, of a convolution with `w`, from the gradient `dy`
/// by its result.
///
/// # Panics
/// As [`forward`].
pub fn input_gradient(
    dy: CubeTensor,
    w: CubeTensor,
    x_shape: [usize; 4],
    options: ConvOptions<2>,
) -> CubeTensor {
    if fits(&dy, &options) {
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
        if accelerated(&dx, inputs, &plain, Sums::backward(&dx, &weight)) {
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
///
/// # Panics
/// As [`forward`].
pub fn weight_gradient(
    x: CubeTensor,
    dy: CubeTensor,
    w_shape: [usize; 4],
    options: ConvOptions<2>,
) -> CubeTensor {
    if fits(&x, &options)
        && let Some(dw) = weight_gradient_in_parts(
            [&x, &dy],
            w_shape,
            &options,
            &by_patches(&x, w_shape),
            MOST_PATCHES,
        )
    {
        return dw;
    }
    let shape = Shape::from(w_shape);
    let dw = conv_weight_backward(x, dy, shape, options, ConvStrategy::default());
    cast(dw.expect("a convolution"), DType::F32)
}

fn weight_gradient_in_parts(
    [x, dy]: [&CubeTensor; 2],
    [out, channels, kernel, _]: [usize; 4],
    options: &ConvOptions<2>,
    strategies: &[MatmulStrategy],
    most_patches: usize,
) -> Option<CubeTensor> {
    let [n, _, height, width] = dims(dy);
    let image = permute_nchw_to_nhwc(x.clone());
    let grad = channels_last(dy.clone());
    let columns = (kernel * kernel * channels).next_multiple_of(8);
    // The images of one matrix of patches: all of them, or the largest share that divides the batch.
    let most = (most_patches / (height * width * columns)).max(1);
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

/// The products for a weight gradient of the shape `w_shape`, in the order in which they are tried:
/// what was fastest on an H100 (docs/devices.md).
fn by_patches(x: &CubeTensor, [out, ..]: [usize; 4]) -> Vec<MatmulStrategy> {
    let inferred = BlueprintStrategy::Inferred(Default::default());
    let first = match (x.dtype, out) {
        (DType::F32, _) => MatmulStrategy::SimpleCyclicCmma(inferred),
        (_, ..=64) => {
            MatmulStrategy::SimpleStridedMma(BlueprintStrategy::Inferred(Default::default()))
        }
        _ => MatmulStrategy::SimpleCyclicMma(inferred),
    };
    [vec![first], on_tensor_cores().to_vec()].concat()
}

/// The parts into which a sum over `rows` with `out` by `columns` results is cut: enough for every
/// processor of a large card, each of at least 256 rows.
fn parts_of(rows: usize, out: usize, columns: usize) -> usize {
    const TILE: usize = 128;
    const TILES: usize = 320;
    let tiles = out.div_ceil(TILE) * columns.div_ceil(TILE);
    let wanted = TILES.div_ceil(tiles).next_power_of_two();
    let mut parts = wanted.min(1 << (rows / 256).max(1).ilog2());
    while !rows.is_multiple_of(parts) {
        parts /= 2;
    }
    parts
}

/// Launches a convolution on tensor cores; false if the device has no such kernel.
fn accelerated(
    like: &CubeTensor,
    inputs: impl Fn() -> ConvolutionInputs,
    options: &ConvOptions<2>,
    sums: Sums,
) -> bool {
    let args = || ConvolutionArgs {
        stride: options.stride,
        padding: options.padding_begin(),
        dilation: options.dilation,
    };
    let inferred = |algorithm, tile_kind| Strategy::Inferred { algorithm, tile_kind };
    let strategies = [
        sums.tiled(),
        Some(inferred(ConvAlgorithm::SimpleSyncStrided, AcceleratedTileKind::Mma)),
        Some(inferred(ConvAlgorithm::SimpleSyncCyclic, AcceleratedTileKind::Cmma)),
    ];
    strategies.into_iter().flatten().any(|strategy| {
        let launched =
            launch_ref(&strategy, &like.client, inputs(), args(), types(like, like, like));
        taken(|| format!("a convolution by {strategy:?}"), launched)
    })
}

/// Whether the algorithms of this module compute such a convolution on the device of `t`.
fn fits(t: &CubeTensor, options: &ConvOptions<2>) -> bool {
    let ConvOptions { stride, padding, dilation, groups } = options;
    has_tensor_cores(t)
        && *groups == 1
        && *dilation == [1; 2]
        && stride[0] == stride[1]
        && padding.iter().all(|side| *side == (padding[0].0, padding[0].0))
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
mod tests;
