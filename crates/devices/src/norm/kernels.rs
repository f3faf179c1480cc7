//! The kernels of batch norm.

use cubecl::{
    prelude::*,
    std::{
        FastDivmod,
        tensor::layout::linear::{LinearView, LinearViewMut},
    },
};

use super::THREADS;

/// The sum of `value` over the threads of one column of the cube.
#[cube]
fn column_sum(value: f32, #[comptime] lanes: usize) -> f32 {
    let depth = comptime!(THREADS / lanes);
    let mut shared = Shared::<[f32]>::new_slice(THREADS);
    let lane = UNIT_POS_X as usize;
    shared[UNIT_POS_Y as usize * lanes + lane] = value;
    sync_cube();
    let mut sum = 0.0f32;
    #[unroll]
    for y in 0..depth {
        sum += shared[y * lanes + lane];
    }
    // Before the next sum overwrites it.
    sync_cube();
    sum
}

/// Sums and sums of squares of differences from the first row, which keeps the squares small.
#[cube(launch)]
pub(super) fn moments_kernel<E: Numeric>(
    x: &Tensor<E>,
    sums: &mut Tensor<f32>,
    squares: &mut Tensor<f32>,
    rows: usize,
    channels: usize,
    rows_each: usize,
    #[comptime] lanes: usize,
    #[define(E)] _dtype: ElemType,
) {
    let depth = comptime!(THREADS / lanes);
    let channel = CUBE_POS_X as usize * lanes + UNIT_POS_X as usize;
    let part = CUBE_POS_Y as usize;
    let mut sum = 0.0f32;
    let mut square = 0.0f32;
    if channel < channels {
        let origin = f32::cast_from(x[channel]);
        let end = (part + 1) * rows_each;
        let mut row = part * rows_each + UNIT_POS_Y as usize;
        while row < end && row < rows {
            let value = f32::cast_from(x[row * channels + channel]) - origin;
            sum += value;
            square += value * value;
            row += depth;
        }
    }
    let sum = column_sum(sum, lanes);
    let square = column_sum(square, lanes);
    if UNIT_POS_Y == 0 && channel < channels {
        sums[part * channels + channel] = sum;
        squares[part * channels + channel] = square;
    }
}

#[cube(launch)]
pub(super) fn statistics_kernel<E: Numeric>(
    x: &Tensor<E>,
    sums: &Tensor<f32>,
    squares: &Tensor<f32>,
    mean: &mut Tensor<f32>,
    variance: &mut Tensor<f32>,
    parts: usize,
    channels: usize,
    share: f32,
    #[comptime] lanes: usize,
    #[define(E)] _dtype: ElemType,
) {
    let channel = CUBE_POS_X as usize * lanes + UNIT_POS_X as usize;
    let sum = column_sum(column_of(sums, parts, channel, channels, lanes), lanes) * share;
    let square = column_sum(column_of(squares, parts, channel, channels, lanes), lanes) * share;
    if UNIT_POS_Y == 0 && channel < channels {
        mean[channel] = f32::cast_from(x[channel]) + sum;
        variance[channel] = f32::max(square - sum * sum, 0.0f32);
    }
}

/// The sum of each column of two matrices; the third number of a cube says which.
#[cube(launch)]
pub(super) fn totals_kernel(
    first: &Tensor<f32>,
    second: &Tensor<f32>,
    of_first: &mut Tensor<f32>,
    of_second: &mut Tensor<f32>,
    count: usize,
    channels: usize,
    #[comptime] lanes: usize,
) {
    let channel = CUBE_POS_X as usize * lanes + UNIT_POS_X as usize;
    let share = if CUBE_POS_Z == 0 {
        column_of(first, count, channel, channels, lanes)
    } else {
        column_of(second, count, channel, channels, lanes)
    };
    let sum = column_sum(share, lanes);
    if UNIT_POS_Y == 0 && channel < channels {
        if CUBE_POS_Z == 0 {
            of_first[channel] = sum;
        } else {
            of_second[channel] = sum;
        }
    }
}

/// This thread's share of the sum of column `channel` of `parts`.
#[cube]
fn column_of(
    parts: &Tensor<f32>,
    count: usize,
    channel: usize,
    channels: usize,
    #[comptime] lanes: usize,
) -> f32 {
    let depth = comptime!(THREADS / lanes);
    // Four sums at a time: four reads are on their way.
    let mut sum_0 = 0.0f32;
    let mut sum_1 = 0.0f32;
    let mut sum_2 = 0.0f32;
    let mut sum_3 = 0.0f32;
    if channel < channels {
        let stride = depth * channels;
        let mut part = UNIT_POS_Y as usize;
        while part + 3 * depth < count {
            let at = part * channels + channel;
            sum_0 += parts[at];
            sum_1 += parts[at + stride];
            sum_2 += parts[at + 2 * stride];
            sum_3 += parts[at + 3 * stride];
            part += 4 * depth;
        }
        while part < count {
            sum_0 += parts[part * channels + channel];
            part += depth;
        }
    }
    (sum_0 + sum_1) + (sum_2 + sum_3)
}

