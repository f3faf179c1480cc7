//! One panel of outputs on AMX tiles.

use super::{Convolve, Gather, Place};
use crate::amx::{self, Sums, TileTerm, Tiles};
use crate::element::Element;
use crate::simd::Simd;
use crate::tile::{Term, Tile, epilogue};

/// This thread's tiles and room for their terms, where the instruction set has tiles.
pub(super) type ThreadTiles = Option<(Tiles, Vec<TileTerm>)>;

impl<E: Element> Convolve<'_, E> {
    /// Does what [`multiply`](Self::multiply) does, on AMX tiles.
    ///
    /// # Safety
    /// The conditions of [`multiply`](Self::multiply) hold, and `tiles` were set up on this thread
    /// for this task.
    #[inline(always)]
    pub(super) unsafe fn multiply_tiles<S: Simd>(
        &self,
        tiles: &Tiles,
        moved: &mut Vec<TileTerm>,
        place: Place,
        vectors: usize,
        terms: &[Term],
    ) {
        let (count, row_pairs) = (self.samples.1 - self.samples.0, self.row_pairs());
        // A block at the end of the batch begins earlier, so that it is whole; the rows before the
        // task's first sample are dropped.
        let (start, skip) = if self.depth.gather != Gather::Nothing {
            (0, 0)
        } else {
            let start = self.samples.0.min(self.n.saturating_sub(amx::BLOCK));
            (start, self.samples.0 - start)
        };
        moved.clear();
        moved.extend(terms.iter().map(|term| TileTerm {
            a: term.a.wrapping_add(start * row_pairs).cast(),
            b: term.b.cast(),
        }));
        let mut sums = Sums::zeroed();
        let steps = self.depth.term / amx::STEP;
        // SAFETY: the caller promises terms of which a whole block of samples is readable, or as
        // many rows as the tiles were set up for; a panel is 32 columns wide.
        unsafe {
            let (rows, bytes) = (skip + count, row_pairs * 4);
            amx::multiply(tiles, moved, steps, bytes, rows, place.columns, &mut sums);
        }
        let mut row = 0;
        while row < count {
            let tile = self.tile(place, row);
            let sums = sums.0[skip + row..].as_ptr().cast::<f32>();
            // SAFETY: the caller enabled the features of `S`; that many rows of the sums and of the
            // output exist, and no other task writes them.
            row += unsafe {
                match (count - row >= 8, vectors) {
                    (true, 2) => finish::<S, E, 8, 2>(&tile, sums),
                    (true, _) => finish::<S, E, 8, 1>(&tile, sums),
                    (false, 2) => finish::<S, E, 1, 2>(&tile, sums),
                    (false, _) => finish::<S, E, 1, 1>(&tile, sums),
                }
            };
        }
    }
}

/// Finishes `R` rows of `V` vectors of a product, which are [`amx::BLOCK`] apart, and returns `R`.
///
/// # Safety
/// The features of `S` are enabled; `R` rows of `V` vectors of sums are readable, and `tile`
/// describes writable memory for them.
#[inline(always)]
pub(in super::super) unsafe fn finish<S: Simd, E: Element, const R: usize, const V: usize>(
    tile: &Tile<E>,
    sums: *const f32,
) -> usize {
    // SAFETY: the caller enabled the features of `S` and promises readable sums and a writable
    // tile.
    unsafe {
        let mut acc = [[S::zero(); V]; R];
        for (r, row) in acc.iter_mut().enumerate() {
            for (v, value) in row.iter_mut().enumerate() {
                *value = S::load(sums.add(r * amx::BLOCK + v * S::LANES));
            }
        }
        epilogue(tile, acc);
    }
    R
}
