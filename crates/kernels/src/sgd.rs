//! Stochastic gradient descent with momentum and weight decay in one pass.

use crate::parallel::block_size;
use crate::parallel::prelude::*;

use crate::error::{ShapeError, expect_len};
use crate::isa::Isa;
use crate::simd::{Kernel, Simd, dispatch};

/// Elements that one task updates.
const CHUNK: usize = block_size(1 << 16, 32);

/// Hyper-parameters of a step, with the meaning they have in `torch.optim.SGD` (dampening 0).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sgd {
    /// Learning rate, which multiplies the step.
    pub learning_rate: f32,
    /// Momentum, the share of the buffer that is kept at each step.
    pub momentum: f32,
    /// Coefficient of the parameters that are added to the gradient (L2 penalty).
    pub weight_decay: f32,
    /// Whether to use Nesterov's momentum.
    pub nesterov: bool,
}

impl Sgd {
    /// Updates `p` and `buffer` from the gradient `g`: `g += weight_decay p; buffer = momentum
    /// buffer + g; p -= learning_rate buffer` (Nesterov: `p -= learning_rate (g + momentum
    /// buffer)`).
    ///
    /// With a momentum buffer of zeros the first step equals PyTorch's first step.
    ///
    /// # Errors
    /// [`ShapeError`] when the lengths differ.
    pub fn step(
        &self,
        isa: Isa,
        parameters: &mut [f32],
        gradient: &[f32],
        buffer: &mut [f32],
    ) -> Result<(), ShapeError> {
        expect_len("gradient", gradient.len(), parameters.len())?;
        expect_len("momentum buffer", buffer.len(), parameters.len())?;
        parameters
            .par_chunks_mut(CHUNK)
            .zip(gradient.par_chunks(CHUNK))
            .zip(buffer.par_chunks_mut(CHUNK))
            .for_each(|((p, g), buffer)| {
                let kernel = Step { sgd: *self, p, g, buffer };
                // SAFETY: the kernel needs nothing but the features of the instruction set, which
                // `dispatch` checks.
                unsafe { dispatch(isa, kernel) };
            });
        Ok(())
    }
}

struct Step<'a> {
    sgd: Sgd,
    p: &'a mut [f32],
    g: &'a [f32],
    buffer: &'a mut [f32],
}

impl Kernel for Step<'_> {
    type Element = f32;
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Sgd { learning_rate, momentum, weight_decay, nesterov } = self.sgd;
        for ((p, &g), buffer) in self.p.iter_mut().zip(self.g).zip(self.buffer) {
            let g = g + weight_decay * *p;
            *buffer = momentum * *buffer + g;
            let step = if nesterov { g + momentum * *buffer } else { *buffer };
            *p -= learning_rate * step;
        }
    }
}
