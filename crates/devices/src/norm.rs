//! Batch norm with the batch's own statistics and the ReLU behind it: one pass over memory for the
//! statistics and one for the result, and the same on the way back. Ioffe and Szegedy 2015, arXiv
//! 1502.03167.
//!
//! Feature maps are `[N, C, H, W]` by name and `[N, H, W, C]` in memory, so each is a matrix of a row
//! for each pixel. Sums are f32.

mod kernels;

use burn::tensor::DType;
use burn_cubecl::{
    kernel::into_contiguous,
    ops::{permute_nchw_to_nhwc, permute_nhwc_to_nchw},
    tensor::CubeTensor,
};
use cubecl::prelude::*;
use kernels::{
    gradient_kernel, gradient_sums_kernel, moments_kernel, normalize_kernel, statistics_kernel,
    totals_kernel,
};

use crate::{contiguous, elem, one_each};

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
    let shape = Matrix::of(&x);
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
    let shape = Matrix::of(&x);
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
    let [dbeta, dgamma] = totals([first, second], grid, shape.channels);
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
struct Matrix {
    rows: usize,
    channels: usize,
}

impl Matrix {
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
    fn of(Matrix { rows, channels }: Matrix) -> Self {
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

/// Threads for each element of a map, or for 16 bytes of channels where their number allows.
fn elementwise(map: &CubeTensor, channels: usize) -> (CubeCount, CubeDim, usize) {
    let step = 16 / map.dtype.size();
    let step = if channels.is_multiple_of(step) { step } else { 1 };
    let (count, dim) = one_each(&map.client, map.meta.num_elements() / step);
    (count, dim, step)
}

/// Mean and biased variance of each channel of `x`.
fn statistics(x: &CubeTensor, shape: Matrix) -> [CubeTensor; 2] {
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

/// Sum of each column of two matrices.
fn totals([first, second]: [CubeTensor; 2], grid: Grid, channels: usize) -> [CubeTensor; 2] {
    let out = [0, 1].map(|_| contiguous(&first, [channels], DType::F32));
    let client = first.client.clone();
    totals_kernel::launch(
        &client,
        CubeCount::Static(grid.columns as u32, 1, 2),
        grid.dim(),
        first.into_tensor_arg(),
        second.into_tensor_arg(),
        out[0].clone().into_tensor_arg(),
        out[1].clone().into_tensor_arg(),
        grid.parts,
        channels,
        grid.lanes,
    );
    out
}

#[cfg(all(test, feature = "vulkan"))]
mod tests;
