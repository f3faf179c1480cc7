//! Convolutions of maps of which a part has changed: which output tiles are wanted, and where the
//! changed values lie.

use super::grid::Rows;
use super::{ConvGeometry, SITE};
use crate::error::{ShapeError, expect_len, parameter};
use crate::parallel::Shared;

/// An output tile of one sample, where only some are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Site {
    /// Number of the sample.
    pub sample: usize,
    /// Number of the tile of [`SITE`] pixels square, row by row.
    pub tile: usize,
}

/// Values that stand for those of a map in a rectangle of pixels, of every sample.
#[derive(Debug, Clone, Copy)]
pub struct Patch<'a, E = f32> {
    /// A map of the same shape, of which only the rectangle is read.
    pub values: &'a [E],
    /// The first row, and the one after the last.
    pub rows: (usize, usize),
    /// The first column, and the one after the last.
    pub columns: (usize, usize),
}

/// What [`Conv2d::forward_at`](super::Conv2d::forward_at) computes.
#[derive(Debug, Clone, Copy)]
pub struct Update<'a, E = f32> {
    /// The output tiles, in ascending order, each once.
    pub sites: &'a [Site],
    /// What stands for a part of the input.
    pub x: Option<Patch<'a, E>>,
    /// What stands for a part of [`Addend::Tensor`](super::Addend::Tensor). Its bounds are
    /// multiples of [`SITE`], or the map's.
    pub add: Option<Patch<'a, E>>,
}

impl<E> Update<'_, E> {
    /// Whether it fits `n` inputs and outputs of so many elements.
    pub(super) fn check(
        &self,
        g: &ConvGeometry,
        n: usize,
        input_len: usize,
        output_len: usize,
    ) -> Result<(), ShapeError> {
        let tiles: usize = g.output().iter().map(|size| size.div_ceil(SITE)).product();
        let exist = self.sites.iter().all(|site| site.sample < n && site.tile < tiles);
        if !exist || !self.sites.is_sorted_by(|a, b| a < b) {
            return Err(parameter(
                "sites",
                "must be tiles of the output in ascending order, each once",
            ));
        }
        if let Some(patch) = &self.x {
            expect_len("conv input patch", patch.values.len(), input_len)?;
            patch.check(g.input, |_, _| true)?;
        }
        if let Some(patch) = &self.add {
            expect_len("conv addend patch", patch.values.len(), output_len)?;
            patch.check(g.output(), |bound, size| bound.is_multiple_of(SITE) || bound == size)?;
        }
        Ok(())
    }
}

impl<E> Patch<'_, E> {
    fn check(
        &self,
        size: [usize; 2],
        is_bound: impl Fn(usize, usize) -> bool,
    ) -> Result<(), ShapeError> {
        for ((from, to), size) in [self.rows, self.columns].into_iter().zip(size) {
            if from > to || to > size || !is_bound(from, size) || !is_bound(to, size) {
                return Err(parameter(
                    "patch",
                    format!("{from}..{to} is no part of {size} pixels that can be read"),
                ));
            }
        }
        Ok(())
    }
}

/// A [`Patch`] as tasks see it.
#[derive(Clone, Copy)]
struct Overlay<E> {
    values: Shared<E>,
    rows: (usize, usize),
    columns: (usize, usize),
}

impl<E: Copy> Overlay<E> {
    fn new(patch: Option<Patch<'_, E>>) -> Self {
        match patch {
            Some(Patch { values, rows, columns }) => {
                Self { values: Shared::read_only(values), rows, columns }
            }
            None => Self { values: Shared::null(), rows: (0, 0), columns: (0, 0) },
        }
    }

    /// The map that holds pixel (y, x): the patch, or `base`.
    #[inline(always)]
    fn over(&self, base: *const E, y: usize, x: usize) -> *const E {
        let inside =
            self.rows.0 <= y && y < self.rows.1 && self.columns.0 <= x && x < self.columns.1;
        if inside { self.values.at(0) } else { base }
    }
}

/// The sites of a task.
#[derive(Clone, Copy)]
pub(super) struct Sites<'a, E> {
    pub(super) sites: &'a [Site],
    x: Overlay<E>,
    add: Overlay<E>,
}

impl<'a, E: Copy> Sites<'a, E> {
    /// Cuts `update` into tasks of at most `most` sites.
    pub(super) fn tasks(update: &Update<'a, E>, most: usize) -> Vec<Self> {
        let (x, add) = (Overlay::new(update.x), Overlay::new(update.add));
        update.sites.chunks(most).map(|sites| Self { sites, x, add }).collect()
    }
}

impl<E: Copy> Rows<E> for Sites<'_, E> {
    #[inline(always)]
    fn count(&self) -> usize {
        self.sites.len()
    }

    #[inline(always)]
    fn runs(&self) -> impl Iterator<Item = (usize, usize, usize)> {
        self.sites.iter().map(|site| (site.tile, site.sample, site.sample + 1))
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
