//! The fast gradient sign method (Goodfellow et al. 2015, arXiv 1412.6572); in l2 the step follows the normalised gradient.

use burn::tensor::{Int, Tensor};

use super::{Attack, AttackContext};

/// One step of size epsilon from the clean image.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fgsm;

impl Attack for Fgsm {
    fn run(&self, cx: &mut AttackContext<'_>, x: Tensor<4>, labels: Tensor<1, Int>) -> Tensor<4> {
        let grad = cx.gradient(x.clone(), &labels);
        x + cx.threat.ascent(grad) * cx.threat.epsilon
    }

    fn passes(&self) -> u64 {
        1
    }
}
