//! ELLE: efficient local linearity regularization (Abad Rocamora et al. 2024, arXiv 2401.11618),
//! and its adaptive form ELLE-A.
//!
//! `delta` is one step of size eps from the image (`base = fgsm`, as in the authors' code), or is
//! made as in FGSM-RS (`fgsm-rs`) or N-FGSM (`n-fgsm`). For each sample, `a = x + U(-eps, eps)`, b
//! likewise, and `c = (1 - t) a + t b` with t ~ U(0,1); `R = mean (L(c) - (1 - t) L(a) - t
//! L(b))^2`; the loss is `L(x + delta) + lambda R`. The 3 N images go through the network as one
//! batch.
//!
//! ELLE-A (`adaptive = true`): lambda starts at 0. Where R exceeds the mean of all its past values
//! by `sensitivity` standard deviations (once there are 3), lambda becomes its largest value;
//! otherwise lambda is multiplied by `decay`. Then R joins the past values.
//!
//! The authors' repository (`official`) has lambda 1000 up to 8/255, 5000 up to 20/255 and 10000
//! above, and 4000 for ELLE-A. A loss uses the lambda of the step before, and a and b may leave [0,
//! 1]. The SORA reference (`reference`) starts as FGSM-RS, has lambda 1000 everywhere and uses the
//! new lambda at once; here a and b are clamped to [0, 1]. Deviations from both: the perturbed
//! image is clamped to [0, 1], which they leave out; and this code omits the pass over clean images
//! by which the authors' code measures accuracy, which also moves their running statistics.

use std::collections::BTreeMap;

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use super::{
    Hyperparameters, Method, MethodInfo, Options, Passes, StepContext, StepOutput, TrainBatch,
    Variant, no_state, options::ranges,
};
use crate::{
    error::Result,
    loss::cross_entropy_per_sample,
    nn::{BnMode, HostTensor, to_vec},
    noise::Draw,
    perturbation::{Bound, Perturb},
    ranks::scope,
    threat::Norm,
};

/// The row of `elle`.
pub static INFO: MethodInfo = MethodInfo {
    name: "elle",
    summary: "fgsm with a penalty on the error of linear interpolation of the loss; adaptive=true \
              gives ELLE-A",
    ..ROW
};

/// The row of `n-fgsm-elle-a`: ELLE-A with the examples of N-FGSM.
pub static INFO_N_FGSM: MethodInfo = MethodInfo {
    name: "n-fgsm-elle-a",
    summary: "n-fgsm with ELLE-A's penalty: the options of elle, other defaults",
    bound: 3.0,
    options: || {
        let with = |form| Elle { adaptive: true, base: Base::NFgsm, ..form };
        Options::of(&with(Elle::default()))?.or_reference(Elle::reference().map(with).as_ref())
    },
    ..ROW
};

/// The common fields of the two rows.
const ROW: MethodInfo = MethodInfo {
    name: "",
    summary: "",
    source: "Abad Rocamora et al. 2024, arXiv 2401.11618",
    norms: &[Norm::Linf],
    attack_bn: BnMode::Train,
    stored_images: 0,
    passes: Passes { forward: 5, backward_input: 1, backward_full: 4 },
    bound: 1.0,
    options: Options::defaults::<Elle>,
    build: Options::build::<Elle>,
};

/// The way in which ELLE's training examples are made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Base {
    /// A step from the image.
    #[default]
    Fgsm,
    /// A step from a random point in the ball, projected on it.
    FgsmRs,
    /// A step from a random point in twice the ball, not projected.
    NFgsm,
}

/// ELLE training.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Elle {
    /// Switches lambda on where the error rises: ELLE-A.
    pub adaptive: bool,
    /// Step size in epsilons, 0 to 100.
    pub alpha: f64,
    /// How the examples are made.
    #[serde(default = "base_of_old_runs")]
    pub base: Base,
    /// ELLE-A: factor of lambda in each step that does not switch it on, 0 to 1.
    pub decay: f64,
    /// Weight of the regulariser; ELLE-A: its largest weight. Negative: the authors' for the
    /// epsilon.
    pub lambda: f64,
    /// ELLE-A: standard deviations above the mean at which lambda is switched on.
    pub sensitivity: f64,
    /// Whose form.
    #[serde(default = "Variant::of_old_runs")]
    pub variant: Variant,
}

