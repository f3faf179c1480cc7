//! A residual branch of a transformer block, in one pass over the tokens: `y = x + W2 m(W1 norm(x) +
//! b1) + b2`, where m is GELU or attention.
//!
//! A task takes some sequences through the whole branch, forward or backward, and keeps what lies
//! between the two products in its core's cache. As operations of their own, the parts would each
//! read and write the memory of all tokens, which costs as much time as the products themselves.

mod backward;
mod forward;
mod product;

use crate::activation::gelu_and_slope;
use crate::attention::Attention;
use crate::conv::{Direction, PackedWeights, Panels};
use crate::element::Element;
use crate::error::{ShapeError, elements, expect_len, parameter};
use crate::isa::Isa;
use crate::layer_norm::LayerNorm;
use crate::linear::Linear;
use crate::parallel::block_size;
use crate::simd::Simd;

pub use backward::{Gradients, WeightOperands};

/// Tokens that a task aims for.
const TASK_ROWS: usize = block_size(128, 4);

/// What lies between the two fully connected layers of a branch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Middle {
    /// GELU of each hidden feature.
    Gelu {
        /// Hidden features.
        hidden: usize,
    },
    /// Attention of every token to every token; the first layer gives queries, keys and values.
    Attention {
        /// Number of heads; divides the features.
        heads: usize,
    },
}

/// A residual branch with the norm in front. Tokens and their gradients are `f32`; `E` is the type
/// of what the backward pass reads again, and of what is multiplied where the processor multiplies
/// bf16.
#[derive(Debug, Clone)]
pub struct Branch<E = f32> {
    tokens: usize,
    features: usize,
    middle: Middle,
    isa: Isa,
    first: Linear<E>,
    second: Linear<E>,
}

/// The parameters of a branch; the weights are packed for the direction of the pass.
#[derive(Debug, Clone, Copy)]
pub struct Parameters<'a> {
    /// The layer norm in front.
    pub norm: LayerNorm<'a>,
    /// Weights of the two fully connected layers.
    pub weights: [&'a PackedWeights; 2],
    /// Their biases; the backward pass reads none.
    pub biases: [&'a [f32]; 2],
}

impl<E: Element> Branch<E> {
    /// A branch over sequences of `tokens` tokens of `features` features.
    ///
    /// # Errors
    /// [`ShapeError`] when a size is zero, the heads do not divide the features, a product of the
    /// sizes exceeds the address space, or this machine lacks `isa`.
    pub fn new(
        tokens: usize,
        features: usize,
        middle: Middle,
        isa: Isa,
    ) -> Result<Self, ShapeError> {
        let (hidden, heads) = match middle {
            Middle::Gelu { hidden } => (hidden, 1),
            Middle::Attention { heads } => (features, heads),
        };
        for (name, size) in [("tokens", tokens), ("features", features), ("hidden", hidden)] {
            if size == 0 {
                return Err(parameter(name, "must be at least 1"));
            }
        }
        if features.checked_rem(heads) != Some(0) {
            return Err(parameter("heads", format!("{heads} must divide {features} features")));
        }
        // A task's scratch memory is at most twelve matrices of this size, and that of attention.
        let widest = elements("features", &[hidden.max(features).div_ceil(32), 32])?;
        let rows = elements("tokens", &[tokens.max(TASK_ROWS), 2])?;
        elements("scratch memory of a branch", &[64, rows, widest])?;
        let inner = match middle {
            Middle::Gelu { hidden } => hidden,
            Middle::Attention { heads } => {
                3 * (Attention { tokens, heads, width: features / heads }.len()? / tokens)
            }
        };
        let first = Linear::new(features, inner, isa)?;
        let second = Linear::new(hidden, features, isa)?;
        Ok(Self { tokens, features, middle, isa, first, second })
    }

    /// The two fully connected layers, to pack their weights and for their gradients.
    #[must_use]
    pub fn layers(&self) -> [&Linear<E>; 2] {
        [&self.first, &self.second]
    }

    /// Features of a token between the two layers: results of the first layer, and inputs of the
    /// second.
    #[must_use]
    pub fn inner(&self) -> [usize; 2] {
        match self.middle {
            Middle::Gelu { hidden } => [hidden, hidden],
            Middle::Attention { .. } => [3 * self.features, self.features],
        }
    }

    /// The attention of a branch that has one.
    fn attention(&self) -> Option<Attention> {
        match self.middle {
            Middle::Gelu { .. } => None,
            Middle::Attention { heads } => {
                Some(Attention { tokens: self.tokens, heads, width: self.features / heads })
            }
        }
    }

    /// Tokens of a task: whole sequences.
    fn task_rows(&self) -> usize {
        self.tokens * TASK_ROWS.div_ceil(self.tokens)
    }

    /// Checks that `x` holds whole sequences, and returns their number of tokens.
    fn rows(&self, x: &[f32]) -> Result<usize, ShapeError> {
        let sequence = self.tokens * self.features;
        expect_len("tokens of a branch", x.len(), x.len() / sequence * sequence)?;
        Ok(x.len() / self.features)
    }

    /// Checks the norm, and returns the panels of both layers.
    fn panels(
        &self,
        parameters: &Parameters<'_>,
        direction: Direction,
    ) -> Result<[Panels; 2], ShapeError> {
        expect_len("layer norm gamma", parameters.norm.gamma.len(), self.features)?;
        expect_len("layer norm beta", parameters.norm.beta.len(), self.features)?;
        let [first, second] = parameters.weights;
        Ok([
            self.first.as_conv().panels(direction, first)?,
            self.second.as_conv().panels(direction, second)?,
        ])
    }
}

/// Parts of a task's scratch memory, each from a cache line on.
struct Cut<'a>(&'a mut [f32]);

impl<'a> Cut<'a> {
    /// Floats that a part of `len` takes.
    const fn size(len: usize) -> usize {
        len.next_multiple_of(16)
    }

    fn take(&mut self, len: usize) -> &'a mut [f32] {
        let (part, rest) = std::mem::take(&mut self.0).split_at_mut(Self::size(len));
        self.0 = rest;
        &mut part[..len]
    }
}

/// GELU of each value, in place.
#[inline(always)]
fn gelu<S: Simd>(values: &mut [f32]) {
    values.iter_mut().for_each(|x| *x = gelu_and_slope::<S>(*x)[0]);
}
