//! A training method from outside the crate, which works in the loop, the run folder and the
//! settings of `sora train`.
//!
//! R+FGSM (Tramer et al. 2018, arXiv 1705.07204): a step of `start` epsilons along random signs,
//! then an FGSM step with the rest of epsilon.
//!
//! ```text
//! cargo run --release --example custom_method -- runs/r-fgsm
//! ```

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use sora::{
    error::{Error, Result},
    method::{
        self, Hyperparameters, Method, MethodInfo, Options, Passes, StepContext, StepOutput,
        TrainBatch, range,
    },
    nn::BnMode,
    noise::Draw,
    run,
    threat::Norm,
    train::Trainer,
};

/// R+FGSM training; the fields are the method's options.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RFgsm {
    /// Size of the random step in epsilons, from 0 to 1.
    start: f64,
}

impl Default for RFgsm {
    fn default() -> Self {
        Self { start: 0.5 }
    }
}

impl Hyperparameters for RFgsm {
    fn info() -> &'static MethodInfo {
        &R_FGSM
    }

    fn check(&self) -> Result<()> {
        range("start", self.start, 0.0, 1.0)
    }

    fn into_method(self) -> Box<dyn Method> {
        Box::new(self)
    }
}

impl Method for RFgsm {
    fn step(&mut self, cx: &mut StepContext<'_>, batch: &TrainBatch) -> Result<StepOutput> {
        let start = self.start as f32 * cx.threat.epsilon;
        let eta = batch.clamp_to_box(cx.noise.sign(Draw::Sign, batch.x.dims()) * start);
        let grad = cx.input_gradient(batch.x.clone() + eta.clone(), &batch.labels).grad;
        let alpha = cx.threat.epsilon - start;
        let delta = batch.clamp_to_box(eta + grad.clone().sign() * alpha);
        Ok(cx.train(batch, delta, Some(grad))?.with_alpha(alpha))
    }
}

static R_FGSM: MethodInfo = MethodInfo {
    name: "r-fgsm",
    summary: "a step of half epsilon along random signs, then one of half epsilon along the gradient's",
    source: "Tramer et al. 2018, arXiv 1705.07204",
    norms: &[Norm::Linf],
    attack_bn: BnMode::Train,
    stored_images: 0,
    passes: Passes { forward: 2, backward_input: 1, backward_full: 1 },
    bound: 1.0,
    options: Options::defaults::<RFgsm>,
    build: Options::build::<RFgsm>,
};

fn main() -> Result<()> {
    let out = std::env::args_os()
        .nth(1)
        .map(PathBuf::from)
        .ok_or_else(|| Error::unfit("call", "expected one argument: the folder of the run"))?;
    method::register(&R_FGSM)?;
    let trainer = Trainer::new(RFgsm { start: 0.25 })
        .set("dataset", "synthetic")
        .model("preact-resnet18", 4)
        .set("limit_train", 1000)
        .set("limit_test", 100)
        .epochs(1)
        .batch(64)
        .in_dir(&out);
    let dataset = run::open_dataset(&trainer.config()?)?;
    let summary = trainer.fit(&dataset)?.summary;
    println!(
        "{} steps of {} in {:.1} s: {:?}",
        summary.steps, summary.method, summary.seconds, summary.passes
    );
    Ok(())
}
