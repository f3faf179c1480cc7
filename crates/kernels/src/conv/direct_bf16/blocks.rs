//! Input gradient towards few channels, as those of an image.
//!
//! Three channels would fill a fifth of a vector. A vector therefore holds the channels of a block
//! of 2 x 2 input pixels, whose gradients are sums over the same few output pixels: a convolution
//! of the output gradient with a larger kernel, in which weights that a pixel does not have are zero.

use half::bf16;

use super::forward::finish;
use crate::amx;
use crate::buffer::with_scratch;
use crate::conv::epilogue::Output;
use crate::conv::geometry::{ConvGeometry, Direction};
use crate::conv::pass::Pass;
use crate::conv::tasks::{BLOCK_SAMPLES, Tasks};
use crate::element::{Element, Storage};
use crate::isa::Isa;
use crate::pair_tile::pair_rows;
use crate::parallel::for_each;
use crate::simd::{Kernel, Simd, dispatch};
use crate::tile::{Term, Tile, TileStats};

/// Side of a block of input pixels.
const SIDE: usize = 2;
/// Lanes of a vector, which hold the channels of a block.
const LANES: usize = 16;
/// Most channels of the input.
const CHANNELS: usize = LANES / (SIDE * SIDE);
/// Distance in floats between rows of products.
const ROW: usize = amx::BLOCK;

/// Whether this algorithm computes `direction` of `geometry`.
pub(in crate::conv) fn apply(geometry: &ConvGeometry, direction: Direction, isa: Isa) -> bool {
    direction == Direction::InputGrad
        && isa == Isa::Avx512Bf16
        && geometry.groups == 1
        && (1..=CHANNELS).contains(&geometry.in_channels)
        && geometry.out_channels.is_multiple_of(2)
        && (0..2).all(|d| {
            // Blocks that are as long as the stride, or a multiple, see output pixels at equal
            // distances. Kernels that are not longer than the stride see hardly any in common.
            SIDE.is_multiple_of(geometry.stride[d]) && geometry.kernel[d] > geometry.stride[d]
        })
}

/// Along one dimension: which output pixels a block of input pixels sees.
#[derive(Clone, Copy)]
struct Window {
    /// Distance between the first output pixels of neighbouring blocks.
    step: usize,
    /// Number of output pixels.
    taps: usize,
    /// How far before its own pixel block 0 sees.
    before: usize,
    stride: usize,
    padding: usize,
}

impl Window {
    fn new(geometry: &ConvGeometry, d: usize) -> Self {
        let (stride, padding, kernel) =
            (geometry.stride[d], geometry.padding[d], geometry.kernel[d]);
        // Input pixel i lies under tap `i + padding - stride * o` of output pixel o. For the first
        // pixel of block 0 the least o has the last tap, or one before it.
        let before = (kernel - 1 - padding) / stride;
        let last = (SIDE - 1 + padding) / stride;
        Self { step: SIDE / stride, taps: before + last + 1, before, stride, padding }
    }

    /// The output pixel, among `size`, that `block` sees through `tap`.
    #[inline(always)]
    fn source(&self, block: usize, tap: usize, size: usize) -> Option<usize> {
        (block * self.step + tap).checked_sub(self.before).filter(|&at| at < size)
    }

    /// The tap of the convolution between pixel `at` of a block and what the block sees through
    /// `tap`.
    fn tap(&self, at: usize, tap: usize, kernel: usize) -> Option<usize> {
        let found =
            (at + self.padding + self.stride * self.before).checked_sub(self.stride * tap)?;
        (found < kernel).then_some(found)
    }
}

fn windows(geometry: &ConvGeometry) -> [Window; 2] {
    [Window::new(geometry, 0), Window::new(geometry, 1)]
}

/// Number of pairs of the packed weights.
pub(super) fn packed_len(geometry: &ConvGeometry) -> usize {
    let [rows, columns] = windows(geometry);
    rows.taps * columns.taps * (geometry.out_channels / 2) * LANES
}

