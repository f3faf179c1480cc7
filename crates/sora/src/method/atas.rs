//! ATAS: adversarial training with adaptive step size (Huang et al. 2022, "Fast adversarial
//! training with adaptive step size", arXiv 2206.02417).
//!
//! The method keeps a perturbation for each image, and an average m of its squared gradient norm.
//! Step: `g = g(x + box(delta_i))` (in eval mode, as in the authors' code, unless the run sets
//! another mode); `m_i <- decay m_i + (1 - decay) ||g||_2^2`, from 0; `alpha_i = clamp(2 u / (1 +
//! sqrt(m_i) / c), least u, most u)`; `delta = box(ball(delta_i + alpha_i sign g))`, which is
//! trained on and kept. In the first `warmup` epochs alpha is eps and m is not changed.
//! Perturbations start anew at U(-eps, eps).
//!
//! The authors' repository (`official`) takes steps of 4/255 to 14/255 at every epsilon, that is, u
//! = 8/255. It starts the perturbations anew before epochs `reset`, 2 `reset`, ..., counted from 1,
//! except before the last epoch. The SORA reference (`reference`) has u = eps, and starts anew
//! after `reset` epochs.
//!
//! Perturbations are kept in the coordinates of the image before augmentation, so they survive
//! another crop or flip; no other augmentation is allowed. Memory: one image of f32 for each
//! training image, twice that while a checkpoint is written.

use std::collections::BTreeMap;

use burn::tensor::{Tensor, TensorData};
use serde::{Deserialize, Serialize};

use super::{
    DataInfo, Hyperparameters, Method, MethodInfo, Options, Place, StepContext, StepOutput,
    TrainBatch, Variant, no_state, options::ranges, registry::passes, store::SampleStore,
};
use crate::{
    error::Result,
    nn::{BnMode, HostTensor, to_vec},
    noise::Draw,
    perturbation::{Perturb, sum_per_sample},
    ranks::share,
    threat::Norm,
};

/// The row of `atas`.
pub static INFO: MethodInfo = MethodInfo {
    name: "atas",
    summary: "a stored perturbation for each image, one step whose size falls with the image's gradient norm",
    source: "Huang et al. 2022, arXiv 2206.02417",
    norms: &[Norm::Linf],
    attack_bn: BnMode::Eval,
    stored_images: 1,
    passes: passes(1),
    bound: 1.0,
    options: Options::defaults::<Atas>,
    build: Options::build::<Atas>,
};

/// ATAS training.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Atas {
    /// Gradient norm at which the step is half its largest value, above 0.
    pub c: f64,
    /// Weight of the past in the average, 0 to 1.
    pub decay: f64,
    /// Largest step in units of 8/255 (official) or epsilon (reference), 0 to 100.
    pub most: f64,
    /// Smallest step in the same units, 0 to `most`.
    pub least: f64,
    /// Epochs between fresh starts; 0: never.
    pub reset: u64,
    /// Epochs with steps of epsilon.
    pub warmup: u64,
    /// Whose form.
    #[serde(default = "Variant::of_old_runs")]
    pub variant: Variant,
}

impl Default for Atas {
    fn default() -> Self {
        Self {
            c: 0.01,
            decay: 0.5,
            most: 1.75,
            least: 0.5,
            reset: 10,
            warmup: 5,
            variant: Variant::Official,
        }
    }
}

impl Hyperparameters for Atas {
    fn info() -> &'static MethodInfo {
        &INFO
    }

    fn check(&self) -> Result<()> {
        ranges([
            ("c", self.c, 1e-12, 1e12),
            ("decay", self.decay, 0.0, 1.0),
            ("most", self.most, 0.0, 100.0),
            ("least", self.least, 0.0, self.most),
        ])
    }

    fn into_method(self) -> Box<dyn Method> {
        let (delta, m) = (SampleStore::default(), BTreeMap::new());
        Box::new(Running { options: self, delta, m, resets: 0 })
    }

    fn reference() -> Option<Self> {
        Some(Self { variant: Variant::Reference, ..Self::default() })
    }
}

impl Atas {
    /// The unit of the step sizes, in pixel units.
    fn unit(&self, epsilon: f32) -> f32 {
        match self.variant {
            Variant::Official => 8.0 / 255.0,
            Variant::Reference => epsilon,
        }
    }

    /// Number of fresh starts up to and including an epoch.
    fn resets(&self, Place { epoch, epochs, .. }: Place) -> u64 {
        let begun = match self.variant {
            // The epochs are counted from 1; the last epoch continues with the perturbations of the
            // one before.
            Variant::Official => (epoch + 1).min(epochs.saturating_sub(1).max(epoch)),
            Variant::Reference => epoch,
        };
        begun.checked_div(self.reset).unwrap_or(0)
    }
}

