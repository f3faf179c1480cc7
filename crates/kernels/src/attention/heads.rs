//! Attention of one sequence, head by head.
//!
//! Scores are kept transposed, `[key][query]`: the softmax over the keys of a query then runs down
//! a column, and its sums need no reduction across a vector. A register tile reads its left matrix
//! at any two distances, so that a transposed matrix costs nothing there; only right matrices, the
//! queries and the output's gradient, are turned.

use super::{Attention, LANES, SLACK};
use crate::math::exp;
use crate::simd::Simd;
use crate::tile::{Term, Tile, panel_extent, row_blocks, run_tile};

/// The left matrix of a product: the address of its first element, the distance between rows and
/// the distance between columns, in floats.
#[derive(Clone, Copy)]
struct Left(*const f32, usize, usize);

/// The right matrix or the result of a product: its address, and the distance between rows.
#[derive(Clone, Copy)]
struct Rows<T>(T, usize);

/// Computes `c = a b`; `c` is `rows x columns`, and `depth` is the number of rows of `b`.
///
/// # Safety
/// The features of `S` are enabled. `a` is readable for `rows x depth` elements, `c` writable for
/// `rows x columns`, and each row of `b` readable for [`SLACK`] floats more than `columns`.
#[inline(always)]
unsafe fn product<S: Simd>(
    [rows, depth, columns]: [usize; 3],
    Left(a, a_row, a_depth): Left,
    Rows(b, b_depth): Rows<*const f32>,
    Rows(c, c_row): Rows<*mut f32>,
) {
    for column in (0..columns).step_by(S::TILE_COLUMNS) {
        let (width, vectors) = panel_extent::<S>(columns, column);
        let terms = [Term { a, b: b.wrapping_add(column) }];
        for (row, count) in row_blocks::<S>(rows) {
            let tile = Tile::<f32> {
                a_offset: row * a_row,
                depth,
                a_row,
                a_depth,
                b_depth,
                c: c.wrapping_add(row * c_row + column),
                c_row,
                columns: width,
                ..Tile::plain(&terms)
            };
            // SAFETY: the caller enabled the features of `S` and promises matrices of these sizes.
            unsafe { run_tile::<S, f32>(count, vectors, &tile) };
        }
    }
}

/// The scratch memory of one sequence.
struct Scratch<'a> {
    /// Queries, turned: `[width][column]`.
    queries: &'a mut [f32],
    /// Scores, then attention weights: `[key][column]`.
    weights: &'a mut [f32],
    /// The output's gradient, turned; empty in a forward pass.
    douts: &'a mut [f32],
    /// The loss's derivatives by the weights, then by the scores; empty in a forward pass.
    slopes: &'a mut [f32],
}

impl Attention {
    /// Number of columns of a matrix with a column for each query, in whole vectors.
    fn columns(&self) -> usize {
        self.tokens.next_multiple_of(LANES)
    }

    /// Number of floats of scratch memory for the forward pass of a sequence. The sizes have been
    /// checked.
    pub(crate) fn forward_scratch(&self) -> usize {
        (self.width + self.tokens) * self.columns() + SLACK
    }

    /// Number of floats of scratch memory for the backward pass of a sequence.
    pub(crate) fn backward_scratch(&self) -> usize {
        2 * self.forward_scratch()
    }

