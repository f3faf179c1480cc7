//! Average and max pooling over `[H][W][N][C]`.
//!
//! A pixel is one contiguous row of `N x C` values, so pooling is elementwise arithmetic on rows.

use crate::parallel::block_size;
use crate::parallel::prelude::*;

use crate::element::Element;
use crate::error::{ShapeError, elements, expect_len, parameter};
use crate::isa::Isa;
use crate::simd::{Kernel, Simd, dispatch};

/// Elements that one task of the global pooling averages.
const CHUNK: usize = block_size(4096, 16);
/// Sums held at a time, few enough for the first-level cache.
const SUMS: usize = block_size(1024, 8);

/// Computes `out[i] = after(sum of before(x[row + i]))` over the start indices of rows, in `f32`.
fn sum_rows<A: Element, B: Element, R: Iterator<Item = usize>>(
    x: &[A],
    rows: impl Fn() -> R,
    before: impl Fn(f32) -> f32,
    after: impl Fn(f32) -> f32,
    out: &mut [B],
) {
    let mut sums = [0.0f32; SUMS];
    for (block, out) in out.chunks_mut(SUMS).enumerate() {
        let sums = &mut sums[..out.len()];
        sums.fill(0.0);
        for row in rows() {
            for (sum, x) in sums.iter_mut().zip(&x[row + block * SUMS..]) {
                *sum += before(x.widen());
            }
        }
        for (out, sum) in out.iter_mut().zip(sums) {
            *out = B::narrow(after(*sum));
        }
    }
}

/// A pooling window over images of one size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolWindow {
    /// Height and width of the input, in pixels.
    pub input: [usize; 2],
    /// Height and width of the window.
    pub kernel: [usize; 2],
    /// Vertical and horizontal stride.
    pub stride: [usize; 2],
    /// Padding above and below, left and right; at most half the window.
    pub padding: [usize; 2],
}

impl PoolWindow {
    /// Height and width of the output.
    #[must_use]
    pub fn output(&self) -> [usize; 2] {
        std::array::from_fn(|d| {
            let padded = self.input[d].saturating_add(self.padding[d].saturating_mul(2));
            match (padded.checked_sub(self.kernel[d]), self.stride[d]) {
                (Some(room), stride @ 1..) if self.input[d] > 0 => {
                    (room / stride).saturating_add(1)
                }
                _ => 0,
            }
        })
    }

    /// Checks the window, and the lengths `input` and `output` for `row = N x C` values per pixel.
    fn check(&self, row: usize, input: usize, output: usize) -> Result<(), ShapeError> {
        if self.kernel.contains(&0) || self.stride.contains(&0) {
            return Err(parameter("pooling window", "kernel and stride must be at least 1"));
        }
        if (0..2).any(|d| self.padding[d] > self.kernel[d] / 2) {
            return Err(parameter("pooling window", "padding must be at most half the kernel"));
        }
        for d in 0..2 {
            // Positions are formed with both paddings before they are compared with the image, so
            // the sum must fit.
            if self.padding[d].checked_mul(2).and_then(|p| p.checked_add(self.input[d])).is_none() {
                let dims = vec![self.input[d], self.padding[d]];
                return Err(ShapeError::Overflow { what: "padded pooling input", dims });
            }
        }
        if u32::try_from(self.input[0].saturating_mul(self.input[1])).is_err() {
            return Err(parameter("pooling window", "the image has more than 2^32 pixels"));
        }
        let [h, w] = self.output();
        expect_len(
            "pooling input",
            input,
            elements("pooling input", &[self.input[0], self.input[1], row])?,
        )?;
        expect_len("pooling output", output, elements("pooling output", &[h, w, row])?)
    }

    /// One over the number of pixels of the window.
    fn scale(&self) -> f32 {
        // `f64` is exact up to 2^53 pixels, and does not overflow beyond.
        let pixels = self.kernel[0] as f64 * self.kernel[1] as f64;
        1.0 / pixels as f32
    }

    /// Input pixels under the window of output pixel `index`.
    fn inputs(&self, index: usize) -> impl Iterator<Item = usize> + use<> {
        let width = self.output()[1];
        let ranges = [index / width, index % width];
        let window = *self;
        let range = move |d: usize| {
            let start = ranges[d] * window.stride[d];
            let end = (start + window.kernel[d]).saturating_sub(window.padding[d]);
            start.saturating_sub(window.padding[d])..end.min(window.input[d])
        };
        range(0).flat_map(move |y| range(1).map(move |x| y * window.input[1] + x))
    }

