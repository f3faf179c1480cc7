//! Convolutions of maps of which a part has changed: the wanted output tiles, and the changed
//! values.

use super::geometry::ConvGeometry;
use crate::element::Element;
use crate::error::{ShapeError, expect_len, extent, parameter};
use crate::parallel::Shared;

/// Side in pixels of the output tiles that a [`TileIndex`] names, the same as Winograd's.
pub const TILE_SIDE: usize = 4;

/// Most input values under one tile; they are gathered in scratch memory.
const MOST_UNDER_A_TILE: usize = 1 << 26;

/// One output tile of one sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct TileIndex {
    /// Index of the sample in the batch.
    pub sample: usize,
    /// Index of the tile of [`TILE_SIDE`] x [`TILE_SIDE`] pixels in the image, row by row.
    pub tile: usize,
}

/// Values that replace those of a map in a rectangle of pixels, for every sample.
#[derive(Debug, Clone, Copy)]
pub struct Overlay<'a, E = f32> {
    /// A map of the same shape, of which only the rectangle is read.
    pub values: &'a [E],
    /// The first row, and the one after the last.
    pub rows: (usize, usize),
    /// The first column, and the one after the last.
    pub columns: (usize, usize),
}

/// The part of the output that [`Conv2d::forward_partial`](super::Conv2d::forward_partial)
/// computes.
#[derive(Debug, Clone, Copy)]
pub struct Partial<'a, E = f32> {
    /// The output tiles, in ascending order and without repetition.
    pub tiles: &'a [TileIndex],
    /// Values that replace a part of the input.
    pub input: Option<Overlay<'a, E>>,
    /// Values that replace a part of [`Addend::Tensor`](crate::Addend::Tensor). The rectangle's
    /// bounds are multiples of [`TILE_SIDE`] or the map's own bounds.
    pub add: Option<Overlay<'a, E>>,
}

/// Height and width of the input pixels under one output tile.
pub(super) fn window(geometry: &ConvGeometry) -> [usize; 2] {
    let output = geometry.output();
    std::array::from_fn(|d| {
        // The window ends with the last output pixel, whose taps lie in the padded input.
        let steps = output[d].clamp(1, TILE_SIDE) - 1;
        steps * geometry.stride[d] + geometry.kernel[d]
    })
}

impl<E> Partial<'_, E> {
    /// Checks the tiles and overlays against `n` inputs and outputs of the given numbers of
    /// elements, for a geometry that has passed its own checks.
    pub(super) fn check(
        &self,
        geometry: &ConvGeometry,
        n: usize,
        input_len: usize,
        output_len: usize,
    ) -> Result<(), ShapeError> {
        let output = geometry.output();
        let tiles = output.map(|size| size.div_ceil(TILE_SIDE));
        let tiles = tiles[0] * tiles[1];
        let exist = self.tiles.iter().all(|index| index.sample < n && index.tile < tiles);
        if !exist || !self.tiles.is_sorted_by(|a, b| a < b) {
            return Err(parameter(
                "tiles",
                "must be tiles of the output in ascending order, each once",
            ));
        }
        let [height, width] = window(geometry);
        let under = extent("pixels under a tile", &[height, width, geometry.in_channels])?;
        if under > MOST_UNDER_A_TILE {
            return Err(parameter(
                "tiles",
                format!("{under} values lie under one; at most {MOST_UNDER_A_TILE} are possible"),
            ));
        }
        if let Some(overlay) = &self.input {
            expect_len("conv input overlay", overlay.values.len(), input_len)?;
            overlay.check(geometry.input, |_, _| true)?;
        }
        if let Some(overlay) = &self.add {
            expect_len("conv addend overlay", overlay.values.len(), output_len)?;
            let is_bound =
                |bound: usize, size: usize| bound.is_multiple_of(TILE_SIDE) || bound == size;
            overlay.check(output, is_bound)?;
        }
        Ok(())
    }
}

