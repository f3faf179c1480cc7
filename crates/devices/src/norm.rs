//! Batch norm with the batch's own statistics and the ReLU behind it: one pass over memory for the
//! statistics and one for the result, and the same on the way back. Ioffe and Szegedy 2015, arXiv
//! 1502.03167.
//!
//! Feature maps are `[N, C, H, W]` by name and `[N, H, W, C]` in memory, so each is a matrix of a row
//! for each pixel. Sums are f32.

use burn::tensor::DType;
use burn_cubecl::{
    kernel::into_contiguous,
    ops::{permute_nchw_to_nhwc, permute_nhwc_to_nchw},
    tensor::CubeTensor,
};
use cubecl::{
    calculate_cube_count_elemwise,
    prelude::*,
    std::FastDivmod,
    std::tensor::layout::linear::{LinearView, LinearViewMut},
};

use crate::{contiguous, elem};

/// Threads of a cube of the kernels that sum.
const THREADS: usize = 256;

/// What a batch norm is besides its tensors.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Added to the variance.
    pub epsilon: f32,
    /// Whether ReLU follows.
    pub relu: bool,
}

/// The result for `x` `[N, C, H, W]`, in its type, with the mean and the biased variance of each
/// channel; gamma and beta are `[C]` in f32.
pub fn forward(
    x: CubeTensor,
    [gamma, beta]: [CubeTensor; 2],
    plan: Plan,
) -> (CubeTensor, CubeTensor, CubeTensor) {
    let x = into_contiguous(permute_nchw_to_nhwc(x));
    let shape = Shape4::of(&x);
    let [mean, variance] = statistics(&x, shape);
    let y = contiguous(&x, x.meta.shape().clone(), x.dtype);
    let (count, dim, step) = elementwise(&x, shape.channels);
    normalize_kernel::launch(
        &x.client.clone(),
        count,
        dim,
        step,
        x.clone().into_linear_view(),
        y.clone().into_linear_view(),
        mean.clone().into_tensor_arg(),
        variance.clone().into_tensor_arg(),
        into_contiguous(gamma).into_tensor_arg(),
        into_contiguous(beta).into_tensor_arg(),
        shape.channels / step,
        plan.epsilon,
        plan.relu,
        elem(&x),
    );
    (permute_nhwc_to_nchw(y), mean, variance)
}

/// The gradients by `x`, gamma and beta, from the gradient `dy` of the result's type and shape and
/// the statistics that [`forward`] returned.
pub fn backward(
    x: CubeTensor,
    dy: CubeTensor,
    [gamma, beta]: [CubeTensor; 2],
    [mean, variance]: [CubeTensor; 2],
    plan: Plan,
) -> (CubeTensor, CubeTensor, CubeTensor) {
    let [x, dy] = [x, dy].map(|t| into_contiguous(permute_nchw_to_nhwc(t)));
    let [gamma, beta, mean, variance] = [gamma, beta, mean, variance].map(into_contiguous);
    let shape = Shape4::of(&x);
    let grid = Grid::of(shape);
    let parts = || contiguous(&x, [grid.parts, shape.channels], DType::F32);
    let (first, second) = (parts(), parts());
    let args = || [&gamma, &beta, &mean, &variance].map(|t| t.clone().into_tensor_arg());
    let [gamma_arg, beta_arg, mean_arg, variance_arg] = args();
    gradient_sums_kernel::launch(
        &x.client.clone(),
        grid.count(grid.parts),
        grid.dim(),
        x.clone().into_tensor_arg(),
        dy.clone().into_tensor_arg(),
        mean_arg,
        variance_arg,
        gamma_arg,
        beta_arg,
        first.clone().into_tensor_arg(),
        second.clone().into_tensor_arg(),
        shape.rows,
        shape.channels,
        grid.rows,
        plan.epsilon,
        plan.relu,
        grid.lanes,
        elem(&x),
    );
    let [dbeta, dgamma] = [first, second].map(|parts| total(parts, grid, shape.channels));
    let dx = contiguous(&x, x.meta.shape().clone(), x.dtype);
    let (count, dim, step) = elementwise(&x, shape.channels);
    let [gamma_arg, beta_arg, mean_arg, variance_arg] = args();
    gradient_kernel::launch(
        &x.client.clone(),
        count,
        dim,
        step,
        x.clone().into_linear_view(),
        dy.into_linear_view(),
        dx.clone().into_linear_view(),
        mean_arg,
        variance_arg,
        gamma_arg,
        beta_arg,
        dbeta.clone().into_tensor_arg(),
        dgamma.clone().into_tensor_arg(),
        shape.channels / step,
        1.0 / shape.rows as f32,
        plan.epsilon,
        plan.relu,
        elem(&x),
    );
    (permute_nhwc_to_nchw(dx), dgamma, dbeta)
}

