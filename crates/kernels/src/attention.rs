//! Scaled dot-product attention of every token to every token, over heads, with queries, keys and
//! values side by side.
//!
//! Source: A. Vaswani et al., "Attention Is All You Need", arXiv:1706.03762, equation 1.

use crate::parallel::prelude::*;

use crate::buffer::with_scratch;
use crate::error::{ShapeError, elements, expect_len, parameter};
use crate::isa::Isa;
use crate::math::{exp, largest, sum};
use crate::simd::{Kernel, Simd, dispatch};
use crate::tile::{Term, Tile, panel_extent, row_blocks, run_tile};

/// Multi-head attention over sequences. The input `[N][T][3][heads][width]` holds queries, keys and
/// values of each token; the output is `[N][T][heads][width]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attention {
    /// Tokens T of a sequence.
    pub tokens: usize,
    /// Number of heads.
    pub heads: usize,
    /// Features of one head.
    pub width: usize,
}

impl Attention {
    /// Number of floats of one sequence's output.
    fn len(&self) -> Result<usize, ShapeError> {
        let Self { tokens, heads, width } = *self;
        for (name, size) in [("tokens", tokens), ("heads", heads), ("width", width)] {
            if size == 0 {
                return Err(parameter(name, "must be at least 1"));
            }
        }
        // The input is the largest tensor. A task's scratch memory is at most five matrices of
        // tokens by features and two of tokens by tokens, with padded sides. If each of these fits,
        // their sum fits too.
        let row = crate::error::padded("attention tokens", tokens, PANEL)?;
        let features = crate::error::padded("attention width", width, PANEL)?;
        elements("attention", &[3, tokens, heads, features])?;
        elements("attention scratch memory", &[8, features, row])?;
        elements("attention weights", &[8, row, row])?;
        Ok(tokens * heads * width)
    }

    /// `softmax(q k^T / sqrt(width)) v` for each sequence and head.
    ///
    /// # Errors
    /// [`ShapeError`] when `qkv` and `out` do not hold the same number of whole sequences.
    pub fn forward(&self, isa: Isa, qkv: &[f32], out: &mut [f32]) -> Result<(), ShapeError> {
        let len = self.len()?;
        expect_len("attention input", qkv.len(), 3 * out.len())?;
        expect_len("attention output", out.len(), out.len() / len * len)?;
        out.par_chunks_mut(len).zip(qkv.par_chunks(3 * len)).for_each(|(out, qkv)| {
            with_scratch(self.features() + self.rows() + self.scores(), |scratch| {
                // SAFETY: `qkv` and `out` are one whole sequence each, and `scratch` has the length
                // that `Forward` needs.
                unsafe { dispatch(isa, Forward { shape: *self, qkv, out, scratch }) };
            });
        });
        Ok(())
    }

    /// Computes the input's gradient `dqkv` from the output's gradient `dout`. The attention
    /// weights are computed again from `qkv`, so the forward pass need not keep them.
    ///
    /// # Errors
    /// [`ShapeError`] when the tensors do not hold the same number of whole sequences.
    pub fn backward(
        &self,
        isa: Isa,
        qkv: &[f32],
        dout: &[f32],
        dqkv: &mut [f32],
    ) -> Result<(), ShapeError> {
        let len = self.len()?;
        expect_len("attention input", qkv.len(), 3 * dout.len())?;
        expect_len("attention input gradient", dqkv.len(), qkv.len())?;
        expect_len("attention output gradient", dout.len(), dout.len() / len * len)?;
        let sequences =
            dqkv.par_chunks_mut(3 * len).zip(qkv.par_chunks(3 * len)).zip(dout.par_chunks(len));
        sequences.for_each(|((dqkv, qkv), dout)| {
            with_scratch(2 * self.features() + 3 * self.rows() + 2 * self.scores(), |scratch| {
                // SAFETY: the tensors are one whole sequence each, and `scratch` has the length
                // that `Backward` needs.
                unsafe { dispatch(isa, Backward { shape: *self, qkv, dout, dqkv, scratch }) };
            });
        });
        Ok(())
    }

    /// Number of floats of a head's matrix `[width][T]` with padded rows.
    fn features(&self) -> usize {
        self.width * padded(self.tokens)
    }

    /// Number of floats of a head's matrix `[T][width]` with padded rows.
    fn rows(&self) -> usize {
        self.tokens * padded(self.width)
    }

