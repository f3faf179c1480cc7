//! Rearrangements of feature maps `[N, H, W, C]` for convolutions.

use burn::tensor::DType;
use burn_cubecl::tensor::CubeTensor;
use cubecl::{
    prelude::*,
    std::{FastDivmod, tensor::layout::linear::LinearViewMut},
};

use crate::{contiguous, elem, one_each};

/// The matrix of the windows of `image` `[N, H, W, C]`: a row for each pixel of the result, `[N H' W',
/// columns]` with the values of its window in the order `[k, k, C]`, zeros outside of the image and in
/// the columns behind.
pub(crate) fn patches(
    image: CubeTensor,
    [kernel, stride, padding]: [usize; 3],
    [height, width]: [usize; 2],
    columns: usize,
) -> CubeTensor {
    let [n, in_height, in_width, channels] = image.meta.shape().dims();
    let out = contiguous(&image, [n * height * width, columns], image.dtype);
    let step = step(&image, columns);
    let strides: Vec<usize> = image.meta.strides().iter().map(|s| s.div_ceil(step)).collect();
    let (client, dtype) = (image.client.clone(), elem(&image));
    let (count, dim) = one_each(&client, out.meta.num_elements() / step);
    patches_kernel::launch(
        &client,
        count,
        dim,
        step,
        image.into_tensor_arg(),
        out.clone().into_linear_view(),
        columns / step,
        channels / step,
        kernel,
        kernel,
        width,
        height,
        stride,
        padding,
        in_height,
        in_width,
        strides[0],
        strides[1],
        strides[2],
        strides[3],
        dtype,
    );
    out
}

#[cube(launch)]
fn patches_kernel<E: Numeric, V: Size>(
    image: &Tensor<Vector<E, V>>,
    mut out: LinearViewMut<'_, Vector<E, V>>,
    columns: FastDivmod<usize>,
    channels: FastDivmod<usize>,
    side: FastDivmod<usize>,
    kernel: usize,
    width: FastDivmod<usize>,
    height: FastDivmod<usize>,
    stride: usize,
    padding: usize,
    in_height: usize,
    in_width: usize,
    stride_n: usize,
    stride_h: usize,
    stride_w: usize,
    stride_c: usize,
    #[define(E)] _dtype: ElemType,
) {
    if !out.is_in_bounds(ABSOLUTE_POS) {
        terminate!();
    }
    let (row, column) = columns.div_mod(ABSOLUTE_POS);
    let (rest, x) = width.div_mod(row);
    let (n, y) = height.div_mod(rest);
    let (tap, c) = channels.div_mod(column);
    let (down, across) = side.div_mod(tap);
    // Beyond the padding before the image.
    let y = y * stride + down;
    let x = x * stride + across;
    let mut value = Vector::zeroed();
    if down < kernel
        && y >= padding
        && y < in_height + padding
        && x >= padding
        && x < in_width + padding
    {
        let at = n * stride_n + (y - padding) * stride_h + (x - padding) * stride_w + c * stride_c;
        value = image[at];
    }
    out.write(ABSOLUTE_POS, value);
}

/// `map` `[N, H, W, C]` with zeros between its pixels: pixel `(y, x)` moves to `(y step, x step)` of a
/// map of `[height, width]`.
pub(crate) fn spread(map: CubeTensor, step: usize, [height, width]: [usize; 2]) -> CubeTensor {
    let [n, in_height, in_width, channels] = map.meta.shape().dims();
    let out = contiguous(&map, [n, height, width, channels], map.dtype);
    let vector = self::step(&map, channels);
    let strides: Vec<usize> = map.meta.strides().iter().map(|s| s.div_ceil(vector)).collect();
    let (client, dtype) = (map.client.clone(), elem(&map));
    let (count, dim) = one_each(&client, out.meta.num_elements() / vector);
    spread_kernel::launch(
        &client,
        count,
        dim,
        vector,
        map.into_tensor_arg(),
        out.clone().into_linear_view(),
        channels / vector,
        width,
        height,
        step,
        in_height,
        in_width,
        strides[0],
        strides[1],
        strides[2],
        strides[3],
        dtype,
    );
    out
}