    /// Output pixels whose window covers input pixel `index`.
    fn outputs(&self, index: usize) -> impl Iterator<Item = usize> + use<> {
        let at = [index / self.input[1], index % self.input[1]];
        let (window, size) = (*self, self.output());
        let range = move |d: usize| {
            let padded = at[d] + window.padding[d];
            let first = (padded + 1).saturating_sub(window.kernel[d]).div_ceil(window.stride[d]);
            first..(padded / window.stride[d] + 1).min(size[d])
        };
        range(0).flat_map(move |y| range(1).map(move |x| y * size[1] + x))
    }

    /// Averages each window of `x` to `y`; padding counts as zeros (PyTorch's default). `row = N x
    /// C` is the number of values per pixel.
    ///
    /// # Errors
    /// [`ShapeError`] when the window is empty, its padding too large, or a slice does not fit.
    #[inline(never)]
    pub fn average<E: Element>(&self, row: usize, x: &[E], y: &mut [E]) -> Result<(), ShapeError> {
        self.check(row, x.len(), y.len())?;
        if y.is_empty() {
            return Ok(());
        }
        let scale = self.scale();
        y.par_chunks_exact_mut(row).enumerate().for_each(|(pixel, y)| {
            sum_rows(
                x,
                || self.inputs(pixel).map(|source| source * row),
                |x| x,
                |sum| sum * scale,
                y,
            );
        });
        Ok(())
    }

    /// Gradient of [`PoolWindow::average`]: distributes each `dy` evenly over its window.
    ///
    /// # Errors
    /// [`ShapeError`] when the window is empty, its padding too large, or a slice does not fit.
    #[inline(never)]
    pub fn average_grad<E: Element>(
        &self,
        row: usize,
        dy: &[E],
        dx: &mut [E],
    ) -> Result<(), ShapeError> {
        self.check(row, dx.len(), dy.len())?;
        if dx.is_empty() {
            return Ok(());
        }
        let scale = self.scale();
        dx.par_chunks_exact_mut(row).enumerate().for_each(|(pixel, dx)| {
            sum_rows(
                dy,
                || self.outputs(pixel).map(|target| target * row),
                |dy| dy * scale,
                |sum| sum,
                dx,
            );
        });
        Ok(())
    }

    /// Writes the maximum of each window to `y` and the input pixel (`y * W + x`) it came from to
    /// the index. The first of equal values wins, and a NaN in the window wins over all, as in
    /// PyTorch.
    ///
    /// # Errors
    /// [`ShapeError`] when the window is empty, its padding too large, or a slice does not fit.
    #[inline(never)]
    pub fn max<E: Element>(
        &self,
        isa: Isa,
        row: usize,
        x: &[E],
        y: &mut [E],
        indices: &mut [u32],
    ) -> Result<(), ShapeError> {
        self.check(row, x.len(), y.len())?;
        expect_len("pooling indices", indices.len(), y.len())?;
        if y.is_empty() {
            return Ok(());
        }
        y.par_chunks_exact_mut(row).zip(indices.par_chunks_exact_mut(row)).enumerate().for_each(
            |(pixel, (y, indices))| {
                let kernel = MaxOf { sources: self.inputs(pixel), x, y, indices };
                // SAFETY: `MaxOf::run` needs nothing but the features of the instruction set, which
                // `dispatch` checks.
                unsafe { dispatch(isa, kernel) };
            },
        );
        Ok(())
    }

    /// Gradient of [`PoolWindow::max`]: adds each `dy` to the input pixel that gave the maximum.
    ///
    /// # Errors
    /// [`ShapeError`] when the window is empty, its padding too large, or a slice does not fit.
    #[inline(never)]
    pub fn max_grad<E: Element>(
        &self,
        isa: Isa,
        row: usize,
        dy: &[E],
        indices: &[u32],
        dx: &mut [E],
    ) -> Result<(), ShapeError> {
        self.check(row, dx.len(), dy.len())?;
        expect_len("pooling indices", indices.len(), dy.len())?;
        if dx.is_empty() {
            return Ok(());
        }
        dx.par_chunks_exact_mut(row).enumerate().for_each(|(pixel, dx)| {
            let targets = || self.outputs(pixel);
            let kernel = MaxGrad { targets, pixel: pixel as u32, row, dy, indices, dx };
            // SAFETY: `MaxGrad::run` needs nothing but the features of the instruction set, which
            // `dispatch` checks.
            unsafe { dispatch(isa, kernel) };
        });
        Ok(())
    }
}