    /// Number of floats of a head's matrix `[T][T]` with padded rows.
    fn scores(&self) -> usize {
        self.tokens * padded(self.tokens)
    }

    /// Distance in floats between two tokens of the input.
    fn token(&self) -> usize {
        3 * self.heads * self.width
    }

    /// Index of the first token's queries (`part` 0), keys (1) or values (2) of `head`.
    fn at(&self, part: usize, head: usize) -> usize {
        (part * self.heads + head) * self.width
    }

    /// Copies one head's features from `x[at ..]`, whose tokens are `distance` apart, to
    /// `[T][width]`.
    fn copy(&self, x: &[f32], at: usize, distance: usize, out: &mut [f32]) {
        for (out, x) in out.chunks_exact_mut(padded(self.width)).zip(x[at..].chunks(distance)) {
            out[..self.width].copy_from_slice(&x[..self.width]);
        }
    }

    /// Does what [`copy`](Self::copy) does, but writes the transpose `[width][T]`.
    fn transpose(&self, x: &[f32], at: usize, distance: usize, out: &mut [f32]) {
        let row = padded(self.tokens);
        for (token, x) in x[at..].chunks(distance).enumerate() {
            out[token..]
                .iter_mut()
                .step_by(row)
                .zip(&x[..self.width])
                .for_each(|(out, x)| *out = *x);
        }
    }

    /// Turns the loss's derivatives by the weights into its derivatives by the scores (products of
    /// query and key), in place.
    #[inline(always)]
    fn through_softmax(&self, slopes: &mut [f32], weights: &[f32]) {
        let (tokens, row) = (self.tokens, padded(self.tokens));
        let scale = (self.width as f32).sqrt().recip();
        for (slopes, weights) in slopes.chunks_exact_mut(row).zip(weights.chunks_exact(row)) {
            let (slopes, weights) = (&mut slopes[..tokens], &weights[..tokens]);
            let mean = sum(tokens, |j| weights[j] * slopes[j]);
            slopes
                .iter_mut()
                .zip(weights)
                .for_each(|(slope, weight)| *slope = weight * (*slope - mean) * scale);
        }
    }

    /// Turns scores into attention weights by a softmax over each row, in place.
    #[inline(always)]
    fn soften(&self, scores: &mut [f32]) {
        let scale = (self.width as f32).sqrt().recip();
        for row in scores.chunks_exact_mut(padded(self.tokens)) {
            let row = &mut row[..self.tokens];
            let most = largest(row);
            row.iter_mut().for_each(|score| *score = exp((*score - most) * scale));
            let inverse = 1.0 / sum(row.len(), |j| row[j]);
            row.iter_mut().for_each(|weight| *weight *= inverse);
        }
    }
}

/// A multiple of the panel width of every instruction set, in floats.
const PANEL: usize = 32;

/// Length in floats of a matrix's row in scratch memory.
fn padded(columns: usize) -> usize {
    columns.next_multiple_of(PANEL)
}

/// The left matrix of a product: the address of its first element, the distance between rows and
/// the distance between columns, in floats.
#[derive(Clone, Copy)]
struct Left(*const f32, usize, usize);

/// Computes `c = a b`. `c` is `rows x columns` with rows `c_row` apart; `b` has `depth` padded
/// rows.
///
/// # Safety
/// The features of `S` are enabled. `a` is readable for `rows x depth` elements, `c` writable for
/// `rows x columns`, and each row of `b` is padded to whole panels.
#[inline(always)]
unsafe fn product<S: Simd>(
    [rows, depth, columns]: [usize; 3],
    a: Left,
    b: &[f32],
    c: *mut f32,
    c_row: usize,
) {
    let Left(a, a_row, a_depth) = a;
    for (row, count) in row_blocks::<S>(rows) {
        for column in (0..columns).step_by(S::TILE_COLUMNS) {
            let (width, vectors) = panel_extent::<S>(columns, column);
            // SAFETY: the caller enabled the features of `S` and promises matrices of these sizes.
            unsafe {
                let terms = [Term { a, b: b.as_ptr().add(column) }];
                let tile = Tile::<f32> {
                    a_offset: row * a_row,
                    depth,
                    a_row,
                    a_depth,
                    b_depth: padded(columns),
                    c: c.add(row * c_row + column),
                    c_row,
                    columns: width,
                    ..Tile::plain(&terms)
                };
                run_tile::<S, f32>(count, vectors, &tile);
            }
        }
    }
}

