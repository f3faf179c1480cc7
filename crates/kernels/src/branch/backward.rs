//! The backward pass of a branch.

use super::product::{Out, convert, multiply, operand, pair_row};
use super::{Branch, Cut, Parameters};
use crate::activation::gelu_and_slope;
use crate::attention::{Attention, SLACK};
use crate::buffer::{Buffer, with_scratch};
use crate::conv::{Direction, Panels};
use crate::element::{Element, ElementType};
use crate::error::{ShapeError, expect_len};
use crate::layer_norm::LayerNorm;
use crate::parallel::{Shared, for_each};
use crate::simd::{Kernel, Simd, dispatch};

/// Where the gradients of a branch are written.
#[derive(Debug)]
pub struct Gradients<'a> {
    /// By the tokens, `[N][T][features]`.
    pub x: &'a mut [f32],
    /// By the norm's scale, `[features]`.
    pub gamma: &'a mut [f32],
    /// By the norm's offset, `[features]`.
    pub beta: &'a mut [f32],
}

/// The factors of the gradients of the weights, computed on the way: the first layer's weights have
/// the gradient of a [`Linear`](crate::linear::Linear) between `normed` and `inner`, the second's of
/// one between `outer` and the result's gradient.
#[derive(Debug)]
pub struct WeightOperands<'a, E> {
    /// The normed tokens, `[N][T][features]`.
    pub normed: &'a mut [E],
    /// The gradient by the first layer's results, `[N][T][inner]`.
    pub inner: &'a mut [E],
    /// The second layer's input, `[N][T][outer]`.
    pub outer: &'a mut [E],
    /// The result's gradient as `E`, `[N][T][features]`; `None` where it is `f32` already.
    pub dy: Option<&'a mut [E]>,
}

impl<E: Element> Branch<E> {
    /// Computes the gradients from the tokens `x`, what the forward pass has `kept`, and the
    /// result's gradient `dy`, and the factors of the weights' gradients where `operands` has room
    /// for them.
    ///
    /// # Errors
    /// [`ShapeError`] when a slice does not fit, or weights were packed for another layer or
    /// direction.
    #[inline(never)]
    pub fn backward(
        &self,
        x: &[f32],
        parameters: Parameters<'_>,
        kept: &[E],
        dy: &[f32],
        gradients: Gradients<'_>,
        operands: Option<WeightOperands<'_, E>>,
    ) -> Result<(), ShapeError> {
        let rows = self.rows(x)?;
        let panels = self.panels(&parameters, Direction::InputGrad)?;
        self.check(rows, kept, dy, &gradients, operands.as_ref())?;
        let (step, features, [inner, outer]) = (self.task_rows(), self.features, self.inner());
        let tasks = rows.div_ceil(step);
        let mut sums = Buffer::<f32>::zeroed(tasks * 2 * features);
        let (dx, shared_sums) = (Shared::new(gradients.x), Shared::new(&mut sums));
        let operands = operands.map(Factors::new);
        for_each(tasks, |task| {
            let (first, count) = (task * step, (rows - task * step).min(step));
            let attention = self.attention();
            let sizes = [
                count * inner + SLACK,
                count * outer + SLACK,
                attention.map_or(0, |_| count * inner),
                count * features,
                attention.map_or(0, |_| count * outer),
                count * pair_row(inner.max(features)),
                attention.map_or(0, |attention| attention.backward_scratch()),
            ];
            with_scratch(sizes.map(Cut::size).iter().sum(), |scratch| {
                let kernel = Backward {
                    attention,
                    norm: parameters.norm,
                    x: &x[first * features..][..count * features],
                    panels,
                    kept: &kept[first * inner..][..count * inner],
                    dy: &dy[first * features..][..count * features],
                    // SAFETY: tasks have tokens and sums of their own; the gradients have a row for
                    // each token.
                    dx: unsafe {
                        std::slice::from_raw_parts_mut(dx.at(first * features), count * features)
                    },
                    // SAFETY: as above.
                    sums: unsafe {
                        let at = shared_sums.at(task * 2 * features);
                        std::slice::from_raw_parts_mut(at, 2 * features)
                    },
                    // SAFETY: as above, for operands that [`Branch::check`] has compared.
                    operands: operands
                        .map(|all| unsafe { all.rows(first, count, [features, inner, outer]) }),
                    sizes,
                    scratch,
                };
                // SAFETY: the panels fit the layers, and the scratch memory has the sizes above.
                unsafe { dispatch(self.isa, kernel) };
            });
        });
        for (i, (gamma, beta)) in gradients.gamma.iter_mut().zip(gradients.beta).enumerate() {
            let sum = |at: usize| {
                let parts = (0..tasks).map(|task| f64::from(sums[task * 2 * features + at]));
                parts.sum::<f64>() as f32
            };
            (*gamma, *beta) = (sum(i), sum(features + i));
        }
        Ok(())
    }

