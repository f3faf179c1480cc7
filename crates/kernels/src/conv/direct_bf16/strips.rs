//! Convolutions of few channels, as those of an image.
//!
//! The three channels under one tap are too few for a product. A *strip* holds the channels under a
//! column of the kernel, of one row of outputs: neighbouring outputs then share their strips, and
//! the convolution goes along the row with a kernel of one row.

use crate::conv::geometry::{ConvGeometry, Direction};
use crate::element::Element;
use crate::isa::Isa;
use crate::parallel::Shared;

/// Most input channels.
const CHANNELS: usize = 8;

/// Whether outputs and weight gradients of `geometry` are computed from strips.
pub(in crate::conv) fn apply(geometry: &ConvGeometry, isa: Isa) -> bool {
    isa == Isa::Avx512Bf16
        && geometry.groups == 1
        && (1..=CHANNELS).contains(&geometry.in_channels)
        && geometry.taps() > 1
        // Every column between two outputs gets a strip.
        && geometry.stride[1] <= geometry.kernel[1]
}

/// Number of values of a strip, even.
pub(super) fn len(geometry: &ConvGeometry) -> usize {
    (geometry.kernel[0] * geometry.in_channels).next_multiple_of(2)
}

/// The convolution of strips along the rows of outputs.
pub(super) fn along_rows(geometry: &ConvGeometry) -> ConvGeometry {
    ConvGeometry {
        in_channels: len(geometry),
        input: [geometry.output()[0], geometry.input[1]],
        kernel: [1, geometry.kernel[1]],
        stride: [1, geometry.stride[1]],
        padding: [0, geometry.padding[1]],
        ..*geometry
    }
}

/// Images whose strips are made.
#[derive(Clone, Copy)]
pub(super) struct Strips<'a, E> {
    pub(super) geometry: &'a ConvGeometry,
    pub(super) n: usize,
    pub(super) x: Shared<E>,
}

impl<E: Element> Strips<'_, E> {
    /// Writes the strips of `count` samples from `first` on, for output row `y` and input column
    /// `x`, as `[sample][kernel row][channel]`. Pixels outside the image and padding are zero.
    ///
    /// # Safety
    /// `out` is writable for `count` strips; the samples and the column exist.
    #[inline(always)]
    pub(super) unsafe fn fill(
        &self,
        y: usize,
        x: usize,
        (first, count): (usize, usize),
        out: *mut E,
    ) {
        let (geometry, channels) = (self.geometry, self.geometry.in_channels);
        // SAFETY: the caller promises room for `count` strips.
        unsafe { out.write_bytes(0, count * len(geometry)) };
        for ky in 0..geometry.kernel[0] {
            let source = geometry.source(Direction::Forward, 0, y, ky, geometry.input[0]);
            let Some(row) = source else { continue };
            let at = ((row * geometry.input[1] + x) * self.n + first) * channels;
            let (x, out) = (self.x.at(at).cast_const(), out.wrapping_add(ky * channels));
            // SAFETY: the row exists, and the caller promises column, samples and room.
            unsafe {
                // A constant number of channels is copied without a loop.
                match channels {
                    1 => copy::<E, 1>(x, out, count, len(geometry)),
                    3 => copy::<E, 3>(x, out, count, len(geometry)),
                    _ => {
                        for sample in 0..count {
                            let (x, out) =
                                (x.add(sample * channels), out.add(sample * len(geometry)));
                            std::ptr::copy_nonoverlapping(x, out, channels);
                        }
                    }
                }
            }
        }
    }
}

impl<E> Strips<'_, E> {
    /// Writes the weight gradient of strips, `[out][strip][kernel column]`, in PyTorch's order.
    pub(super) fn scatter_weights(&self, of_strips: &[f32], dw: &mut [f32]) {
        let (channels, [height, width]) = (self.geometry.in_channels, self.geometry.kernel);
        for (index, value) in dw.iter_mut().enumerate() {
            let (kx, ky) = (index % width, index / width % height);
            let (c, co) = (index / width / height % channels, index / width / height / channels);
            *value = of_strips[(co * len(self.geometry) + ky * channels + c) * width + kx];
        }
    }
}

/// Copies the `C` channels of `count` samples to strips of `len` values.
///
/// # Safety
/// `x` is readable for `count` samples, and `out` is writable for a sample at every strip.
#[inline(always)]
unsafe fn copy<E: Element, const C: usize>(x: *const E, out: *mut E, count: usize, len: usize) {
    for sample in 0..count {
        // SAFETY: the caller promises `count` samples and strips.
        unsafe { std::ptr::copy_nonoverlapping(x.add(sample * C), out.add(sample * len), C) };
    }
}