#[cube(launch)]
fn spread_kernel<E: Numeric, V: Size>(
    map: &Tensor<Vector<E, V>>,
    mut out: LinearViewMut<'_, Vector<E, V>>,
    channels: FastDivmod<usize>,
    width: FastDivmod<usize>,
    height: FastDivmod<usize>,
    step: FastDivmod<usize>,
    in_height: usize,
    in_width: usize,
    stride_n: usize,
    stride_h: usize,
    stride_w: usize,
    stride_c: usize,
    #[define(E)] _dtype: ElemType,
) {
    if !out.is_in_bounds(ABSOLUTE_POS) {
        terminate!();
    }
    let (rest, c) = channels.div_mod(ABSOLUTE_POS);
    let (rest, x) = width.div_mod(rest);
    let (n, y) = height.div_mod(rest);
    let (y, off_y) = step.div_mod(y);
    let (x, off_x) = step.div_mod(x);
    let mut value = Vector::zeroed();
    if off_y == 0 && off_x == 0 && y < in_height && x < in_width {
        value = map[n * stride_n + y * stride_h + x * stride_w + c * stride_c];
    }
    out.write(ABSOLUTE_POS, value);
}

/// Sum over the first dimension of `parts` `[parts, rows, columns]`, in f32, without the columns behind
/// those of `shape`, whose first number is `rows`.
pub(crate) fn sum_parts(parts: CubeTensor, shape: [usize; 4]) -> CubeTensor {
    let [count_parts, rows, columns] = parts.meta.shape().dims();
    let out = contiguous(&parts, shape, DType::F32);
    let client = parts.client.clone();
    let (count, dim) = one_each(&client, out.meta.num_elements());
    sum_parts_kernel::launch(
        &client,
        count,
        dim,
        parts.into_tensor_arg(),
        out.clone().into_linear_view(),
        shape[1] * shape[2] * shape[3],
        count_parts,
        rows * columns,
        columns,
    );
    out
}

#[cube(launch)]
fn sum_parts_kernel(
    parts: &Tensor<f32>,
    mut out: LinearViewMut<'_, f32>,
    kept: FastDivmod<usize>,
    count: usize,
    stride_part: usize,
    stride_row: usize,
) {
    if !out.is_in_bounds(ABSOLUTE_POS) {
        terminate!();
    }
    let (row, column) = kept.div_mod(ABSOLUTE_POS);
    let first = row * stride_row + column;
    // Four sums at a time: four reads are on their way.
    let mut sum_0 = 0.0f32;
    let mut sum_1 = 0.0f32;
    let mut sum_2 = 0.0f32;
    let mut sum_3 = 0.0f32;
    let mut part = 0usize;
    while part + 4 <= count {
        let at = first + part * stride_part;
        sum_0 += parts[at];
        sum_1 += parts[at + stride_part];
        sum_2 += parts[at + 2 * stride_part];
        sum_3 += parts[at + 3 * stride_part];
        part += 4;
    }
    while part < count {
        sum_0 += parts[first + part * stride_part];
        part += 1;
    }
    out.write(ABSOLUTE_POS, (sum_0 + sum_1) + (sum_2 + sum_3));
}

/// Elements that a thread moves at once: several channels where they lie next to each other.
fn step(map: &CubeTensor, columns: usize) -> usize {
    let (channels, strides) = (map.meta.shape()[3], map.meta.strides());
    let fits = |step: &usize| {
        channels.is_multiple_of(*step)
            && columns.is_multiple_of(*step)
            && strides[..3].iter().all(|stride| stride.is_multiple_of(*step))
    };
    match strides[3] {
        1 => map.client.io_optimized_vector_sizes(map.dtype.size()).find(fits).unwrap_or(1),
        _ => 1,
    }
}