    /// Compares every slice with `rows` tokens.
    fn check(
        &self,
        rows: usize,
        kept: &[E],
        dy: &[f32],
        gradients: &Gradients<'_>,
        operands: Option<&WeightOperands<'_, E>>,
    ) -> Result<(), ShapeError> {
        let (features, [inner, outer]) = (self.features, self.inner());
        expect_len("kept values of a branch", kept.len(), rows * inner)?;
        expect_len("gradient of a branch's result", dy.len(), rows * features)?;
        expect_len("gradient by a branch's tokens", gradients.x.len(), rows * features)?;
        expect_len("layer norm gamma gradient", gradients.gamma.len(), features)?;
        expect_len("layer norm beta gradient", gradients.beta.len(), features)?;
        let Some(operands) = operands else { return Ok(()) };
        expect_len("normed tokens", operands.normed.len(), rows * features)?;
        expect_len("gradient by inner values", operands.inner.len(), rows * inner)?;
        expect_len("inputs of the second layer", operands.outer.len(), rows * outer)?;
        match &operands.dy {
            Some(dy) => expect_len("gradient of the result", dy.len(), rows * features),
            None => Ok(()),
        }
    }
}

/// [`WeightOperands`] as the tasks share them.
#[derive(Clone, Copy)]
struct Factors<E> {
    normed: Shared<E>,
    inner: Shared<E>,
    outer: Shared<E>,
    dy: Shared<E>,
}

impl<E: Element> Factors<E> {
    fn new(operands: WeightOperands<'_, E>) -> Self {
        let WeightOperands { normed, inner, outer, dy } = operands;
        Self {
            normed: Shared::new(normed),
            inner: Shared::new(inner),
            outer: Shared::new(outer),
            dy: dy.map_or(Shared::null(), Shared::new),
        }
    }

    /// The operands of `count` tokens from `first` on.
    ///
    /// # Safety
    /// The tokens exist, and no other task has them.
    unsafe fn rows<'a>(
        self,
        first: usize,
        count: usize,
        [features, inner, outer]: [usize; 3],
    ) -> WeightOperands<'a, E> {
        // SAFETY: the caller promises tokens that exist and that no other task has.
        let part = |all: Shared<E>, width: usize| unsafe {
            std::slice::from_raw_parts_mut(all.at(first * width), count * width)
        };
        WeightOperands {
            normed: part(self.normed, features),
            inner: part(self.inner, inner),
            outer: part(self.outer, outer),
            dy: (!self.dy.is_null()).then(|| part(self.dy, features)),
        }
    }
}

/// The backward pass of some sequences.
struct Backward<'a, E> {
    attention: Option<Attention>,
    norm: LayerNorm<'a>,
    x: &'a [f32],
    panels: [Panels; 2],
    kept: &'a [E],
    dy: &'a [f32],
    dx: &'a mut [f32],
    /// Parts of the gradients by gamma and beta, one after the other.
    sums: &'a mut [f32],
    operands: Option<WeightOperands<'a, E>>,
    sizes: [usize; 7],
    scratch: &'a mut [f32],
}

