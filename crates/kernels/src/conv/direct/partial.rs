//! Direct convolution of some output tiles of some samples.

use crate::buffer::with_scratch;
use crate::conv::epilogue::Output;
use crate::conv::geometry::{ConvGeometry, Direction, Mapping};
use crate::conv::partial::{Rows, TILE_SIDE, TileList, window};
use crate::conv::pass::Pass;
use crate::element::Element;
use crate::parallel::{block_size, for_each};
use crate::simd::{Kernel, Simd, dispatch, load, store};
use crate::tile::{Term, Tile, panel_extent, row_blocks, run_tile};

/// Most tiles of one task.
const BLOCK_TILES: usize = block_size(32, 2);

/// Computes `tiles` of `pass`, a forward pass, and leaves all other tiles as they are. Where the
/// weights are finite, the values have the bits of the whole convolution.
pub(super) fn run<E: Element>(pass: &Pass<'_, E>, tiles: TileList<'_, E>, out: Output<'_, E>) {
    let Pass { geometry, isa, n, x, weights, .. } = *pass;
    let blocks = tiles.tasks(BLOCK_TILES);
    let window = window(geometry);
    for_each(blocks.len(), |index| {
        with_scratch(window[0] * window[1] * geometry.in_channels, |seen| {
            let kernel = ConvolvePartial {
                geometry,
                mapping: Mapping::new(geometry, Direction::Forward),
                n,
                x: x.at(0),
                weights: weights.at(0),
                out,
                rows: blocks[index],
                window,
                seen: seen.as_mut_ptr(),
            };
            // SAFETY: `Pass` and `Output` promise tensors and overlays of the geometry's lengths,
            // weights of `packed_len`, and tiles that exist and differ; the scratch memory holds
            // the pixels under one tile.
            unsafe { dispatch(isa, kernel) };
        });
    });
}

/// One task. [`run`] guarantees that its pointers are valid.
struct ConvolvePartial<'a, E> {
    geometry: &'a ConvGeometry,
    mapping: Mapping,
    n: usize,
    x: *const E,
    weights: *const f32,
    out: Output<'a, E>,
    rows: TileList<'a, E>,
    /// Height and width of the input pixels under one tile.
    window: [usize; 2],
    /// The input pixels under the tile, `[y][x][C_in]`, with zeros outside the image. All taps of
    /// an output pixel therefore exist, at the same distances for every pixel.
    seen: *mut f32,
}

impl<E: Element> Kernel for ConvolvePartial<'_, E> {
    type Element = E;
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let [height, width] = self.mapping.to_size;
        let tiles_x = width.div_ceil(TILE_SIDE);
        let mut terms = Vec::with_capacity(self.geometry.taps());
        for index in self.rows.tiles {
            let (top, left) = (index.tile / tiles_x * TILE_SIDE, index.tile % tiles_x * TILE_SIDE);
            let (tall, wide) = ((height - top).min(TILE_SIDE), (width - left).min(TILE_SIDE));
            // SAFETY: the caller enabled the features of `S`; the tile exists, and `tall` lines of
            // `wide` pixels of it lie in the output.
            unsafe {
                self.look::<S>(index.sample, top, left);
                for line in 0..tall {
                    let pixel = (top + line) * width + left;
                    self.multiply::<S>(index.sample, pixel, line, wide, &mut terms);
                }
            }
        }
    }
}

