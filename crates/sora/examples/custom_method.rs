//! A training method from outside the crate, in the loop, the run folder and the settings of `sora
//! train`.
//!
//! R+FGSM (Tramer et al. 2018, arXiv 1705.07204): a step of `start` epsilons along random signs,
//! then an FGSM step of what is left.
//!
//! ```text
//! cargo run --release --example custom_method -- runs/r-fgsm
//! ```

use std::{path::PathBuf, sync::atomic::AtomicBool};

use serde::{Deserialize, Serialize};
use sora::{
    config::TrainOptions,
    error::{Error, Result},
    method::{self, Batch, Method, MethodInfo, Options, Passes, StepContext, StepOutput, boxed},
    nn::BnMode,
    noise::Draw,
    run::{self, RunDir},
    threat::Norm,
    train,
};

/// R+FGSM training; the fields are the method's options.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RFgsm {
    /// Size of the random step in epsilons, from 0 to 1.
    start: f64,
}

impl RFgsm {
    fn check(self) -> Result<Self> {
        if !(0.0..=1.0).contains(&self.start) {
            return Err(Error::input(format!("option 'start' = {}: expected 0 to 1", self.start)));
        }
        Ok(self)
    }
}

impl Method for RFgsm {
    fn step(&mut self, cx: &mut StepContext<'_>, batch: &Batch) -> Result<StepOutput> {
        let start = self.start as f32 * cx.threat.epsilon;
        let eta = boxed(batch, cx.noise.sign(Draw::Sign, batch.x.dims()) * start);
        let grad = cx.input_gradient(batch.x.clone() + eta.clone(), &batch.labels).grad;
        let alpha = cx.threat.epsilon - start;
        let delta = boxed(batch, eta + grad.clone().sign() * alpha);
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
    options: || Options::of(&RFgsm { start: 0.5 }),
    build: |options, _| Ok(Box::new(options.parse::<RFgsm>("r-fgsm")?.check()?)),
};

fn main() -> Result<()> {
    let out = std::env::args_os()
        .nth(1)
        .map(PathBuf::from)
        .ok_or_else(|| Error::input("expected one argument: the folder of the run"))?;
    method::register(&R_FGSM)?;
    let options = TrainOptions {
        dataset: Some("synthetic".into()),
        method: Some("r-fgsm".into()),
        width: Some(4),
        epochs: Some(1),
        batch: Some(64),
        limit_train: Some(1000),
        limit_test: Some(100),
        set: vec!["start=0.25".into()],
        ..TrainOptions::default()
    };
    let mut config = options.resolve()?;
    let dataset = run::open_dataset(&config)?;
    let data = run::prepare(&mut config, &dataset)?;
    let dir = RunDir::create(&out, &config)?;
    let summary = train::train(&dir, &config, &data, &AtomicBool::new(false))?;
    println!(
        "{} steps of {} in {:.1} s: {:?}",
        summary.steps, summary.method, summary.seconds, summary.passes
    );
    Ok(())
}