/// Attention of one sequence.
struct Forward<'a> {
    shape: Attention,
    qkv: &'a [f32],
    out: &'a mut [f32],
    scratch: &'a mut [f32],
}

impl Kernel for Forward<'_> {
    type Element = f32;
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Self { shape, qkv, out, scratch } = self;
        let Attention { tokens, heads, width } = shape;
        let (keys, rest) = scratch.split_at_mut(shape.features());
        let (values, scores) = rest.split_at_mut(shape.rows());
        for head in 0..heads {
            shape.transpose(qkv, shape.at(1, head), shape.token(), keys);
            shape.copy(qkv, shape.at(2, head), shape.token(), values);
            let queries = Left(qkv[shape.at(0, head)..].as_ptr(), shape.token(), 1);
            // SAFETY: the caller enabled the features of `S`; `shape.at` finds the queries inside
            // the sequence, and `scratch` was cut into matrices of these sizes.
            unsafe {
                product::<S>(
                    [tokens, width, tokens],
                    queries,
                    keys,
                    scores.as_mut_ptr(),
                    padded(tokens),
                )
            };
            shape.soften(scores);
            let weights = Left(scores.as_ptr(), padded(tokens), 1);
            // SAFETY: as for the product above; the head's output lies inside `out`.
            unsafe {
                product::<S>(
                    [tokens, tokens, width],
                    weights,
                    values,
                    out[head * width..].as_mut_ptr(),
                    heads * width,
                )
            };
        }
    }
}

/// Gradient of the attention of one sequence.
struct Backward<'a> {
    shape: Attention,
    qkv: &'a [f32],
    dout: &'a [f32],
    dqkv: &'a mut [f32],
    scratch: &'a mut [f32],
}

impl Kernel for Backward<'_> {
    type Element = f32;
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Self { shape, qkv, dout, dqkv, scratch } = self;
        let Attention { tokens, heads, width } = shape;
        let (transposed, rest) = scratch.split_at_mut(2 * shape.features());
        let (keys_by_feature, values_by_feature) = transposed.split_at_mut(shape.features());
        let (rows, rest) = rest.split_at_mut(3 * shape.rows());
        let (keys, rows) = rows.split_at_mut(shape.rows());
        let (queries, douts) = rows.split_at_mut(shape.rows());
        let (weights, slopes) = rest.split_at_mut(shape.scores());
        let (token, row) = (shape.token(), padded(tokens));
        for head in 0..heads {
            shape.transpose(qkv, shape.at(1, head), token, keys_by_feature);
            shape.transpose(qkv, shape.at(2, head), token, values_by_feature);
            shape.copy(qkv, shape.at(0, head), token, queries);
            shape.copy(qkv, shape.at(1, head), token, keys);
            shape.copy(dout, head * width, heads * width, douts);
            // SAFETY: the caller enabled the features of `S`; the matrices lie in the sequence, or
            // in `scratch`, which was cut into matrices of these sizes.
            unsafe {
                let query = Left(qkv[shape.at(0, head)..].as_ptr(), token, 1);
                product::<S>(
                    [tokens, width, tokens],
                    query,
                    keys_by_feature,
                    weights.as_mut_ptr(),
                    row,
                );
                let dout = Left(dout[head * width..].as_ptr(), heads * width, 1);
                product::<S>(
                    [tokens, width, tokens],
                    dout,
                    values_by_feature,
                    slopes.as_mut_ptr(),
                    row,
                );
            }
            shape.soften(weights);
            shape.through_softmax(slopes, weights);
            // SAFETY: as for the product above; the columns of a square matrix are the rows of its
            // transpose.
            unsafe {
                let mut out = |part: usize| dqkv[shape.at(part, head)..].as_mut_ptr();
                let sizes = [tokens, tokens, width];
                product::<S>(sizes, Left(slopes.as_ptr(), row, 1), keys, out(0), token);
                product::<S>(sizes, Left(slopes.as_ptr(), 1, row), queries, out(1), token);
                product::<S>(sizes, Left(weights.as_ptr(), 1, row), douts, out(2), token);
            }
        }
    }
}