/// A map as a matrix.
#[derive(Clone, Copy)]
struct Shape4 {
    rows: usize,
    channels: usize,
}

impl Shape4 {
    fn of(map: &CubeTensor) -> Self {
        let [n, height, width, channels] = map.meta.shape().dims();
        Self { rows: n * height * width, channels }
    }
}

/// How a sum over the rows of a matrix is shared out: to cubes for `rows` rows and `lanes` columns
/// each, and in a cube to `THREADS / lanes` rows of threads.
#[derive(Clone, Copy)]
struct Grid {
    lanes: usize,
    rows: usize,
    parts: usize,
    columns: usize,
}

impl Grid {
    fn of(Shape4 { rows, channels }: Shape4) -> Self {
        let lanes = channels.next_power_of_two().min(32);
        let columns = channels.div_ceil(lanes);
        // Enough cubes for a large card; each thread sums eight rows at least.
        let parts = (rows / (8 * THREADS / lanes)).clamp(1, (1024 / columns).max(1));
        let rows_each = rows.div_ceil(parts);
        Self { lanes, rows: rows_each, parts: rows.div_ceil(rows_each), columns }
    }

    fn dim(self) -> CubeDim {
        CubeDim::new_2d(self.lanes as u32, (THREADS / self.lanes) as u32)
    }

    fn count(self, parts: usize) -> CubeCount {
        CubeCount::Static(self.columns as u32, parts as u32, 1)
    }
}

/// Threads for each element of a map, or for several channels where their number allows.
fn elementwise(map: &CubeTensor, channels: usize) -> (CubeCount, CubeDim, usize) {
    let step = if channels.is_multiple_of(4) { 4 } else { 1 };
    let threads = map.meta.num_elements() / step;
    let dim = CubeDim::new(&map.client, threads);
    (calculate_cube_count_elemwise(&map.client, threads, dim), dim, step)
}

/// Mean and biased variance of each channel of `x`.
fn statistics(x: &CubeTensor, shape: Shape4) -> [CubeTensor; 2] {
    let grid = Grid::of(shape);
    let parts = || contiguous(x, [grid.parts, shape.channels], DType::F32);
    let (sums, squares) = (parts(), parts());
    moments_kernel::launch(
        &x.client.clone(),
        grid.count(grid.parts),
        grid.dim(),
        x.clone().into_tensor_arg(),
        sums.clone().into_tensor_arg(),
        squares.clone().into_tensor_arg(),
        shape.rows,
        shape.channels,
        grid.rows,
        grid.lanes,
        elem(x),
    );
    let [mean, variance] = [0, 1].map(|_| contiguous(x, [shape.channels], DType::F32));
    statistics_kernel::launch(
        &x.client.clone(),
        grid.count(1),
        grid.dim(),
        x.clone().into_tensor_arg(),
        sums.into_tensor_arg(),
        squares.into_tensor_arg(),
        mean.clone().into_tensor_arg(),
        variance.clone().into_tensor_arg(),
        grid.parts,
        shape.channels,
        1.0 / shape.rows as f32,
        grid.lanes,
        elem(x),
    );
    [mean, variance]
}