fn base_of_old_runs() -> Base {
    Base::FgsmRs
}

impl Default for Elle {
    fn default() -> Self {
        Self {
            adaptive: false,
            alpha: 1.0,
            base: Base::Fgsm,
            decay: 0.99,
            lambda: -1.0,
            sensitivity: 2.0,
            variant: Variant::Official,
        }
    }
}

impl Hyperparameters for Elle {
    fn info() -> &'static MethodInfo {
        &INFO
    }

    fn check(&self) -> Result<()> {
        ranges([
            ("alpha", self.alpha, 0.0, 100.0),
            ("lambda", self.lambda, -1.0, 1e9),
            ("decay", self.decay, 0.0, 1.0),
            ("sensitivity", self.sensitivity, -1e9, 1e9),
        ])
    }

    fn into_method(self) -> Box<dyn Method> {
        Box::new(Running { options: self, lambda: 0.0, past: Vec::new() })
    }

    fn reference() -> Option<Self> {
        Some(Self {
            base: Base::FgsmRs,
            lambda: 1000.0,
            variant: Variant::Reference,
            ..Self::default()
        })
    }
}

impl Elle {
    /// The weight of the regulariser at `epsilon`; for ELLE-A, the largest weight.
    fn lambda_at(&self, epsilon: f32) -> f32 {
        // Between two of the authors' radii, the weight of the lower one is taken.
        let [eight, twenty] = [9.0, 21.0].map(|bound| epsilon < bound / 255.0);
        match (self.adaptive, eight, twenty) {
            _ if self.lambda >= 0.0 => self.lambda as f32,
            (true, ..) => 4000.0,
            (false, true, _) => 1000.0,
            (false, false, true) => 5000.0,
            (false, false, false) => 10_000.0,
        }
    }

    /// Returns the training example's perturbation and the attack pass's gradient.
    fn example(&self, cx: &mut StepContext<'_>, batch: &TrainBatch) -> (Tensor<4>, Tensor<4>) {
        let (shape, alpha) = (batch.x.dims(), self.alpha as f32 * cx.threat.epsilon);
        let wide = 2.0 * cx.threat.epsilon;
        let eta = match self.base {
            Base::Fgsm => None,
            Base::FgsmRs => Some(batch.clamp_to_box(cx.threat.random_start(cx.noise, shape))),
            Base::NFgsm => {
                Some(batch.clamp_to_box(cx.noise.uniform(Draw::Eta, shape, -wide, wide)))
            }
        };
        let point = eta.as_ref().map_or_else(|| batch.x.clone(), |eta| batch.at(eta));
        let grad = cx.input_gradient(point, &batch.labels).grad;
        let bound = if self.base == Base::FgsmRs { Bound::Ball } else { Bound::Box };
        (cx.threat.step(&batch.x, eta, grad.clone(), alpha, None, bound), grad)
    }
}

/// The state of ELLE between two steps.
#[derive(Clone, Debug)]
struct Running {
    options: Elle,
    /// Current weight of ELLE-A.
    lambda: f32,
    /// Past errors of ELLE-A.
    past: Vec<f32>,
}

impl Running {
    /// The weight of ELLE-A after an error.
    fn adapted(&self, error: f32, most: f32) -> f32 {
        let count = self.past.len() as f64;
        let mean = self.past.iter().map(|&e| f64::from(e)).sum::<f64>() / count;
        let variance =
            self.past.iter().map(|&e| (f64::from(e) - mean).powi(2)).sum::<f64>() / count;
        let rises = self.past.len() >= 3
            && f64::from(error) > mean + self.options.sensitivity * variance.sqrt();
        if rises { most } else { self.lambda * self.options.decay as f32 }
    }

