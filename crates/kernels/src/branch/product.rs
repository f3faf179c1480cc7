//! Products with packed weights inside a task, and what carries values between them.

use crate::conv::Panels;
use crate::element::Element;
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
/// The features of `S` are enabled; `a` is an operand for `b` of `rows` rows, and the pointers of `out`
/// are null or valid for the result.
#[inline(always)]
pub(super) unsafe fn multiply<S: Simd>(rows: usize, a: Left, b: &Panels, out: Out) {
    for column in (0..b.columns).step_by(S::TILE_COLUMNS) {
        let (columns, vectors) = panel_extent::<S>(b.columns, column);
        let panel = b.data.at(column / S::TILE_COLUMNS * b.panel).cast_const();
        let terms = [Term { a: a.at, b: panel }];
        for (row, count) in row_blocks::<S>(rows) {
            let at = row * b.columns + column;
            let tile = Tile::<f32> {
                a_offset: row * a.row,
                depth: b.depth,
                a_row: a.row,
                b_depth: S::TILE_COLUMNS,
                c: out.at.wrapping_add(at),
                c_row: b.columns,
                columns,
                bias: beside(out.bias, column),
                add: beside(out.add, at),
                prefetch: panel,
                prefetch_step: 16,
                ..Tile::plain(&terms)
            };
            // SAFETY: the caller enabled the features of `S` and promises operands and a result of
            // these sizes; weights are packed in pairs where the processor multiplies them.
            unsafe {
                #[cfg(target_arch = "x86_64")]
                if b.pairs {
                    crate::pair_tile::pair_tile(count, vectors, &tile);
                    continue;
                }
                run_tile::<S, f32>(count, vectors, &tile);
            }
        }
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