/// Sum of each column of `parts`.
fn total(parts: CubeTensor, grid: Grid, channels: usize) -> CubeTensor {
    let out = contiguous(&parts, [channels], DType::F32);
    total_kernel::launch(
        &parts.client.clone(),
        grid.count(1),
        grid.dim(),
        parts.into_tensor_arg(),
        out.clone().into_tensor_arg(),
        grid.parts,
        channels,
        grid.lanes,
    );
    out
}

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
fn moments_kernel<E: Numeric>(
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
fn statistics_kernel<E: Numeric>(
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

#[cube(launch)]
fn total_kernel(
    parts: &Tensor<f32>,
    out: &mut Tensor<f32>,
    count: usize,
    channels: usize,
    #[comptime] lanes: usize,
) {
    let channel = CUBE_POS_X as usize * lanes + UNIT_POS_X as usize;
    let sum = column_sum(column_of(parts, count, channel, channels, lanes), lanes);
    if UNIT_POS_Y == 0 && channel < channels {
        out[channel] = sum;
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
    let mut sum = 0.0f32;
    if channel < channels {
        let mut part = UNIT_POS_Y as usize;
        while part < count {
            sum += parts[part * channels + channel];
            part += depth;
        }
    }
    sum
}

#[cube(launch)]
fn normalize_kernel<E: Numeric, V: Size>(
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
fn gradient_sums_kernel<E: Numeric>(
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
fn gradient_kernel<E: Numeric, V: Size>(
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

#[cfg(all(test, feature = "vulkan"))]
mod tests {
    use super::*;
    use crate::testing::{close, noise, read, tensor};

    /// The result and the gradients by x, gamma and beta, in f64.
    fn by_definition(
        x: &[f32],
        dy: &[f32],
        [gamma, beta]: [&[f32]; 2],
        [n, channels, pixels]: [usize; 3],
        plan: Plan,
    ) -> [Vec<f32>; 4] {
        let count = (n * pixels) as f64;
        let (mut y, mut dx) = (vec![0.0; x.len()], vec![0.0; x.len()]);
        let (mut dgamma, mut dbeta) = (vec![0.0; channels], vec![0.0; channels]);
        for c in 0..channels {
            let places: Vec<usize> =
                (0..x.len()).filter(|at| at / pixels % channels == c).collect();
            let mean = places.iter().map(|&at| f64::from(x[at])).sum::<f64>() / count;
            let square = |at: &usize| (f64::from(x[*at]) - mean).powi(2);
            let variance = places.iter().map(square).sum::<f64>() / count;
            let scale = (variance + f64::from(plan.epsilon)).sqrt().recip();
            let (gamma, beta) = (f64::from(gamma[c]), f64::from(beta[c]));
            let normed = |at: usize| (f64::from(x[at]) - mean) * scale;
            let value = |at: usize| normed(at) * gamma + beta;
            let grad = |at: usize| {
                if plan.relu && value(at) <= 0.0 { 0.0 } else { f64::from(dy[at]) }
            };
            let sum = |f: &dyn Fn(usize) -> f64| places.iter().map(|&at| f(at)).sum::<f64>();
            let (plain, weighted) = (sum(&grad), sum(&|at| grad(at) * normed(at)));
            (dgamma[c], dbeta[c]) = (weighted as f32, plain as f32);
            for &at in &places {
                y[at] = if plan.relu { value(at).max(0.0) } else { value(at) } as f32;
                let centred = grad(at) - plain / count - normed(at) * weighted / count;
                dx[at] = (centred * gamma * scale) as f32;
            }
        }
        [y, dx, dgamma, dbeta]
    }

    #[test]
    fn results_and_gradients_are_those_of_the_definition() {
        for (shape, offset) in [
            ([2, 3, 5, 4], 0.0),
            ([4, 8, 16, 16], 0.0),
            ([3, 64, 4, 4], 0.0),
            ([1, 72, 3, 3], 0.0),
            // Far from 0, where the mean of the squares is nearly the square of the mean.
            ([4, 8, 16, 16], 1000.0),
        ] {
            let [n, channels, height, width] = shape;
            let len = shape.iter().product();
            let x: Vec<f32> = noise(len, 1).iter().map(|v| v + offset).collect();
            let dy = noise(len, 2);
            let (gamma, beta) = (noise(channels, 3), noise(channels, 4));
            for relu in [false, true] {
                let plan = Plan { epsilon: 1e-5, relu };
                let sizes = [n, channels, height * width];
                let [y, dx, dgamma, dbeta] = by_definition(&x, &dy, [&gamma, &beta], sizes, plan);
                let tolerance = if offset == 0.0 { 1e-5 } else { 1e-3 };
                let of = |values: &[f32]| tensor(values, [channels]);
                let (found, mean, variance) =
                    forward(tensor(&x, shape), [of(&gamma), of(&beta)], plan);
                close(&read(found), &y, tolerance);
                let (found, of_gamma, of_beta) = backward(
                    tensor(&x, shape),
                    tensor(&dy, shape),
                    [of(&gamma), of(&beta)],
                    [mean, variance],
                    plan,
                );
                if offset == 0.0 {
                    // Elsewhere rounding moves values over 0.
                    close(&read(found), &dx, tolerance);
                    close(&read(of_gamma), &dgamma, tolerance);
                    close(&read(of_beta), &dbeta, tolerance);
                }
            }
        }
    }
}
