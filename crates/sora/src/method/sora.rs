//! SORA: free second-order attacks in fast adversarial training (ICML 2026, arXiv 2606.00738).
//!
//! The step size follows an estimate of the loss's curvature along the step that costs nothing. The
//! training pass also yields the gradient `g'` at the perturbed point, and the slopes `<p, g>` at
//! the start and `<p, g'>` at the end of a step along p = sign(g) give a secant of the Hessian.
//! With v the running ratio of the two slopes, a linear model of the slope vanishes at `alpha_0 /
//! (1 - v)`: the Newton step. A flat loss (v near 1) gets long steps, a distorted loss short ones.
//!
//! Step t: `alpha* = min(alpha_max, alpha_0 / (1 - v))`; `eta = box(U(-eps, eps))`; `g = grad L(x +
//! eta)`; `delta = box(eta + alpha* r sign g)` with `r ~ U(0,1)` for each pixel and channel, no
//! projection; train on `x + delta`; `v <- (1 - beta) v + beta v_batch`. In l2, eta is a uniform
//! direction of length U(0, eps), the step `alpha* r g / ||g||_2`.

use std::{collections::BTreeMap, fs, path::Path};

use serde::{Deserialize, Serialize};
use sora_rng::{Key, Purpose, fill_uniform};

use super::{
    Hyperparameters, Method, MethodInfo, Options, StepContext, StepOutput, TrainBatch,
    options::ranges,
    registry::{BOTH, passes},
};
use crate::{
    compute::{self, Number},
    error::{Error, Result},
    nn::{BnMode, HostTensor},
    noise::Draw,
    perturbation::{Bound, Perturb},
};

/// The row of `sora`.
pub static INFO: MethodInfo = MethodInfo {
    name: "sora",
    summary: "random start, one step whose size follows a free second-order estimate and is drawn \
              anew for each pixel",
    source: "SORA 2026, arXiv 2606.00738",
    norms: BOTH,
    attack_bn: BnMode::Train,
    stored_images: 0,
    passes: passes(1),
    bound: 3.0,
    options: Options::defaults::<Sora>,
    build: Options::build::<Sora>,
};

/// How the step factor r is drawn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StepFactor {
    /// U(0,1) for each pixel and channel: the method.
    #[default]
    Pixel,
    /// U(0,1), one for each sample (ablation).
    Sample,
    /// r = 1 (ablation).
    One,
}

/// SORA's hyperparameters: one set for every data set and network. The switches are the paper's
/// ablations, and controls that ask whether it matters that the step adapts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sora {
    /// Largest step in epsilons, 0 to 100.
    pub alpha_max: f64,
    /// Step at v = 0, as a fraction of alpha_max, 0 to 1.
    pub alpha_0: f64,
    /// Weight of the newest batch in the running linearity, 0 to 1.
    pub beta: f64,
    /// Linearity before the first batch, -1 to 1.
    pub v0: f64,
    /// A fixed step in epsilons instead of the adaptive one; negative: adaptive.
    pub fixed_alpha: f64,
    /// `metrics.jsonl` of another sora run, whose steps are taken in an order drawn from
    /// `replay_seed` instead of the adaptive ones: the same steps, without the adaptation. Empty:
    /// adaptive.
    pub replay: String,
    /// Seed of the order of the replayed steps.
    pub replay_seed: u32,
    /// How r is drawn.
    pub r: StepFactor,
    /// Whether the attack starts from random noise.
    pub eta: bool,
}

impl Default for Sora {
    fn default() -> Self {
        Self {
            alpha_max: 2.0,
            alpha_0: 0.02,
            beta: 0.05,
            v0: 0.99,
            fixed_alpha: -1.0,
            replay: String::new(),
            replay_seed: 0,
            r: StepFactor::Pixel,
            eta: true,
        }
    }
}

impl Hyperparameters for Sora {
    fn info() -> &'static MethodInfo {
        &INFO
    }

    fn check(&self) -> Result<()> {
        ranges([
            ("alpha_max", self.alpha_max, 0.0, 100.0),
            ("alpha_0", self.alpha_0, 0.0, 1.0),
            ("beta", self.beta, 0.0, 1.0),
            ("v0", self.v0, -1.0, 1.0),
            ("fixed_alpha", self.fixed_alpha, -1e9, 100.0),
        ])?;
        if !self.replay.is_empty() && self.fixed_alpha >= 0.0 {
            return Err(Error::setting(
                "options.replay",
                &self.replay,
                "goes with no `fixed_alpha`; leave one of the two out",
            ));
        }
        if !self.replay.is_empty() {
            recorded_steps(Path::new(&self.replay))?;
        }
        Ok(())
    }

    fn into_method(self) -> Box<dyn Method> {
        Box::new(Running { v: (self.v0 as f32).into(), replayed: None, options: self })
    }
}

