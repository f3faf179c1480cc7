//! Converts between PyTorch's `[N][C][H][W]` and this crate's `[H][W][N][C]`, and between storage
//! types on the way.

use crate::parallel::prelude::*;

use crate::element::Element;
use crate::error::{ShapeError, elements, expect_len};

/// Pixels that one task copies: one cache line of an image row.
const PIXELS: usize = 16;

/// Dimensions of a batch of images or feature maps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dimensions {
    /// Batch size.
    pub n: usize,
    /// Channels.
    pub c: usize,
    /// Height in pixels.
    pub h: usize,
    /// Width in pixels.
    pub w: usize,
}

impl Dimensions {
    fn len(&self) -> Result<usize, ShapeError> {
        elements("images", &[self.n, self.c, self.h, self.w])
    }
}

/// Copies `nchw`, `[N][C][H][W]`, to `hwnc`, `[H][W][N][C]`. Values are rounded to nearest, ties to
/// even, where `B` is narrower than `A`.
///
/// # Errors
/// [`ShapeError`] when a slice does not hold `dimensions`.
#[inline(never)]
pub fn nchw_to_hwnc<A: Element, B: Element>(
    dimensions: Dimensions,
    nchw: &[A],
    hwnc: &mut [B],
) -> Result<(), ShapeError> {
    let len = dimensions.len()?;
    expect_len("nchw images", nchw.len(), len)?;
    expect_len("hwnc images", hwnc.len(), len)?;
    if len == 0 {
        return Ok(());
    }
    let Dimensions { n, c, h, w } = dimensions;
    let (row, image) = (n * c, h * w);
    hwnc.par_chunks_mut(row.saturating_mul(PIXELS)).enumerate().for_each(|(block, out)| {
        let first = block * PIXELS;
        for (plane, source) in nchw.chunks_exact(image).enumerate() {
            // Planes come in (sample, channel) order, which is the order within an output pixel.
            for (pixel, &x) in source[first..].iter().take(out.len() / row).enumerate() {
                out[pixel * row + plane] = B::narrow(x.widen());
            }
        }
    });
    Ok(())
}

/// Copies `hwnc`, `[H][W][N][C]`, to `nchw`, `[N][C][H][W]`. Values are rounded to nearest, ties to
/// even, where `B` is narrower than `A`.
///
/// # Errors
/// [`ShapeError`] when a slice does not hold `dimensions`.
#[inline(never)]
pub fn hwnc_to_nchw<A: Element, B: Element>(
    dimensions: Dimensions,
    hwnc: &[A],
    nchw: &mut [B],
) -> Result<(), ShapeError> {
    let len = dimensions.len()?;
    expect_len("hwnc images", hwnc.len(), len)?;
    expect_len("nchw images", nchw.len(), len)?;
    if len == 0 {
        return Ok(());
    }
    let Dimensions { n, c, h, w } = dimensions;
    let (row, image) = (n * c, h * w);
    nchw.par_chunks_mut(c * image).enumerate().for_each(|(sample, out)| {
        for first in (0..image).step_by(PIXELS) {
            for (channel, plane) in out.chunks_exact_mut(image).enumerate() {
                let pixels = plane[first..].iter_mut().take(PIXELS).enumerate();
                for (pixel, y) in pixels {
                    *y = B::narrow(hwnc[(first + pixel) * row + sample * c + channel].widen());
                }
            }
        }
    });
    Ok(())
}