/// Packs weights as `[tap of the block][pair of output channels][LANES][2]`.
pub(super) fn pack(geometry: &ConvGeometry, w: &[f32], packed: &mut [f32]) {
    let ([rows, columns], [height, width]) = (windows(geometry), geometry.kernel);
    let channels = geometry.in_channels;
    let weight = |co: usize, lane: usize, tap: usize| {
        let (pixel, c) = (lane / channels, lane % channels);
        let ky = rows.tap(pixel / SIDE, tap / columns.taps, height)?;
        let kx = columns.tap(pixel % SIDE, tap % columns.taps, width)?;
        (pixel < SIDE * SIDE).then(|| w[((co * channels + c) * height + ky) * width + kx])
    };
    let pairs = geometry.out_channels / 2;
    for (index, value) in packed.iter_mut().take(packed_len(geometry)).enumerate() {
        let (lane, pair, tap) = (index % LANES, index / LANES % pairs, index / LANES / pairs);
        let [low, high] = [2 * pair, 2 * pair + 1].map(|co| {
            let weight = weight(co, lane, tap).unwrap_or(0.0);
            u32::from(bf16::narrow(weight).to_bits())
        });
        *value = f32::from_bits(low | high << 16);
    }
}

/// The blocks of an image as pixels of a convolution with a kernel of one tap.
fn grid(geometry: &ConvGeometry) -> ConvGeometry {
    let size = geometry.input.map(|size| size.div_ceil(SIDE));
    ConvGeometry::square(geometry.out_channels, geometry.in_channels, size, 1, 1)
}

fn tasks(geometry: &ConvGeometry, n: usize) -> Tasks {
    Tasks::new(&grid(geometry), Direction::InputGrad, n, BLOCK_SAMPLES)
}

/// Number of outputs per channel of each task.
pub(super) fn task_counts(geometry: &ConvGeometry, n: usize) -> Vec<usize> {
    let (tasks, [height, width]) = (tasks(geometry, n), geometry.input);
    let columns = width.div_ceil(SIDE);
    let outputs = |task| {
        let (blocks, samples) = tasks.range(task, n);
        let pixels = |block: usize| {
            let (y, x) = (block / columns * SIDE, block % columns * SIDE);
            (height - y).min(SIDE) * (width - x).min(SIDE)
        };
        (blocks.0..blocks.1).map(pixels).sum::<usize>() * (samples.1 - samples.0)
    };
    (0..tasks.count()).map(outputs).collect()
}

/// Computes `pass`, whose gradients are bf16.
pub(super) fn run<E: Element>(pass: &Pass<'_, E>, out: Output<'_, E>) {
    let Pass { geometry, isa, n, x, weights, .. } = *pass;
    let tasks = tasks(geometry, n);
    for_each(tasks.count(), |task| {
        let (blocks, samples) = tasks.range(task, n);
        with_scratch((samples.1 - samples.0) * ROW, |sums| {
            let kernel = BlockGrad {
                geometry,
                windows: windows(geometry),
                n,
                dy: x.at(0),
                weights: weights.at(0),
                out,
                sums: out.sums.at(task * 3 * geometry.in_channels),
                products: sums.as_mut_ptr(),
                blocks,
                samples,
            };
            // SAFETY: `Pass` and `Output` promise gradients in bf16 and an instruction set that
            // multiplies them, tensors of the geometry's lengths and weights of `packed_len`; tasks
            // write disjoint blocks and samples of the output, and their own partial sums.
            unsafe { dispatch(isa, kernel) };
        });
    });
}

/// One task. [`run`] guarantees that its pointers are valid; `blocks` and `samples` exist.
struct BlockGrad<'a, E> {
    geometry: &'a ConvGeometry,
    windows: [Window; 2],
    n: usize,
    dy: *const E,
    weights: *const f32,
    out: Output<'a, E>,
    /// Null, or this task's part of the output's sums.
    sums: *mut f32,
    /// Products of one block, `[sample][ROW]`, of which the first lanes are used.
    products: *mut f32,
    blocks: (usize, usize),
    samples: (usize, usize),
}

