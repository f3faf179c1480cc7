//! LAP: layer-aware adversarial weight perturbation (Lin et al. 2024, "Layer-aware analysis of
//! catastrophic overfitting: revealing the pseudo-robust shortcut dependency", ICML, arXiv
//! 2405.16262), by the authors' code.
//!
//! One pass at `x + eta` gives the gradient g by the pixels and G by the weights. `delta` is a step
//! along sign g: from x (`base = fgsm`, V-LAP), as in FGSM-RS (R-LAP), or as in N-FGSM (N-LAP).
//! Each tensor w of more than one dimension, the l-th of L, is moved by `beta (1 - (ln l / ln
//! L)^gamma) ||w|| d / ||d||`, where d is the update that the optimizer would make of G, with
//! momentum and weight decay. The first layers, on which catastrophic overfitting relies, move
//! most, and the last does not move. The training pass and its update continue from the moved
//! weights.
//!
//! The authors' code does the same: it moves down the loss, and does not take the move back. The
//! move does not change the optimizer's momentum. With an optimizer without momentum, d is -G. beta
//! at 8/255 is 0.03 for V-LAP, 0.002 for R-LAP and 0.001 for N-LAP; at 12/255 0.058, 0.03, 0.002;
//! at 16/255 0.07, 0.05, 0.005 (their CIFAR-10 commands).

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use super::{
    Hyperparameters, Method, MethodInfo, Options, Passes, StepContext, StepOutput, TrainBatch,
    elle::Base, options::ranges,
};
use crate::{
    error::Result,
    nn::{BnMode, TensorSet},
    noise::Draw,
    optim::Velocity,
    perturbation::{Bound, Perturb},
    threat::Norm,
};

/// The row of `lap`.
pub static INFO: MethodInfo = MethodInfo {
    name: "lap",
    summary: "n-fgsm at weights moved along the attack pass's update, the first layers most",
    source: "Lin et al. 2024, arXiv 2405.16262",
    norms: &[Norm::Linf],
    attack_bn: BnMode::Train,
    stored_images: 0,
    passes: Passes { forward: 2, backward_input: 0, backward_full: 2 },
    bound: 3.0,
    options: Options::defaults::<Lap>,
    build: Options::build::<Lap>,
};

/// LAP training.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Lap {
    /// Step size in epsilons, 0 to 100; the authors' R-LAP takes 1.25.
    pub alpha: f64,
    /// How the examples are made.
    pub base: Base,
    /// Size of the move relative to the weights, 0 to 1.
    pub beta: f64,
    /// How fast the move falls from layer to layer, above 0.
    pub gamma: f64,
}

impl Default for Lap {
    fn default() -> Self {
        Self { alpha: 1.0, base: Base::NFgsm, beta: 0.001, gamma: 0.3 }
    }
}

impl Hyperparameters for Lap {
    fn info() -> &'static MethodInfo {
        &INFO
    }

    fn check(&self) -> Result<()> {
        ranges([
            ("alpha", self.alpha, 0.0, 100.0),
            ("beta", self.beta, 0.0, 1.0),
            ("gamma", self.gamma, 1e-6, 1e6),
        ])
    }

    fn into_method(self) -> Box<dyn Method> {
        Box::new(self)
    }
}

impl Lap {
    /// The factor of the move of layer `layer` of `layers`, counted from 1.
    fn share(&self, layer: usize, layers: usize) -> f64 {
        if layers < 2 {
            return 1.0;
        }
        1.0 - ((layer as f64).ln() / (layers as f64).ln()).powf(self.gamma)
    }

    /// `params`, moved along the update that an optimizer with `velocity` would make of
    /// `gradients`.
    fn moved(
        &self,
        params: &TensorSet,
        gradients: &[Tensor<1>],
        velocity: Option<Velocity<'_>>,
    ) -> TensorSet {
        let length = |t: &Tensor<1>| t.clone().square().sum().sqrt();
        let places: Vec<usize> = params
            .specs()
            .iter()
            .enumerate()
            .filter(|(_, spec)| spec.shape.len() > 1)
            .map(|(place, _)| place)
            .collect();
        let mut moved = params.clone();
        for (k, &place) in places.iter().enumerate() {
            let (value, mut update) = (&params.values()[place], gradients[place].clone());
            if let Some(Velocity { buffers, momentum, weight_decay }) = velocity {
                update = update
                    + value.clone() * weight_decay
                    + buffers.values()[place].clone() * momentum;
            }
            let size = self.beta * self.share(k + 1, places.len());
            let factor = length(value) / length(&update).clamp_min(1e-20) * size;
            moved.set(place, value.clone() - update * factor);
        }
        moved
    }
}

impl Method for Lap {
    fn step(&mut self, cx: &mut StepContext<'_>, batch: &TrainBatch) -> Result<StepOutput> {
        let (shape, alpha) = (batch.x.dims(), self.alpha as f32 * cx.threat.epsilon);
        let wide = 2.0 * cx.threat.epsilon;
        let eta = match self.base {
            Base::Fgsm => batch.x.zeros_like(),
            Base::FgsmRs => batch.clamp_to_box(cx.threat.random_start(cx.noise, shape)),
            Base::NFgsm => batch.clamp_to_box(cx.noise.uniform(Draw::Eta, shape, -wide, wide)),
        };
        let attack = cx.weight_gradient(batch.at(&eta), &batch.labels);
        let bound = if self.base == Base::NFgsm { Bound::Box } else { Bound::Ball };
        let grad = attack.input;
        let delta = cx.threat.step(&batch.x, Some(eta), grad.clone(), alpha, None, bound);
        cx.model.params = self.moved(&cx.model.params, &attack.params, cx.velocity);
        Ok(cx.train(batch, delta, Some(grad))?.with_alpha(alpha))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_layer_moves_wholly_and_the_last_not_at_all() {
        let shares: Vec<f64> = (1..=21).map(|layer| Lap::default().share(layer, 21)).collect();
        assert_eq!((shares[0], shares[20]), (1.0, 0.0));
        assert!(shares.windows(2).all(|pair| pair[0] > pair[1]), "{shares:?}");
        assert_eq!(Lap::default().share(1, 1), 1.0);
    }
}