    /// The images a, b and c, `[3 N, C, H, W]`, and t, `[N]`.
    fn points(&self, cx: &mut StepContext<'_>, batch: &TrainBatch) -> (Tensor<4>, Tensor<1>) {
        let (shape, epsilon) = (batch.x.dims(), cx.threat.epsilon);
        let n = shape[0];
        let mut end = || {
            let noise = cx.noise.uniform(Draw::Elle, shape, -epsilon, epsilon);
            batch.x.clone()
                + match self.options.variant {
                    Variant::Official => noise,
                    Variant::Reference => batch.clamp_to_box(noise),
                }
        };
        let (a, b) = (end(), end());
        let t = cx.noise.uniform(Draw::T, [n], 0.0, 1.0);
        let along = t.clone().reshape([n, 1, 1, 1]);
        let c = a.clone() * (along.clone().neg() + 1.0) + b.clone() * along;
        (Tensor::cat(vec![a, b, c], 0), t)
    }
}

impl Method for Running {
    fn step(&mut self, cx: &mut StepContext<'_>, batch: &TrainBatch) -> Result<StepOutput> {
        let (n, alpha) = (batch.x.dims()[0], self.options.alpha as f32 * cx.threat.epsilon);
        let most = self.options.lambda_at(cx.threat.epsilon);
        let (delta, grad) = self.options.example(cx, batch);
        let (images, t) = self.points(cx, batch);
        let labels = Tensor::cat(vec![batch.labels.clone(); 3], 0);

        let mut seen = (0.0, 0.0);
        let out = cx.train_with(batch, delta, Some(grad), |pass| {
            let losses = cross_entropy_per_sample(pass.forward(images.clone()), labels.clone());
            let part = |k: usize| losses.clone().narrow(0, k * n, n);
            let gap = part(2) - part(0) * (t.clone().neg() + 1.0) - part(1) * t.clone();
            let error = gap.square().mean();
            let lambda = if self.options.adaptive {
                let value = to_vec(&error.clone().inner())?.first().copied().unwrap_or_default();
                let [value] = scope::mean_values([value]);
                seen = (value, self.adapted(value, most));
                match self.options.variant {
                    Variant::Official => self.lambda,
                    Variant::Reference => seen.1,
                }
            } else {
                most
            };
            let logits = pass.at_point();
            Ok((pass.cross_entropy(logits.clone(), &batch.labels) + error * lambda, logits))
        })?;
        if self.options.adaptive {
            self.past.push(seen.0);
            self.lambda = seen.1;
        }
        Ok(out.with_alpha(alpha))
    }

    fn state(&self) -> Result<Vec<HostTensor>> {
        Ok(vec![
            HostTensor { name: "lambda".into(), shape: vec![1], data: vec![self.lambda] },
            HostTensor {
                name: "past".into(),
                shape: vec![self.past.len()],
                data: self.past.clone(),
            },
        ])
    }

    fn load_state(&mut self, state: &BTreeMap<String, HostTensor>) -> Result<()> {
        let data = |name: &str| {
            state.get(name).map(|tensor| &tensor.data).ok_or_else(|| no_state("elle", name))
        };
        self.lambda = *data("lambda")?.first().ok_or_else(|| no_state("elle", "lambda"))?;
        self.past = data("past")?.clone();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lambda_follows_the_authors_table() {
        let at =
            |eps: f32, adaptive: bool| Elle { adaptive, ..Elle::default() }.lambda_at(eps / 255.0);
        assert_eq!(
            [2.0, 8.0, 10.0, 16.0, 20.0, 22.0, 26.0].map(|e| at(e, false)),
            [1000.0, 1000.0, 5000.0, 5000.0, 5000.0, 10_000.0, 10_000.0]
        );
        assert_eq!([2.0, 26.0].map(|e| at(e, true)), [4000.0, 4000.0]);
        assert_eq!(Elle { lambda: 7.0, ..Elle::default() }.lambda_at(1.0), 7.0);
    }
}