impl<E: Element> Kernel for Backward<'_, E> {
    type Element = E;
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(mut self) {
        let features = self.norm.gamma.len();
        let (rows, mut cut) = (self.x.len() / features, Cut(std::mem::take(&mut self.scratch)));
        let [hidden, outer, inner, normed, again, pairs, scratch] =
            self.sizes.map(|len| cut.take(len));
        let [first, second] = self.panels;
        // SAFETY: the caller enabled the features of `S` and promises panels and memory of these
        // sizes.
        unsafe {
            let left = operand::<S>(self.dy, features, &second, pairs);
            multiply::<S>(rows, left, &second, plain(outer));
            convert::<S, E, f32>(self.kept, hidden);
            let inner = match self.attention {
                None => {
                    let len = self.kept.len();
                    self.through_gelu::<S>(hidden, outer);
                    &outer[..len]
                }
                Some(attention) => {
                    self.through_attention::<S>(
                        attention,
                        [hidden, outer],
                        [inner, again],
                        scratch,
                    );
                    &*inner
                }
            };
            let left = operand::<S>(inner, inner.len() / rows, &first, pairs);
            if let Some(operands) = &mut self.operands {
                convert::<S, f32, E>(inner, operands.inner);
            }
            multiply::<S>(rows, left, &first, plain(normed));
            self.through_norm(normed);
            if let (Some(operands), ElementType::Bf16) = (&mut self.operands, E::PRECISION)
                && let Some(dy) = &mut operands.dy
            {
                convert::<S, f32, E>(self.dy, dy);
            }
        }
    }
}

/// A result without bias and addend.
fn plain(out: &mut [f32]) -> Out {
    Out { at: out.as_mut_ptr(), bias: std::ptr::null(), add: std::ptr::null() }
}

impl<E: Element> Backward<'_, E> {
    /// Turns `outer`, the gradient by GELU's results, into that by its inputs `hidden`.
    #[inline(always)]
    fn through_gelu<S: Simd>(&mut self, hidden: &[f32], outer: &mut [f32]) {
        match &mut self.operands {
            None => {
                for (gradient, x) in outer.iter_mut().zip(hidden) {
                    *gradient *= gelu_and_slope::<S>(*x)[1];
                }
            }
            Some(operands) => {
                for ((gradient, x), again) in outer.iter_mut().zip(hidden).zip(&mut *operands.outer)
                {
                    let [value, slope] = gelu_and_slope::<S>(*x);
                    *gradient *= slope;
                    *again = E::narrow(value);
                }
            }
        }
    }

    /// Computes the gradient by queries, keys and values from that by the attention's output.
    ///
    /// # Safety
    /// The features of `S` are enabled, and the memory has the sizes of the task.
    #[inline(always)]
    unsafe fn through_attention<S: Simd>(
        &mut self,
        attention: Attention,
        [qkv, dout]: [&[f32]; 2],
        [dqkv, out]: [&mut [f32]; 2],
        scratch: &mut [f32],
    ) {
        let len = attention.tokens * attention.heads * attention.width;
        let again = self.operands.is_some();
        for sequence in 0..out.len() / len {
            let at = sequence * len;
            // SAFETY: the caller enabled the features of `S`; the sequence exists.
            unsafe {
                attention.backward_sequence::<S>(
                    qkv.as_ptr().add(3 * at),
                    dout.as_ptr().add(at),
                    dqkv.as_mut_ptr().add(3 * at),
                    if again { out.as_mut_ptr().add(at) } else { std::ptr::null_mut() },
                    scratch,
                );
            }
        }
        if let Some(operands) = &mut self.operands {
            // SAFETY: the caller enabled the features of `S`.
            unsafe { convert::<S, f32, E>(out, operands.outer) };
        }
    }

    /// Computes the gradient by the tokens from `dnormed`, that by the normed tokens.
    #[inline(always)]
    fn through_norm(&mut self, dnormed: &[f32]) {
        let features = self.norm.gamma.len();
        let (gamma, beta) = self.sums.split_at_mut(features);
        let (x, dy) = (self.x.chunks_exact(features), self.dy.chunks_exact(features));
        let rows = x.zip(dy).zip(dnormed.chunks_exact(features));
        for (((x, dy), dnormed), dx) in rows.zip(self.dx.chunks_exact_mut(features)) {
            self.norm.backward_row(x, dnormed, dx, gamma, beta);
            dx.iter_mut().zip(dy).for_each(|(dx, dy)| *dx += dy);
        }
        if let Some(operands) = &mut self.operands {
            let normed = operands.normed.chunks_exact_mut(features);
            for (x, normed) in self.x.chunks_exact(features).zip(normed) {
                self.norm.forward_row(x, normed);
            }
        }
    }
}