    fn cut<'a>(&self, scratch: &'a mut [f32]) -> Scratch<'a> {
        let columns = self.columns();
        let (queries, rest) = scratch.split_at_mut(self.width * columns);
        let (weights, rest) = rest.split_at_mut(self.tokens * columns);
        let (douts, slopes) = rest.split_at_mut((self.width * columns).min(rest.len()));
        // A tile computes whole vectors, so the columns beyond the last query must hold numbers.
        queries.fill(0.0);
        douts.fill(0.0);
        Scratch { queries, weights, douts, slopes }
    }

    /// Distance in floats between two tokens of queries, keys and values side by side.
    fn token(&self) -> usize {
        3 * self.heads * self.width
    }

    /// Index of the first token's queries (`part` 0), keys (1) or values (2) of `head`.
    fn at(&self, part: usize, head: usize) -> usize {
        (part * self.heads + head) * self.width
    }

    /// Writes the transpose of `[T][width]`, whose rows are `x_row` apart, to the columns of `out`.
    ///
    /// # Safety
    /// The features of `S` are enabled, and `x` is readable for `T` rows.
    #[inline(always)]
    unsafe fn turn<S: Simd>(&self, x: *const f32, x_row: usize, out: &mut [f32]) {
        let columns = self.columns();
        let whole = |size: usize| size / S::LANES * S::LANES;
        let (tokens, features) = (whole(self.tokens), whole(self.width));
        for token in (0..tokens).step_by(S::LANES) {
            for feature in (0..features).step_by(S::LANES) {
                let to = out[feature * columns + token..].as_mut_ptr();
                // SAFETY: the caller enabled the features of `S` and promises `tokens` readable
                // rows of `width` floats; `out` has a row of `columns` for each feature.
                unsafe { S::transpose(x.add(token * x_row + feature), x_row, to, columns) };
            }
        }
        for token in 0..self.tokens {
            for feature in if token < tokens { features } else { 0 }..self.width {
                // SAFETY: as above.
                out[feature * columns + token] = unsafe { *x.add(token * x_row + feature) };
            }
        }
    }

    /// Computes the attention weights of `head`, transposed.
    ///
    /// # Safety
    /// The features of `S` are enabled, and `qkv` is a sequence.
    #[inline(always)]
    unsafe fn weights<S: Simd>(&self, head: usize, qkv: *const f32, scratch: &mut Scratch<'_>) {
        let (token, columns) = (self.token(), self.columns());
        // SAFETY: the caller enabled the features of `S` and promises a sequence; the scratch
        // memory has matrices of these sizes.
        unsafe {
            self.turn::<S>(qkv.add(self.at(0, head)), token, scratch.queries);
            product::<S>(
                [self.tokens, self.width, columns],
                Left(qkv.add(self.at(1, head)), token, 1),
                Rows(scratch.queries.as_ptr(), columns),
                Rows(scratch.weights.as_mut_ptr(), columns),
            );
        }
        self.soften::<S>(scratch.weights);
    }

    /// Turns scores into attention weights by a softmax over the keys, in place.
    #[inline(always)]
    fn soften<S: Simd>(&self, scores: &mut [f32]) {
        let scale = (self.width as f32).sqrt().recip();
        let columns = self.columns();
        for first in (0..columns).step_by(LANES) {
            let mut most = [f32::NEG_INFINITY; LANES];
            for row in scores[first..].chunks(columns) {
                for (most, score) in most.iter_mut().zip(&row[..LANES]) {
                    *most = if *score > *most { *score } else { *most };
                }
            }
            let mut sums = [0.0f32; LANES];
            for row in scores[first..].chunks_mut(columns) {
                for ((score, most), sum) in row[..LANES].iter_mut().zip(&most).zip(&mut sums) {
                    *score = exp::<S>((*score - most) * scale);
                    *sum += *score;
                }
            }
            let inverse = sums.map(|sum| 1.0 / sum);
            for row in scores[first..].chunks_mut(columns) {
                for (weight, inverse) in row[..LANES].iter_mut().zip(&inverse) {
                    *weight *= inverse;
                }
            }
        }
    }

    /// Turns the loss's derivatives by the weights into its derivatives by the scores (products of
    /// query and key), in place.
    #[inline(always)]
    fn through_softmax(&self, slopes: &mut [f32], weights: &[f32]) {
        let scale = (self.width as f32).sqrt().recip();
        let columns = self.columns();
        for first in (0..columns).step_by(LANES) {
            let mut means = [0.0f32; LANES];
            for (slopes, weights) in
                slopes[first..].chunks(columns).zip(weights[first..].chunks(columns))
            {
                let values = slopes[..LANES].iter().zip(&weights[..LANES]);
                for (mean, (slope, weight)) in means.iter_mut().zip(values) {
                    *mean += slope * weight;
                }
            }
            for (slopes, weights) in
                slopes[first..].chunks_mut(columns).zip(weights[first..].chunks(columns))
            {
                let values = slopes[..LANES].iter_mut().zip(&weights[..LANES]);
                for (mean, (slope, weight)) in means.iter().zip(values) {
                    *slope = weight * (*slope - mean) * scale;
                }
            }
        }
    }

    /// Computes `out`, `[T][heads][width]`, from `qkv`, `[T][3][heads][width]`.
    ///
    /// # Safety
    /// The features of `S` are enabled. `qkv` is readable for a sequence and [`SLACK`] floats more,
    /// `out` writable for a sequence, and `scratch` has [`Attention::forward_scratch`] floats.
    #[inline(always)]
    pub(crate) unsafe fn forward_sequence<S: Simd>(
        &self,
        qkv: *const f32,
        out: *mut f32,
        scratch: &mut [f32],
    ) {
        let mut scratch = self.cut(scratch);
        for head in 0..self.heads {
            // SAFETY: the caller enabled the features of `S` and promises a sequence.
            unsafe {
                self.weights::<S>(head, qkv, &mut scratch);
                self.outputs::<S>(head, qkv, out, &scratch);
            }
        }
    }

    /// Computes the output of `head` from its attention weights.
    ///
    /// # Safety
    /// The conditions of [`Attention::forward_sequence`] hold.
    #[inline(always)]
    unsafe fn outputs<S: Simd>(
        &self,
        head: usize,
        qkv: *const f32,
        out: *mut f32,
        scratch: &Scratch<'_>,
    ) {
        // SAFETY: the caller enabled the features of `S` and promises sequences; the columns of the
        // transposed weights are the rows of the weights.
        unsafe {
            product::<S>(
                [self.tokens, self.tokens, self.width],
                Left(scratch.weights.as_ptr(), 1, self.columns()),
                Rows(qkv.add(self.at(2, head)), self.token()),
                Rows(out.add(head * self.width), self.heads * self.width),
            );
        }
    }

    /// Computes `dqkv` from `qkv` and the output's gradient `dout`, and the output once more where
    /// `out` is not null.
    ///
    /// # Safety
    /// The features of `S` are enabled. `qkv` and `dout` are readable for a sequence and [`SLACK`]
    /// floats more, `dqkv` and `out`, where it is not null, are writable for a sequence, and
    /// `scratch` has [`Attention::backward_scratch`] floats.
    #[inline(always)]
    pub(crate) unsafe fn backward_sequence<S: Simd>(
        &self,
        qkv: *const f32,
        dout: *const f32,
        dqkv: *mut f32,
        out: *mut f32,
        scratch: &mut [f32],
    ) {
        let mut scratch = self.cut(scratch);
        let Self { tokens, heads, width } = *self;
        let (token, out_row, columns) = (self.token(), heads * width, self.columns());
        for head in 0..heads {
            // SAFETY: the caller enabled the features of `S` and promises sequences; the scratch
            // memory has matrices of these sizes, and the columns of a transposed matrix are the
            // rows of the matrix.
            unsafe {
                self.weights::<S>(head, qkv, &mut scratch);
                if !out.is_null() {
                    self.outputs::<S>(head, qkv, out, &scratch);
                }
                let dout = dout.add(head * width);
                self.turn::<S>(dout, out_row, scratch.douts);
                product::<S>(
                    [tokens, width, columns],
                    Left(qkv.add(self.at(2, head)), token, 1),
                    Rows(scratch.douts.as_ptr(), columns),
                    Rows(scratch.slopes.as_mut_ptr(), columns),
                );
                let slopes = &mut scratch.slopes[..tokens * columns];
                self.through_softmax(slopes, scratch.weights);
                let sizes = [tokens, tokens, width];
                let (slopes, weights) = (slopes.as_ptr(), scratch.weights.as_ptr());
                let right = |part: usize| Rows(qkv.add(self.at(part, head)), token);
                let to = |part: usize| Rows(dqkv.add(self.at(part, head)), token);
                product::<S>(sizes, Left(slopes, 1, columns), right(1), to(0));
                product::<S>(sizes, Left(slopes, columns, 1), right(0), to(1));
                product::<S>(sizes, Left(weights, columns, 1), Rows(dout, out_row), to(2));
            }
        }
    }
}