impl<E: Element> Kernel for BlockGrad<'_, E> {
    type Element = E;
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let (geometry, pairs) = (self.geometry, self.geometry.out_channels / 2);
        let columns = geometry.input[1].div_ceil(SIDE);
        let mut terms = Vec::with_capacity(self.windows[0].taps * self.windows[1].taps);
        for block in self.blocks.0..self.blocks.1 {
            let at = [block / columns, block % columns];
            self.find_terms(at, &mut terms);
            let tile = Tile::<f32> {
                a_offset: self.samples.0 * pairs,
                depth: pairs,
                a_row: pairs,
                b_depth: LANES,
                c: self.products,
                c_row: ROW,
                columns: LANES,
                ..Tile::plain(&terms)
            };
            // SAFETY: the caller promises an instruction set that multiplies pairs; each term names
            // an output pixel that exists and the weights of a tap; the products of every sample
            // have room.
            unsafe { pair_rows(self.samples.1 - self.samples.0, 1, &tile) };
            for pixel in 0..SIDE * SIDE {
                let [y, x] = [at[0] * SIDE + pixel / SIDE, at[1] * SIDE + pixel % SIDE];
                if y < geometry.input[0] && x < geometry.input[1] {
                    let first = block == self.blocks.0 && pixel == 0;
                    // SAFETY: the caller enabled the features of `S`; the pixel exists, and its
                    // products have been computed.
                    unsafe { self.store::<S>(y * geometry.input[1] + x, pixel, first) };
                }
            }
        }
    }
}

impl<E: Element> BlockGrad<'_, E> {
    /// Finds the output pixels that a block sees, and their weights.
    #[inline(always)]
    fn find_terms(&self, [y, x]: [usize; 2], terms: &mut Vec<Term>) {
        let ([rows, columns], [height, width]) = (self.windows, self.geometry.output());
        let row = self.n * self.geometry.out_channels;
        terms.clear();
        for tap in 0..rows.taps * columns.taps {
            let source = rows.source(y, tap / columns.taps, height).and_then(|oy| {
                let ox = columns.source(x, tap % columns.taps, width)?;
                Some(oy * width + ox)
            });
            if let Some(pixel) = source {
                terms.push(Term {
                    a: self.dy.wrapping_add(pixel * row).cast(),
                    b: self.weights.wrapping_add(tap * self.geometry.out_channels / 2 * LANES),
                });
            }
        }
    }

    /// Stores the products of one pixel of a block for all samples. `first` says that they are the
    /// task's first outputs.
    ///
    /// # Safety
    /// The features of `S` are enabled; the pixel exists, and its products have been computed.
    #[inline(always)]
    unsafe fn store<S: Simd>(&self, pixel: usize, in_block: usize, first: bool) {
        let (channels, count) = (self.geometry.in_channels, self.samples.1 - self.samples.0);
        let mut row = 0;
        while row < count {
            let at = (pixel * self.n + self.samples.0 + row) * channels;
            let tile = Tile {
                c: self.out.y.at(at),
                c_row: channels,
                columns: channels,
                add: self.out.add.at(at),
                bias: self.out.bias.at(0),
                stats: TileStats::new(self.sums, 0, channels, first && row == 0),
                norm: self.out.norm.map(|norm| norm.tile(at, 0)),
                ..Tile::plain(&[])
            };
            let products = self.products.wrapping_add(row * ROW + in_block * channels);
            // SAFETY: the caller enabled the features of `S` and promises products of this pixel,
            // of which a vector lies inside the row; the rows of the output exist, and no other task
            // writes them.
            row += unsafe {
                if count - row >= 8 {
                    finish::<S, E, 8, 1>(&tile, products)
                } else {
                    finish::<S, E, 1, 1>(&tile, products)
                }
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each tap of a pixel of a block is a tap of the convolution between the same pixels.
    #[test]
    fn blocks_see_what_their_pixels_see() {
        for (kernel, stride, padding) in
            [(7, 2, 3), (3, 1, 1), (3, 2, 1), (5, 1, 4), (4, 2, 0), (2, 1, 0)]
        {
            let mut geometry = ConvGeometry::square(3, 2, [11, 11], kernel, stride);
            geometry.padding = [padding; 2];
            let (window, size) = (Window::new(&geometry, 0), geometry.output()[0]);
            let mut seen = Vec::new();
            for at in 0..11 {
                for tap in 0..window.taps {
                    let source = window.source(at / SIDE, tap, size);
                    seen.extend(
                        window.tap(at % SIDE, tap, kernel).zip(source).map(|(k, o)| (at, o, k)),
                    );
                }
            }
            let mut expected = Vec::new();
            for at in 0..11 {
                for k in 0..kernel {
                    let source = geometry.source(Direction::InputGrad, 0, at, k, size);
                    expected.extend(source.map(|o| (at, o, k)));
                }
            }
            seen.sort_unstable();
            expected.sort_unstable();
            assert_eq!(seen, expected, "{kernel} {stride} {padding}");
        }
    }
}