/// The state of ATAS between two steps.
#[derive(Clone, Debug)]
struct Running {
    options: Atas,
    delta: SampleStore,
    /// Average squared gradient norm of each image.
    m: BTreeMap<u32, f32>,
    /// Number of fresh starts so far.
    resets: u64,
}

impl Running {
    /// Step size of each image, in pixel units.
    fn steps(
        &mut self,
        cx: &StepContext<'_>,
        batch: &TrainBatch,
        grad: &Tensor<4>,
    ) -> Result<Vec<f32>> {
        let epsilon = cx.threat.epsilon;
        if cx.place.epoch < self.options.warmup {
            return Ok(vec![epsilon; batch.ids.len()]);
        }
        let unit = self.options.unit(epsilon);
        let Atas { c, decay, most, least, .. } = self.options;
        let squared = to_vec(&sum_per_sample(grad.clone().square()))?;
        let step = |(id, squared): (&u32, f32)| {
            let m = self.m.entry(*id).or_default();
            *m = decay as f32 * *m + (1.0 - decay as f32) * squared;
            (2.0 * unit / (1.0 + m.sqrt() / c as f32))
                .clamp(least as f32 * unit, most as f32 * unit)
        };
        let steps = batch.ids.iter().zip(squared).map(step).collect();
        let of = |id: &u32| self.m.get(id).map(std::slice::from_ref);
        if let Some(others) = share::by_image(&batch.ids, 1, of) {
            self.m.extend(others.into_iter().filter_map(|(id, m)| Some((id, *m.first()?))));
        }
        Ok(steps)
    }
}

impl Method for Running {
    fn memory(&self, data: &DataInfo) -> Result<u64> {
        SampleStore::memory("atas", data)
    }

    fn step(&mut self, cx: &mut StepContext<'_>, batch: &TrainBatch) -> Result<StepOutput> {
        let resets = self.options.resets(cx.place);
        if resets != self.resets {
            self.delta.clear();
            self.resets = resets;
        }
        let epsilon = cx.threat.epsilon;
        let start = self
            .delta
            .gather(batch, || cx.noise.uniform(Draw::Delta, batch.x.dims(), -epsilon, epsilon))?;
        let start = batch.clamp_to_box(start);
        let grad = cx.input_gradient(batch.at(&start), &batch.labels).grad;
        let steps = self.steps(cx, batch, &grad)?;
        let mean = steps.iter().sum::<f32>() / steps.len().max(1) as f32;
        let n = steps.len();
        let alpha = Tensor::<4>::from_data(TensorData::new(steps, [n, 1, 1, 1]), &batch.x.device());
        let delta = batch.clamp_to_box(cx.threat.project(start + grad.clone().sign() * alpha));
        self.delta.scatter(batch, &delta)?;
        Ok(cx.train(batch, delta, Some(grad))?.with_alpha(mean))
    }

    fn state(&self) -> Result<Vec<HostTensor>> {
        let mut state = self.delta.state("delta");
        let (ids, m): (Vec<_>, Vec<_>) =
            self.m.iter().map(|(&id, &m)| (f32::from_bits(id), m)).unzip();
        state.push(HostTensor { name: "m.ids".into(), shape: vec![ids.len()], data: ids });
        state.push(HostTensor { name: "m".into(), shape: vec![m.len()], data: m });
        state.push(HostTensor {
            name: "resets".into(),
            shape: vec![1],
            data: vec![self.resets as f32],
        });
        Ok(state)
    }

    fn load_state(&mut self, state: &BTreeMap<String, HostTensor>) -> Result<()> {
        self.delta = SampleStore::load(state, "delta", "atas")?;
        let data = |name: &str| {
            state
                .get(name)
                .map(|tensor| tensor.data.as_slice())
                .ok_or_else(|| no_state("atas", name))
        };
        self.m =
            data("m.ids")?.iter().map(|id| id.to_bits()).zip(data("m")?.iter().copied()).collect();
        self.resets = data("resets")?.first().copied().unwrap_or_default() as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fresh_starts_come_when_the_authors_make_them() {
        let epochs_with_one = |options: Atas| -> Vec<u64> {
            let resets = |epoch| options.resets(Place { epoch, epochs: 30, ..Place::default() });
            (1..30).filter(|&epoch| resets(epoch) != resets(epoch - 1)).collect()
        };
        // Epochs are counted from 0 here, so 9 is the tenth.
        assert_eq!(epochs_with_one(Atas::default()), [9, 19]);
        assert_eq!(epochs_with_one(Atas::reference().unwrap()), [10, 20]);
        assert!(epochs_with_one(Atas { reset: 0, ..Atas::default() }).is_empty());
    }

    #[test]
    fn official_steps_do_not_know_epsilon() {
        assert_eq!(Atas::default().unit(16.0 / 255.0), 8.0 / 255.0);
        assert_eq!(Atas::reference().unwrap().unit(16.0 / 255.0), 16.0 / 255.0);
    }
}
