//! Products with packed weights inside a task, and what carries values between them.

use crate::conv::Panels;
use crate::element::Element;
#[cfg(target_arch = "x86_64")]
use crate::pair_tile::{VECTORS, pair_rows};
use crate::simd::{Simd, for_each_vector, load, store};
use crate::tile::{Term, Tile, panel_extent, row_blocks, run_tile};

/// The left matrix of a product: `f32`, or pairs of bf16 in the same space. Its rows are `row`
/// floats apart.
#[derive(Clone, Copy)]
pub(super) struct Left {
    pub(super) at: *const f32,
    pub(super) row: usize,
}

/// The result of a product.
#[derive(Clone, Copy)]
pub(super) struct Out {
    pub(super) at: *mut f32,
    /// Null, or one value for each column.
    pub(super) bias: *const f32,
    /// Null, or a matrix with the layout of the result.
    pub(super) add: *const f32,
}

/// Computes `a b + bias + add` for `rows` rows of `b.columns` columns.
///
/// # Safety
/// The features of `S` are enabled; `a` is an operand for `b` of `rows` rows, and the pointers of
/// `out` are null or valid for the result.
#[inline(always)]
pub(super) unsafe fn multiply<S: Simd>(rows: usize, a: Left, b: &Panels, out: Out) {
    #[cfg(target_arch = "x86_64")]
    if b.pairs {
        // Tiles of pairs have up to two panels.
        for column in (0..b.columns).step_by(VECTORS * S::LANES) {
            let columns = (b.columns - column).min(VECTORS * S::LANES);
            let terms = [b.term::<S>(a, column)];
            let tile = tile::<S>(&terms, a, b, out, [column, columns]);
            // SAFETY: the caller promises operands and a result of these sizes; weights are packed
            // in pairs where the processor multiplies them.
            unsafe { pair_rows(rows, columns.div_ceil(S::LANES), &tile) };
        }
        return;
    }
    for column in (0..b.columns).step_by(S::TILE_COLUMNS) {
        let (columns, vectors) = panel_extent::<S>(b.columns, column);
        let terms = [b.term::<S>(a, column)];
        let mut tile = tile::<S>(&terms, a, b, out, [column, columns]);
        (tile.prefetch, tile.prefetch_step) = (terms[0].b, 16);
        for (_, count) in row_blocks::<S>(rows) {
            // SAFETY: the caller enabled the features of `S` and promises operands and a result of
            // these sizes.
            unsafe { run_tile::<S, f32>(count, vectors, &tile) };
            tile.step(count);
        }
    }
}

impl Panels {
    /// The product of `a` with the columns from `column` on.
    fn term<S: Simd>(&self, a: Left, column: usize) -> Term {
        let panel = column / S::TILE_COLUMNS * self.panel;
        Term { a: a.at, b: self.data.at(panel).cast_const() }
    }
}

/// The tile of the first row of `columns` columns from `column` on.
#[inline(always)]
fn tile<'a, S: Simd>(
    terms: &'a [Term],
    a: Left,
    b: &Panels,
    out: Out,
    [column, columns]: [usize; 2],
) -> Tile<'a, f32> {
    Tile {
        depth: b.depth,
        a_row: a.row,
        b_depth: S::TILE_COLUMNS,
        b_panel: b.panel,
        c: out.at.wrapping_add(column),
        c_row: b.columns,
        columns,
        bias: beside(out.bias, column),
        add: beside(out.add, column),
        ..Tile::plain(terms)
    }
}

/// `pointer` moved by `offset`, unless it is null.
#[inline(always)]
fn beside(pointer: *const f32, offset: usize) -> *const f32 {
    if pointer.is_null() { pointer } else { pointer.wrapping_add(offset) }
}

/// Makes `x`, whole rows of `width` floats, an operand of a product with `b`: it stays where it is,
/// or is rounded to pairs in `pairs`, with zeros beyond an odd width.
///
/// # Safety
/// The features of `S` are enabled; `pairs` has room for [`pair_row`] floats a row.
#[inline(always)]
pub(super) unsafe fn operand<S: Simd>(
    x: &[f32],
    width: usize,
    b: &Panels,
    pairs: &mut [f32],
) -> Left {
    if !b.pairs {
        return Left { at: x.as_ptr(), row: width };
    }
    let row = pair_row(width);
    for (x, pairs) in x.chunks_exact(width).zip(pairs.chunks_exact_mut(row)) {
        if let (true, Some(last)) = (width % 2 == 1, pairs.get_mut(width / 2)) {
            *last = 0.0;
        }
        let out = pairs.as_mut_ptr().cast::<half::bf16>();
        // SAFETY: the caller enabled the features of `S`; a row of pairs has room for `width`
        // values of half the size of an `f32`.
        for_each_vector!(width, |i, lanes| unsafe {
            store(load::<S, f32>(x.as_ptr().add(i), lanes), out.add(i), lanes);
        });
    }
    Left { at: pairs.as_ptr(), row }
}

/// Floats of an operand's row of `width` values in pairs: whole cache lines.
pub(super) fn pair_row(width: usize) -> usize {
    width.div_ceil(2).next_multiple_of(16)
}

/// Copies `x` to `out` as another storage type.
///
/// # Safety
/// The features of `S` are enabled.
#[inline(always)]
pub(super) unsafe fn convert<S: Simd, A: Element, B: Element>(x: &[A], out: &mut [B]) {
    let (x, len, out) = (x.as_ptr(), x.len().min(out.len()), out.as_mut_ptr());
    // SAFETY: the caller enabled the features of `S`; both slices have `len` values.
    for_each_vector!(len, |i, lanes| unsafe {
        store(load::<S, A>(x.add(i), lanes), out.add(i), lanes);
    });
}
