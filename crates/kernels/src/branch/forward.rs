//! The forward pass of a branch.

use super::product::{Out, convert, multiply, operand, pair_row};
use super::{Branch, Cut, Parameters, gelu};
use crate::attention::{Attention, SLACK};
use crate::buffer::with_scratch;
use crate::conv::{Direction, Panels};
use crate::element::Element;
use crate::error::{ShapeError, expect_len};
use crate::layer_norm::LayerNorm;
use crate::parallel::{Shared, for_each};
use crate::simd::{Kernel, Simd, dispatch};

impl<E: Element> Branch<E> {
    /// Computes `y` for sequences `x`, `[N][T][features]`, and writes what the first layer gives,
    /// `[N][T][`[`inner`](Branch::inner)`]`, to `kept` for the backward pass.
    ///
    /// # Errors
    /// [`ShapeError`] when a slice does not fit, or weights were packed for another layer or
    /// direction.
    #[inline(never)]
    pub fn forward(
        &self,
        x: &[f32],
        parameters: Parameters<'_>,
        kept: Option<&mut [E]>,
        y: &mut [f32],
    ) -> Result<(), ShapeError> {
        let (rows, [inner, outer]) = (self.rows(x)?, self.inner());
        let panels = self.panels(&parameters, Direction::Forward)?;
        expect_len("tokens of a branch's result", y.len(), x.len())?;
        expect_len("first bias", parameters.biases[0].len(), inner)?;
        expect_len("second bias", parameters.biases[1].len(), self.features)?;
        if let Some(kept) = &kept {
            expect_len("kept values of a branch", kept.len(), rows * inner)?;
        }
        let (step, features) = (self.task_rows(), self.features);
        let (y, kept) = (Shared::new(y), kept.map_or(Shared::null(), Shared::new));
        for_each(rows.div_ceil(step), |task| {
            let (first, count) = (task * step, (rows - task * step).min(step));
            let attention = self.attention();
            let sizes = [
                count * features,
                count * inner + SLACK,
                attention.map_or(0, |_| count * outer),
                count * pair_row(outer.max(features)),
                attention.map_or(0, |attention| attention.forward_scratch()),
            ];
            with_scratch(sizes.map(Cut::size).iter().sum(), |scratch| {
                let kernel = Forward {
                    attention,
                    norm: parameters.norm,
                    x: &x[first * features..][..count * features],
                    panels,
                    biases: parameters.biases,
                    // SAFETY: `kept` is null or has a row for each token; tasks have tokens of
                    // their own.
                    kept: (!kept.is_null()).then(|| unsafe {
                        std::slice::from_raw_parts_mut(kept.at(first * inner), count * inner)
                    }),
                    y: y.at(first * features),
                    sizes,
                    scratch,
                };
                // SAFETY: the panels fit the layers, `y` has a row for each token of the task, and
                // the scratch memory has the sizes above.
                unsafe { dispatch(self.isa, kernel) };
            });
        });
        Ok(())
    }
}

/// The forward pass of some sequences.
struct Forward<'a, E> {
    attention: Option<Attention>,
    norm: LayerNorm<'a>,
    x: &'a [f32],
    panels: [Panels; 2],
    biases: [&'a [f32]; 2],
    kept: Option<&'a mut [E]>,
    y: *mut f32,
    sizes: [usize; 5],
    scratch: &'a mut [f32],
}

impl<E: Element> Kernel for Forward<'_, E> {
    type Element = E;
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Self { attention, norm, x, panels: [first, second], biases, kept, y, .. } = self;
        let features = norm.gamma.len();
        let (rows, mut cut) = (x.len() / features, Cut(self.scratch));
        let [normed, hidden, outer, pairs, scratch] = self.sizes.map(|len| cut.take(len));
        for (x, normed) in x.chunks_exact(features).zip(normed.chunks_exact_mut(features)) {
            norm.forward_row(x, normed);
        }
        // SAFETY: the caller enabled the features of `S` and promises panels and memory of these
        // sizes.
        unsafe {
            let left = operand::<S>(normed, features, &first, pairs);
            let bias = biases[0].as_ptr();
            let out = Out { at: hidden.as_mut_ptr(), bias, add: std::ptr::null() };
            multiply::<S>(rows, left, &first, out);
            let inner = rows * first.columns;
            if let Some(kept) = kept {
                convert::<S, f32, E>(&hidden[..inner], kept);
            }
            let middle = match attention {
                None => {
                    gelu::<S>(&mut hidden[..inner]);
                    &hidden[..inner]
                }
                Some(attention) => {
                    let (to, from) =
                        (attention.tokens * features, attention.tokens * first.columns);
                    for sequence in 0..rows / attention.tokens {
                        let qkv = hidden.as_ptr().add(sequence * from);
                        let out = outer.as_mut_ptr().add(sequence * to);
                        attention.forward_sequence::<S>(qkv, out, scratch);
                    }
                    &*outer
                }
            };
            let left = operand::<S>(middle, middle.len() / rows, &second, pairs);
            let out = Out { at: y, bias: biases[1].as_ptr(), add: x.as_ptr() };
            multiply::<S>(rows, left, &second, out);
        }
    }
}