#[cube(launch)]
pub(super) fn normalize_kernel<E: Numeric, V: Size>(
    x: LinearView<'_, Vector<E, V>>,
    mut y: LinearViewMut<'_, Vector<E, V>>,
    mean: &Tensor<f32>,
    variance: &Tensor<f32>,
    gamma: &Tensor<f32>,
    beta: &Tensor<f32>,
    channels: FastDivmod<usize>,
    epsilon: f32,
    #[comptime] relu: bool,
    #[define(E)] _dtype: ElemType,
) {
    if !y.is_in_bounds(ABSOLUTE_POS) {
        terminate!();
    }
    let (_row, group) = channels.div_mod(ABSOLUTE_POS);
    let read = x.read(ABSOLUTE_POS);
    let mut written = Vector::<E, V>::zeroed();
    #[unroll]
    for lane in 0..V::value() {
        let channel = group * V::value() + lane;
        let centred = f32::cast_from(read.extract(lane)) - mean[channel];
        let normed = centred * f32::inverse_sqrt(variance[channel] + epsilon);
        let mut value = normed * gamma[channel] + beta[channel];
        if relu {
            // NaN stays NaN.
            value = select(value <= 0.0f32, 0.0f32, value);
        }
        written.insert(lane, E::cast_from(value));
    }
    y.write(ABSOLUTE_POS, written);
}

#[cube(launch)]
pub(super) fn gradient_sums_kernel<E: Numeric>(
    x: &Tensor<E>,
    dy: &Tensor<E>,
    mean: &Tensor<f32>,
    variance: &Tensor<f32>,
    gamma: &Tensor<f32>,
    beta: &Tensor<f32>,
    plain: &mut Tensor<f32>,
    weighted: &mut Tensor<f32>,
    rows: usize,
    channels: usize,
    rows_each: usize,
    epsilon: f32,
    #[comptime] relu: bool,
    #[comptime] lanes: usize,
    #[define(E)] _dtype: ElemType,
) {
    let depth = comptime!(THREADS / lanes);
    let channel = CUBE_POS_X as usize * lanes + UNIT_POS_X as usize;
    let part = CUBE_POS_Y as usize;
    let mut sum = 0.0f32;
    let mut product = 0.0f32;
    if channel < channels {
        let centre = mean[channel];
        let scale = f32::inverse_sqrt(variance[channel] + epsilon);
        let factor = gamma[channel];
        let shift = beta[channel];
        let end = (part + 1) * rows_each;
        let mut row = part * rows_each + UNIT_POS_Y as usize;
        while row < end && row < rows {
            let at = row * channels + channel;
            let normed = (f32::cast_from(x[at]) - centre) * scale;
            let mut grad = f32::cast_from(dy[at]);
            if relu {
                grad = select(normed * factor + shift <= 0.0f32, 0.0f32, grad);
            }
            sum += grad;
            product += grad * normed;
            row += depth;
        }
    }
    let sum = column_sum(sum, lanes);
    let product = column_sum(product, lanes);
    if UNIT_POS_Y == 0 && channel < channels {
        plain[part * channels + channel] = sum;
        weighted[part * channels + channel] = product;
    }
}

#[cube(launch)]
pub(super) fn gradient_kernel<E: Numeric, V: Size>(
    x: LinearView<'_, Vector<E, V>>,
    dy: LinearView<'_, Vector<E, V>>,
    mut dx: LinearViewMut<'_, Vector<E, V>>,
    mean: &Tensor<f32>,
    variance: &Tensor<f32>,
    gamma: &Tensor<f32>,
    beta: &Tensor<f32>,
    dbeta: &Tensor<f32>,
    dgamma: &Tensor<f32>,
    channels: FastDivmod<usize>,
    share: f32,
    epsilon: f32,
    #[comptime] relu: bool,
    #[define(E)] _dtype: ElemType,
) {
    if !dx.is_in_bounds(ABSOLUTE_POS) {
        terminate!();
    }
    let (_row, group) = channels.div_mod(ABSOLUTE_POS);
    let read = x.read(ABSOLUTE_POS);
    let grads = dy.read(ABSOLUTE_POS);
    let mut written = Vector::<E, V>::zeroed();
    #[unroll]
    for lane in 0..V::value() {
        let channel = group * V::value() + lane;
        let scale = f32::inverse_sqrt(variance[channel] + epsilon);
        let normed = (f32::cast_from(read.extract(lane)) - mean[channel]) * scale;
        let mut grad = f32::cast_from(grads.extract(lane));
        if relu {
            grad = select(normed * gamma[channel] + beta[channel] <= 0.0f32, 0.0f32, grad);
        }
        let centred = grad - dbeta[channel] * share - normed * dgamma[channel] * share;
        written.insert(lane, E::cast_from(centred * gamma[channel] * scale));
    }
    dx.write(ABSOLUTE_POS, written);
}