impl<E: Element> ConvolvePartial<'_, E> {
    /// Copies the input pixels under the tile whose first output pixel is (`top`, `left`).
    ///
    /// # Safety
    /// The features of `S` are enabled, and the sample exists.
    #[inline(always)]
    unsafe fn look<S: Simd>(&self, sample: usize, top: usize, left: usize) {
        let (geometry, channels) = (self.geometry, self.geometry.in_channels);
        let [height, width] = self.mapping.from_size;
        for pixel in 0..self.window[0] * self.window[1] {
            // A coordinate before the image wraps to a value beyond the height or width, which the
            // test below rejects.
            let y = (top * geometry.stride[0] + pixel / self.window[1])
                .wrapping_sub(geometry.padding[0]);
            let x = (left * geometry.stride[1] + pixel % self.window[1])
                .wrapping_sub(geometry.padding[1]);
            let source = (y < height && x < width).then(|| {
                let at = ((y * width + x) * self.n + sample) * channels;
                self.rows.input(self.x, y, x).wrapping_add(at)
            });
            let to = self.seen.wrapping_add(pixel * channels);
            let mut c = 0;
            while c < channels {
                let lanes = (channels - c).min(S::LANES);
                // SAFETY: the caller enabled the features of `S`; a source lies inside the image
                // and its map, and the scratch memory has room for every pixel of the window.
                unsafe {
                    let value: S = match source {
                        Some(source) => load(source.add(c), lanes),
                        None => S::zero(),
                    };
                    store(value, to.add(c), lanes);
                }
                c += S::LANES;
            }
        }
    }

    /// Computes all channels of `count` output pixels from `pixel` on, in line `line` of the tile.
    ///
    /// # Safety
    /// The features of `S` are enabled; the pixels exist, and [`look`](Self::look) has copied their
    /// inputs.
    #[inline(always)]
    unsafe fn multiply<S: Simd>(
        &self,
        sample: usize,
        pixel: usize,
        line: usize,
        count: usize,
        terms: &mut Vec<Term>,
    ) {
        let (geometry, mapping) = (self.geometry, &self.mapping);
        let to_row = self.n * mapping.to * geometry.groups;
        let panels = mapping.to.div_ceil(S::TILE_COLUMNS);
        let (y, x) = (pixel / mapping.to_size[1], pixel % mapping.to_size[1]);
        // In an output of one column the stride is never used and may be larger than the window.
        let step = if mapping.to_size[1] > 1 { geometry.stride[1] } else { 1 };
        let a_row = step * geometry.in_channels;
        let add = self.out.add;
        for index in 0..geometry.groups * panels {
            let (group, column) = (index / panels, index % panels * S::TILE_COLUMNS);
            let channel = group * mapping.to + column;
            let (columns, vectors) = panel_extent::<S>(mapping.to, column);
            let weights = self.find_terms::<S>(index, group, line, terms);
            for (row, rows) in row_blocks::<S>(count) {
                let at = (pixel + row) * to_row + sample * mapping.to * geometry.groups + channel;
                let tile = Tile {
                    a_offset: row * a_row,
                    depth: mapping.from,
                    a_row,
                    a_depth: 1,
                    b_depth: S::TILE_COLUMNS,
                    c: self.out.y.at(at),
                    c_row: to_row,
                    columns,
                    add: if add.is_null() {
                        std::ptr::null()
                    } else {
                        self.rows.addend(add.at(0), y, x).wrapping_add(at)
                    },
                    bias: self.out.bias.at(channel),
                    norm: self.out.norm.map(|norm| norm.tile(at, channel)),
                    prefetch: weights,
                    prefetch_step: 16,
                    ..Tile::plain(terms)
                };
                // SAFETY: the caller enabled the features of `S` and promises pixels that exist;
                // the terms lie in the window.
                unsafe { run_tile::<S, E>(rows, vectors, &tile) };
            }
        }
    }

    /// Finds the terms of the pixels in a line of the tile for panel `index` of all groups' panels;
    /// returns the panel's weights.
    #[inline(always)]
    fn find_terms<S: Simd>(
        &self,
        index: usize,
        group: usize,
        line: usize,
        terms: &mut Vec<Term>,
    ) -> *const f32 {
        let (geometry, from) = (self.geometry, self.mapping.from);
        let weights = self.weights.wrapping_add(index * geometry.taps() * from * S::TILE_COLUMNS);
        terms.clear();
        terms.extend((0..geometry.taps()).map(|tap| {
            let down = line * geometry.stride[0] + tap / geometry.kernel[1];
            let right = tap % geometry.kernel[1];
            let seen = (down * self.window[1] + right) * geometry.in_channels + group * from;
            Term {
                a: self.seen.wrapping_add(seen).cast_const(),
                b: weights.wrapping_add(tap * from * S::TILE_COLUMNS),
            }
        }));
        weights
    }
}
