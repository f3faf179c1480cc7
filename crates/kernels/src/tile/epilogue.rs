//! From the sums of a register tile to its destination.

use super::Tile;
use crate::element::Element;
use crate::simd::{Simd, load, store, stored};

/// Adds bias and `add` to the sums of a tile, stores them and their batch norm, and accumulates the
/// statistics.
///
/// # Safety
/// The conditions of [`compute`] on `c`, `add`, `bias`, the statistics and the batch norm hold.
#[inline(always)]
pub(crate) unsafe fn epilogue<S: Simd, E: Element, const R: usize, const V: usize>(
    tile: &Tile<E>,
    acc: [[S; V]; R],
) {
    // SAFETY: the caller enabled the features of `S` and promises destinations of `R` rows of
    // `columns` columns.
    unsafe {
        if tile.is_plain() && tile.columns == V * S::LANES {
            // A plain tile is stored straight from the registers; the other cases pass the sums
            // through memory.
            for (r, row) in acc.iter().enumerate() {
                for (v, y) in row.iter().enumerate() {
                    let at = r * tile.c_row + v * S::LANES;
                    let y = if tile.add.is_null() {
                        *y
                    } else {
                        y.add(load(tile.add.add(at), S::LANES))
                    };
                    store(y, tile.c.add(at), S::LANES);
                }
            }
            return;
        }
        if tile.has_sums() && tile.columns == V * S::LANES {
            // One line for each vector, because sums that are indexed by a variable would pass
            // through memory.
            sum_vector::<S, E, R, V>(tile, &acc, 0);
            sum_vector::<S, E, R, V>(tile, &acc, 1);
            sum_vector::<S, E, R, V>(tile, &acc, 2);
            sum_vector::<S, E, R, V>(tile, &acc, 3);
            return;
        }
        for v in 0..V {
            let at = v * S::LANES;
            let lanes = (tile.columns - at).min(S::LANES);
            // A loop, because `map` would be a call to a function without the features of `S`.
            let mut column = [S::zero(); R];
            for (y, row) in column.iter_mut().zip(&acc) {
                *y = row[v];
            }
            if lanes == S::LANES {
                finish::<S, E, R, true>(tile, &mut column, at, lanes);
            } else {
                finish::<S, E, R, false>(tile, &mut column, at, lanes);
            }
        }
    }
}

/// Adds `add`, stores, and accumulates the statistics of vector `v`, which is whole; does nothing
/// where there are not that many vectors.
#[inline(always)]
unsafe fn sum_vector<S: Simd, E: Element, const R: usize, const V: usize>(
    tile: &Tile<E>,
    acc: &[[S; V]; R],
    v: usize,
) {
    let Some(stats) = tile.stats else { return };
    if v >= V {
        return;
    }
    // SAFETY: the caller enabled the features of `S` and promises `R` rows of `V` vectors at `c`,
    // `add` and the statistics.
    unsafe {
        let at = v * S::LANES;
        let (shift_at, sum_at, square_at) =
            (stats.shift.add(at), stats.sum.add(at), stats.square.add(at));
        let mut column = [S::zero(); R];
        for (r, y) in column.iter_mut().enumerate() {
            *y = acc[r][v];
            if !tile.add.is_null() {
                *y = y.add(load(tile.add.add(r * tile.c_row + at), S::LANES));
            }
            store(*y, tile.c.add(r * tile.c_row + at), S::LANES);
        }
        if stats.first {
            store(stored::<S, E>(column[0]), shift_at, S::LANES);
        }
        let shift = S::load(shift_at);
        let (mut sum, mut square) = (S::load(sum_at), S::load(square_at));
        for y in &column {
            let d = stored::<S, E>(*y).sub(shift);
            sum = sum.add(d);
            square = d.mul_add(d, square);
        }
        sum.store(sum_at);
        square.store(square_at);
    }
}

/// Adds bias and `add`, stores, normalises, and accumulates the statistics of one vector of `lanes`
/// columns. `WHOLE` says that `lanes` fills the vector.
#[inline(always)]
unsafe fn finish<S: Simd, E: Element, const R: usize, const WHOLE: bool>(
    tile: &Tile<E>,
    column: &mut [S; R],
    at: usize,
    lanes: usize,
) {
    // SAFETY: the caller enabled the features of `S` and promises `R` rows of `lanes` columns at
    // `c`, `add`, `bias`, the statistics and the batch norm.
    unsafe {
        let lanes = if WHOLE { S::LANES } else { lanes };
        if !tile.bias.is_null() {
            let bias = load(tile.bias.add(at), lanes);
            for y in column.iter_mut() {
                *y = y.add(bias);
            }
        }
        if !tile.add.is_null() {
            for (r, y) in column.iter_mut().enumerate() {
                *y = y.add(load(tile.add.add(r * tile.c_row + at), lanes));
            }
        }
        if !tile.c.is_null() {
            for (r, y) in column.iter().enumerate() {
                store(*y, tile.c.add(r * tile.c_row + at), lanes);
            }
        }
        if let Some(norm) = &tile.norm {
            let channels = norm.channels::<S>(at, lanes);
            for (r, y) in column.iter().enumerate() {
                norm.store(channels, *y, r * tile.c_row + at, lanes);
            }
        }
        if let Some(stats) = tile.stats {
            if stats.first {
                store(stored::<S, E>(column[0]), stats.shift.add(at), lanes);
            }
            let shift: S = load(stats.shift.add(at), lanes);
            let mut sum: S = load(stats.sum.add(at), lanes);
            let mut square: S = load(stats.square.add(at), lanes);
            for y in column.iter() {
                let d = stored::<S, E>(*y).sub(shift);
                sum = sum.add(d);
                square = d.mul_add(d, square);
            }
            store(sum, stats.sum.add(at), lanes);
            store(square, stats.square.add(at), lanes);
        }
    }
}