/// Name of the replayed steps in a checkpoint.
const REPLAYED: &str = "replayed";

/// The state of SORA between two steps.
#[derive(Clone, Debug)]
struct Running {
    options: Sora,
    /// Running linearity, on a device from its first step on.
    v: Number,
    /// The steps to replay, in pixel units and in the order in which they are taken.
    replayed: Option<Vec<f32>>,
}

impl Running {
    /// `alpha*` of step `step`, in pixel units.
    fn alpha(&mut self, epsilon: f32, step: u64) -> Result<Number> {
        if self.options.fixed_alpha >= 0.0 {
            return Ok(Number::Known(self.options.fixed_alpha as f32 * epsilon));
        }
        if !self.options.replay.is_empty() {
            return self.replayed(step).map(Number::Known);
        }
        let alpha_max = self.options.alpha_max as f32 * epsilon;
        Ok(self.v.newton_step(self.options.alpha_0 as f32 * alpha_max, alpha_max))
    }

    /// The recorded step for step `step`; a run longer than the record repeats it.
    fn replayed(&mut self, step: u64) -> Result<f32> {
        let steps = match self.replayed.take() {
            Some(steps) => steps,
            None => {
                let recorded = recorded_steps(Path::new(&self.options.replay))?;
                shuffled(recorded, u64::from(self.options.replay_seed))
            }
        };
        let alpha = steps[(step % steps.len() as u64) as usize];
        self.replayed = Some(steps);
        Ok(alpha)
    }
}

/// The step sizes of a recorded run, in pixel units and in order; at least one.
pub(crate) fn recorded_steps(path: &Path) -> Result<Vec<f32>> {
    #[derive(Deserialize)]
    struct Line {
        alpha: f32,
    }
    let text = fs::read_to_string(path).map_err(|e| Error::read(path, e))?;
    let steps = text
        .lines()
        .map(|line| serde_json::from_str::<Line>(line).map(|line| line.alpha))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| Error::damaged(path, format!("expected the steps of a run: {e}")))?;
    if steps.is_empty() || !steps.iter().all(|alpha| alpha.is_finite() && *alpha >= 0.0) {
        return Err(Error::damaged(
            path,
            "expected at least one step, all with an alpha from 0 on",
        ));
    }
    Ok(steps)
}

/// `steps` in an order drawn from `seed`: each step is sorted by a random number of its own.
fn shuffled(steps: Vec<f32>, seed: u64) -> Vec<f32> {
    let mut keys = vec![0.0; steps.len()];
    fill_uniform(&mut keys, Key::new(seed, Purpose::Method(u16::MAX)), &[0]);
    let mut order: Vec<usize> = (0..steps.len()).collect();
    order.sort_by(|&a, &b| keys[a].total_cmp(&keys[b]));
    order.into_iter().map(|place| steps[place]).collect()
}

impl Method for Running {
    fn step(&mut self, cx: &mut StepContext<'_>, batch: &TrainBatch) -> Result<StepOutput> {
        let (shape, device) = (batch.x.dims(), batch.x.device());
        if let Number::Known(v) = self.v {
            self.v = compute::of(&device).kept(v, &device);
        }
        let alpha = self.alpha(cx.threat.epsilon, cx.place.step)?;
        let eta = if self.options.eta {
            batch.clamp_to_box(cx.threat.random_start(cx.noise, shape))
        } else {
            batch.x.zeros_like()
        };
        let grad = cx.input_gradient(batch.at(&eta), &batch.labels).grad;
        let r = match self.options.r {
            StepFactor::Pixel => Some(cx.noise.uniform(Draw::R, shape, 0.0, 1.0)),
            StepFactor::Sample => {
                Some(cx.noise.uniform(Draw::RSample, [shape[0], 1, 1, 1], 0.0, 1.0))
            }
            StepFactor::One => None,
        };
        let delta = cx.threat.step(&batch.x, Some(eta), grad.clone(), alpha.clone(), r, Bound::Box);
        let mut out = cx.train(batch, delta, Some(grad))?.with_alpha(alpha);
        let linearity = out.linearity()?;
        self.v = self.v.blend(&linearity, self.options.beta as f32);
        Ok(out)
    }

    fn state(&self) -> Result<Vec<HostTensor>> {
        let mut state =
            vec![HostTensor { name: "v".into(), shape: vec![1], data: vec![self.v.wait()?] }];
        // The other run may go on and log more, which would change the order.
        state.extend(self.replayed.as_ref().map(|steps| HostTensor {
            name: REPLAYED.into(),
            shape: vec![steps.len()],
            data: steps.clone(),
        }));
        Ok(state)
    }

