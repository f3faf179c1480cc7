//! Convolutions of maps of which a part has changed: which output tiles are wanted, and where the
//! changed values lie.

use super::grid::Rows;
use super::{ConvGeometry, TILE_SIDE};
use crate::error::{ShapeError, expect_len, parameter};
use crate::parallel::Shared;

/// An output tile of one sample, where only some are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct TileIndex {
    /// Number of the sample.
    pub sample: usize,
    /// Number of the tile of [`TILE_SIDE`] pixels square, row by row.
    pub tile: usize,
}

/// Values that stand for those of a map in a rectangle of pixels, of every sample.
#[derive(Debug, Clone, Copy)]
pub struct Overlay<'a, E = f32> {
    /// A map of the same shape, of which only the rectangle is read.
    pub values: &'a [E],
    /// The first row, and the one after the last.
    pub rows: (usize, usize),
    /// The first column, and the one after the last.
    pub columns: (usize, usize),
}

/// What [`Conv2d::forward_partial`](super::Conv2d::forward_partial) computes.
#[derive(Debug, Clone, Copy)]
pub struct Partial<'a, E = f32> {
    /// The output tiles, in ascending order, each once.
    pub tiles: &'a [TileIndex],
    /// What stands for a part of the input.
    pub input: Option<Overlay<'a, E>>,
    /// What stands for a part of [`Addend::Tensor`](super::Addend::Tensor). Its bounds are
    /// multiples of [`TILE_SIDE`], or the map's.
    pub add: Option<Overlay<'a, E>>,
}

impl<E> Partial<'_, E> {
    /// Whether it fits `n` inputs and outputs of so many elements.
    pub(super) fn check(
        &self,
        g: &ConvGeometry,
        n: usize,
        input_len: usize,
        output_len: usize,
    ) -> Result<(), ShapeError> {
        let tiles: usize = g.output().iter().map(|size| size.div_ceil(TILE_SIDE)).product();
        let exist = self.tiles.iter().all(|tile| tile.sample < n && tile.tile < tiles);
        if !exist || !self.tiles.is_sorted_by(|a, b| a < b) {
            return Err(parameter(
                "tiles",
                "must be tiles of the output in ascending order, each once",
            ));
        }
        if let Some(overlay) = &self.input {
            expect_len("conv input overlay", overlay.values.len(), input_len)?;
            overlay.check(g.input, |_, _| true)?;
        }
        if let Some(overlay) = &self.add {
            expect_len("conv addend overlay", overlay.values.len(), output_len)?;
            overlay.check(g.output(), |bound, size| {
                bound.is_multiple_of(TILE_SIDE) || bound == size
            })?;
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

/// A [`Overlay`] as tasks see it.
#[derive(Clone, Copy)]
struct OverlayView<E> {
    values: Shared<E>,
    rows: (usize, usize),
    columns: (usize, usize),
}

impl<E: Copy> OverlayView<E> {
    fn new(overlay: Option<Overlay<'_, E>>) -> Self {
        match overlay {
            Some(Overlay { values, rows, columns }) => {
                Self { values: Shared::read_only(values), rows, columns }
            }
            None => Self { values: Shared::null(), rows: (0, 0), columns: (0, 0) },
        }
    }

    /// The map that holds pixel (y, x): the overlay, or `base`.
    #[inline(always)]
    fn over(&self, base: *const E, y: usize, x: usize) -> *const E {
        let inside =
            self.rows.0 <= y && y < self.rows.1 && self.columns.0 <= x && x < self.columns.1;
        if inside { self.values.at(0) } else { base }
    }
}

/// The tiles of a task.
#[derive(Clone, Copy)]
pub(super) struct TileList<'a, E> {
    pub(super) tiles: &'a [TileIndex],
    x: OverlayView<E>,
    add: OverlayView<E>,
}

impl<'a, E: Copy> TileList<'a, E> {
    /// Cuts `partial` into tasks of at most `most` tiles.
    pub(super) fn tasks(partial: &Partial<'a, E>, most: usize) -> Vec<Self> {
        let (x, add) = (OverlayView::new(partial.input), OverlayView::new(partial.add));
        partial.tiles.chunks(most).map(|tiles| Self { tiles, x, add }).collect()
    }
}

impl<E: Copy> Rows<E> for TileList<'_, E> {
    #[inline(always)]
    fn count(&self) -> usize {
        self.tiles.len()
    }

    #[inline(always)]
    fn runs(&self) -> impl Iterator<Item = (usize, usize, usize)> {
        self.tiles.iter().map(|tile| (tile.tile, tile.sample, tile.sample + 1))
    }

    #[inline(always)]
    fn input(&self, base: *const E, y: usize, x: usize) -> *const E {
        self.x.over(base, y, x)
    }

    #[inline(always)]
    fn addend(&self, base: *const E, y: usize, x: usize) -> *const E {
        self.add.over(base, y, x)
    }
}