/// The maximum of one window, and where each value came from.
struct MaxOf<'a, I, E> {
    /// Input pixels under the window.
    sources: I,
    x: &'a [E],
    y: &'a mut [E],
    indices: &'a mut [u32],
}

impl<I: Iterator<Item = usize>, E: Element> Kernel for MaxOf<'_, I, E> {
    type Element = E;
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(mut self) {
        let row = self.y.len();
        if let Some(first) = self.sources.next() {
            self.y.copy_from_slice(&self.x[first * row..][..row]);
            self.indices.fill(first as u32);
        }
        for source in self.sources {
            let values = &self.x[source * row..][..row];
            let outputs = self.y.iter_mut().zip(self.indices.iter_mut());
            for ((y, index), &x) in outputs.zip(values) {
                let (new, old) = (x.widen(), y.widen());
                // Both values are written in any case and without branches, so that the loop
                // becomes vector code.
                let wins = (new > old) | (new.is_nan() & !old.is_nan());
                *y = if wins { x } else { *y };
                *index = if wins { source as u32 } else { *index };
            }
        }
    }
}

/// The gradient of one input pixel of a max pool.
struct MaxGrad<'a, F, E> {
    /// Output pixels whose window covers the pixel.
    targets: F,
    pixel: u32,
    row: usize,
    dy: &'a [E],
    indices: &'a [u32],
    dx: &'a mut [E],
}

impl<I: Iterator<Item = usize>, F: Fn() -> I, E: Element> Kernel for MaxGrad<'_, F, E> {
    type Element = E;
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Self { targets, pixel, row, dy, indices, dx } = self;
        let mut sums = [0.0f32; SUMS];
        for (block, dx) in dx.chunks_mut(SUMS).enumerate() {
            let sums = &mut sums[..dx.len()];
            sums.fill(0.0);
            for target in targets() {
                let start = target * row + block * SUMS;
                let targets = dy[start..].iter().zip(&indices[start..]);
                for (sum, (dy, &index)) in sums.iter_mut().zip(targets) {
                    let sum_with = *sum + dy.widen();
                    *sum = if index == pixel { sum_with } else { *sum };
                }
            }
            for (dx, sum) in dx.iter_mut().zip(sums) {
                *dx = E::narrow(*sum);
            }
        }
    }
}

/// Mean over all pixels: `x`, `[pixels][N x C]`, to `y`, `[N x C]`. `y` may have another storage
/// type, for example `f32` for the features of the last layer.
///
/// # Errors
/// [`ShapeError`] when `x` does not hold `pixels` rows of `y.len()`, or `pixels` is zero.
#[inline(never)]
pub fn global_average<A: Element, B: Element>(
    pixels: usize,
    x: &[A],
    y: &mut [B],
) -> Result<(), ShapeError> {
    if pixels == 0 {
        return Err(parameter("global average pooling", "needs at least one pixel"));
    }
    let row = y.len();
    expect_len("pooling input", x.len(), elements("pooling input", &[pixels, row])?)?;
    let scale = 1.0 / pixels as f32;
    y.par_chunks_mut(CHUNK).enumerate().for_each(|(block, y)| {
        sum_rows(
            x,
            || (0..pixels).map(|pixel| pixel * row + block * CHUNK),
            |x| x,
            |sum| sum * scale,
            y,
        );
    });
    Ok(())
}

/// Gradient of [`global_average`]: each pixel gets `dy / pixels`.
///
/// # Errors
/// [`ShapeError`] when `dx` does not hold `pixels` rows of `dy.len()`, or `pixels` is zero.
#[inline(never)]
pub fn global_average_grad<A: Element, B: Element>(
    pixels: usize,
    dy: &[A],
    dx: &mut [B],
) -> Result<(), ShapeError> {
    if pixels == 0 {
        return Err(parameter("global average pooling", "needs at least one pixel"));
    }
    let row = dy.len();
    expect_len("pooling input", dx.len(), elements("pooling input", &[pixels, row])?)?;
    if row == 0 {
        return Ok(());
    }
    let scale = 1.0 / pixels as f32;
    dx.par_chunks_exact_mut(row).for_each(|dx| {
        for (dx, dy) in dx.iter_mut().zip(dy) {
            *dx = B::narrow(dy.widen() * scale);
        }
    });
    Ok(())
}