    fn load_state(&mut self, state: &BTreeMap<String, HostTensor>) -> Result<()> {
        self.replayed =
            state.get(REPLAYED).map(|tensor| tensor.data.clone()).filter(|steps| !steps.is_empty());
        match state.get("v").map(|tensor| tensor.data.as_slice()) {
            Some(&[v]) => {
                self.v = v.into();
                Ok(())
            }
            _ => Err(super::no_state("sora", "v")),
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    fn running(v: Number) -> Running {
        Running { options: Sora::default(), v, replayed: None }
    }

    /// The number as a device keeps it.
    fn on_device(number: f32) -> Number {
        Number::OnDevice(Number::Known(number).tensor(&Device::flex()))
    }

    #[test]
    fn step_size_is_the_newton_step_up_to_alpha_max() {
        for number in [Number::Known, on_device] {
            let at = |v| running(number(v)).alpha(1.0, 0).unwrap().wait().unwrap();
            assert_eq!(at(0.99), 2.0, "alpha_0 / (1 - 0.99) = 4, cut at alpha_max = 2");
            assert!((at(0.9) - 0.4).abs() < 1e-6, "0.04 / 0.1");
            assert!((at(0.0) - 0.04).abs() < 1e-7);
            assert!((at(-1.0) - 0.02).abs() < 1e-7);
            assert_eq!(at(1.0), 2.0);
            assert_eq!(at(f32::NAN), 2.0, "no step that is not a number");
        }
    }

    #[test]
    fn running_linearity_is_the_same_wherever_it_is_kept() {
        let after = |v: Number, batches: [Number; 2]| {
            let v = batches.iter().fold(v, |v, batch| v.blend(batch, 0.05));
            running(v).state().unwrap()[0].data[0]
        };
        let expected = 0.95f32 * (0.95 * 0.99 + 0.05 * 0.5) - 0.05;
        let here = after(0.99.into(), [0.5.into(), (-1.0).into()]);
        let there = after(on_device(0.99), [on_device(0.5), on_device(-1.0)]);
        let taken_over = after(0.99.into(), [on_device(0.5), (-1.0).into()]);
        for found in [here, there, taken_over] {
            assert!((found - expected).abs() < 1e-6, "{found}, not {expected}");
        }
    }

    /// A run's log with these steps.
    fn log(alphas: &[f32]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        let lines = alphas
            .iter()
            .enumerate()
            .map(|(step, alpha)| format!("{{\"step\":{step},\"alpha\":{alpha},\"loss\":1.0}}\n"));
        fs::write(file.path(), lines.collect::<String>()).unwrap();
        file
    }

    #[test]
    fn replayed_steps_are_those_of_the_run_in_an_order_of_the_seed() {
        let alphas: Vec<f32> = (0..100).map(|k| k as f32 / 1000.0).collect();
        let file = log(&alphas);
        let replayed = |replay_seed: u32, from: u64| -> Vec<f32> {
            let replay = file.path().display().to_string();
            let options = Sora { replay, replay_seed, ..Sora::default() };
            let mut running = Running { v: 0.5.into(), replayed: None, options };
            (from..from + 100)
                .map(|step| running.alpha(0.1, step).unwrap().wait().unwrap())
                .collect()
        };
        let first = replayed(0, 0);
        assert_ne!(first, alphas);
        assert_ne!(first, replayed(1, 0));
        let mut sorted = first.clone();
        sorted.sort_by(f32::total_cmp);
        assert_eq!(sorted, alphas, "each step once");
        assert_eq!(replayed(0, 100), first, "a longer run begins again");
        assert_eq!(replayed(0, 50)[..50], first[50..], "a resumed run goes on");
        // The order is kept in the checkpoint, whatever becomes of the other run's log.
        let replay = log(&alphas[..10]).path().display().to_string();
        let mut resumed =
            Running { v: 0.5.into(), replayed: None, options: Sora { replay, ..Sora::default() } };
        let kept = Running { replayed: Some(first.clone()), ..resumed.clone() }.state().unwrap();
        let kept = kept.into_iter().map(|tensor| (tensor.name.clone(), tensor)).collect();
        resumed.load_state(&kept).unwrap();
        assert_eq!(resumed.alpha(0.1, 70).unwrap().wait().unwrap(), first[70]);
        // Neighbours of the recorded run are not neighbours here, so the order carries no
        // information.
        let adjacent = first.windows(2).filter(|w| (w[1] - w[0]).abs() < 0.0015).count();
        assert!(adjacent < 10, "{adjacent}");
    }

    #[test]
    fn a_log_that_is_none_is_refused() {
        for text in ["", "{}\n", "no json\n", "{\"alpha\":-1.0}\n"] {
            let file = tempfile::NamedTempFile::new().unwrap();
            fs::write(file.path(), text).unwrap();
            assert!(recorded_steps(file.path()).is_err(), "{text:?}");
        }
        assert!(recorded_steps(Path::new("/no/such/run/metrics.jsonl")).is_err());
        let both = Sora { replay: "a".into(), fixed_alpha: 2.0, ..Sora::default() };
        assert!(both.check().is_err());
    }
}