impl<E> Overlay<'_, E> {
    fn check(
        &self,
        size: [usize; 2],
        is_bound: impl Fn(usize, usize) -> bool,
    ) -> Result<(), ShapeError> {
        for ((from, to), size) in [self.rows, self.columns].into_iter().zip(size) {
            if from > to || to > size || !is_bound(from, size) || !is_bound(to, size) {
                return Err(parameter(
                    "overlay",
                    format!("{from}..{to} is no part of {size} pixels that can be read"),
                ));
            }
        }
        Ok(())
    }
}

/// An [`Overlay`] as tasks see it.
#[derive(Clone, Copy)]
struct OverlayView<E> {
    values: Shared<E>,
    rows: (usize, usize),
    columns: (usize, usize),
}

impl<E: Element> OverlayView<E> {
    fn new(overlay: Option<Overlay<'_, E>>) -> Self {
        match overlay {
            Some(Overlay { values, rows, columns }) => {
                Self { values: Shared::read_only(values), rows, columns }
            }
            None => Self { values: Shared::null(), rows: (0, 0), columns: (0, 0) },
        }
    }

    fn retyped<F: Element>(self) -> OverlayView<F> {
        let Self { values, rows, columns } = self;
        OverlayView { values: values.cast(), rows, columns }
    }

    /// The map that holds pixel (y, x): the overlay inside the rectangle, `base` outside.
    #[inline(always)]
    fn over(&self, base: *const E, y: usize, x: usize) -> *const E {
        let inside =
            self.rows.0 <= y && y < self.rows.1 && self.columns.0 <= x && x < self.columns.1;
        if inside { self.values.at(0) } else { base }
    }
}

/// The rows of a task; each row is one tile of one sample.
pub(super) trait Rows<E>: Copy + Sync {
    fn count(&self) -> usize;
    /// Runs of rows that share a tile: the tile, the first sample, and the one after the last
    /// sample.
    fn runs(&self) -> impl Iterator<Item = (usize, usize, usize)>;
    /// The map that holds pixel (y, x) of the input: `base`, or the overlay that replaces it there.
    #[inline(always)]
    fn input(&self, base: *const E, y: usize, x: usize) -> *const E {
        let _ = (y, x);
        base
    }
    /// The map that holds the tile from (y, x) on of the added tensor: `base`, or its overlay.
    #[inline(always)]
    fn addend(&self, base: *const E, y: usize, x: usize) -> *const E {
        let _ = (y, x);
        base
    }
}

/// The tiles that a pass or a task computes, and the overlays of its maps.
#[derive(Clone, Copy)]
pub(super) struct TileList<'a, E> {
    pub(super) tiles: &'a [TileIndex],
    input: OverlayView<E>,
    add: OverlayView<E>,
}

impl<'a, E: Element> TileList<'a, E> {
    /// The tiles and overlays of `partial`, which has been checked.
    pub(super) fn new(partial: &Partial<'a, E>) -> Self {
        let (input, add) = (OverlayView::new(partial.input), OverlayView::new(partial.add));
        Self { tiles: partial.tiles, input, add }
    }

    /// Cuts the tiles into tasks of at most `most` tiles.
    pub(super) fn tasks(self, most: usize) -> Vec<Self> {
        self.tiles.chunks(most).map(|tiles| Self { tiles, ..self }).collect()
    }

    /// The same tiles with elements of type `F`, which is the same type as `E`.
    pub(super) fn retyped<F: Element>(self) -> TileList<'a, F> {
        let Self { tiles, input, add } = self;
        TileList { tiles, input: input.retyped(), add: add.retyped() }
    }
}

impl<E: Element> Rows<E> for TileList<'_, E> {
    #[inline(always)]
    fn count(&self) -> usize {
        self.tiles.len()
    }

    #[inline(always)]
    fn runs(&self) -> impl Iterator<Item = (usize, usize, usize)> {
        self.tiles.iter().map(|index| (index.tile, index.sample, index.sample + 1))
    }

    #[inline(always)]
    fn input(&self, base: *const E, y: usize, x: usize) -> *const E {
        self.input.over(base, y, x)
    }

    #[inline(always)]
    fn addend(&self, base: *const E, y: usize, x: usize) -> *const E {
        self.add.over(base, y, x)
    }
}
