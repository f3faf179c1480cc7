//! Scaled dot-product attention of every token to every token, over heads, with queries, keys and
//! values side by side.
//!
//! Source: A. Vaswani et al., "Attention Is All You Need", arXiv:1706.03762, equation 1.

mod heads;

use crate::parallel::prelude::*;

use crate::buffer::with_scratch;
use crate::error::{ShapeError, elements, expect_len, parameter};
use crate::isa::Isa;
use crate::simd::{Kernel, Simd, dispatch};

/// A multiple of the vector length of every instruction set, in floats.
const LANES: usize = crate::math::LANES;
/// Floats that a register tile may read beyond the last column of its right matrix: less than the
/// width of a panel of any instruction set.
pub(crate) const SLACK: usize = 2 * LANES;

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
    pub(crate) fn len(&self) -> Result<usize, ShapeError> {
        let Self { tokens, heads, width } = *self;
        for (name, size) in [("tokens", tokens), ("heads", heads), ("width", width)] {
            if size == 0 {
                return Err(parameter(name, "must be at least 1"));
            }
        }
        // A task's scratch memory is at most two sequences, two matrices of tokens by features and
        // two of tokens by tokens, with padded sides. If each of these fits, their sum fits too.
        let row = crate::error::padded("attention tokens", tokens, SLACK)?;
        let features = crate::error::padded("attention width", width, SLACK)?;
        elements("attention", &[16, tokens, heads, features])?;
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
            with_scratch(qkv.len() + SLACK + self.forward_scratch(), |scratch| {
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
            let sequences = qkv.len() + dout.len() + 2 * SLACK;
            with_scratch(sequences + self.backward_scratch(), |scratch| {
                // SAFETY: the tensors are one whole sequence each, and `scratch` has the length
                // that `Backward` needs.
                unsafe { dispatch(isa, Backward { shape: *self, qkv, dout, dqkv, scratch }) };
            });
        });
        Ok(())
    }
}

/// Copies `x` to the start of `scratch`, where reads beyond its end are harmless, and returns it
/// with the rest of the memory.
fn with_slack<'a>(x: &[f32], scratch: &'a mut [f32]) -> (&'a mut [f32], &'a mut [f32]) {
    let (copy, rest) = scratch.split_at_mut(x.len() + SLACK);
    copy[..x.len()].copy_from_slice(x);
    (copy, rest)
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
        let (qkv, scratch) = with_slack(qkv, scratch);
        // SAFETY: the caller enabled the features of `S` and promises whole sequences and scratch
        // memory of the right length.
        unsafe { shape.forward_sequence::<S>(qkv.as_ptr(), out.as_mut_ptr(), scratch) };
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
        let (qkv, scratch) = with_slack(qkv, scratch);
        let (dout, scratch) = with_slack(dout, scratch);
        let (dqkv, none) = (dqkv.as_mut_ptr(), std::ptr::null_mut());
        // SAFETY: the caller enabled the features of `S` and promises whole sequences and scratch
        // memory of the right length.
        unsafe {
            shape.backward_sequence::<S>(qkv.as_ptr(), dout.as_ptr(), dqkv, none, scratch);
        }
    }
}
